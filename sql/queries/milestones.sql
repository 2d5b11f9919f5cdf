-- Milestones: /projects/{id}/milestones, /milestones/{id}.

-- name: get
-- One milestone. No row: there is none.
select
    r.version,
    pick(milestones_json(r), :'fields') as body
from milestones as r
where r.id = :'id'::bigint

-- name: as_of
-- One milestone as it was: in a version, or at a time. No row: there was none.
select
    r.version,
    pick(milestones_json(r), :'fields') as body
from history.as_of('milestones', :'id'::bigint::text, :'as_of', (select to_jsonb(r) from milestones as r where r.id = :'id'::bigint)) as past (object)
cross join jsonb_populate_record(null::milestones, past.object) as r

-- name: list
-- A page of milestones by id, after the one with `after_id`. `parent` is null where there is none to have any.
select
    page.next,
    page.body,
    (select true from projects as p where p.id = :'project_id'::bigint) as parent,
    history.place() as place
from page(array(
    select r.listed
    from (
        select listed(milestones_json(r), '', r.id::text, :'fields')
        from milestones as r
        where r.project_id = :'project_id'::bigint
            and (r.project_id, r.id) > ((select :'project_id'::bigint), id_after(:'after_id'))
            and matches(r, :'id', :'name', :'closed'::text) -- filter
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
        select listed(milestones_json(r), '', r.id::text, :'fields')
        from milestones as r
        where r.project_id = :'project_id'::bigint
            and (r.project_id, r.id) < ((select :'project_id'::bigint), id_before(:'after_id'))
            and matches(r, :'id', :'name', :'closed'::text) -- filter
        order by r.id desc
        limit 1001
    ) as r (listed)
    limit (select page_size(:'limit') + 1)
), '-id', page_size(:'limit'), :'form')

-- name: create
-- A new milestone. No row: there is no such project.
insert into milestones as r (project_id, name, starts_on, ends_on, closed)
select
    p.id,
    n.name,
    n.starts_on,
    n.ends_on,
    n.closed
from jsonb_populate_record(null::milestones, :'body'::jsonb) as n
join projects as p on p.id = :'project_id'::bigint
returning
    r.id,
    r.version,
    milestones_json(r) as body

-- name: change
-- The members given, saved over the version read (one of a comma-separated list, or * for any). No row: gone, or changed since.
-- With a `base` over any version: what the caller changed since then; an error where others changed the same.
update milestones as r
set (name, starts_on, ends_on, closed) = (
    select
        n.name,
        n.starts_on,
        n.ends_on,
        n.closed
    from jsonb_populate_record(
        r,
        case
            when :'base' in ('', r.version::text) then :'body'::jsonb
            else history.mine('milestones', to_jsonb(r), nullif(:'base', '')::integer, :'body'::jsonb)
        end
    ) as n
)
where r.id = :'id'::bigint
    and (:'base' <> '' or :'versions' = '*' or r.version::text = any (string_to_array(:'versions', ',')))
returning
    r.version,
    milestones_json(r) as body

-- name: remove
-- A milestone gone, if it still is the version read. No row: gone already, or changed since.
delete from milestones as r
where r.id = :'id'::bigint
    and (:'versions' = '*' or r.version::text = any (string_to_array(:'versions', ',')))
returning
    r.version
