-- Feed: what is behind /ws/events. Its reader remembers a snapshot and asks for what is visible now and was not then: the numbers of
-- entries do not tell, because a transaction may commit after others that began later.

-- name: changes
-- What became visible after one snapshot, until another (now, if not given), behind an entry of it if one is given, with the snapshot that
-- it was read in. One row without an entry where there is nothing. In the order of their ids, which is that of each object.
select
    present.snapshot::text as snapshot,
    e.id,
    e.project,
    e.obj_type,
    e.obj_id,
    e.emptied,
    e.of_projects,
    e.frame
from (select pg_current_snapshot()) as present (snapshot)
left join lateral (
    select
        e.id,
        e.project,
        e.obj_type,
        e.obj_id,
        e.action = 'truncate' as emptied,
        -- The rows that are gone were of any project.
        e.action = 'truncate' and exists (
            select from history.tracked as t where t.obj_type = e.obj_type and t.project is not null
        ) as of_projects,
        history.frame(e)::text as frame
    from history.entries as e
    where e.xid >= pg_snapshot_xmin(:'since'::pg_snapshot)
        and not pg_visible_in_snapshot(e.xid, :'since'::pg_snapshot)
        and (:'until' = '' or pg_visible_in_snapshot(e.xid, nullif(:'until', '')::pg_snapshot))
        and e.id > coalesce(nullif(:'after', '')::bigint, 0)
    order by e.id
) as e on true
order by e.id

-- name: present
-- Where the feed is now.
select
    h.feed,
    pg_current_snapshot()::text as snapshot
from history.horizon as h

-- name: lost
-- Why nothing can be resumed from this snapshot; null where it can. No row: it is of another feed.
select
    case
        when pg_snapshot_xmax(:'since'::pg_snapshot) > pg_snapshot_xmax(pg_current_snapshot()) then 'The cursor is ahead of this database.'
        when h.pruned >= pg_snapshot_xmin(:'since'::pg_snapshot) then 'History no longer reaches back to the cursor.'
    end as reason
from history.horizon as h
where h.feed = :'feed'
