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


@pytest.mark.parametrize(
    ("phases", "examples", "least"),
    [
        ("examples,fuzzing", 1, 150),
        # Each bound of each parameter of each route; a minute and a half, so `make fuzz` runs it.
        pytest.param("examples,coverage,fuzzing,stateful", 10, 10_000, marks=pytest.mark.thorough),
    ],
    ids=["some", "thorough"],
)
def test_every_answer_is_as_the_document_says(database, tmp_path, phases, examples, least):
    with psycopg.connect(database, autocommit=True) as connection:
        held = make_token(connection)
    with serve(database, RATE_LIMIT="0") as service:
        given = [
            f"--phases={phases}",
            f"--max-examples={examples}",
            f"--header=Authorization: Bearer {held}",
            f"{service.url}/openapi.json",
        ]
        command = [*COMMAND, *OPTIONS, *given]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1700)
        assert done.returncode == 0, done.stdout
        assert int(re.search(r"(\d+) generated", done.stdout)[1]) >= least, done.stdout
        unlimited = service.get("/users", headers={"Authorization": f"Bearer {held}"})
        assert unlimited.status_code == 200 and "RateLimit" not in unlimited.headers
        statuses = re.findall(r'rowhouse_requests_total\{.*status="(\d+)"\}', service.get("/metrics").text)
        assert "200" in statuses and not [status for status in statuses if status.startswith("5")]
