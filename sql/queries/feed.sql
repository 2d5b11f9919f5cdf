-- Feed: what is behind /ws/events. Its reader remembers a snapshot and asks for what is visible now and was not then: the numbers of
-- entries do not tell, because a transaction may commit after others that began later.

-- name: changes
-- What became visible after one snapshot, until another, behind an entry of it if one is given. Nothing of it is dated before what
-- feed.present says of the first snapshot, asked no sooner than the other was taken. In the order of their ids, which is that of each object.
-- Only what may be wanted: a truncate and a load are of all objects of their kind, and of any project.
select
    e.id,
    e.project,
    e.obj_type,
    e.obj_id,
    e.obj_id is null as of_all,
    -- Its rows are of any project.
    e.obj_id is null and exists (
        select from history.tracked as t where t.obj_type = e.obj_type and t.project is not null
    ) as of_projects,
    history.frame(e)::text as frame
from history.entries as e
where e.operation_date >= :'dated_from'::timestamptz
    and e.xid >= pg_snapshot_xmin(:'since'::pg_snapshot)
    and not pg_visible_in_snapshot(e.xid, :'since'::pg_snapshot)
    and pg_visible_in_snapshot(e.xid, :'until'::pg_snapshot)
    and e.id > greatest(nullif(:'after', '')::bigint, (select h.from_id from history.horizon as h))
    and (:'project' = '' or e.project = nullif(:'project', '')::bigint or e.obj_id is null)
    and (:'obj_type' = '' or e.obj_type = any (string_to_array(:'obj_type', ',')))
    and (:'obj_id' = '' or e.obj_id in (:'obj_id', to_json(:'obj_id'::text)::text) or e.obj_id is null)
order by e.id

-- name: present
-- Where the feed is now, and the earliest date of what became visible since a snapshot: what is late may have any (16_feed.sql). On a
-- standby there is no feed.
select
    history.feed() as feed,
    history.snapshot()::text as snapshot,
    coalesce(
        case
            when not exists (
                select
                from history.late_entries as l
                where l.xid >= pg_snapshot_xmin(s.since)
                    and not pg_visible_in_snapshot(l.xid, s.since)
            ) then (
                select c.before
                from history.closings as c
                where pg_visible_in_snapshot(c.xid, s.since)
                order by c.before desc
                limit 1
            )
        end,
        '-infinity'
    )::text as dated_from
from (select nullif(:'since', '')::pg_snapshot) as s (since)

-- name: lost
-- Where the feed is, and why nothing can be resumed from this snapshot of it; null where it can.
select
    history.feed() as feed,
    case
        when pg_snapshot_xmax(:'since'::pg_snapshot) > pg_snapshot_xmax(pg_current_snapshot()) then 'The cursor is ahead of this database.'
        when h.pruned >= pg_snapshot_xmin(:'since'::pg_snapshot) then 'History no longer reaches back to the cursor.'
    end as reason
from history.horizon as h
