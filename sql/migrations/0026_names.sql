-- 0026 Names: what checks a text, or tags, is called by what it checks. Constraints know their function whatever it is called.

do $$
begin
    if to_regprocedure('says_something(text)') is not null then
        alter function says_something(text) rename to is_not_blank;
    end if;
    if to_regprocedure('tags_are_fit(text[])') is not null then
        alter function tags_are_fit(text[]) rename to tags_valid;
    end if;
end
$$;

insert into schema_migrations (name) values ('0026_names');
