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

-- A type cannot be replaced, and one that is left as it was refuses what a newer book casts to it. All members are made anew, because
-- they are answered in their order; functions over the type stay, and are replaced by those that the book has.
create or replace function define_type(type text, members text) returns void
language plpgsql
as $$
declare
    wanted text[] := array(select regexp_replace(trim(m), '\s+', ' ') from string_to_table(trim(e'\n' from members), e',\n') as m);
    there text[];
    changes text;
begin
    if to_regtype(type) is null then
        execute format('create type %I as (%s)', type, members);
        return;
    end if;
    there := array(
        select format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod))
        from pg_attribute as a
        where a.attrelid = to_regclass(type) and a.attnum > 0 and not a.attisdropped
        order by a.attnum
    );
    if there <> wanted then
        select string_agg('drop attribute ' || split_part(m, ' ', 1), ', ') into changes from unnest(there) as m;
        execute format('alter type %I %s, add attribute %s', type, changes, array_to_string(wanted, ', add attribute '));
    end if;
end
$$;

comment on function define_type(text, text) is 'Makes a type of these members, one a line, or brings the one that is there into line.';

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
-- after, because a few letters have a small form, or a composed one, in one case only, and the ss of an ß may be composed with what
-- follows. İ is i here, and to others an i with a dot above (U+0307): each i is a capital first, with which the dot is composed, so that
-- both are i. citext and ICU are not everywhere.
create or replace function folded(value text) returns text
language sql immutable parallel safe
return case
    when octet_length(value) = char_length(value) then lower(value collate unicode_case)
    else normalize(replace(replace(lower(normalize(replace(value, 'i', 'I')) collate unicode_case), 'ς', 'σ'), 'ß', 'ss'))
end;

comment on function folded(text) is 'A text whatever its case: composed (NFC), in small letters, the final sigma as any other, ß as ss, İ as i. Equal for texts that differ in nothing else.';


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

-- RFC 3492, 6.3.
create or replace function punycode_encoded(label text) returns text
language plpgsql immutable strict parallel safe
as $$
declare
    digits constant text := 'abcdefghijklmnopqrstuvwxyz0123456789';
    codes  constant integer[] := array(
        select ascii(each.letter)
        from string_to_table(label, null) with ordinality as each (letter, place)
        order by each.place
    );
    coded  text := regexp_replace(label, '[^\u0001-\u007F]', '', 'g');
    basic  constant integer := char_length(coded);
    done   integer := basic;
    letter integer := 128;
    delta  integer := 0;
    bias   integer := 72;
    next   integer;
    code   integer;
    rest   integer;
    least  integer;
    k      integer;
begin
    if basic > 0 then
        coded := coded || '-';
    end if;
    while done < cardinality(codes) loop
        next := (select min(c) from unnest(codes) as c where c >= letter);
        delta := delta + (next - letter) * (done + 1);
        letter := next;
        foreach code in array codes loop
            delta := delta + (code < letter)::integer;
            continue when code <> letter;
            rest := delta;
            k := 36;
            loop
                least := greatest(1, least(26, k - bias));
                exit when rest < least;
                coded := coded || substr(digits, least + (rest - least) % (36 - least) + 1, 1);
                rest := (rest - least) / (36 - least);
                k := k + 36;
            end loop;
            coded := coded || substr(digits, rest + 1, 1);
            delta := case done when basic then delta / 700 else delta / 2 end;
            done := done + 1;
            delta := delta + delta / done;
            k := 0;
            while delta > 455 loop
                delta := delta / 35;
                k := k + 36;
            end loop;
            bias := k + 36 * delta / (delta + 38);
            delta := 0;
        end loop;
        delta := delta + 1;
        letter := letter + 1;
    end loop;
    return 'xn--' || coded;
end
$$;

