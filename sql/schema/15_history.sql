-- 15 History: every change of a tracked table, written by triggers in the transaction of the change, whoever makes it.
--
-- `select history.track('schema.table')` is all that a table needs. The service can read what is written here, not change it.

create schema if not exists history;

comment on schema history is 'Every change of the tracked tables, and what the feed reads.';


-- What is tracked -----------------------------------------------------------------------------------------------------

-- Columns by number, because numbers survive a renaming; the triggers carry the names as they were when track() was called.
create table if not exists history.tracked (
    obj_type text     not null,
    relation regclass not null,
    key      int2[]   not null,
    project  int2,
    constraint tracked_pkey primary key (obj_type),
    constraint tracked_relation_key unique (relation)
);

comment on table history.tracked is 'The tables under history.';
comment on column history.tracked.obj_type is 'What one of its rows is called in history and in the feed.';
comment on column history.tracked.relation is 'The table.';
comment on column history.tracked.key is 'The columns of its primary key; none where it has no such key.';
comment on column history.tracked.project is 'The column that says which project a row belongs to; null where rows belong to none.';
comment on constraint tracked_pkey on history.tracked is 'Another table is tracked as this kind of object.';
comment on constraint tracked_relation_key on history.tracked is 'The table is tracked already.';


-- The entries ---------------------------------------------------------------------------------------------------------

-- Whole rows and not only their differences: any version can be read without replaying those before it, by hand if need be.
-- By month, so that old months are dropped, not deleted. No identity column: PostgreSQL 16 has none for partitioned tables.
create sequence if not exists history.entries_id_seq;

create table if not exists history.entries (
    id             bigint      not null default nextval('history.entries_id_seq'),
    operation_date timestamptz not null,
    xid            xid8        not null default pg_current_xact_id(),
    obj_type       text        not null,
    obj_id         text,
    action         text        not null,
    project        bigint,
    actor          text        not null,
    request_id     text,
    version        integer,
    old_obj        jsonb,
    new_obj        jsonb,
    constraint entries_pkey primary key (operation_date, id),
    constraint entries_action_check check (action in ('create', 'update', 'delete', 'truncate'))
) partition by range (operation_date);

comment on table history.entries is 'What was changed, when, by whom, from what, to what.';
comment on column history.entries.id is 'Counts up in the order in which the changes of one object were made.';
comment on column history.entries.operation_date is 'When the row was changed; for an object, later entries have later dates.';
comment on column history.entries.xid is 'The transaction of the change: what the feed knows by whether it has seen an entry.';
comment on column history.entries.obj_type is 'What kind of object it is.';
comment on column history.entries.obj_id is 'Its key as JSON: 7, "a text", or ["several", 1]. Null where the entry is about a whole table.';
comment on column history.entries.action is 'create, update, delete or truncate.';
comment on column history.entries.project is 'The project it belongs to.';
comment on column history.entries.actor is 'Who did it: the caller of the service, or the role and application on the database.';
comment on column history.entries.request_id is 'The X-Request-Id of the request; null where there was none.';
comment on column history.entries.version is 'The version that the change made, or that was deleted; null where the table counts none.';
comment on column history.entries.old_obj is 'The row before.';
comment on column history.entries.new_obj is 'The row after; of a bulk load what was loaded, and how many rows.';
comment on constraint entries_pkey on history.entries is 'Another entry has this id.';
comment on constraint entries_action_check on history.entries is 'Must be create, update, delete or truncate.';

do $$
begin
    if pg_get_serial_sequence('history.entries', 'id') is distinct from 'history.entries_id_seq' then
        alter sequence history.entries_id_seq owned by history.entries.id;
    end if;
end
$$;

-- history.list by object, every ?as_of=, and kinds of which there is little; of a kind of which there is much any page is full.
create index if not exists entries_obj_type_obj_id_operation_date_id_idx on history.entries (obj_type, obj_id, operation_date, id);

-- history.version_of and history.compared: a version is found in two probes, however many there are.
create index if not exists entries_obj_type_obj_id_version_idx on history.entries (obj_type, obj_id, version);

-- history.list by project.
create index if not exists entries_project_operation_date_id_idx on history.entries (project, operation_date, id);

-- history.list by actor.
create index if not exists entries_actor_operation_date_id_idx on history.entries (actor, operation_date, id);

-- history.list by request, and history.undo_request.
create index if not exists entries_request_id_operation_date_id_idx on history.entries (request_id, operation_date, id)
where request_id is not null;

-- history.list by the actions that are rare; of the others any page is full of.
create index if not exists entries_action_operation_date_id_idx on history.entries (action, operation_date, id)
where action in ('delete', 'truncate');

-- The feed.
create index if not exists entries_xid_idx on history.entries (xid);

-- What is of no month that has a partition goes here: a write never fails for the calendar.
create table if not exists history.entries_default partition of history.entries default;

comment on table history.entries_default is 'Entries of months without a partition of their own.';

-- Beside the entries and not among them: months of those are dropped, and whoever inserts a row asks here once, by its key.

select fence('history.entries', 'project = (select current_project())', 'select');

create table if not exists history.deleted (
    obj_type text    not null,
    obj_id   text    not null,
    version  integer not null,
    constraint deleted_pkey primary key (obj_type, obj_id)
);

comment on table history.deleted is 'The last versions of objects that were deleted, also of those that were made anew since: from there they count on.';
comment on column history.deleted.obj_type is 'What kind of object it was.';
comment on column history.deleted.obj_id is 'Its key, as in history.entries.';
comment on column history.deleted.version is 'Its last version.';
comment on constraint deleted_pkey on history.deleted is 'An object leaves one last version.';

-- A month's table is made beside the entries and attached when it is ready: its rows are those that fell into the default partition, copied
-- before anybody must wait for it. Transactions keep their numbers and entries theirs, so that the feed sees no difference. To attach it
-- takes the default partition from all others for a moment. Where somebody holds that, as pg_dump does for as long as it runs, it gives up:
-- of both locks together it lets nobody wait for longer than a second, and whoever called tries again later.
create or replace function history.create_partitions(months integer default 3, at timestamptz default now()) returns setof text
language plpgsql security definer
set search_path = history, pg_catalog, pg_temp
set timezone = 'UTC'
set client_min_messages = warning
set lock_timeout = '500ms'
as $$
declare
    month   date;
    fell    boolean;
    made    boolean := false;
    name    text;
    until   date;
    copied  pg_snapshot;
    columns text := (
        select string_agg(quote_ident(a.attname), ', ' order by a.attnum)
        from pg_attribute as a
        where a.attrelid = 'history.entries'::regclass and a.attnum > 0 and not a.attisdropped
    );
    copy    text;
    rows    bigint;
    more    bigint;
    gone    bigint;
