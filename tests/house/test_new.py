"""A resource is four files: flask new writes them, all laws and walks hold with them, and nothing is left behind."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

FILES = ["sql/schema/45_labels.sql", "sql/queries/labels.sql", "handlers/labels.py", "tests/test_labels.py"]

WALKS = [
    *("house/test_house.py", "house/test_sql.py", "house/test_plans.py", "test_labels.py", "test_access.py"),
    *("test_preconditions.py", "test_row_security.py", "test_merging.py", "test_bodies.py"),
]
"""What looks at every resource that there is."""

BIN = Path(sys.executable).parent


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


def run(tree, *command):
    # Its own name, so that nothing of the outer run's environment speaks for this one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


def pytest_of(tree, *names, marked="not thorough"):
    return run(tree, BIN / "python", "-m", "pytest", "-q", "-m", marked, *(f"tests/{name}" for name in names))


def test_what_flask_new_writes_is_fit_to_be_kept(tree):
    written = run(
        tree, BIN / "flask", "--app", "app", "new", "labels", "name:text", "color:color", "--under", "projects"
    )
    assert written.split() == FILES
    run(tree, BIN / "ruff", "check", ".")
    run(tree, BIN / "ruff", "format", "--check", ".")


@pytest.mark.thorough
def test_a_resource_is_added_walked_fuzzed_and_removed(tree):
    before = pytest_of(tree, "house/test_house.py")
    run(tree, BIN / "flask", "--app", "app", "new", "labels", "name:text", "color:color", "--under", "projects")
    run(tree, BIN / "mypy")
    pytest_of(tree, *WALKS)
    fuzz = tree / "tests/test_fuzzing.py"
    fuzz.write_text(
        fuzz.read_text()
        .replace('"--checks=all"', '"--checks=all", "--include-path-regex=labels"')
        .replace("> 10_000", ">= 100")
    )
    pytest_of(tree, "test_fuzzing.py", marked="thorough")
    for name in FILES:
        (tree / name).unlink()
    assert pytest_of(tree, "house/test_house.py").split("[")[0] == before.split("[")[0]


@pytest.mark.parametrize(
    "given, told",
    [
        (["labels", "name:nothing", "--under", "projects"], "no type"),
        (["Labels", "name:text", "--under", "projects"], "no name"),
        (["labels", "name;drop:text", "--under", "projects"], "no name"),
        (["labels", "name:text"], "--under"),
        (["users", "name:text", "--under", "projects"], "already"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_it_refuses_what_would_be_none(given, told):
    done = subprocess.run([BIN / "flask", "--app", "app", "new", *given], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode and told in done.stderr
    assert not subprocess.run(
        ["git", "status", "--porcelain", "handlers/labels.py"], cwd=ROOT, capture_output=True
    ).stdout
