-- Uploads: /uploads, the files and batches that were moved in. How that is done is in departments_jobs.sql and employees.sql.

-- name: get
-- One upload by id. No row: there is none.
select uploads_json(u) as body
from uploads as u
where u.id = :'id'::bigint

-- name: list
-- A page of uploads, after the one with `after_id`.
select
    page.next,
    page.body,
    history.place() as place
from page(array(
    select r.listed
    from (
        select listed(uploads_json(r), '', r.id::text, :'fields')
        from uploads as r
        where r.id > (select id_after(:'after_id'))
            and matches(r, :'table') -- filter
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
        select listed(uploads_json(r), '', r.id::text, :'fields')
        from uploads as r
        where r.id < (select id_before(:'after_id'))
            and matches(r, :'table') -- filter
        order by r.id desc
        limit 1001
    ) as r (listed)
    limit (select page_size(:'limit') + 1)
), '-id', page_size(:'limit'), :'form')
