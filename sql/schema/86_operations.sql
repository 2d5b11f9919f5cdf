-- 86 Operations: long work that a client does not wait for, how far it is and what came of it.

-- Whoever carries an operation out holds an advisory lock as long as its connection lives: one that is running and not held has died.
create table if not exists operations (
    id          bigint      not null generated always as identity,
    kind        text        not null,
    table_name  text        not null,
    state       text        not null default 'running',
    rows_done   bigint      not null default 0,
    rows_total  bigint,
    canceled    boolean     not null default false,
    status      integer,
    location    text,
    result      json,
    actor       text        not null,
    request_id  text,
    created_at  timestamptz not null default now(),
    finished_at timestamptz,
    ending      boolean     not null default false,
    constraint operations_pkey primary key (id),
    constraint operations_kind_check check (kind in ('upload', 'backup', 'restore', 'delete', 'undo')),
    constraint operations_state_check check (state in ('running', 'succeeded', 'failed', 'canceled')),
    constraint operations_finished_check check ((state = 'running') = (finished_at is null))
);

comment on table operations is 'Uploads, backups, restores, deletes and undos that were asked for with Prefer: respond-async.';
comment on column operations.id is 'Given by the database.';
comment on column operations.kind is 'What is done: upload, backup, restore, delete or undo.';
comment on column operations.table_name is 'To which table or kind of object, or all.';
comment on column operations.state is 'running, succeeded, failed or canceled; running without its lock is failed, too.';
comment on column operations.rows_done is 'Rows read or written so far.';
comment on column operations.rows_total is 'Of how many; null while that is not known.';
comment on column operations.canceled is 'Whether somebody asked for it to be broken off.';
comment on column operations.status is 'The HTTP status that would have answered.';
comment on column operations.location is 'Where what it made is.';
comment on column operations.result is 'The body that would have answered, a problem if it failed.';
comment on column operations.actor is 'Who asked for it.';
comment on column operations.request_id is 'In which request.';
comment on column operations.created_at is 'When it began.';
comment on column operations.finished_at is 'When it ended.';
comment on column operations.ending is 'Whether it is too late to break it off: what it did is about to be kept.';
comment on constraint operations_pkey on operations is 'Another operation has this id.';
comment on constraint operations_kind_check on operations is 'Must be upload, backup, restore, delete or undo.';
comment on constraint operations_state_check on operations is 'Must be running, succeeded, failed or canceled.';
comment on constraint operations_finished_check on operations is 'Must be finished unless it is running, and only then.';

create or replace function operation_lock(id bigint) returns bigint
language sql immutable parallel safe
return hashtextextended('operation ' || id, 0);

comment on function operation_lock(bigint) is 'The key of the advisory lock that is held while an operation is carried out.';

create or replace function operation_died(o operations) returns boolean
language sql volatile
return case when o.state = 'running' then pg_try_advisory_xact_lock_shared(operation_lock(o.id)) else false end;

comment on function operation_died(operations) is 'Whether an operation ended without a word: it is running, and nobody holds its lock.';

create or replace function operations_json(o operations) returns json
language sql volatile
return (
    select json_build_object(
        'id', o.id,
        'kind', o.kind,
        'table', o.table_name,
        'state', case when d.died then 'failed' else o.state end,
        'rows_done', o.rows_done,
        'rows_total', o.rows_total,
        'status', case when d.died then 500 else o.status end,
        'location', o.location,
        'result', case
            when d.died then json_build_object(
                'type', '/problems/operation-died',
                'title', 'Died',
                'status', 500,
                'detail', 'The process that carried this out has died, and all of it was taken back. Ask for it again, with another Idempotency-Key if it had one.',
                'request_id', o.request_id
            )
            else o.result
        end,
        'actor', o.actor,
        'request_id', o.request_id,
        'created_at', iso8601(o.created_at),
        'finished_at', iso8601(o.finished_at)
    )
    from (select operation_died(o) as died) as d
);

comment on function operations_json(operations) is 'An operation as the service answers it.';
