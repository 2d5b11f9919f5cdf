-- Projects: /projects.

-- name: get
-- One project. No row: there is none.
select
    r.version,
    pick(projects_json(r), :'fields') as body
from projects as r
where r.id = :'id'::bigint

-- name: as_of
-- One project as it was: in a version, or at a time. No row: there was none.
select
    r.version,
    pick(projects_json(r), :'fields') as body
from history.as_of('projects', :'id'::bigint::text, :'as_of', (select to_jsonb(r) from projects as r where r.id = :'id'::bigint)) as past (object)
cross join jsonb_populate_record(null::projects, past.object) as r

-- name: list
-- A page of projects after the cursor, planned for the values at hand (see users.list).
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
            pick(projects_json(r), :'fields')::text as item,
            case ltrim(:'sort', '-')
                when 'name' then r.name
                when 'slug' then r.slug
                when 'created_at' then iso8601(r.created_at)
                else ''
            end as key,
            r.id::text as id
        from projects as r
        where (:'id' = '' or r.id = nullif(:'id', '')::bigint)
            and (:'name' = '' or r.name = :'name')
            and (:'slug' = '' or r.slug = :'slug')
            and (:'owner_id' = '' or r.owner_id = nullif(:'owner_id', '')::bigint)
            and (
                :'cursor' = ''
                or case :'sort'
                    when 'name' then (r.name, r.id) > (cursor_part(:'cursor', 1), cursor_part(:'cursor', 2)::bigint)
                    when '-name' then (r.name, r.id) < (cursor_part(:'cursor', 1), cursor_part(:'cursor', 2)::bigint)
                    when 'slug' then (r.slug, r.id) > (cursor_part(:'cursor', 1), cursor_part(:'cursor', 2)::bigint)
                    when '-slug' then (r.slug, r.id) < (cursor_part(:'cursor', 1), cursor_part(:'cursor', 2)::bigint)
                    when 'created_at' then (r.created_at, r.id) > (cursor_part(:'cursor', 1)::timestamptz, cursor_part(:'cursor', 2)::bigint)
                    when '-created_at' then (r.created_at, r.id) < (cursor_part(:'cursor', 1)::timestamptz, cursor_part(:'cursor', 2)::bigint)
                    when '-id' then r.id < cursor_part(:'cursor', 2)::bigint
                    else r.id > cursor_part(:'cursor', 2)::bigint
                end
            )
        order by
            case :'sort' when 'name' then r.name end,
            case :'sort' when '-name' then r.name end desc,
            case :'sort' when 'slug' then r.slug end,
            case :'sort' when '-slug' then r.slug end desc,
            case :'sort' when 'created_at' then r.created_at end,
            case :'sort' when '-created_at' then r.created_at end desc,
            case when :'sort' like '-%' then r.id end desc,
            r.id
        limit coalesce(nullif(:'limit', '')::integer, 50) + 1
    ) as r
) as found
cross join page(found.items, found.keys, found.ids, :'sort', coalesce(nullif(:'limit', '')::integer, 50), :'form')

-- name: create
-- A new project.
insert into projects as r (name, slug, description, owner_id)
select
    n.name,
    n.slug,
    n.description,
    n.owner_id
from jsonb_populate_record(null::projects, :'body'::jsonb) as n
returning
    r.id,
    r.version,
    projects_json(r) as body

-- name: change
-- The members given, saved over the version read (one of a comma-separated list, or * for any). No row: gone, or changed since.
-- With a `base` over any version: what the caller changed since then; an error where others changed the same.
update projects as r
set (name, slug, description, owner_id) = (
    select
        n.name,
        n.slug,
        n.description,
        n.owner_id
    from jsonb_populate_record(
        r,
        case
            when :'base' in ('', r.version::text) then :'body'::jsonb
            else history.mine('projects', to_jsonb(r), nullif(:'base', '')::integer, :'body'::jsonb)
        end
    ) as n
)
where r.id = :'id'::bigint
    and (:'base' <> '' or :'versions' = '*' or r.version::text = any (string_to_array(:'versions', ',')))
returning
    r.version,
    projects_json(r) as body

-- name: remove
-- A project gone, if it still is the version read. No row: gone already, or changed since.
delete from projects as r
where r.id = :'id'::bigint
    and (:'versions' = '*' or r.version::text = any (string_to_array(:'versions', ',')))
returning
    r.version

-- name: tree
-- A project with all below it, as one JSON document in many rows, each to be sent as soon as it is found: the project and its
-- milestones, each story with its tasks and comments, then the people. The parts are numbered, and joined part by part, so that they
-- come in this order without being collected and sorted first.
select part.line
from projects as p
cross join generate_series(1, 3) as step (n)
cross join lateral (
    select left(projects_json(p)::text, -1)
        || ',"milestones":['
        || coalesce((select string_agg(milestones_json(m)::text, ',' order by m.id) from milestones as m where m.project_id = p.id), '')
        || '],"userstories":['
    where step.n = 1
    union all
    select story.line
    from (
        select
            case when row_number() over (order by s.id) > 1 then ',' else '' end
            || left(userstories_json(s)::text, -1)
            || ',"tasks":['
            || coalesce((select string_agg(tasks_json(t)::text, ',' order by t.id) from tasks as t where t.userstory_id = s.id), '')
            || '],"comments":['
            || coalesce((select string_agg(comments_json(c)::text, ',' order by c.id) from comments as c where c.userstory_id = s.id), '')
            || ']}'
        from userstories as s
        where s.project_id = p.id
            and step.n = 2
        order by s.id
    ) as story (line)
    union all
    select '],"users":['
        || coalesce((
            select string_agg(to_json(row(u.id, u.name, u.image)::person)::text, ',' order by u.id)
            from users as u
            where u.id in (select person.id from people_of(p.id) as person (id))
        ), '')
        || ']}'
    where step.n = 3
) as part (line)
where p.id = :'id'::bigint