begin
    -- Two that come at once: the second finds the partitions made.
    perform pg_advisory_xact_lock(hashtextextended('history.partitions', 0));
    for month, fell in
        with fallen as (
            select distinct date_trunc('month', e.operation_date)::date as month
            from entries_default as e
            where e.operation_date >= '0001-01-01' and e.operation_date < '9999-12-01'
        )
        select m.month, f.month is not null as fell
        from (
            select (date_trunc('month', at) + i * interval '1 month')::date from generate_series(0, months) as i
            union
            select f.month from fallen as f
        ) as m (month)
        left join fallen as f on f.month = m.month
        where to_regclass('history.entries_' || to_char(m.month, 'YYYY_MM')) is null
        order by fell, m.month
    loop
        -- Rows are copied while nothing is locked yet: a month of them by itself.
        exit when fell and made;
        name := 'entries_' || to_char(month, 'YYYY_MM');
        until := month + interval '1 month';
        execute format('create table history.%I (like history.entries including all)', name);
        execute format('comment on table history.%I is %L', name, 'Entries of ' || to_char(month, 'FMMonth YYYY') || '.');
        -- It says what the rows are, so that they are not all read again to be attached.
        execute format(
            'alter table history.%I add constraint %I check (operation_date >= %L and operation_date < %L)',
            name, name || '_month_check', month, until
        );
        if month < (select max(c.before) from closings as c) then
            perform watch_for_late_entries(name);
        end if;
        copy := format(
            'insert into history.%I (%s) select %s from history.entries_default where operation_date >= %L and operation_date < %L',
            name, columns, columns, month, until
        );
        copied := pg_current_snapshot();
        execute copy || ' and pg_visible_in_snapshot(xid, $1)' using copied;
        get diagnostics rows = row_count;
        if fell or month <= at then
            -- Entries come for this month: one that is on its way to the default partition would be refused there afterwards. Nor may
            -- anybody read now who is about to write: each of the two would have what the other waits for.
            lock table only history.entries in access exclusive mode;
        end if;
        lock table history.entries_default in access exclusive mode;
        execute copy || ' and xid >= pg_snapshot_xmin($1) and not pg_visible_in_snapshot(xid, $1)' using copied;
        get diagnostics more = row_count;
        delete from entries_default as e where e.operation_date >= month and e.operation_date < until;
        get diagnostics gone = row_count;
        if gone <> rows + more then
            raise 'history.create_partitions: % changed meanwhile', name using errcode = 'serialization_failure';
        end if;
        execute format('alter table history.entries attach partition history.%I for values from (%L) to (%L)', name, month, until);
        execute format('alter table history.%I drop constraint %I', name, name || '_month_check');
        made := true;
        return next name;
        exit when fell;
    end loop;
end
$$;

comment on function history.create_partitions(integer, timestamptz) is
    'Make the partitions of this month and so many after it where they are missing, then, a month a call, those of what fell into the default partition; their names, none where all is done. Called at start and daily (db/partitions.py).';

-- The triggers --------------------------------------------------------------------------------------------------------

create or replace function history.actor() returns text
language sql stable
return coalesce(
    nullif(current_setting('app.actor', true), ''),
    session_user || coalesce(' (' || nullif(current_setting('application_name'), '') || ')', '')
);

comment on function history.actor() is 'Who acts: app.actor as the service sets it, else the role and the application that are connected.';

-- What jsonb cannot hold is written as the text that it is ({"x": "\u0000"}, 1e999999 or half a letter in a json): a row that could
-- be written before its table was tracked can be written still.
create or replace function history.spelled(object anyelement) returns jsonb
language plpgsql stable strict
set search_path = pg_catalog, pg_temp
as $$
declare
    spelled jsonb := '{}';
    member  jsonb;
    name    text;
begin
    for name in
        select a.attname
        from pg_type as t
        join pg_attribute as a on a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
        where t.oid = pg_typeof(object)
        order by a.attnum
    loop
        begin
            execute format('select to_jsonb(($1).%I)', name) into member using object;
        exception
            when others then
                execute format('select to_jsonb(($1).%I::text)', name) into member using object;
        end;
        spelled := spelled || jsonb_build_object(name, member);
    end loop;
    return spelled;
end
$$;

comment on function history.spelled(anyelement) is 'A row as jsonb, of which each column that jsonb cannot hold is its text.';

create or replace function history.row_json(object anyelement) returns jsonb
language plpgsql stable strict
as $$
begin
    return to_jsonb(object);
exception
    when others then
        return history.spelled(object);
end
$$;

comment on function history.row_json(anyelement) is 'A row as jsonb, whatever it holds.';

-- Texts are longer than numbers: what a primary key can hold and an index with more columns cannot is told by its beginning and digest.
create or replace function history.fit(key text) returns text
language sql stable parallel safe
return case
    when octet_length(key) <= 1000 then key
    else to_json(left(key, 100) || '… sha256:' || encode(sha256(convert_to(key, 'UTF8')), 'hex'))::text
end;

comment on function history.fit(text) is 'A key as JSON, short enough for the indexes of history.';

-- The names in a trigger's arguments serve one key column that still has its name; all else is looked up in the catalog.
create or replace function history.obj_id(object jsonb, relation oid) returns text
language sql stable
set search_path = history, pg_catalog, pg_temp
begin atomic
    select history.fit(case when count(*) < 2 then jsonb_agg(object -> a.attname) ->> 0 else jsonb_agg(object -> a.attname order by k.place)::text end)
    from pg_index as i
    cross join unnest(i.indkey::int2[]) with ordinality as k (attnum, place)
    join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = k.attnum
    where i.indrelid = relation
        and i.indisprimary;
end;

comment on function history.obj_id(jsonb, oid) is 'The key of a row as JSON; null where its table has none.';

create or replace function history.obj_id(object jsonb, called text, relation oid) returns text
language sql stable
return case
    when object is null then null
    when object ? called then history.fit((object -> called)::text)
    else history.obj_id(object, relation)
end;

comment on function history.obj_id(jsonb, text, oid) is 'The same, without a look at the catalog where the column that was called so still is.';

create or replace function history.only_key(relation regclass) returns text
language sql stable
set search_path = pg_catalog, pg_temp
return (
    select case when count(*) = 1 then min(a.attname) else '' end
    from pg_index as i
    join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = any (i.indkey::int2[])
    where i.indrelid = relation
        and i.indisprimary
);

comment on function history.only_key(regclass) is 'The column that is the primary key of a table, as history.obj_id() is told it; empty where it is none, or not the only one.';

create or replace function history.project(object jsonb, relation oid) returns bigint
language sql stable
set search_path = history, pg_catalog, pg_temp
begin atomic
    select (object ->> a.attname)::bigint
    from history.tracked as t
    join pg_attribute as a on a.attrelid = t.relation and a.attnum = t.project
    where t.relation = coalesce(pg_partition_root(project.relation), project.relation);
end;

comment on function history.project(jsonb, oid) is 'The project of a row whose project column was renamed; null where its table has none.';

-- A column may have got another type since its table was tracked.
create or replace function history.number_in(value jsonb) returns bigint
language sql immutable parallel safe
return case when jsonb_typeof(value) = 'number' then value::bigint end;

comment on function history.number_in(jsonb) is 'The number that a value is; null where it is none.';

create or replace function history.project(object jsonb, called text, relation oid) returns bigint
language sql stable
return case
    when object ? called then history.number_in(object -> called)
    when called <> '' then history.project(object, relation)
