-- 10 Common: what every chapter leans on: the list of migrations, versions, pages, times, search by part of a text.
--
-- The book is written to be applied again and again: tables `if not exists`, functions and triggers `or replace`. What an
-- older database needs beyond that is in ../migrations.

create table if not exists schema_migrations (
    name       text        not null,
    checksum   text,
    applied_at timestamptz not null default now(),
    constraint schema_migrations_pkey primary key (name)
);

comment on table schema_migrations is 'What has been applied to this database: each migration, and the book itself as "book".';
comment on column schema_migrations.name is 'The file''s name without .sql.';
comment on column schema_migrations.checksum is 'SHA-256 of the file as applied; null when a person applied it with psql, until the service fills it in.';
comment on column schema_migrations.applied_at is 'When its transaction began.';


-- Versions ------------------------------------------------------------------------------------------------------------

-- A save that changes nothing is no new version, and psql's changes count as the service's do, because nobody has to remember to
-- count. Asked here and not by the trigger's WHEN, which PostgreSQL parses anew for each statement: that was a tenth of an UPDATE.
create or replace function count_version() returns trigger
language plpgsql
as $$
begin
    if new is distinct from old then
        new.version := old.version + 1;
        -- Not now(), which may lie before the version that another transaction saved; and never back, whatever the clock does.
        new.updated_at := greatest(clock_timestamp(), old.updated_at + interval '1 microsecond');
    end if;
    return new;
end
$$;

comment on function count_version() is 'Trigger: the row is saved as its next version, at a later time.';


-- Representations -----------------------------------------------------------------------------------------------------

-- By way of to_json(), which knows no time zone here and heeds no DateStyle, and takes half the time of to_char().
create or replace function iso8601(moment timestamptz) returns text
language sql stable parallel safe
return trim('"' from to_json(moment at time zone 'UTC')::text) || 'Z';

comment on function iso8601(timestamptz) is 'A moment in UTC as ISO 8601, with no more decimals than it has.';

-- plpgsql, because its early return costs less than starting a SQL function, and most callers ask for the whole.
create or replace function pick(item json, fields text) returns json
language plpgsql immutable parallel safe
as $$
begin
    if fields = '' then
        return item;
    end if;
    return (
        select ('{' || coalesce(string_agg(to_json(m.key) || ':' || m.value, ',' order by m.ordinality), '') || '}')::json
        from json_each(item) with ordinality as m (key, value, ordinality)
        where m.key = any (string_to_array(fields, ','))
    );
end
$$;

comment on function pick(json, text) is 'The members of an object that a comma-separated list names, in the object''s own order; all where the list is empty.';


-- Pages ---------------------------------------------------------------------------------------------------------------

-- A cursor is base64url of `sort|id|key` of the last row; the key comes last, as it may hold anything. The functions are immutable, so
-- that the planner turns them into constants, and a page becomes one range of one index.
create or replace function cursor_after(sort text, key text, id text) returns text
language sql immutable parallel safe
return translate(
    encode(convert_to(concat(sort, '|', id, '|', key), 'UTF8'), 'base64'),
    E'+/=\n',
    '-_'
);

comment on function cursor_after(text, text, text) is 'The cursor that continues after the row with this key and id.';

create or replace function cursor_part(cursor text, part integer) returns text
language sql immutable parallel safe
return (
    select case part when 2 then split_part(plain.text, '|', 2) else regexp_replace(plain.text, '^[^|]*[|][^|]*[|]', '') end
    from convert_from(
        decode(
            rpad(translate(nullif(cursor, ''), '-_', '+/'), (length(cursor) + 3) / 4 * 4, '='),
            'base64'
        ),
        'UTF8'
    ) as plain (text)
);

comment on function cursor_part(text, integer) is 'Part 1 (key) or 2 (id) of a cursor; null where the cursor is empty.';

create or replace function page(items text[], keys text[], ids text[], sort text, size integer, form text)
returns table (next text, body text)
language sql immutable parallel safe
begin atomic
    select
        following.cursor,
        case form
            when 'lines' then coalesce(array_to_string(items[1:size], E'\n'), '')
            else '{"items":[' || coalesce(array_to_string(items[1:size], ','), '')
                || '],"next":' || coalesce(to_json(following.cursor)::text, 'null') || '}'
        end
    from (
        select case when cardinality(items) > size then cursor_after(sort, keys[size], ids[size]) end
    ) as following (cursor);
end;

comment on function page(text[], text[], text[], text, integer, text) is
    'Of up to size + 1 rows, a page of size: its body as a JSON object, or as lines, and the cursor of the next page, null on the last.';


-- Search by any part of a text ----------------------------------------------------------------------------------------

-- By hand, because pg_trgm is not everywhere (the embedded server has no contrib) and this needs no more than an array.
create or replace function trigrams(value text) returns text[]
language sql immutable strict parallel safe
return array(
    select distinct substr(lower(value), i, 3)
    from generate_series(1, length(value) - 2) as i
);

comment on function trigrams(text) is 'Every three letters that stand together in a text, in lower case. A GIN index on it finds any part of three letters or more.';

-- Side by side they cover the part, and the fewer lists of the index are read the sooner they are merged; the match is rechecked anyhow.
create or replace function trigrams_of_part(value text) returns text[]
language sql immutable strict parallel safe
return array(
    select distinct substr(lower(value), least(i, length(value) - 2), 3)
    from generate_series(1, length(value), 3) as i
    where length(value) >= 3
);

comment on function trigrams_of_part(text) is 'As few trigrams of a text as cover it: what trigrams() of any text must contain that this is a part of.';


-- Rules ---------------------------------------------------------------------------------------------------------------

-- The first character decides for nearly all texts, in a quarter of the time that the pattern takes.
create or replace function says_something(value text) returns boolean
language sql immutable parallel safe
return ascii(value) between 33 and 126 or value ~ '[^[:space:]]';

comment on function says_something(text) is 'Whether a text holds anything besides white space.';
