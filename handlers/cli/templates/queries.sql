-- $Noun: /projects/{id}/${noun}, /${noun}/{id}.

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
-- A page of ${noun} after the cursor, planned for the values at hand (see users.list).
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
            pick(${noun}_json(r), :'fields')::text as item,
            '' as key,
            r.id::text as id
        from ${noun} as r
        where r.project_id = :'project_id'::bigint
            and (:'id' = '' or r.id = nullif(:'id', '')::bigint)
            and (
                :'cursor' = ''
                or case :'sort'
                    when '-id' then r.id < cursor_part(:'cursor', 2)::bigint
                    else r.id > cursor_part(:'cursor', 2)::bigint
                end
            )
        order by
            case when :'sort' like '-%' then r.id end desc,
            r.id
        limit coalesce(nullif(:'limit', '')::integer, 50) + 1
    ) as r
) as found
cross join page(found.items, found.keys, found.ids, :'sort', coalesce(nullif(:'limit', '')::integer, 50), :'form')

-- name: create
-- A new $one. No row: there is no such project.
insert into ${noun} as r (project_id, $names)
select
    p.id,
$new
from jsonb_populate_record(null::${noun}, :'body'::jsonb) as n
join projects as p on p.id = :'project_id'::bigint
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
