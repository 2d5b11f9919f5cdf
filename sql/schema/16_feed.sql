-- 16 Feed: what a reader of history needs to miss nothing and see nothing twice. The feed itself is sql/queries/feed.sql.

-- A reader's place is a snapshot: what is visible now and was not then is new, in whatever order it was committed. It means something
-- only in the database it is of, and only as long as nothing of what came after it was dropped.
create table if not exists history.horizon (
    feed    text   not null default left(md5(gen_random_uuid()::text), 8),
    pruned  xid8   not null default '0',
    server  text   not null default '',
    from_id bigint not null default 0,
    constraint horizon_pkey primary key (feed)
);

comment on table history.horizon is 'How far back the feed reaches: one row.';
comment on column history.horizon.feed is 'The name of this feed; a cursor carries it.';
comment on column history.horizon.pruned is 'The latest transaction of which entries were dropped by history.prune().';
comment on column history.horizon.server is 'The server and the database in it that the feed is of; nothing, as long as nobody has looked.';
comment on column history.horizon.from_id is 'The last entry that came from another server, in a dump: its transaction means nothing here.';
comment on constraint horizon_pkey on history.horizon is 'There is one horizon a feed.';

insert into history.horizon (feed)
select left(md5(gen_random_uuid()::text), 8)
where not exists (select from history.horizon);

-- A standby that was promoted, and a server that was restored to a point in time, give the numbers of transactions out again, to others: a
-- snapshot from before says nothing of them. Both begin another timeline.
create or replace function history.feed() returns text
language sql stable parallel safe
return case
    when not pg_is_in_recovery() then
        (select h.feed from history.horizon as h) || '.' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)
end;

comment on function history.feed() is 'The name of this feed on this timeline of the server; null on a standby, which has none.';

-- After a crash the numbers of the last transactions may be given out again, to others: of what did not commit, nobody waited until it was
-- written. A place says that they were seen up to the last that committed; of those behind it nothing was there to be seen.
create or replace function history.snapshot() returns pg_snapshot
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
    seen   pg_snapshot := pg_current_snapshot();
    newest bigint      := pg_snapshot_xmax(seen)::text::bigint;
    until  bigint      := newest;
begin
    for step in 1..1000 loop
        exit when until <= 4 or pg_xact_status((until - 1)::text::xid8) = 'committed';
        until := until - 1;
    end loop;
    if until = newest then
        return seen;
    end if;
    return format(
        '%s:%s:%s',
        least(pg_snapshot_xmin(seen)::text::bigint, until),
        until,
        (select string_agg(x::text, ',' order by x) from pg_snapshot_xip(seen) as x where x::text::bigint < until)
    );
end
$$;

comment on function history.snapshot() is
    'What a statement sees, by numbers that a crash of the server does not give out again: without the transactions behind the last that committed, of which it looks at 1,000.';

-- Stable, so that the snapshot is that of the statement.
create or replace function history.place() returns text
language sql stable parallel safe
return history.feed() || '|' || history.snapshot()::text;

comment on function history.place() is 'Where the feed is as this statement sees it: its name, and the snapshot; null on a standby.';


-- What is recent --------------------------------------------------------------------------------------------------------

-- The feed looks for what is new many times a second, and must not ask ten years of months each time. Dates alone do not tell it what it
-- may leave out: a transaction may run for days, and a clock be set back by years. Therefore a month that is over is closed: from then
-- on who writes to it says so, by a trigger. The trigger waits for those who wrote without, so that a snapshot that sees the closing sees
-- all that they wrote. What is new since such a snapshot is in the months after, unless it is among the late entries.
create table if not exists history.closings (
    before timestamptz not null,
    xid    xid8        not null default pg_current_xact_id(),
    constraint closings_pkey primary key (before)
);

comment on table history.closings is 'Up to when months were closed, and since which transaction: entries of such a month that come later are late.';
comment on column history.closings.before is 'The end of the latest month that was closed; all before it are, too.';
comment on column history.closings.xid is 'The transaction that closed it.';
comment on constraint closings_pkey on history.closings is 'A month is closed once.';

create table if not exists history.late_entries (
    xid xid8 not null,
    constraint late_entries_pkey primary key (xid)
);

comment on table history.late_entries is 'Transactions that wrote entries to a month that was closed, or to the default partition, where the feed does not look otherwise.';
comment on column history.late_entries.xid is 'The transaction of the entries.';
comment on constraint late_entries_pkey on history.late_entries is 'A transaction is noted once.';

