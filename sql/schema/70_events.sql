-- 70 Notifications: events that somebody is to be told of. What waits lies in an outbox beside them, which the database keeps itself:
-- whoever inserts an event, by whatever means, has queued it; nothing but the database decides what is still to be done.

-- UUID version 7 (RFC 9562): 48 bits of milliseconds, the version, 12 bits of the fraction below, then chance. PostgreSQL 18 has
-- uuidv7(), 16 has not.
create or replace function uuid_in_time_order() returns uuid
language sql volatile parallel safe
return (
    select encode(
        overlay(
            uuid_send(gen_random_uuid())
            placing int8send(t.micros / 1000 << 16 | x'7000'::bigint | t.micros % 1000 * 4096 / 1000)
            from 1 for 8
        ),
        'hex'
    )::uuid
    from (select (extract(epoch from clock_timestamp()) * 1000000)::bigint) as t (micros)
);

comment on function uuid_in_time_order() is 'A new UUID, greater than those that were made a microsecond ago.';

create table if not exists events (
    id          uuid        not null default uuid_in_time_order(),
    version     integer     not null default 1,
    user_id     text        not null,
    description text        not null,
    status      text        not null default 'NotProcessed',
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now(),
    constraint events_pkey primary key (id),
    constraint events_user_id_check check (char_length(user_id) <= 200 and is_not_blank(user_id)),
    constraint events_description_check check (char_length(description) <= 10000 and is_not_blank(description)),
    constraint events_status_check check (status in ('NotProcessed', 'Processed', 'Failed'))
);

comment on table events is 'What somebody is to be told.';
comment on column events.id is 'In the order of time; the event_id.';
comment on column events.version is 'Counts the saves that changed something; 1 when created.';
comment on column events.user_id is 'Who is to be told: a name that whoever sends it knows, no user of ours.';
comment on column events.description is 'What they are told.';
comment on column events.status is 'NotProcessed until it was sent; Failed once that was tried in vain too often.';
comment on column events.created_at is 'When the row was inserted.';
comment on column events.updated_at is 'When this version was saved.';
comment on constraint events_pkey on events is 'Another event has this id.';
comment on constraint events_user_id_check on events is 'Must be 1 to 200 characters, not blank.';
comment on constraint events_description_check on events is 'Must be 1 to 10000 characters, not blank.';
comment on constraint events_status_check on events is 'Must be NotProcessed, Processed or Failed.';

-- ?user_id=.
create index if not exists events_user_id_id_idx on events (user_id, id);

-- ?status=.
create index if not exists events_status_id_idx on events (status, id);

create or replace trigger events_10_count_version
before update on events
for each row
execute function count_version();

select define_type('events_item', $$
    event_id    uuid,
    version     integer,
    user_id     text,
    description text,
    status      text,
    created_at  text,
    updated_at  text
$$);

comment on type events_item is 'The members of what the service answers for a row of events.';

create or replace function events_json(r events) returns json
language sql stable parallel safe
return to_json(
    row(
        r.id,
        r.version,
        r.user_id,
        r.description,
        r.status,
        iso8601(r.created_at),
        iso8601(r.updated_at)
    )::events_item
);

comment on function events_json(events) is 'An event as the service answers it.';

create or replace function matches(e events, user_id text, status text) returns boolean
language sql stable parallel safe
return (matches.user_id = '' or e.user_id = matches.user_id)
    and (matches.status = '' or e.status = matches.status);

comment on function matches(events, text, text) is 'Whether an event fits all filters that are given.';


-- The outbox ----------------------------------------------------------------------------------------------------------

-- Beside the event and not in it, because tries and times are no versions of it.
create table if not exists outbox (
    event_id uuid        not null,
    user_id  text        not null,
    relay_at timestamptz not null default now(),
    retry_at timestamptz,
    tries    integer     not null default 0,
    place    bigint      not null generated always as identity,
    dated_at timestamptz not null default now(),
    constraint outbox_pkey primary key (event_id),
    constraint outbox_event_id_fkey foreign key (event_id) references events (id) on delete cascade,
    constraint outbox_tries_check check (tries >= 0)
);

