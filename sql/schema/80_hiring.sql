-- 80 Hiring: departments, jobs and the employees hired into them, moved in from historic CSV files; what broke a rule is kept beside.

-- The ids come from the data: 32 bits, positive. version and times as everywhere, so that rows can be changed safely later.
create table if not exists departments (
    id         integer     not null,
    version    integer     not null default 1,
    department text        not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    upload_id  bigint,
    line       integer,
    constraint departments_pkey primary key (id),
    constraint departments_id_check check (id > 0),
    constraint departments_department_check check (char_length(department) <= 1000 and says_something(department))
);

comment on table departments is 'Where people are hired into.';
comment on column departments.id is 'From the data.';
comment on column departments.version is 'Counts the saves that changed something; 1 when created.';
comment on column departments.department is 'Its name.';
comment on column departments.created_at is 'When the row was inserted.';
comment on column departments.updated_at is 'When this version was saved.';
comment on column departments.upload_id is 'The upload it came with; null where it came as a request. No foreign key, which would be checked row by row.';
comment on column departments.line is 'The line of that file, from 1; of a batch, its place among the rows of the table.';
comment on constraint departments_pkey on departments is 'Another department has this id.';
comment on constraint departments_id_check on departments is 'Must be 1 to 2147483647.';
comment on constraint departments_department_check on departments is 'Must not be blank.';

create table if not exists jobs (
    id         integer     not null,
    version    integer     not null default 1,
    job        text        not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    upload_id  bigint,
    line       integer,
    constraint jobs_pkey primary key (id),
    constraint jobs_id_check check (id > 0),
    constraint jobs_job_check check (char_length(job) <= 1000 and says_something(job))
);

comment on table jobs is 'What people are hired as.';
comment on column jobs.id is 'From the data.';
comment on column jobs.version is 'Counts the saves that changed something; 1 when created.';
comment on column jobs.job is 'Its name.';
comment on column jobs.created_at is 'When the row was inserted.';
comment on column jobs.updated_at is 'When this version was saved.';
comment on column jobs.upload_id is 'The upload it came with; null where it came as a request. No foreign key, which would be checked row by row.';
comment on column jobs.line is 'The line of that file, from 1; of a batch, its place among the rows of the table.';
comment on constraint jobs_pkey on jobs is 'Another job has this id.';
comment on constraint jobs_id_check on jobs is 'Must be 1 to 2147483647.';
comment on constraint jobs_job_check on jobs is 'Must not be blank.';

-- "restrict", because history must not vanish with a department: it answers 409 while people are in it.
create table if not exists employees (
    id            integer     not null,
    version       integer     not null default 1,
    name          text        not null,
    datetime      timestamptz not null,
    department_id integer     not null,
    job_id        integer     not null,
    created_at    timestamptz not null default now(),
    updated_at    timestamptz not null default now(),
    upload_id     bigint,
    line          integer,
    constraint employees_pkey primary key (id),
    constraint employees_department_id_fkey foreign key (department_id) references departments (id) on delete restrict,
    constraint employees_job_id_fkey foreign key (job_id) references jobs (id) on delete restrict,
    constraint employees_id_check check (id > 0),
    constraint employees_name_check check (char_length(name) <= 1000 and says_something(name)),
    constraint employees_datetime_check check (datetime >= '0001-01-01T00:00:00Z' and datetime < '10000-01-01T00:00:00Z')
);

comment on table employees is 'Who was hired, when, into which department, as what.';
comment on column employees.id is 'From the data.';
comment on column employees.version is 'Counts the saves that changed something; 1 when created.';
comment on column employees.name is 'First and last name.';
comment on column employees.datetime is 'When they were hired.';
comment on column employees.department_id is 'The department they were hired into.';
comment on column employees.job_id is 'What they were hired as.';
comment on column employees.created_at is 'When the row was inserted.';
comment on column employees.updated_at is 'When this version was saved.';
comment on column employees.upload_id is 'The upload it came with; null where it came as a request. No foreign key, which would be checked row by row.';
comment on column employees.line is 'The line of that file, from 1; of a batch, its place among the rows of the table.';
comment on constraint employees_pkey on employees is 'Another employee has this id.';
comment on constraint employees_department_id_fkey on employees is 'The department is unknown, or still has employees.';
comment on constraint employees_job_id_fkey on employees is 'The job is unknown, or still has employees.';
comment on constraint employees_id_check on employees is 'Must be 1 to 2147483647.';
comment on constraint employees_name_check on employees is 'Must not be blank.';
comment on constraint employees_datetime_check on employees is 'Must lie in the years 1 to 9999.';

