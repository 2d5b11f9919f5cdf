!none: -- $Noun: /$under/{id}/${noun}, /${noun}/{id}.
none: -- $Noun: /${noun}, /${noun}/{id}.

-- name: get
-- One $one. No row: there is none.
select
    r.version,
    pick(${noun}_json(r), :'fields') as body
from ${noun} as r
where r.id = :'id'::bigint

-- name: as_of
-- One $one as it was: in a version, or at a time. No row: there was none.
select
    r.version,
    pick(${noun}_json(r), :'fields') as body
from history.as_of('${noun}', :'id'::bigint::text, :'as_of', (select to_jsonb(r) from ${noun} as r where r.id = :'id'::bigint)) as past (object)
cross join jsonb_populate_record(null::${noun}, past.object) as r

-- name: list
!none: -- A page of ${noun} by id, after the one with `after_id`. `parent` is null where there is none to have any.
none: -- A page of ${noun} by id, after the one with `after_id`.
select
    page.next,
    page.body,
!none:     (select true from $under as p where p.id = :'$parent'::bigint) as parent,
    history.place() as place
from page(array(
    select r.listed
    from (
        select listed(${noun}_json(r), '', r.id::text, :'fields')
        from ${noun} as r
!none:         where r.$parent = :'$parent'::bigint
!none:             and (r.$parent, r.id) > ((select :'$parent'::bigint), id_after(:'after_id'))
none:         where r.id > (select id_after(:'after_id'))
            and (:'id' = '' or r.id = nullif(:'id', '')::bigint) -- filter
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
!none:     (select true from $under as p where p.id = :'$parent'::bigint) as parent,
    history.place() as place
from page(array(
    select r.listed
    from (
        select listed(${noun}_json(r), '', r.id::text, :'fields')
        from ${noun} as r
!none:         where r.$parent = :'$parent'::bigint
!none:             and (r.$parent, r.id) < ((select :'$parent'::bigint), id_before(:'after_id'))
none:         where r.id < (select id_before(:'after_id'))
            and (:'id' = '' or r.id = nullif(:'id', '')::bigint) -- filter
        order by r.id desc
        limit 1001
    ) as r (listed)
    limit (select page_size(:'limit') + 1)
), '-id', page_size(:'limit'), :'form')

-- name: create
projects: -- A new $one. No row: there is no such project.
projects: insert into ${noun} as r (project_id, $names)
userstories: -- A new $one of a story, in its project. No row: there is no such story.
userstories: insert into ${noun} as r (project_id, userstory_id, $names)
none: -- A new $one.
none: insert into ${noun} as r ($names)
select
userstories:     p.project_id,
!none:     p.id,
$new
from jsonb_populate_record(null::${noun}, :'body'::jsonb) as n
!none: join $under as p on p.id = :'$parent'::bigint
returning
    r.id,
    r.version,
    ${noun}_json(r) as body

-- name: change
-- The members given, saved over the version read (one of a comma-separated list, or * for any). No row: gone, or changed since.
-- With a `base` over any version: what the caller changed since then; an error where others changed the same.
update ${noun} as r
set ($names) = (
    select
$changed
    from jsonb_populate_record(
        r,
        case
            when :'base' in ('', r.version::text) then :'body'::jsonb
            else history.mine('${noun}', to_jsonb(r), nullif(:'base', '')::integer, :'body'::jsonb)
        end
    ) as n
)
where r.id = :'id'::bigint
    and (:'base' <> '' or :'versions' = '*' or r.version::text = any (string_to_array(:'versions', ',')))
returning
    r.version,
    ${noun}_json(r) as body

-- name: remove
-- $A_one gone, if it still is the version read. No row: gone already, or changed since.
delete from ${noun} as r
where r.id = :'id'::bigint
    and (:'versions' = '*' or r.version::text = any (string_to_array(:'versions', ',')))
returning
    r.version
