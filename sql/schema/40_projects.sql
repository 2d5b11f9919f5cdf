-- 40 Projects: the tracker. Projects are its tenants: every row below one carries its project_id, and the foreign keys are
-- composite, so that no task can point into another project, and no filter by project needs a join.

create table if not exists projects (
    id          bigint      not null generated always as identity,
    version     integer     not null default 1,
    name        text        not null,
    slug        text        not null,
    description text,
    owner_id    bigint,
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now(),
    constraint projects_pkey primary key (id),
    constraint projects_slug_key unique (slug),
    constraint projects_owner_id_fkey foreign key (owner_id) references users (id) on delete set null,
    constraint projects_name_check check (char_length(name) <= 200 and is_not_blank(name)),
    constraint projects_slug_check check (char_length(slug) <= 200 and slug ~ '^[a-z0-9]+(-[a-z0-9]+)*$'),
    constraint projects_description_check check (char_length(description) <= 10000)
);

comment on table projects is 'What people work on together.';
comment on column projects.id is 'Given by the database, never used again.';
comment on column projects.version is 'Counts the saves that changed something; 1 when created.';
comment on column projects.name is 'What it is called.';
comment on column projects.slug is 'Its name in an address; made from the name where none is given.';
comment on column projects.description is 'What it is about.';
comment on column projects.owner_id is 'Whose it is; nobodys once that user is gone.';
comment on column projects.created_at is 'When the row was inserted.';
comment on column projects.updated_at is 'When this version was saved.';
comment on constraint projects_pkey on projects is 'Another project has this id.';
comment on constraint projects_slug_key on projects is 'Another project has this slug.';
comment on constraint projects_owner_id_fkey on projects is 'There is no such user.';
comment on constraint projects_name_check on projects is 'Must be 1 to 200 characters, not blank.';
comment on constraint projects_slug_check on projects is 'Must be small letters and digits, with single dashes between.';
comment on constraint projects_description_check on projects is 'Must be at most 10000 characters.';

-- ?sort=name and ?name=.
create index if not exists projects_name_id_idx on projects (name, id);

-- ?sort=created_at.
create index if not exists projects_created_at_id_idx on projects (created_at, id);

-- ?owner_id=, and the check when a user is deleted.
create index if not exists projects_owner_id_id_idx on projects (owner_id, id);

create or replace trigger projects_10_count_version
before update on projects
for each row
execute function count_version();

select history.track('projects', 'project', 'id');
select history.show_past('projects');

select fence('projects', 'id = (select current_project())');

select define_type('projects_item', $$
    id          bigint,
    version     integer,
    name        text,
    slug        text,
    description text,
    owner_id    bigint,
    created_at  text,
    updated_at  text
$$);

comment on type projects_item is 'The members of what the service answers for a row of projects.';

create or replace function projects_json(r projects) returns json
language sql stable parallel safe
return to_json(
    row(
        r.id,
        r.version,
        r.name,
        r.slug,
        r.description,
        r.owner_id,
        iso8601(r.created_at),
        iso8601(r.updated_at)
    )::projects_item
);

comment on function projects_json(projects) is 'A project as the service answers it.';

create or replace function matches(r projects, id text, name text, slug text, owner_id text) returns boolean
language sql stable parallel safe
return (matches.id = '' or r.id = nullif(matches.id, '')::bigint)
    and (matches.name = '' or r.name = matches.name)
    and (matches.slug = '' or r.slug = matches.slug)
    and (matches.owner_id = '' or r.owner_id = nullif(matches.owner_id, '')::bigint);

comment on function matches(projects, text, text, text, text) is 'Whether a project fits all filters that are given.';

-- A slug that nobody gave: the name's letters and digits. Two who make the same one at once wait for each other, so that neither
-- is refused for a slug it did not choose. So do some who do not: locks are few, however many projects a statement makes.
create or replace function make_slug() returns trigger
language plpgsql
as $$
begin
    new.slug := coalesce(nullif(left(trim(both '-' from regexp_replace(lower(new.name), '[^a-z0-9]+', '-', 'g')), 150), ''), 'project');
    new.slug := rtrim(new.slug, '-');
    perform pg_advisory_xact_lock(hashtext('projects.slug'), hashtext(new.slug) & 1023);
    if exists (select from projects where slug = new.slug) then
        new.slug := new.slug || '-' || new.id;
    end if;
    return new;
