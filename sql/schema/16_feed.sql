-- 16 Feed: what a reader of history needs to miss nothing and see nothing twice. The feed itself is sql/queries/feed.sql.

-- A reader's place is a snapshot: what is visible now and was not then is new, in whatever order it was committed. It means something
-- only in the database it is of, and only as long as nothing of what came after it was dropped.
create table if not exists history.horizon (
    feed   text not null default left(md5(gen_random_uuid()::text), 8),
    pruned xid8 not null default '0',
    constraint horizon_pkey primary key (feed)
);

comment on table history.horizon is 'How far back the feed reaches: one row.';
comment on column history.horizon.feed is 'The name of this feed; a cursor carries it.';
comment on column history.horizon.pruned is 'The latest transaction of which entries were dropped by history.prune().';
comment on constraint horizon_pkey on history.horizon is 'There is one horizon a feed.';

insert into history.horizon (feed)
select left(md5(gen_random_uuid()::text), 8)
where not exists (select from history.horizon);

create or replace function history.frame(e history.entries) returns json
language sql stable parallel safe
begin atomic
    select to_json(item)
    from (
        select
            e.project,
            json_build_object('obj_type', e.obj_type, 'obj_id', e.obj_id::json, 'action', e.action) as object,
            e.id,
            e.version,
            iso8601(e.operation_date) as operation_date,
            e.actor,
            case when e.obj_id is not null then history.diff(e.old_obj, e.new_obj) end as diff
    ) as item;
end;

comment on function history.frame(history.entries) is 'An entry as the channel sends it, but for its cursor.';
