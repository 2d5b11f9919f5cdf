-- Userstories: /projects/{id}/userstories, /userstories/{id}.

-- name: get
-- One user story. No row: there is none.
select
    r.version,
    pick(userstories_json(r), :'fields') as body
from userstories as r
where r.id = :'id'::bigint

-- name: as_of
-- One user story as it was: in a version, or at a time. No row: there was none.
select
    r.version,
    pick(userstories_json(r), :'fields') as body
from history.as_of('userstories', :'id'::bigint::text, :'as_of', (select to_jsonb(r) from userstories as r where r.id = :'id'::bigint)) as past (object)
cross join jsonb_populate_record(null::userstories, past.object) as r

-- name: list
-- A page of user stories by id, after the one with `after_id`. `parent` is null where there is none to have any.
select
    page.next,
    page.body,
    (select true from projects as p where p.id = :'project_id'::bigint) as parent,
    history.place() as place
from page(array(
    select r.listed
    from (
        select listed(userstories_json(r), '', r.id::text, :'fields')
        from userstories as r
        where r.project_id = :'project_id'::bigint
            and (r.project_id, r.id) > ((select :'project_id'::bigint), id_after(:'after_id'))
            and matches(r, :'id', :'ref', :'milestone_id', :'status', :'assigned_to') -- filter
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
    (select true from projects as p where p.id = :'project_id'::bigint) as parent,
    history.place() as place
from page(array(
    select r.listed
    from (
        select listed(userstories_json(r), '', r.id::text, :'fields')
        from userstories as r
        where r.project_id = :'project_id'::bigint
            and (r.project_id, r.id) < ((select :'project_id'::bigint), id_before(:'after_id'))
            and matches(r, :'id', :'ref', :'milestone_id', :'status', :'assigned_to') -- filter
        order by r.id desc
        limit 1001
    ) as r (listed)
    limit (select page_size(:'limit') + 1)
), '-id', page_size(:'limit'), :'form')

-- name: list_by_ref
-- By ref, after the one with `after_key` and `after_id`.
select
    page.next,
    page.body,
    (select true from projects as p where p.id = :'project_id'::bigint) as parent,
    history.place() as place
from page(array(
    select r.listed
    from (
        select listed(userstories_json(r), r.ref::text, r.id::text, :'fields')
        from userstories as r
        where r.project_id = :'project_id'::bigint
            and (r.ref, r.id) > ((select coalesce(nullif(:'after_key', '')::integer, 0)), id_after(:'after_id'))
            and matches(r, :'id', :'ref', :'milestone_id', :'status', :'assigned_to') -- filter
        order by r.ref
        limit 1001
    ) as r (listed)
    limit (select page_size(:'limit') + 1)
), 'ref', page_size(:'limit'), :'form')

-- name: list_by_ref_desc
-- By ref, from the last to the first.
select
    page.next,
    page.body,
    (select true from projects as p where p.id = :'project_id'::bigint) as parent,
    history.place() as place
from page(array(
    select r.listed
    from (
        select listed(userstories_json(r), r.ref::text, r.id::text, :'fields')
        from userstories as r
        where r.project_id = :'project_id'::bigint
            and (r.ref, r.id) < ((select coalesce(nullif(:'after_key', '')::integer, 2147483647)), id_before(:'after_id'))
            and matches(r, :'id', :'ref', :'milestone_id', :'status', :'assigned_to') -- filter
        order by r.ref desc
        limit 1001
    ) as r (listed)
    limit (select page_size(:'limit') + 1)
), '-ref', page_size(:'limit'), :'form')

-- name: create
-- A new user story. No row: there is no such project.
insert into userstories as r (project_id, milestone_id, subject, description, status, assigned_to, tags, points)
select
    p.id,
    n.milestone_id,
    n.subject,
    n.description,
    n.status,
    n.assigned_to,
    n.tags,
    n.points
from jsonb_populate_record(null::userstories, :'body'::jsonb) as n
join projects as p on p.id = :'project_id'::bigint
returning
    r.id,
    r.version,
    userstories_json(r) as body

-- name: change
-- The members given, saved over the version read (one of a comma-separated list, or * for any). No row: gone, or changed since.
-- With a `base` over any version: what the caller changed since then; an error where others changed the same.
update userstories as r
set (milestone_id, subject, description, status, assigned_to, tags, points) = (
    select
        n.milestone_id,
        n.subject,
        n.description,
        n.status,
        n.assigned_to,
        n.tags,
        n.points
    from jsonb_populate_record(
        r,
        case
            when :'base' in ('', r.version::text) then :'body'::jsonb
            else history.mine('userstories', to_jsonb(r), nullif(:'base', '')::integer, :'body'::jsonb)
        end
    ) as n
)
where r.id = :'id'::bigint
    and (:'base' <> '' or :'versions' = '*' or r.version::text = any (string_to_array(:'versions', ',')))
returning
    r.version,
    userstories_json(r) as body

-- name: remove
-- An user story gone, if it still is the version read. No row: gone already, or changed since.
delete from userstories as r
where r.id = :'id'::bigint
    and (:'versions' = '*' or r.version::text = any (string_to_array(:'versions', ',')))
returning
    r.version
