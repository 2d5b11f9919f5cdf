-- 17 Seals: what shows afterwards that history is as it was written, also to whoever does not trust those who may write to the database.
--
-- A seal holds a digest of each entry that became visible since the seal before, and a root over all of that and the root before. Whoever
-- keeps one root elsewhere can have all that came before it proven: `select * from history.verify('{<root>}')`. Writers do nothing for it:
-- `select history.seal()` reads what they left, each hour (flask notifier) or whenever it is called (flask history seal).

-- An entry is covered by the seal in whose snapshot it is visible and in whose predecessor's it was not, as the feed's cursors go on, so
-- that late commits are in no gap. The snapshot means nothing to another cluster, to which a dump was restored: there ids decide.
create table if not exists history.seals (
    id         bigint      not null,
    sealed_at  timestamptz not null,
    cluster    bigint      not null,
    snapshot   pg_snapshot not null,
    xid        xid8,
    open_since timestamptz,
    entries    bigint      not null,
    digest     bytea       not null,
    root       bytea       not null,
    constraint seals_pkey primary key (id)
);

comment on table history.seals is 'The seals of history, each chained to the one before by its root.';
comment on column history.seals.id is 'Counts up from 1, without a gap.';
comment on column history.seals.sealed_at is 'When it was made.';
comment on column history.seals.cluster is 'The cluster that it was made in, by its system identifier: only there its snapshot means something.';
comment on column history.seals.snapshot is 'What was visible to it.';
comment on column history.seals.xid is 'Its transaction, which began to write once the snapshot was taken: so did those after it, whose entries have later ids. Null where it had written before.';
comment on column history.seals.open_since is 'When the oldest transaction began that was open then: what is committed later is not dated before. Null where the owner may not see that (pg_read_all_stats).';
comment on column history.seals.entries is 'How many entries it covers.';
comment on column history.seals.digest is 'SHA-256 over the digests of its parts in history.sealed.';
comment on column history.seals.root is 'SHA-256 over the root before and all columns of this one: history.root().';
comment on constraint seals_pkey on history.seals is 'Another seal has this id.';

-- In parts, because a value has a bound and a first seal covers all there is; by month, because months are dropped.
create table if not exists history.sealed (
    seal    bigint   not null,
    part    integer  not null,
    month   date     not null,
    ids     bigint[] not null,
    digests bytea[]  not null,
    last    bigint   not null generated always as (ids[cardinality(ids)]) stored,
    constraint sealed_pkey primary key (seal, part),
    constraint sealed_seal_fkey foreign key (seal) references history.seals (id) on delete restrict
);

comment on table history.sealed is 'The entries that a seal covers, up to 10,000 a row.';
comment on column history.sealed.seal is 'The seal.';
comment on column history.sealed.part is 'Counts up from 1 within the seal.';
comment on column history.sealed.month is 'The month of their dates, by UTC: its first day.';
comment on column history.sealed.ids is 'The ids of the entries, in order.';
comment on column history.sealed.digests is 'The digest of each: history.entry_digest().';
comment on column history.sealed.last is 'The greatest of the ids.';
comment on constraint sealed_pkey on history.sealed is 'The seal has this part already.';
comment on constraint sealed_seal_fkey on history.sealed is 'There is no such seal.';


-- What is digested ----------------------------------------------------------------------------------------------------

-- None of these may ever give something else for the same values: what was sealed would seem to be changed. The rows by digests of their
-- own, because both together may be more than a jsonb can hold; no jsonb is an empty text.
create or replace function history.entry_digest(e history.entries) returns bytea
language sql stable parallel safe
return sha256(
    convert_to(
        jsonb_build_array(
            e.id, iso8601(e.operation_date), e.xid::text, e.obj_type, e.obj_id, e.action, e.project, e.actor, e.request_id, e.version
        )::text,
        'UTF8'
    )
    || sha256(convert_to(coalesce(e.old_obj::text, ''), 'UTF8'))
    || sha256(convert_to(coalesce(e.new_obj::text, ''), 'UTF8'))
);

comment on function history.entry_digest(history.entries) is
    'SHA-256 over an entry: its columns as a JSON array, then the digests of the rows before and after as jsonb writes them, of nothing where there is none.';

create or replace function history.part_digest(part integer, month date, ids bigint[], digests bytea[]) returns bytea
language sql immutable parallel safe
return (
    select sha256(int4send(part) || date_send(month) || coalesce(string_agg(int8send(e.id) || e.digest, ''::bytea order by e.place), ''))
    from unnest(ids, digests) with ordinality as e (id, digest, place)
);

comment on function history.part_digest(integer, date, bigint[], bytea[]) is 'SHA-256 over a part of a seal: its number, its month, and each id with its digest, as PostgreSQL sends them.';

create or replace function history.root(
    previous   bytea,
    id         bigint,
    sealed_at  timestamptz,
    cluster    bigint,
    snapshot   pg_snapshot,
    xid        xid8,
    open_since timestamptz,
    entries    bigint,
    digest     bytea
) returns bytea
language sql stable parallel safe
return sha256(
    coalesce(previous, '')
    || int8send(id)
    || timestamptz_send(sealed_at)
    || int8send(cluster)
    || timestamptz_send(coalesce(open_since, 'infinity'))
    || int8send(entries)
    || convert_to(concat_ws(' ', snapshot, xid), 'UTF8')
    || digest
);

