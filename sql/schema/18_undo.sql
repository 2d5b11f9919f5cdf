-- 18 Undo: what a request or an upload changed taken back, and what was deleted brought back, as new versions, in one transaction.
--
-- It is found object by object (undoing), compared with what others did since (in_the_way), and then done table by table. The statements
-- are made from the catalog, so that a table has nothing to keep up to date here. All is done with the rights of whoever asks.

create or replace function history.stage_undo() returns void
language plpgsql
set client_min_messages = warning
as $$
begin
    drop table if exists pg_temp.undoing, pg_temp.in_the_way;
    -- An object that was changed: its row as it would be without, after the last change, and now; what is to be done, and what came of it.
    create temporary table undoing (
        relation regclass not null,
        obj_type text     not null,
        obj_id   text     not null,
        place    bigint   not null,
        before   jsonb,
        after    jsonb,
        live     jsonb,
        how      text,
        patch    jsonb,
        version  integer,
        -- By obj_id first: each table's own rows are found by that alone.
        primary key (obj_id, obj_type)
    ) on commit drop;
    -- What others did since, or before the request went on at `until`: to a field, or where that is null to the whole object.
    create temporary table in_the_way (
        obj_type text   not null,
        obj_id   text,
        field    text,
        base     jsonb,
        yours    jsonb,
        theirs   jsonb,
        place    bigint not null,
        until    bigint,
        unique nulls not distinct (obj_type, obj_id, field)
    ) on commit drop;
end
$$;

comment on function history.stage_undo() is 'Make undoing and in_the_way, for what is to be undone in this transaction.';

create or replace function history.is_key(relation regclass, one text, other text) returns text
language sql stable
set search_path = pg_catalog, pg_temp
return (
    select string_agg(format('%s.%I = %s.%I', one, a.attname, other, a.attname), ' and ' order by a.attnum)
    from pg_index as i
    join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = any (i.indkey::int2[])
    where i.indrelid = relation
        and i.indisprimary
);

comment on function history.is_key(regclass, text, text) is 'As text for a statement: that two rows of a table, called so in it, have the same key.';

create or replace function history.is_reference(reference oid, one text, other text) returns text
language sql stable
set search_path = pg_catalog, pg_temp
return (
    select string_agg(format('%s.%I = %s.%I', one, c.attname, other, p.attname), ' and ')
    from pg_constraint as k
    cross join unnest(k.conkey, k.confkey) as n (child, parent)
    join pg_attribute as c on c.attrelid = k.conrelid and c.attnum = n.child
    join pg_attribute as p on p.attrelid = k.confrelid and p.attnum = n.parent
    where k.oid = reference
);

comment on function history.is_reference(oid, text, text) is 'As text for a statement: that a row refers by a foreign key to another, called so in it.';

create or replace function history.foreign_keys()
returns table (
    id oid, obj_type text, child regclass, parent regclass, cascades boolean, follows boolean, keys text[], fields text[], field text, emptied jsonb
)
language sql stable
set search_path = pg_catalog, pg_temp
begin atomic
    select
        k.oid,
        t.obj_type,
        k.conrelid::regclass,
        k.confrelid::regclass,
        k.confdeltype = 'c',
        k.confupdtype not in ('a', 'r'),
        array(select a.attname::text from pg_attribute as a where a.attrelid = k.confrelid and a.attnum = any (k.confkey)),
        array(select a.attname::text from pg_attribute as a where a.attrelid = k.conrelid and a.attnum = any (k.conkey)),
        (select a.attname from pg_attribute as a where a.attrelid = k.conrelid and a.attnum = k.conkey[cardinality(k.conkey)]),
        case
            when k.confdeltype = 'n' then (
                select jsonb_object_agg(a.attname, null)
                from pg_attribute as a
                where a.attrelid = k.conrelid
                    and a.attnum = any (coalesce(nullif(k.confdelsetcols, '{}'), k.conkey))
            )
        end
    from pg_constraint as k
    join history.tracked as t on t.relation = k.conrelid
    where k.contype = 'f';
end;

comment on function history.foreign_keys() is
    'What tracked tables refer to: which columns, by which, of which the last is told to clients, whether a row goes with its parent or follows its changes, and what of it is emptied then; is_reference() says by `id` that a row refers to another.';

create or replace function history.may_read(relation regclass) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
return (
    select has_schema_privilege(c.relnamespace, 'usage') and has_table_privilege(c.oid, 'select')
    from pg_class as c
    where c.oid = relation
);

