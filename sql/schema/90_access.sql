-- 90 Access: who may use the service, and what it may do itself. It works as a role that owns nothing: it can read history but not change it, and alter no table.
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

-- Who may use the service. The secret itself is shown once, when it is made, and kept nowhere.
create table if not exists tokens (
    id           integer     not null generated always as identity,
    name         text        not null,
    role         text        not null,
    sha256       text        not null,
    created_at   timestamptz not null default now(),
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz,
    constraint tokens_pkey primary key (id),
    constraint tokens_name_key unique (name),
    constraint tokens_sha256_key unique (sha256),
    constraint tokens_name_check check (char_length(name) <= 100 and says_something(name)),
    constraint tokens_role_check check (role in ('reader', 'writer', 'admin')),
    constraint tokens_sha256_check check (sha256 ~ '^[0-9a-f]{64}$')
);

comment on table tokens is 'Who may use the service, and as what. While there is none, whoever is on this machine may do all.';
comment on column tokens.id is 'Given by the database.';
comment on column tokens.name is 'Whose it is: history calls the caller so.';
comment on column tokens.role is 'reader, writer or admin; each may do what those before it may.';
comment on column tokens.sha256 is 'SHA-256 of the token, in hexadecimal.';
comment on column tokens.created_at is 'When it was made.';
comment on column tokens.expires_at is 'From when on it is no longer good; null for never.';
comment on column tokens.revoked_at is 'When it was taken back; null while it is good.';
comment on column tokens.last_used_at is 'When it was used last, to the minute.';

grant usage on schema public, history to rowhouse_service;

grant select, insert, update, delete on all tables in schema public to rowhouse_service;

revoke insert, update, delete on schema_migrations, tokens from rowhouse_service;

grant update (last_used_at) on tokens to rowhouse_service;

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