comment on function punycode_encoded(text) is 'A label of a domain in Punycode (xn--…).';

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
create or replace function is_not_blank(value text) returns boolean
language sql immutable parallel safe
return ascii(value) between 33 and 126
    or value ~ ('[^\u0001-\u0020\u007F-\u00A0\u00AD\u034F\u0600-\u0605\u061C\u06DD\u070F\u0890\u0891\u08E2\u115F\u1160\u1680\u17B4\u17B5'
        || '\u180B-\u180F\u2000-\u200F\u2028-\u202F\u205F-\u206F\u2800\u3000\u3164\uFE00-\uFE0F\uFEFF\uFFA0\uFFF0-\uFFFB'
        || '\U000110BD\U000110CD\U00013430-\U0001343F\U0001BCA0-\U0001BCA3\U0001D173-\U0001D17A\U000E0000-\U000E0FFF]');

comment on function is_not_blank(text) is 'Whether a text holds anything that is seen.';

-- BLANK as above, what is private, and what Unicode will never have (to U+3FFFD all may come that is seen), as UNFIT in
-- handlers/http/addresses.py.
create or replace function unfit() returns text
language sql immutable parallel safe
return '\u0001-\u0020\u007F-\u00A0\u00AD\u034F\u0600-\u0605\u061C\u06DD\u070F\u0890\u0891\u08E2\u115F\u1160\u1680\u17B4\u17B5\u180B-\u180F'
    || '\u2000-\u200F\u2028-\u202F\u205F-\u206F\u2800\u3000\u3164\uE000-\uF8FF\uFDD0-\uFDEF\uFE00-\uFE0F\uFEFF\uFFA0\uFFF0-\uFFFB\uFFFE\uFFFF'
    || '\U000110BD\U000110CD\U00013430-\U0001343F\U0001BCA0-\U0001BCA3\U0001D173-\U0001D17A\U0001FFFE\U0001FFFF\U0002FFFE\U0002FFFF'
    || '\U0003FFFE-\U0010FFFF';

comment on function unfit() is 'For the brackets of a pattern: the characters that no address on a network holds.';

