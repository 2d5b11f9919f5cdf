-- History: /history, /{noun}/{id}/history; who acts, and what others changed since a client looked.

-- name: act
-- Who acts, and in which request, until the end of this transaction: the triggers of history read it.
select
    set_config('app.actor', :'actor', true) as actor,
    set_config('app.request_id', :'request_id', true) as request_id

-- name: compare
-- Where a change of an object from its version `base` collides with what others changed since: its version now, and each such member of
-- the body with who changed it last and when. No row: there is no such object.
select
    (l.object ->> 'version')::integer as version,
    c.conflicts::text as conflicts
from history.live(:'noun'::regclass, :'id') as l (object)
cross join history.compared(:'noun'::regclass, l.object, nullif(:'base', '')::integer, :'body'::jsonb) as c
where l.object is not null

-- name: list
-- A page of entries after the cursor, in the order in which they were recorded, planned for the values at hand (see users.list). An
-- object's key is given as it stands in its address, and compared as JSON.
select
    page.next,
    page.body
from (
    select
        array_agg(e.item) as items,
        array_agg(e.key) as keys,
        array_agg(e.id) as ids
    from (
        select
            pick(history.entry_json(e, :'diff'), :'fields')::text as item,
            iso8601(e.operation_date) as key,
            e.id::text as id
        from history.entries as e
        where (:'noun' = '' or e.obj_type = (select t.obj_type from history.tracked as t where t.relation = nullif(:'noun', '')::regclass))
            and (:'obj_type' = '' or e.obj_type = :'obj_type')
            and (:'obj_id' = '' or e.obj_type = any (array(select t.obj_type from history.tracked as t)))
            and (:'obj_id' = '' or e.obj_id in (:'obj_id', to_json(:'obj_id'::text)::text))
            and (:'project' = '' or e.project = nullif(:'project', '')::bigint)
            and (:'actor' = '' or e.actor = :'actor')
            and (:'action' = '' or e.action = :'action')
            and (
                :'cursor' = ''
                or case
                    when :'sort' like '-%' then (e.operation_date, e.id) < (cursor_part(:'cursor', 1)::timestamptz, cursor_part(:'cursor', 2)::bigint)
                    else (e.operation_date, e.id) > (cursor_part(:'cursor', 1)::timestamptz, cursor_part(:'cursor', 2)::bigint)
                end
            )
            -- The same once more, by the date alone: PostgreSQL leaves out the months of the pages before only by this.
            and (
                :'cursor' = ''
                or case
                    when :'sort' like '-%' then e.operation_date <= cursor_part(:'cursor', 1)::timestamptz
                    else e.operation_date >= cursor_part(:'cursor', 1)::timestamptz
                end
            )
        order by
            case when :'sort' like '-%' then e.operation_date end desc,
            case when :'sort' like '-%' then e.id end desc,
            e.operation_date,
            e.id
        limit coalesce(nullif(:'limit', '')::integer, 50) + 1
    ) as e
) as found
cross join page(found.items, found.keys, found.ids, :'sort', coalesce(nullif(:'limit', '')::integer, 50), :'form')

-- name: known
-- Whether anything was ever recorded of an object. No row: nothing.
select e.id
from history.tracked as t
join history.entries as e on e.obj_type = t.obj_type
where t.relation = :'noun'::regclass
    and e.obj_id in (:'id', to_json(:'id'::text)::text)
limit 1
