-- 0003 Tokens of a project: what reaches one project and nothing beside it.

alter table if exists tokens
add column if not exists project bigint;

insert into schema_migrations (name) values ('0003_tokens_of_a_project');
