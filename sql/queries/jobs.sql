-- Jobs: /jobs, /upload/jobs, /errors/jobs.

-- name: get
-- One job. No row: there is none.
select
    r.version,
    pick(jobs_json(r), :'fields') as body
from jobs as r
where r.id = :'id'::bigint

-- name: as_of
-- One job as it was: in a version, or at a time. No row: there was none.
select
    r.version,
    pick(jobs_json(r), :'fields') as body
from history.as_of('jobs', :'id'::bigint::text, :'as_of', (select to_jsonb(r) from jobs as r where r.id = :'id'::bigint)) as past (object)
cross join jsonb_populate_record(null::jobs, past.object) as r

-- name: list
-- A page of jobs by id, after the one with `after_id`.
select
    page.next,
    page.body
from page(array(
    select r.listed
    from (
        select listed(jobs_json(r), '', r.id::text, :'fields')
        from jobs as r
        where r.id > (select id_after(:'after_id'))
            and matches(r, :'id', :'job')
        order by r.id
        limit 1001
    ) as r (listed)
    limit (select page_size(:'limit') + 1)
), :'sort', page_size(:'limit'), :'form')

-- name: list_desc
-- The same from the last to the first.
select
    page.next,
    page.body
from page(array(
    select r.listed
    from (
        select listed(jobs_json(r), '', r.id::text, :'fields')
        from jobs as r
        where r.id < (select id_before(:'after_id'))
            and matches(r, :'id', :'job')
        order by r.id desc
        limit 1001
    ) as r (listed)
    limit (select page_size(:'limit') + 1)
), '-id', page_size(:'limit'), :'form')

-- name: list_by_job
-- By job, after the one with `after_key` and `after_id`.
select
    page.next,
    page.body
from page(array(
    select r.listed
    from (
        select listed(jobs_json(r), r.job, r.id::text, :'fields')
        from jobs as r
        where (r.job, r.id) > ((select :'after_key'), id_after(:'after_id'))
            and matches(r, :'id', :'job')
        order by r.job, r.id
        limit 1001
    ) as r (listed)
    limit (select page_size(:'limit') + 1)
), 'job', page_size(:'limit'), :'form')

-- name: list_by_job_desc
-- By job, from the last to the first.
select
    page.next,
    page.body
from page(array(
    select r.listed
    from (
        select listed(jobs_json(r), r.job, r.id::text, :'fields')
        from jobs as r
        where (r.job, r.id) < ((select case :'after_id' when '' then (select max(last.job) from jobs as last) else :'after_key' end), id_before(:'after_id'))
            and matches(r, :'id', :'job')
        order by r.job desc, r.id desc
        limit 1001
    ) as r (listed)
    limit (select page_size(:'limit') + 1)
), '-job', page_size(:'limit'), :'form')

-- name: create
-- A new job; its id comes with it.
insert into jobs as r (id, job)
select
    n.id,
    n.job
from jsonb_populate_record(null::jobs, :'body'::jsonb) as n
returning
    r.id,
    r.version,
    jobs_json(r) as body

-- name: change
-- The members given, saved over the version read (one of a comma-separated list, or * for any). No row: gone, or changed since.
-- With a `base` over any version: what the caller changed since then; an error where others changed the same.
update jobs as r
set (job) = (
    select
        n.job
    from jsonb_populate_record(
        r,
        case
            when :'base' in ('', r.version::text) then :'body'::jsonb
            else history.mine('jobs', to_jsonb(r), nullif(:'base', '')::integer, :'body'::jsonb)
        end
    ) as n
)
where r.id = :'id'::bigint
    and (:'base' <> '' or :'versions' = '*' or r.version::text = any (string_to_array(:'versions', ',')))
returning
    r.version,
    jobs_json(r) as body

-- name: remove
-- A job gone, if it still is the version read. No row: gone already, or changed since.
delete from jobs as r
where r.id = :'id'::bigint
    and (:'versions' = '*' or r.version::text = any (string_to_array(:'versions', ',')))
