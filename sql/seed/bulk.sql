-- Bulk: sample data in the proportions of a real tracker, for load tests, plans and benchmarks. What `flask seed` runs, slice by slice.
--
-- Everything follows from a row's number and the seed: the same numbers give the same rows, and what is there already stays. In psql:
-- sql/show bulk.users | psql -v seed=1 -v first=1 -v last=1000 "$DATABASE_URL"

-- name: users
-- The people with these numbers, recorded as one load.
with people as (
    select
        i,
        abs(hashint8extended(i, :'seed'::bigint) / 2) as chance,
        '{Ada,Ann,Ben,Bea,Carl,Cleo,Dan,Dora,Emil,Eva,Finn,Fay,Gus,Gwen,Hugo,Ida,Ivan,Jana,Jon,Kai,Lea,Leo,Mia,Max,Nina,Nils,Olga,Otto,Pia,Paul,Rosa,Rolf,Sara,Sven,Tina,Theo,Una,Udo,Vera,Yan}'::text[] as first_names,
        '{Abbott,Baker,Castro,Dubois,Eriksen,Fischer,Garcia,Hansen,Ivanov,Jensen,Kowalski,Larsen,Moreau,Novak,Olsen,Petrov,Quinn,Rossi,Schmidt,Tanaka,Umeh,Vogt,Weber,Xu,Young,Zeman,Brown,Costa,Diaz,Evans,Ferrari,Gruber,Haas,Ito,Jones,Klein,Lopez}'::text[] as last_names,
        '{Maple,Oak,Mill,Church,Station,Garden,Market,Bridge,River,Hill,School,Park,Harbour,Castle,Forest,Meadow,Orchard,Chapel,Canal,Tower,Queen,King,Rose,Lark,Willow,Cedar,Birch,Linden,Elm}'::text[] as streets,
        '{Street,Road,Lane,Avenue,Square,Row,Way}'::text[] as kinds,
        '{Springfield,Lyon,Bergen,Porto,Graz,Cork,Gdansk,Turku,Ghent,Basel,Utrecht,Malmo,Brno,Verona,Leeds,Bilbao,Rostock,Split,Tartu,Kosice,Nantes,Aarhus,Linz}'::text[] as cities
    from generate_series(:'first'::bigint, :'last'::bigint) as i
)
insert into users (email, name, address, image, text, created_at, updated_at)
select
    format('user%s.%s@example.com', p.i, :'seed'::bigint),
    p.first_names[1 + p.chance % 40] || ' ' || p.last_names[1 + p.chance / 64 % 37],
    format(
        '%s %s %s, %s',
        1 + p.chance / 131072 % 999,
        p.streets[1 + p.chance / 4096 % 29],
        p.kinds[1 + p.chance / 1048576 % 7],
        p.cities[1 + p.chance / 16777216 % 23]
    ),
    format('https://example.com/people/%s.png', p.i),
    case when p.chance % 3 = 0 then 'Likes row houses.' end,
    timestamptz '2024-01-01T00:00:00Z' + p.i * interval '1 second',
    timestamptz '2024-01-01T00:00:00Z' + p.i * interval '1 second'
from people as p
where set_config('app.load', 'seed', true) = 'seed'
on conflict (email_key(email)) do nothing

-- name: projects
-- The projects with these numbers; each belongs to one of the first thousand people, or to nobody where there are none.
with owners as (
    select array_agg(u.id) as ids
    from (select u.id from users as u order by u.id limit 1000) as u
)
insert into projects (name, slug, description, owner_id, created_at, updated_at)
select
    ('{Row,Garden,Harbour,Market,Mill,Station,Tower,Bridge}'::text[])[1 + chance % 8] || ' House ' || i,
    format('seed-%s-%s', :'seed'::bigint, i),
    'What the neighbours of number ' || i || ' want to have built.',
    o.ids[1 + chance / 64 % nullif(cardinality(o.ids), 0)],
    timestamptz '2024-01-01T00:00:00Z' + i * interval '1 day',
    timestamptz '2024-01-01T00:00:00Z' + i * interval '1 day'
from generate_series(:'first'::bigint, :'last'::bigint) as i
cross join lateral (select abs(hashint8extended(i, :'seed'::bigint) / 2)) as c (chance)
cross join owners as o
on conflict (slug) do nothing

-- name: milestones
-- Ten milestones, a month each, for the projects with these numbers that have none.
insert into milestones (project_id, name, starts_on, ends_on, closed, created_at, updated_at)
select
    p.id,
    'Milestone ' || n,
    date '2024-01-01' + (n - 1) * interval '1 month',
    date '2024-01-01' + n * interval '1 month' - interval '1 day',
    n <= 5,
    p.created_at,
    p.created_at
