-- 0004 Append employees: the function takes the upload of its rows now.

-- Nobody but the service calls it.
-- squawk-ignore ban-drop-function
drop function if exists append_employees();

insert into schema_migrations (name) values ('0004_append_employees');