comment on function history.root(bytea, bigint, timestamptz, bigint, pg_snapshot, xid8, timestamptz, bigint, bytea) is
    'SHA-256 over the root before, of which the first seal has none, and all there is to a seal.';


-- Making --------------------------------------------------------------------------------------------------------------

-- With the rights of its owner: the service makes seals and changes none.
create or replace function history.seal(only_if_due boolean default false) returns bytea
language plpgsql security definer
set search_path = history, pg_catalog, pg_temp
set timezone = 'UTC'
as $$
declare
    here       constant bigint := (select c.system_identifier from pg_control_system() as c);
    previous   record;
    moment     timestamptz;
    open_since timestamptz;
    unwritten  boolean;
    before     pg_snapshot := '1:1:';
    made       bytea;
begin
    -- Of two that come at once the second goes on from what the first has made.
    perform pg_advisory_xact_lock(hashtextextended('history.seal', 0));
    select s.id, s.sealed_at, s.cluster, s.snapshot, s.root into previous from seals as s order by s.id desc limit 1;
    moment := clock_timestamp();
    if only_if_due and previous.sealed_at >= date_trunc('hour', moment) then
        return null;
    end if;
    -- Before the snapshot is taken: whatever begins between the two begins later than what is found here.
    select case when count(*) filter (where a.query = '<insufficient privilege>') = 0 then least(now(), min(a.xact_start)) end
    into open_since
    from pg_stat_activity as a
    where a.datname = current_database()
        and a.pid <> pg_backend_pid()
        and a.backend_type is distinct from 'autovacuum worker';
    unwritten := pg_current_xact_id_if_assigned() is null;
    if previous.cluster = here then
        before := previous.snapshot;
    end if;
    with
        fresh as materialized (
            select e.id, date_trunc('month', e.operation_date)::date as month, entry_digest(e) as digest
            from entries as e
            where e.xid >= pg_snapshot_xmin(before)
                and not pg_visible_in_snapshot(e.xid, before)
        ),
        -- Entries of another cluster, and of a transaction that sealed what it wrote itself. Otherwise no part reaches so far.
        known as materialized (
            select i.id
            from sealed as p
            cross join unnest(p.ids) as i (id)
            where p.last >= (select min(f.id) from fresh as f)
        ),
        sliced as (
            select f.id, f.month, f.digest, (row_number() over (partition by f.month order by f.id) - 1) / 10000 as slice
            from fresh as f
            where not exists (select from known as k where k.id = f.id)
        ),
        parts as (
            insert into sealed (seal, part, month, ids, digests)
            select
                coalesce(previous.id, 0) + 1,
                row_number() over (order by s.month, s.slice),
                s.month,
                array_agg(s.id order by s.id),
                array_agg(s.digest order by s.id)
            from sliced as s
            group by s.month, s.slice
            returning part, cardinality(ids) as entries, part_digest(part, month, ids, digests) as digest
        ),
        whole as (
            select
                coalesce(previous.id, 0) + 1 as id,
                pg_current_snapshot() as snapshot,
                case when unwritten then pg_current_xact_id() end as xid,
                coalesce(sum(p.entries), 0) as entries,
                sha256(coalesce(string_agg(p.digest, ''::bytea order by p.part), '')) as digest
            from parts as p
        )
    insert into seals as s (id, sealed_at, cluster, snapshot, xid, open_since, entries, digest, root)
    select
        w.id,
        moment,
        here,
        w.snapshot,
        w.xid,
        open_since,
        w.entries,
        w.digest,
        root(previous.root, w.id, moment, here, w.snapshot, w.xid, open_since, w.entries::bigint, w.digest)
    from whole as w
    returning s.root into made;
    return made;
end
$$;

comment on function history.seal(boolean) is
    'Seal what became visible in history since the seal before; its root. With only_if_due nothing is done, and null returned, where this hour (by UTC) has a seal.';


-- Proving -------------------------------------------------------------------------------------------------------------