comment on function history.may_read(regclass) is 'Whether whoever asks may read a table: one of somebody else''s may be theirs alone.';

create or replace function history.unique_keys()
returns table (obj_type text, relation regclass, fields text[], field text, keys text, predicate text, held text, equal text)
language sql stable
set search_path = pg_catalog, pg_temp
begin atomic
    select
        t.obj_type,
        t.relation,
        f.names,
        f.names[cardinality(f.names)],
        k.keys,
        coalesce(pg_get_expr(i.indpred, i.indrelid), 'true'),
        k.held,
        k.equal
    from pg_index as i
    join history.tracked as t on t.relation = i.indrelid
    cross join lateral (
        select
            string_agg(format('%s as key_%s', e.key, n), ', ' order by n) as keys,
            string_agg(format('%s = c.key_%s', e.key, n), ' and ' order by n) as held,
            string_agg(format('c.key_%1$s = later.key_%1$s', n), ' and ' order by n) as equal
        from generate_series(1, i.indnkeyatts) as n
        cross join lateral pg_get_indexdef(i.indexrelid, n, false) as e (key)
    ) as k
    -- An index knows the columns of its expressions only by what it depends on.
    cross join lateral (
        select array_agg(a.attname::text order by a.attnum) as names
        from pg_attribute as a
        where a.attrelid = i.indrelid
            and (
                a.attnum = any (i.indkey::int2[])
                or exists (
                    select
                    from pg_depend as d
                    where d.classid = 'pg_class'::regclass
                        and d.objid = i.indexrelid
                        and d.refobjid = i.indrelid
                        and d.refobjsubid = a.attnum
                )
            )
    ) as f
    where i.indisunique
        and i.indisvalid
        and not i.indisprimary;
end;

comment on function history.unique_keys() is
    'What only one row of a tracked table may have, but for primary keys: by which columns, of which the last is told to clients; and for a statement the keys of a row, which rows count, that a row has those of c, and that later has.';


-- What is to be undone ------------------------------------------------------------------------------------------------

create or replace function history.undo_own(own boolean) returns void
language sql
return set_config('app.undo', case when own then 'own' end, true);

comment on function history.undo_own(boolean) is 'Note for this transaction whether what is undone was done by whoever undoes it: whom that named, it may name again (works_on).';

-- Whoever changes an object between two changes of the request has it as it was left, and is not undone: the first goes back to before it,
-- and what is brought back is what they made of it.
create or replace function history.keep_between(request text) returns void
language plpgsql
as $$
declare
    turn   record;
    before jsonb;
    theirs jsonb;
begin
    for turn in
        select c.*
        from (
            select
                e.obj_type,
                e.obj_id,
                e.id,
                e.old_obj as found,
                lag(e.new_obj) over w as made,
                lag(e.id) over w as place
            from history.entries as e
            where e.request_id = request
                and e.obj_id is not null
            window w as (partition by e.obj_type, e.obj_id order by e.id)
        ) as c
        join pg_temp.undoing as u on u.obj_type = c.obj_type and u.obj_id = c.obj_id
        where c.place is not null
            and c.made is distinct from c.found
        order by c.id
    loop
        select u.before into before from pg_temp.undoing as u where u.obj_type = turn.obj_type and u.obj_id = turn.obj_id;
        theirs := history.diff(turn.made, turn.found);
        insert into pg_temp.in_the_way (obj_type, obj_id, field, base, yours, theirs, place, until)
        select turn.obj_type, turn.obj_id, null, turn.made, before, turn.found, turn.place, turn.id
        where (turn.made is null) <> (turn.found is null)
            and history.diff(before, turn.found) <> '{}'
        union all
        select turn.obj_type, turn.obj_id, f.name, turn.made -> f.name, before -> f.name, turn.found -> f.name, turn.place, turn.id
        from jsonb_object_keys(theirs) as f (name)
        where turn.made is not null
            and turn.found is not null
            and (before is null or (history.diff(before, turn.made) ? f.name and history.diff(before, turn.found) ? f.name))
        on conflict (obj_type, obj_id, field) do update set
            base = excluded.base,
            theirs = excluded.theirs,
            place = excluded.place,
            until = excluded.until;
        update pg_temp.undoing as u
        set before = case
                when turn.made is null or turn.found is null or (u.before is null and theirs <> '{}') then turn.found
                else u.before || (select coalesce(jsonb_object_agg(f.name, turn.found -> f.name), '{}') from jsonb_object_keys(theirs) as f (name))
            end
        where u.obj_type = turn.obj_type
            and u.obj_id = turn.obj_id;
    end loop;
