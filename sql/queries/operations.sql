-- Operations: /operations. A row is written by who carries the operation out, on a connection of its own that holds its lock.

-- name: get
-- One operation by id, if it is of these kinds.
select operations_json(o) as body
from operations as o
where o.id = :'id'::bigint
    and o.kind = any(string_to_array(:'kinds', ','))

-- name: list
-- A page of operations of these kinds, after the one with `after_id`.
select
    page.next,
    page.body,
    history.place() as place
from page(array(
    select r.listed
    from (
        select listed(operations_json(r), '', r.id::text, :'fields')
        from operations as r
        where r.id > (select id_after(:'after_id'))
            and strpos(:'kinds', r.kind) > 0 -- no more is known of it, so that the walk stays one by id
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
        select listed(operations_json(r), '', r.id::text, :'fields')
        from operations as r
        where r.id < (select id_before(:'after_id'))
            and strpos(:'kinds', r.kind) > 0 -- no more is known of it, so that the walk stays one by id
        order by r.id desc
        limit 1001
    ) as r (listed)
    limit (select page_size(:'limit') + 1)
), '-id', page_size(:'limit'), :'form')

-- name: begin
-- A new operation; whoever gets its id takes its lock at once.
insert into operations as o (kind, table_name, actor, request_id)
values (:'kind', :'table', :'actor', :'request_id')
returning o.id

-- name: hold
-- The lock of an operation, ours until this connection ends.
select pg_advisory_lock(operation_lock(:'id'::bigint)) as held

-- name: progress
-- How far an operation is; tells whether somebody wants it to be broken off.
update operations as o
set rows_done = :'done'::bigint,
    rows_total = nullif(:'total', '')::bigint
where o.id = :'id'::bigint
returning o.canceled

-- name: finish
-- What came of an operation.
update operations as o
set state = :'state',
    status = nullif(:'status', '')::integer,
    location = nullif(:'location', ''),
    result = nullif(:'result', '')::json,
    rows_done = :'done'::bigint,
    rows_total = nullif(:'total', '')::bigint,
    finished_at = now()
where o.id = :'id'::bigint

-- name: end
-- What an operation did is about to be kept. No row: somebody wanted it to be broken off before.
update operations as o
set ending = true
where o.id = :'id'::bigint
    and not o.canceled
returning o.id

-- name: cancel
-- The wish that an operation is broken off, which it is from then on. No row: it has ended, or is about to.
update operations as o
set canceled = true
where o.id = :'id'::bigint
    and o.kind = any(string_to_array(:'kinds', ','))
    and not o.ending
    and o.state = 'running'
    and not operation_died(o)
returning o.id