returning
    r.version

-- name: provenance
-- Where a job came from: a line of an upload; nulls where it came as a request.
select to_json(p) as body
from (
    select
        r.id,
        r.upload_id,
        r.line,
        u.sha256,
        iso8601(u.created_at) as uploaded_at,
        '/jobs/' || r.id || '/history' as history
    from jobs as r
    left join uploads as u on u.id = r.upload_id
    where r.id = :'id'::bigint
) as p

-- name: errors
-- A page of the rejects of jobs, of all uploads or of one, after the one with `after_id`.
select
    page.next,
    page.body
from page(array(
    select r.listed
    from (
        select listed(jobs_errors_json(r), '', r.id::text, :'fields')
        from jobs_errors as r
        where r.id > (select id_after(:'after_id'))
            and matches(r, :'upload_id', :'code')
        order by r.id
        limit 1001
    ) as r (listed)
    limit (select page_size(:'limit') + 1)
), :'sort', page_size(:'limit'), :'form')

-- name: errors_desc
-- The same from the last to the first.
select
    page.next,
    page.body
from page(array(
    select r.listed
    from (
        select listed(jobs_errors_json(r), '', r.id::text, :'fields')
        from jobs_errors as r
        where r.id < (select id_before(:'after_id'))
            and matches(r, :'upload_id', :'code')
        order by r.id desc
        limit 1001
    ) as r (listed)
    limit (select page_size(:'limit') + 1)
), '-id', page_size(:'limit'), :'form')

-- name: load
-- The staged rows into jobs, and those that break a rule into jobs_errors, by their first fault. A row that is in the table
-- already, equal in all, counts as accepted; the first of several with one id wins. A row that comes in clears the rejects of earlier
-- files that it corrects: those with its id, and those of its line that differ from it in their first field alone. No row, and nothing
-- done: it would log more rejects than it may.
with judged as materialized (
    select
        t.line,
        t.id,
        t.job,
        case
            when t.fault is not null then t.fault
            when r.job <> t.job then array['id', 'taken', 'Another row of jobs has the id ' || t.id || '.']
        end as fault,
        r.id is not null as present
    from (
        select
            s.line,
            case when s.fault is null then s.c1::integer end as id,
            case when s.fault is null then s.c2 end as job,
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
                        name_fault('job', s.c2)
                    )
                end as fault
            from staging as s
            offset 0 -- so that a row is judged once, and read as what it is only after that
        ) as s
    ) as t
    left join jobs as r on r.id = t.id
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

incoming as materialized (
    select
        f.line,
        f.id,
        f.job
    from judged as f
    left join repeated as p on p.id = f.id
    where f.fault is null
        and not f.present
        and (p.id is null or p.first_line = f.line)
),

upload as (
    insert into uploads as u (table_name, sha256, rows, accepted, rejected)
    select
        'jobs',
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
    insert into jobs (id, version, job, upload_id, line)
    select
        i.id,
        coalesce(d.version, 0) + 1,
        i.job,
        u.id,
        i.line
    from incoming as i
    cross join upload as u
    left join history.deleted as d on d.obj_type = 'job' and d.obj_id = i.id::text
),

healed as (
    delete from jobs_errors as e
    where e.upload_id = (select u.id from upload as u)
        and not exists (select from rejects as j where j.line = e.line)
),

corrected as (
    delete from jobs_errors as e
    using incoming as i, upload as u
    where e.row_id = i.id
        and e.upload_id <> u.id
),

corrected_ids as (
    delete from jobs_errors as e
    using incoming as i, upload as u, staging as s
    where e.line = i.line
        and s.line = i.line
        and e.row_id is distinct from i.id
        and after_first_field(e.raw) = after_first_field(coalesce(s.raw, concat_ws(',', s.c1, s.c2)))
        and e.upload_id <> u.id
),

logged as (
    insert into jobs_errors as e (upload_id, line, row_id, column_name, code, detail, raw)
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