-- Entries and what was sealed meet by id and digest; what is left over on both sides under one id was changed. What is left over of the
-- entries is not sealed yet, unless it should have been: it was visible to the last seal by its transaction, or its transaction had not
-- begun to write then, and yet its id or its date is from before. That is asked of what was sealed since, too.
create or replace function history.verify(roots text[] default '{}')
returns table (
    finding        text,
    seal           bigint,
    sealed_at      timestamptz,
    entry          bigint,
    obj_type       text,
    obj_id         text,
    operation_date timestamptz,
    entries        bigint
)
language sql stable
set timezone = 'UTC'
begin atomic
    with
        contents as (
            select
                p.seal,
                sum(cardinality(p.ids)) as entries,
                max(p.last) as last,
                sha256(string_agg(history.part_digest(p.part, p.month, p.ids, p.digests), ''::bytea order by p.part)) as digest
            from history.sealed as p
            group by p.seal
        ),
        chain as (
            select
                s.id,
                s.sealed_at,
                s.cluster,
                s.snapshot,
                s.xid,
                s.open_since,
                s.root,
                max(c.last) over (order by s.id) as last,
                s.id = coalesce(lag(s.id) over (order by s.id), 0) + 1
                    and s.entries = coalesce(c.entries, 0)
                    and s.digest = coalesce(c.digest, sha256(''))
                    and s.root = history.root(
                        lag(s.root) over (order by s.id), s.id, s.sealed_at, s.cluster, s.snapshot, s.xid, s.open_since, s.entries, s.digest
                    ) as holds
            from history.seals as s
            left join contents as c on c.seal = s.id
        ),
        -- What each seal, and what comes after all of them, was to go on from.
        goes_on as (
            select
                s.id + 1 as seal,
                s.sealed_at,
                s.snapshot,
                s.xid,
                s.open_since - interval '1 second' as open_since,
                s.last,
                s.cluster = coalesce(lead(s.cluster) over (order by s.id), (select i.system_identifier from pg_control_system() as i)) as comparable
            from chain as s
        ),
        paired as materialized (
            select
                c.seal,
                c.month,
                coalesce(c.id, e.id) as id,
                c.id is not null as covered,
                e.id is not null as found,
                e.xid,
                e.operation_date,
                e.obj_type,
                e.obj_id
            from (
                select p.seal, p.month, i.id, i.digest
                from history.sealed as p
                cross join unnest(p.ids, p.digests) as i (id, digest)
            ) as c
            full join (
                select e.id, e.xid, e.operation_date, e.obj_type, e.obj_id, history.entry_digest(e) as digest
                from history.entries as e
            ) as e on e.id = c.id and e.digest = c.digest
        ),
        differing as (
            select
                l.seal,
                l.month,
                coalesce(l.id, x.id) as id,
                l.id is not null as covered,
                x.id is not null as found,
                x.xid,
                x.operation_date,
                x.obj_type,
                x.obj_id
            from (select p.seal, p.month, p.id from paired as p where not p.found) as l
            full join (select p.id, p.xid, p.operation_date, p.obj_type, p.obj_id from paired as p where not p.covered) as x on x.id = l.id
        ),
        -- Months are dropped from the oldest on, as wholes: nothing of them or of those before is left.
        kept as (
            select least(
                (select min(p.month) from paired as p where p.covered and p.found),
                (select min(d.month) from differing as d where d.covered and d.found)
            ) as since
        ),
        slipped as (
            select p.seal, p.id, p.xid, p.operation_date, p.obj_type, p.obj_id, false as open
            from paired as p
            where p.covered and p.found
            union all
            select (select max(s.id) + 1 from chain as s), d.id, d.xid, d.operation_date, d.obj_type, d.obj_id, true
            from differing as d
            where not d.covered
        ),
        findings as (
            select 1 as rank, 'no such root' as finding, null::bigint as seal, null::timestamptz as sealed_at, null::bigint as entry,
                r.root as obj_type, null::text as obj_id, null::timestamptz as operation_date, 0::bigint as entries
            from unnest(roots) as r (root)
            where not exists (select from chain as s where encode(s.root, 'hex') = lower(r.root))
            union all
            select 2, 'seal rewritten', s.id, s.sealed_at, null, null, null, null, 0
            from chain as s
            where s.holds is not true
            union all
            select 3, case when d.found then 'changed' else 'removed' end, d.seal, s.sealed_at, d.id, d.obj_type, d.obj_id, d.operation_date, 1
            from differing as d
            cross join kept as k
            left join chain as s on s.id = d.seal
            where d.covered
                and (
                    d.found
                    or d.month >= k.since
                    or to_regclass('history.entries_' || to_char(d.month, 'YYYY_MM')) is not null
                )
            union all
            select 3, 'slipped in', g.seal - 1, g.sealed_at, p.id, p.obj_type, p.obj_id, p.operation_date, 1
            from slipped as p
            join goes_on as g on g.seal = p.seal and g.comparable
            where (p.open and pg_visible_in_snapshot(p.xid, g.snapshot))
                or (p.xid > g.xid and (p.id <= g.last or p.operation_date < g.open_since))
            union all
            select 4, 'pruned', null, null, null, null, null, d.month, count(*)
            from differing as d
            cross join kept as k
            where not d.found
                and (d.month < k.since or k.since is null)
                and to_regclass('history.entries_' || to_char(d.month, 'YYYY_MM')) is null
            group by d.month
        )
    select f.finding, f.seal, f.sealed_at, f.entry, f.obj_type, f.obj_id, f.operation_date, f.entries
    from findings as f
    order by f.rank, f.seal, f.entry, f.operation_date;
end;

comment on function history.verify(text[]) is
    'What is not as it was sealed, the first first: roots (hexadecimal) that no seal has; seals that were rewritten; entries that were changed, removed, or slipped in behind a seal; and, of months that were dropped, how many entries that were. No rows: all is as it was, as far as the latest of these roots was kept elsewhere.';
