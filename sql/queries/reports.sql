-- Reports: /requirements/quarter, /requirements/media. Years and quarters are in UTC.

-- name: quarter
-- How many were hired for each department and job in each quarter of a year, in alphabetical order.
with hired as (
    select
        d.department,
        j.job,
        count(*) filter (where h.quarter = 1) as "Q1",
        count(*) filter (where h.quarter = 2) as "Q2",
        count(*) filter (where h.quarter = 3) as "Q3",
        count(*) filter (where h.quarter = 4) as "Q4"
    from (
        select
            e.department_id,
            e.job_id,
            extract(quarter from e.datetime at time zone 'UTC') as quarter
        from employees as e
        where e.datetime >= make_timestamptz(:'year'::integer, 1, 1, 0, 0, 0, 'UTC')
            and e.datetime < make_timestamptz(:'year'::integer + 1, 1, 1, 0, 0, 0, 'UTC')
    ) as h
    join departments as d on d.id = h.department_id
    join jobs as j on j.id = h.job_id
    group by
        d.id,
        j.id
)

select
    page.next,
    page.body,
    history.place() as place
from (
    select
        array_agg(
            array[to_json(h)::text]
            order by
                folded(h.department) collate "C",
                h.department collate "C",
                folded(h.job) collate "C",
                h.job collate "C"
        ) as rows
    from hired as h
) as found
cross join page(found.rows, '', coalesce(cardinality(found.rows), 0), :'form')

-- name: media
-- The departments that hired more people in a year than the mean over all departments, most first.
with hired as (
    select
        d.id,
        d.department,
        count(e.id) as hired
    from departments as d
    left join employees as e
        on e.department_id = d.id
            and e.datetime >= make_timestamptz(:'year'::integer, 1, 1, 0, 0, 0, 'UTC')
            and e.datetime < make_timestamptz(:'year'::integer + 1, 1, 1, 0, 0, 0, 'UTC')
    group by d.id
)

select
    page.next,
    page.body,
    history.place() as place
from (
    select
        array_agg(
            array[to_json(h)::text]
            order by
                h.hired desc,
                h.id
        ) as rows
    from hired as h
    where h.hired > (select avg(m.hired) from hired as m)
) as found
cross join page(found.rows, '', coalesce(cardinality(found.rows), 0), :'form')

-- name: departments
-- How many each department hired in a year, those that hired nobody too, most first.
select
    page.next,
    page.body,
    history.place() as place
from (
    select
        array_agg(
            array[to_json(h)::text]
            order by
                h.hired desc,
                h.id
        ) as rows
    from (
        select
            d.id,
            d.department,
            count(e.id) as hired
        from departments as d
        left join employees as e
            on e.department_id = d.id
                and e.datetime >= make_timestamptz(:'year'::integer, 1, 1, 0, 0, 0, 'UTC')
                and e.datetime < make_timestamptz(:'year'::integer + 1, 1, 1, 0, 0, 0, 'UTC')
        group by d.id
    ) as h
) as found
cross join page(found.rows, '', coalesce(cardinality(found.rows), 0), :'form')

-- name: years
-- The years in which anybody was hired, the latest first: from each the index leads to the one before.
with recursive years as (
    (
        select extract(year from e.datetime at time zone 'UTC')::integer as year
        from employees as e
        order by e.datetime desc
        limit 1
    )
    union all
    select extract(year from before.datetime at time zone 'UTC')::integer
    from years as y
    cross join lateral (
        select e.datetime
        from employees as e
        where e.datetime < make_timestamptz(y.year, 1, 1, 0, 0, 0, 'UTC')
        order by e.datetime desc
        limit 1
    ) as before
)

select
    page.next,
    page.body,
    history.place() as place
from (
    select
        array_agg(
            array[to_json(y)::text]
            order by y.year desc
        ) as rows
    from years as y
) as found
cross join page(found.rows, '', coalesce(cardinality(found.rows), 0), :'form')
