-- 81 Uploads: the historic CSV files that were moved in; each row that broke a rule, kept beside its table; and a file taken back.

-- One row a file: its SHA-256 says which, so that the same file again is the same upload.
create table if not exists uploads (
    id         bigint      not null generated always as identity,
    table_name text        not null,
    sha256     text        not null,
    rows       integer     not null,
    accepted   integer     not null,
    rejected   integer     not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint uploads_pkey primary key (id),
    constraint uploads_table_name_sha256_key unique (table_name, sha256),
    constraint uploads_table_name_check check (table_name in ('departments', 'jobs', 'employees')),
    constraint uploads_sha256_check check (sha256 ~ '^[0-9a-f]{64}$'),
    constraint uploads_rows_check check (rows = accepted + rejected and accepted >= 0 and rejected >= 0)
);

comment on table uploads is 'The files and batches that were moved in.';
comment on column uploads.id is 'Given by the database.';
comment on column uploads.table_name is 'The table it went into.';
comment on column uploads.sha256 is 'SHA-256 of the file''s bytes, unpacked, or of the batch''s rows, in hexadecimal.';
comment on column uploads.rows is 'How many data rows it has.';
comment on column uploads.accepted is 'How many of them are in the table.';
comment on column uploads.rejected is 'How many of them are among the errors.';
comment on column uploads.created_at is 'When it came first.';
comment on column uploads.updated_at is 'When it came last with another outcome.';
comment on constraint uploads_pkey on uploads is 'Another upload has this id.';
comment on constraint uploads_table_name_sha256_key on uploads is 'The table had this file already.';
comment on constraint uploads_table_name_check on uploads is 'Must be departments, jobs or employees.';
comment on constraint uploads_sha256_check on uploads is 'Must be a SHA-256 in hexadecimal.';
comment on constraint uploads_rows_check on uploads is 'Rows must be accepted or rejected, each of them.';

-- uploads.list of one table.
create index if not exists uploads_table_name_id_idx on uploads (table_name, id);

create or replace function uploads_json(r uploads) returns json
language sql stable parallel safe
return json_build_object(
    'id', r.id,
    'table', r.table_name,
    'sha256', r.sha256,
    'rows', r.rows,
    'accepted', r.accepted,
    'rejected', r.rejected,
    'errors', format('/errors/%s?upload_id=%s', r.table_name, r.id),
    'created_at', iso8601(r.created_at),
    'updated_at', iso8601(r.updated_at)
);

comment on function uploads_json(uploads) is 'An upload as the service answers it.';

create or replace function matches(r uploads, table_name text) returns boolean
language sql stable parallel safe
return matches.table_name = '' or r.table_name = matches.table_name;

comment on function matches(uploads, text) is 'Whether an upload fits all filters that are given.';

create table if not exists departments_errors (
    id          bigint      not null generated always as identity,
    upload_id   bigint      not null,
    line        integer     not null,
    column_name text,
    code        text        not null,
    detail      text        not null,
    raw         text        not null,
    logged_at   timestamptz not null default now(),
    row_id      integer,
    constraint departments_errors_pkey primary key (id),
    constraint departments_errors_upload_id_line_key unique (upload_id, line),
    constraint departments_errors_upload_id_fkey foreign key (upload_id) references uploads (id) on delete cascade,
    constraint departments_errors_line_check check (line > 0)
);

comment on table departments_errors is 'Rows of uploaded files that broke a rule of departments: one reject a line, by its first fault.';
comment on column departments_errors.id is 'Given by the database.';
comment on column departments_errors.upload_id is 'The upload it came with.';
comment on column departments_errors.line is 'The line of the file that the row began on, from 1.';
comment on column departments_errors.column_name is 'The column at fault; null where the row as a whole is.';
comment on column departments_errors.code is 'The rule, in a word: width, missing, not_integer, out_of_range, too_long, not_datetime, duplicate, taken, unknown, unreadable.';
comment on column departments_errors.detail is 'The rule, in a sentence.';
comment on column departments_errors.raw is 'The line as it came.';
comment on column departments_errors.logged_at is 'When it was logged.';
comment on column departments_errors.row_id is 'The id that the row has, by which a corrected file finds it; null where it has none.';
comment on constraint departments_errors_pkey on departments_errors is 'Another reject has this id.';
comment on constraint departments_errors_upload_id_line_key on departments_errors is 'The upload has a reject of this line already.';
comment on constraint departments_errors_upload_id_fkey on departments_errors is 'There is no such upload.';
comment on constraint departments_errors_line_check on departments_errors is 'Must be at least 1.';

-- departments.errors, one upload's rejects page by page.
create index if not exists departments_errors_upload_id_id_idx on departments_errors (upload_id, id);

-- departments.load, what a corrected file corrects.
create index if not exists departments_errors_row_id_idx on departments_errors (row_id);

create index if not exists departments_errors_line_idx on departments_errors (line);

-- departments.errors by code.
create index if not exists departments_errors_code_id_idx on departments_errors (code, id);

select define_type('departments_errors_item', $$
    id          bigint,
    upload_id   bigint,
    line        integer,
    column_name text,
    code        text,
    detail      text,
    raw         text,
    logged_at   text
$$);

