-- Operations: /operations. A row is written by who carries the operation out, on a connection of its own that holds its lock.

-- name: get
-- One operation by id, if it is of these kinds.
select operations_json(o) as body
from operations as o
where o.id = :'id'::bigint
    and o.kind = any(string_to_array(:'kinds', ','))

-- name: list
-- A page of operations of these kinds after the cursor.
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
            pick(operations_json(r), :'fields')::text as item,
            '' as key,
            r.id::text as id
        from operations as r
        where strpos(:'kinds', r.kind) > 0 -- no more is known of it, so that the walk stays one by id
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

-- name: cancel
-- The wish that an operation is broken off. No row: it has ended.
update operations as o
set canceled = true
where o.id = :'id'::bigint
    and o.kind = any(string_to_array(:'kinds', ','))
    and o.state = 'running'
    and not operation_died(o)
returning o.id
