-- Employees: /employees, /upload/employees. What they have like departments and jobs is in departments_jobs_employees.sql.

-- name: list
-- A page of employees by id, after the one with `after_id`.
select
    page.next,
    page.body,
    history.place() as place
from page(array(
    select r.listed
    from (
        select listed(employees_json(r), '', r.id::text, :'fields')
        from employees as r
        where r.id > (select id_after(:'after_id'))
            and matches(r, :'id', :'name', :'department_id', :'job_id') -- filter
        order by r.id
        limit 1001
    ) as r (listed)
    limit (select page_size(:'limit') + 1)
), :'sort', page_size(:'limit'), :'form')

-- name: list_desc
-- The same from the last to the first.
select
    page.next,
    page.body,
    history.place() as place
from page(array(
    select r.listed
    from (
        select listed(employees_json(r), '', r.id::text, :'fields')
        from employees as r
        where r.id < (select id_before(:'after_id'))
            and matches(r, :'id', :'name', :'department_id', :'job_id') -- filter
        order by r.id desc
        limit 1001
    ) as r (listed)
    limit (select page_size(:'limit') + 1)
), '-id', page_size(:'limit'), :'form')

-- name: list_by_name
-- By name, after the one with `after_key` and `after_id`.
select
    page.next,
    page.body,
    history.place() as place
from page(array(
    select r.listed
    from (
        select listed(employees_json(r), r.name, r.id::text, :'fields')
        from employees as r
        where (r.name, r.id) > ((select :'after_key'), id_after(:'after_id'))
            and matches(r, :'id', :'name', :'department_id', :'job_id') -- filter
        order by r.name, r.id
        limit 1001
    ) as r (listed)
    limit (select page_size(:'limit') + 1)
), 'name', page_size(:'limit'), :'form')

-- name: list_by_name_desc
-- By name, from the last to the first.
select
    page.next,
    page.body,
    history.place() as place
from page(array(
    select r.listed
    from (
        select listed(employees_json(r), r.name, r.id::text, :'fields')
        from employees as r
        where (r.name, r.id) < ((select case :'after_id' when '' then (select max(last.name) from employees as last) else :'after_key' end), id_before(:'after_id'))
            and matches(r, :'id', :'name', :'department_id', :'job_id') -- filter
        order by r.name desc, r.id desc
        limit 1001
    ) as r (listed)
    limit (select page_size(:'limit') + 1)
), '-name', page_size(:'limit'), :'form')

-- name: list_by_datetime
-- By datetime, after the one with `after_key` and `after_id`.
select
    page.next,
    page.body,
    history.place() as place
from page(array(
    select r.listed
    from (
        select listed(employees_json(r), iso8601(r.datetime), r.id::text, :'fields')
        from employees as r
        where (r.datetime, r.id) > ((select coalesce(nullif(:'after_key', '')::timestamptz, '-infinity')), id_after(:'after_id'))
            and matches(r, :'id', :'name', :'department_id', :'job_id') -- filter
        order by r.datetime, r.id
        limit 1001
    ) as r (listed)
    limit (select page_size(:'limit') + 1)
), 'datetime', page_size(:'limit'), :'form')

-- name: list_by_datetime_desc
-- By datetime, from the last to the first.
select
    page.next,
    page.body,
    history.place() as place
from page(array(
    select r.listed
    from (
        select listed(employees_json(r), iso8601(r.datetime), r.id::text, :'fields')
        from employees as r
        where (r.datetime, r.id) < ((select coalesce(nullif(:'after_key', '')::timestamptz, 'infinity')), id_before(:'after_id'))
            and matches(r, :'id', :'name', :'department_id', :'job_id') -- filter
        order by r.datetime desc, r.id desc
        limit 1001
    ) as r (listed)
    limit (select page_size(:'limit') + 1)
), '-datetime', page_size(:'limit'), :'form')

-- name: create
-- A new employee; its id comes with it.
insert into employees as r (id, name, datetime, department_id, job_id)
select
    n.id,
    n.name,
    n.datetime,
    n.department_id,
    n.job_id
from jsonb_populate_record(null::employees, :'body'::jsonb) as n
returning
    r.id,
    r.version,
    employees_json(r) as body

