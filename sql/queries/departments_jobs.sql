-- Departments and jobs: /departments, /jobs, /upload/departments, /upload/jobs: rows of an id and a name. What both pages share with
-- employees is in departments_jobs_employees.sql.
--
-- for: table=departments column=department json=departments_json errors=departments_errors
-- for: table=jobs column=job json=jobs_json errors=jobs_errors

-- name: list
-- A page of rows by id, after the one with `after_id`.
select
    page.next,
    page.body,
    history.place() as place
from page(array(
    select r.listed
    from (
        select listed(:"json"(r), '', r.id::text, :'fields')
        from :"table" as r
        where r.id > (select id_after(:'after_id'))
            and matches(r, :'id', :'name') -- filter
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
        select listed(:"json"(r), '', r.id::text, :'fields')
        from :"table" as r
        where r.id < (select id_before(:'after_id'))
            and matches(r, :'id', :'name') -- filter
        order by r.id desc
        limit 1001
    ) as r (listed)
    limit (select page_size(:'limit') + 1)
), '-id', page_size(:'limit'), :'form')

-- name: list_by_:column
-- By name, after the one with `after_key` and `after_id`.
select
    page.next,
    page.body,
    history.place() as place
from page(array(
    select r.listed
    from (
        select listed(:"json"(r), r.:"column", r.id::text, :'fields')
        from :"table" as r
        where (r.:"column", r.id) > ((select :'after_key'), id_after(:'after_id'))
            and matches(r, :'id', :'name') -- filter
        order by r.:"column", r.id
        limit 1001
    ) as r (listed)
    limit (select page_size(:'limit') + 1)
), :'column', page_size(:'limit'), :'form')

-- name: list_by_:column_desc
-- By name, from the last to the first.
select
    page.next,
    page.body,
    history.place() as place
from page(array(
    select r.listed
    from (
        select listed(:"json"(r), r.:"column", r.id::text, :'fields')
        from :"table" as r
        where (r.:"column", r.id) < ((select case :'after_id' when '' then (select max(last.:"column") from :"table" as last) else :'after_key' end), id_before(:'after_id'))
            and matches(r, :'id', :'name') -- filter
        order by r.:"column" desc, r.id desc
        limit 1001
    ) as r (listed)
    limit (select page_size(:'limit') + 1)
), '-' || :'column', page_size(:'limit'), :'form')

-- name: create
-- A new row; its id comes with it.
insert into :"table" as r (id, :"column")
select
    n.id,
    n.:"column"
from jsonb_populate_record(cast(null as :"table"), :'body'::jsonb) as n
returning
    r.id,
    r.version,
    :"json"(r) as body

-- name: change
-- The members given, saved over the version read (one of a comma-separated list, or * for any). No row: gone, or changed since.
-- With a `base` over any version: what the caller changed since then; an error where others changed the same.
update :"table" as r
set (:"column") = (
    select
        n.:"column"
    from jsonb_populate_record(
        r,
        case
            when :'base' in ('', r.version::text) then :'body'::jsonb
            else history.mine(:'table', to_jsonb(r), nullif(:'base', '')::integer, :'body'::jsonb)
        end
    ) as n
)
where r.id = :'id'::bigint
    and (:'base' <> '' or :'versions' = '*' or r.version::text = any (string_to_array(:'versions', ',')))
returning
    r.version,
    :"json"(r) as body

-- name: load
-- The staged rows into the table, and those that break a rule into its errors, by their first fault. A row that is in the table already,
-- equal in all, counts as accepted; the first of several with one id wins. A row that is accepted clears the rejects of other
-- files that it corrects: those with its id, and those of its line that differ from it in their first field alone. One that was in the
-- table already, and so may be why another was refused, clears no rejects of later files that came to its id or repeat one. No row, and
-- nothing done: it would log more rejects than it may.
with judged as materialized (
    select
        t.line,
        t.id,
        t.:"column",
        case
            when t.fault is not null then t.fault
            when r.:"column" <> t.:"column" then array['id', 'taken', 'Another row of ' || :'table' || ' has the id ' || t.id || '.']
        end as fault,
        r.id is not null as present
    from (
        select
            s.line,
            case when s.fault is null then s.c1::integer end as id,
            case when s.fault is null then s.c2 end as :"column",
            s.fault
        from (
            select
                s.line,
                s.c1,
                s.c2,
                case
                    when s.unreadable is not null then array[null, 'unreadable', s.unreadable]
                    when s.width <> 2 then array[null, 'width', 'Expected 2 fields, found ' || s.width || '.']
                    else coalesce(
                        id_fault('id', s.c1),
                        name_fault(:'column', s.c2)
                    )
                end as fault
            from staging as s
            offset 0 -- so that a row is judged once, and read as what it is only after that
        ) as s
    ) as t
    left join :"table" as r on r.id = t.id
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
        s.line,
        case when id_fault('id', s.c1) is null then s.c1::integer end as row_id,
        coalesce(s.raw, concat_ws(',', s.c1, s.c2)) as raw,
        coalesce(j.fault, array['id', 'duplicate', 'An earlier line has the id ' || j.id || '.']) as fault
    from judged as j
    left join repeated as p on p.id = j.id
    join staging as s on s.line = j.line
    where j.fault is not null
        or p.first_line < j.line
),

good as materialized (
    select
        f.line,
        f.id,
        f.:"column",
        f.present
    from judged as f
    left join repeated as p on p.id = f.id
    where f.fault is null
        and (p.id is null or p.first_line = f.line)
),

upload as (
    insert into uploads as u (table_name, sha256, rows, accepted, rejected)
    select
        :'table',
        :'sha256',
        s.rows,
        s.rows - j.rows,
        j.rows
    from (select count(*)::integer as rows from staging) as s
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
    insert into :"table" (id, version, :"column", upload_id, line)
    select
        g.id,
        coalesce(d.version, 0) + 1,
        g.:"column",
        u.id,
        g.line
    from good as g
    cross join upload as u
    left join history.deleted as d on d.obj_type = :'column' and d.obj_id = g.id::text
    where not g.present
),

healed as (
    delete from :"errors" as e
    where e.upload_id = (select u.id from upload as u)
        and not exists (select from rejects as j where j.line = e.line)
),

corrected as (
    delete from :"errors" as e
    using good as g, upload as u
    where e.row_id = g.id
        and e.upload_id <> u.id
        and (not g.present or e.upload_id < u.id or e.code not in ('taken', 'duplicate'))
),

corrected_ids as (
    delete from :"errors" as e
    using good as g, upload as u, staging as s
    where e.line = g.line
        and s.line = g.line
        and e.row_id is distinct from g.id
        and after_first_field(e.raw) = after_first_field(coalesce(s.raw, concat_ws(',', s.c1, s.c2)))
        and e.upload_id <> u.id
        and (not g.present or e.upload_id < u.id or e.code not in ('taken', 'duplicate'))
),

logged as (
    insert into :"errors" as e (upload_id, line, row_id, column_name, code, detail, raw)
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
