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
        set relay_at = now() + :'seconds'::integer * interval '1 second'
        from due as d
        where o.event_id = d.event_id
        returning
            o.event_id,
            o.user_id
    )
select
    e.id::text as event_id,
    c.user_id,
    e.description
from claimed as c
join events as e on e.id = c.event_id
order by e.id

-- name: postpone
-- When these events (ids, separated by commas) are due once more: long after the broker confirmed them, should it lose them; at once
-- where it did not. Not those that were tried in vain meanwhile: when they are due again is settled.
update outbox as o
set relay_at = now() + :'seconds'::integer * interval '1 second'
where o.event_id = any (string_to_array(:'ids', ',')::uuid[])
    and o.relay_at > now()
    and (o.retry_at is null or o.retry_at <= now())

-- name: lock
-- The line of a user, for this connection alone until it unlocks it or is gone: events of one user are sent one after the other.
select pg_advisory_lock(hashtextextended('outbox of ' || :'user_id', 0))

-- name: unlock
-- The line of a user, left to others.
select pg_advisory_unlock(hashtextextended('outbox of ' || :'user_id', 0))

-- name: first
-- The event at the head of a user's line, and whether it must wait for its next try. No row: nothing waits.
select
    e.id::text as event_id,
    e.user_id,
    e.description,
    coalesce(o.retry_at > now(), false) as held,
    o.tries
from outbox as o
join events as e on e.id = o.event_id
where o.user_id = :'user_id'
order by o.event_id
limit 1

-- name: processed
-- An event that was sent. No row: it was not waiting any more.
update events as e
set status = 'Processed'
where e.id = :'event_id'::uuid
    and e.status = 'NotProcessed'
returning e.version

-- name: failed
-- A try that failed: the next after so many seconds, or none where `most` have failed.
with
    tried as (
        update outbox as o
        set tries = o.tries + 1,
            retry_at = now() + :'seconds'::float * interval '1 second',
            relay_at = now() + :'seconds'::float * interval '1 second'
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

-- name: known
-- Whose an event is. No row: there is no such event.
select e.user_id
from events as e
where e.id = :'event_id'::uuid

-- name: waiting
-- How many events wait, and for how many seconds the oldest of them.
select
    count(*) as events,
    coalesce(extract(epoch from clock_timestamp() - min(e.created_at)), 0)::float as seconds
from outbox as o
join events as e on e.id = o.event_id

-- name: say
-- Whether the broker takes events, for outbox.broker.
insert into broker as b (name, up)
values (:'name', :'up'::boolean)
on conflict on constraint broker_pkey do update
set up = excluded.up,
    said_at = clock_timestamp()

-- name: broker
-- Whether a relay said within the last seconds that the broker takes events. No row: no relay ever spoke of it.
select b.up and b.said_at > now() - :'seconds'::integer * interval '1 second' as up
from broker as b
where b.name = :'name'
