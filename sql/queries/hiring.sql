-- Hiring: what an upload or a batch to departments, jobs or employees begins with. The rules of each are in its page, as `load`.

-- name: stage
-- A place for the rows of one file: each with its line, as it came (null where that is its fields between commas), and in fields.
create temporary table staging (
    line       integer not null,
    raw        text,
    width      integer not null,
    unreadable text,
    c1         text,
    c2         text,
    c3         text,
    c4         text,
    c5         text
) on commit drop

-- name: unstage
-- The place taken down, for the rows of another table in the same transaction.
drop table staging

-- name: copy
-- The rows, as COPY takes them.
copy staging (line, raw, width, unreadable, c1, c2, c3, c4, c5) from stdin (format binary)

-- name: lock_departments
-- No other writer until the load is done: what it found absent stays absent. Readers are not held up.
lock table departments in share row exclusive mode

-- name: lock_jobs
-- As lock_departments.
lock table jobs in share row exclusive mode

-- name: lock_employees
-- As lock_departments; the parents may not change either.
lock table departments, jobs, employees in share row exclusive mode

-- name: measure
-- So that the load is planned for as many rows as there are.
analyze staging

-- name: call
-- What history calls the load, until the end of this transaction: the rows it inserts become one entry. A million rows are sorted and
-- joined in memory. Tables are looked up by their indexes, because one that was empty when it was last analyzed would be read as a whole
-- for each row, and grows meanwhile.
select
    set_config('app.load', 'upload of ' || :'sha256', true) as load,
    set_config('work_mem', '64MB', true) as work_mem,
    set_config('enable_seqscan', 'off', true) as enable_seqscan
