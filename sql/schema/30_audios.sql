-- 30 Audios: what a session measured: fifteen ticks, the one that was chosen, and how many steps it took.

create or replace function all_between(numbers double precision[], lowest double precision, highest double precision) returns boolean
language sql immutable parallel safe
return lowest <= all (numbers) and highest >= all (numbers);

comment on function all_between(double precision[], double precision, double precision) is 'Whether every number lies in a range; null where one is null.';

create table if not exists audios (
    id            bigint             not null generated always as identity,
    version       integer            not null default 1,
    session_id    bigint             not null,
    ticks         double precision[] not null,
    selected_tick integer            not null,
    step_count    integer            not null,
    created_at    timestamptz        not null default now(),
    updated_at    timestamptz        not null default now(),
    constraint audios_pkey primary key (id),
    constraint audios_session_id_key unique (session_id),
    constraint audios_session_id_check check (session_id > 0),
    constraint audios_ticks_check check (
        array_ndims(ticks) = 1 and cardinality(ticks) = 15 and all_between(ticks, -100, -10) is true
    ),
    constraint audios_selected_tick_check check (selected_tick between 0 and 14),
    constraint audios_step_count_check check (step_count between 0 and 9)
);

comment on table audios is 'What a session measured.';
comment on column audios.id is 'Given by the database, never used again.';
comment on column audios.version is 'Counts the saves that changed something; 1 when created.';
comment on column audios.session_id is 'Whose it is; one audio a session.';
comment on column audios.ticks is 'Fifteen levels, each from -100 to -10.';
comment on column audios.selected_tick is 'Which of them was chosen, from 0.';
comment on column audios.step_count is 'How many steps it took.';
comment on column audios.created_at is 'When the row was inserted.';
comment on column audios.updated_at is 'When this version was saved.';
comment on constraint audios_pkey on audios is 'Another audio has this id.';
comment on constraint audios_session_id_key on audios is 'Another audio has this session.';
comment on constraint audios_session_id_check on audios is 'Must be at least 1.';
comment on constraint audios_ticks_check on audios is 'Must be 15 numbers from -100 to -10.';
comment on constraint audios_selected_tick_check on audios is 'Must be 0 to 14.';
comment on constraint audios_step_count_check on audios is 'Must be 0 to 9.';

-- ?sort=created_at.
create index if not exists audios_created_at_id_idx on audios (created_at, id);

create or replace trigger audios_10_count_version
before update on audios
for each row
execute function count_version();

select define_type('audios_item', $$
    id            bigint,
    version       integer,
    session_id    bigint,
    ticks         double precision[],
    selected_tick integer,
    step_count    integer,
    created_at    text,
    updated_at    text
$$);

comment on type audios_item is 'The members of what the service answers for a row of audios.';

create or replace function audios_json(r audios) returns json
language sql stable parallel safe
return to_json(
    row(
        r.id,
        r.version,
        r.session_id,
        r.ticks,
        r.selected_tick,
        r.step_count,
        iso8601(r.created_at),
        iso8601(r.updated_at)
    )::audios_item
);

comment on function audios_json(audios) is 'An audio as the service answers it.';

create or replace function matches(r audios, id text, session_id text) returns boolean
language sql stable parallel safe
return (matches.id = '' or r.id = nullif(matches.id, '')::bigint)
    and (matches.session_id = '' or r.session_id = nullif(matches.session_id, '')::bigint);

comment on function matches(audios, text, text) is 'Whether an audio fits all filters that are given.';

select history.track('audios', 'audio');
select history.show_past('audios');
