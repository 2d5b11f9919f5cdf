-- 0023 Created partitions: history.create_partitions() makes the months' partitions, and only a start of an older release calls the one before.

-- squawk-ignore ban-drop-function
drop function if exists history.make_room(integer);

insert into schema_migrations (name) values ('0023_created_partitions');
