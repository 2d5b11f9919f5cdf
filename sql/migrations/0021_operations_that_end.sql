-- 0021 Operations that end: from some moment on it is too late to break one off, as what it did is about to be kept.

alter table if exists operations add column if not exists ending boolean not null default false;

insert into schema_migrations (name) values ('0021_operations_that_end');