end
$$;

comment on function history.keep_between(text) is 'Of what is staged, keep what others made of it between two changes of the requests with this X-Request-Id.';

create or replace function history.undo_request(request text) returns bigint
language plpgsql
as $$
declare
    found_entries bigint;
begin
    perform history.undo_own(not exists (select from history.entries as e where e.request_id = request and e.actor <> history.actor()));
    -- Whoever asks for the same beside it finds it undone.
    perform pg_advisory_xact_lock(hashtextextended('undo of ' || request, 0));
    insert into pg_temp.undoing (relation, obj_type, obj_id, place, before, after)
    select
        -- No table has this number: what was under history once is known as what it was called (leave_foreign).
        coalesce(t.relation, 0::regclass),
        e.obj_type,
        e.obj_id,
        max(e.id),
        (array_agg(e.old_obj order by e.id))[1],
        (array_agg(e.new_obj order by e.id desc))[1]
    from history.entries as e
    left join history.tracked as t on t.obj_type = e.obj_type and t.key <> '{}'
    where e.request_id = request
        and e.obj_id is not null
    group by t.relation, e.obj_type, e.obj_id;
    perform history.keep_between(request);
    delete from pg_temp.undoing as u where u.before is null and u.after is null;
    -- Of whole tables: an upload is known row by row (undo_uploads, 81_uploads.sql), an emptying and a restore of all employees are not.
    insert into pg_temp.in_the_way (obj_type, theirs, place)
    select
        e.obj_type,
        jsonb_build_object('action', e.action, 'load', e.new_obj -> 'load'),
        max(e.id)
    from history.entries as e
    where e.request_id = request
        and e.obj_id is null
        and coalesce(e.new_obj ->> 'load', '') not like 'upload of %'
    group by e.obj_type, e.action, e.new_obj -> 'load'
    on conflict do nothing;
    select count(*) into found_entries from history.entries as e where e.request_id = request;
    return found_entries;
end
$$;

comment on function history.undo_request(text) is 'Stage what was changed by the requests with this X-Request-Id; returns how many entries history has of them.';

create or replace function history.undo_delete(relation regclass, key text, number integer, kept text[], with_children boolean) returns boolean
language plpgsql
as $$
#variable_conflict use_variable
declare
    kind      text := (select t.obj_type from history.tracked as t where t.relation = relation);
    ended     history.entries;
    reference record;
    found_now bigint;
    more      bigint := 1;
begin
    -- Whoever brings back the same beside it finds it there.
    perform pg_advisory_xact_lock(hashtextextended(format('undo of %s %s', kind, key), 0));
    select e.* into ended
    from history.entries as e
    where e.obj_type = kind
        and e.obj_id = key
        and e.action = 'delete'
    order by e.operation_date desc, e.id desc
    limit 1;
    perform history.undo_own(ended.actor = history.actor());
    insert into pg_temp.undoing (relation, obj_type, obj_id, place, before)
    select
        relation,
        kind,
        key,
        ended.id,
        past.object || (select coalesce(jsonb_object_agg(k.name, ended.old_obj -> k.name), '{}') from unnest(kept) as k (name))
    from (select history.version_of(relation, key, number, null)) as past (object)
    where past.object is not null;
    if not found then
        return false;
    end if;
    if not with_children then
        return true;
    end if;
    -- Below it is what went in the same transaction and pointed to it, or to what is below it. All that went is staged as 'beside', to be
    -- told from what was found below: each round looks for what points to it, as many as it has levels.
    insert into pg_temp.undoing (relation, obj_type, obj_id, place, before, how)
    select k.child, e.obj_type, e.obj_id, e.id, e.old_obj, 'beside'
    from (
        select distinct f.child, f.obj_type
        from history.foreign_keys() as f
        join pg_class as c on c.oid = f.child
        where f.cascades
            and has_schema_privilege(c.relnamespace, 'usage')
    ) as k
    join history.entries as e on e.obj_type = k.obj_type
    where e.xid = ended.xid
        and e.obj_id is not null
        and e.action = 'delete'
    order by e.id desc
    on conflict do nothing;
    while more > 0 loop
        more := 0;
        -- Without a count of what is below, PostgreSQL compares each of it with each beside it.
        analyze pg_temp.undoing (relation, how);
        for reference in
            select k.*
            from history.foreign_keys() as k
            where k.cascades
                and k.child in (select u.relation from pg_temp.undoing as u where u.how = 'beside')
                and k.parent in (select u.relation from pg_temp.undoing as u where u.how is null)
        loop
            execute format(
                $sql$
                    with
                        beside as materialized (
                            select u.obj_id, n as row
                            from pg_temp.undoing as u
                            cross join lateral jsonb_populate_record(null::%1$s, u.before) as n
                            where u.relation = %1$L::regclass
                                and u.how = 'beside'
                        ),
                        above as materialized (
                            select n as row
                            from pg_temp.undoing as u
                            cross join lateral jsonb_populate_record(null::%2$s, u.before) as n
                            where u.relation = %2$L::regclass
                                and u.how is null
                        )
                    update pg_temp.undoing as u
                    set how = null
                    from beside as c
                    join above as p on %3$s
                    where u.relation = %1$L::regclass
                        and u.obj_id = c.obj_id
                $sql$,
                reference.child, reference.parent, history.is_reference(reference.id, '(c.row)', '(p.row)')
            );
            get diagnostics found_now = row_count;
            more := more + found_now;
        end loop;
    end loop;
    delete from pg_temp.undoing as u where u.how = 'beside';
    return true;
