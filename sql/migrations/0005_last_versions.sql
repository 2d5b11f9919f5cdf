-- 0005 Last versions: of what was deleted before, as far as history knows, so that it counts on when it is made anew.

do $$
begin
    -- A database of the first release has no history yet.
    if to_regclass('history.entries') is null then
        return;
    end if;
    create table if not exists history.deleted (
        obj_type text    not null,
        obj_id   text    not null,
        version  integer not null,
        constraint deleted_pkey primary key (obj_type, obj_id)
    );
    insert into history.deleted (obj_type, obj_id, version)
    select
        e.obj_type,
        e.obj_id,
        max(e.version)
    from history.entries as e
    where e.obj_id is not null
        and octet_length(e.obj_id) <= 1000
        and (
            e.action = 'delete'
            or e.operation_date <= (
                select max(t.operation_date)
                from history.entries as t
                where t.action = 'truncate' and t.obj_type = e.obj_type
            )
        )
        and e.version is not null
    group by e.obj_type, e.obj_id
    on conflict do nothing;
end
$$;

insert into schema_migrations (name) values ('0005_last_versions');
