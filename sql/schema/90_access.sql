-- 90 Access: who may use the service, and what it may do itself. It works as a role that owns nothing: it can read history but not change it, and alter no table.
--
-- Whoever owns the tables runs the migrations and makes the roles:
--
--     rowhouse_service   what the service works as
--     rowhouse_project   what it works as for a token of one project: sees that one, named by app.project, and nothing beside it
--     rowhouse_readonly  for people who look: reads all but tokens and kept answers
--     rowhouse_backup    for pg_dump --enable-row-security: reads all
--
-- None can log in. A login for the service alone: create role … login in role rowhouse_service, rowhouse_project.

do $$
declare
    name text;
begin
    foreach name in array '{rowhouse_service,rowhouse_project,rowhouse_readonly,rowhouse_backup}'::text[] loop
        begin
            if not exists (select from pg_roles where rolname = name) then
                execute format('create role %I nologin', name);
            end if;
            if not (pg_has_role(current_user, name, 'set') and pg_has_role(current_user, name, 'usage')) then
                execute format('grant %I to current_user with inherit true, set true', name);
            end if;
        exception
            -- Roles belong to all databases of a server: another one was migrated at this moment.
            when duplicate_object or unique_violation then null;
        end;
    end loop;
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
    project      bigint,
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
comment on column tokens.project is 'The only project that it reaches; null for all there is. Without a foreign key: once the project is gone it reaches nothing, and stays a token.';
comment on constraint tokens_pkey on tokens is 'Another token has this id.';
comment on constraint tokens_name_key on tokens is 'Another token has this name.';
comment on constraint tokens_sha256_key on tokens is 'Another token has this SHA-256.';
comment on constraint tokens_name_check on tokens is 'Must be 1 to 100 characters, not blank.';
comment on constraint tokens_role_check on tokens is 'Must be reader, writer or admin.';
comment on constraint tokens_sha256_check on tokens is 'Must be a SHA-256 in hexadecimal.';

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

-- These change what only the owner may change; the triggers and make_room() have the owner's rights for themselves.
revoke execute on function
    history.track(regclass, text, text, boolean),
    history.untrack(regclass),
    history.drop_triggers(regclass),
    history.prune(timestamptz),
    stage_employees(),
    append_employees(bigint)
from public;

grant execute on function stage_employees(), append_employees(bigint) to rowhouse_service;


-- Projects ------------------------------------------------------------------------------------------------------------

-- What a token of one project can touch at all. A person's e-mail address is not among it.
grant usage on schema public, history to rowhouse_project;

grant select, update, delete on projects to rowhouse_project;

grant select, insert, update, delete on milestones, userstories, project_refs, tasks, comments, first_answers, answer_counts to rowhouse_project;

grant select (id, name, image) on users to rowhouse_project;

grant select on history.entries, history.tracked, history.horizon to rowhouse_project;

create or replace function current_project() returns bigint
language sql stable parallel safe
return nullif(current_setting('app.project', true), '')::bigint;

comment on function current_project() is 'The project that rowhouse_project sees (app.project); null while none is named.';

-- It names only people whom it sees already. Anybody else is refused as an id that does not exist is, by the same foreign key and before
-- that is asked, so that nobody can tell the two apart. A policy asks it: for those who see all it costs nothing. Volatile, because a
-- row that waited for another's change is checked as it is then.
create or replace function works_on(person bigint, relation regclass, foreign_key text) returns boolean
language plpgsql
as $$
begin
    if not exists (select from people_of(current_project()) as known (id) where known.id = person) then
        raise foreign_key_violation using
            message = format('the project has no person %s', person),
            schema = (select c.relnamespace::regnamespace::text from pg_class as c where c.oid = relation),
            table = (select c.relname from pg_class as c where c.oid = relation),
            constraint = foreign_key;
    end if;
    return true;
end
$$;

comment on function works_on(bigint, regclass, text) is 'Whether somebody is of the project that is seen; breaks the foreign key that names them if not.';

-- Which rows of these tables it sees: a statement that forgets to ask for the project shows no other. Whoever else may use a table
-- sees all of it. Forced, so that the owner is no exception; the parentheses let PostgreSQL ask once a statement, not once a row.
-- What it writes keeps to them too, and to its people in each column that is a user.
do $$
declare
    fenced record;
begin
    for fenced in
        select
            f.name,
            f.rule,
            concat_ws(
                ' and ',
                f.rule,
                (
                    select string_agg(format('(%1$I is null or works_on(%1$I, %2$L, %3$L))', a.attname, f.name, k.conname), ' and ')
                    from pg_constraint as k
                    join pg_attribute as a on a.attrelid = k.conrelid and a.attnum = k.conkey[1]
                    where k.conrelid = f.name::regclass
                        and k.confrelid = 'users'::regclass
                )
            ) as written
        from (
            values
            ('projects', 'id = (select current_project())'),
            ('milestones', 'project_id = (select current_project())'),
            ('userstories', 'project_id = (select current_project())'),
            ('project_refs', 'project_id = (select current_project())'),
            ('tasks', 'project_id = (select current_project())'),
            ('comments', 'project_id = (select current_project())'),
            ('history.entries', 'project = (select current_project())'),
            ('first_answers', 'actor = (select history.actor())'),
            ('answer_counts', 'actor = (select history.actor())')
        ) as f (name, rule)
    loop
        execute format('alter table %s enable row level security, force row level security', fenced.name);
        execute format('drop policy if exists everything on %s', fenced.name);
        execute format('drop policy if exists one_project on %s', fenced.name);
        execute format(
            'create policy everything on %s to rowhouse_service, rowhouse_readonly, rowhouse_backup using (true)',
            fenced.name
        );
        execute format(
            'create policy one_project on %s to rowhouse_project using (%s) with check (%s)',
            fenced.name, fenced.rule, fenced.written
        );
    end loop;
end
$$;


-- People and backups ----------------------------------------------------------------------------------------------------

grant usage on schema public, history to rowhouse_readonly, rowhouse_backup;

grant select on all tables in schema public, history to rowhouse_readonly, rowhouse_backup;

grant select on all sequences in schema public, history to rowhouse_backup;

-- pg_dump reads each month by itself, also those that history.make_room() will make.
alter default privileges in schema history grant select on tables to rowhouse_backup;

revoke select on tokens, first_answers from rowhouse_readonly;