end
$$;

comment on function history.undo_delete(regclass, text, integer, text[], boolean) is
    'Stage that what was deleted comes back as it was in a version, but for columns that are kept as they were last, and maybe with what went with it; false where history knows no such version.';

-- The service has no business in tables that others made and put under history, and in some no rights. What a request did there is told.
create or replace function history.leave_foreign() returns void
language plpgsql
as $$
begin
    with
        foreigners as materialized (
            delete from pg_temp.undoing as u
            where u.relation in (select t.relation from (select distinct d.relation from pg_temp.undoing as d) as t where not history.is_own(t.relation))
            returning u.obj_type, u.obj_id, u.place, u.before, u.after
        ),
        -- Of what others made of them between, nothing need be told beside.
        covered as (
            delete from pg_temp.in_the_way as w
            using foreigners as f
            where w.obj_type = f.obj_type
                and w.obj_id = f.obj_id
                and w.field is not null
        )
    insert into pg_temp.in_the_way (obj_type, obj_id, base, yours, place)
    select f.obj_type, f.obj_id, f.after, f.before, f.place
    from foreigners as f
    where history.diff(f.before, f.after) <> '{}'
    on conflict do nothing;
end
$$;

comment on function history.leave_foreign() is
    'Leave what is staged of tables that are not among the service''s own, or under history no longer: it is in the way of the rest, object by object.';


-- What is in the way --------------------------------------------------------------------------------------------------

create or replace function history.look_at_live() returns void
language plpgsql
set timezone = 'UTC'
as $$
declare
    kind record;
begin
    for kind in select distinct u.relation from pg_temp.undoing as u order by u.relation loop
        execute format(
            $sql$
                with locked as (
                    select u.obj_id, r as row
                    from pg_temp.undoing as u
                    cross join lateral jsonb_populate_record(null::%1$s, coalesce(u.after, u.before)) as k
                    join %1$s as r on %2$s
                    where u.relation = %1$L::regclass
                    order by u.obj_id
                    for update of r
                )
                update pg_temp.undoing as u
                set live = history.row_json(l.row) - history.computed(%1$L::regclass)
                from locked as l
                where u.relation = %1$L::regclass
                    and u.obj_id = l.obj_id
            $sql$,
            kind.relation, history.is_key(kind.relation, 'r', 'k')
        );
    end loop;
end
$$;

comment on function history.look_at_live() is 'Lock what is staged against other writers, and see how it is now.';