-- ?sort=department and ?department=.
create index if not exists departments_department_id_idx on departments (department, id);

-- ?sort=job and ?job=.
create index if not exists jobs_job_id_idx on jobs (job, id);

-- ?department_id=, and the check when a department is deleted.
create index if not exists employees_department_id_id_idx on employees (department_id, id);

-- ?job_id=, and the check when a job is deleted.
create index if not exists employees_job_id_id_idx on employees (job_id, id);

-- reports.quarter and reports.media read one year; ?sort=datetime walks it.
create index if not exists employees_datetime_id_idx on employees (datetime, id);

-- ?sort=name and ?name=.
create index if not exists employees_name_id_idx on employees (name, id);

create or replace trigger departments_10_count_version
before update on departments
for each row
execute function count_version();

create or replace trigger jobs_10_count_version
before update on jobs
for each row
execute function count_version();

create or replace trigger employees_10_count_version
before update on employees
for each row
execute function count_version();

do $$
begin
    create type departments_item as (
        id         integer,
        version    integer,
        department text,
        created_at text,
        updated_at text
    );
exception
    when duplicate_object then null;
end
$$;

comment on type departments_item is 'The members of what the service answers for a row of departments.';

create or replace function departments_json(r departments) returns json
language sql stable parallel safe
return to_json(
    row(
        r.id,
        r.version,
        r.department,
        iso8601(r.created_at),
        iso8601(r.updated_at)
    )::departments_item
);

comment on function departments_json(departments) is 'A row of departments as the service answers it.';

create or replace function matches(r departments, id text, department text) returns boolean
language sql stable parallel safe
return (matches.id = '' or r.id = nullif(matches.id, '')::bigint)
    and (matches.department = '' or r.department = matches.department);

comment on function matches(departments, text, text) is 'Whether a department fits all filters that are given.';

do $$
begin
    create type jobs_item as (
        id         integer,
        version    integer,
        job        text,
        created_at text,
        updated_at text
    );
exception
    when duplicate_object then null;
end
$$;

comment on type jobs_item is 'The members of what the service answers for a row of jobs.';

create or replace function jobs_json(r jobs) returns json
language sql stable parallel safe
return to_json(
    row(
        r.id,
        r.version,
        r.job,
        iso8601(r.created_at),
        iso8601(r.updated_at)
    )::jobs_item
);

comment on function jobs_json(jobs) is 'A row of jobs as the service answers it.';

create or replace function matches(r jobs, id text, job text) returns boolean
language sql stable parallel safe
return (matches.id = '' or r.id = nullif(matches.id, '')::bigint)
    and (matches.job = '' or r.job = matches.job);

comment on function matches(jobs, text, text) is 'Whether a job fits all filters that are given.';

do $$
begin
    create type employees_item as (
        id            integer,
        version       integer,
        name          text,
        datetime      text,
        department_id integer,
        job_id        integer,
        created_at    text,
        updated_at    text
    );
exception
    when duplicate_object then null;
end
$$;

comment on type employees_item is 'The members of what the service answers for a row of employees.';

create or replace function employees_json(r employees) returns json
language sql stable parallel safe
return to_json(
    row(
        r.id,
        r.version,
        r.name,
        iso8601(r.datetime),
        r.department_id,
        r.job_id,
        iso8601(r.created_at),
        iso8601(r.updated_at)
    )::employees_item
);

comment on function employees_json(employees) is 'A row of employees as the service answers it.';

