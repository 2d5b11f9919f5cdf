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
-- A page of events after the cursor, in the order of their ids, which is that of time; planned for the values at hand (see users.list).
select
    page.next,
    page.body
from (
    select
        array_agg(e.item) as items,
        array_agg(''::text) as keys,
        array_agg(e.id) as ids
    from (
        select
            pick(events_json(e), :'fields')::text as item,
            e.id::text as id
        from events as e
        where (:'user_id' = '' or e.user_id = :'user_id')
            and (:'status' = '' or e.status = :'status')
            and (
                :'cursor' = ''
                or case
                    when :'sort' like '-%' then e.id < cursor_part(:'cursor', 2)::uuid
                    else e.id > cursor_part(:'cursor', 2)::uuid
                end
            )
        order by
            case when :'sort' like '-%' then e.id end desc,
            e.id
        limit coalesce(nullif(:'limit', '')::integer, 50) + 1
    ) as e
) as found
cross join page(found.items, found.keys, found.ids, :'sort', coalesce(nullif(:'limit', '')::integer, 50), :'form')

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
-- A page of the tries that failed, after the cursor.
select
    page.next,
    page.body
from (
    select
        array_agg(f.item) as items,
        array_agg(''::text) as keys,
        array_agg(f.id) as ids
    from (
        select
            pick(event_failures_json(f), :'fields')::text as item,
            f.id::text as id
        from event_failures as f
        where f.event_id = :'event_id'::uuid
            and (
                :'cursor' = ''
                or case
                    when :'sort' like '-%' then f.id < cursor_part(:'cursor', 2)::bigint
                    else f.id > cursor_part(:'cursor', 2)::bigint
                end
            )
        order by
            case when :'sort' like '-%' then f.id end desc,
            f.id
        limit coalesce(nullif(:'limit', '')::integer, 50) + 1
    ) as f
) as found
cross join page(found.items, found.keys, found.ids, :'sort', coalesce(nullif(:'limit', '')::integer, 50), :'form')