create or replace function history.compare_undoing() returns void
language plpgsql
as $$
begin
    update pg_temp.undoing as u
    set how = case
            when u.before is null and u.live is not null then 'delete'
            when u.after is null and u.live is null then 'insert'
            when u.before is not null and u.after is not null and u.live is not null then 'update'
        end;
    -- How much there is of each decides how all that follows is joined.
    analyze pg_temp.undoing;
    insert into pg_temp.in_the_way (obj_type, obj_id, field, base, yours, theirs, place)
    select u.obj_type, u.obj_id, f.name, u.after -> f.name, u.before -> f.name, u.live -> f.name, u.place
    from pg_temp.undoing as u
    cross join lateral jsonb_object_keys(history.diff(u.before, u.after)) as f (name)
    where u.how = 'update'
        -- A member that the object has no more, because its column was renamed or dropped since, is nobody's to take back.
        and (
            not u.live ? f.name
            or (
                nullif(u.live -> f.name, 'null') is distinct from nullif(u.after -> f.name, 'null')
                and nullif(u.live -> f.name, 'null') is distinct from nullif(u.before -> f.name, 'null')
            )
        )
    union all
    select u.obj_type, u.obj_id, f.name, u.after -> f.name, null, u.live -> f.name, u.place
    from pg_temp.undoing as u
    cross join lateral jsonb_object_keys(history.diff(u.after, u.live)) as f (name)
    where u.how = 'delete'
    union all
    select u.obj_type, u.obj_id, null, u.after, u.before, u.live, u.place
    from pg_temp.undoing as u
    where u.how is null
        and u.before is not null
        and (u.after is null or history.diff(u.before, u.after) <> '{}')
        and (u.live is null or history.diff(u.before, u.live) <> '{}')
    on conflict (obj_type, obj_id, field) do update set
        base = excluded.base,
        yours = excluded.yours,
        theirs = excluded.theirs,
        place = excluded.place,
        until = null;
    -- Where nothing is in the way, and it was not taken back already.
    update pg_temp.undoing as u
    set patch = (
            select jsonb_object_agg(f.name, coalesce(u.before -> f.name, 'null'))
            from jsonb_object_keys(history.diff(u.before, u.after)) as f (name)
            where u.live ? f.name
                and nullif(u.live -> f.name, 'null') is not distinct from nullif(u.after -> f.name, 'null')
        )
    where u.how = 'update';
    update pg_temp.undoing as u
    set how = null
    where (u.how = 'update' and u.patch is null)
        or (
            u.how = 'delete'
            and exists (
                select
                from pg_temp.in_the_way as w
                where w.obj_type = u.obj_type
                    and w.obj_id = u.obj_id
                    and w.until is null
            )
        );
end
$$;

comment on function history.compare_undoing() is 'What is to be done with each object that is staged, and what others changed since.';

-- What others refer to by now stays, and keeps what they refer to it by.
create or replace function history.spare_parents() returns boolean
language plpgsql
set timezone = 'UTC'
as $$
declare
    reference record;
    changed   bigint;
    spared    boolean := false;
begin
    for reference in
        select k.*
        from history.foreign_keys() as k
        where k.parent in (select u.relation from pg_temp.undoing as u where u.how = 'delete' or (u.how = 'update' and not k.follows and u.patch ?| k.keys))
            -- What may not be read is not seen to be in the way: its foreign key says so.
            and history.may_read(k.child)
    loop
        execute format(
            $sql$
                with
                    held as materialized (
                        select
                            u.obj_type as parent_type,
                            u.obj_id as parent_id,
                            u.place,
                            history.obj_id(history.row_json(c), %5$L, %1$L::regclass) as obj_id,
                            to_jsonb(c.%4$I) as theirs
                        from pg_temp.undoing as u
                        cross join lateral jsonb_populate_record(null::%2$s, u.live) as p
                        join %1$s as c on %3$s
                        where u.relation = %2$L::regclass
                            and (u.how = 'delete' or (u.how = 'update' and u.patch ?| $3))
                    ),
                    others as materialized (
                        select h.*
                        from held as h
                        where not exists (
                            select
                            from pg_temp.undoing as x
                            where x.obj_type = $1
                                and x.obj_id = h.obj_id
                                and (x.how = 'delete' or x.patch ?| $2)
                        )
                    ),
                    told as (
                        insert into pg_temp.in_the_way (obj_type, obj_id, field, theirs, place)
                        select $1, o.obj_id, %4$L, min(o.theirs::text)::jsonb, min(o.place)
                        from others as o
                        group by o.obj_id
                        on conflict do nothing
                    )
                update pg_temp.undoing as u
                set how = case when u.how = 'update' and u.patch - $3 <> '{}' then 'update' end,
                    patch = u.patch - $3
                from others as o
                where u.obj_type = o.parent_type
                    and u.obj_id = o.parent_id
            $sql$,
            reference.child,
            reference.parent,
            history.is_reference(reference.id, 'c', 'p'),
            reference.field,
            history.only_key(reference.child)
        ) using reference.obj_type, reference.fields, case when reference.follows then '{}' else reference.keys end;
        get diagnostics changed = row_count;
        spared := spared or changed > 0;
    end loop;
    return spared;
end
$$;

comment on function history.spare_parents() is 'Leave what others refer to by now; whether there was any.';

