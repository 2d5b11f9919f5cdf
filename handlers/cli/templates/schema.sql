projects: -- 45 $Noun: each of one of projects.
userstories: -- 45 $Noun: each of a user story.
none: -- 45 $Noun.

create table if not exists $noun (
    id         bigint      not null generated always as identity,
    version    integer     not null default 1,
!none:     project_id bigint      not null,
userstories:     userstory_id bigint    not null,
$columns
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
none:     constraint ${noun}_pkey primary key (id)$checks
!none:     constraint ${noun}_pkey primary key (id),
projects:     constraint ${noun}_project_id_fkey foreign key (project_id) references projects (id) on delete cascade$checks
userstories:     constraint ${noun}_userstory_id_fkey foreign key (project_id, userstory_id)
userstories:         references userstories (project_id, id) on delete cascade$checks
);

comment on table $noun is '$Noun.';
comment on column $noun.id is 'Given by the database, never used again.';
comment on column $noun.version is 'Counts the saves that changed something; 1 when created.';
projects: comment on column $noun.project_id is 'The project.';
userstories: comment on column $noun.project_id is 'The project of the story.';
userstories: comment on column $noun.userstory_id is 'The story.';
$comments
comment on column $noun.created_at is 'When the row was inserted.';
comment on column $noun.updated_at is 'When this version was saved.';
comment on constraint ${noun}_pkey on $noun is 'Another $one has this id.';
projects: comment on constraint ${noun}_project_id_fkey on $noun is 'There is no such project.';
userstories: comment on constraint ${noun}_userstory_id_fkey on $noun is 'There is no such user story.';
$said

projects: -- $noun.list.
projects: create index if not exists ${noun}_project_id_id_idx on $noun (project_id, id);
projects: 
userstories: -- The check when a story is deleted.
userstories: create index if not exists ${noun}_project_id_userstory_id_idx on $noun (project_id, userstory_id);
userstories: 
userstories: -- $noun.list.
userstories: create index if not exists ${noun}_userstory_id_id_idx on $noun (userstory_id, id);
userstories: 
create or replace trigger ${noun}_10_count_version
before update on $noun
for each row
execute function count_version();

!none: select history.track('$noun', '$one', 'project_id');
none: select history.track('$noun', '$one');

select history.show_past('$noun');

!none: select fence('$noun');
!none: 
select define_type('${noun}_item', $$$$
    id         bigint,
    version    integer,
projects:     project_id bigint,
userstories:     userstory_id bigint,
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
projects:         r.project_id,
userstories:         r.userstory_id,
$json
        iso8601(r.created_at),
        iso8601(r.updated_at)
    )::${noun}_item
);

comment on function ${noun}_json($noun) is '$A_one as the service answers it.';