end
$$;

comment on function make_slug() is 'Trigger: a project without a slug gets one from its name, with its id behind where that is taken.';

create or replace trigger projects_20_make_slug
before insert on projects
for each row when (new.slug is null)
execute function make_slug();


-- Milestones ----------------------------------------------------------------------------------------------------------

create table if not exists milestones (
    id         bigint      not null generated always as identity,
    version    integer     not null default 1,
    project_id bigint      not null,
    name       text        not null,
    starts_on  date,
    ends_on    date,
    closed     boolean     not null default false,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint milestones_pkey primary key (id),
    constraint milestones_project_id_id_key unique (project_id, id),
    constraint milestones_project_id_fkey foreign key (project_id) references projects (id) on delete cascade,
    constraint milestones_name_check check (char_length(name) <= 200 and is_not_blank(name)),
    constraint milestones_ends_on_check check (ends_on >= starts_on),
    constraint milestones_dates_check check (starts_on >= '0001-01-01' and ends_on <= '9999-12-31')
);

comment on table milestones is 'What stories of a project should be done by.';
comment on column milestones.id is 'Given by the database, never used again.';
comment on column milestones.version is 'Counts the saves that changed something; 1 when created.';
comment on column milestones.project_id is 'The project.';
comment on column milestones.name is 'What it is called.';
comment on column milestones.starts_on is 'Its first day.';
comment on column milestones.ends_on is 'Its last day.';
comment on column milestones.closed is 'Whether it is over.';
comment on column milestones.created_at is 'When the row was inserted.';
comment on column milestones.updated_at is 'When this version was saved.';
comment on constraint milestones_pkey on milestones is 'Another milestone has this id.';
comment on constraint milestones_project_id_id_key on milestones is 'Another milestone has this id.';
comment on constraint milestones_project_id_fkey on milestones is 'There is no such project.';
comment on constraint milestones_name_check on milestones is 'Must be 1 to 200 characters, not blank.';
comment on constraint milestones_ends_on_check on milestones is 'Must not be before starts_on.';
comment on constraint milestones_dates_check on milestones is 'Must lie in the years 1 to 9999.';

create or replace trigger milestones_10_count_version
before update on milestones
for each row
execute function count_version();

select history.track('milestones', 'milestone', 'project_id');
select history.show_past('milestones');

select fence('milestones');

select define_type('milestones_item', $$
    id         bigint,
    version    integer,
    project_id bigint,
    name       text,
    starts_on  date,
    ends_on    date,
    closed     boolean,
    created_at text,
    updated_at text
$$);

comment on type milestones_item is 'The members of what the service answers for a row of milestones.';

create or replace function milestones_json(r milestones) returns json
language sql stable parallel safe
return to_json(
    row(
        r.id,
        r.version,
        r.project_id,
        r.name,
        r.starts_on,
        r.ends_on,
        r.closed,
        iso8601(r.created_at),
        iso8601(r.updated_at)
    )::milestones_item
);

comment on function milestones_json(milestones) is 'A milestone as the service answers it.';

create or replace function matches(r milestones, id text, name text, closed text) returns boolean
language sql stable parallel safe
return (matches.id = '' or r.id = nullif(matches.id, '')::bigint)
    and (matches.name = '' or r.name = matches.name)
    and (matches.closed = '' or r.closed = nullif(matches.closed, '')::boolean);

comment on function matches(milestones, text, text, text) is 'Whether a milestone fits all filters that are given.';


-- User stories --------------------------------------------------------------------------------------------------------

-- Apart from projects, where each new story would count as a new version of its project.
create table if not exists project_refs (
    project_id bigint  not null,
    last_ref   integer not null,
    constraint project_refs_pkey primary key (project_id),
    constraint project_refs_project_id_fkey foreign key (project_id) references projects (id) on delete cascade
);