-- Of IDNA 2008 (RFC 5892) what is not PVALID and has no small letter that is. What Unicode 14 does not have yet may stand between.
create or replace function unfit_in_domain() returns text
language sql immutable parallel safe
return '\u00A1-\u00B6\u00B8-\u00BF\u00D7\u00F7\u0132\u0133\u013F\u0140\u0149\u017F\u01C4-\u01CC\u01F1-\u01F3\u02B0-\u02B8\u02C2-\u02C5\u02D2-\u02EB'
    || '\u02ED\u02EF-\u02FF\u0345\u037A\u0384\u0385\u03D0-\u03D6\u03F0-\u03F2\u03F5\u03F6\u03F9\u0482\u0488\u0489\u055A-\u055F\u0587\u0589-\u058F'
    || '\u05BE\u05C0\u05C3\u05C6\u0606-\u060F\u061B-\u061F\u0640\u066A-\u066D\u0675-\u0678\u06D4\u06DE\u06E9\u0700-\u070D\u07F6-\u07FA\u07FE\u07FF'
    || '\u0830-\u083E\u085E\u0888\u0964\u0965\u0970\u09F2-\u09FB\u09FD\u0A76\u0AF0\u0AF1\u0B70\u0B72-\u0B77\u0BF0-\u0BFA\u0C77-\u0C7F\u0C84\u0D4F'
    || '\u0D58-\u0D5E\u0D70-\u0D79\u0DF4\u0E33\u0E3F\u0E4F\u0E5A\u0E5B\u0EB3\u0EDC\u0EDD\u0F01-\u0F0A\u0F0C-\u0F17\u0F1A-\u0F1F\u0F2A-\u0F34\u0F36'
    || '\u0F38\u0F3A-\u0F3D\u0F77\u0F79\u0F85\u0FBE-\u0FC5\u0FC7-\u0FDA\u104A-\u104F\u109E\u109F\u10FB\u10FC\u1100-\u11FF\u1360-\u137C\u1390-\u1399'
    || '\u1400\u166D\u166E\u169B\u169C\u16EB-\u16F0\u1735\u1736\u17D4-\u17D6\u17D8-\u17DB\u17F0-\u180A\u1940-\u1945\u19DA-\u19FF\u1A1E\u1A1F'
    || '\u1AA0-\u1AA6\u1AA8-\u1AAD\u1ABE\u1B5A-\u1B6A\u1B74-\u1B7E\u1BFC-\u1BFF\u1C3B-\u1C3F\u1C7E-\u1C88\u1CC0-\u1CC7\u1CD3\u1D2C-\u1D2E'
    || '\u1D30-\u1D3A\u1D3C-\u1D4D\u1D4F-\u1D6A\u1D78\u1D9B-\u1DBF\u1E9A\u1E9B\u1F80-\u1FAF\u1FB2-\u1FB4\u1FB7\u1FBC\u1FBD\u1FBF-\u1FC4\u1FC7'
    || '\u1FCC-\u1FCF\u1FDD-\u1FDF\u1FED-\u1FF4\u1FF7\u1FFC-\u208E\u2090-\u2125\u2127-\u2129\u212C-\u2131\u2133-\u214D\u214F-\u2182\u2185-\u2BFF'
    || '\u2C7C\u2C7D\u2CE5-\u2CEA\u2CF9-\u2CFF\u2D6F\u2D70\u2E00-\u2E2E\u2E30-\u3004\u3008-\u3029\u302E-\u303B\u303D-\u303F\u309B\u309C\u309F\u30A0'
    || '\u30FF\u3131-\u319F\u31C0-\u31E3\u3200-\u33FF\u4DC0-\u4DFF\uA490-\uA4C6\uA4FE\uA4FF\uA60D-\uA60F\uA670-\uA673\uA67E\uA69C\uA69D\uA6E6-\uA6EF'
    || '\uA6F2-\uA716\uA720\uA721\uA770\uA789\uA78A\uA7F2-\uA7F4\uA7F8\uA7F9\uA828-\uA82B\uA830-\uA839\uA874-\uA877\uA8CE\uA8CF\uA8F8-\uA8FA\uA8FC'
    || '\uA92E\uA92F\uA95F-\uA97C\uA9C1-\uA9CD\uA9DE\uA9DF\uAA5C-\uAA5F\uAA77-\uAA79\uAADE\uAADF\uAAF0\uAAF1\uAB5B-\uAB5F\uAB69-\uAB6B\uABEB'
    || '\uD7B0-\uD7FB\uFB00-\uFB17\uFB20-\uFB29\uFB4F-\uFE19\uFE30-\uFE72\uFE74-\uFFFD\U00010100-\U000101FC\U000102E1-\U000102FB'
    || '\U00010320-\U00010323\U00010341\U0001034A\U0001039F\U000103D0-\U000103D5\U0001056F\U00010781-\U000107BA\U00010857-\U0001085F'
    || '\U00010877-\U0001087F\U000108A7-\U000108AF\U000108FB-\U000108FF\U00010916-\U0001091F\U0001093F\U000109BC\U000109BD\U000109C0-\U000109FF'
    || '\U00010A40-\U00010A58\U00010A7D-\U00010A7F\U00010A9D-\U00010A9F\U00010AC8\U00010AEB-\U00010AF6\U00010B39-\U00010B3F\U00010B58-\U00010B5F'
    || '\U00010B78-\U00010B7F\U00010B99-\U00010BAF\U00010CFA-\U00010CFF\U00010E60-\U00010E7E\U00010EAD\U00010F1D-\U00010F26\U00010F51-\U00010F59'
    || '\U00010F86-\U00010F89\U00010FC5-\U00010FCB\U00011047-\U00011065\U000110BB-\U000110C1\U00011140-\U00011143\U00011174\U00011175'
    || '\U000111C5-\U000111C8\U000111CD\U000111DB\U000111DD-\U000111F4\U00011238-\U0001123D\U000112A9\U0001144B-\U0001144F\U0001145A-\U0001145D'
    || '\U000114C6\U000115C1-\U000115D7\U00011641-\U00011643\U00011660-\U0001166C\U000116B9\U0001173A-\U0001173F\U0001183B\U000118EA-\U000118F2'
    || '\U00011944-\U00011946\U000119E2\U00011A3F-\U00011A46\U00011A9A-\U00011A9C\U00011A9E-\U00011AA2\U00011C41-\U00011C45\U00011C5A-\U00011C71'
    || '\U00011EF7\U00011EF8\U00011FC0-\U00011FFF\U00012400-\U00012474\U00012FF1\U00012FF2\U00016A6E\U00016A6F\U00016AF5\U00016B37-\U00016B3F'
    || '\U00016B44\U00016B45\U00016B5B-\U00016B61\U00016E80-\U00016E9A\U00016FE2\U0001BC9C\U0001BC9F\U0001CF50-\U0001D245\U0001D2E0-\U0001D9FF'
    || '\U0001DA37-\U0001DA3A\U0001DA6D-\U0001DA74\U0001DA76-\U0001DA83\U0001DA85-\U0001DA8B\U0001E14F\U0001E2FF\U0001E8C7-\U0001E8CF'
    || '\U0001E95E-\U0001FBF9';

