"""Laws of the house for SQL: it parses, is used, named and commented, and both ways to a database lead to the same."""

import ast
import os
import re
import shutil
import subprocess
from pathlib import Path

import pglast
import psycopg
import pytest
from psycopg.rows import namedtuple_row

from app import create_app
from db import schema
from db.queries import BLOCK, PAGES, STATEMENTS, pages
from handlers.http.problems import BROKEN
from tests import resources
from tests.conftest import ROOT, clone, drop

SCRIPTS = sorted([*(ROOT / "sql").glob("schema/*.sql"), *(ROOT / "sql").glob("migrations/*.sql")])


@pytest.mark.parametrize("name", STATEMENTS)
def test_every_named_statement_parses(name):
    for text in filter(None, (STATEMENTS[name], STATEMENTS[name].filtered)):
        assert len(pglast.parse_sql(text.sql.decode())) == 1


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_parses(path):
    assert pglast.parse_sql(path.read_text())


def test_every_statement_says_what_it_means_and_has_no_star():
    for page in PAGES:
        for block in page.read_text().split("-- name: ")[1:]:
            name, meaning, *_ = block.splitlines()
            assert meaning.startswith("-- "), f"{page.stem}.{name} lacks a line that says what it means"
            assert not re.search(r"select\s+\*|\.\*", block), f"{page.stem}.{name} has a star"