comment on table project_refs is 'How far the refs of each project have counted: a ref is never given twice.';
comment on column project_refs.project_id is 'The project.';
comment on column project_refs.last_ref is 'The ref given last.';
comment on constraint project_refs_pkey on project_refs is 'A project counts its refs once.';
comment on constraint project_refs_project_id_fkey on project_refs is 'There is no such project.';

select fence('project_refs');

create or replace function tags_valid(tags text[]) returns boolean
language sql immutable parallel safe
return cardinality(tags) <= 20
    and coalesce(array_ndims(tags), 1) = 1
    and not exists (select from unnest(tags) as tag where tag is null or char_length(tag) > 50 or not is_not_blank(tag));

comment on function tags_valid(text[]) is 'At most 20 tags, each of 1 to 50 characters and not blank.';

-- Deleting a milestone leaves its stories: only their milestone_id is set null, not the project_id beside it.
create table if not exists userstories (
    id           bigint        not null generated always as identity,
    version      integer       not null default 1,
    project_id   bigint        not null,
    ref          integer       not null,
    milestone_id bigint,
    subject      text          not null,
    description  text,
    status       text          not null default 'new',
    assigned_to  bigint,
    tags         text[]        not null default '{}',
    points       numeric(5, 1),
    created_at   timestamptz   not null default now(),
    updated_at   timestamptz   not null default now(),
    constraint userstories_pkey primary key (id),
    constraint userstories_project_id_id_key unique (project_id, id),
    constraint userstories_project_id_ref_key unique (project_id, ref),
    constraint userstories_project_id_fkey foreign key (project_id) references projects (id) on delete cascade,
    constraint userstories_milestone_id_fkey foreign key (project_id, milestone_id)
        references milestones (project_id, id) on delete set null (milestone_id),
    constraint userstories_assigned_to_fkey foreign key (assigned_to) references users (id) on delete set null,
    constraint userstories_ref_check check (ref > 0),
    constraint userstories_subject_check check (char_length(subject) <= 500 and is_not_blank(subject)),
    constraint userstories_description_check check (char_length(description) <= 10000),
    constraint userstories_status_check check (char_length(status) <= 50 and is_not_blank(status)),
    constraint userstories_tags_check check (tags_valid(tags)),
    constraint userstories_points_check check (points between 0 and 1000)
);

comment on table userstories is 'What somebody wants of a project.';
comment on column userstories.id is 'Given by the database, never used again.';
comment on column userstories.version is 'Counts the saves that changed something; 1 when created.';
comment on column userstories.project_id is 'The project.';
comment on column userstories.ref is 'Counts 1, 2, 3 … within the project; never given twice.';
comment on column userstories.milestone_id is 'What it should be done by; of the same project.';
comment on column userstories.subject is 'What is wanted, in a line.';
comment on column userstories.description is 'What is wanted, at length.';
comment on column userstories.status is 'How far it is.';
comment on column userstories.assigned_to is 'Who works on it.';
comment on column userstories.tags is 'What it belongs to.';
comment on column userstories.points is 'How much work it is.';
comment on column userstories.created_at is 'When the row was inserted.';
comment on column userstories.updated_at is 'When this version was saved.';
comment on constraint userstories_pkey on userstories is 'Another user story has this id.';
comment on constraint userstories_project_id_id_key on userstories is 'Another user story has this id.';
comment on constraint userstories_project_id_ref_key on userstories is 'Another user story of the project has this ref.';
comment on constraint userstories_project_id_fkey on userstories is 'There is no such project.';
comment on constraint userstories_milestone_id_fkey on userstories is 'The project has no such milestone.';
comment on constraint userstories_assigned_to_fkey on userstories is 'There is no such user.';
comment on constraint userstories_ref_check on userstories is 'Must be at least 1.';
comment on constraint userstories_subject_check on userstories is 'Must be 1 to 500 characters, not blank.';
comment on constraint userstories_description_check on userstories is 'Must be at most 10000 characters.';
comment on constraint userstories_status_check on userstories is 'Must be 1 to 50 characters, not blank.';
comment on constraint userstories_tags_check on userstories is 'Must be at most 20, each of 1 to 50 characters, not blank.';
comment on constraint userstories_points_check on userstories is 'Must be 0 to 1000.';

