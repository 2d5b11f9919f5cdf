-- Departments: /departments, /upload/departments, /errors/departments.

-- name: get
-- One department. No row: there is none.
select
    r.version,
    pick(departments_json(r), :'fields') as body
from departments as r
where r.id = :'id'::bigint

-- name: as_of
-- One department as it was: in a version, or at a time. No row: there was none.
select
    r.version,
    pick(departments_json(r), :'fields') as body
from history.as_of('departments', :'id'::bigint::text, :'as_of', (select to_jsonb(r) from departments as r where r.id = :'id'::bigint)) as past (object)
cross join jsonb_populate_record(null::departments, past.object) as r

-- name: list
-- A page of departments after the cursor, planned for the values at hand (see users.list).
select
    page.next,
    page.body
from (
    select
        array_agg(r.item) as items,
        array_agg(r.key) as keys,
        array_agg(r.id) as ids
    from (
        select
            pick(departments_json(r), :'fields')::text as item,
            case ltrim(:'sort', '-')
                when 'department' then r.department
                else ''
            end as key,
            r.id::text as id
        from departments as r
        where (:'id' = '' or r.id = nullif(:'id', '')::bigint)
            and (:'department' = '' or r.department = :'department')
            and (
                :'cursor' = ''
                or case :'sort'
                    when 'department' then (r.department, r.id) > (cursor_part(:'cursor', 1), cursor_part(:'cursor', 2)::bigint)
                    when '-department' then (r.department, r.id) < (cursor_part(:'cursor', 1), cursor_part(:'cursor', 2)::bigint)
                    when '-id' then r.id < cursor_part(:'cursor', 2)::bigint
                    else r.id > cursor_part(:'cursor', 2)::bigint
                end
            )
        order by
            case :'sort' when 'department' then r.department end,
            case :'sort' when '-department' then r.department end desc,
            case when :'sort' like '-%' then r.id end desc,
            r.id
        limit coalesce(nullif(:'limit', '')::integer, 50) + 1
    ) as r
) as found
cross join page(found.items, found.keys, found.ids, :'sort', coalesce(nullif(:'limit', '')::integer, 50), :'form')

-- name: create
-- A new department; its id comes with it.
insert into departments as r (id, department)
select
    n.id,
    n.department
from jsonb_populate_record(null::departments, :'body'::jsonb) as n
returning
    r.id,
    r.version,
    departments_json(r) as body

-- name: change
-- The members given, saved over the version read (one of a comma-separated list, or * for any). No row: gone, or changed since.
update departments as r
set (department) = (
    select
        n.department
    from jsonb_populate_record(r, :'body'::jsonb) as n
)
where r.id = :'id'::bigint
    and (:'versions' = '*' or r.version::text = any (string_to_array(:'versions', ',')))
returning
    r.version,
    departments_json(r) as body

-- name: remove
-- A department gone, if it still is the version read. No row: gone already, or changed since.
delete from departments as r
where r.id = :'id'::bigint
    and (:'versions' = '*' or r.version::text = any (string_to_array(:'versions', ',')))
returning
    r.version

-- name: errors
-- A page of the rejects of departments after the cursor, of all uploads or of one.
select
    page.next,
    page.body
from (
    select
        array_agg(r.item) as items,
        array_agg(r.key) as keys,
        array_agg(r.id) as ids
    from (
        select
            pick(departments_errors_json(r), :'fields')::text as item,
            '' as key,
            r.id::text as id
        from departments_errors as r
        where (:'upload_id' = '' or r.upload_id = nullif(:'upload_id', '')::bigint)
            and (:'code' = '' or r.code = :'code')
            and (
                :'cursor' = ''
                or case :'sort'
                    when '-id' then r.id < cursor_part(:'cursor', 2)::bigint
                    else r.id > cursor_part(:'cursor', 2)::bigint
                end
            )
        order by
            case when :'sort' like '-%' then r.id end desc,
            r.id
        limit coalesce(nullif(:'limit', '')::integer, 50) + 1
    ) as r
) as found
cross join page(found.items, found.keys, found.ids, :'sort', coalesce(nullif(:'limit', '')::integer, 50), :'form')

-- name: load
-- The staged rows into departments, and those that break a rule into departments_errors, by their first fault. A row that is in the table
-- already, equal in all, counts as accepted; the first of several with one id wins.
with judged as materialized (
    select
        s.line,
        s.raw,
        s.c1,
        s.c2,
        case
            when s.unreadable is not null then array[null, 'unreadable', s.unreadable]
            when s.width <> 2 then array[null, 'width', 'Expected 2 fields, found ' || s.width || '.']
            else coalesce(
                fault('id', id_fault(s.c1)),
                fault('department', name_fault(s.c2))
            )
        end as fault
    from staging as s
),

typed as materialized (
    select
        s.line,
        s.raw,
        s.c1::integer as id,
        s.c2 as department
    from judged as s
    where s.fault is null
),

fitting as materialized (
    select
        t.line,
        t.raw,
        t.id,
        t.department,
        case
            when r.id is not null and (r.department <> t.department) then array['id', 'taken', 'Another row of departments has the id ' || t.id || '.']
        end as fault,
        r.id is not null as present
    from typed as t
    left join departments as r on r.id = t.id
),

numbered as materialized (
    select
        f.line,
        f.raw,
        f.id,
        f.department,
        f.present,
        row_number() over (partition by f.id order by f.line) as nth
    from fitting as f
    where f.fault is null
),

rejects as materialized (
    select line, raw, fault from judged where fault is not null
    union all
    select line, raw, fault from fitting where fault is not null
    union all
    select line, raw, array['id', 'duplicate', 'An earlier line has the id ' || id || '.'] from numbered where nth > 1
),

accepted as (
    insert into departments (id, department)
    select
        n.id,
        n.department
    from numbered as n
    where n.nth = 1
        and not n.present
),

counted as (
    select
        count(*)::integer as rows,
        count(*)::integer - (select count(*)::integer from rejects) as accepted,
        (select count(*)::integer from rejects) as rejected
    from staging
),

upload as (
    insert into uploads as u (table_name, sha256, rows, accepted, rejected)
    select
        'departments',
        :'sha256',
        c.rows,
        c.accepted,
        c.rejected
    from counted as c
    on conflict (table_name, sha256) do update
    set accepted = excluded.accepted,
        rejected = excluded.rejected,
        updated_at = case when u.rejected = excluded.rejected then u.updated_at else now() end
    returning
        u.id,
        u.rows,
        u.accepted,
        u.rejected
),

healed as (
    delete from departments_errors as e
    using upload as u
    where e.upload_id = u.id
        and not exists (select from rejects as j where j.line = e.line)
),

logged as (
    insert into departments_errors as e (upload_id, line, column_name, code, detail, raw)
    select
        u.id,
        j.line,
        j.fault[1],
        j.fault[2],
        j.fault[3],
        j.raw
    from rejects as j
    cross join upload as u
    order by j.line
    on conflict (upload_id, line) do update
    set column_name = excluded.column_name,
        code = excluded.code,
        detail = excluded.detail,
        logged_at = now()
    where (e.column_name, e.code, e.detail) is distinct from (excluded.column_name, excluded.code, excluded.detail)
)

select
    u.id as upload_id,
    u.rows,
    u.accepted,
    u.rejected
from upload as u