end;

comment on function history.project(jsonb, text, oid) is 'The project of a row, without a look at the catalog where the column that was called so still is.';

create or replace function history.moment_in(value text) returns timestamptz
language sql stable parallel safe
return case when value like '____-__-__T__:__:__%+00:00' then value::timestamptz end;

comment on function history.moment_in(text) is 'The moment that jsonb has as this text; null where it is none, or beyond the years of four digits.';

-- A clock may be set back: then what comes later for an object would seem to be earlier, and its past could not be told. It is asked of the
-- whole month, of which PostgreSQL knows that there is much: what is of this moment on it takes for little, reads by the date, and so, for
-- each row of a transaction, all that this has written before.
create or replace function history.moment_after(kind text, key text, moment timestamptz) returns timestamptz
language sql stable
begin atomic
    select case
        when greatest(own.latest, common.latest) >= moment then greatest(own.latest, common.latest) + interval '1 microsecond'
        else moment
    end
    from (
        select max(e.operation_date)
        from history.entries as e
        where e.obj_type = kind and e.obj_id = key and e.operation_date >= date_trunc('month', moment)
    ) as own (latest)
    cross join (
        select max(e.operation_date)
        from history.entries as e
        where e.obj_type = kind and e.obj_id is null and e.operation_date >= date_trunc('month', moment)
    ) as common (latest);
end;

comment on function history.moment_after(text, text, timestamptz) is 'The moment, unless history has something later of this object or of its whole table: then right after that.';

create or replace function history.moment_after_all(kind text, moment timestamptz) returns timestamptz
language sql stable
return (
    select coalesce(max(e.operation_date) + interval '1 microsecond', moment)
    from history.entries as e
    where e.obj_type = kind and e.operation_date >= moment
);

comment on function history.moment_after_all(text, timestamptz) is 'The moment, unless history has something later of this kind of object: then right after that.';

-- One for all tables, with the rights of its owner, because nobody else may write to history. Its arguments are the kind of object and the
-- columns that hold its key, its project, when it was changed, and its version; empty where there is none. Then the names of what is
-- computed when it is read, which no trigger is told.
create or replace function history.record() returns trigger
language plpgsql security definer
set search_path = history, pg_catalog, pg_temp
set timezone = 'UTC'
as $$
declare
    before     jsonb;
    after      jsonb;
    object     jsonb;
    key        text;
    left_key   text;
    belongs    bigint;
    belonged   bigint;
    version    integer;
    said       timestamptz;
    -- Not now() alone: of two transactions, the one that began first may well change a row last.
    changed_at timestamptz := greatest(now(), clock_timestamp());
    ended      integer;
begin
    begin
        before := to_jsonb(old);
        after := to_jsonb(new);
    exception
        when others then
            before := spelled(old);
            after := spelled(new);
    end;
    if before = after then
        return null;
    end if;
    if tg_argv[5] <> '{}' then
        before := before - tg_argv[5]::text[];
        after := after - tg_argv[5]::text[];
    end if;
    object := coalesce(after, before);
    key := obj_id(object, tg_argv[1], tg_relid);
    version := number_in(object -> tg_argv[4]);
    said := moment_in(after ->> tg_argv[3]);
    -- A row that says itself when it was changed is right, unless somebody made that up.
    if said between now() and changed_at then
        changed_at := said;
    end if;
    if tg_op = 'INSERT' then
        select d.version into ended from deleted as d where d.obj_type = tg_argv[0] and d.obj_id = key;
        -- Who deleted it had not committed when this one began to count (go_on).
        if ended >= version then
            raise 'another transaction deleted the % % just now', tg_argv[0], key using errcode = 'serialization_failure';
        end if;
    end if;
    left_key := obj_id(before, tg_argv[1], tg_relid);
    belongs := project(object, tg_argv[2], tg_relid);
    belonged := project(before, tg_argv[2], tg_relid);
    -- History is asked for what came before only where that may be later than the clock.
    if ended is not null
        or tg_argv[3] = ''
        or moment_in(before ->> tg_argv[3]) >= changed_at
        or left_key <> key
    then
        changed_at := moment_after(tg_argv[0], key, changed_at);
    end if;
    -- An object is what its key says, and what others see of it is by its project: one that gets another key or project ends there, and
    -- begins here.
    if left_key <> key or (tg_op = 'UPDATE' and belonged is distinct from belongs) then
        changed_at := moment_after(tg_argv[0], left_key, changed_at);
        insert into entries (operation_date, obj_type, obj_id, action, project, actor, request_id, version, old_obj)
        values (
            changed_at,
            tg_argv[0],
            left_key,
            'delete',
            belonged,
            actor(),
            nullif(current_setting('app.request_id', true), ''),
            number_in(before -> tg_argv[4]),
            before
        );
        before := null;
    end if;
    insert into entries (operation_date, obj_type, obj_id, action, project, actor, request_id, version, old_obj, new_obj)
    values (
        changed_at,
        tg_argv[0],
        key,
        case when before is null then 'create' when after is null then 'delete' else 'update' end,
        belongs,
        actor(),
        nullif(current_setting('app.request_id', true), ''),
        version,
        before,
        after
    );
    return null;
end
$$;

comment on function history.record() is 'Trigger: the change of a row becomes an entry.';

create or replace function history.record_truncate() returns trigger
language plpgsql security definer
set search_path = history, pg_catalog, pg_temp
as $$
begin
    insert into entries (operation_date, obj_type, action, actor, request_id)
    values (
        moment_after_all(tg_argv[0], clock_timestamp()),
        tg_argv[0],
        'truncate',
        actor(),
        nullif(current_setting('app.request_id', true), '')
    );
    return null;
end
$$;

comment on function history.record_truncate() is 'Trigger: the emptying of a table becomes an entry.';

-- Before the row is written: who inserts it is answered with the version that it has. A load counts on by itself, for all its rows at
-- once (82_loading.sql, 85_backups.sql), as others of whom a trigger asked row by row would be slow.
create or replace function history.go_on() returns trigger
language plpgsql security definer
set search_path = history, pg_catalog, pg_temp
as $$
declare
    left_key text;
    key      text;
    ended    integer;
begin
    if tg_argv[1] = 'id' then
        begin
            -- Of nearly every table; by the whole row as jsonb it takes ten times as long.
            left_key := fit(to_jsonb(old.id)::text);
            key := fit(to_jsonb(new.id)::text);
        exception
            when undefined_column then null; -- renamed since
        end;
    end if;
    if left_key is null and key is null then
        left_key := obj_id(row_json(old), tg_argv[1], tg_relid);
        key := obj_id(row_json(new), tg_argv[1], tg_relid);
    end if;
    if left_key <> key or key is null then
        insert into deleted as d (obj_type, obj_id, version)
        values (tg_argv[0], left_key, old.version)
        on conflict on constraint deleted_pkey do update
        set version = greatest(d.version, excluded.version);
    end if;
    if tg_op = 'DELETE' then
        return old;
    end if;
    if left_key is distinct from key then
        select d.version into ended from deleted as d where d.obj_type = tg_argv[0] and d.obj_id = key;
        if ended >= new.version then
            new.version := ended + 1;
            new.updated_at := moment_after(tg_argv[0], key, new.updated_at);
        end if;
    end if;
    return new;
