"""The command line: what cannot be done is said in one line, and what was not said is not done."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from tests.conftest import first, make_token
from tests.flask_command import flask

PRINTING = [
    "migrate",
    "seed",
    "routes",
    "--help",
    "token list",
    "token create full --role reader",
    "history prune --before 2000-01-01",
    "backup jobs",
    "explain users.get id=1",
]


@pytest.mark.parametrize("words", first(2, PRINTING))
def test_an_output_that_is_full_is_said_in_one_line_and_no_token_is_kept(module_database, tmp_path, words):
    with psycopg.connect(module_database, autocommit=True) as connection:
        make_token(connection)  # so that there is one to list
        with Path("/dev/full").open("w") as full:
            found = flask(module_database, *words.split(), stdout=full, BACKUP_DIR=str(tmp_path))
        said = [line for line in found.stderr.splitlines() if not line.startswith("Backing up")]
        assert (found.returncode, said) == (1, ["Standard output cannot be written: No space left on device."])
        assert not connection.execute("select 1 from tokens where name = 'full'").fetchone()


REFUSED = {
    "explain users.get id": "id is no NAME=VALUE.",
    "explain users.get id=1 id=2": "id is given twice.",
    "explain users.get ids=1": "users.get has no parameter ids; it has fields, id.",
    "explain access.made x=1": "access.made has no parameter x; it has none.",
    "restore jobs --backup jobs-1 --file /dev/null": "Either --backup or --file says what is restored.",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_makes_no_sense_is_refused_before_anything_is_done(words):
    found = flask("postgresql://nowhere.invalid/x", *words.split())
    assert (found.returncode, found.stderr.splitlines()[-1]) == (2, f"Error: {REFUSED[words]}")


@pytest.mark.parametrize("days", [1, 40, 10_000])
def test_no_month_that_has_not_ended_is_pruned(module_database, days):
    day = f"{datetime.now(UTC) + timedelta(days):%Y-%m-%d}"
    with psycopg.connect(module_database, autocommit=True) as connection:
        partitions = "select count(*) from pg_inherits where inhparent = 'history.entries'::regclass"
        before = connection.execute(partitions).fetchone()
        found = flask(module_database, "history", "prune", "--before", day)
        assert found.returncode == 2
        assert "only months that ended can be dropped" in found.stderr
        today = f"{datetime.now(UTC):%Y-%m-%d}"
        assert flask(module_database, "history", "prune", "--before", today).stdout == "There was nothing to drop.\n"
        assert connection.execute(partitions).fetchone() == before
