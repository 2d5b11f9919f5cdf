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
-- A page of userstories after the cursor, planned for the values at hand (see users.list).
-- `parent` is null where there is none to have any.
select
    page.next,
    page.body,
    (select true from projects as p where p.id = :'project_id'::bigint) as parent
from (
    select
        array_agg(r.item) as items,
        array_agg(r.key) as keys,
        array_agg(r.id) as ids
    from (
        select
            pick(userstories_json(r), :'fields')::text as item,
            case ltrim(:'sort', '-')
                when 'ref' then r.ref::text
                else ''
            end as key,
            r.id::text as id
        from userstories as r
        where r.project_id = :'project_id'::bigint
            and (:'id' = '' or r.id = nullif(:'id', '')::bigint)
            and (:'ref' = '' or r.ref = nullif(:'ref', '')::integer)
            and (:'milestone_id' = '' or r.milestone_id = nullif(:'milestone_id', '')::bigint)
            and (:'status' = '' or r.status = :'status')
            and (:'assigned_to' = '' or r.assigned_to = nullif(:'assigned_to', '')::bigint)
            and (
                :'cursor' = ''
                or case :'sort'
                    when 'ref' then (r.ref, r.id) > (cursor_part(:'cursor', 1)::integer, cursor_part(:'cursor', 2)::bigint)
                    when '-ref' then (r.ref, r.id) < (cursor_part(:'cursor', 1)::integer, cursor_part(:'cursor', 2)::bigint)
                    when '-id' then r.id < cursor_part(:'cursor', 2)::bigint
                    else r.id > cursor_part(:'cursor', 2)::bigint
                end
            )
        order by
            case :'sort' when 'ref' then r.ref end,
            case :'sort' when '-ref' then r.ref end desc,
            case when :'sort' like '-%' then r.id end desc,
            r.id
        limit coalesce(nullif(:'limit', '')::integer, 50) + 1
    ) as r
) as found
cross join page(found.items, found.keys, found.ids, :'sort', coalesce(nullif(:'limit', '')::integer, 50), :'form')

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