create or replace function matches(r employees, id text, name text, department_id text, job_id text) returns boolean
language sql stable parallel safe
return (matches.id = '' or r.id = nullif(matches.id, '')::bigint)
    and (matches.name = '' or r.name = matches.name)
    and (matches.department_id = '' or r.department_id = nullif(matches.department_id, '')::bigint)
    and (matches.job_id = '' or r.job_id = nullif(matches.job_id, '')::bigint);

comment on function matches(employees, text, text, text, text) is 'Whether an employee fits all filters that are given.';


-- Uploads and their rejects -------------------------------------------------------------------------------------------

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

do $$
begin
    create type departments_errors_item as (
        id          bigint,
        upload_id   bigint,
        line        integer,
        column_name text,
        code        text,
        detail      text,
        raw         text,
        logged_at   text
    );
exception
    when duplicate_object then null;
end
$$;

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

do $$
begin
    create type jobs_errors_item as (
        id          bigint,
        upload_id   bigint,
        line        integer,
        column_name text,
        code        text,
        detail      text,
        raw         text,
        logged_at   text
    );
exception
    when duplicate_object then null;
end
$$;

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

do $$
begin
    create type employees_errors_item as (
        id          bigint,
        upload_id   bigint,
        line        integer,
        column_name text,
        code        text,
        detail      text,
        raw         text,
        logged_at   text
    );
exception
    when duplicate_object then null;
end
$$;

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


-- The rules of a field, for whole files at a time. Each is null where the field is good, else {column, code, sentence}. They are
-- written to be inlined: the field is the cheap part of each, and the good case comes first.

create or replace function id_fault(column_name text, value text) returns text[]
language sql immutable parallel safe
return case
    when value ~ '^[0-9]{1,9}$' and value::integer > 0 then null
    when value = '' then array[column_name, 'missing', 'A value is required.']
    when value !~ '^[0-9]+$' then array[column_name, 'not_integer', 'Must be an integer in plain digits.']
    when length(ltrim(value, '0')) > 10 or value::numeric not between 1 and 2147483647
        then array[column_name, 'out_of_range', 'Must be 1 to 2147483647.']
end;

comment on function id_fault(text, text) is 'What is wrong with a field that must be an id.';

create or replace function name_fault(column_name text, value text) returns text[]
language sql immutable parallel safe
return case
    when not says_something(value) then array[column_name, 'missing', 'A value is required.']
    when char_length(value) > 1000 then array[column_name, 'too_long', 'Must be at most 1000 characters.']
end;

comment on function name_fault(text, text) is 'What is wrong with a field that must be a name.';

-- PostgreSQL rounds what is beyond, into the next year if need be.
create or replace function cut_to_microseconds(value text) returns text
language sql immutable parallel safe
return case
    when value ~ '[.,]' then regexp_replace(replace(value, ',', '.'), '([.][0-9]{6})[0-9]+', '\1')
    else value
end;

comment on function cut_to_microseconds(text) is 'A moment in ISO 8601 as PostgreSQL reads it, without what is finer than its microseconds.';

-- Stable, as what a text means as a moment may hang on settings. The pattern, WRITTEN in handlers/http/fields.py, keeps out what PostgreSQL would
-- take beyond ISO 8601 ("yesterday", "infinity", "1/2/2021"), and what it takes for another moment (24:00, a leap second); a text without
-- a zone is in the session's, which the loader sets to UTC.
create or replace function datetime_fault(column_name text, value text) returns text[]
language sql stable parallel safe
return case
    -- How most files write it; the pattern below takes three times as long.
    when value like '____-__-__T__:__:__Z'
        and translate(value, '0123456789', '') = '--T::Z'
        and substr(value, 12, 2) < '24'
        and substr(value, 18, 2) < '60'
        and pg_input_is_valid(value, 'timestamptz')
        then null
    when value = '' then array[column_name, 'missing', 'A value is required.']
    when value !~ (
            '^[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.,][0-9]+)?)?'
            || '([Zz]|[+-](0[0-9]|1[0-5])(:?[0-5][0-9])?)?)?$'
        )
        or not pg_input_is_valid(cut_to_microseconds(value), 'timestamptz')
        then array[column_name, 'not_datetime', 'Must be a date or time in ISO 8601.']
    -- Only with a zone does a year of four digits leave the years 1 to 9999.
    when (value like '0001-%' or value like '9999-%')
        and (
            cut_to_microseconds(value)::timestamptz < '0001-01-01T00:00:00Z'
            or cut_to_microseconds(value)::timestamptz >= '10000-01-01T00:00:00Z'
        )
        then array[column_name, 'out_of_range', 'Must lie in the years 1 to 9999.']
