-- 80 Hiring: departments, jobs and the employees hired into them.

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
    constraint departments_department_check check (char_length(department) <= 1000 and is_not_blank(department))
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
    constraint jobs_job_check check (char_length(job) <= 1000 and is_not_blank(job))
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
    constraint employees_name_check check (char_length(name) <= 1000 and is_not_blank(name)),
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

select define_type('departments_item', $$
    id         integer,
    version    integer,
    department text,
    created_at text,
    updated_at text
$$);

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

select define_type('jobs_item', $$
    id         integer,
    version    integer,
    job        text,
    created_at text,
    updated_at text
$$);

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

select define_type('employees_item', $$
    id            integer,
    version       integer,
    name          text,
    datetime      text,
    department_id integer,
    job_id        integer,
    created_at    text,
    updated_at    text
$$);

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


-- History -------------------------------------------------------------------------------------------------------------

-- A file is one entry, its rows are found by their upload; what happens to a row later is recorded row by row.
select history.track('departments', 'department', loads => true);
select history.show_past('departments');
select history.track('jobs', 'job', loads => true);
select history.show_past('jobs');
select history.track('employees', 'employee', loads => true);
select history.show_past('employees');