comment on function unfit_in_domain() is 'For the brackets of a pattern: the characters beyond ASCII that no domain holds, but for those of unfit().';

-- Of Cherokee, and of no other letters, IDNA takes the capitals for the small ones. For lower() İ is i, with no dot to tell it from I.
create or replace function domain_folded(domain text) returns text
language sql immutable parallel safe
return translate(
    normalize(lower(replace(normalize(domain), 'İ', E'i\u0307') collate unicode_case)),
    'ᏸᏹᏺᏻᏼᏽꭰꭱꭲꭳꭴꭵꭶꭷꭸꭹꭺꭻꭼꭽꭾꭿꮀꮁꮂꮃꮄꮅꮆꮇꮈꮉꮊꮋꮌꮍꮎꮏꮐꮑꮒꮓꮔꮕꮖꮗꮘꮙꮚꮛꮜꮝꮞꮟꮠꮡꮢꮣꮤꮥꮦꮧꮨꮩꮪꮫꮬꮭꮮꮯꮰꮱꮲꮳꮴꮵꮶꮷꮸꮹꮺꮻꮼꮽꮾꮿ',
    'ᏰᏱᏲᏳᏴᏵᎠᎡᎢᎣᎤᎥᎦᎧᎨᎩᎪᎫᎬᎭᎮᎯᎰᎱᎲᎳᎴᎵᎶᎷᎸᎹᎺᎻᎼᎽᎾᎿᏀᏁᏂᏃᏄᏅᏆᏇᏈᏉᏊᏋᏌᏍᏎᏏᏐᏑᏒᏓᏔᏕᏖᏗᏘᏙᏚᏛᏜᏝᏞᏟᏠᏡᏢᏣᏤᏥᏦᏧᏨᏩᏪᏫᏬᏭᏮᏯ'
);

comment on function domain_folded(text) is 'A domain in the case, and composed, as IDNA has it.';

-- IDNA 2008 but for what hangs on the characters beside one (bidi, context), which handlers/http/addresses.py asks, too. A space
-- stands for a label that is none, as nothing can follow it.
create or replace function domain_in_ascii(domain text) returns text
language sql immutable parallel safe
begin atomic
    select case when octet_length(whole.domain) <= 253 then whole.domain else '' end
    from (
        select coalesce(string_agg(
            case
                when label.text not like 'xn--%' and octet_length(label.text) = char_length(label.text) then label.text
                when octet_length(label.letters) = char_length(label.letters)
                    or label.letters <> domain_folded(label.letters)
                    or label.letters ~ ('[\u0001-\u002C./:-`{-\u007F' || unfit() || unfit_in_domain() || ']|^-|-$|^..--')
                    then ' '
                else punycode_encoded(label.letters)
            end,
            '.' order by label.place
        ), '') as domain
        from (
            select
                part.text,
                part.place,
                case
                    when part.text like 'xn--%' and octet_length(part.text) = char_length(part.text) then punycode_decoded(part.text)
                    else part.text
                end as letters
            from string_to_table(domain_folded(domain_in_ascii.domain), '.') with ordinality as part (text, place)
        ) as label
    ) as whole;
end;

comment on function domain_in_ascii(text) is 'A domain as DNS is asked for it, its labels in Punycode where they are not ASCII; no domain where there is no such.';

