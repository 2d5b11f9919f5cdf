-- Backups: /backup/{table}, /restore/{table}. The statements that need the columns of a table are in ../schema/85_backups.sql.

-- name: snapshot
-- What all statements of this transaction see, the migration that the tables are at, and the root of the last seal of history, if there is
-- one: whoever keeps the backup keeps what later proves the history that came before it.
select
    pg_current_snapshot()::text as snapshot,
    (select max(m.name) from schema_migrations as m where m.name <> 'book') as migration,
    (select encode(s.root, 'hex') from history.seals as s order by s.id desc limit 1) as root

-- name: columns
-- The columns of a table in their order; required are those that every row must bring.
select
    a.attname as name,
    a.atttypid::regtype::text as type,
    not a.attnotnull as nullable,
    a.attnotnull and not a.atthasdef and a.attidentity = '' as required
from pg_attribute as a
where a.attrelid = :'table'::regclass
    and a.attnum > 0
    and not a.attisdropped
order by a.attnum

-- name: count
-- How many rows tables have. Counted, because what was known when they were last analyzed may be fewer than are written: a fiftieth of the
-- time in which they are written (300,000 employees: 0.1 of 5.2 s). Of the others none is looked at.
select sum(c.rows)::bigint as rows
from (
    select count(*) as rows from uploads where 'uploads' = any (:'tables'::text[])
    union all
    select count(*) as rows from departments where 'departments' = any (:'tables'::text[])
    union all
    select count(*) as rows from jobs where 'jobs' = any (:'tables'::text[])
    union all
    select count(*) as rows from employees where 'employees' = any (:'tables'::text[])
    union all
    select count(*) as rows from departments_errors where 'departments_errors' = any (:'tables'::text[])
    union all
    select count(*) as rows from jobs_errors where 'jobs_errors' = any (:'tables'::text[])
    union all
    select count(*) as rows from employees_errors where 'employees_errors' = any (:'tables'::text[])
) as c

-- name: uploads
-- Every row of uploads.
table uploads order by id

-- name: departments
-- Every row of departments.
table departments order by id

-- name: jobs
-- Every row of jobs.
table jobs order by id

-- name: employees
-- Every row of employees.
table employees order by id

-- name: departments_errors
-- Every row of departments_errors.
table departments_errors order by id

-- name: jobs_errors
-- Every row of jobs_errors.
table jobs_errors order by id

-- name: employees_errors
-- Every row of employees_errors.
table employees_errors order by id

-- name: stage
-- A place for the rows of a backup.
select stage_restore(:'table'::regclass, :'columns'::text[]) as staged

-- name: copy
-- The rows of a backup, as COPY takes them.
copy restoring from stdin (format binary)

-- name: compare
-- How many rows the backup has more, less and otherwise.
select
    c.added,
    c.removed,
    c.changed
from compare_restore(:'table'::regclass, :'columns'::text[]) as c

-- name: check_appending
-- The employees that wait to be appended checked for numbers that only the database gives.
select check_restored('employees'::regclass, 'pg_temp.appending'::regclass) as checked

-- name: call
-- What history calls the restore, until the end of this transaction: the rows it adds become one entry.
select set_config('app.load', 'restore of ' || :'backup', true) as load

-- name: remove
-- The rows gone that the backup does not have.
select remove_restored(:'table'::regclass) as removed

-- name: change
-- The rows changed that the backup has otherwise, and those added that it has more.
select change_restored(:'table'::regclass, :'columns'::text[]) as changed