comment on type departments_errors_item is 'The members of what the service answers for a row of departments_errors.';

create or replace function departments_errors_json(r departments_errors) returns json
language sql stable parallel safe
return to_json(
    row(
        r.id,
        r.upload_id,
        r.line,
        r.column_name,
        r.code,
        r.detail,
        r.raw,
        iso8601(r.logged_at)
    )::departments_errors_item
);

comment on function departments_errors_json(departments_errors) is 'A reject of departments as the service answers it.';

create or replace function matches(r departments_errors, upload_id text, code text) returns boolean
language sql stable parallel safe
return (matches.upload_id = '' or r.upload_id = nullif(matches.upload_id, '')::bigint)
    and (matches.code = '' or r.code = matches.code);

comment on function matches(departments_errors, text, text) is 'Whether a reject of departments fits all filters that are given.';

create table if not exists jobs_errors (
    id          bigint      not null generated always as identity,
    upload_id   bigint      not null,
    line        integer     not null,
    column_name text,
    code        text        not null,
    detail      text        not null,
    raw         text        not null,
    logged_at   timestamptz not null default now(),
    row_id      integer,
    constraint jobs_errors_pkey primary key (id),
    constraint jobs_errors_upload_id_line_key unique (upload_id, line),
    constraint jobs_errors_upload_id_fkey foreign key (upload_id) references uploads (id) on delete cascade,
    constraint jobs_errors_line_check check (line > 0)
);

comment on table jobs_errors is 'Rows of uploaded files that broke a rule of jobs: one reject a line, by its first fault.';
comment on column jobs_errors.id is 'Given by the database.';
comment on column jobs_errors.upload_id is 'The upload it came with.';
comment on column jobs_errors.line is 'The line of the file that the row began on, from 1.';
comment on column jobs_errors.column_name is 'The column at fault; null where the row as a whole is.';
comment on column jobs_errors.code is 'The rule, in a word: width, missing, not_integer, out_of_range, too_long, not_datetime, duplicate, taken, unknown, unreadable.';
comment on column jobs_errors.detail is 'The rule, in a sentence.';
comment on column jobs_errors.raw is 'The line as it came.';
comment on column jobs_errors.logged_at is 'When it was logged.';
comment on column jobs_errors.row_id is 'The id that the row has, by which a corrected file finds it; null where it has none.';
comment on constraint jobs_errors_pkey on jobs_errors is 'Another reject has this id.';
comment on constraint jobs_errors_upload_id_line_key on jobs_errors is 'The upload has a reject of this line already.';
comment on constraint jobs_errors_upload_id_fkey on jobs_errors is 'There is no such upload.';
comment on constraint jobs_errors_line_check on jobs_errors is 'Must be at least 1.';

-- jobs.errors, one upload's rejects page by page.
create index if not exists jobs_errors_upload_id_id_idx on jobs_errors (upload_id, id);

-- jobs.load, what a corrected file corrects.
create index if not exists jobs_errors_row_id_idx on jobs_errors (row_id);

create index if not exists jobs_errors_line_idx on jobs_errors (line);

-- jobs.errors by code.
create index if not exists jobs_errors_code_id_idx on jobs_errors (code, id);

select define_type('jobs_errors_item', $$
    id          bigint,
    upload_id   bigint,
    line        integer,
    column_name text,
    code        text,
    detail      text,
    raw         text,
    logged_at   text
$$);

comment on type jobs_errors_item is 'The members of what the service answers for a row of jobs_errors.';

create or replace function jobs_errors_json(r jobs_errors) returns json
language sql stable parallel safe
return to_json(
    row(
        r.id,
        r.upload_id,
        r.line,
        r.column_name,
        r.code,
        r.detail,
        r.raw,
        iso8601(r.logged_at)
    )::jobs_errors_item
);

comment on function jobs_errors_json(jobs_errors) is 'A reject of jobs as the service answers it.';

create or replace function matches(r jobs_errors, upload_id text, code text) returns boolean
language sql stable parallel safe
return (matches.upload_id = '' or r.upload_id = nullif(matches.upload_id, '')::bigint)
    and (matches.code = '' or r.code = matches.code);

comment on function matches(jobs_errors, text, text) is 'Whether a reject of jobs fits all filters that are given.';

create table if not exists employees_errors (
    id          bigint      not null generated always as identity,
    upload_id   bigint      not null,
    line        integer     not null,
    column_name text,
    code        text        not null,
    detail      text        not null,
    raw         text        not null,
    logged_at   timestamptz not null default now(),
    row_id      integer,
    constraint employees_errors_pkey primary key (id),
    constraint employees_errors_upload_id_line_key unique (upload_id, line),
    constraint employees_errors_upload_id_fkey foreign key (upload_id) references uploads (id) on delete cascade,
    constraint employees_errors_line_check check (line > 0)
);