end;

comment on function datetime_fault(text, text) is 'What is wrong with a field that must be a moment.';

create or replace function after_first_field(raw text) returns text
language sql immutable parallel safe
return regexp_replace(raw, '^[^,;\t]*', '');

comment on function after_first_field(text) is 'A line of a file without its first field, the id.';


-- Many employees at once ----------------------------------------------------------------------------------------------

-- A foreign key is checked row by row: of a million rows that takes as long as all else together. So the owner checks the parents of
-- all rows in one statement, and has PostgreSQL leave its own checks out. The service cannot do that by itself: it may only put rows
-- into appending, which belongs to the owner, and have them appended.

create or replace function stage_employees() returns void
language plpgsql security definer
set search_path = public, pg_temp
as $$
begin
    create temporary table appending (like employees including defaults, raw text) on commit drop;
    grant select, insert, delete on appending to rowhouse_service;
end
$$;

comment on function stage_employees() is 'Make appending, where employees wait for append_employees() in this transaction, each with its line as it came (null where that is its fields between commas).';

create or replace function append_employees(upload bigint default null) returns bigint
language plpgsql security definer
set search_path = public, pg_temp
as $$
declare
    columns  text[] := array(
        select quote_ident(a.attname)
        from pg_attribute as a
        where a.attrelid = 'employees'::regclass and a.attnum > 0 and not a.attisdropped
        order by a.attnum
    );
    waiting  bigint;
    appended bigint;
begin
    if (select pg_get_userbyid(c.relowner) from pg_class as c where c.oid = 'pg_temp.appending'::regclass) <> current_user then
        raise 'append_employees: this is not the table that stage_employees() made' using errcode = 'insufficient_privilege';
    end if;
    if coalesce(current_setting('app.load', true), '') = '' then
        raise 'append_employees: app.load must say what history calls the load' using errcode = 'invalid_parameter_value';
    end if;
    lock table departments, jobs in share mode;
    execute format(
        $sql$
            insert into employees (%s)
            select %s
            from pg_temp.appending as a
            left join history.deleted as g on g.obj_type = 'employee' and g.obj_id = a.id::text
            where exists (select from departments as d where d.id = a.department_id)
                and exists (select from jobs as j where j.id = a.job_id)
        $sql$,
        array_to_string(columns, ', '),
        (
            select string_agg(
                case c.name
                    when 'upload_id' then 'coalesce(a.upload_id, $1)'
                    when 'version' then 'greatest(a.version, g.version + 1)'
                    else 'a.' || c.name
                end,
                ', '
                order by c.place
            )
            from unnest(columns) with ordinality as c (name, place)
        )
    ) using upload;
    get diagnostics appended = row_count;
    select count(*) into waiting from pg_temp.appending;
    if appended < waiting then
        raise 'append_employees: a department or a job is not there'
            using errcode = 'foreign_key_violation', constraint = 'employees_department_id_fkey', table = 'employees';
    end if;
    truncate pg_temp.appending;
    return appended;
end
$$;

comment on function append_employees(bigint) is 'Append what waits in appending to employees, its parents checked for all rows at once, those without an upload as rows of this one; returns how many. Appending is empty then.';

-- Only a superuser may do so; as anyone else's, the function is right as it is, and PostgreSQL checks row by row.
do $$
begin
    alter function append_employees(bigint) set session_replication_role = replica;
exception
    when insufficient_privilege then null;
end
$$;


-- History -------------------------------------------------------------------------------------------------------------

-- A file is one entry, its rows are found by their upload; what happens to a row later is recorded row by row.
select history.track('departments', 'department', loads => true);
select history.track('jobs', 'job', loads => true);
select history.track('employees', 'employee', loads => true);