end
$$;

comment on function history.go_on() is 'Trigger: what is deleted leaves its version, and what is made anew under its key counts on from there.';

create or replace function history.go_on_from_nothing() returns trigger
language plpgsql security definer
set search_path = history, pg_catalog, pg_temp
as $$
begin
    execute format(
        $sql$
            insert into deleted as d (obj_type, obj_id, version)
            select %L, %s, r.version
            from %s as r
            on conflict on constraint deleted_pkey do update
            set version = greatest(d.version, excluded.version)
        $sql$,
        tg_argv[0],
        case when tg_argv[1] = '' then format('obj_id(row_json(r), %s)', tg_relid) else format('fit(to_jsonb(r.%I)::text)', tg_argv[1]) end,
        tg_relid::regclass
    );
    return null;
end
$$;

comment on function history.go_on_from_nothing() is 'Trigger: all rows of a table that is to be emptied leave their versions.';

-- app.load names a bulk load: its rows are recorded as one entry, because each can be found by what it keeps of where it came from.
create or replace function history.record_load() returns trigger
language plpgsql security definer
set search_path = history, pg_catalog, pg_temp
as $$
declare
    rows  bigint      := (select count(*) from loaded);
    began timestamptz := now();
begin
    if rows = 0 then
        return null;
    end if;
    -- A load may take several statements. Its entry is no older than it is: no month before is asked, or locked.
    update entries as e
    set new_obj = e.new_obj || jsonb_build_object('rows', (e.new_obj ->> 'rows')::bigint + rows)
    where e.operation_date >= began
        and e.xid = pg_current_xact_id()
        and e.obj_type = tg_argv[0]
        and e.obj_id is null
        and e.new_obj ->> 'load' = current_setting('app.load');
    if not found then
        insert into entries (operation_date, obj_type, action, actor, request_id, new_obj)
        values (
            moment_after_all(tg_argv[0], now()), -- which its rows say, too
            tg_argv[0],
            'create',
            actor(),
            nullif(current_setting('app.request_id', true), ''),
            jsonb_build_object('load', current_setting('app.load'), 'rows', rows)
        );
    end if;
    return null;
end
$$;

comment on function history.record_load() is 'Trigger: all rows of a bulk load become one entry.';


-- Tracking ------------------------------------------------------------------------------------------------------------

create or replace function history.column_number(relation regclass, name text, types regtype[]) returns int2
language sql stable
return (
    select a.attnum
    from pg_attribute as a
    where a.attrelid = relation
        and a.attname = name
        and a.atttypid = any (types)
);

comment on function history.column_number(regclass, text, regtype[]) is 'The number of a column that has one of these types; null where there is none.';

create or replace function history.computed(relation regclass) returns text[]
language sql stable
return array(select a.attname::text from pg_attribute as a where a.attrelid = relation and a.attgenerated = 'v' order by a.attnum);

comment on function history.computed(regclass) is 'The columns that are computed whenever they are read: they are no part of a row.';

create or replace function history.drop_triggers(relation regclass) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    trigger_name text;
begin
    for trigger_name in
        select t.tgname
        from pg_trigger as t
        join pg_proc as p on p.oid = t.tgfoid and p.pronamespace = 'history'::regnamespace
        where t.tgrelid = relation
            and not t.tgisinternal
            and t.tgparentid = 0
    loop
        execute format('drop trigger %I on %s', trigger_name, relation);
    end loop;
end
$$;

comment on function history.drop_triggers(regclass) is 'Take the triggers of history from a table.';

-- Again and again without harm; after columns were renamed or a primary key was changed, once more.
create or replace function history.triggers(relation regclass) returns text
language sql stable
set search_path = pg_catalog, pg_temp
return (
    select string_agg(format('%s %s', t.tgname, t.tgenabled), ' ' order by t.tgname)
    from pg_trigger as t
    join pg_proc as p on p.oid = t.tgfoid and p.pronamespace = 'history'::regnamespace
    where t.tgrelid = relation
        and not t.tgisinternal
        and t.tgparentid = 0
);

comment on function history.triggers(regclass) is 'The triggers of history that a table has, and how each is enabled.';

-- Set-wise, and against what history knows: an object of which it knows nothing is created, one that was changed or deleted while its
-- table was not under history is so now. Whoever reads the feed sees that; of what was before, history says nothing. Rows of a load are
-- known by its one entry.
create or replace function history.note(relation regclass) returns void
language plpgsql
set search_path = history, pg_catalog, pg_temp
set timezone = 'UTC'
as $$
#variable_conflict use_column
declare
    kind     record;
    versions boolean := column_number(relation, 'version', '{int2,int4}') is not null;
    counts   boolean := exists (select from pg_trigger as g where g.tgrelid = note.relation and g.tgfoid = 'history.go_on'::regproc);
begin
    select t.obj_type, t.key, a.attname as project into kind
    from tracked as t
    left join pg_attribute as a on a.attrelid = t.relation and a.attnum = t.project
    where t.relation = note.relation;
    if kind.key = '{}' then
        raise 'history.track: % has no primary key: history could not tell its rows apart', relation using errcode = 'invalid_table_definition';
    end if;
    -- Whoever is writing ends first, and nobody writes until this transaction ends: no row is noted as it is no longer, and none twice.
    execute format('lock table %s in share row exclusive mode', relation);
    execute format(
        $sql$
            with
                live as materialized (
                    select obj_id(r.object, %L, $1) as obj_id, number_in(r.object -> $3) as project, r.object
                    from (select row_json(r) - computed($1) from %s as r) as r (object)
                ),
                emptied as (
                    select coalesce(max(e.operation_date), '-infinity') as operation_date
                    from entries as e
                    where e.obj_type = $2 and e.obj_id is null and e.action = 'truncate'
                ),
                loaded as (
                    select exists (
                        select
                        from entries as e
                        cross join emptied as t
                        where e.obj_type = $2 and e.obj_id is null and e.action = 'create' and e.operation_date > t.operation_date
                    ) as loaded
                ),
                latest as (
                    select distinct on (e.obj_id) e.obj_id, e.operation_date, e.project, e.version, e.new_obj
                    from entries as e
                    where e.obj_type = $2 and e.obj_id is not null
                    order by e.obj_id, e.operation_date desc, e.id desc
                ),
                known as (
                    select l.obj_id, l.project, l.version, l.new_obj as object
                    from latest as l
                    cross join emptied as t
                    where l.new_obj is not null and l.operation_date > t.operation_date
                ),
                noted as (
                    insert into entries (operation_date, obj_type, obj_id, action, project, actor, request_id, version, old_obj, new_obj)
                    select
                        moment_after_all($2, clock_timestamp()),
                        $2,
                        coalesce(l.obj_id, k.obj_id),
                        case when k.object is null then 'create' when l.object is null then 'delete' else 'update' end,
                        case when l.object is null then k.project else l.project end,
                        actor(),
                        nullif(current_setting('app.request_id', true), ''),
                        case when l.object is null then k.version when $4 then number_in(l.object -> 'version') end,
                        k.object,
                        l.object
                    from live as l
                    full join known as k on k.obj_id = l.obj_id and k.project is not distinct from l.project
                    where l.object is distinct from k.object
                        and not (k.object is null and (select n.loaded from loaded as n))
                    -- What moved to another project ends there before it begins here.
                    order by l.obj_id is not null
                    returning obj_type, obj_id, action, version
                )
            insert into deleted as d (obj_type, obj_id, version)
            select n.obj_type, n.obj_id, n.version
            from noted as n
            where $5 and n.action = 'delete' and n.version is not null
            on conflict on constraint deleted_pkey do update
            set version = greatest(d.version, excluded.version)
        $sql$,
        only_key(relation),
        relation
    ) using relation, kind.obj_type, kind.project, versions, counts;
