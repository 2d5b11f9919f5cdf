-- Comments: /userstories/{id}/comments, /comments/{id}.

-- name: get
-- One comment. No row: there is none.
select
    r.version,
    pick(comments_json(r), :'fields') as body
from comments as r
where r.id = :'id'::bigint

-- name: as_of
-- One comment as it was: in a version, or at a time. No row: there was none.
select
    r.version,
    pick(comments_json(r), :'fields') as body
from history.as_of('comments', :'id'::bigint::text, :'as_of', (select to_jsonb(r) from comments as r where r.id = :'id'::bigint)) as past (object)
cross join jsonb_populate_record(null::comments, past.object) as r

-- name: list
-- A page of comments by id, after the one with `after_id`. `parent` is null where there is none to have any.
select
    page.next,
    page.body,
    (select true from userstories as p where p.id = :'userstory_id'::bigint) as parent,
    history.place() as place
from page(array(
    select r.listed
    from (
        select listed(comments_json(r), '', r.id::text, :'fields')
        from comments as r
        where r.userstory_id = :'userstory_id'::bigint
            and (r.userstory_id, r.id) > ((select :'userstory_id'::bigint), id_after(:'after_id'))
            and matches(r, :'id', :'author_id') -- filter
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
    (select true from userstories as p where p.id = :'userstory_id'::bigint) as parent,
    history.place() as place
from page(array(
    select r.listed
    from (
        select listed(comments_json(r), '', r.id::text, :'fields')
        from comments as r
        where r.userstory_id = :'userstory_id'::bigint
            and (r.userstory_id, r.id) < ((select :'userstory_id'::bigint), id_before(:'after_id'))
            and matches(r, :'id', :'author_id') -- filter
        order by r.id desc
        limit 1001
    ) as r (listed)
    limit (select page_size(:'limit') + 1)
), '-id', page_size(:'limit'), :'form')

-- name: create
-- A new comment of a story, in its project. No row: there is no such story.
insert into comments as r (project_id, userstory_id, author_id, text)
select
    s.project_id,
    s.id,
    n.author_id,
    n.text
from jsonb_populate_record(null::comments, :'body'::jsonb) as n
join userstories as s on s.id = :'userstory_id'::bigint
returning
    r.id,
    r.version,
    comments_json(r) as body

-- name: change
-- The members given, saved over the version read (one of a comma-separated list, or * for any). No row: gone, or changed since.
-- With a `base` over any version: what the caller changed since then; an error where others changed the same.
update comments as r
set (author_id, text) = (
    select
        n.author_id,
        n.text
    from jsonb_populate_record(
        r,
        case
            when :'base' in ('', r.version::text) then :'body'::jsonb
            else history.mine('comments', to_jsonb(r), nullif(:'base', '')::integer, :'body'::jsonb)
        end
    ) as n
)
where r.id = :'id'::bigint
    and (:'base' <> '' or :'versions' = '*' or r.version::text = any (string_to_array(:'versions', ',')))
returning
    r.version,
    comments_json(r) as body

-- name: remove
-- A comment gone, if it still is the version read. No row: gone already, or changed since.
delete from comments as r
where r.id = :'id'::bigint
    and (:'versions' = '*' or r.version::text = any (string_to_array(:'versions', ',')))
returning
    r.version
