-- 0028 Undo of moves: what a function returns, and what it is asked with, is changed by making it anew.

drop function if exists history.foreign_keys();
drop function if exists history.leave_foreign(text[]);

insert into schema_migrations (name) values ('0028_undo_of_moves');
