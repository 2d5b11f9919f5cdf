-- 0020 People of projects: who is of a project is asked by person and project; the book makes the indexes that serve both.

-- Within the migrations' one transaction, which waits for a lock as long as it may and no longer.
-- squawk-ignore require-concurrent-index-deletion
drop index if exists userstories_assigned_to_idx;
-- squawk-ignore require-concurrent-index-deletion
drop index if exists tasks_assigned_to_idx;
-- squawk-ignore require-concurrent-index-deletion
drop index if exists comments_author_id_idx;

insert into schema_migrations (name) values ('0020_people_of_projects');