from generate_series(:'first'::bigint, :'last'::bigint) as i
join projects as p on p.slug = format('seed-%s-%s', :'seed'::bigint, i)
cross join generate_series(1, 10) as n
where not exists (select from milestones as m where m.project_id = p.id)
order by p.id, n

-- name: userstories
-- The stories with these refs of a project, each with three to seven tasks and comments. Refs that are taken already are left out: a
-- run that was broken off goes on where it stopped.
with
    project as (
        select
            p.id,
            coalesce(r.last_ref, 0) as last_ref,
            array(select m.id from milestones as m where m.project_id = p.id order by m.id) as milestones,
            array(select u.id from users as u order by u.id limit 1000) as people
        from projects as p
        left join project_refs as r on r.project_id = p.id
        where p.slug = format('seed-%s-%s', :'seed'::bigint, :'project'::bigint)
    ),
    stories as (
        insert into userstories (project_id, milestone_id, subject, description, status, assigned_to, tags, points, created_at, updated_at)
        select
            p.id,
            p.milestones[1 + chance % 12],
            format(
                'As a %s I want a %s',
                ('{neighbour,gardener,visitor,child,postman,painter,plumber,owner}'::text[])[1 + chance / 64 % 8],
                ('{door,window,garden,roof,staircase,chimney,balcony,bell,lamp,fence,cellar,path}'::text[])[1 + chance / 512 % 12]
            ),
            case when chance % 4 > 0 then repeat('It should last, and look as the others in the row do. ', 1 + (chance / 128 % 8)::integer) end,
            ('{new,new,ready,in progress,in progress,done,done,done}'::text[])[1 + chance / 256 % 8],
            case when chance % 10 < 7 then p.people[1 + chance / 1024 % nullif(cardinality(p.people), 0)] end,
            ('{wood,stone,glass,paint,safety,urgent}'::text[])[1 + chance / 4096 % 6:(chance / 4096 % 6 + chance / 32768 % 3)::integer],
            case when chance % 5 > 0 then ('{0.5,1,2,3,5,8}'::numeric[])[1 + chance / 65536 % 6] end,
            timestamptz '2024-01-01T00:00:00Z' + i * interval '1 minute',
            timestamptz '2024-01-01T00:00:00Z' + i * interval '1 minute'
        from project as p
        cross join generate_series(greatest(:'first'::bigint, p.last_ref + 1), :'last'::bigint) as i
        cross join lateral (select abs(hashint8extended(:'project'::bigint * 10000000 + i, :'seed'::bigint) / 2)) as c (chance)
        order by i
        returning project_id, id, ref, created_at
    ),
    tasks as (
        insert into tasks (project_id, userstory_id, subject, status, assigned_to, created_at, updated_at)
        select
            s.project_id,
            s.id,
            ('{Measure,Draw,Order,Cut,Paint,Fit,Clean,Check}'::text[])[1 + (chance + n) % 8] || ' it',
            ('{new,in progress,done}'::text[])[1 + (chance / 8 + n) % 3],
            case when (chance + n) % 3 > 0 then p.people[1 + (chance / 64 + n) % nullif(cardinality(p.people), 0)] end,
            s.created_at + n * interval '1 hour',
            s.created_at + n * interval '1 hour'
        from stories as s
        cross join project as p
        cross join lateral (select abs(hashint8extended(:'project'::bigint * 10000000 + s.ref, :'seed'::bigint + 1) / 2)) as c (chance)
        cross join generate_series(1, 3 + chance / 4096 % 5) as n
        order by s.ref, n
    ),
    comments as (
        insert into comments (project_id, userstory_id, author_id, text, created_at, updated_at)
        select
            s.project_id,
            s.id,
            p.people[1 + (chance / 64 + n) % nullif(cardinality(p.people), 0)],
            ('{I like it.,Could it be blue?,Who pays for that?,Ask the neighbours first.,Done by Friday.,See the drawing.}'::text[])[1 + (chance + n) % 6],
            s.created_at + n * interval '3 hours',
            s.created_at + n * interval '3 hours'
        from stories as s
        cross join project as p
        cross join lateral (select abs(hashint8extended(:'project'::bigint * 10000000 + s.ref, :'seed'::bigint + 2) / 2)) as c (chance)
        cross join generate_series(1, 3 + chance / 4096 % 5) as n
        order by s.ref, n
    )
select count(*) as stories
from stories
