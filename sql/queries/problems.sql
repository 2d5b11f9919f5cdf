-- Problems: what the database refuses, in the words of its own comments.

-- name: constraint
-- A broken constraint or unique index: its kind, its sentence, and the column that it is about: the one its name names, else the last of
-- a key, or the first of a check. No row: there is none. By the catalog: to_regclass() fails in a schema that the service may not use.
with named as (
    select c.oid, c.relname
    from pg_class as c
    join pg_namespace as n on n.oid = c.relnamespace
    where n.nspname = :'schema'
        and c.relname in (:'table', :'name')
),
broken as (
    select
        k.conrelid as table_id,
        k.conkey as columns,
        case k.contype
            when 'c' then 'check'
            when 'f' then 'foreign key, on delete ' || case k.confdeltype when 'c' then 'cascade' when 'n' then 'set null' else 'restrict' end
            else 'unique'
        end as kind,
        obj_description(k.oid, 'pg_constraint') as sentence
    from pg_constraint as k
    where k.conrelid = (select r.oid from named as r where r.relname = :'table')
        and k.conname = :'name'
    union all
    select
        x.indrelid,
        x.indkey::smallint[],
        'unique',
        obj_description(x.indexrelid, 'pg_class')
    from pg_index as x
    where x.indexrelid = (select r.oid from named as r where r.relname = :'name')
        and not exists (select from pg_constraint as k where k.conindid = x.indexrelid)
)
select
    b.kind,
    b.sentence,
    a.attname::text as field
from broken as b
join pg_attribute as a on a.attrelid = b.table_id and a.attnum > 0
order by
    :'name' = format('%s_%s_check', :'table', a.attname) or :'name' = format('%s_%s_key', :'table', a.attname) desc,
    case b.kind when 'check' then array_position(b.columns, a.attnum) end,
    array_position(b.columns, a.attnum) desc nulls last
limit 1
