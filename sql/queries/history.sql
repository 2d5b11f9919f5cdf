-- History: /history, /{noun}/{id}/history; who acts, and what others changed since a client looked.

-- name: act
-- Who acts, and in which request, until the end of this transaction: the triggers of history read it.
select
    set_config('app.actor', :'actor', true) as actor,
    set_config('app.request_id', :'request_id', true) as request_id

-- name: look_back
-- The tables as they were at a moment, for all that follows in this transaction (19_past.sql).
select history.look_back(:'moment'::timestamptz)

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
    page.body,
    history.place() as place
from page(array(
    select e.listed
    from (
        select listed(history.entry_json(e, :'diff'), iso8601(e.operation_date), e.id::text, :'fields')
        from history.entries as e
        where (e.operation_date, e.id) > ((select coalesce(nullif(:'after_key', '')::timestamptz, '-infinity')), id_after(:'after_id'))
            and e.operation_date >= (select coalesce(nullif(:'after_key', '')::timestamptz, '-infinity')) -- by this the months of the pages before are left out
            and (:'noun' = '' or e.obj_type = (select t.obj_type from history.tracked as t where t.relation = nullif(:'noun', '')::regclass)) -- filter
            and (:'obj_id' = '' or e.obj_type = any (array(select t.obj_type from history.tracked as t))) -- filter
            and (:'obj_id' = '' or e.obj_id in (:'obj_id', to_json(:'obj_id'::text)::text)) -- filter
            and history.matches(e, :'obj_type', :'project', :'actor', :'action', :'request_id', :'since', :'until', :'field') -- filter
        order by e.operation_date, e.id
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
        select listed(history.entry_json(e, :'diff'), iso8601(e.operation_date), e.id::text, :'fields')
        from history.entries as e
        where (e.operation_date, e.id) < ((select coalesce(nullif(:'after_key', '')::timestamptz, 'infinity')), id_before(:'after_id'))
            and e.operation_date <= (select coalesce(nullif(:'after_key', '')::timestamptz, 'infinity')) -- by this the months of the pages before are left out
            and (:'noun' = '' or e.obj_type = (select t.obj_type from history.tracked as t where t.relation = nullif(:'noun', '')::regclass)) -- filter
            and (:'obj_id' = '' or e.obj_type = any (array(select t.obj_type from history.tracked as t))) -- filter
            and (:'obj_id' = '' or e.obj_id in (:'obj_id', to_json(:'obj_id'::text)::text)) -- filter
            and history.matches(e, :'obj_type', :'project', :'actor', :'action', :'request_id', :'since', :'until', :'field') -- filter
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

-- name: table
-- What a name means, as PostgreSQL writes it. No row: nothing has this number.
select c.oid::regclass::text as name
from pg_class as c
where c.oid = :'table'::regclass

-- name: keyed
-- Whether a table's rows can be told apart. No row: it is a table without a primary key.
select c.oid
from pg_class as c
where c.oid = :'table'::regclass
    and (
        c.relkind not in ('r', 'p', 'f')
        or exists (select from pg_index as i where i.indrelid = c.oid and i.indisprimary)
    )

-- name: track
-- Put a table under history; what is not told stays as it is.
select
    history.track(
        t.relation,
        coalesce(nullif(:'obj_type', ''), k.obj_type),
        coalesce(nullif(:'project', ''), a.attname),
        exists (select from pg_trigger as g where g.tgrelid = t.relation and g.tgname = 'history_90_load'),
        :'baseline'::boolean
    ) as tracked
from (select :'table'::regclass) as t (relation)
left join history.tracked as k on k.relation = t.relation
left join pg_attribute as a on a.attrelid = k.relation and a.attnum = k.project

-- name: kind
-- What a row of a table is called. No row: the table is not under history.
select t.obj_type
from history.tracked as t
where t.relation = :'table'::regclass

-- name: untrack
-- Take a table out of history. No row: it was not under history.
select
    t.obj_type,
    history.untrack(t.relation) as untracked
from history.tracked as t
where t.relation = :'table'::regclass