end
$$;

comment on function history.note(regclass) is 'Note of a tracked table what is there and history does not know: an entry for each such row, as if it were created, changed or deleted now.';

create or replace function history.track(
    relation regclass,
    obj_type text default null,
    project  text default null,
    loads    boolean default false,
    baseline boolean default false
) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set client_min_messages = warning
as $$
#variable_conflict use_variable
declare
    called    text   := coalesce(obj_type, (select c.relname from pg_class as c where c.oid = relation));
    key       int2[] := array(select unnest(i.indkey::int2[]) from pg_index as i where i.indrelid = relation and i.indisprimary);
    keys      text[] := array(select a.attname from unnest(key) as k (attnum) join pg_attribute as a on a.attrelid = relation and a.attnum = k.attnum);
    only_key  text   := case when cardinality(keys) = 1 then keys[1] else '' end;
    unloaded  text   := case when loads then $when$when (coalesce(current_setting('app.load', true), '') = '')$when$ end;
    counter   text   := (select min(t.tgname) from pg_trigger as t where t.tgrelid = relation and t.tgfoid = 'public.count_version'::regproc);
    arguments text;
    made_of   text;
    place     record;
begin
    select c.relkind, c.relnamespace::regnamespace::text as schema into place from pg_class as c where c.oid = relation;
    if place is null then
        raise 'history.track: there is no table %', relation using errcode = 'undefined_table';
    elsif place.schema in ('history', 'pg_catalog', 'information_schema') then
        raise 'history.track: % cannot be under history', relation using errcode = 'wrong_object_type';
    elsif place.relkind not in ('r', 'p', 'f') then
        raise 'history.track: % is not a table', relation using errcode = 'wrong_object_type';
    elsif btrim(called) = '' then
        raise 'history.track: What a row is called must not be blank' using errcode = 'invalid_parameter_value';
    end if;
    -- A table that is gone took its rows with it, as a truncate does; the one that was made in its place counts on.
    delete from history.tracked as t
    where t.obj_type = called
        and not exists (select from pg_class as c where c.oid = t.relation);
    if found then
        insert into history.entries (operation_date, obj_type, action, actor, request_id)
        values (
            history.moment_after_all(called, clock_timestamp()),
            called,
            'truncate',
            history.actor(),
            nullif(current_setting('app.request_id', true), '')
        );
        insert into history.deleted as d (obj_type, obj_id, version)
        select e.obj_type, e.obj_id, max(e.version)
        from history.entries as e
        where counter is not null
            and e.obj_type = called
            and e.obj_id is not null
            and e.version is not null
        group by e.obj_type, e.obj_id
        on conflict on constraint deleted_pkey do update
        set version = greatest(d.version, excluded.version);
    end if;
    insert into history.tracked as t (obj_type, relation, key, project)
    values (called, relation, key, history.column_number(relation, project, '{int2,int4,int8}'))
    on conflict on constraint tracked_relation_key do update
    set obj_type = excluded.obj_type,
        key = excluded.key,
        project = excluded.project;
    if project is not null and history.column_number(relation, project, '{int2,int4,int8}') is null then
        raise 'history.track: % has no integer column %', relation, project using errcode = 'undefined_column';
    end if;
    arguments := format(
        '%L, %L, %L, %L, %L, %L',
        called,
        only_key,
        coalesce(project, ''),
        case when history.column_number(relation, 'updated_at', '{timestamptz}') is null then '' else 'updated_at' end,
        case when history.column_number(relation, 'version', '{int2,int4}') is null then '' else 'version' end,
        history.computed(relation)
    );
    -- Nothing is locked where all is as it should be: the comment of a trigger says what they were made of, this function's text included.
    made_of := concat_ws(
        ' ',
        'Made of',
        arguments,
        keys,
        unloaded,
        counter,
        (select md5(p.prosrc) from pg_proc as p where p.oid = 'history.track'::regproc)
    );
    if exists (
        select
        from pg_trigger as t
        where t.tgrelid = relation
            and t.tgname = 'history_90_change'
            and obj_description(t.oid, 'pg_trigger') = made_of || ' ' || history.triggers(relation)
    ) then
        if baseline then
            perform history.note(relation);
        end if;
        return;
    end if;
    perform history.drop_triggers(relation);
    execute format(
        'create trigger history_90_create after insert on %s for each row %s execute function history.record(%s)',
        relation,
        unloaded,
        arguments
    );
    execute format(
        'create trigger history_90_change after update or delete on %s for each row execute function history.record(%s)',
        relation,
        arguments
    );
    execute format(
        'create trigger history_90_truncate after truncate on %s execute function history.record_truncate(%L)',
        relation,
        called
    );
    -- Where versions are counted they go on counting: right after the trigger that counts, whose name these begin with.
    if counter is not null and key <> '{}' then
        execute format(
            'create trigger %I before insert on %s for each row %s execute function history.go_on(%L, %L)',
            counter || '_on',
            relation,
            unloaded,
            called,
            only_key
        );
        execute format(
            'create trigger %I before delete or update of %s on %s for each row execute function history.go_on(%L, %L)',
            counter || '_up_to',
            (select string_agg(quote_ident(k), ', ') from unnest(keys) as k),
            relation,
            called,
            only_key
        );
        execute format(
            'create trigger %I before truncate on %s execute function history.go_on_from_nothing(%L, %L)',
            counter || '_up_to_all',
            relation,
            called,
            only_key
        );
    end if;
    if loads then
        execute format(
            $sql$
                create trigger history_90_load after insert on %s referencing new table as loaded
                when (coalesce(current_setting('app.load', true), '') <> '') execute function history.record_load(%L)
            $sql$,
            relation,
            called
        );
        -- Also where a load has its checks done for all rows at once (82_loading.sql), and triggers are left out with them.
        execute format('alter table %s enable always trigger history_90_load', relation);
    end if;
    execute format('comment on trigger history_90_change on %s is %L', relation, made_of || ' ' || history.triggers(relation));
    if baseline then
        perform history.note(relation);
    end if;
end
$$;