-- The check when a milestone is deleted, and ?milestone_id=.
create index if not exists userstories_project_id_milestone_id_id_idx on userstories (project_id, milestone_id, id);

-- ?status=: some stand for few of very many, such as what is blocked.
create index if not exists userstories_project_id_status_id_idx on userstories (project_id, status, id);

-- The check when a user is deleted, and works_on().
create index if not exists userstories_assigned_to_project_id_idx on userstories (assigned_to, project_id);

create or replace trigger userstories_10_count_version
before update on userstories
for each row
execute function count_version();

select history.track('userstories', 'userstory', 'project_id');
select history.show_past('userstories');

select fence('userstories');

select define_type('userstories_item', $$
    id           bigint,
    version      integer,
    project_id   bigint,
    ref          integer,
    milestone_id bigint,
    subject      text,
    description  text,
    status       text,
    assigned_to  bigint,
    tags         text[],
    points       numeric,
    created_at   text,
    updated_at   text
$$);

comment on type userstories_item is 'The members of what the service answers for a row of userstories.';

create or replace function userstories_json(r userstories) returns json
language sql stable parallel safe
return to_json(
    row(
        r.id,
        r.version,
        r.project_id,
        r.ref,
        r.milestone_id,
        r.subject,
        r.description,
        r.status,
        r.assigned_to,
        r.tags,
        trim_scale(r.points),
        iso8601(r.created_at),
        iso8601(r.updated_at)
    )::userstories_item
);

comment on function userstories_json(userstories) is 'A user story as the service answers it.';

create or replace function matches(r userstories, id text, ref text, milestone_id text, status text, assigned_to text) returns boolean
language sql stable parallel safe
return (matches.id = '' or r.id = nullif(matches.id, '')::bigint)
    and (matches.ref = '' or r.ref = nullif(matches.ref, '')::integer)
    and (matches.milestone_id = '' or r.milestone_id = nullif(matches.milestone_id, '')::bigint)
    and (matches.status = '' or r.status = matches.status)
    and (matches.assigned_to = '' or r.assigned_to = nullif(matches.assigned_to, '')::bigint);

comment on function matches(userstories, text, text, text, text, text) is 'Whether a user story fits all filters that are given.';

-- The refs of a project that was deleted, and is there again, go on counting.
create or replace function last_ref(project_id bigint) returns integer
language sql stable security definer
set search_path = public, history, pg_temp
return (
    select coalesce(max((e.old_obj ->> 'ref')::integer), 0)
    from history.entries as e
    where e.project = last_ref.project_id
        and e.obj_type = 'userstory'
        and e.action = 'delete'
);

comment on function last_ref(bigint) is 'The highest ref among the stories of a project that were deleted; 0 where there were none.';

-- By a trigger, so that stories made in psql are counted too. The counter's row is locked until commit: refs have no gaps, and of
-- two who add to one project the second waits for the first. A story that had a ref and comes back keeps it; one that is given another,
-- or moved, is counted where it is then.
create or replace function count_ref() returns trigger
language plpgsql
as $$
declare
    given integer := new.ref;
begin
    -- Of many that come back each would write the counter once more, and go over what the others wrote.
    if given is not null and given <= (select r.last_ref from project_refs as r where r.project_id = new.project_id) then
        return new;
    end if;
    update project_refs as r
    set last_ref = case when given is null then r.last_ref + 1 else greatest(r.last_ref, given) end
    where r.project_id = new.project_id
    returning coalesce(given, r.last_ref) into new.ref;
    if not found then
        insert into project_refs as r (project_id, last_ref)
        values (new.project_id, greatest(given, last_ref(new.project_id) + (given is null)::integer))
        on conflict (project_id) do update
        set last_ref = case when given is null then r.last_ref + 1 else greatest(r.last_ref, given) end
        returning coalesce(given, r.last_ref) into new.ref;
    end if;
    return new;
end
$$;

