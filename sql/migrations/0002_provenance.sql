-- 0002 Provenance: where rows of departments, jobs and employees came from, and which row a reject was.

alter table departments
add column if not exists upload_id bigint,
add column if not exists line      integer;

alter table departments_errors
add column if not exists row_id integer;

alter table jobs
add column if not exists upload_id bigint,
add column if not exists line      integer;

alter table jobs_errors
add column if not exists row_id integer;

alter table employees
add column if not exists upload_id bigint,
add column if not exists line      integer;

alter table employees_errors
add column if not exists row_id integer;

-- The rules of a field, which say the column now; nobody else calls them.
-- squawk-ignore ban-drop-function
drop function if exists id_fault(text);

-- squawk-ignore ban-drop-function
drop function if exists name_fault(text);

-- squawk-ignore ban-drop-function
drop function if exists datetime_fault(text);

-- squawk-ignore ban-drop-function
drop function if exists fault(text, text[]);

insert into schema_migrations (name) values ('0002_provenance');
