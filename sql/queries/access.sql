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

-- name: rights
-- What whoever asks lacks to make the tables and roles: the statement that gives it, and whether they may run it themselves. No row: they
-- have all of it. It asks nothing that the service made, as it is asked before.
with needed (role) as (
    values
        ('rowhouse_service'),
        ('rowhouse_project'),
        ('rowhouse_readonly'),
        ('rowhouse_backup')
),
me as (
    select
        r.rolname as name,
        r.rolsuper as is_superuser,
        r.rolcreaterole or r.rolsuper as makes_roles
    from pg_roles as r
    where r.rolname = current_user
)
select
    given.statement,
    given.may
from (
    select
        1 as place,
        format('create role %I nologin;', n.role) as statement,
        me.makes_roles as may
    from needed as n
    cross join me
    where not exists (select from pg_roles as r where r.rolname = n.role)
    union all
    select
        2,
        format('grant %I to %I with inherit true, set true;', n.role, me.name),
        case
            when me.is_superuser then true
            when r.oid is null then me.makes_roles
            else pg_has_role(r.oid, 'usage with admin option')
        end
    from needed as n
    cross join me
    left join pg_roles as r on r.rolname = n.role
    where r.oid is null
        or not (pg_has_role(r.oid, 'set') and pg_has_role(r.oid, 'usage'))
    union all
    select
        3,
        format('grant create on database %I to %I;', d.datname, me.name),
        me.is_superuser
    from pg_database as d
    cross join me
    where d.datname = current_database()
        and not has_database_privilege(d.oid, 'create')
    union all
    select
        4,
        format('grant usage, create on schema public to %I;', me.name),
        me.is_superuser
    from me
    where not has_schema_privilege('public', 'usage')
        or not has_schema_privilege('public', 'create')
) as given
order by
    given.place,
    given.statement
