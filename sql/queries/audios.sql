-- Audios: /audios, /audios/search.

-- name: get
-- One audio. No row: there is none.
select
    r.version,
    pick(audios_json(r), :'fields') as body
from audios as r
where r.id = :'id'::bigint

-- name: as_of
-- One audio as it was: in a version, or at a time. No row: there was none.
select
    r.version,
    pick(audios_json(r), :'fields') as body
from history.as_of('audios', :'id'::bigint::text, :'as_of', (select to_jsonb(r) from audios as r where r.id = :'id'::bigint)) as past (object)
cross join jsonb_populate_record(null::audios, past.object) as r

-- name: list
-- A page of audios after the cursor, planned for the values at hand (see users.list).
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
            pick(audios_json(r), :'fields')::text as item,
            case ltrim(:'sort', '-')
                when 'session_id' then r.session_id::text
                when 'created_at' then iso8601(r.created_at)
                else ''
            end as key,
            r.id::text as id
        from audios as r
        where (:'id' = '' or r.id = nullif(:'id', '')::bigint)
            and (:'session_id' = '' or r.session_id = nullif(:'session_id', '')::bigint)
            and (
                :'cursor' = ''
                or case :'sort'
                    when 'session_id' then (r.session_id, r.id) > (cursor_part(:'cursor', 1)::bigint, cursor_part(:'cursor', 2)::bigint)
                    when '-session_id' then (r.session_id, r.id) < (cursor_part(:'cursor', 1)::bigint, cursor_part(:'cursor', 2)::bigint)
                    when 'created_at' then (r.created_at, r.id) > (cursor_part(:'cursor', 1)::timestamptz, cursor_part(:'cursor', 2)::bigint)
                    when '-created_at' then (r.created_at, r.id) < (cursor_part(:'cursor', 1)::timestamptz, cursor_part(:'cursor', 2)::bigint)
                    when '-id' then r.id < cursor_part(:'cursor', 2)::bigint
                    else r.id > cursor_part(:'cursor', 2)::bigint
                end
            )
        order by
            case :'sort' when 'session_id' then r.session_id end,
            case :'sort' when '-session_id' then r.session_id end desc,
            case :'sort' when 'created_at' then r.created_at end,
            case :'sort' when '-created_at' then r.created_at end desc,
            case when :'sort' like '-%' then r.id end desc,
            r.id
        limit coalesce(nullif(:'limit', '')::integer, 50) + 1
    ) as r
) as found
cross join page(found.items, found.keys, found.ids, :'sort', coalesce(nullif(:'limit', '')::integer, 50), :'form')

-- name: create
-- A new audio.
insert into audios as r (session_id, ticks, selected_tick, step_count)
select
    n.session_id,
    n.ticks,
    n.selected_tick,
    n.step_count
from jsonb_populate_record(null::audios, :'body'::jsonb) as n
returning
    r.id,
    r.version,
    audios_json(r) as body

-- name: change
-- The members given, saved over the version read (one of a comma-separated list, or * for any). No row: gone, or changed since.
-- With a `base` over any version: what the caller changed since then; an error where others changed the same.
update audios as r
set (session_id, ticks, selected_tick, step_count) = (
    select
        n.session_id,
        n.ticks,
        n.selected_tick,
        n.step_count
    from jsonb_populate_record(
        r,
        case
            when :'base' in ('', r.version::text) then :'body'::jsonb
            else history.mine('audios', to_jsonb(r), nullif(:'base', '')::integer, :'body'::jsonb)
        end
    ) as n
)
where r.id = :'id'::bigint
    and (:'base' <> '' or :'versions' = '*' or r.version::text = any (string_to_array(:'versions', ',')))
returning
    r.version,
    audios_json(r) as body

-- name: remove
-- An audio gone, if it still is the version read. No row: gone already, or changed since.
delete from audios as r
where r.id = :'id'::bigint
    and (:'versions' = '*' or r.version::text = any (string_to_array(:'versions', ',')))
returning
    r.version