comment on table employees_errors is 'Rows of uploaded files that broke a rule of employees: one reject a line, by its first fault.';
comment on column employees_errors.id is 'Given by the database.';
comment on column employees_errors.upload_id is 'The upload it came with.';
comment on column employees_errors.line is 'The line of the file that the row began on, from 1.';
comment on column employees_errors.column_name is 'The column at fault; null where the row as a whole is.';
comment on column employees_errors.code is 'The rule, in a word: width, missing, not_integer, out_of_range, too_long, not_datetime, duplicate, taken, unknown, unreadable.';
comment on column employees_errors.detail is 'The rule, in a sentence.';
comment on column employees_errors.raw is 'The line as it came.';
comment on column employees_errors.logged_at is 'When it was logged.';
comment on column employees_errors.row_id is 'The id that the row has, by which a corrected file finds it; null where it has none.';
comment on constraint employees_errors_pkey on employees_errors is 'Another reject has this id.';
comment on constraint employees_errors_upload_id_line_key on employees_errors is 'The upload has a reject of this line already.';
comment on constraint employees_errors_upload_id_fkey on employees_errors is 'There is no such upload.';
comment on constraint employees_errors_line_check on employees_errors is 'Must be at least 1.';

-- employees.errors, one upload's rejects page by page.
create index if not exists employees_errors_upload_id_id_idx on employees_errors (upload_id, id);

-- employees.load, what a corrected file corrects.
create index if not exists employees_errors_row_id_idx on employees_errors (row_id);

create index if not exists employees_errors_line_idx on employees_errors (line);

-- employees.errors by code.
create index if not exists employees_errors_code_id_idx on employees_errors (code, id);

select define_type('employees_errors_item', $$
    id          bigint,
    upload_id   bigint,
    line        integer,
    column_name text,
    code        text,
    detail      text,
    raw         text,
    logged_at   text
$$);

comment on type employees_errors_item is 'The members of what the service answers for a row of employees_errors.';

create or replace function employees_errors_json(r employees_errors) returns json
language sql stable parallel safe
return to_json(
    row(
        r.id,
        r.upload_id,
        r.line,
        r.column_name,
        r.code,
        r.detail,
        r.raw,
        iso8601(r.logged_at)
    )::employees_errors_item
);

comment on function employees_errors_json(employees_errors) is 'A reject of employees as the service answers it.';

create or replace function matches(r employees_errors, upload_id text, code text) returns boolean
language sql stable parallel safe
return (matches.upload_id = '' or r.upload_id = nullif(matches.upload_id, '')::bigint)
    and (matches.code = '' or r.code = matches.code);

comment on function matches(employees_errors, text, text) is 'Whether a reject of employees fits all filters that are given.';


-- Undoing an upload ---------------------------------------------------------------------------------------------------

-- An upload only adds rows. How each was is known from its first change since then, if there was any.
create or replace function undo_upload(upload bigint, after timestamptz default '-infinity', until timestamptz default 'infinity') returns boolean
language plpgsql
as $$
declare
    loaded record;
begin
    select t.relation, t.obj_type, coalesce(max(e.id), 0) as place
    into loaded
    from uploads as u
    join history.tracked as t on t.relation = u.table_name::regclass
    left join history.entries as e on e.obj_type = t.obj_type and e.obj_id is null and e.new_obj ->> 'load' = 'upload of ' || u.sha256
    where u.id = upload
    group by t.relation, t.obj_type;
    if not found then
        return false;
    end if;
    execute format(
        $sql$
            insert into pg_temp.undoing (relation, obj_type, obj_id, place, after)
            select
                $1,
                $2,
                r.id::text,
                $3,
                coalesce(
                    (
                        select e.old_obj
                        from history.entries as e
                        where e.obj_type = $2
                            and e.obj_id = r.id::text
                            and e.operation_date > r.created_at
                        order by e.operation_date, e.id
                        limit 1
                    ),
                    history.row_json(r)
                )
            from %s as r
            where r.upload_id = $4
                and r.created_at > $5
                and r.created_at <= $6
            on conflict do nothing
        $sql$,
        loaded.relation
    ) using loaded.relation, loaded.obj_type, loaded.place, upload, after, until;
    return true;
end
$$;

comment on function undo_upload(bigint, timestamptz, timestamptz) is
    'Stage that the rows of an upload are taken away (18_undo.sql): all, or those that it added after one moment and until another; false where there is no such upload.';

create or replace function undo_uploads(request text) returns void
language plpgsql
as $$
declare
    load record;
begin
    for load in
        select
            u.id,
            e.operation_date as until,
            coalesce(
                (
                    select max(b.operation_date)
                    from history.entries as b
                    where b.obj_type = e.obj_type
                        and b.obj_id is null
                        and b.new_obj ->> 'load' = e.new_obj ->> 'load'
                        and b.operation_date < e.operation_date
                ),
                '-infinity'
            ) as after
        from history.entries as e
        join history.tracked as t on t.obj_type = e.obj_type
        join uploads as u on u.table_name = t.relation::text and e.new_obj ->> 'load' = 'upload of ' || u.sha256
        where e.request_id = request
            and e.obj_id is null
    loop
        perform undo_upload(load.id, load.after, load.until);
    end loop;
end
$$;

comment on function undo_uploads(text) is 'Stage that the rows which the requests with this X-Request-Id uploaded are taken away.';