comment on function history.track(regclass, text, text, boolean, boolean) is
    'Put a table under history and the feed. obj_type is what a row of it is called (the table''s name unless told), project the column with the project of a row; with loads, what is inserted while app.load is set is recorded as one entry; with baseline, each row that is there becomes an entry, by which replay() and ?as_of= know it from then on, and who reads the feed sees it created.';

create or replace function history.untrack(relation regclass) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform history.drop_triggers(relation);
    delete from history.tracked as t where t.relation = untrack.relation;
end
$$;

comment on function history.untrack(regclass) is 'Take a table out of history and the feed; the entries stay.';


-- Reading -------------------------------------------------------------------------------------------------------------

create or replace function history.diff(before jsonb, after jsonb) returns jsonb
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
return (
    select coalesce(jsonb_object_agg(f.name, jsonb_build_array(before -> f.name, after -> f.name)), '{}')
    from jsonb_object_keys(coalesce(before, '{}') || coalesce(after, '{}')) as f (name)
    where nullif(before -> f.name, 'null') is distinct from nullif(after -> f.name, 'null')
        and f.name not in ('version', 'updated_at')
);

comment on function history.diff(jsonb, jsonb) is 'What differs between two rows as {"field": [old, new]}, without what counts and dates the versions themselves.';

create or replace function history.matches(
    e          history.entries,
    obj_type   text,
    project    text,
    actor      text,
    action     text,
    request_id text,
    since      text,
    until      text,
    field      text
) returns boolean
language sql stable parallel safe
return (matches.obj_type = '' or e.obj_type = any (string_to_array(matches.obj_type, ',')))
    and (matches.project = '' or e.project = nullif(matches.project, '')::bigint)
    and (matches.actor = '' or e.actor = matches.actor)
    and (matches.action = '' or e.action = matches.action)
    and (matches.request_id = '' or e.request_id = matches.request_id)
    and (matches.since = '' or e.operation_date >= nullif(matches.since, '')::timestamptz)
    and (matches.until = '' or e.operation_date < nullif(matches.until, '')::timestamptz)
    and (matches.field = '' or history.diff(e.old_obj, e.new_obj) ? matches.field);

comment on function history.matches(history.entries, text, text, text, text, text, text, text, text) is 'Whether an entry fits all filters that are given.';

create or replace function history.version_of(relation regclass, key text, number integer, live jsonb) returns jsonb
language sql stable
begin atomic
    select case
        when (live ->> 'version')::integer = number then live
        else coalesce(
            (
                select coalesce(e.new_obj, e.old_obj)
                from history.entries as e
                where e.obj_type = (select t.obj_type from history.tracked as t where t.relation = version_of.relation)
                    and e.obj_id = version_of.key
                    and e.version = number
                limit 1
            ),
            (
                select e.old_obj
                from history.entries as e
                where e.obj_type = (select t.obj_type from history.tracked as t where t.relation = version_of.relation)
                    and e.obj_id = version_of.key
                    and e.version = number + 1
                    and e.old_obj -> 'version' = to_jsonb(number)
                limit 1
            )
        )
    end;
end;

comment on function history.version_of(regclass, text, integer, jsonb) is
    'A row as its version of this number was, whose key is this JSON and which now is `live` (null if it is gone). A row that was loaded in bulk is known from its first change on, as what it was before.';

-- Months that were dropped took with them what was changed then: nobody can say how anything was before.
-- With the rights of its owner: what a truncate took of a project, the project's own tokens may know.
create or replace function history.emptied_by(kind text, since timestamptz, until timestamptz) returns text[]
language sql stable security definer
set search_path = history, pg_catalog, pg_temp
return (
    select array_agg(distinct e.actor)
    from history.entries as e
    where e.obj_type = kind
        and e.obj_id is null
        and e.action = 'truncate'
        and e.operation_date > since
        and e.operation_date <= until
);

comment on function history.emptied_by(text, timestamptz, timestamptz) is 'Who emptied the table of a kind of object after one moment and until another; null where nobody did.';

create or replace function history.last_emptied(kind text, until timestamptz) returns timestamptz
language sql stable security definer
set search_path = history, pg_catalog, pg_temp
return (
    select max(e.operation_date)
    from history.entries as e
    where e.obj_type = kind
        and e.obj_id is null
        and e.action = 'truncate'
        and e.operation_date <= until
);

comment on function history.last_emptied(text, timestamptz) is 'When the table of a kind of object was emptied last, until a moment; null where it never was.';

create or replace function history.reached(moment timestamptz) returns timestamptz
language plpgsql stable
as $$
begin
    if (select h.pruned > '0' from history.horizon as h)
        -- Whole months were dropped: of the one that has the first entry nothing is missing.
        and moment < (select coalesce(date_trunc('month', min(e.operation_date), 'UTC'), 'infinity') from history.entries as e)
    then
        raise 'history does not reach back to %', moment using errcode = 'RH404';
    end if;
    return moment;
end
$$;

comment on function history.reached(timestamptz) is 'A moment that history reaches back to; an error (RH404) where it does not.';

create or replace function history.row_at(relation regclass, key text, moment timestamptz, live jsonb) returns jsonb
language sql stable
begin atomic
    with
        kind as (
            select t.obj_type
            from history.tracked as t
            where t.relation = row_at.relation
        ),
        latest as (
            select e.operation_date, e.new_obj
            from history.entries as e
            where e.obj_type = (select k.obj_type from kind as k)
                and e.obj_id = row_at.key
                and e.operation_date <= moment
            order by e.operation_date desc, e.id desc
            limit 1
        ),
        following as (
            select e.old_obj
            from history.entries as e
            where e.obj_type = (select k.obj_type from kind as k)
                and e.obj_id = row_at.key
                and e.operation_date > moment
            order by e.operation_date, e.id
            limit 1
        ),
        -- What it is found as after that moment: the row that was changed then, or the row that there is.
        found as (
            select f.old_obj as object from following as f
            union all
            select live where not exists (select from following)
        ),
        emptied as (
            select history.last_emptied((select k.obj_type from kind as k), moment) as operation_date
        ),
        known as (
            select l.new_obj as object
            from latest as l
            cross join emptied as t
            where l.new_obj is not null
                and (
                    t.operation_date is null
                    or t.operation_date < l.operation_date
                    or l.new_obj -> 'version' = (select f.object -> 'version' from found as f)
                )
        )
    select k.object from known as k
    union all
    -- Nothing is known of it by then, or that it was gone: it was there if it was saved before, by a load or before the table was tracked.
    select f.object
    from found as f
    cross join (
        select greatest(t.operation_date, (select l.operation_date from latest as l)) as gone_at
        from emptied as t
    ) as e
    where not exists (select from known)
        and coalesce(f.object ->> 'updated_at', f.object ->> 'created_at')::timestamptz <= moment
        and (
            e.gone_at is null
            or exists (
                select
                from history.entries as l
                where l.obj_type = (select k.obj_type from kind as k)
                    and l.obj_id is null
                    and l.action = 'create'
                    and l.operation_date > e.gone_at
                    and l.operation_date <= moment
            )
        );
end;

