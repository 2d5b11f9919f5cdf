-- 0012 Deletes as operations: what much hangs on takes longer than a client waits.

do $$
begin
    -- A database of the first release has no operations yet.
    if to_regclass('operations') is not null then
        alter table operations
        drop constraint operations_kind_check,
        add constraint operations_kind_check check (kind in ('upload', 'backup', 'restore', 'delete'));
    end if;
end
$$;

insert into schema_migrations (name) values ('0012_deletes_as_operations');
