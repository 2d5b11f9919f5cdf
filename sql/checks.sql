-- A tidy house returns no rows: psql -XAt -f sql/checks.sql

with ours as (
    select
        c.oid,
        c.relname,
        c.relkind
    from pg_class as c
    where c.relnamespace in ('public'::regnamespace, 'history'::regnamespace)
        and c.relkind in ('r', 'p')
        and not c.relispartition
),

uncommented_tables as (
    select 'table without a comment: ' || o.relname as untidy
    from ours as o
    where obj_description(o.oid, 'pg_class') is null
),

uncommented_columns as (
    select 'column without a comment: ' || o.relname || '.' || a.attname as untidy
    from ours as o
    join pg_attribute as a on a.attrelid = o.oid and a.attnum > 0 and not a.attisdropped
    where col_description(o.oid, a.attnum) is null
),

uncommented_functions as (
    select 'function without a comment: ' || p.oid::regprocedure as untidy
    from pg_proc as p
    where p.pronamespace in ('public'::regnamespace, 'history'::regnamespace)
        and obj_description(p.oid, 'pg_proc') is null
),

constraints_without_a_sentence as (
    select 'constraint without a comment that says what must be: ' || k.conname as untidy
    from ours as o
    join pg_constraint as k on k.conrelid = o.oid
    where k.contype <> 'n'
        and obj_description(k.oid, 'pg_constraint') is null
    union all
    select 'unique index without a comment that says what must be: ' || i.relname
    from ours as o
    join pg_index as x on x.indrelid = o.oid and x.indisunique
    join pg_class as i on i.oid = x.indexrelid
    where obj_description(i.oid, 'pg_class') is null
        and not exists (select from pg_constraint as k where k.conindid = x.indexrelid)
),

misnamed_constraints as (
    select 'constraint not named <table>_<rule>_{pkey,key,fkey,check}: ' || k.conname as untidy
    from ours as o
    join pg_constraint as k on k.conrelid = o.oid
    where k.contype <> 'n'
        and k.conname !~ ('^' || o.relname || '_(.+_)?(pkey|key|fkey|check)$')
),

misnamed_indexes as (
    select 'index not named <table>_<columns>_{pkey,key,idx}: ' || i.relname as untidy
    from ours as o
    join pg_index as x on x.indrelid = o.oid
    join pg_class as i on i.oid = x.indexrelid
    where i.relname !~ ('^' || o.relname || '_(.+_)?(pkey|key|idx)$')
),

foreign_keys_without_index as (
    select 'foreign key without an index: ' || k.conname as untidy
    from ours as o
    join pg_constraint as k on k.conrelid = o.oid and k.contype = 'f'
    where not exists (
        select
        from pg_index as i
        where i.indrelid = o.oid
            and (i.indkey::smallint[])[0:cardinality(k.conkey) - 1] = k.conkey
    )
),

foreign_keys_without_a_word_on_delete as (
    select 'foreign key that leaves open what a delete does: ' || k.conname as untidy
    from ours as o
    join pg_constraint as k on k.conrelid = o.oid and k.contype = 'f'
    where k.confdeltype = 'a'
),

tables_without_a_key as (
    select 'table without a primary key: ' || o.relname as untidy
    from ours as o
    where not exists (select from pg_index as i where i.indrelid = o.oid and i.indisprimary)
),

unfenced_tables as (
    select 'table of projects without a row policy, of which a token of a project sees all, or nothing: ' || o.relname as untidy
    from ours as o
    join pg_class as c on c.oid = o.oid
    join pg_attribute as a on a.attrelid = o.oid and a.attname = 'project_id' and not a.attisdropped
    where not c.relrowsecurity
        or not c.relforcerowsecurity
        or not exists (
            select
            from pg_policy as p
            where p.polrelid = o.oid
                and to_regrole('rowhouse_project') = any (p.polroles)
        )
)

select untidy from uncommented_tables
union all
select untidy from uncommented_columns
union all
select untidy from uncommented_functions
union all
select untidy from constraints_without_a_sentence
union all
select untidy from misnamed_constraints
union all
select untidy from misnamed_indexes
union all
select untidy from foreign_keys_without_index
union all
select untidy from foreign_keys_without_a_word_on_delete
union all
select untidy from tables_without_a_key
union all
select untidy from unfenced_tables
order by untidy;
