-- 90 Access: tokens, and what the roles of 12_roles.sql may do with all that was made before.

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
    project      bigint,
    constraint tokens_pkey primary key (id),
    constraint tokens_name_key unique (name),
    constraint tokens_sha256_key unique (sha256),
    constraint tokens_name_check check (char_length(name) <= 100 and is_not_blank(name)),
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
comment on column tokens.project is 'The only project that it reaches; null for all there is. Without a foreign key: once the project is gone it reaches nothing, and stays a token.';
comment on constraint tokens_pkey on tokens is 'Another token has this id.';
comment on constraint tokens_name_key on tokens is 'Another token has this name.';
comment on constraint tokens_sha256_key on tokens is 'Another token has this SHA-256.';
comment on constraint tokens_name_check on tokens is 'Must be 1 to 100 characters, not blank.';
comment on constraint tokens_role_check on tokens is 'Must be reader, writer or admin.';
comment on constraint tokens_sha256_check on tokens is 'Must be a SHA-256 in hexadecimal.';

create or replace function tokens_json(r tokens) returns json
language sql stable parallel safe
return json_build_object(
    'id', r.id,
    'name', r.name,
    'role', r.role,
    'project', r.project,
    'created_at', iso8601(r.created_at),
    'expires_at', iso8601(r.expires_at),
    'revoked_at', iso8601(r.revoked_at),
    'last_used_at', iso8601(r.last_used_at)
);

comment on function tokens_json(tokens) is 'A token as the service answers it: without its SHA-256.';

-- The service may change no token, except by these two: it can add one and end one, and give none that is there more than it has.

create or replace function create_token(name text, role text, sha256 text, expires_at timestamptz, project bigint) returns setof tokens
language sql security definer
set search_path = public, pg_temp
begin atomic
    insert into tokens as t (name, role, sha256, expires_at, project)
    select
        create_token.name,
        create_token.role,
        create_token.sha256,
        create_token.expires_at,
        create_token.project
    where create_token.project is null
        or exists (select from projects as p where p.id = create_token.project)
    returning t.*;
end;

comment on function create_token(text, text, text, timestamptz, bigint) is 'Make a token for a project, or for all there is. No row: there is no such project.';

create or replace function revoke_token(id bigint) returns setof tokens
language sql security definer
set search_path = public, pg_temp
begin atomic
    update tokens as t
    set revoked_at = now()
    where t.id = revoke_token.id
        and t.revoked_at is null
    returning t.*;
end;

comment on function revoke_token(bigint) is 'Take a token back. No row: there is none, or it was taken back before.';

-- Not logged: a crash forgives what was asked in its minute.
create unlogged table if not exists quotas (
    holder text        not null,
    minute timestamptz not null,
    taken  bigint      not null,
    constraint quotas_pkey primary key (holder)
);

comment on table quotas is 'How many requests the holders of tokens made in the last minute that they made any.';
comment on column quotas.holder is 'Whose tokens they are, as history calls the caller.';
comment on column quotas.minute is 'When that minute began.';
comment on column quotas.taken is 'Requests that the processes took to pass out; it may lie above the limit.';
comment on constraint quotas_pkey on quotas is 'A holder is counted once.';

grant usage on schema public, history to rowhouse_service;

grant select, insert, update, delete on all tables in schema public to rowhouse_service;

revoke insert, update, delete on schema_migrations, tokens from rowhouse_service;

grant update (last_used_at) on tokens to rowhouse_service;

-- Update, because a restore sets a sequence behind the ids it brings.
grant usage, select, update on all sequences in schema public to rowhouse_service;

grant select on all tables in schema history to rowhouse_service;

-- These change what only the owner may change; the triggers and what makes the months' partitions have the owner's rights for themselves.
revoke execute on function
    history.track(regclass, text, text, boolean, boolean),
    history.note(regclass),
    history.untrack(regclass),
    history.drop_triggers(regclass),
    history.prune(timestamptz),
    history.seal(boolean),
    history.create_partitions(integer, timestamptz),
    history.close_partitions(timestamptz),
    history.watch_for_late_entries(text),
    stage_employees(),
    append_employees(bigint),
    create_token(text, text, text, timestamptz, bigint),
    revoke_token(bigint)
from public;

grant execute on function
    history.create_partitions(integer, timestamptz),
    history.close_partitions(timestamptz),
    history.seal(boolean),
    stage_employees(),
    append_employees(bigint),
    create_token(text, text, text, timestamptz, bigint),
    revoke_token(bigint)
to rowhouse_service;


-- Projects ------------------------------------------------------------------------------------------------------------

-- What a token of one project can touch at all. A person's e-mail address is not among it.
grant usage on schema public, history to rowhouse_project;

grant select (id, name, image) on users to rowhouse_project;

grant select on history.tracked, history.horizon, history.closings, history.late_entries to rowhouse_project;


-- People and backups ----------------------------------------------------------------------------------------------------

grant usage on schema public, history to rowhouse_readonly, rowhouse_backup;

grant select on all tables in schema public, history to rowhouse_readonly, rowhouse_backup;

grant select on all sequences in schema public, history to rowhouse_backup;

-- pg_dump reads each month by itself, also those that history.create_partitions() will make.
alter default privileges in schema history grant select on tables to rowhouse_backup;

revoke select on tokens, first_answers from rowhouse_readonly;