create or replace function history.note_late_entry() returns trigger
language plpgsql security definer
set search_path = history, pg_catalog, pg_temp
as $$
begin
    insert into late_entries (xid) values (new.xid) on conflict on constraint late_entries_pkey do nothing;
    return null;
end
$$;

comment on function history.note_late_entry() is 'Trigger: an entry came where the feed does not look otherwise.';

create or replace trigger history_90_late after insert on history.entries_default for each row execute function history.note_late_entry();

create or replace function history.watch_for_late_entries(partition text) returns void
language plpgsql
as $$
begin
    execute format(
        'create trigger history_90_late after insert on history.%I for each row execute function history.note_late_entry()',
        partition
    );
end
$$;

comment on function history.watch_for_late_entries(text) is 'Have it noted from now on who writes to a partition of history.entries.';

-- A day later, so that hardly anybody still writes to the month. When is free: too soon costs time, and nothing is missed.
create or replace function history.close_partitions(at timestamptz default now()) returns setof text
language plpgsql security definer
set search_path = history, pg_catalog, pg_temp
set timezone = 'UTC'
set lock_timeout = '500ms'
as $$
declare
    partition record;
    closed    timestamptz;
begin
    perform pg_advisory_xact_lock(hashtextextended('history.partitions', 0));
    for partition in
        select p.name, p.upper, p.watched
        from (
            select
                c.relname as name,
                (regexp_match(pg_get_expr(c.relpartbound, c.oid), $re$TO \('(.*)'\)$re$))[1]::timestamptz as upper,
                exists (select from pg_trigger as t where t.tgrelid = c.oid and t.tgname = 'history_90_late') as watched
            from pg_inherits as i
            join pg_class as c on c.oid = i.inhrelid
            where i.inhparent = 'history.entries'::regclass
        ) as p
        where p.upper <= at - interval '1 day'
        order by p.upper
    loop
        closed := partition.upper;
        if not partition.watched then
            perform watch_for_late_entries(partition.name);
            return next partition.name;
        end if;
    end loop;
    insert into closings (before)
    select closed
    where closed > (select coalesce(max(c.before), '-infinity') from closings as c);
end
$$;

comment on function history.close_partitions(timestamptz) is 'Close the months that ended a day ago or more, so that the feed need not ask them; their names. Called after history.create_partitions().';


-- Elsewhere -------------------------------------------------------------------------------------------------------------

-- In a dump that is restored elsewhere the entries keep the numbers of transactions of the server that they were made on, which the new one
-- gives out again: what lies in its future would be told as new. So there another feed begins, behind all that came with the dump.
create or replace function history.rename_feed() returns text
language sql
begin atomic
    delete from history.late_entries;
    update history.closings set xid = pg_current_xact_id();
    update history.horizon
    set
        feed = left(md5(gen_random_uuid()::text), 8),
        pruned = case when pruned > '0' then '1' else '0' end::xid8,
        from_id = (select coalesce(max(e.id), 0) from history.entries as e)
    returning feed;
end;

comment on function history.rename_feed() is 'Begin another feed behind all entries that there are; its name. For whoever puts back a copy of the server''s files: of that nobody else can know.';

create or replace function history.recognize_server() returns text
language plpgsql
as $$
declare
    here text := concat_ws(
        '.',
        (select s.system_identifier from pg_control_system() as s),
        (select d.oid from pg_database as d where d.datname = current_database())
    );
    was  text := (select h.server from history.horizon as h);
begin
    if here = was then
        return null;
    end if;
    update history.horizon set server = here;
    return case when was <> '' then history.rename_feed() end;
end
$$;

comment on function history.recognize_server() is 'Begin another feed where the database came here from elsewhere, in a dump; its name then. Called by each migration.';


-- The frames ------------------------------------------------------------------------------------------------------------

create or replace function history.frame(e history.entries) returns json
language sql stable parallel safe
begin atomic
    select to_json(item)
    from (
        select
            e.project,
            json_build_object('obj_type', e.obj_type, 'obj_id', e.obj_id::json, 'action', e.action) as object,
            e.id,
            e.version,
            iso8601(e.operation_date) as operation_date,
            e.actor,
            case when e.obj_id is not null then history.diff(e.old_obj, e.new_obj) end as diff
    ) as item;
end;

comment on function history.frame(history.entries) is 'An entry as the channel sends it, but for its cursor.';
