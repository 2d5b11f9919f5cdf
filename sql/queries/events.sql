-- Events: /events, what somebody is to be told. How they are sent is in outbox.sql; the channel of changes is in feed.sql.

-- name: get
-- One event. No row: there is none.
select
    e.version,
    pick(events_json(e), :'fields') as body
from events as e
where e.id = :'id'::uuid

-- name: as_of
-- One event as it was: in a version, or at a time. No row: there was none.
select
    e.version,
    pick(events_json(e), :'fields') as body
from history.as_of('events', to_json(:'id'::uuid)::text, :'as_of', (select to_jsonb(e) from events as e where e.id = :'id'::uuid)) as past (object)
cross join jsonb_populate_record(null::events, past.object) as e

-- name: list
-- A page of events by id, which is the order of time, after the one with `after_id`.
select
    page.next,
    page.body,
    history.place() as place
from page(array(
    select e.listed
    from (
        select listed(events_json(e), '', e.id::text, :'fields')
        from events as e
        where e.id > (select coalesce(nullif(:'after_id', '')::uuid, '00000000-0000-0000-0000-000000000000'))
            and matches(e, :'user_id', :'status') -- filter
        order by e.id
        limit 1001
    ) as e (listed)
    limit (select page_size(:'limit') + 1)
), :'sort', page_size(:'limit'), :'form')

-- name: list_desc
-- The same from the last to the first.
select
    page.next,
    page.body,
    history.place() as place
from page(array(
    select e.listed
    from (
        select listed(events_json(e), '', e.id::text, :'fields')
        from events as e
        where e.id < (select coalesce(nullif(:'after_id', '')::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
            and matches(e, :'user_id', :'status') -- filter
        order by e.id desc
        limit 1001
    ) as e (listed)
    limit (select page_size(:'limit') + 1)
), '-id', page_size(:'limit'), :'form')

-- name: create
-- A new event; with it goes its row in the outbox.
insert into events as e (user_id, description)
select
    n.user_id,
    n.description
from jsonb_populate_record(null::events, :'body'::jsonb) as n
returning
    e.id,
    e.version,
    events_json(e) as body

-- name: change
-- The members given, saved over the version read (one of a comma-separated list, or * for any). No row: gone, or changed since.
-- With a `base` over any version: what the caller changed since then; an error where others changed the same.
update events as e
set (user_id, description, status) = (
    select
        n.user_id,
        n.description,
        n.status
    from jsonb_populate_record(
        e,
        case
            when :'base' in ('', e.version::text) then :'body'::jsonb
            else history.mine('events', to_jsonb(e), nullif(:'base', '')::integer, :'body'::jsonb)
        end
    ) as n
)
where e.id = :'id'::uuid
    and (:'base' <> '' or :'versions' = '*' or e.version::text = any (string_to_array(:'versions', ',')))
returning
    e.version,
    events_json(e) as body

-- name: remove
-- An event gone, if it still is the version read. No row: gone already, or changed since.
delete from events as e
where e.id = :'id'::uuid
    and (:'versions' = '*' or e.version::text = any (string_to_array(:'versions', ',')))
returning
    e.version

-- name: requeue
-- A failed event to be sent again, with all its tries. No row: there is no such event, or it has not failed.
update events as e
set status = 'NotProcessed'
where e.id = :'id'::uuid
    and e.status = 'Failed'
returning
    e.version,
    events_json(e) as body

-- name: failures
-- A page of the tries that failed, after the one with `after_id`.
select
    page.next,
    page.body,
    history.place() as place
from page(array(
    select f.listed
    from (
        select listed(event_failures_json(f), '', f.id::text, :'fields')
        from event_failures as f
        where f.event_id = :'event_id'::uuid
            and (f.event_id, f.id) > ((select :'event_id'::uuid), id_after(:'after_id'))
        order by f.id
        limit 1001
    ) as f (listed)
    limit (select page_size(:'limit') + 1)
), :'sort', page_size(:'limit'), :'form')

-- name: failures_desc
-- The same from the last to the first.
select
    page.next,
    page.body,
    history.place() as place
from page(array(
    select f.listed
    from (
        select listed(event_failures_json(f), '', f.id::text, :'fields')
        from event_failures as f
        where f.event_id = :'event_id'::uuid
            and (f.event_id, f.id) < ((select :'event_id'::uuid), id_before(:'after_id'))
        order by f.id desc
        limit 1001
    ) as f (listed)
    limit (select page_size(:'limit') + 1)
), '-id', page_size(:'limit'), :'form')
