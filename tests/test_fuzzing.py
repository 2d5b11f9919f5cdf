"""Thousands of requests made from the OpenAPI document, good and bad: each is answered as the document says."""

import re
import subprocess
import sys
from pathlib import Path

import psycopg

from tests.conftest import ROOT, serve
from tests.test_row_security import token

CASES = 10_000
"""At least so many."""


def test_every_answer_is_as_the_document_says(database, tmp_path):
    # The command of the environment that runs the tests.
    command = [Path(sys.executable).parent / "schemathesis", "--config-file", ROOT / "tests/schemathesis.toml", "run"]
    options = ["--checks=all", "--max-examples=10", "--continue-on-failure", "--generation-deterministic"]
    with psycopg.connect(database, autocommit=True) as connection:
        held = token(connection, None)
    with serve(database, RATE_LIMIT="0") as service:
        done = subprocess.run(
            [*command, *options, f"--header=Authorization: Bearer {held}", f"{service.url}/openapi.json"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stdout
        assert int(re.search(r"(\d+) generated", done.stdout)[1]) >= CASES, done.stdout[-2000:]
        statuses = re.findall(r'rowhouse_requests_total\{.*status="(\d+)"\}', service.get("/metrics").text)
        assert "200" in statuses and not [status for status in statuses if status.startswith("5")]
