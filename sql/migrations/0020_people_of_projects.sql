-- 0020 People of projects: who is of a project is asked by person and project; the book makes the indexes that serve both.

drop index if exists userstories_assigned_to_idx;
drop index if exists tasks_assigned_to_idx;
drop index if exists comments_author_id_idx;

insert into schema_migrations (name) values ('0020_people_of_projects');
