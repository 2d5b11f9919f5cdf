-- 0028 Undo of moves: what a function returns, and what it is asked with, is changed by making it anew.

-- squawk-ignore ban-drop-function
drop function if exists history.foreign_keys();
-- squawk-ignore ban-drop-function
drop function if exists history.leave_foreign(text[]);

insert into schema_migrations (name) values ('0028_undo_of_moves');
