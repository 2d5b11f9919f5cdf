-- 0025 Undo: what a request changed can be taken back, as long work if need be.

do $$
begin
    -- A database of the first release has no operations yet.
    if to_regclass('operations') is not null then
        alter table operations
        drop constraint operations_kind_check,
        add constraint operations_kind_check check (kind in ('upload', 'backup', 'restore', 'delete', 'undo'));
    end if;
end
$$;

insert into schema_migrations (name) values ('0025_undo');
