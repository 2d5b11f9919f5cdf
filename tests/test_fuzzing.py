"""Requests made from the OpenAPI document, good and bad, by themselves and one after the other: answered as it says."""

import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from tests.conftest import ROOT, make_token, serve

# The command of the environment that runs the tests.
COMMAND = [Path(sys.executable).parent / "schemathesis", "--config-file", ROOT / "tests/schemathesis.toml", "run"]
OPTIONS = ["--checks=all", "--continue-on-failure", "--generation-deterministic"]


KEPT = """
    create function pass_over() returns trigger language plpgsql as 'begin return null; end';
    create trigger tokens_00_kept before update on tokens
    for each row when (old.id = 1 and new.revoked_at is not null) execute function pass_over()
"""
"""The token that all this is done by is not taken back, though GET /tokens names it."""


@pytest.mark.thorough
def test_every_answer_is_as_the_document_says(database, tmp_path):
    """Each bound of each parameter of each route; `make fuzz` runs this alone."""
    with psycopg.connect(database, autocommit=True) as connection:
        held = make_token(connection)
        connection.execute(KEPT)
    with serve(database, RATE_LIMIT="0") as service:
        given = [
            "--phases=examples,coverage,fuzzing,stateful",
            "--max-examples=10",
            f"--header=Authorization: Bearer {held}",
            f"{service.url}/openapi.json",
        ]
        command = [*COMMAND, *OPTIONS, *given]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1700)
        assert done.returncode == 0, done.stdout
        assert int(re.search(r"(\d+) generated", done.stdout)[1]) > 10_000, done.stdout
        unlimited = service.get("/users", headers={"Authorization": f"Bearer {held}"})
        assert unlimited.status_code == 200 and "RateLimit" not in unlimited.headers
        statuses = re.findall(r'rowhouse_requests_total\{.*status="(\d+)"\}', service.get("/metrics").text)
        assert "200" in statuses and not [status for status in statuses if status.startswith("5")]
