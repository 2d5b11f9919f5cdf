-- 0006 Lines by place: events are sent in the order in which they were queued, and what a clock dated that was set back is due.

do $$
begin
    -- A database of the first release has no outbox yet.
    if to_regclass('outbox') is null then
        return;
    end if;
    alter table outbox
    add column if not exists place    bigint,
    add column if not exists dated_at timestamptz not null default now();
    update outbox as o
    set place = l.place
    from (select w.event_id, row_number() over (order by w.event_id) as place from outbox as w) as l
    where l.event_id = o.event_id;
    alter table outbox alter column place set not null;
    alter table outbox alter column place add generated always as identity;
    perform setval(pg_get_serial_sequence('outbox', 'place'), (select count(*) + 1 from outbox));
    drop index if exists outbox_user_id_event_id_idx;
end
$$;

insert into schema_migrations (name) values ('0006_lines_by_place');
