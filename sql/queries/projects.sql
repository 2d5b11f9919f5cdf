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
-- A page of projects by id, after the one with `after_id`.
select
    page.next,
    page.body,
    history.place() as place
from page(array(
    select r.listed
    from (
        select listed(projects_json(r), '', r.id::text, :'fields')
        from projects as r
        where r.id > (select id_after(:'after_id'))
            and matches(r, :'id', :'name', :'slug', :'owner_id') -- filter
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
        select listed(projects_json(r), '', r.id::text, :'fields')
        from projects as r
        where r.id < (select id_before(:'after_id'))
            and matches(r, :'id', :'name', :'slug', :'owner_id') -- filter
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
        select listed(projects_json(r), r.name, r.id::text, :'fields')
        from projects as r
        where (r.name, r.id) > ((select :'after_key'), id_after(:'after_id'))
            and matches(r, :'id', :'name', :'slug', :'owner_id') -- filter
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
        select listed(projects_json(r), r.name, r.id::text, :'fields')
        from projects as r
        where (r.name, r.id) < ((select case :'after_id' when '' then (select max(last.name) from projects as last) else :'after_key' end), id_before(:'after_id'))
            and matches(r, :'id', :'name', :'slug', :'owner_id') -- filter
        order by r.name desc, r.id desc
        limit 1001
    ) as r (listed)
    limit (select page_size(:'limit') + 1)
), '-name', page_size(:'limit'), :'form')

-- name: list_by_slug
-- By slug, after the one with `after_key` and `after_id`.
select
    page.next,
    page.body,
    history.place() as place
from page(array(
    select r.listed
    from (
        select listed(projects_json(r), r.slug, r.id::text, :'fields')
        from projects as r
        where (r.slug, r.id) > ((select :'after_key'), id_after(:'after_id'))
            and matches(r, :'id', :'name', :'slug', :'owner_id') -- filter
        order by r.slug
        limit 1001
    ) as r (listed)
    limit (select page_size(:'limit') + 1)
), 'slug', page_size(:'limit'), :'form')

-- name: list_by_slug_desc
-- By slug, from the last to the first.
select
    page.next,
    page.body,
    history.place() as place
from page(array(
    select r.listed
    from (
        select listed(projects_json(r), r.slug, r.id::text, :'fields')
        from projects as r
        where (r.slug, r.id) < ((select case :'after_id' when '' then (select max(last.slug) from projects as last) else :'after_key' end), id_before(:'after_id'))
            and matches(r, :'id', :'name', :'slug', :'owner_id') -- filter
        order by r.slug desc
        limit 1001
    ) as r (listed)
    limit (select page_size(:'limit') + 1)
), '-slug', page_size(:'limit'), :'form')

-- name: list_by_created_at
-- By created_at, after the one with `after_key` and `after_id`.
select
    page.next,
    page.body,
    history.place() as place
from page(array(
    select r.listed
    from (
        select listed(projects_json(r), iso8601(r.created_at), r.id::text, :'fields')
        from projects as r
        where (r.created_at, r.id) > ((select coalesce(nullif(:'after_key', '')::timestamptz, '-infinity')), id_after(:'after_id'))
            and matches(r, :'id', :'name', :'slug', :'owner_id') -- filter
        order by r.created_at, r.id
        limit 1001
    ) as r (listed)
    limit (select page_size(:'limit') + 1)
), 'created_at', page_size(:'limit'), :'form')

-- name: list_by_created_at_desc
-- By created_at, from the last to the first.
select
    page.next,
    page.body,
    history.place() as place
from page(array(
    select r.listed
    from (
        select listed(projects_json(r), iso8601(r.created_at), r.id::text, :'fields')
        from projects as r
        where (r.created_at, r.id) < ((select coalesce(nullif(:'after_key', '')::timestamptz, 'infinity')), id_before(:'after_id'))
            and matches(r, :'id', :'name', :'slug', :'owner_id') -- filter
        order by r.created_at desc, r.id desc
        limit 1001
    ) as r (listed)
    limit (select page_size(:'limit') + 1)
), '-created_at', page_size(:'limit'), :'form')

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
select
    part.line,
    case when step.n = 1 then history.place() end as place
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