-- name: change
-- The members given, saved over the version read (one of a comma-separated list, or * for any). No row: gone, or changed since.
-- With a `base` over any version: what the caller changed since then; an error where others changed the same.
update employees as r
set (name, datetime, department_id, job_id) = (
    select
        n.name,
        n.datetime,
        n.department_id,
        n.job_id
    from jsonb_populate_record(
        r,
        case
            when :'base' in ('', r.version::text) then :'body'::jsonb
            else history.mine('employees', to_jsonb(r), nullif(:'base', '')::integer, :'body'::jsonb)
        end
    ) as n
)
where r.id = :'id'::bigint
    and (:'base' <> '' or :'versions' = '*' or r.version::text = any (string_to_array(:'versions', ',')))
returning
    r.version,
    employees_json(r) as body

-- name: load
-- The staged rows into employees, and those that break a rule into employees_errors, by their first fault. A row that is in the table
-- already, equal in all, counts as accepted; the first of several with one id wins. A row that is accepted clears the rejects of other
-- files that it corrects: those with its id, and those of its line that differ from it in their first field alone. One that was in the
-- table already, and so may be why another was refused, clears no rejects of later files that came to its id or repeat one. No row, and
-- nothing done: it would log more rejects than it may.
-- The rows wait in appending, a place of the owner, for employees.append: there most are from the start, because each field of them is
-- good as far as can be seen without the table (see handlers/bulk/loading.py); the others are in staging, as texts.
with fields as materialized (
    select
        s.line,
        case when s.fault is null then s.c1::integer end as id,
        case when s.fault is null then s.c2 end as name,
        case when s.fault is null then cut_to_microseconds(s.c3)::timestamptz end as datetime,
        case when s.fault is null then s.c4::integer end as department_id,
        case when s.fault is null then s.c5::integer end as job_id,
        s.fault
    from (
        select
            s.line,
            s.c1,
            s.c2,
            s.c3,
            s.c4,
            s.c5,
            case
                when s.unreadable is not null then array[null, 'unreadable', s.unreadable]
                when s.width <> 5 then array[null, 'width', 'Expected 5 fields, found ' || s.width || '.']
                else coalesce(
                    id_fault('id', s.c1),
                    name_fault('name', s.c2),
                    datetime_fault('datetime', s.c3),
                    id_fault('department_id', s.c4),
                    id_fault('job_id', s.c5)
                )
            end as fault
        from staging as s
        offset 0 -- so that a row is judged once, and read as what it is only after that
    ) as s
),

judged as materialized (
    select
        t.line,
        t.id,
        case
            when t.fault is not null then t.fault
            when r.name <> t.name or r.datetime <> t.datetime or r.department_id <> t.department_id or r.job_id <> t.job_id then array['id', 'taken', 'Another row of employees has the id ' || t.id || '.']
            when d.id is null then array['department_id', 'unknown', 'There is no department ' || t.department_id || '.']
            when k.id is null then array['job_id', 'unknown', 'There is no job ' || t.job_id || '.']
        end as fault,
        r.id is not null as present
    from (
        select
            f.line,
            f.id,
            f.name,
            f.datetime,
            f.department_id,
            f.job_id,
            f.fault
        from fields as f
        union all
        select
            a.line,
            a.id,
            a.name,
            a.datetime,
            a.department_id,
            a.job_id,
            null as fault
        from appending as a
    ) as t
    left join employees as r on r.id = t.id
    left join departments as d on d.id = t.department_id
    left join jobs as k on k.id = t.job_id
),

repeated as materialized (
    select
        f.id,
        min(f.line) as first_line
    from judged as f
    where f.fault is null
    group by f.id
    having count(*) > 1
),

rejects as materialized (
    select
        j.line,
        coalesce(case when id_fault('id', s.c1) is null then s.c1::integer end, a.id) as row_id,
        case
            when s.line is null then coalesce(a.raw, concat_ws(',', a.id, a.name, iso8601(a.datetime), a.department_id, a.job_id))
            else coalesce(s.raw, concat_ws(',', s.c1, s.c2, s.c3, s.c4, s.c5))
        end as raw,
        coalesce(j.fault, array['id', 'duplicate', 'An earlier line has the id ' || j.id || '.']) as fault
    from judged as j
    left join repeated as p on p.id = j.id
    left join staging as s on s.line = j.line
    left join appending as a on a.line = j.line
    where j.fault is not null
        or p.first_line < j.line
),