comment on table outbox is 'The events that are not processed yet: one row for each, made and removed with their status.';
comment on column outbox.event_id is 'The event.';
comment on column outbox.user_id is 'Whose line it stands in: events of one user are sent in their order.';
comment on column outbox.relay_at is 'When it is to be handed on (again): later than now while somebody has it in hand.';
comment on column outbox.retry_at is 'Until when it holds up its line after a try that failed; null before the first.';
comment on column outbox.tries is 'How many tries failed.';
comment on column outbox.place is 'Its place in the line: the order in which events were queued, whatever the clock said.';
comment on column outbox.dated_at is 'When it was said until when it waits: a clock that says less was set back since.';
comment on constraint outbox_pkey on outbox is 'The event waits already.';
comment on constraint outbox_event_id_fkey on outbox is 'There is no such event.';
comment on constraint outbox_tries_check on outbox is 'Must be at least 0.';

-- outbox.claim.
create index if not exists outbox_relay_at_event_id_idx on outbox (relay_at, event_id);

-- outbox.first and outbox.processed walk the line of one user.
create index if not exists outbox_user_id_place_idx on outbox (user_id, place);

-- outbox.reckon.
create index if not exists outbox_dated_at_idx on outbox (dated_at);

create or replace function keep_outbox() returns trigger
language plpgsql
as $$
begin
    if new.status <> 'NotProcessed' then
        delete from outbox as o where o.event_id = new.id;
    elsif tg_op = 'INSERT' then
        insert into outbox (event_id, user_id) values (new.id, new.user_id);
    else
        insert into outbox as o (event_id, user_id) values (new.id, new.user_id)
        on conflict on constraint outbox_pkey do update
        set user_id = excluded.user_id
        where o.user_id <> excluded.user_id;
    end if;
    return null;
end
$$;

comment on function keep_outbox() is 'Trigger: an event lies in the outbox exactly while it is NotProcessed.';

create or replace trigger events_20_keep_outbox
after insert or update on events
for each row
execute function keep_outbox();

create table if not exists event_failures (
    id         bigint      not null generated always as identity,
    event_id   uuid        not null,
    try        integer     not null,
    reason     text        not null,
    failed_at  timestamptz not null default now(),
    constraint event_failures_pkey primary key (id),
    constraint event_failures_event_id_fkey foreign key (event_id) references events (id) on delete cascade,
    constraint event_failures_try_check check (try > 0)
);

comment on table event_failures is 'The tries to send an event that failed.';
comment on column event_failures.id is 'Given by the database, in the order of time.';
comment on column event_failures.event_id is 'The event.';
comment on column event_failures.try is 'Which try it was, from 1; from 1 again after the event was queued again.';
comment on column event_failures.reason is 'Why it failed.';
comment on column event_failures.failed_at is 'When.';
comment on constraint event_failures_pkey on event_failures is 'Another failure has this id.';
comment on constraint event_failures_event_id_fkey on event_failures is 'There is no such event.';
comment on constraint event_failures_try_check on event_failures is 'Must be at least 1.';

-- events.failures, and the check when an event is deleted.
create index if not exists event_failures_event_id_id_idx on event_failures (event_id, id);

select define_type('event_failures_item', $$
    id        bigint,
    try       integer,
    reason    text,
    failed_at text
$$);

comment on type event_failures_item is 'The members of what the service answers for a row of event_failures.';

create or replace function event_failures_json(r event_failures) returns json
language sql stable parallel safe
return to_json(row(r.id, r.try, r.reason, iso8601(r.failed_at))::event_failures_item);

comment on function event_failures_json(event_failures) is 'A failed try as the service answers it.';


-- The broker ----------------------------------------------------------------------------------------------------------

create table if not exists broker (
    name    text        not null,
    up      boolean     not null,
    said_at timestamptz not null default now(),
    constraint broker_pkey primary key (name)
);

comment on table broker is 'What the relays last saw of the broker, so that no request has to ask it.';
comment on column broker.name is 'The queue that events go through.';
comment on column broker.up is 'Whether it takes them.';
comment on column broker.said_at is 'When a relay last said so.';
comment on constraint broker_pkey on broker is 'There is one row a queue.';


-- History -------------------------------------------------------------------------------------------------------------

select history.track('events', 'event');
select history.show_past('events');
