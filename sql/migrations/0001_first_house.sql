-- 0001 First house: the tables of the first release.
--
-- A new database takes the book (../schema) and never runs this. It is the ground that later migrations stand on, and proof that
-- they and the book lead to the same place. What the book says again by itself (functions, triggers, comments) is not here,
-- but for the two functions that constraints and indexes call. By hand: psql -1 -v ON_ERROR_STOP=1 -f this.

create or replace function trigrams(value text) returns text[]
language sql immutable strict parallel safe
return array(
    select distinct substr(lower(value), i, 3)
    from generate_series(1, length(value) - 2) as i
);

create or replace function says_something(value text) returns boolean
language sql immutable parallel safe
return value ~ '[^[:space:]]';

create table if not exists schema_migrations (
    name       text        not null,
    checksum   text,
    applied_at timestamptz not null default now(),
    constraint schema_migrations_pkey primary key (name)
);

create table if not exists users (
    id         bigint      not null generated always as identity,
    version    integer     not null default 1,
    email      text        not null,
    name       text,
    address    text,
    image      text,
    text       text,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint users_pkey primary key (id),
    constraint users_email_check check (char_length(email) <= 254 and email ~ '^[^@[:space:]]+@[^@[:space:]]+$'),
    constraint users_name_check check (char_length(name) <= 30 and says_something(name)),
    constraint users_address_check check (char_length(address) <= 100 and says_something(address)),
    constraint users_image_check check (char_length(image) <= 100 and image ~* '^https?://[^[:space:]]+$'),
    constraint users_text_check check (char_length(text) <= 1000)
);

create table if not exists departments (
    id         integer     not null,
    version    integer     not null default 1,
    department text        not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint departments_pkey primary key (id),
    constraint departments_id_check check (id > 0),
    constraint departments_department_check check (char_length(department) <= 1000 and says_something(department))
);

create table if not exists jobs (
    id         integer     not null,
    version    integer     not null default 1,
    job        text        not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint jobs_pkey primary key (id),
    constraint jobs_id_check check (id > 0),
    constraint jobs_job_check check (char_length(job) <= 1000 and says_something(job))
);

create table if not exists employees (
    id            integer     not null,
    version       integer     not null default 1,
    name          text        not null,
    datetime      timestamptz not null,
    department_id integer     not null,
    job_id        integer     not null,
    created_at    timestamptz not null default now(),
    updated_at    timestamptz not null default now(),
    constraint employees_pkey primary key (id),
    constraint employees_department_id_fkey foreign key (department_id) references departments (id) on delete restrict,
    constraint employees_job_id_fkey foreign key (job_id) references jobs (id) on delete restrict,
    constraint employees_id_check check (id > 0),
    constraint employees_name_check check (char_length(name) <= 1000 and says_something(name)),
    constraint employees_datetime_check check (datetime >= '0001-01-01T00:00:00Z' and datetime < '10000-01-01T00:00:00Z')
);

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

create table if not exists departments_errors (
    id          bigint      not null generated always as identity,
    upload_id   bigint      not null,
    line        integer     not null,
    column_name text,
    code        text        not null,
    detail      text        not null,
    raw         text        not null,
    logged_at   timestamptz not null default now(),
    constraint departments_errors_pkey primary key (id),
    constraint departments_errors_upload_id_line_key unique (upload_id, line),
    constraint departments_errors_upload_id_fkey foreign key (upload_id) references uploads (id) on delete cascade,
    constraint departments_errors_line_check check (line > 0)
);

create table if not exists jobs_errors (
    id          bigint      not null generated always as identity,
    upload_id   bigint      not null,
    line        integer     not null,
    column_name text,
    code        text        not null,
    detail      text        not null,
    raw         text        not null,
    logged_at   timestamptz not null default now(),
    constraint jobs_errors_pkey primary key (id),
    constraint jobs_errors_upload_id_line_key unique (upload_id, line),
    constraint jobs_errors_upload_id_fkey foreign key (upload_id) references uploads (id) on delete cascade,
    constraint jobs_errors_line_check check (line > 0)
);

create table if not exists employees_errors (
    id          bigint      not null generated always as identity,
    upload_id   bigint      not null,
    line        integer     not null,
    column_name text,
    code        text        not null,
    detail      text        not null,
    raw         text        not null,
    logged_at   timestamptz not null default now(),
    constraint employees_errors_pkey primary key (id),
    constraint employees_errors_upload_id_line_key unique (upload_id, line),
    constraint employees_errors_upload_id_fkey foreign key (upload_id) references uploads (id) on delete cascade,
    constraint employees_errors_line_check check (line > 0)
);

create unique index if not exists users_email_key on users (lower(email));

create index if not exists users_name_id_idx on users (coalesce(name, ''), id);

create index if not exists users_created_at_id_idx on users (created_at, id);

create index if not exists users_address_idx on users using gin (trigrams(address));

create index if not exists departments_department_id_idx on departments (department, id);

create index if not exists jobs_job_id_idx on jobs (job, id);

create index if not exists employees_department_id_id_idx on employees (department_id, id);

create index if not exists employees_job_id_id_idx on employees (job_id, id);

create index if not exists employees_datetime_id_idx on employees (datetime, id);

create index if not exists employees_name_id_idx on employees (name, id);

create index if not exists departments_errors_upload_id_id_idx on departments_errors (upload_id, id);

create index if not exists jobs_errors_upload_id_id_idx on jobs_errors (upload_id, id);

create index if not exists employees_errors_upload_id_id_idx on employees_errors (upload_id, id);

insert into schema_migrations (name) values ('0001_first_house');
