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
comment on constraint schema_migrations_pkey on schema_migrations is 'A migration is applied once.';


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

-- A list has a block for each of its orders, whose plan is kept. So that it is the walk along that order's index, the planner must
-- see that few rows are wanted (the constant limit of 1,001 within), but not how many: else a plan for 20 rows would always look
-- cheaper than the one that is kept for any number, and each page be planned anew. A bound is (select …) for the
-- same reason. What filters is in matches(), a function of each table: it is left out where no filter is given (db/queries.py); where
-- one is, the list is planned for the values at hand, and the planner leaves no other.
create or replace function page_size(value text) returns integer
language sql immutable parallel safe
return coalesce(nullif(value, '')::integer, 50);

comment on function page_size(text) is 'How many a page holds: 50 unless told.';

create or replace function id_after(id text) returns bigint
language sql immutable parallel safe
return coalesce(nullif(id, '')::bigint, -9223372036854775808);

comment on function id_after(text) is 'The id after which a page begins; the least, where it is the first page.';

create or replace function id_before(id text) returns bigint
language sql immutable parallel safe
return coalesce(nullif(id, '')::bigint, 9223372036854775807);

comment on function id_before(text) is 'The id before which a page begins that goes downwards; the greatest, where it is the first page.';

create or replace function listed(item json, key text, id text, fields text) returns text[]
language sql immutable parallel safe
return array[pick(item, fields)::text, key, id];

comment on function listed(json, text, text, text) is 'A row of a list for page(): what is answered of it, the key that it is ordered by, its id.';

-- A cursor is base64url of `sort|id|key` of the last row; the key comes last, as it may hold anything.
create or replace function cursor_after(sort text, key text, id text) returns text
language sql immutable parallel safe
return translate(
    encode(convert_to(concat(sort, '|', id, '|', key), 'UTF8'), 'base64'),
    E'+/=\n',
    '-_'
);

comment on function cursor_after(text, text, text) is 'The cursor that continues after the row with this key and id.';

create or replace function page(rows text[], sort text, size integer, form text)
returns table (next text, body text)
language sql immutable parallel safe
begin atomic
    select
        following.cursor,
        case form
            when 'lines' then coalesce(array_to_string(rows[1:size][1:1], E'\n'), '')
            else '{"items":[' || coalesce(array_to_string(rows[1:size][1:1], ','), '')
                || '],"next":' || coalesce(to_json(following.cursor)::text, 'null') || '}'
        end
    from (
        select case when array_length(rows, 1) > size then cursor_after(sort, rows[size][2], rows[size][3]) end
    ) as following (cursor);
end;

comment on function page(text[], text, integer, text) is
    'Of up to size + 1 rows, each as of listed(), a page of size: its body as a JSON object, or as lines, and the cursor of the next page, null on the last.';


-- Whatever the case -----------------------------------------------------------------------------------------------------

-- Unicode's small letters whatever the database's locale is. A server from 17 on has them built in; an older one asks the system.
do $$
begin
    if current_setting('server_version_num')::integer >= 170000 then
        create collation if not exists unicode_case (provider = builtin, locale = 'C.UTF-8');
    else
        create collation if not exists unicode_case (provider = libc, locale = 'C.UTF-8');
    end if;
end
$$;

comment on collation unicode_case is 'Knows the small letter of every letter of Unicode; orders by code point.';

-- Not strict, and one expression, so that it is inlined: most texts are ASCII, and cost no more than lower() does. Composed before and
-- after, because a few letters have a small form, or a composed one, in one case only. citext and ICU are not everywhere.
create or replace function folded(value text) returns text
language sql immutable parallel safe
return case
    when octet_length(value) = char_length(value) then lower(value collate unicode_case)
    else replace(replace(normalize(lower(normalize(value) collate unicode_case)), 'ς', 'σ'), 'ß', 'ss')
end;

comment on function folded(text) is 'A text whatever its case: composed (NFC), in small letters, the final sigma as any other, ß as ss. Equal for texts that differ in nothing else.';


-- E-mail --------------------------------------------------------------------------------------------------------------

-- RFC 3492, 6.2. What it cannot read is left as it is: then it equals nothing but itself.
create or replace function punycode_decoded(label text) returns text
language plpgsql immutable strict parallel safe
as $$
declare
    digits  constant text := 'abcdefghijklmnopqrstuvwxyz0123456789';
    coded   constant text := substr(label, 5);
    basic   constant text := coalesce(substring(coded from '^(.*)-'), '');
    letters text[] := string_to_array(nullif(basic, ''), null);
    place   integer := case when strpos(coded, '-') > 0 then char_length(basic) + 2 else 1 end;
    letter  integer := 128;
    bias    integer := 72;
    i       integer := 0;
    before  integer;
    weight  integer;
    digit   integer;
    least   integer;
    size    integer;
    delta   integer;
    k       integer;