-- What is to come back and refers to what is gone stays away; what only named it, and would have been made to name nothing, names nothing.
create or replace function history.leave_orphans() returns boolean
language plpgsql
set timezone = 'UTC'
as $$
declare
    reference record;
    changed   bigint;
    left_away boolean := false;
begin
    for reference in
        select k.*
        from history.foreign_keys() as k
        where k.child in (select u.relation from pg_temp.undoing as u where u.how in ('insert', 'update'))
    loop
        execute format(
            $sql$
                with
                    coming as materialized (
                        select u.obj_type, u.obj_id, u.place, n as row
                        from pg_temp.undoing as u
                        cross join lateral jsonb_populate_record(null::%1$s, case u.how when 'insert' then u.before else u.live || u.patch end) as n
                        where u.relation = %1$L::regclass
                            and (u.how = 'insert' or (u.how = 'update' and u.patch ?| $1))
                            and not (%5$s)
                    ),
                    back as materialized (
                        select true as comes, n as row
                        from pg_temp.undoing as u
                        cross join lateral jsonb_populate_record(null::%2$s, u.before) as n
                        where u.relation = %2$L::regclass
                            and u.how = 'insert'
                    ),
                    going as materialized (
                        select true as goes, n as row
                        from pg_temp.undoing as u
                        cross join lateral jsonb_populate_record(null::%2$s, u.live) as n
                        where u.relation = %2$L::regclass
                            and u.how = 'delete'
                    ),
                    -- By outer joins, which keep what is coming in number: what PostgreSQL takes for few it would compare with each.
                    orphans as materialized (
                        select c.obj_type, c.obj_id, c.place, to_jsonb((c.row).%4$I) as yours
                        from coming as c
                        left join back as b on %6$s
                        left join %2$s as p on %3$s
                        left join going as g on %7$s
                        where b.comes is null
                            and (p.%8$I is null or g.goes)
                    ),
                    told as (
                        insert into pg_temp.in_the_way (obj_type, obj_id, field, yours, place)
                        select o.obj_type, o.obj_id, %4$L, o.yours, o.place
                        from orphans as o
                        on conflict do nothing
                    )
                update pg_temp.undoing as u
                set how = case
                        when u.how = 'insert' and $2 is not null then 'insert'
                        when u.how = 'update' and u.patch - $1 <> '{}' then 'update'
                    end,
                    before = case u.how when 'insert' then u.before || coalesce($2, '{}') else u.before end,
                    patch = u.patch - $1
                from orphans as o
                where u.obj_type = o.obj_type
                    and u.obj_id = o.obj_id
            $sql$,
            reference.child,
            reference.parent,
            history.is_reference(reference.id, '(c.row)', 'p'),
            reference.field,
            (select string_agg(format('n.%I is null', f), ' or ') from unnest(reference.fields) as f),
            history.is_reference(reference.id, '(c.row)', '(b.row)'),
            history.is_key(reference.parent, 'p', '(g.row)'),
            reference.keys[1]
        ) using reference.fields, reference.emptied;
        get diagnostics changed = row_count;
        left_away := left_away or changed > 0;
    end loop;
    return left_away;
end
$$;

comment on function history.leave_orphans() is 'Leave what refers to what is gone; whether there was any.';

-- What would need what only one may have, and another has by now, stays away or as it is.
create or replace function history.leave_taken() returns boolean
language plpgsql
set timezone = 'UTC'
as $$
declare
    unique_key record;
    changed    bigint;
    left_away  boolean := false;