-- name: diff
-- What is otherwise in a project at `until` (now, if not given) than at `since`, as one JSON document in many rows, an object a row.
-- Where that is the later moment, what going back from it to the other changes.
with asked as (
    select
        history.reached(least(:'since'::timestamptz, nullif(:'until', '')::timestamptz)) as earlier,
        greatest(:'since'::timestamptz, coalesce(nullif(:'until', '')::timestamptz, 'infinity')) as later
),

emptied as materialized (
    select
        t.obj_type,
        history.emptied_by(t.obj_type, a.earlier, a.later) as actors,
        coalesce(history.last_emptied(t.obj_type, a.earlier), '-infinity') as before_earlier,
        coalesce(history.last_emptied(t.obj_type, a.later), '-infinity') as before_later
    from history.tracked as t
    cross join asked as a
),

changed as materialized (
    select
        e.obj_type,
        e.obj_id,
        (array_agg(e.old_obj order by e.operation_date, e.id))[1] as first,
        (array_agg(e.new_obj order by e.operation_date desc, e.id desc))[1] as last,
        max(e.version) as version,
        array_agg(distinct e.actor) as actors
    from history.entries as e
    where e.project = :'id'::bigint
        and e.operation_date > (select a.earlier from asked as a)
        and e.operation_date <= (select a.later from asked as a)
        and e.obj_id is not null
        and e.obj_type not in (select m.obj_type from emptied as m where m.actors is not null)
    group by e.obj_type, e.obj_id
    union all
    -- A truncate tells of no object: of a kind that it took, what was known of each at either moment.
    select
        k.obj_type,
        k.obj_id,
        case when k.first_at > m.before_earlier then k.first_known end,
        case when k.last_at > m.before_later then k.last_known end,
        k.version,
        m.actors
    from (
        select
            e.obj_type,
            e.obj_id,
            (array_agg(e.new_obj order by e.operation_date desc, e.id desc) filter (where e.operation_date <= a.earlier))[1] as first_known,
            max(e.operation_date) filter (where e.operation_date <= a.earlier) as first_at,
            (array_agg(e.new_obj order by e.operation_date desc, e.id desc))[1] as last_known,
            max(e.operation_date) as last_at,
            max(e.version) as version
        from history.entries as e
        cross join asked as a
        where e.project = :'id'::bigint
            and e.operation_date <= a.later
            and e.obj_id is not null
            and e.obj_type in (select m.obj_type from emptied as m where m.actors is not null)
        group by e.obj_type, e.obj_id
    ) as k
    join emptied as m on m.obj_type = k.obj_type
),

turned as (
    select
        c.obj_type,
        c.obj_id,
        c.version,
        c.actors,
        case when nullif(:'until', '')::timestamptz < :'since'::timestamptz then c.last else c.first end as before,
        case when nullif(:'until', '')::timestamptz < :'since'::timestamptz then c.first else c.last end as after
    from changed as c
),

differing as (
    select
        row_number() over (order by c.obj_type, c.obj_id::jsonb) as place,
        json_build_object(
            'obj_type', c.obj_type,
            'obj_id', c.obj_id::json,
            'action', case when c.before is null then 'create' when c.after is null then 'delete' else 'update' end,
            'version', c.version,
            'actors', c.actors,
            'diff', history.diff(c.before, c.after)
        )::text as item
    from turned as c
    where history.diff(c.before, c.after) <> '{}'
)

select part.line
from (
    select 0, '{"changes":['
    where exists (select from projects as p where p.id = :'id'::bigint)
        or exists (select from history.entries as e where e.project = :'id'::bigint)
    union all
    select d.place, case when d.place > 1 then ',' else '' end || d.item from differing as d
    union all
    select 9223372036854775807, ']}'
    where exists (select from projects as p where p.id = :'id'::bigint)
        or exists (select from history.entries as e where e.project = :'id'::bigint)
) as part (place, line)
order by part.place
