-- What departments, jobs and employees have alike: /{table}/{id}, /errors/{table}.
--
-- for: table=departments json=departments_json errors=departments_errors errors_json=departments_errors_json
-- for: table=jobs json=jobs_json errors=jobs_errors errors_json=jobs_errors_json
-- for: table=employees json=employees_json errors=employees_errors errors_json=employees_errors_json

-- name: get
-- One row. No row: there is none.
select
    r.version,
    pick(:"json"(r), :'fields') as body
from :"table" as r
where r.id = :'id'::bigint

-- name: as_of
-- One row as it was: in a version, or at a time. No row: there was none.
select
    r.version,
    pick(:"json"(r), :'fields') as body
from history.as_of(:'table', :'id'::bigint::text, :'as_of', (select to_jsonb(r) from :"table" as r where r.id = :'id'::bigint)) as past (object)
cross join jsonb_populate_record(cast(null as :"table"), past.object) as r

-- name: remove
-- A row gone, if it still is the version read. No row: gone already, or changed since.
delete from :"table" as r
where r.id = :'id'::bigint
    and (:'versions' = '*' or r.version::text = any (string_to_array(:'versions', ',')))
returning
    r.version

-- name: provenance
-- Where a row came from: a line of an upload; nulls where it came as a request.
select to_json(p) as body
from (
    select
        r.id,
        r.upload_id,
        r.line,
        u.sha256,
        iso8601(u.created_at) as uploaded_at,
        '/' || :'table' || '/' || r.id || '/history' as history
    from :"table" as r
    left join uploads as u on u.id = r.upload_id
    where r.id = :'id'::bigint
) as p

-- name: errors
-- A page of the rejects, of all uploads or of one, after the one with `after_id`.
select
    page.next,
    page.body,
    history.place() as place
from page(array(
    select r.listed
    from (
        select listed(:"errors_json"(r), '', r.id::text, :'fields')
        from :"errors" as r
        where r.id > (select id_after(:'after_id'))
            and matches(r, :'upload_id', :'code') -- filter
        order by r.id
        limit 1001
    ) as r (listed)
    limit (select page_size(:'limit') + 1)
), :'sort', page_size(:'limit'), :'form')

-- name: errors_desc
-- The same from the last to the first.
select
    page.next,
    page.body,
    history.place() as place
from page(array(
    select r.listed
    from (
        select listed(:"errors_json"(r), '', r.id::text, :'fields')
        from :"errors" as r
        where r.id < (select id_before(:'after_id'))
            and matches(r, :'upload_id', :'code') -- filter
        order by r.id desc
        limit 1001
    ) as r (listed)
    limit (select page_size(:'limit') + 1)
), '-id', page_size(:'limit'), :'form')
