-- 82 Loading: whole files at a time, the rules of their fields and many employees at once.

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
    when not is_not_blank(value) then array[column_name, 'missing', 'A value is required.']
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
