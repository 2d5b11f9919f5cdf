-- 20 Users: the people of all systems, found by id, by e-mail and by part of an address among ten million.

-- name, address and image may be absent, because /user?email= makes a person known by e-mail and text alone; /users asks for
-- all of them. The lengths are characters, as the client counts them.
create table if not exists users (
    id         bigint      not null generated always as identity,
    version    integer     not null default 1,
    email      text        not null,
    name       text,
    address    text,
    image      text,
    text       text,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint users_pkey primary key (id),
    constraint users_email_check check (char_length(email) <= 254 and is_email(email)),
    constraint users_name_check check (char_length(name) <= 30 and is_not_blank(name)),
    constraint users_address_check check (char_length(address) <= 100 and is_not_blank(address)),
    constraint users_image_check check (char_length(image) <= 100 and is_web_address(image)),
    constraint users_text_check check (char_length(text) <= 1000)
);

comment on table users is 'The people of all systems.';
comment on column users.id is 'Given by the database, never used again.';
comment on column users.version is 'Counts the saves that changed something; 1 when created.';
comment on column users.email is 'Where to write to; unique whatever the case, and whether its domain is spelled in letters or in Punycode.';
comment on column users.name is 'What to call them.';
comment on column users.address is 'Where they live, one line; any part of it can be searched for.';
comment on column users.image is 'An http or https address of a picture.';
comment on column users.text is 'Anything else about them.';
comment on column users.created_at is 'When the row was inserted.';
comment on column users.updated_at is 'When this version was saved.';
comment on constraint users_pkey on users is 'Another user has this id.';
comment on constraint users_email_check on users is 'Must be an e-mail address of at most 254 characters.';
comment on constraint users_name_check on users is 'Must be 1 to 30 characters, not blank.';
comment on constraint users_address_check on users is 'Must be 1 to 100 characters, not blank.';
comment on constraint users_image_check on users is 'Must be an http or https URL of at most 100 characters.';
comment on constraint users_text_check on users is 'Must be at most 1000 characters.';

-- users.by_email and ?email=, ?sort=email.
create unique index if not exists users_email_key on users (email_key(email));
comment on index users_email_key is 'Another user has this e-mail address.';

-- ?sort=name and ?name=. A person without a name stands first, and a key must not be null to be walked.
create index if not exists users_name_id_idx on users (coalesce(name, ''), id);

-- ?sort=created_at.
create index if not exists users_created_at_id_idx on users (created_at, id);

-- ?address=, users.search and users.list.
create index if not exists users_address_idx on users using gin (trigrams(address));

create or replace trigger users_10_count_version
before update on users
for each row
execute function count_version();

-- One place says what a client sees of a user; every statement that answers with one calls it. A type and one expression, because such
-- a function is inlined: 2 µs a row, against 6 for a function that selects.
select define_type('users_item', $$
    id         bigint,
    version    integer,
    email      text,
    name       text,
    address    text,
    image      text,
    text       text,
    created_at text,
    updated_at text
$$);

comment on type users_item is 'The members of what the service answers for a row of users.';

create or replace function user_json(u users) returns json
language sql stable parallel safe
return to_json(
    row(
        u.id,
        u.version,
        u.email,
        u.name,
        u.address,
        u.image,
        u.text,
        iso8601(u.created_at),
        iso8601(u.updated_at)
    )::users_item
);

comment on function user_json(users) is 'A user as the service answers it.';

create or replace function matches(u users, id text, email text, name text, address text) returns boolean
language sql stable parallel safe
return (matches.id = '' or u.id = nullif(matches.id, '')::bigint)
    and (matches.email = '' or email_key(u.email) = email_key(matches.email))
    and (matches.name = '' or coalesce(u.name, '') = matches.name)
    and (matches.address = '' or (
        (char_length(folded(matches.address)) < 3 or trigrams(u.address) @> trigrams_of_part(matches.address))
        and strpos(folded(u.address), folded(matches.address)) > 0
    ));

comment on function matches(users, text, text, text, text) is 'Whether a user fits all filters that are given.';

create or replace function history.meant(r users) returns jsonb
language sql stable parallel safe
set timezone = 'UTC'
return to_jsonb(r) || jsonb_build_object('email', email_key(r.email), 'image', web_address_key(r.image));

comment on function history.meant(users) is 'The fields of a user by what they mean: e-mail addresses that are one are equal, and so are URLs.';

select history.track('users', 'user', loads => true);
select history.show_past('users', for_all => true);

grant select (id, name, image) on past.users to rowhouse_project;
