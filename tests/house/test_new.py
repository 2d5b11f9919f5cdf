"""A resource is four files: flask new writes them, all laws and walks hold with them, and nothing is left behind."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from app import create_app
from handlers.cli.names import RESERVED
from tests.conftest import ROOT, first

NOUN = "kitchen_sinks"
"""A name that nobody takes."""

FILES = [f"sql/schema/45_{NOUN}.sql", f"sql/queries/{NOUN}.sql", f"handlers/{NOUN}.py", f"tests/test_{NOUN}.py"]

WALKS = [
    *("house/test_house.py", "house/test_sql.py", "house/test_plans.py", f"test_{NOUN}.py", "test_access.py"),
    *("test_members.py", "test_preconditions.py", "test_row_security.py", "test_merging.py", "test_bodies.py"),
]
"""What looks at every resource that there is."""

BIN = Path(sys.executable).parent

APP = create_app()


@pytest.fixture
def tree(tmp_path):
    """A copy of what is in the repository."""
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    for name in tracked:
        if (ROOT / name).exists():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def run(tree, *command, **settings):
    # Its own name, so that nothing of the outer run's environment speaks for this one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")} | settings
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


def new(tree, *members, under="projects"):
    return run(tree, BIN / "flask", "--app", "app", "new", NOUN, *members, "--under", under)


def pytest_of(tree, *names, marked="not thorough", only=""):
    files = [f"tests/{name}" for name in names]
    return run(tree, BIN / "python", "-m", "pytest", "-q", "-m", marked, "-k", only, *files)


@pytest.mark.parametrize("under", first(1, ["projects", "userstories", "none"]))
def test_what_flask_new_writes_is_fit_to_be_kept(tree, under):
    assert new(tree, "name:text", "color:color", under=under).split() == FILES
    run(tree, BIN / "ruff", "check", ".")
    run(tree, BIN / "ruff", "format", "--check", ".")


@pytest.mark.thorough
@pytest.mark.parametrize("under", ["userstories", "none"])
def test_a_resource_below_a_story_or_nothing_is_walked(tree, under):
    new(tree, "name:text", "color:color", under=under)
    pytest_of(tree, *WALKS, only=NOUN)


@pytest.mark.thorough
def test_a_resource_is_added_walked_fuzzed_and_removed(tree):
    before = pytest_of(tree, "house/test_house.py")
    new(tree, "name:text", "color:color")
    run(tree, BIN / "mypy")
    pytest_of(tree, *WALKS)
    fuzz = tree / "tests/test_fuzzing.py"
    fuzz.write_text(
        fuzz.read_text()
        .replace('"--checks=all"', '"--checks=all", "--include-path-regex=' + NOUN + '"')
        .replace("> 10_000", ">= 100")
    )
    pytest_of(tree, "test_fuzzing.py", marked="thorough")
    for name in FILES:
        (tree / name).unlink()
    assert pytest_of(tree, "house/test_house.py").split("[")[0] == before.split("[")[0]


@pytest.mark.thorough
def test_a_resource_that_is_there_is_changed(tree, database):
    """By the migration that CONTRIBUTING shows: a member more, and another name for one; then one goes."""
    migration = re.search(r"```sql\n(-- 0029 .*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)[1]
    environment = {"DATABASE_URL": database}
    new(tree, "name:text", "color:color")
    run(tree, BIN / "flask", "--app", "app", "migrate", **environment)
    with psycopg.connect(database) as connection:
        connection.execute("insert into projects (name) values ('Ann')")
        connection.execute(f"insert into {NOUN} (project_id, name, color) values (1, 'Sink', '#00ff00')")
    for name in FILES:
        (tree / name).unlink()
    new(tree, "name:text", "tint:color", "size:integer")
    name = migration.splitlines()[-1].split("'")[1]
    (tree / f"sql/migrations/{name}.sql").write_text(migration.replace("labels", NOUN))
    run(tree, BIN / "flask", "--app", "app", "migrate", **environment)
    with psycopg.connect(database) as connection:
        shown = connection.execute(f"select {NOUN}_json(r) from {NOUN} as r").fetchone()[0]
    assert [*shown.items()][3:6] == [("name", "Sink"), ("tint", "#00ff00"), ("size", 0)]
    for path in FILES:
        (tree / path).unlink()
    new(tree, "name:text", "tint:color")
    gone = f"alter table if exists {NOUN} drop column size cascade;\n\n{migration.splitlines()[-1]}\n"
    (tree / "sql/migrations/0999_no_size.sql").write_text(gone.replace(name, "0999_no_size"))
    run(tree, BIN / "flask", "--app", "app", "migrate", **environment)
    with psycopg.connect(database) as connection:
        assert "size" not in connection.execute(f"select {NOUN}_json(r) from {NOUN} as r").fetchone()[0]
        assert connection.execute(f"select count(*) from past.{NOUN}").fetchone() == (1,)
    pytest_of(tree, "house/test_sql.py", f"test_{NOUN}.py")


@pytest.mark.parametrize(
    "given, told",
    [
        ([NOUN, "name:nothing", "--under", "projects"], "no type"),
        (["Sinks", "name:text", "--under", "projects"], "no name"),
        ([NOUN, "name;drop:text", "--under", "projects"], "no name"),
        ([NOUN, "name:text"], "--under"),
        (["users", "name:text", "--under", "projects"], "already"),
        (["class", "name:text", "--one", "pupil", "--under", "projects"], "class is a word of Python"),
        ([NOUN, "name:text", "order:integer", "--under", "projects"], "order is a word of SQL"),
        ([NOUN, "import:text", "--under", "projects"], "import is a word of Python"),
        ([NOUN, "name:text", "name:color", "--under", "projects"], "name is named twice"),
        ([NOUN, "version:integer", "--under", "projects"], "version is a column that it has anyway"),
        (["b" * 30 + "s", f"{'a' * 40}:text", "--under", "projects"], "longer than the 63 bytes"),
        (["messages", "name:text", "--under", "projects"], "There is handlers/messages already"),
        (["http", "name:text", "--one", "request", "--under", "projects"], "There is handlers/http already"),
        (["first_answers", "name:text", "--under", "projects"], "There is a table first_answers already"),
        (["tree", "name:text", "--one", "leaf", "--under", "projects"], "path or a module that is called tree"),
        ([NOUN, "name:text", "--one", "user", "--under", "projects"], "There is a user in history already"),
        ([NOUN, "name:text", "--one", "userstory", "--under", "projects"], "There is a userstory in history"),
        ([NOUN, "name:text", "--one", "revert", "--under", "projects"], "There is a class Revert already"),
        (["statuses", "name:text", "--under", "projects"], "What is one of statuses called?"),
        (["classes", "name:text", "--under", "projects"], "What is one of classes called?"),
        (["people", "name:text", "--under", "projects"], "What is one of people called?"),
        (["values", "name:text", "--under", "projects"], "values is a word of SQL"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_it_refuses_what_would_be_none(given, told):
    done = APP.test_cli_runner().invoke(args=["new", *given])
    assert done.exit_code and told in done.output, done.output
    assert not [name for name in FILES if (ROOT / name).exists()]


def test_the_words_that_postgresql_keeps_are_known(database):
    with psycopg.connect(database) as connection:
        words = connection.execute("select word from pg_get_keywords() where catcode in ('R', 'T')").fetchall()
    assert {word for (word,) in words} <= {*RESERVED.split()}


@pytest.mark.thorough
def test_the_page_is_told_what_one_of_many_is_called(tree):
    written = run(
        tree, BIN / "flask", "--app", "app", "new", "oddities", "name:text", "--one", "oddity", "--under", "none"
    )
    assert "handlers/static/page.js knows what one of oddities is called." in written
    pytest_of(tree, "house/test_sql.py::test_the_page_finds_every_tracked_table")
