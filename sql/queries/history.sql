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
-- A page of entries in the order in which they were recorded, after the one with `after_key` and `after_id`. An
-- object's key is given as it stands in its address, and compared as JSON.
select
    page.next,
    page.body
from page(array(
    select e.listed
    from (
        select listed(history.entry_json(e, :'diff'), iso8601(e.operation_date), e.id::text, :'fields')
        from history.entries as e
        where (e.operation_date, e.id) > (coalesce(nullif(:'after_key', '')::timestamptz, '-infinity'), id_after(:'after_id'))
            and e.operation_date >= coalesce(nullif(:'after_key', '')::timestamptz, '-infinity') -- by this the months of the pages before are left out
            and (:'noun' = '' or e.obj_type = (select t.obj_type from history.tracked as t where t.relation = nullif(:'noun', '')::regclass)) -- filter
            and (:'obj_type' = '' or e.obj_type = :'obj_type') -- filter
            and (:'obj_id' = '' or e.obj_type = any (array(select t.obj_type from history.tracked as t))) -- filter
            and (:'obj_id' = '' or e.obj_id in (:'obj_id', to_json(:'obj_id'::text)::text)) -- filter
            and (:'project' = '' or e.project = nullif(:'project', '')::bigint) -- filter
            and (:'actor' = '' or e.actor = :'actor') -- filter
            and (:'action' = '' or e.action = :'action') -- filter
        order by e.operation_date, e.id
        limit 1001
    ) as e (listed)
    limit (select page_size(:'limit') + 1)
), :'sort', page_size(:'limit'), :'form')

-- name: list_desc
-- The same from the last to the first.
select
    page.next,
    page.body
from page(array(
    select e.listed
    from (
        select listed(history.entry_json(e, :'diff'), iso8601(e.operation_date), e.id::text, :'fields')
        from history.entries as e
        where (e.operation_date, e.id) < (coalesce(nullif(:'after_key', '')::timestamptz, 'infinity'), id_before(:'after_id'))
            and e.operation_date <= coalesce(nullif(:'after_key', '')::timestamptz, 'infinity') -- by this the months of the pages before are left out
            and (:'noun' = '' or e.obj_type = (select t.obj_type from history.tracked as t where t.relation = nullif(:'noun', '')::regclass)) -- filter
            and (:'obj_type' = '' or e.obj_type = :'obj_type') -- filter
            and (:'obj_id' = '' or e.obj_type = any (array(select t.obj_type from history.tracked as t))) -- filter
            and (:'obj_id' = '' or e.obj_id in (:'obj_id', to_json(:'obj_id'::text)::text)) -- filter
            and (:'project' = '' or e.project = nullif(:'project', '')::bigint) -- filter
            and (:'actor' = '' or e.actor = :'actor') -- filter
            and (:'action' = '' or e.action = :'action') -- filter
        order by e.operation_date desc, e.id desc
        limit 1001
    ) as e (listed)
    limit (select page_size(:'limit') + 1)
), '-id', page_size(:'limit'), :'form')

-- name: known
-- Whether anything was ever recorded of an object. No row: nothing.
select e.id
from history.tracked as t
join history.entries as e on e.obj_type = t.obj_type
where t.relation = :'noun'::regclass
    and e.obj_id in (:'id', to_json(:'id'::text)::text)
limit 1
