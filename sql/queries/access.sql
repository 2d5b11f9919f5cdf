-- Access: tokens. The service asks who holds one; they are made and taken back by `flask token`, with the rights of the owner.

-- name: made
-- Whether there is any token, be it good or not: from then on nobody is let in without one.
select exists (select from tokens) as made

-- name: holder
-- Who holds a token, as what, and whether its last use should be noted. No row: it is not good, or no longer.
select
    t.id,
    t.name,
    t.role,
    coalesce(t.project::text, '') as project,
    t.last_used_at is null or t.last_used_at < now() - interval '1 minute' as unnoted
from tokens as t
where t.sha256 = :'sha256'
    and t.revoked_at is null
    and (t.expires_at is null or t.expires_at > now())

-- name: bind
-- Until the end of this transaction nothing is to be seen but one project and what is below it.
select
    set_config('app.project', :'project', true) as project,
    set_config('role', 'rowhouse_project', true) as role

-- name: used
-- A token's last use noted.
update tokens as t
set last_used_at = now()
where t.id = :'id'::integer

-- name: take
-- A share of what the holder of a token may ask in this minute: how many requests were granted, how many are left for others, and for how many seconds.
insert into quotas as q (holder, minute, taken)
values (:'holder', date_trunc('minute', now()), :'share'::bigint)
on conflict (holder) do update
set minute = greatest(q.minute, excluded.minute),
    taken = case when q.minute >= excluded.minute then q.taken else 0 end + excluded.taken
returning
    least(:'share'::bigint, greatest(0, :'limit'::bigint - q.taken + :'share'::bigint)) as granted,
    greatest(0, :'limit'::bigint - q.taken) as others,
    extract(epoch from q.minute + interval '1 minute' - now())::double precision as seconds

-- name: create
-- A new token; expires is an interval from now on, or empty for never; project the only one that it reaches, or empty for all there
-- is. No row: there is no such project.
insert into tokens as t (name, role, sha256, expires_at, project)
select
    :'name',
    :'role',
    :'sha256',
    now() + nullif(:'expires', '')::interval,
    nullif(:'project', '')::bigint
where :'project' = ''
    or exists (select from projects as p where p.id = nullif(:'project', '')::bigint)
returning
    t.id,
    t.expires_at

-- name: all
-- Every token, without what it is.
select
    t.id,
    t.name,
    t.role,
    t.project,
    t.created_at,
    t.expires_at,
    t.revoked_at,
    t.last_used_at
from tokens as t
order by t.id

-- name: revoke
-- A token taken back. No row: there is no good one of this name.
update tokens as t
set revoked_at = now()
where t.name = :'name'
    and t.revoked_at is null
returning t.id