def texts() -> tuple[set[str], list[re.Pattern]]:
    """The texts of the code, and those with one place in them: "users.get", f"hiring.lock_{table}"."""
    said, patterns = set(), []
    for path in [*ROOT.glob("handlers/**/*.py"), *ROOT.glob("db/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                said.add(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = [re.escape(part.value) if isinstance(part, ast.Constant) else r"(\w+)" for part in node.values]
                if parts.count(r"(\w+)") == 1:
                    patterns.append(re.compile("".join(parts)))
    return said, patterns


def is_used(name: str, said: set[str], patterns: list[re.Pattern]) -> bool:
    """Whether the code says this name, or makes it of a text and a word that it says."""
    return name in said or any(made[1] in said for made in (text.fullmatch(name) for text in patterns) if made)


def test_every_named_statement_is_used():
    code = texts()
    for order in STATEMENTS:
        name = re.sub(r"(_by_\w+?)?(_desc)?$", "", order) if is_of_list(order) else order
        assert is_used(name, *code), f"{name} is not used"
    for name in ("tasks.nothing", "hiring.lock_nothing", "backups.nothing", "nothing.get"):
        assert not is_used(name, *code)


def is_of_list(name: str) -> bool:
    """Whether it is an order of a list: test_plans.py knows which there are."""
    return bool(re.search(r"\.(list|errors|failures)(_|$)", name))


SENDING = ("execute", "stream", "copy", "send_prepare")
"""What takes the text of a statement to the server."""


def test_no_text_of_a_statement_is_looked_at_but_by_the_loader():
    for path in [*ROOT.glob("*.py"), *ROOT.glob("db/*.py"), *ROOT.glob("handlers/**/*.py")]:
        tree = ast.parse(path.read_text())
        calls = [each for each in ast.walk(tree) if isinstance(each, ast.Call)]
        sent = [each for call in calls if getattr(call.func, "attr", "") in SENDING for each in call.args]
        sent += [each.right for each in sent if ast.unparse(each).startswith("b'explain (analyze, buffers) ' + ")]
        texts = {each for each in ast.walk(tree) if isinstance(each, ast.Attribute) and each.attr == "sql"}
        assert not texts - {*sent}, f"{path} does something with the text of a statement but send it"
        made = any(ast.unparse(call.func) in ("Statement", "queries.Statement") for call in calls)
        assert not made or path.name == "queries.py", f"{path} makes a statement"
    with pytest.raises(TypeError):
        STATEMENTS["users.get"] = None


def test_no_sql_is_written_outside_of_sql():
    for path in ROOT.glob("handlers/**/*.py"):
        assert not re.search(r"\b(select|insert into|update|delete from)\b.*\b(from|values|set)\b", path.read_text()), (
            path
        )


def test_an_empty_database_and_a_migrated_one_are_the_same(server, template):
    name = clone(server, "template0")
    url = psycopg.conninfo.make_conninfo(server, dbname=name)
    with schema.connect(url) as connection, connection.transaction():
        connection.execute(next(iter(schema.migrations().values())).encode())
    try:
        schema.migrate(url)
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedObject) as error:
        pytest.fail(f"A migration wants what only the book makes: `alter table if exists …`, to_regclass(). {error}")
    try:
        assert catalog(url) == catalog(psycopg.conninfo.make_conninfo(server, dbname=template))
    finally:
        drop(server, name)


def test_every_migration_notes_itself_last():
    for name, text in schema.migrations().items():
        noted = f"insert into schema_migrations (name) values ('{name}');"
        assert text.endswith(f"\n{noted}\n"), f"sql/migrations/{name}.sql must end with: {noted}"


def catalog(url: str) -> list[tuple]:
    """All there is to a database: columns, constraints, indexes, functions, triggers and comments."""
    with psycopg.connect(url) as connection:
        return connection.execute("""
            select c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull::text, a.attidentity::text,
                pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum)
            from pg_class c
            join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
            left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
            where c.relnamespace = any ('{public,history}'::regnamespace[]) and c.relkind in ('r', 'p', 'c')
            union all
            select conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', '', '',
                obj_description(oid, 'pg_constraint')
            from pg_constraint where connamespace = any ('{public,history}'::regnamespace[])
            union all
            select
                tablename, indexname, indexdef, '', '', '', ''
            from pg_indexes where schemaname = any ('{public,history}'::regnamespace[]::text[])
            union all
            select proname, pg_get_functiondef(oid), '', '', '', '', obj_description(oid, 'pg_proc')
            from pg_proc where pronamespace = any ('{public,history}'::regnamespace[])
            union all
            select tgrelid::regclass::text, tgname, pg_get_triggerdef(oid), '', '', '', ''
            from pg_trigger where not tgisinternal
            union all
            select obj_type, relation::text, key::text, project::text, '', '', '' from history.tracked
            union all
            select tablename, policyname, permissive, roles::text, cmd, qual, with_check from pg_policies
            union all
            select relname, relacl::text, relrowsecurity::text, relforcerowsecurity::text, '', '', ''
            from pg_class where relnamespace = any ('{public,history}'::regnamespace[]) and relkind in ('r', 'p', 'S')
            union all
            select relname, obj_description(oid, 'pg_class'), '', '', '', '', ''
            from pg_class where relnamespace = any ('{public,history}'::regnamespace[]) and relkind in ('r', 'p')
            order by 1, 2, 3
        """).fetchall()


def test_the_page_finds_every_tracked_table(database):
    """By the plural of what its rows are called, it asks for a version back."""
    page = (ROOT / "handlers/static/page.js").read_text()
    irregular = dict(re.findall(r'(\w+): "(\w+)"', re.search(r"IRREGULAR = \{(.*?)\}", page)[1]))
    offered = re.findall(r'"(\w+)"', re.search(r"KINDS = \[(.*?)\]", page, re.DOTALL)[1])
    with psycopg.connect(database) as connection:
        tracked = dict(connection.execute("select obj_type, relation::text from history.tracked").fetchall())
    reverted = {rule.endpoint.partition(".revert_")[2] for rule in create_app().url_map.iter_rules()} - {""}
    lacking = [f'{kind}: "{noun}"' for kind, noun in tracked.items() if irregular.get(kind, f"{kind}s") != noun]
    assert not lacking, f"handlers/static/page.js, IRREGULAR: {', '.join(lacking)}"
    assert {*tracked.values()} == reverted
    kinds = {kind for kind, noun in tracked.items() if noun not in resources.OTHERS}
    assert kinds <= {*offered}, "handlers/static/page.js, KINDS: kinds that are not offered"
    assert {*offered} | {*irregular} <= {*tracked}, "handlers/static/page.js, KINDS and IRREGULAR: no such table"


def test_the_house_is_tidy(database):
    with psycopg.connect(database) as connection:
        assert connection.execute(Path(ROOT / "sql/checks.sql").read_text()).fetchall() == []


def test_the_checks_see_an_untidy_table(database):
    with psycopg.connect(database) as connection:
        connection.execute("create table untidy (a integer references users, project_id bigint)")
        found = " ".join(line for (line,) in connection.execute(Path(ROOT / "sql/checks.sql").read_text()))
    for untidy in (
        "table without a comment",
        "column without a comment",
        "without an index",
        "leaves open",
        "without a primary key",
        "that says what must be",
        "of which a token of a project sees all, or nothing: untidy",
    ):
        assert untidy in found


def test_every_constraint_means_something_to_a_client(database):
    with psycopg.connect(database, row_factory=namedtuple_row) as connection:
        names = connection.execute("""
            select n.nspname, c.relname, k.conname
            from pg_constraint k
            join pg_class c on c.oid = k.conrelid and not c.relispartition
            join pg_namespace n on n.oid = c.relnamespace and n.nspname in ('public', 'history')
            where k.contype <> 'n'
            union
            select n.nspname, c.relname, x.indexrelid::regclass::text
            from pg_index x
            join pg_class c on c.oid = x.indrelid and not c.relispartition
            join pg_namespace n on n.oid = c.relnamespace and n.nspname in ('public', 'history')
            where x.indisunique
        """).fetchall()
        statement = STATEMENTS["problems.constraint"]
        for schema_name, table, name in names:
            values = statement.values({"schema": schema_name, "table": table, "name": name.removeprefix("history.")})
            told = psycopg.RawCursor(connection, row_factory=namedtuple_row).execute(statement.sql, values).fetchone()
            assert re.fullmatch(r"[A-Z].*\.", told.sentence or ""), (
                f"sql/schema lacks: comment on constraint (or index) {name} on {table} is 'A sentence.'; it is {told}"
            )
            assert told.kind in BROKEN and told.field, name
    assert len(names) > 90


def test_psql_alone_builds_a_database_from_the_book(server):
    name = clone(server, "template0")
    url = psycopg.conninfo.make_conninfo(server, dbname=name)
    chapters = [part for path in sorted((ROOT / "sql/schema").glob("*.sql")) for part in ("-f", str(path))]
    try:
        subprocess.run(["psql", "-Xq1", "-v", "ON_ERROR_STOP=1", *chapters, url], check=True)
        assert schema.migrate(url) == ["book"], "the book again, and no migration"
        assert schema.migrate(url) == []
    finally:
        drop(server, name)


def test_sql_show_says_when_there_is_no_such_statement():
    shown = subprocess.run(["sql/show", "users.nothing"], cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 1
    assert shown.stderr == "sql/show: there is no statement users.nothing\n"


def test_conditions_are_left_out_of_lists_only():
    """Of all else every condition stands in what is sent, whatever is given."""
    for path in PAGES:
        for page, text in pages(path):
            _, *blocks = BLOCK.split(text)
            for name, body in zip(blocks[::2], blocks[1::2], strict=True):
                statement = STATEMENTS[f"{page}.{name}"]
                if "listed(" not in body:
                    assert statement.filtered is None, statement.name
                    assert statement.sql.count(b" = '' or ") == body.count(" = '' or "), statement.name


def test_sql_show_lists_all_statements_with_what_they_mean():
    listed = subprocess.run("sql/show", cwd=ROOT, capture_output=True, text=True, check=True).stdout
    told = dict(line.split("\t") for line in listed.splitlines())
    assert [*told] == sorted(STATEMENTS)
    assert told["users.get"] == "One user."
    assert all(told.values())


AWKS = [each for each in ("mawk", "gawk", "original-awk") if shutil.which(each)]


def test_sql_show_prints_the_same_by_any_awk(tmp_path):
    """Debian's own is mawk, which knows fewer expressions than others."""
    assert AWKS

    def printed(awk):
        (tmp_path / "awk").unlink(missing_ok=True)
        (tmp_path / "awk").symlink_to(shutil.which(awk))
        path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        return [
            subprocess.run(["sql/show", *asked], cwd=ROOT, env=path, capture_output=True, text=True, check=True).stdout
            for asked in ([], *([name] for name in sorted(STATEMENTS)[::4]), ["users.get"], ["users.list"])
        ]

    assert all(printed(awk) == printed("awk") for awk in AWKS)
    assert "\\echo :body" in printed(AWKS[0])[-2]