begin
    letters := coalesce(letters, '{}');
    while place <= char_length(coded) loop
        before := i;
        weight := 1;
        k := 36;
        loop
            digit := strpos(digits, substr(coded, place, 1)) - 1;
            if digit < 0 or place > char_length(coded) then
                return label;
            end if;
            place := place + 1;
            i := i + digit * weight;
            least := greatest(1, least(26, k - bias));
            exit when digit < least;
            weight := weight * (36 - least);
            k := k + 36;
        end loop;
        size := cardinality(letters) + 1;
        delta := case before when 0 then i / 700 else (i - before) / 2 end;
        delta := delta + delta / size;
        k := 0;
        while delta > 455 loop
            delta := delta / 35;
            k := k + 36;
        end loop;
        bias := k + 36 * delta / (delta + 38);
        letter := letter + i / size;
        i := i % size;
        letters := letters[:i] || chr(letter) || letters[i + 1:];
        i := i + 1;
    end loop;
    return array_to_string(letters, '');
exception
    when data_exception or program_limit_exceeded then
        return label;
end
$$;

comment on function punycode_decoded(text) is 'The letters that a label of a domain in Punycode (xn--…) stands for.';

create or replace function domain_decoded(email text) returns text
language sql immutable parallel safe
return split_part(email, '@', 1) || '@' || (
    select string_agg(case when label.text like 'xn--%' then punycode_decoded(label.text) else label.text end, '.' order by label.place)
    from string_to_table(lower(split_part(email, '@', 2) collate unicode_case), '.') with ordinality as label (text, place)
);

comment on function domain_decoded(text) is 'An e-mail address with the labels of its domain as letters where they are in Punycode.';

create or replace function email_key(email text) returns text
language sql immutable parallel safe
return case
    when strpos(lower(email collate unicode_case), 'xn--') = 0 then folded(email)
    else folded(domain_decoded(email))
end;

comment on function email_key(text) is 'What two e-mail addresses share that are one: folded(), and an internationalised domain is its Punycode.';

-- Default_Ignorable_Code_Point of Unicode, what sets a direction, and control characters: two addresses that look the same must be one.
create or replace function has_invisible(value text) returns boolean
language sql immutable parallel safe
return value ~ ('[\u0001-\u001F\u007F-\u009F\u00AD\u034F\u061C\u115F\u1160\u17B4\u17B5\u180B-\u180F\u200B-\u200F\u2028-\u202E\u2060-\u206F\u3164'
    || '\uFE00-\uFE0F\uFEFF\uFFA0\uFFF0-\uFFFB\U0001BCA0-\U0001BCA3\U0001D173-\U0001D17A\U000E0000-\U000E0FFF]');

comment on function has_invisible(text) is 'Whether a text holds a character that is not seen, or turns the direction in which others are read.';


-- Search by any part of a text ----------------------------------------------------------------------------------------

-- By hand, because pg_trgm is not everywhere (the embedded server has no contrib) and this needs no more than an array. The offset has
-- the text folded once, not for each of its letters.
create or replace function trigrams(value text) returns text[]
language sql immutable strict parallel safe
return array(
    select distinct substr(plain.text, i, 3)
    from (select folded(value) offset 0) as plain (text)
    cross join generate_series(1, char_length(plain.text) - 2) as i
);

comment on function trigrams(text) is 'Every three letters that stand together in a text, whatever their case. A GIN index on it finds any part of three letters or more.';

-- Side by side they cover the part, and the fewer lists of the index are read the sooner they are merged; the match is rechecked anyhow.
create or replace function trigrams_of_part(value text) returns text[]
language sql immutable strict parallel safe
return array(
    select distinct substr(plain.text, least(i, char_length(plain.text) - 2), 3)
    from (select folded(value) offset 0) as plain (text)
    cross join generate_series(1, char_length(plain.text), 3) as i
    where char_length(plain.text) >= 3
);

comment on function trigrams_of_part(text) is 'As few trigrams of a text as cover it: what trigrams() of any text must contain that this is a part of.';


-- Rules ---------------------------------------------------------------------------------------------------------------

-- White_Space and Default_Ignorable_Code_Point of Unicode, its categories Cc, Cf and Z, and the empty Braille cell, as BLANK in
-- handlers/http/fields.py. Not [:space:], which hangs on the server's locale. The first character decides for nearly all texts, in a quarter
-- of the time that the pattern takes.
create or replace function says_something(value text) returns boolean
language sql immutable parallel safe
return ascii(value) between 33 and 126
    or value ~ ('[^\u0001-\u0020\u007F-\u00A0\u00AD\u034F\u0600-\u0605\u061C\u06DD\u070F\u0890\u0891\u08E2\u115F\u1160\u1680\u17B4\u17B5'
        || '\u180B-\u180F\u2000-\u200F\u2028-\u202F\u205F-\u206F\u2800\u3000\u3164\uFE00-\uFE0F\uFEFF\uFFA0\uFFF0-\uFFFB'
        || '\U000110BD\U000110CD\U00013430-\U0001343F\U0001BCA0-\U0001BCA3\U0001D173-\U0001D17A\U000E0000-\U000E0FFF]');

comment on function says_something(text) is 'Whether a text holds anything that is seen.';
