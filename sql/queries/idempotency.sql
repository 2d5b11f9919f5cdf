-- Idempotency: the first answers of POSTs that carry an Idempotency-Key. Each actor has keys of their own.

-- name: lock
-- Whether nobody else is busy with this key; if so it is ours until the end of the transaction.
select pg_try_advisory_xact_lock(hashtextextended(history.actor() || ' ' || :'key', 0)) as mine

-- name: get
-- The first answer to this key. No row: there was none in the last 24 hours.
select
    a.fingerprint,
    a.status,
    a.headers,
    a.body
from first_answers as a
where a.actor = history.actor()
    and a.key = :'key'
    and a.created_at > now() - interval '24 hours'

-- name: room
-- How much is kept of this caller, and after how many seconds the oldest of it is forgotten. An hour counts until its end is a day ago.
select
    coalesce(sum(c.answers), 0)::bigint as answers,
    coalesce(sum(c.bytes), 0)::bigint as bytes,
    extract(epoch from coalesce(min(c.hour), now()) + interval '25 hours' - now())::double precision as seconds
from answer_counts as c
where c.actor = history.actor()
    and c.hour > now() - interval '25 hours'

-- name: keep
-- The first answer to this key, and that it is kept; some that are too old are swept out on the way.
with swept as (
    delete from first_answers as a
    where (a.actor, a.key) in (
        select o.actor, o.key
        from first_answers as o
        where o.created_at <= now() - interval '24 hours'
            and (o.actor, o.key) <> (history.actor(), :'key')
        order by o.created_at
        limit 10
        for update skip locked
    )
),
uncounted as (
    delete from answer_counts as c
    where (c.actor, c.hour, c.slot) in (
        select o.actor, o.hour, o.slot
        from answer_counts as o
        where o.hour <= now() - interval '25 hours'
        order by o.hour
        limit 10
        for update skip locked
    )
),
counted as (
    insert into answer_counts as c (actor, hour, slot, answers, bytes)
    values (history.actor(), date_trunc('hour', now(), 'UTC'), pg_backend_pid() % 8, 1, octet_length(:'body'))
    on conflict (actor, hour, slot) do update
    set answers = c.answers + excluded.answers,
        bytes = c.bytes + excluded.bytes
)
insert into first_answers (actor, key, fingerprint, status, headers, body)
values (history.actor(), :'key', :'fingerprint', :'status'::integer, :'headers'::json, :'body')
on conflict (actor, key) do update
set fingerprint = excluded.fingerprint,
    status = excluded.status,
    headers = excluded.headers,
    body = excluded.body,
    created_at = excluded.created_at
returning status