begin
    for unique_key in
        select k.*
        from history.unique_keys() as k
        where k.relation in (select u.relation from pg_temp.undoing as u where u.how in ('insert', 'update'))
    loop
        execute format(
            $sql$
                with
                    coming as materialized (
                        select u.obj_id, u.place, to_jsonb(n.%2$I) as value, k.*
                        from pg_temp.undoing as u
                        cross join lateral jsonb_populate_record(null::%1$s, case u.how when 'insert' then u.before else u.live || u.patch end) as n
                        cross join lateral (select %3$s from (select n.*) as r where %4$s) as k
                        where u.relation = %1$L::regclass
                            and (u.how = 'insert' or (u.how = 'update' and u.patch ?| $2))
                    ),
                    held as materialized (
                        select c.obj_id, c.place, h.obj_id as holder, h.value
                        from coming as c
                        cross join lateral (
                            select history.obj_id(history.row_json(r), %7$L, %1$L::regclass) as obj_id, to_jsonb(r.%2$I) as value
                            from %1$s as r
                            where %5$s
                                and %4$s
                        ) as h
                        where h.obj_id <> c.obj_id
                            and not exists (
                                select
                                from pg_temp.undoing as x
                                where x.obj_type = $1
                                    and x.obj_id = h.obj_id
                                    and (x.how = 'delete' or (x.how = 'update' and x.patch ?| $2))
                            )
                        union all
                        select c.obj_id, c.place, later.obj_id, later.value
                        from coming as c
                        join coming as later on (later.place, later.obj_id) > (c.place, c.obj_id) and %6$s
                    ),
                    told as (
                        insert into pg_temp.in_the_way (obj_type, obj_id, field, theirs, place)
                        select $1, h.holder, %2$L, min(h.value::text)::jsonb, min(h.place)
                        from held as h
                        group by h.holder
                        on conflict do nothing
                    )
                update pg_temp.undoing as u
                set how = case when u.how = 'update' and u.patch - $2 <> '{}' then 'update' end,
                    patch = u.patch - $2
                from held as h
                where u.obj_type = $1
                    and u.obj_id = h.obj_id
            $sql$,
            unique_key.relation,
            unique_key.field,
            unique_key.keys,
            unique_key.predicate,
            unique_key.held,
            unique_key.equal,
            history.only_key(unique_key.relation)
        ) using unique_key.obj_type, unique_key.fields;
        get diagnostics changed = row_count;
        left_away := left_away or changed > 0;
    end loop;
    return left_away;
end
$$;

comment on function history.leave_taken() is 'Leave what needs what another has; whether there was any.';

create or replace function history.plan_undo() returns bigint
language plpgsql
as $$
declare
    found_conflicts bigint;
begin
    perform history.look_at_live();
    perform history.compare_undoing();
    -- What is left may hold, or lack, what others refer to.
    while history.spare_parents() or history.leave_orphans() or history.leave_taken() loop
        continue;
    end loop;
    select count(*) into found_conflicts from pg_temp.in_the_way;
    return found_conflicts;
end
$$;

comment on function history.plan_undo() is 'What of that which is staged can be undone without undoing what others did since; how much is in the way.';

create or replace function history.undo_conflicts(most integer) returns json
language plpgsql
as $$
begin
    return (
        select coalesce(json_agg(to_json(item)), '[]')
        from (
            select
                w.obj_type,
                w.obj_id::json as obj_id,
                w.field,
                w.base,
                w.yours,
                w.theirs,
                last.actor as changed_by,
                iso8601(last.operation_date) as changed_at
            from pg_temp.in_the_way as w
            left join lateral (
                select e.actor, e.operation_date
                from history.entries as e
                where e.obj_type = w.obj_type
                    and e.obj_id = w.obj_id
                    and e.id > w.place
                    and (w.until is null or e.id < w.until)
                    and (w.field is null or e.old_obj -> w.field is distinct from e.new_obj -> w.field)
                order by e.operation_date desc, e.id desc
                limit 1
            ) as last on true
            order by w.obj_type, w.obj_id, w.field
            limit most
        ) as item
    );
end
$$;

comment on function history.undo_conflicts(integer) is 'The first of what is in the way: what the request had made of it, what it would be again, what it is by now, by whom and when.';


-- Doing it ------------------------------------------------------------------------------------------------------------

create or replace function history.depth(relation regclass) returns integer
language sql stable
set search_path = pg_catalog, pg_temp
return (
    with recursive above (relation, path) as (
        select relation::oid, array[relation::oid]
        union all
        select k.confrelid, a.path || k.confrelid
        from above as a
        join pg_constraint as k on k.conrelid = a.relation and k.contype = 'f'
        where k.confrelid <> all (a.path)
    )
    select max(cardinality(a.path)) from above as a
);

comment on function history.depth(regclass) is 'How far a table lies below others: more than those that it refers to.';

create or replace function history.undo_in(relation regclass, how text, one text default null) returns void
language plpgsql
set timezone = 'UTC'
as $$
#variable_conflict use_column
declare
    counts text := (
        select '|| jsonb_build_object(''updated_at'', now())'
        from pg_trigger as t
        where t.tgrelid = undo_in.relation
            and t.tgfoid = 'count_version'::regproc
    );
    names  text;
    values text;
    done   text;
