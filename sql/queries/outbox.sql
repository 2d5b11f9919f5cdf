-- Outbox: how events are sent. A relay claims what is due and hands it on; a notifier takes the line of a user, in order.

-- name: claim
-- Events that are due, handed on by nobody else for so many seconds: a relay that dies with them only delays them.
with
    due as (
        select o.event_id
        from outbox as o
        where o.relay_at <= now()
        order by
            o.relay_at,
            o.event_id
        limit :'limit'::integer
        for update skip locked
    ),
    claimed as (
        update outbox as o
        set relay_at = now() + :'seconds'::integer * interval '1 second',
            dated_at = now()
        from due as d
        where o.event_id = d.event_id
        returning
            o.event_id,
            o.user_id,
            o.place
    )
select
    e.id::text as event_id,
    c.user_id,
    e.description
from claimed as c
join events as e on e.id = c.event_id
order by c.place

-- name: postpone
-- When these events (ids, separated by commas) are due once more: long after the broker confirmed them, should it lose them; at once
-- where it did not. Not those that were tried in vain meanwhile: when they are due again is settled. Nor those that a notifier just now
-- notes as sent or failed: it notes many at once, and each would wait for the other.
with
    handed_on as (
        select o.event_id
        from outbox as o
        where o.event_id = any (string_to_array(:'ids', ',')::uuid[])
            and o.relay_at > now()
            and (o.retry_at is null or o.retry_at <= now())
        for update skip locked
    )
update outbox as o
set relay_at = now() + :'seconds'::integer * interval '1 second',
    dated_at = now()
from handed_on as h
where o.event_id = h.event_id

-- name: lock
-- Which of these users' lines are this connection's alone, until it unlocks them or is gone: events of one user are sent one after the
-- other. Those that another connection has are left to it: to wait for them would hold up other users.
select u.user_id
from unnest(:'user_ids'::text[]) as u (user_id)
where pg_try_advisory_lock(hashtextextended('outbox of ' || u.user_id, 0))
order by u.user_id

-- name: unlock
-- All lines that this connection has, left to others.
select pg_advisory_unlock_all()

-- name: left
-- The heads of these users' lines that nobody would hand on soon, though they wait for no next try: asked after the lines were unlocked,
-- as whoever was told of them meanwhile found them locked and left them.
select o.event_id::text
from unnest(:'user_ids'::text[]) as u (user_id)
cross join lateral (
    select
        o.event_id,
        o.relay_at,
        o.retry_at
    from outbox as o
    where o.user_id = u.user_id
    order by o.place
    limit 1
) as o
where o.relay_at > now()
    and (o.retry_at is null or o.retry_at <= now())
order by o.event_id

-- name: due
-- An event is to be handed on at once, unless it waits for its next try.
update outbox as o
set relay_at = now(),
    dated_at = now()
where o.event_id = :'event_id'::uuid
    and (o.retry_at is null or o.retry_at <= now())

-- name: first
-- The events at the heads of these users' lines, at most so many, in order; none that waits for its next try, and none behind such a one.
select
    e.id::text as event_id,
    e.user_id,
    e.description,
    o.tries
from unnest(:'user_ids'::text[]) as u (user_id)
cross join lateral (
    select
        o.event_id,
        o.tries,
        o.place,
        bool_or(coalesce(o.retry_at > now(), false)) over (order by o.place) as held
    from outbox as o
    where o.user_id = u.user_id
    order by o.place
    limit :'limit'::integer
) as o
join events as e on e.id = o.event_id
where not o.held
order by o.place
limit :'limit'::integer

-- name: processed
-- Events (ids, separated by commas) that were sent; those that were not waiting any more are left as they are.
update events as e
set status = 'Processed'
where e.id = any (string_to_array(:'ids', ',')::uuid[])
    and e.status = 'NotProcessed'

-- name: failed
-- A try that failed: the next after so many seconds, or none where `most` have failed.
with
    tried as (
        update outbox as o
        set tries = o.tries + 1,
            retry_at = now() + :'seconds'::float * interval '1 second',
            relay_at = now() + :'seconds'::float * interval '1 second',
            dated_at = now()
        where o.event_id = :'event_id'::uuid
        returning
            o.event_id,
            o.tries
    ),
    logged as (
        insert into event_failures (event_id, try, reason)
        select
            t.event_id,
            t.tries,
            left(:'reason', 1000)
        from tried as t
    ),
    given_up as (
        update events as e
        set status = 'Failed'
        from tried as t
        where e.id = t.event_id
            and t.tries >= :'most'::integer
        returning e.id
    )
select
    t.tries,
    exists (select from given_up) as given_up
from tried as t

-- name: reckon
-- What was dated by a clock that has been set back since is due now: it would wait until the clock is there again.
update outbox as o
set relay_at = now(),
    retry_at = null,
    dated_at = now()
where o.dated_at > now() + interval '1 second'

-- name: unknown
-- Which of these events (ids, separated by commas) there are not.
select u.event_id::text
from unnest(string_to_array(:'ids', ',')::uuid[]) as u (event_id)
where not exists (select from events as e where e.id = u.event_id)
order by u.event_id

-- name: waiting
-- How many events wait, counted up to so many, and for how many seconds the oldest of them: ids count up with time.
select
    (
        select count(*)
        from (
            select
            from outbox as o
            limit :'most'::integer
        ) as counted
    ) as events,
    coalesce(
        (
            select greatest(extract(epoch from clock_timestamp() - e.created_at), 0)
            from outbox as o
            join events as e on e.id = o.event_id
            order by o.event_id
            limit 1
        ),
        0
    )::float as seconds

-- name: say
-- Whether the broker takes events, for outbox.broker.
insert into broker as b (name, up)
values (:'name', :'up'::boolean)
on conflict on constraint broker_pkey do update
set up = excluded.up,
    said_at = clock_timestamp()

-- name: broker
-- Whether a relay said within the last seconds that the broker takes events. No row: no relay ever spoke of it.
select b.up and abs(extract(epoch from now() - b.said_at)) < :'seconds'::integer as up
from broker as b
where b.name = :'name'