comment on function count_ref() is 'Trigger: a new story gets the next ref of its project, unless it has one; from there on the next one counts.';

create or replace trigger userstories_20_count_ref
before insert or update of project_id, ref on userstories
for each row
execute function count_ref();


-- Tasks and comments --------------------------------------------------------------------------------------------------

create table if not exists tasks (
    id           bigint      not null generated always as identity,
    version      integer     not null default 1,
    project_id   bigint      not null,
    userstory_id bigint      not null,
    subject      text        not null,
    status       text        not null default 'new',
    assigned_to  bigint,
    created_at   timestamptz not null default now(),
    updated_at   timestamptz not null default now(),
    constraint tasks_pkey primary key (id),
    constraint tasks_userstory_id_fkey foreign key (project_id, userstory_id)
        references userstories (project_id, id) on delete cascade,
    constraint tasks_assigned_to_fkey foreign key (assigned_to) references users (id) on delete set null,
    constraint tasks_subject_check check (char_length(subject) <= 500 and is_not_blank(subject)),
    constraint tasks_status_check check (char_length(status) <= 50 and is_not_blank(status))
);

comment on table tasks is 'A step of a user story.';
comment on column tasks.id is 'Given by the database, never used again.';
comment on column tasks.version is 'Counts the saves that changed something; 1 when created.';
comment on column tasks.project_id is 'The project of the story.';
comment on column tasks.userstory_id is 'The story.';
comment on column tasks.subject is 'What is to be done.';
comment on column tasks.status is 'How far it is.';
comment on column tasks.assigned_to is 'Who does it.';
comment on column tasks.created_at is 'When the row was inserted.';
comment on column tasks.updated_at is 'When this version was saved.';
comment on constraint tasks_pkey on tasks is 'Another task has this id.';
comment on constraint tasks_userstory_id_fkey on tasks is 'There is no such user story.';
comment on constraint tasks_assigned_to_fkey on tasks is 'There is no such user.';
comment on constraint tasks_subject_check on tasks is 'Must be 1 to 500 characters, not blank.';
comment on constraint tasks_status_check on tasks is 'Must be 1 to 50 characters, not blank.';

-- The check when a story is deleted.
create index if not exists tasks_project_id_userstory_id_idx on tasks (project_id, userstory_id);

-- tasks.list.
create index if not exists tasks_userstory_id_id_idx on tasks (userstory_id, id);

-- The check when a user is deleted, and works_on().
create index if not exists tasks_assigned_to_project_id_idx on tasks (assigned_to, project_id);

create or replace trigger tasks_10_count_version
before update on tasks
for each row
execute function count_version();

select history.track('tasks', 'task', 'project_id');
select history.show_past('tasks');

select fence('tasks');

select define_type('tasks_item', $$
    id           bigint,
    version      integer,
    userstory_id bigint,
    subject      text,
    status       text,
    assigned_to  bigint,
    created_at   text,
    updated_at   text
$$);

comment on type tasks_item is 'The members of what the service answers for a row of tasks.';

create or replace function tasks_json(r tasks) returns json
language sql stable parallel safe
return to_json(
    row(
        r.id,
        r.version,
        r.userstory_id,
        r.subject,
        r.status,
        r.assigned_to,
        iso8601(r.created_at),
        iso8601(r.updated_at)
    )::tasks_item
);

comment on function tasks_json(tasks) is 'A task as the service answers it.';

create or replace function matches(r tasks, id text, status text, assigned_to text) returns boolean
language sql stable parallel safe
return (matches.id = '' or r.id = nullif(matches.id, '')::bigint)
    and (matches.status = '' or r.status = matches.status)
    and (matches.assigned_to = '' or r.assigned_to = nullif(matches.assigned_to, '')::bigint);

comment on function matches(tasks, text, text, text) is 'Whether a task fits all filters that are given.';

