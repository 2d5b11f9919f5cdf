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

-- What the database counts by itself may come from a file up to the half of its range: behind a row at the end of it nothing could be
-- counted any more, and no later restore brings back what a sequence gave away.
create or replace function most_restored(type oid) returns bigint
language sql immutable parallel safe
return case type when 'bigint'::regtype then 4611686018427387904 else 1073741824 end;

comment on function most_restored(oid) is 'The largest number of a type that a restore takes for what is counted.';

create or replace function check_restored(relation regclass, staged regclass) returns void
language plpgsql
as $$
declare
    counted record;
    refused boolean;
begin
    for counted in
        select
            a.attname as name,
            most_restored(a.atttypid) as most
        from pg_attribute as a
        join pg_attribute as s on s.attrelid = staged and s.attname = a.attname
        where a.attrelid = relation
            and a.attnum > 0
            and not a.attisdropped
            and (a.attidentity <> '' or a.attname in ('version', 'upload_id', 'line'))
        order by a.attnum
    loop
        execute format('select exists (select from %s as s where s.%I not between 1 and %s)', staged, counted.name, counted.most) into refused;
        if refused then
            raise 'A row''s % must be 1 to %.', counted.name, counted.most using errcode = 'check_violation';
        end if;
    end loop;
end
$$;

comment on function check_restored(regclass, regclass) is 'Refuse numbers of the database''s own counting among staged rows that are none, or leave it no room.';

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
    perform check_restored(relation, 'pg_temp.restoring');
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

-- Rows that go with their parents go unseen: they are refused as those are that keep their parents (on delete restrict), unless they are
-- restored as well. Then one that is to refer to another parent goes with its old one, and is added.
create or replace function remove_restored(relation regclass) returns void
language plpgsql
as $$
declare
    child    record;
    left_out boolean;
begin
    for child in
        select
            c.conname as name,
            c.conrelid::regclass as relation,
            a.attname as parent,
            to_regclass('pg_temp.differing_' || c.conrelid::regclass) as differing
        from pg_constraint as c
        join pg_attribute as a on a.attrelid = c.conrelid and a.attnum = c.conkey[1]
        where c.confrelid = remove_restored.relation
            and c.confdeltype not in ('r', 'a')
        order by c.conname
    loop
        if child.differing is not null then
            execute format(
                $sql$
                    update %s as d
                    set how = 'added'
                    from %s as r
                    join pg_temp.%I as gone on gone.id = r.%I and gone.how = 'removed'
                    where r.id = d.id
                        and d.how = 'changed'
                $sql$,
                child.differing,
                child.relation,
                'differing_' || relation,
                child.parent
            );
        end if;
        execute format(
            $sql$
                select exists (
                    select
                    from %s as r
                    join pg_temp.%I as gone on gone.id = r.%I and gone.how = 'removed'
                    where %s
                )
            $sql$,
            child.relation,
            'differing_' || relation,
            child.parent,
            case
                when child.differing is null then 'true'
                else format('not exists (select from %s as d where d.id = r.id and d.how = %L)', child.differing, 'added')
            end
        ) into left_out;
        if left_out then
            raise 'remove_restored: rows of % refer to some that would be removed', child.relation
                using errcode = 'foreign_key_violation', constraint = child.name, table = child.relation::text;
        end if;
    end loop;
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
    -- The past goes by when a row was saved: of a load there is no entry that would tell.
    saved         text := (select 'updated_at' from history.tracked as t where t.relation = change_restored.relation);
    others        text := format('^(?!(%s)$)', concat_ws('|', 'version', saved));
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
        concat_ws(', ', versions, saved, restored_columns(columns, '', others)),
        concat_ws(
            ', ',
            case
                when 'version' = any (columns) then 'greatest(n.version, g.version + 1)'
                when versions is not null then 'coalesce(g.version, 0) + 1'
            end,
            case when saved is not null then 'now()' end,
            restored_columns(columns, 'n.', others)
        ),
        'differing_' || relation,
        'restoring_' || relation
    ) using relation;
    if relation = 'employees'::regclass then
        perform append_employees();
    end if;
    if pg_get_serial_sequence(relation::text, 'id') is not null then
        -- One that stands where no restore may put it goes back to the rows, also behind those that are removed: what is rolled back
        -- after this leaves the sequence where it is.
        execute format(
            $sql$
                select setval(
                    %L::regclass,
                    greatest(case when s.last_value <= $1 then s.last_value else 1 end, r.id, d.id),
                    (s.is_called and s.last_value <= $1) or coalesce(r.id, d.id) is not null
                )
                from %s as s
                cross join (select max(id) as id from %s where id <= $1) as r
                cross join (select max(id) as id from pg_temp.%I where id <= $1) as d
            $sql$,
            pg_get_serial_sequence(relation::text, 'id'),
            pg_get_serial_sequence(relation::text, 'id'),
            relation,
            'differing_' || relation
        ) using most_restored('bigint'::regtype);
    end if;
end
$$;

comment on function change_restored(regclass, text[]) is 'Change the rows that the backup has otherwise, add those it has more, and let the next id come after all.';
