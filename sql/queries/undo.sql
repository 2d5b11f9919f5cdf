-- Undo: /undo, and /{noun}/{id}/revert of what was deleted. How it is done is in 18_undo.sql, in these steps of one transaction.

-- name: stage
-- A place for what is to be undone.
select history.stage_undo()

-- name: request
-- What was changed by the requests with this X-Request-Id; how many entries history has of them.
select history.undo_request(:'request_id') as entries

-- name: uploads
-- The rows that these requests uploaded.
select undo_uploads(:'request_id')

-- name: upload
-- The rows of an upload; false where there is none.
select undo_upload(:'upload_id'::bigint) as found

-- name: deleted
-- An object that was deleted: its key in history, and the version at which that was. No row: it never was.
select
    e.obj_id as key,
    e.version
from history.tracked as t
join history.entries as e on e.obj_type = t.obj_type
where t.relation = :'noun'::regclass
    and e.obj_id in (:'id', to_json(:'id'::text)::text)
    and e.action = 'delete'
order by e.operation_date desc, e.id desc
limit 1

-- name: delete
-- What was deleted, as it was in the version `to` but for the columns `kept`, with commas between, and with `children` what went with it;
-- false where history knows no such version.
select history.undo_delete(:'noun'::regclass, :'key', :'to'::integer, string_to_array(:'kept', ','), :'children'::boolean) as found

-- name: leave_foreign
-- But for tables that are not the service's own, of which what was changed is in the way.
select history.leave_foreign()

-- name: plan
-- What others did since, of all that is staged.
select
    p.conflicts,
    history.undo_conflicts(1000)::text as body
from history.plan_undo() as p (conflicts)

-- name: carry_out
-- All that nothing is in the way of, undone.
select
    c.objects,
    history.undone(1000)::text as body
from history.carry_out_undo() as c (objects)
