-- 0030 Composed after folding: the ss of an ß may be composed with the accent behind it, so that ß with an acute is SŚ in small letters.

-- The book makes an index anew only where a key may have changed, as that is long work among many. Of what comes before its time
-- nothing is called here: a database from before 0015 has no folded().
-- squawk-ignore-file
do $$
begin
    if exists (select from users as u where u.email ~ '[ßẞ][^\u0001-\u007F]' or u.email ~* 'xn--') then
        drop index if exists users_email_key;
    end if;
    if exists (select from users as u where u.address ~ '[ßẞ][^\u0001-\u007F]') then
        drop index if exists users_address_idx;
    end if;
end
$$;

insert into schema_migrations (name) values ('0030_composed_after_folding');