-- RFC 5321 and 6531: dots between atoms, or quoted, though without an "@". The first pattern decides for nearly all, in a tenth of the
-- time that the second takes; as in is_web_address().
-- In plpgsql, which keeps its plan: a check in SQL is planned anew by each statement that saves a row. What it calls has its schema
-- before it, because what pg_dump wrote is restored while none is searched.
create or replace function is_email(value text) returns boolean
language plpgsql immutable parallel safe
as $$
begin
    return (octet_length(value) <= 64 and value ~ '^([A-Za-z0-9]+[.+_-])*[A-Za-z0-9]+@([A-Za-z0-9]+[.-])*[A-Za-z0-9]+\.[A-Za-z][A-Za-z]+$')
        or case
            when octet_length(value) = char_length(value) and strpos(lower(value), 'xn--') = 0 then value
            else normalize(regexp_replace(value, '@.*', '')) || '@' || public.domain_in_ascii(regexp_replace(value, '^[^@]*@?', ''))
        end ~ (
            '^(?:[^"(),.:;<>@\[\\\]' || public.unfit() || ']+(?:\.[^"(),.:;<>@\[\\\]' || public.unfit() || ']+)*|"(?:[^"\\@' || public.unfit() || ']|\\[!-?A-~])*")'
            || '@(?:(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z0-9][A-Za-z0-9-]{0,61}[A-Za-z0-9]|[Ll][Oo][Cc][Aa][Ll][Hh][Oo][Ss][Tt]'
            || '|\[(?:25[0-5]|2[0-4][0-9]|[01]?[0-9]?[0-9])(?:\.(?:25[0-5]|2[0-4][0-9]|[01]?[0-9]?[0-9])){3}\])$'
        );
end
$$;

comment on function is_email(text) is 'Whether a text is an e-mail address, its domain in letters or in Punycode.';

-- RFC 3986, and RFC 3987 for other letters. Of an IPv6 address no more is asked than that it looks like one.
create or replace function is_web_address(value text) returns boolean
language plpgsql immutable parallel safe
as $$
begin
    return (
            octet_length(split_part(value, '/', 3)) <= 63
            and value ~ '^https?://([A-Za-z0-9]+[.-])*[A-Za-z]+(/([A-Za-z0-9._~!$&()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*)?$'
        )
        or case
            when octet_length(value) = char_length(value) and strpos(lower(value), 'xn--') = 0 then value
            else coalesce(substring(value from '^[A-Za-z]+://(?:[^/?#@]*@)?'), '')
                || public.domain_in_ascii(regexp_replace(value, '^[A-Za-z]+://(?:[^/?#@]*@)?([^/?#:\[\]]*).*', '\1'))
                || regexp_replace(value, '^[A-Za-z]+://(?:[^/?#@]*@)?[^/?#:\[\]]*', '')
        end ~ (
            '^[Hh][Tt][Tt][Pp][Ss]?://(?:(?:[A-Za-z0-9._~!$&''()*+,;=:-]|%[0-9A-Fa-f]{2})*@)?'
            || '(?:(?![0-9.]+(?:[:/?#]|$))[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*\.?'
            || '|(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(?:\.(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])){3}'
            || '|\[[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*\])'
            || '(?::0*(?:6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[0-9]{1,4}))?'
            || '(?:[/?](?:[^"#%<>\[\\\]^`{|}' || public.unfit() || ']|%[0-9A-Fa-f]{2})*)?(?:#(?:[^"#%<>\[\\\]^`{|}' || public.unfit() || ']|%[0-9A-Fa-f]{2})*)?$'
        );
end
$$;

comment on function is_web_address(text) is 'Whether a text is an http or https URL, also one whose host is in letters.';

-- RFC 3986, 6.2.2.1: no more than the case of the scheme and of the host, and its Punycode.
create or replace function web_address_key(url text) returns text
language sql immutable parallel safe
return case
    when is_web_address(url) then lower(substring(url from '^[A-Za-z]+://'))
        || coalesce(substring(url from '^[A-Za-z]+://([^/?#@]*@)'), '')
        || lower(domain_in_ascii(regexp_replace(url, '^[A-Za-z]+://(?:[^/?#@]*@)?([^/?#:]*|\[.*?\]).*', '\1')))
        || regexp_replace(url, '^[A-Za-z]+://(?:[^/?#@]*@)?(?:[^/?#:\[]+|\[.*?\])', '')
    else url
end;

comment on function web_address_key(text) is 'What two URLs share that are one: their scheme and host are so whatever the case, and an internationalised host is its Punycode.';
