-- 85 Backups: a table put back as it was, as one change: what is equal stays untouched, the rest is added, changed or removed.
--
-- Readers see the rows of before until the transaction ends, history sees each change, and every constraint holds throughout.
-- The statements are made from the catalog, so that a table has nothing to keep up to date here. relation is one of a closed list
-- (handlers/backups.py); columns are those of the backup, which may lack what was added to the table since.

create or replace function restored_columns(columns text[], of text, pattern text default '.*') returns text
language sql immutable
return (
    select string_agg(of || quote_ident(c.name), ', ' order by c.place)
    from unnest(columns) with ordinality as c (name, place)
    where c.name ~ pattern
);

comment on function restored_columns(text[], text, text) is 'The columns that fit a pattern, as a list for a statement, each with this before its name.';

create or replace function stage_restore(relation regclass, columns text[]) returns void
language plpgsql
set client_min_messages = warning
as $$
begin
    drop table if exists pg_temp.restoring;
    execute format(
        'create temporary table restoring on commit drop as select %s from %s as r limit 0',
        restored_columns(columns, 'r.'),
        relation
    );
end
$$;

comment on function stage_restore(regclass, text[]) is 'Make restoring, a place for the rows of a backup, in the order of its columns.';

-- A version and the times of a row count its saves and say nothing of its data: a restored row is saved anew, as any change is, so
-- that nobody who read a version between finds another row under its number.
create or replace function compare_restore(
    relation     regclass,
    columns      text[],
    out added    bigint,
    out removed  bigint,
    out changed  bigint
)
language plpgsql
set work_mem = '64MB'
as $$
declare
    data constant text := '^(?!(id|version|created_at|updated_at)$)';
begin
    execute format('lock table %s in share row exclusive mode', relation);
    alter table pg_temp.restoring add primary key (id);
    analyze pg_temp.restoring;
    execute format(
        $sql$
            create temporary table %I on commit drop as
            select
                coalesce(n.id, o.id) as id,
                case when o.id is null then 'added' when n.id is null then 'removed' else 'changed' end as how
            from pg_temp.restoring as n
            full join %s as o on o.id = n.id
            where n.id is null
                or o.id is null
                or row(%s) is distinct from row(%s)
        $sql$,
        'differing_' || relation,
        relation,
        restored_columns(columns, 'n.', data),
        restored_columns(columns, 'o.', data)
    );
    execute format('alter table pg_temp.restoring rename to %I', 'restoring_' || relation);
    execute format('analyze pg_temp.%I', 'differing_' || relation);
    execute format(
        $sql$
            select
                count(*) filter (where d.how = 'added'),
                count(*) filter (where d.how = 'removed'),
                count(*) filter (where d.how = 'changed')
            from pg_temp.%I as d
        $sql$,
        'differing_' || relation
    ) into added, removed, changed;
end
$$;

comment on function compare_restore(regclass, text[]) is 'Lock a table against other writers, and find what restoring has more, less and otherwise.';

create or replace function remove_restored(relation regclass) returns void
language plpgsql
as $$
begin
    execute format(
        $sql$delete from %s as r using pg_temp.%I as d where d.how = 'removed' and r.id = d.id$sql$,
        relation,
        'differing_' || relation
    );
end
$$;

comment on function remove_restored(regclass) is 'Remove the rows that the backup does not have.';

create or replace function change_restored(relation regclass, columns text[]) returns void
language plpgsql
set work_mem = '64MB'
as $$
declare
    data constant text := '^(?!(id|version|created_at|updated_at)$)';
    versions      text := (select a.attname from pg_attribute as a where a.attrelid = relation and a.attname = 'version');
begin
    execute format(
        $sql$
            update %s as r
            set (%s) = row(%s)
            from pg_temp.%I as d
            join pg_temp.%I as n on n.id = d.id
            where d.how = 'changed'
                and r.id = d.id
        $sql$,
        relation,
        restored_columns(columns, '', data),
        restored_columns(columns, 'n.', data),
        'differing_' || relation,
        'restoring_' || relation
    );
    if relation = 'employees'::regclass then
        perform stage_employees();
    end if;
    execute format(
        $sql$
            insert into %s (%s) overriding system value
            select %s
            from pg_temp.%I as d
            join pg_temp.%I as n on n.id = d.id
            left join history.deleted as g
                on g.obj_type = (select t.obj_type from history.tracked as t where t.relation = $1)
                and g.obj_id = n.id::text
            where d.how = 'added'
            order by n.id
        $sql$,
        case when relation = 'employees'::regclass then 'pg_temp.appending' else relation::text end,
        concat_ws(', ', versions, restored_columns(columns, '', '^(?!version$)')),
        concat_ws(
            ', ',
            case
                when 'version' = any (columns) then 'greatest(n.version, g.version + 1)'
                when versions is not null then 'coalesce(g.version, 0) + 1'
            end,
            restored_columns(columns, 'n.', '^(?!version$)')
        ),
        'differing_' || relation,
        'restoring_' || relation
    ) using relation;
    if relation = 'employees'::regclass then
        perform append_employees();
    end if;
    if pg_get_serial_sequence(relation::text, 'id') is not null then
        execute format(
            $sql$
                select setval(%L::regclass, greatest(s.last_value, (select max(r.id) from %s as r)), s.is_called or exists (select from %s))
                from %s as s
            $sql$,
            pg_get_serial_sequence(relation::text, 'id'),
            relation,
            relation,
            pg_get_serial_sequence(relation::text, 'id')
        );
    end if;
end
$$;

comment on function change_restored(regclass, text[]) is 'Change the rows that the backup has otherwise, add those it has more, and let the next id come after all.';