comment on function history.row_at(regclass, text, timestamptz, jsonb) is 'A row as it was at a moment; null where it was not. The other parameters are those of version_of.';

create or replace function history.as_of(relation regclass, key text, as_of text, live jsonb) returns setof jsonb
language sql stable rows 1
begin atomic
    select past.object
    from (
        select case
            when as_of ~ '^[0-9]+$' then history.version_of(relation, key, as_of::integer, live)
            else history.row_at(relation, key, history.reached(as_of::timestamptz), live)
        end
    ) as past (object)
    where past.object is not null;
end;

comment on function history.as_of(regclass, text, text, jsonb) is 'A row as it was in a version, or at a time; no row where it was not. The other parameters are those of version_of.';

create or replace function history.json_patch(before jsonb, after jsonb) returns jsonb
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
return case
    when before is null then jsonb_build_array(jsonb_build_object('op', 'add', 'path', '', 'value', after))
    when after is null then jsonb_build_array(jsonb_build_object('op', 'remove', 'path', ''))
    else (
        select coalesce(
            jsonb_agg(
                case
                    when not after ? f.name then jsonb_build_object('op', 'remove', 'path', f.path)
                    when before ? f.name then jsonb_build_object('op', 'replace', 'path', f.path, 'value', after -> f.name)
                    else jsonb_build_object('op', 'add', 'path', f.path, 'value', after -> f.name)
                end
                order by f.name
            ),
            '[]'
        )
        from (
            select k.name, '/' || replace(replace(k.name, '~', '~0'), '/', '~1')
            from jsonb_object_keys(before || after) as k (name)
        ) as f (name, path)
        where before -> f.name is distinct from after -> f.name
    )
end;

comment on function history.json_patch(jsonb, jsonb) is 'RFC 6902: what makes the row after of the row before, versions and all.';

-- Those have a view of their name in past (19_past.sql); what others put under history has none.
create or replace function history.is_own(relation regclass) returns boolean
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
return exists (
    select
    from pg_class as c
    join pg_class as v on v.relname = c.relname and v.relnamespace = to_regnamespace('past')
    where c.oid = relation
        and c.relnamespace = 'public'::regnamespace
);

comment on function history.is_own(regclass) is 'Whether a table is one of the service''s, which has routes to its rows.';

