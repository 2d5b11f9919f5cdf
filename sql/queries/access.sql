-- Access: who holds a token, and what that allows. How tokens are made and taken back is in tokens.sql.

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
