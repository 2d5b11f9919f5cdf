-- 12 Roles: what the service works as. It owns nothing: it can read history but not change it, and alter no table.
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


-- Rows of one project -------------------------------------------------------------------------------------------------

create or replace function current_project() returns bigint
language sql stable parallel safe
return nullif(current_setting('app.project', true), '')::bigint;

comment on function current_project() is 'The project that rowhouse_project sees (app.project); null while none is named.';

-- It names only people whom it sees already. Anybody else is refused as an id that does not exist is, by the same foreign key and before
-- that is asked, so that nobody can tell the two apart. A policy asks it: for those who see all it costs nothing. Volatile, because a
-- row that waited for another's change is checked as it is then. Who undoes
-- what they did themselves names again whom it named (18_undo.sql).
create or replace function works_on(person bigint, relation regclass, foreign_key text) returns boolean
language plpgsql
as $$
begin
    if current_setting('app.undo', true) = 'own' then
        return true;
    end if;
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

-- What a token of one project reaches: rows of the table that keep to the rule, by default those whose project_id is the project that
-- is seen. A statement that forgets to ask for the project shows no other. Whoever else may use the table sees all of it. Forced, so that
-- the owner is no exception; the parentheses let PostgreSQL ask once a statement, not once a row. What is written keeps to the rule too,
-- and to the project's people in each column that is a user. Again and again without harm: what is as it should be is not touched.
create or replace function fence(
    relation regclass,
    rule     text default 'project_id = (select current_project())',
    rights   text default 'select, insert, update, delete'
) returns void
language plpgsql
as $$
declare
    written text := concat_ws(
        ' and ',
        rule,
        (
            select string_agg(format('(%1$I is null or works_on(%1$I, %2$L, %3$L))', a.attname, relation::text, k.conname), ' and ')
            from pg_constraint as k
            join pg_attribute as a on a.attrelid = k.conrelid and a.attnum = k.conkey[1]
            where k.conrelid = relation
                and k.confrelid = to_regclass('public.users')
        )
    );
begin
    execute format('grant %s on %s to rowhouse_project', rights, relation);
    -- Nothing is locked where all is as it should be: the policy's comment says what it was made of.
    if written = (
        select obj_description(p.oid, 'pg_policy')
        from pg_policy as p
        join pg_class as c on c.oid = p.polrelid
        where p.polrelid = relation
            and p.polname = 'one_project'
            and c.relrowsecurity
            and c.relforcerowsecurity
    ) then
        return;
    end if;
    execute format('alter table %s enable row level security, force row level security', relation);
    execute format('drop policy if exists everything on %s', relation);
    execute format('drop policy if exists one_project on %s', relation);
    execute format('create policy everything on %s to rowhouse_service, rowhouse_readonly, rowhouse_backup using (true)', relation);
    execute format('create policy one_project on %s to rowhouse_project using (%s) with check (%s)', relation, rule, written);
    execute format('comment on policy one_project on %s is %L', relation, written);
end
$$;

comment on function fence(regclass, text, text) is 'Let a token of one project reach the rows of a table that keep to a rule, and no other row.';