good as materialized (
    select
        f.line,
        f.id,
        f.present
    from judged as f
    left join repeated as p on p.id = f.id
    where f.fault is null
        and (p.id is null or p.first_line = f.line)
),

upload as (
    insert into uploads as u (table_name, sha256, rows, accepted, rejected)
    select
        'employees',
        :'sha256',
        s.rows,
        s.rows - j.rows,
        j.rows
    from (select count(*)::integer as rows from judged) as s
    cross join (select count(*)::integer as rows from rejects) as j
    where j.rows <= coalesce(nullif(:'rejects_limit', '')::integer, j.rows)
    on conflict (table_name, sha256) do update
    set rows = excluded.rows, -- another reading of the same file may find others
        accepted = excluded.accepted,
        rejected = excluded.rejected,
        updated_at = case when (u.rows, u.rejected) = (excluded.rows, excluded.rejected) then u.updated_at else now() end
    returning
        u.id,
        u.rows,
        u.accepted,
        u.rejected
),

appended as (
    insert into appending (id, name, datetime, department_id, job_id, line)
    select
        f.id,
        f.name,
        f.datetime,
        f.department_id,
        f.job_id,
        f.line
    from fields as f
    join good as g on g.line = f.line
    where not g.present
),

withheld as (
    delete from appending as a
    using judged as j
    left join repeated as p on p.id = j.id
    where j.line = a.line
        and (j.fault is not null or j.present or p.first_line < j.line)
),

healed as (
    delete from employees_errors as e
    where e.upload_id = (select u.id from upload as u)
        and not exists (select from rejects as j where j.line = e.line)
),

corrected as (
    delete from employees_errors as e
    using good as g, upload as u
    where e.row_id = g.id
        and e.upload_id <> u.id
        and (not g.present or e.upload_id < u.id or e.code not in ('taken', 'duplicate'))
        and exists (select from employees_errors)
),

corrected_ids as (
    delete from employees_errors as e
    using
        good as g
        left join staging as s on s.line = g.line
        left join appending as a on a.line = g.line,
        upload as u
    where e.line = g.line
        and e.row_id is distinct from g.id
        and after_first_field(e.raw) = after_first_field(
            case
                when s.line is null then coalesce(a.raw, concat_ws(',', a.id, a.name, iso8601(a.datetime), a.department_id, a.job_id))
                else coalesce(s.raw, concat_ws(',', s.c1, s.c2, s.c3, s.c4, s.c5))
            end
        )
        and e.upload_id <> u.id
        and (not g.present or e.upload_id < u.id or e.code not in ('taken', 'duplicate'))
        and exists (select from employees_errors)
),

logged as (
    insert into employees_errors as e (upload_id, line, row_id, column_name, code, detail, raw)
    select
        u.id,
        j.line,
        j.row_id,
        j.fault[1],
        j.fault[2],
        j.fault[3],
        j.raw
    from rejects as j
    cross join upload as u
    order by j.line
    on conflict (upload_id, line) do update
    set row_id = excluded.row_id,
        column_name = excluded.column_name,
        code = excluded.code,
        detail = excluded.detail,
        raw = excluded.raw,
        logged_at = now()
    where (e.row_id, e.column_name, e.code, e.detail, e.raw)
        is distinct from (excluded.row_id, excluded.column_name, excluded.code, excluded.detail, excluded.raw)
)

select
    u.id as upload_id,
    u.rows,
    u.accepted,
    u.rejected
from upload as u

-- name: stage
-- A place of the owner's for the employees that this transaction will append.
select stage_employees() as staged

-- name: append
-- The rows that wait in appending into employees, their parents checked for all at once; those that name no upload are of this one.
select append_employees(nullif(:'upload', '')::bigint) as rows

-- name: copy_plain
-- Rows into appending, as COPY takes lines of text.
copy appending (line, raw, id, name, datetime, department_id, job_id) from stdin

-- name: copy
-- Rows of a backup into appending, as COPY takes them.
copy appending from stdin (format binary)

-- name: is_empty
-- Whether there is no employee.
select not exists (select from employees) as is_empty
