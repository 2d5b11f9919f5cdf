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
-- A page of audios by id, after the one with `after_id`.
select
    page.next,
    page.body,
    history.place() as place
from page(array(
    select r.listed
    from (
        select listed(audios_json(r), '', r.id::text, :'fields')
        from audios as r
        where r.id > (select id_after(:'after_id'))
            and matches(r, :'id', :'session_id') -- filter
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
        select listed(audios_json(r), '', r.id::text, :'fields')
        from audios as r
        where r.id < (select id_before(:'after_id'))
            and matches(r, :'id', :'session_id') -- filter
        order by r.id desc
        limit 1001
    ) as r (listed)
    limit (select page_size(:'limit') + 1)
), '-id', page_size(:'limit'), :'form')

-- name: list_by_session_id
-- By session_id, after the one with `after_key` and `after_id`.
select
    page.next,
    page.body,
    history.place() as place
from page(array(
    select r.listed
    from (
        select listed(audios_json(r), r.session_id::text, r.id::text, :'fields')
        from audios as r
        where (r.session_id, r.id) > ((select coalesce(nullif(:'after_key', '')::bigint, 0)), id_after(:'after_id'))
            and matches(r, :'id', :'session_id') -- filter
        order by r.session_id
        limit 1001
    ) as r (listed)
    limit (select page_size(:'limit') + 1)
), 'session_id', page_size(:'limit'), :'form')

-- name: list_by_session_id_desc
-- By session_id, from the last to the first.
select
    page.next,
    page.body,
    history.place() as place
from page(array(
    select r.listed
    from (
        select listed(audios_json(r), r.session_id::text, r.id::text, :'fields')
        from audios as r
        where (r.session_id, r.id) < ((select coalesce(nullif(:'after_key', '')::bigint, 9223372036854775807)), id_before(:'after_id'))
            and matches(r, :'id', :'session_id') -- filter
        order by r.session_id desc
        limit 1001
    ) as r (listed)
    limit (select page_size(:'limit') + 1)
), '-session_id', page_size(:'limit'), :'form')

-- name: list_by_created_at
-- By created_at, after the one with `after_key` and `after_id`.
select
    page.next,
    page.body,
    history.place() as place
from page(array(
    select r.listed
    from (
        select listed(audios_json(r), iso8601(r.created_at), r.id::text, :'fields')
        from audios as r
        where (r.created_at, r.id) > ((select coalesce(nullif(:'after_key', '')::timestamptz, '-infinity')), id_after(:'after_id'))
            and matches(r, :'id', :'session_id') -- filter
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
        select listed(audios_json(r), iso8601(r.created_at), r.id::text, :'fields')
        from audios as r
        where (r.created_at, r.id) < ((select coalesce(nullif(:'after_key', '')::timestamptz, 'infinity')), id_before(:'after_id'))
            and matches(r, :'id', :'session_id') -- filter
        order by r.created_at desc, r.id desc
        limit 1001
    ) as r (listed)
    limit (select page_size(:'limit') + 1)
), '-created_at', page_size(:'limit'), :'form')

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