-- In plpgsql, so that the plan of a list is not made anew for it.
create or replace function history.revert_path(kind text, key text) returns text
language plpgsql stable cost 1
as $$
begin
    return (
        select '/' || t.relation || '/' || (revert_path.key::jsonb #>> '{}') || '/revert'
        from history.tracked as t
        where t.obj_type = kind
            and history.is_own(t.relation)
    );
end
$$;

comment on function history.revert_path(text, text) is 'Where the service brings back an object that was deleted; null for what it has no routes for.';

create or replace function history.entry_json(e history.entries, form text) returns json
language sql stable parallel safe
begin atomic
    select to_json(item)
    from (
        select
            e.id,
            iso8601(e.operation_date) as operation_date,
            e.obj_type,
            e.obj_id::json as obj_id,
            e.action,
            e.project,
            e.actor,
            e.request_id,
            e.version,
            e.old_obj,
            e.new_obj,
            case
                when e.action = 'truncate' or e.obj_id is null then null
                when form = 'json-patch' then history.json_patch(e.old_obj, e.new_obj)
                else history.diff(e.old_obj, e.new_obj)
            end as diff,
            case when e.action = 'delete' then history.revert_path(e.obj_type, e.obj_id) end as revert
    ) as item;
end;

comment on function history.entry_json(history.entries, text) is 'An entry as the service answers it, its diff as {"field": [old, new]} or as json-patch.';


-- Merging -------------------------------------------------------------------------------------------------------------

create or replace function history.live(relation regclass, id text) returns jsonb
language plpgsql stable
as $$
declare
    kind text := (select a.atttypid::regtype from pg_attribute as a where a.attrelid = relation and a.attname = 'id');
    live jsonb;
begin
    if pg_input_is_valid(id, kind) then
        execute format('select to_jsonb(r) from %s as r where r.id = $1::%s', relation, kind) into live using id;
    end if;
    return live;
end
$$;

comment on function history.live(regclass, text) is 'The row with this id; null where there is none.';

-- With the rights of the owner: a token of one project, which may not read what was deleted elsewhere, asks of an object that it reads.
create or replace function history.last_deleted(kind text, key text) returns integer
language plpgsql stable security definer
set search_path = history, pg_catalog, pg_temp
as $$
begin
    return (
        select d.version
        from deleted as d
        where d.obj_type = kind
            and d.obj_id = key
    );
end
$$;

comment on function history.last_deleted(text, text) is 'The last version of an object that was deleted under this key, whatever there is by now; null where none was.';

-- A table with fields of which two spellings are one value has a function of its own for its rows (20_users.sql): of two that fit,
-- PostgreSQL takes the closer one.
create or replace function history.meant(r anyelement) returns jsonb
language sql stable parallel safe
set timezone = 'UTC'
as $$ select to_jsonb(r) $$;

comment on function history.meant(anyelement) is 'The fields of a row by what they mean: those of two rows are equal where they mean the same.';

-- Values are compared in the types of their columns, by what they mean and not how they are spelled: …42.5Z is …42.500+00:00, 1e0 is 1.
-- A field that the caller spelled otherwise and did not change, or changed to what others did, is as those others spelled it, if any.
create or replace function history.compared(
    relation      regclass,
    live          jsonb,
    base          integer,
    sent          jsonb,
    out known     boolean,
    out mine      jsonb,
    out conflicts jsonb
)
language plpgsql stable
set timezone = 'UTC'
as $$
declare
    kind    text    := (select t.obj_type from history.tracked as t where t.relation = compared.relation);
    key     text    := live -> 'id';
    latest  integer := live -> 'version';
    image   jsonb   := history.version_of(relation, key, base, live);
    present jsonb;
    past    jsonb;
    wanted  jsonb;
    meant   jsonb[];
    doubted text[];
    theirs  jsonb   := '{}';
    agreed  text[];
begin
    -- What was deleted since and made anew under the same id is another object.
    known := image is not null and coalesce(history.last_deleted(kind, key), 0) < base;
    execute format(
        $sql$
            select to_jsonb(r.present), to_jsonb(r.past), to_jsonb(r.wanted), array[history.meant(r.present), history.meant(r.past), history.meant(r.wanted)]
            from (
                select
                    jsonb_populate_record(null::%1$s, $1) as present,
                    jsonb_populate_record(null::%1$s, $2) as past,
                    jsonb_populate_record(null::%1$s, $3) as wanted
            ) as r
        $sql$,
        relation
    ) into present, past, wanted, meant using live, image, sent;
    select
        coalesce(jsonb_object_agg(s.name, sent -> s.name), '{}'),
        coalesce(array_agg(s.name) filter (where wanted -> s.name <> present -> s.name), '{}'),
        coalesce(array_agg(s.name) filter (where meant[3] -> s.name in (meant[1] -> s.name, case when known then meant[2] -> s.name end)), '{}')
    into mine, doubted, agreed
    from jsonb_object_keys(sent) as s (name)
    where not known
        or wanted -> s.name <> past -> s.name;
    -- A member that others changed and changed back was changed, too. Mostly nobody did: that is soon known of thousands of versions.
    if not known or exists (
        select
        from history.entries as e
        join unnest(doubted) as d (name) on e.new_obj -> d.name is distinct from image -> d.name
        where e.obj_type = kind
            and e.obj_id = key
            and e.version > base
            and e.version <= latest
    ) then
        select
            coalesce(
                jsonb_object_agg(
                    d.name,
                    jsonb_build_object('changed_by', e.actor, 'changed_at', iso8601(e.operation_date))
                    order by e.version
                ),
                '{}'
            )
        into theirs
        from history.entries as e
        join unnest(doubted) as d (name) on e.old_obj -> d.name <> e.new_obj -> d.name or e.action = 'create'
        where e.obj_type = kind
            and e.obj_id = key
            and e.version > base
            and e.version <= latest;
    end if;
    select
        coalesce(
            jsonb_object_agg(
                d.name,
                coalesce(
                    theirs -> d.name,
                    jsonb_build_object('changed_by', null, 'changed_at', iso8601((present ->> 'updated_at')::timestamptz))
                )
            ) filter (where d.name <> all (agreed)),
            '{}'
        ),
        mine - coalesce(array_agg(d.name) filter (where d.name = any (agreed)), '{}')
    into conflicts, mine
    from unnest(doubted) as d (name)
    where not known
        or theirs ? d.name
        or present -> d.name <> past -> d.name;
end
$$;

comment on function history.compared(regclass, jsonb, integer, jsonb) is
    'A change that was made from version `base` of what by now is `live`: whether history knows that version, what of it the caller changed, and of that what somebody else changed to something else, by whom and when.';

-- Volatile, so that it sees the history of the very row that an update has found and locked, however long it waited for it: an update
-- asks again for that. So a merge never has to begin anew, whoever else saves the object meanwhile.
create or replace function history.mine(relation regclass, live jsonb, base integer, sent jsonb) returns jsonb
language plpgsql
as $$
declare
    found record;
begin
    select c.known, c.mine, c.conflicts into found from history.compared(relation, live, base, sent) as c;
    if not found.known or found.conflicts <> '{}' then
        raise 'version % cannot be merged with what others changed since: %', base, found.conflicts using errcode = 'RH409';
    end if;
    return found.mine;
end
$$;

comment on function history.mine(regclass, jsonb, integer, jsonb) is 'What of a change is to be saved over what others saved since its version `base`; an error (RH409) where they changed the same.';


-- Proving -------------------------------------------------------------------------------------------------------------

-- Of each object in order: it begins with its creation, each entry starts from what the one before left, or from nothing where the
-- table was emptied since, and the last is the row as it is. Not for what was loaded in bulk, or was there before its table was tracked
-- and not noted then (track with baseline).
create or replace function history.replay(project bigint)
returns table (obj_type text, obj_id text, entry bigint, replayed jsonb, found jsonb)
language plpgsql stable
set search_path = history, pg_catalog, pg_temp
set timezone = 'UTC'
as $$
#variable_conflict use_column
declare
    kind record;
begin
    for kind in
        select t.obj_type, t.relation, a.attname
        from tracked as t
        join pg_attribute as a on a.attrelid = t.relation and a.attnum = t.project
        order by t.obj_type
    loop
        return query execute format(
            $sql$
                with
                    emptied as (
                        select e.operation_date
                        from history.entries as e
                        where e.obj_type = %L and e.obj_id is null and e.action = 'truncate'
                    ),
                    listed as (
                        select
                            e.*,
                            row_number() over w as place,
                            lag(e.new_obj) over w as left_by_the_one_before,
                            lag(e.operation_date) over w as date_before
                        from history.entries as e
                        where e.obj_type = %L and e.project = $1 and e.obj_id is not null
                        window w as (partition by e.obj_id order by e.operation_date, e.id)
                    ),
                    entries as (
                        select
                            e.id,
                            e.obj_id,
                            e.action,
                            e.old_obj,
                            e.place,
                            case
                                when not exists (select from emptied as t where t.operation_date between e.date_before and e.operation_date)
                                then e.left_by_the_one_before
                            end as left_by_the_one_before
                        from listed as e
                    ),
                    last as (
                        select distinct on (e.obj_id)
                            e.obj_id,
                            e.id,
                            case when not exists (select from emptied as t where t.operation_date > e.operation_date) then e.new_obj end as new_obj
                        from listed as e
                        order by e.obj_id, e.place desc
                    ),
                    live as (
                        select history.obj_id(history.row_json(r), %L::regclass) as obj_id, history.row_json(r) - history.computed(%L::regclass) as row
                        from %s as r
                        where r.%I = $1
                    )
                select %L, e.obj_id, e.id, e.left_by_the_one_before, e.old_obj
                from entries as e
                where e.left_by_the_one_before is distinct from e.old_obj
                    or (e.place = 1 and e.action <> 'create')
                union all
                select %L, coalesce(l.obj_id, r.obj_id), l.id, l.new_obj, r.row
                from last as l
                full join live as r on r.obj_id = l.obj_id
                where l.new_obj is distinct from r.row
            $sql$,
            kind.obj_type, kind.obj_type, kind.relation::oid, kind.relation::oid, kind.relation, kind.attname, kind.obj_type, kind.obj_type
        ) using project;
    end loop;
end
$$;

comment on function history.replay(bigint) is 'Replay the history of a project from nothing: no rows where that gives its tables as they are, else what differs.';


-- Pruning -------------------------------------------------------------------------------------------------------------

create or replace function history.prune(before timestamptz) returns setof text
language plpgsql
set search_path = history, pg_catalog, pg_temp
set timezone = 'UTC'
as $$
declare
    partition record;
    dropped   xid8;
begin
    -- Not while rows of the default partition are on their way to their months.
    perform pg_advisory_xact_lock(hashtextextended('history.partitions', 0));
    for partition in
        select c.relname
        from pg_inherits as i
        join pg_class as c on c.oid = i.inhrelid
        where i.inhparent = 'history.entries'::regclass
            and (regexp_match(pg_get_expr(c.relpartbound, c.oid), $re$TO \('(.*)'\)$re$))[1]::timestamptz <= before
        order by c.relname
    loop
        -- Whoever would resume from before must be told: history.horizon (16_feed.sql).
        execute format('select max(xid) from history.%I', partition.relname) into dropped;
        update horizon set pruned = greatest(pruned, dropped);
        execute format('drop table history.%I', partition.relname);
        return next partition.relname;
    end loop;
    update horizon
    set pruned = greatest(pruned, (select max(e.xid) from entries_default as e where e.operation_date < date_trunc('month', before)));
    delete from entries_default as e where e.operation_date < date_trunc('month', before);
    delete from late_entries as l where l.xid <= (select h.pruned from horizon as h);
end
$$;

comment on function history.prune(timestamptz) is 'Drop the months that ended by then; the names of their partitions. What is dropped cannot be read, merged with or resumed from any more.';
