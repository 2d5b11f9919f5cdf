-- 45 $Noun: each of one of projects.

create table if not exists $noun (
    id         bigint      not null generated always as identity,
    version    integer     not null default 1,
    project_id bigint      not null,
$columns
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint ${noun}_pkey primary key (id),
    constraint ${noun}_project_id_fkey foreign key (project_id) references projects (id) on delete cascade$checks
);

comment on table $noun is '$Noun.';
comment on column $noun.id is 'Given by the database, never used again.';
comment on column $noun.version is 'Counts the saves that changed something; 1 when created.';
comment on column $noun.project_id is 'The project.';
$comments
comment on column $noun.created_at is 'When the row was inserted.';
comment on column $noun.updated_at is 'When this version was saved.';
comment on constraint ${noun}_pkey on $noun is 'Another $one has this id.';
comment on constraint ${noun}_project_id_fkey on $noun is 'There is no such project.';
$said

-- $noun.list.
create index if not exists ${noun}_project_id_id_idx on $noun (project_id, id);

create or replace trigger ${noun}_10_count_version
before update on $noun
for each row
execute function count_version();

select history.track('$noun', '$one', 'project_id');

select history.show_past('$noun');

select fence('$noun');

select define_type('${noun}_item', $$$$
    id         bigint,
    version    integer,
    project_id bigint,
$item
    created_at text,
    updated_at text
$$$$);

comment on type ${noun}_item is 'The members of what the service answers for a row of $noun.';

create or replace function ${noun}_json(r $noun) returns json
language sql stable parallel safe
return to_json(
    row(
        r.id,
        r.version,
        r.project_id,
$json
        iso8601(r.created_at),
        iso8601(r.updated_at)
    )::${noun}_item
);

comment on function ${noun}_json($noun) is '$A_one as the service answers it.';
