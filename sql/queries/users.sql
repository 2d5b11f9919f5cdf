-- Users: /users, /users/search, /user.
--
-- `body` is the answer; other columns are for its headers (version → ETag, next → Link). An empty parameter counts as absent.

-- name: get
-- One user. No row: there is none.
select
    u.version,
    pick(user_json(u), :'fields') as body
from users as u
where u.id = :'id'::bigint

-- name: as_of
-- One user as it was: in a version, or at a time. No row: there was none.
select
    r.version,
    pick(user_json(r), :'fields') as body
from history.as_of('users', :'id'::bigint::text, :'as_of', (select to_jsonb(u) from users as u where u.id = :'id'::bigint)) as past (object)
cross join jsonb_populate_record(null::users, past.object) as r

-- name: by_email
-- One user by e-mail, whatever the case. No row: there is none.
select
    u.version,
    pick(user_json(u), :'fields') as body
from users as u
where email_key(u.email) = email_key(:'email')

-- name: id_by_email
-- Whose e-mail this is, whatever the case. No row: nobody's.
select u.id
from users as u
where email_key(u.email) = email_key(:'email')

-- name: list
-- A page of users by id, after the one with `after_id`.
select
    page.next,
    page.body,
    history.place() as place
from page(array(
    select u.listed
    from (
        select listed(user_json(u), '', u.id::text, :'fields')
        from users as u
        where u.id > (select id_after(:'after_id'))
            and matches(u, :'id', :'email', :'name', :'address') -- filter
        order by u.id
        limit 1001
    ) as u (listed)
    limit (select page_size(:'limit') + 1)
), :'sort', page_size(:'limit'), :'form')

-- name: list_desc
-- The same from the last to the first.
select
    page.next,
    page.body,
    history.place() as place
from page(array(
    select u.listed
    from (
        select listed(user_json(u), '', u.id::text, :'fields')
        from users as u
        where u.id < (select id_before(:'after_id'))
            and matches(u, :'id', :'email', :'name', :'address') -- filter
        order by u.id desc
        limit 1001
    ) as u (listed)
    limit (select page_size(:'limit') + 1)
), '-id', page_size(:'limit'), :'form')

-- name: list_by_email
-- By email, after the one with `after_key` and `after_id`.
select
    page.next,
    page.body,
    history.place() as place
from page(array(
    select u.listed
    from (
        select listed(user_json(u), email_key(u.email), u.id::text, :'fields')
        from users as u
        where (email_key(u.email), u.id) > ((select :'after_key'), id_after(:'after_id'))
            and matches(u, :'id', :'email', :'name', :'address') -- filter
        order by email_key(u.email)
        limit 1001
    ) as u (listed)
    limit (select page_size(:'limit') + 1)
), 'email', page_size(:'limit'), :'form')

-- name: list_by_email_desc
-- By email, from the last to the first.
select
    page.next,
    page.body,
    history.place() as place
from page(array(
    select u.listed
    from (
        select listed(user_json(u), email_key(u.email), u.id::text, :'fields')
        from users as u
        where (email_key(u.email), u.id) < ((select case :'after_id' when '' then (select max(email_key(last.email)) from users as last) else :'after_key' end), id_before(:'after_id'))
            and matches(u, :'id', :'email', :'name', :'address') -- filter
        order by email_key(u.email) desc
        limit 1001
    ) as u (listed)
    limit (select page_size(:'limit') + 1)
), '-email', page_size(:'limit'), :'form')

-- name: list_by_name
-- By name, after the one with `after_key` and `after_id`.
select
    page.next,
    page.body,
    history.place() as place
from page(array(
    select u.listed
    from (
        select listed(user_json(u), coalesce(u.name, ''), u.id::text, :'fields')
        from users as u
        where (coalesce(u.name, ''), u.id) > ((select :'after_key'), id_after(:'after_id'))
            and matches(u, :'id', :'email', :'name', :'address') -- filter
        order by coalesce(u.name, ''), u.id
        limit 1001
    ) as u (listed)
    limit (select page_size(:'limit') + 1)
), 'name', page_size(:'limit'), :'form')

-- name: list_by_name_desc
-- By name, from the last to the first.
select
    page.next,
    page.body,
    history.place() as place
from page(array(
    select u.listed
    from (
        select listed(user_json(u), coalesce(u.name, ''), u.id::text, :'fields')
        from users as u
        where (coalesce(u.name, ''), u.id) < ((select case :'after_id' when '' then (select max(coalesce(last.name, '')) from users as last) else :'after_key' end), id_before(:'after_id'))
            and matches(u, :'id', :'email', :'name', :'address') -- filter
        order by coalesce(u.name, '') desc, u.id desc
        limit 1001
    ) as u (listed)
    limit (select page_size(:'limit') + 1)
), '-name', page_size(:'limit'), :'form')

-- name: list_by_created_at
-- By created_at, after the one with `after_key` and `after_id`.
select
    page.next,
    page.body,
    history.place() as place
from page(array(
    select u.listed
    from (
        select listed(user_json(u), iso8601(u.created_at), u.id::text, :'fields')
        from users as u
        where (u.created_at, u.id) > ((select coalesce(nullif(:'after_key', '')::timestamptz, '-infinity')), id_after(:'after_id'))
            and matches(u, :'id', :'email', :'name', :'address') -- filter
        order by u.created_at, u.id
        limit 1001
    ) as u (listed)
    limit (select page_size(:'limit') + 1)
), 'created_at', page_size(:'limit'), :'form')

