"""Laws of the house for Python: imports go one way, every route states its contract, every setting is written down."""

import ast
import re

import pytest

from app import LIMITS, OIDC, create_app
from handlers import problems
from handlers.access import ROLES
from handlers.kinds import GENERAL, KINDS, PREFIX
from tests.conftest import ROOT

SHARED = {
    "open_sockets",
    "shares",
    "streaming",
    "access",
    "answers",
    "avroblocks",
    "avromoments",
    "avrofile",
    "backing",
    "bodies",
    "broker",
    "channels",
    "contract",
    "csvfile",
    "csvheader",
    "csvrows",
    "doors",
    "fetch",
    "fields",
    "files",
    "headers",
    "idempotency",
    "kinds",
    "lean",
    "lines",
    "loading",
    "longwork",
    "merging",
    "metrics",
    "oidc",
    "origins",
    "openapi",
    "parameters",
    "past",
    "places",
    "preconditions",
    "problems",
    "progress",
    "quota",
    "relay",
    "restoring",
    "schemas",
    "shelf",
    "sockets",
}
"""What the nouns of handlers/ share; a noun imports no other noun."""

APP = create_app()


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", [*(ROOT / "db").glob("*.py")], ids=lambda path: path.stem)
def test_db_knows_nothing_of_http(path):
    assert not [name for name in imports(path) if name.split(".")[0] in ("handlers", "flask", "werkzeug", "app")]


@pytest.mark.parametrize("path", [*(ROOT / "handlers").glob("[a-z]*.py")], ids=lambda path: path.stem)
def test_no_noun_imports_another(path):
    used = {name.split(".")[1] for name in imports(path) if name.startswith("handlers.")}
    assert used - SHARED - {path.stem} == set()


def test_nobody_imports_the_app():
    for path in [*ROOT.glob("handlers/*.py"), *ROOT.glob("db/*.py")]:
        assert not [name for name in imports(path) if name.split(".")[0] == "app"], path


def test_all_metrics_are_kept_where_they_can_end_no_process():
    for path in [*ROOT.glob("handlers/*.py"), *ROOT.glob("db/*.py")]:
        used = [name for name in imports(path) if name.startswith("prometheus_client")]
        assert path.stem == "metrics" or not used, path


def test_only_the_app_and_gunicorn_read_settings():
    for path in [*ROOT.glob("handlers/*.py"), *ROOT.glob("db/*.py")]:
        read = re.findall(r"os\.environ(?:\.get\(|\[)\"(\w+)\"(?! *\] *=)", path.read_text())
        assert set(read) - {"LC_ALL", "PROMETHEUS_MULTIPROC_DIR"} == set(), path


def test_every_setting_is_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    for path in (ROOT / "app.py", ROOT / "gunicorn.conf.py"):
        for name in re.findall(r"(?:environ\.get\(|environ\[|number\()\"(\w+)\"", path.read_text()):
            assert f"`{name}`" in readme or name == "PROMETHEUS_MULTIPROC_DIR", name
    for name, default in OIDC.items():
        assert f"`{name}` | {f'`{default}`' if default else ''}" in readme, name
    for name, default in LIMITS.items():
        assert re.search(rf"{default:,}\b.*`{name}`", readme), f"{name}, {default:,} by default"


@pytest.mark.parametrize("rule", [*APP.url_map.iter_rules()], ids=str)
def test_every_route_states_its_role_and_contract_and_is_explained(rule):
    view = APP.view_functions[rule.endpoint]
    assert view.role in ROLES
    assert view.contract
    assert view.__doc__, "the docstring is what /docs says"


@pytest.mark.parametrize("path", [*(ROOT / "handlers").glob("[a-z]*.py")], ids=lambda path: path.stem)
def test_a_door_is_no_longer_than_three_pages(path):
    assert len(path.read_text().splitlines()) <= 200


def test_the_hall_is_small():
    assert len((ROOT / "app.py").read_text().splitlines()) <= 120


def test_the_container_has_every_module():
    copied = (ROOT / "container/Containerfile").read_text()
    for path in ROOT.glob("*.py"):
        assert path.name in copied or path.name == "locustfile.py", path


FRAMEWORKS = {404, 405, 413, 414, 416, 417, 431, 500, 501}
"""What Flask, Werkzeug and gunicorn refuse without a word of ours."""

SOURCES = [*ROOT.glob("*.py"), *ROOT.glob("handlers/*.py"), *ROOT.glob("sql/schema/*.sql")]


def kinds_told(path):
    """The statuses and names that a file tells problems by: calls of ours, their tables, and what SQL writes down."""
    text = path.read_text()
    told = [int(status) for status in re.findall(r"\b(?:abort|[Pp]roblem)\(\s*(\d+)", text)]
    told += re.findall(r"\"(.*?)\"", " ".join(re.findall(r"\b[Pp]roblem\(\s*(\"[^,]*),", text)))
    told += re.findall(rf"'{PREFIX}([^']*)'", text)
    if path.stem == "problems":
        told += [*problems.BROKEN.values(), *(kind for kind, _ in problems.SQLSTATES.values())]
    return told


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_every_problem_is_of_a_kind(path):
    assert "about:blank" not in path.read_text()
    for told in kinds_told(path):
        assert told in (GENERAL if isinstance(told, int) else KINDS), told


def test_every_kind_is_explained_and_used():
    told = FRAMEWORKS.union(*map(kinds_told, SOURCES))
    for name, kind in KINDS.items():
        assert re.fullmatch("[a-z]+(-[a-z]+)*", name)
        assert re.fullmatch(r"[A-Z].+[.…:] [A-Z].+[.…]", kind.explanation), f"{name}: what it means, and what to do"
        assert name in told or (kind.status in told and GENERAL[kind.status] == name), f"{name} is never told"
    for status in FRAMEWORKS:
        assert status in GENERAL