create table if not exists comments (
    id           bigint      not null generated always as identity,
    version      integer     not null default 1,
    project_id   bigint      not null,
    userstory_id bigint      not null,
    author_id    bigint,
    text         text        not null,
    created_at   timestamptz not null default now(),
    updated_at   timestamptz not null default now(),
    constraint comments_pkey primary key (id),
    constraint comments_userstory_id_fkey foreign key (project_id, userstory_id)
        references userstories (project_id, id) on delete cascade,
    constraint comments_author_id_fkey foreign key (author_id) references users (id) on delete set null,
    constraint comments_text_check check (char_length(text) <= 10000 and is_not_blank(text))
);

comment on table comments is 'What somebody said about a user story.';
comment on column comments.id is 'Given by the database, never used again.';
comment on column comments.version is 'Counts the saves that changed something; 1 when created.';
comment on column comments.project_id is 'The project of the story.';
comment on column comments.userstory_id is 'The story.';
comment on column comments.author_id is 'Who said it.';
comment on column comments.text is 'What was said.';
comment on column comments.created_at is 'When the row was inserted.';
comment on column comments.updated_at is 'When this version was saved.';
comment on constraint comments_pkey on comments is 'Another comment has this id.';
comment on constraint comments_userstory_id_fkey on comments is 'There is no such user story.';
comment on constraint comments_author_id_fkey on comments is 'There is no such user.';
comment on constraint comments_text_check on comments is 'Must be 1 to 10000 characters, not blank.';

-- The check when a story is deleted.
create index if not exists comments_project_id_userstory_id_idx on comments (project_id, userstory_id);

-- comments.list.
create index if not exists comments_userstory_id_id_idx on comments (userstory_id, id);

-- The check when a user is deleted, and works_on().
create index if not exists comments_author_id_project_id_idx on comments (author_id, project_id);

create or replace trigger comments_10_count_version
before update on comments
for each row
execute function count_version();

select history.track('comments', 'comment', 'project_id');
select history.show_past('comments');

select fence('comments');

select define_type('comments_item', $$
    id           bigint,
    version      integer,
    userstory_id bigint,
    author_id    bigint,
    text         text,
    created_at   text,
    updated_at   text
$$);

comment on type comments_item is 'The members of what the service answers for a row of comments.';

create or replace function comments_json(r comments) returns json
language sql stable parallel safe
return to_json(
    row(
        r.id,
        r.version,
        r.userstory_id,
        r.author_id,
        r.text,
        iso8601(r.created_at),
        iso8601(r.updated_at)
    )::comments_item
);

comment on function comments_json(comments) is 'A comment as the service answers it.';

create or replace function matches(r comments, id text, author_id text) returns boolean
language sql stable parallel safe
return (matches.id = '' or r.id = nullif(matches.id, '')::bigint)
    and (matches.author_id = '' or r.author_id = nullif(matches.author_id, '')::bigint);

comment on function matches(comments, text, text) is 'Whether a comment fits all filters that are given.';


-- Trees ---------------------------------------------------------------------------------------------------------------

select define_type('person', $$
    id    bigint,
    name  text,
    image text
$$);

comment on type person is 'What a tree tells of somebody: enough to show them, nothing to write to them.';


-- People --------------------------------------------------------------------------------------------------------------

-- Some more than once. Written to be planned within the statement that asks: for one person it is a look into an index or four.
create or replace function people_of(project bigint) returns setof bigint
language sql stable parallel safe
begin atomic
    select p.owner_id from projects as p where p.id = people_of.project
    union all
    select s.assigned_to from userstories as s where s.project_id = people_of.project
    union all
    select t.assigned_to from tasks as t where t.project_id = people_of.project
    union all
    select c.author_id from comments as c where c.project_id = people_of.project;
end;

comment on function people_of(bigint) is 'The people of a project: who owns it, is assigned in it, or wrote in it.';

create or replace function past.people_of(project bigint) returns setof bigint
language sql stable parallel safe
begin atomic
    select p.owner_id from past.projects as p where p.id = people_of.project
    union all
    select s.assigned_to from past.userstories as s where s.project_id = people_of.project
    union all
    select t.assigned_to from past.tasks as t where t.project_id = people_of.project
    union all
    select c.author_id from past.comments as c where c.project_id = people_of.project;
end;

comment on function past.people_of(bigint) is 'The people that a project had.';
