-- 0027 Feed of a server: a dump that is restored elsewhere is found to be there.

alter table if exists history.horizon add column if not exists server text not null default '';
alter table if exists history.horizon add column if not exists from_id bigint not null default 0;

insert into schema_migrations (name) values ('0027_feed_server');