-- name: list_by_created_at_desc
-- By created_at, from the last to the first.
select
    page.next,
    page.body,
    history.place() as place
from page(array(
    select u.listed
    from (
        select listed(user_json(u), iso8601(u.created_at), u.id::text, :'fields')
        from users as u
        where (u.created_at, u.id) < ((select coalesce(nullif(:'after_key', '')::timestamptz, 'infinity')), id_before(:'after_id'))
            and matches(u, :'id', :'email', :'name', :'address') -- filter
        order by u.created_at desc, u.id desc
        limit 1001
    ) as u (listed)
    limit (select page_size(:'limit') + 1)
), '-created_at', page_size(:'limit'), :'form')

-- name: search
-- The same page by id as users.list with an address of three letters or more, by one plan that is kept: it tries what is cheapest and
-- goes on only where that was not enough. Those who follow tell whether the part is frequent. Is it not, the index finds all who have
-- it. Is it, a page is soon full on a walk by id. That has an end, because those with this part may all come later: after the last it
-- met they are found by the index. Where fewer than 200 follow, they are walked.
-- All parameters come from `asked`, so that the plan is the same whatever they are. A `+ 0` keeps the walk by id out of what is the
-- address index's, and a join with `asked` keeps out parallel workers, who take 7 ms to start.
with asked as materialized (
    select
        folded(:'address') as part,
        trigrams_of_part(:'address') as trigrams,
        coalesce(nullif(:'after_id', '')::bigint, 0) as after,
        page_size(:'limit') as size
),
sampled as materialized (
    select
        count(next.id) as users,
        count(next.id) filter (where strpos(folded(next.address), (select asked.part from asked)) > 0) as matches
    from (
        select
            u.id,
            u.address
        from users as u
        where u.id > (select asked.after from asked)
        order by u.id
        limit 200
    ) as next
),
few as materialized (
    select
        u.id,
        u.address
    from asked
    join sampled on sampled.users = 200 and sampled.matches < 3
    join users as u on trigrams(u.address) @> asked.trigrams
    limit 501
),
frequent as materialized (
    select sampled.users < 200 or sampled.matches >= 3 or (select count(few.id) from few) > 500 as so
    from sampled
),
walked as materialized (
    select next.id
    from (
        select
            u.id,
            u.address
        from users as u
        where u.id > (select asked.after from asked)
        order by u.id
        limit (select 400 * (asked.size + 1) from asked)
    ) as next
    where (select frequent.so from frequent)
        and strpos(folded(next.address), (select asked.part from asked)) > 0
    order by next.id
    limit (select asked.size + 1 from asked)
),
last as materialized (
    select u.id
    from users as u
    where (select frequent.so and (select count(walked.id) from walked) <= asked.size from asked cross join frequent)
        and u.id > (select asked.after from asked)
    order by u.id
    offset (select 400 * (asked.size + 1) - 1 from asked)
    limit 1
),
remaining as materialized (
    select u.id
    from asked
    cross join last
    join users as u on trigrams(u.address) @> asked.trigrams
    where strpos(folded(u.address), asked.part) > 0
        and u.id + 0 > last.id
    order by u.id + 0
    limit (select asked.size + 1 from asked)
)
select
    page.next,
    page.body,
    history.place() as place
from page(array(
    select listed(user_json(u), '', u.id::text, :'fields')
    from (
        select few.id
        from asked
        join frequent on not frequent.so
        join few on few.id > asked.after and strpos(folded(few.address), asked.part) > 0
        union all
        select walked.id from walked
        union all
        select remaining.id from remaining
        order by id
        limit (select asked.size + 1 from asked)
    ) as found
    join users as u on u.id = found.id
    order by u.id
), '', page_size(:'limit'), :'form')

-- name: create
-- A new user.
insert into users as u (email, name, address, image, text)
select
    n.email,
    n.name,
    n.address,
    n.image,
    n.text
from jsonb_populate_record(null::users, :'body'::jsonb) as n
returning
    u.id,
    u.version,
    user_json(u) as body

-- name: change
-- The members given, saved over the version read (one of a comma-separated list, or * for any). No row: gone, or changed since.
-- With a `base` over any version: what the caller changed since then; an error where others changed the same.
update users as u
set (email, name, address, image, text) = (
    select
        n.email,
        n.name,
        n.address,
        n.image,
        n.text
    from jsonb_populate_record(
        u,
        case
            when :'base' in ('', u.version::text) then :'body'::jsonb
            else history.mine('users', to_jsonb(u), nullif(:'base', '')::integer, :'body'::jsonb)
        end
    ) as n
)
where u.id = :'id'::bigint
    and (:'base' <> '' or :'versions' = '*' or u.version::text = any (string_to_array(:'versions', ',')))
returning
    u.version,
    user_json(u) as body

-- name: remove
-- A user gone, if it still is the version read. No row: gone already, or changed since.
delete from users as u
where u.id = :'id'::bigint
    and (:'versions' = '*' or u.version::text = any (string_to_array(:'versions', ',')))
returning
    u.version

-- name: put_by_email
-- The text of the user with this e-mail, who is made if unknown.
insert into users as u (email, text)
values (:'email', :'body'::jsonb ->> 'text')
on conflict (email_key(email)) do update
set text = excluded.text
returning
    u.id,
    u.version,
    u.xmax = 0 as created,
    user_json(u) as body
