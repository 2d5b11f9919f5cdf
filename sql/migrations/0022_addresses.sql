-- 0022 Addresses: what is an e-mail address, and a URL, is what RFC 6531, IDNA 2008 and RFC 3987 say; i with a dot above is İ.

-- So that the constraints have their functions; the book, which comes next, says the same of more. What passes here passes there, too.
create or replace function is_email(value text) returns boolean
language sql immutable parallel safe
return octet_length(value) <= 64 and value ~ '^([A-Za-z0-9]+[.+_-])*[A-Za-z0-9]+@([A-Za-z0-9]+[.-])*[A-Za-z0-9]+\.[A-Za-z][A-Za-z]+$';

create or replace function is_web_address(value text) returns boolean
language sql immutable parallel safe
return octet_length(split_part(value, '/', 3)) <= 63
    and value ~ '^https?://([A-Za-z0-9]+[.-])*[A-Za-z]+(/([A-Za-z0-9._~!$&()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*)?$';

-- Rows from before may break them, and are read as ever; they must be mended before they are changed.
-- squawk-ignore-file
alter table users
drop constraint if exists users_email_check,
drop constraint if exists users_image_check,
add constraint users_email_check check (char_length(email) <= 254 and is_email(email)) not valid,
add constraint users_image_check check (char_length(image) <= 100 and is_web_address(image)) not valid;

drop function if exists has_invisible(text);

do $$
begin
    alter table users validate constraint users_email_check;
exception
    when check_violation then raise notice 'users_email_check holds for new rows only: select id from users where not is_email(email)';
end
$$;

do $$
begin
    alter table users validate constraint users_image_check;
exception
    when check_violation then raise notice 'users_image_check holds for new rows only: select id from users where not is_web_address(image)';
end
$$;

-- The book makes an index anew only where a key may have changed, as that is long work among many.
do $$
begin
    if exists (select from users as u where strpos(u.email, chr(775)) > 0 or u.email ~* 'xn--') then
        drop index if exists users_email_key;
    end if;
    if exists (select from users as u where strpos(u.address, chr(775)) > 0) then
        drop index if exists users_address_idx;
    end if;
end
$$;

insert into schema_migrations (name) values ('0022_addresses');
