-- Seals: flask history seal and verify, and what the notifier does each hour.

-- name: make
-- Seal what is new in history; its root. Null where only what is due was to be done, and nothing is.
select encode(history.seal(:'only_if_due'::boolean), 'hex') as root

-- name: last
-- The last seal, and how many there are and of how many entries. No row: there is none.
select
    s.id,
    iso8601(s.sealed_at) as sealed_at,
    s.entries,
    encode(s.root, 'hex') as root,
    (select sum(a.entries) from history.seals as a)::bigint as in_all
from history.seals as s
order by s.id desc
limit 1

-- name: of_root
-- The seal that has this root. No row: none has.
select
    s.id,
    iso8601(s.sealed_at) as sealed_at
from history.seals as s
where encode(s.root, 'hex') = lower(:'root')

-- name: verify
-- What is not as it was sealed, the first first.
select
    f.finding,
    iso8601(f.sealed_at) as sealed_at,
    f.seal,
    f.entry,
    f.obj_type,
    f.obj_id,
    iso8601(f.operation_date) as operation_date,
    f.entries
from history.verify(:'roots'::text[]) as f
