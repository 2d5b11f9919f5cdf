-- 90 Access: what the service may do. It works as a role that owns nothing: it can read history but not change it, and alter no table.
--
-- Whoever owns the tables runs the migrations and makes the role. A login for the service alone: create role … login in role rowhouse_service.

do $$
begin
    if not exists (select from pg_roles where rolname = 'rowhouse_service') then
        create role rowhouse_service nologin;
    end if;
    if not pg_has_role(current_user, 'rowhouse_service', 'set') then
        grant rowhouse_service to current_user;
    end if;
exception
    -- Roles belong to all databases of a server: another one was migrated at this moment.
    when duplicate_object or unique_violation then null;
end
$$;

grant usage on schema public, history to rowhouse_service;

grant select, insert, update, delete on all tables in schema public to rowhouse_service;

revoke insert, update, delete on schema_migrations from rowhouse_service;

-- Update, because a restore sets a sequence behind the ids it brings.
grant usage, select, update on all sequences in schema public to rowhouse_service;

grant select on all tables in schema history to rowhouse_service;

-- These change what only the owner may change; the triggers and make_room() have the owner's rights for themselves.
revoke execute on function
    history.track(regclass, text, text, boolean),
    history.untrack(regclass),
    history.drop_triggers(regclass),
    history.prune(timestamptz),
    stage_employees(),
    append_employees()
from public;

grant execute on function stage_employees(), append_employees() to rowhouse_service;
