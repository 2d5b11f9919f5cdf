-- 0015 Whatever the case: the e-mail's unique key and the search know all of Unicode's case; the book makes both indexes anew.

drop index if exists users_email_key;
drop index if exists users_address_idx;

create or replace function has_invisible(value text) returns boolean
language sql immutable parallel safe
return value ~ ('[\u0001-\u001F\u007F-\u009F\u00AD\u034F\u061C\u115F\u1160\u17B4\u17B5\u180B-\u180F\u200B-\u200F\u2028-\u202E\u2060-\u206F\u3164'
    || '\uFE00-\uFE0F\uFEFF\uFFA0\uFFF0-\uFFFB\U0001BCA0-\U0001BCA3\U0001D173-\U0001D17A\U000E0000-\U000E0FFF]');

-- Invisible characters are refused from now on. Rows that have some must be mended first: two of them may look the same.
do $$
declare
    found text;
begin
    select string_agg(u.id::text, ', ' order by u.id) into found from users as u where has_invisible(u.email);
    if found is not null then
        raise check_violation using message = 'These users have e-mail addresses with invisible characters, mend them first: ' || found;
    end if;
end
$$;

-- Read once under its lock: the same rows were read just above.
-- squawk-ignore-file
alter table users
drop constraint if exists users_email_check,
add constraint users_email_check check (
    char_length(email) <= 254 and email ~ '^[^@[:space:]]+@[^@[:space:]]+$' and not has_invisible(email)
);

insert into schema_migrations (name) values ('0015_whatever_the_case');
