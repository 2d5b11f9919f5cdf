-- 19 Past: the tables as they were at a moment, for any statement: each has a view of its name in the schema past.
--
--     begin;
--     set local app.as_of = '2026-11-20 12:00+01';
--     set local search_path = past, public;
--     select status, count(*) from userstories group by status;
--
-- The service answers ?as_of= of its lists and of the tree so: by the same statements, with this before them.

create schema if not exists past;

comment on schema past is 'The tracked tables of the service as they were at the moment app.as_of: views of the same names.';

create or replace function history.moment() returns timestamptz
language sql stable parallel safe
return coalesce(nullif(current_setting('app.as_of', true), '')::timestamptz, 'infinity');

comment on function history.moment() is 'The moment that the views of past show (app.as_of); the end of time while none is set.';

create or replace function history.look_back(moment timestamptz) returns void
language plpgsql
as $$
begin
    perform
        set_config('app.as_of', history.reached(moment)::text, true),
        set_config('search_path', 'past, ' || current_setting('search_path'), true);
end
$$;

comment on function history.look_back(timestamptz) is 'Have the statements of this transaction read the tables as they were at a moment; an error (RH404) where history does not reach so far.';

-- A row that was not changed since is as it is; one that was is what its first change since then found; neither where that was saved later,
-- by a load that tells of no row. What a truncate took since is what was known of it last. With the rights of whoever asks, unless `for_all`
-- says that whoever may see the view may see all of it.
create or replace function history.show_past(relation regclass, for_all boolean default false) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set client_min_messages = warning
as $$
declare
    name    text := (select c.relname from pg_class as c where c.oid = relation);
    kind    text := (select t.obj_type from history.tracked as t where t.relation = show_past.relation);
    columns text := (
        select string_agg('r.' || quote_ident(a.attname), ', ' order by a.attnum)
        from pg_attribute as a
        where a.attrelid = relation and a.attnum > 0 and not a.attisdropped
    );
    shown   text;
    made_of text;
begin
    shown := format(
        $sql$
            select %1$s
            from public.%2$I as r
            where r.updated_at <= history.moment()
                and not exists (
                    select
                    from history.entries as e
                    where e.obj_type = %3$L
                        and e.obj_id = to_jsonb(r.id)::text
                        and e.operation_date > history.moment()
                )
            union all
            select %1$s
            from (
                select distinct on (e.obj_id) e.old_obj
                from history.entries as e
                where e.obj_type = %3$L
                    and e.obj_id is not null
                    and e.operation_date > history.moment()
                order by e.obj_id, e.operation_date, e.id
            ) as following
            cross join lateral jsonb_populate_record(null::public.%2$I, following.old_obj) as r
            where following.old_obj is not null
                and r.updated_at <= history.moment()
            union all
            select %1$s
            from (
                select distinct on (e.obj_id) e.obj_id, e.operation_date, e.new_obj
                from history.entries as e
                where e.obj_type = %3$L
                    and e.obj_id is not null
                    and e.operation_date <= history.moment()
                    and (select history.last_emptied(%3$L, 'infinity')) > history.moment()
                order by e.obj_id, e.operation_date desc, e.id desc
            ) as latest
            cross join lateral jsonb_populate_record(null::public.%2$I, latest.new_obj) as r
            where latest.new_obj is not null
                and latest.operation_date > coalesce((select history.last_emptied(%3$L, history.moment())), '-infinity')
                and not exists (select from public.%2$I as l where to_jsonb(l.id)::text = latest.obj_id and l.updated_at <= history.moment())
                and (
                    select f.old_obj
                    from history.entries as f
                    where f.obj_type = %3$L
                        and f.obj_id = latest.obj_id
                        and f.operation_date > history.moment()
                    order by f.operation_date, f.id
                    limit 1
                ) is null
        $sql$,
        columns, name, kind
    );
    made_of := 'As it was at the moment app.as_of. Made of ' || md5(concat_ws(' ', shown, for_all, (
        select string_agg(format('%s %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' order by a.attnum)
        from pg_attribute as a
        where a.attrelid = relation and a.attnum > 0 and not a.attisdropped
    )));
    -- Nothing is locked where all is as it should be.
    if obj_description(to_regclass(format('past.%I', name)), 'pg_class') = made_of then
        return;
    end if;
    execute format('drop view if exists past.%I cascade', name);
    execute format('create view past.%I with (security_invoker = %s) as %s', name, not for_all, shown);
    execute format('comment on view past.%I is %L', name, made_of);
    -- What takes a row of the table takes one of the view: users_json(), matches() …
    execute format(
        'create function past.row_of(r past.%1$I) returns public.%1$I language sql immutable parallel safe return row(%2$s)::public.%1$I',
        name, columns
    );
    execute format('comment on function past.row_of(past.%I) is %L', name, 'A row of ' || name || ' that it was.');
    execute format('create cast (past.%1$I as public.%1$I) with function past.row_of(past.%1$I) as implicit', name);
    execute format('grant select on past.%I to rowhouse_service, rowhouse_readonly, rowhouse_backup', name);
    if not for_all then
        execute format('grant select on past.%I to rowhouse_project', name);
    end if;
end
$$;

comment on function history.show_past(regclass, boolean) is 'Make the view of past that shows a tracked table as it was.';

grant usage on schema past to rowhouse_service, rowhouse_project, rowhouse_readonly, rowhouse_backup;
