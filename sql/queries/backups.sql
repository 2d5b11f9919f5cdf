-- Backups: /backup/{table}, /restore/{table}. The statements that need the columns of a table are in ../schema/85_backups.sql.

-- name: snapshot
-- What all statements of this transaction see, and the migration that the tables are at.
select
    pg_current_snapshot()::text as snapshot,
    (select max(m.name) from schema_migrations as m where m.name <> 'book') as migration

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

-- name: estimate
-- About how many rows tables have, as they were when last analyzed.
select sum(greatest(c.reltuples, 0))::bigint as rows
from pg_class as c
where c.oid = any (:'tables'::regclass[])

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

-- name: call
-- What history calls the restore, until the end of this transaction: the rows it adds become one entry.
select set_config('app.load', 'restore of ' || :'backup', true) as load

-- name: remove
-- The rows gone that the backup does not have.
select remove_restored(:'table'::regclass) as removed

-- name: change
-- The rows changed that the backup has otherwise, and those added that it has more.
select change_restored(:'table'::regclass, :'columns'::text[]) as changed
