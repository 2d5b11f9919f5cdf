-- Tokens: /tokens and `flask token`. What a token is, is told once, when it is made; how one is let in is in access.sql.

-- name: get
-- One token by id, without what it is. No row: there is none.
select tokens_json(t) as body
from tokens as t
where t.id = :'id'::bigint

-- name: list
-- A page of tokens, after the one with `after_id`.
select
    page.next,
    page.body,
    history.place() as place
from page(array(
    select r.listed
    from (
        select listed(tokens_json(r), '', r.id::text, :'fields')
        from tokens as r
        where r.id > (select id_after(:'after_id'))
        order by r.id
        limit 1001
    ) as r (listed)
    limit (select page_size(:'limit') + 1)
), :'sort', page_size(:'limit'), :'form')

-- name: list_desc
-- The same from the last to the first.
select
    page.next,
    page.body,
    history.place() as place
from page(array(
    select r.listed
    from (
        select listed(tokens_json(r), '', r.id::text, :'fields')
        from tokens as r
        where r.id < (select id_before(:'after_id'))
        order by r.id desc
        limit 1001
    ) as r (listed)
    limit (select page_size(:'limit') + 1)
), '-id', page_size(:'limit'), :'form')

-- name: create
-- A new token, good until `expires_at`, or for so long as the interval `expires` says, or until it is revoked; project the only one that
-- it reaches, or empty for all there is. No row: there is no such project.
select
    t.id,
    tokens_json(t) as body
from create_token(
    :'name',
    :'role',
    :'sha256',
    coalesce(nullif(:'expires_at', '')::timestamptz, now() + nullif(:'expires', '')::interval),
    nullif(:'project', '')::bigint
) as t

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
-- A token taken back. No row: there is no good one of this id.
select t.id
from revoke_token(:'id'::bigint) as t

-- name: revoke_named
-- The same by its name.
select r.id
from tokens as t
cross join revoke_token(t.id) as r
where t.name = :'name'