begin
    select string_agg(quote_ident(a.attname), ', ' order by a.attnum), string_agg('n.' || quote_ident(a.attname), ', ' order by a.attnum)
    into names, values
    from pg_attribute as a
    join (
        select distinct jsonb_object_keys(case undo_in.how when 'insert' then u.before else u.patch end)
        from pg_temp.undoing as u
        where u.relation = undo_in.relation
            and u.how = undo_in.how
    ) as f (name) on f.name = a.attname
    where a.attrelid = undo_in.relation
        and a.attnum > 0
        and a.attgenerated = '';
    done := case undo_in.how
        when 'insert' then format(
            $sql$
                insert into %1$s as r (%2$s) overriding system value
                select %3$s
                from pg_temp.undoing as u
                cross join lateral jsonb_populate_record(null::%1$s, u.before %4$s) as n
                where u.relation = %1$L::regclass and u.how = 'insert'
                order by u.obj_id
                returning history.row_json(r) as row
            $sql$,
            undo_in.relation,
            names,
            values,
            counts
        )
        when 'update' then format(
            $sql$
                update %1$s as r
                set (%2$s) = (select %3$s from jsonb_populate_record(r, u.patch) as n)
                from pg_temp.undoing as u
                cross join lateral jsonb_populate_record(null::%1$s, u.live) as k
                where u.relation = %1$L::regclass and u.how = 'update'
                    and (u.obj_id = $1 or $1 is null)
                    and %4$s
                returning history.row_json(r) as row
            $sql$,
            undo_in.relation,
            names,
            values,
            history.is_key(undo_in.relation, 'r', 'k')
        )
        else format(
            $sql$
                delete from %1$s as r
                using pg_temp.undoing as u
                cross join lateral jsonb_populate_record(null::%1$s, u.live) as k
                where u.relation = %1$L::regclass and u.how = 'delete'
                    and %2$s
                returning history.row_json(r) as row
            $sql$,
            undo_in.relation,
            history.is_key(undo_in.relation, 'r', 'k')
        )
    end;
    execute format(
        $sql$
            with done as (%s)
            update pg_temp.undoing as u
            set version = history.number_in(d.row -> 'version')
            from done as d
            where u.relation = %L::regclass
                and u.obj_id = history.obj_id(d.row, %L, %L::regclass)
        $sql$,
        done, undo_in.relation, history.only_key(undo_in.relation), undo_in.relation
    ) using one;
end
$$;

comment on function history.undo_in(regclass, text, text) is 'Insert, update or delete what is staged so of a table; or update one object of it.';

create or replace function history.undo_in_order(kinds text[], one_by_one boolean) returns void
language plpgsql
as $$
declare
    step record;
begin
    for step in
        select s.*
        from (
            select u.relation, u.how, u.obj_id as one, u.place
            from pg_temp.undoing as u
            where u.how = 'update'
                and one_by_one
            union all
            select distinct u.relation, u.how, null, 0
            from pg_temp.undoing as u
            where u.how is not null
                and not (u.how = 'update' and one_by_one)
        ) as s
        order by
            array_position(kinds, s.how),
            case s.how when 'delete' then -history.depth(s.relation) else history.depth(s.relation) end,
            s.relation,
            s.place desc
    loop
        perform history.undo_in(step.relation, step.how, step.one);
    end loop;
end
$$;

comment on function history.undo_in_order(text[], boolean) is
    'Undo what is staged, one kind of change after the other: parents come first, and go last; updates maybe one by one, the last first.';

create or replace function history.carry_out_undo() returns bigint
language plpgsql
as $$
declare
    objects bigint := (select count(*) from pg_temp.undoing as u where u.how is not null);
begin
    -- What is pointed to comes before those who point to it, and goes after them.
    begin
        perform history.undo_in_order('{insert,update,delete}', false);
        return objects;
    exception
        when unique_violation then null;
    end;
    -- What only one may have goes from one to the other by turns.
    begin
        perform history.undo_in_order('{delete,insert,update}', true);
        return objects;
    exception
        when unique_violation then null;
    end;
    perform history.undo_in_order('{delete,update,insert}', true);
    return objects;
end
$$;

comment on function history.carry_out_undo() is 'Undo what is staged; returns of how many objects.';

create or replace function history.undone(most integer) returns json
language plpgsql
as $$
begin
    return (
        select coalesce(json_agg(json_build_object('obj_type', u.obj_type, 'obj_id', u.obj_id::json, 'version', u.version) order by u.place desc, u.obj_id), '[]')
        from (
            select o.*
            from pg_temp.undoing as o
            where o.how is not null
            order by o.place desc, o.obj_id
            limit most
        ) as u
    );
end
$$;

comment on function history.undone(integer) is 'The first of the objects that were undone, each with the version that this made, or that went.';
