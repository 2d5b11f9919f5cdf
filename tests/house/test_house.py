"""Laws of the house for Python: imports go one way, every route states its contract, every setting is written down."""

import ast
import re
import subprocess
import sys

import pytest
from flask import Blueprint

import app
from app import create_app
from handlers.http import problems
from handlers.http.auth import ROLES
from handlers.http.problem_kinds import GENERAL, KINDS, PREFIX
from tests import resources
from tests.conftest import ROOT

ROOMS = {
    "handlers": {"http", "bulk", "messages", "cli", "db"},
    "cli": {"http", "bulk", "messages", "db"},
    "http": {"bulk", "db"},
    "bulk": {"db"},
    "messages": {"db"},
    "db": set(),
}
"""Which rooms each room imports from, besides itself. Anybody imports what imports nothing of the house itself."""

APP = create_app()


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in [*ROOT.glob("handlers/**/*.py"), *ROOT.glob("db/*.py")]
}


def room(module):
    """The room that a module is in: the last folder of its path."""
    parts = module.split(".")
    return (
        parts[1] if parts[0] == "handlers" and MODULES.get(module, ROOT).parent.parent.name == "handlers" else parts[0]
    )


def used(module):
    """The modules of the house that a module imports, each by its own name and not by that of a thing in it."""
    for name in imports(MODULES[module]):
        while name and name not in MODULES:
            name = name.rpartition(".")[0]
        if name and name != module:
            yield name


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_one_way(module):
    for name in used(module):
        resource = room(name) == room(module) == "handlers" and name != "handlers"
        assert (room(name) in ROOMS[room(module)] | {room(module)} and not resource) or not [*used(name)], name


@pytest.mark.parametrize("room_name", ["bulk", "messages", "db"])
def test_engines_know_nothing_of_http(room_name):
    for module, path in MODULES.items():
        if room(module) == room_name:
            assert not [name for name in imports(path) if name.split(".")[0] in ("flask", "werkzeug", "app")], module


def test_one_route_module_does_not_load_the_others():
    script = "import sys, handlers.tasks; print(*(name for name in sys.modules if name.startswith('handlers.')))"
    loaded = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {name for name in loaded.split() if room(name) == "handlers"} == {"handlers.tasks"}


def test_what_the_master_loads_leaves_psycopg_to_its_workers():
    """psycopg decides as it is imported whether it lets other greenlets go on while it waits."""
    script = "import sys, gunicorn.app.wsgiapp, worker, logs, settings, supervisor; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {"worker", "supervisor"} < {*loaded.split()}
    assert not [name for name in loaded.split() if name.startswith("psycopg")]


WAITS = ("asks again", "any moment", "a slow peer", "nothing may happen", "the time that is promised")
"""Why a test may sleep; all else waits for a fact."""


def test_no_test_sleeps_where_it_can_wait_for_a_fact():
    for path in ROOT.glob("tests/**/*.py"):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if re.search(r"\b(time|gevent)\.sleep\((?!0\))", line) and path.name != "test_house.py":
                because = line.rpartition("  # ")[2] if "  # " in line else ""
                assert because.startswith(WAITS) or "print('sent'" in line, f"{path.name}, line {number}: why?"


@pytest.mark.parametrize("commands", ["messages", "tokens"])
def test_a_process_for_a_command_loads_no_route(commands):
    """What runs beside the service is small, and starts at once."""
    run = f"import sys, handlers.cli.{commands} as found; found.create_app(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", run], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    routes = {f"handlers.{path.stem}" for path in (ROOT / "handlers").glob("*.py")}
    assert routes.isdisjoint(loaded.split())


def test_nobody_imports_the_app():
    for module, path in MODULES.items():
        assert not [name for name in imports(path) if name.split(".")[0] == "app"], module


def test_no_class_is_called_as_another():
    named = [
        (node.name, module)
        for module, path in MODULES.items()
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
    ]
    names = [name for name, _ in named]
    assert not [each for each in named if names.count(each[0]) > 1]


def test_all_metrics_are_kept_where_they_can_end_no_process():
    for path in MODULES.values():
        used = [name for name in imports(path) if name.startswith("prometheus_client")]
        assert path.stem == "metrics" or not used, path


ENVIRONMENT = {"environ", "environb", "getenv", "getenvb"}


def of_environment(source):
    """The names that a module reads or sets in the environment; what names none, as it is written."""
    tree = ast.parse(source)
    around = {inner: node for node in ast.walk(tree) for inner in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            yield from ENVIRONMENT & {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute) and node.attr in ENVIRONMENT and ast.unparse(node.value) == "os":
            user = around[node] if not isinstance(around[node], ast.Attribute) else around[around[node]]
            names = [each.value for each in ast.iter_child_nodes(user) if isinstance(each, ast.Constant)]
            yield names[0] if names else ast.unparse(user)


def test_settings_are_read_in_one_place():
    for path in [*MODULES.values(), *ROOT.glob("*.py")]:
        if path.name not in ("settings.py", "locustfile.py"):
            found = {*of_environment(path.read_text())} - {"LC_ALL", "PROMETHEUS_MULTIPROC_DIR"}
            assert found <= MADE.get(path.name, set()), f"{path}: of the environment; settings.py reads it"


@pytest.mark.parametrize(
    "source",
    [
        'os.getenv("X")',
        'os.environ["X"]',
        'os.environ.get("X", "")',
        "os.environ.get('X')",
        '"X" in os.environ',
        "{**os.environ}",
        "os.getenv(name)",
        "from os import environ",
        "from os import getenv as read",
    ],
)
def test_whatever_reads_the_environment_is_found(source):
    assert {*of_environment(source)} - {"LC_ALL", "PROMETHEUS_MULTIPROC_DIR"}


MADE = {"app.py": {"DATABASE_URL"}, "gunicorn.conf.py": {"DATABASE_URL"}}
"""What may be read elsewhere: the address that gunicorn gives its workers."""


@pytest.mark.parametrize("path", [*ROOT.glob("*.md"), *ROOT.glob("*/*.md")], ids=lambda path: path.name)
def test_the_files_that_a_document_names_are_there(path):
    if path.name != "CHANGELOG.md":  # which tells of what was, too
        named = re.findall(r"\b(?:bench|db|docs|handlers|sql|tests)/[a-z_0-9/]+\.[a-z]+\b", path.read_text())
        lacking = [name for name in named if not (ROOT / name).exists() and "labels." not in name]
        assert not lacking, f"{path.name}: of these, only the labels of CONTRIBUTING are an example"


def test_the_readme_is_short_and_has_every_path():
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 100
    for rule in {rule.rule for rule in APP.url_map.iter_rules() if "<any('" not in rule.rule}:  # those are files
        path = re.sub(r"<any\(.*?\):(\w+)>|<\w+:(\w+)>", lambda found: f"{{{found[1] or found[2]}}}", rule)
        first, rest = re.fullmatch(r"/([^/]*)(.*)", path).groups()
        table = first in ("departments", "jobs", "employees")
        spellings = {path, f"/{{resource}}{rest}" if rest.endswith(("/history", "/revert")) else path}
        spellings |= {f"/{{table}}{rest}"} if table else set()
        spellings |= {"/projects/{id}/{resource}"} if rest.removeprefix("/{id}/") in resources.OTHERS else set()
        spellings |= {f"/{{resource}}{rest}"} if first in resources.OTHERS else set()
        assert any(re.search(rf"`{re.escape(each)}(\?\w+=)?`", readme) for each in spellings), f"README.md lacks {path}"


@pytest.mark.parametrize("rule", [*APP.url_map.iter_rules()], ids=str)
def test_every_route_states_its_role_and_contract_and_is_explained(rule):
    view = APP.view_functions[rule.endpoint]
    where = f"{view.__module__.replace('.', '/')}.py: {rule.endpoint}"
    assert view.role in ROLES
    assert getattr(view, "contract", None), f"{where} lacks @takes(…) or @gives(…)"
    assert view.__doc__, f"{where} lacks a docstring, which is what /docs says"


def test_a_route_without_a_role_keeps_the_service_from_starting(monkeypatch):
    forgetful = Blueprint("forgetful", __name__)

    @forgetful.post("/forgetful")
    def forgotten():
        return "Everybody."

    monkeypatch.setattr(app, "blueprints", lambda: [forgetful])
    with pytest.raises(TypeError, match=r"^tests/house/test_house\.py: forgotten\(\) lacks @requires_role\(…\)\.$"):
        create_app()


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("handlers")])
def test_a_module_is_no_longer_than_three_pages(module):
    assert len(MODULES[module].read_text().splitlines()) <= 200


def test_the_factory_is_small():
    assert len((ROOT / "app.py").read_text().splitlines()) <= 120


def test_the_container_has_every_module():
    copied = (ROOT / "container/Containerfile").read_text()
    for path in ROOT.glob("*.py"):
        assert path.name in copied or path.name == "locustfile.py", path


FRAMEWORKS = {404, 405, 413, 414, 416, 417, 431, 500, 501}
"""What Flask, Werkzeug and gunicorn refuse without a word of ours."""

SOURCES = [*ROOT.glob("*.py"), *ROOT.glob("handlers/**/*.py"), *ROOT.glob("sql/schema/*.sql")]


def kinds_told(path):
    """The statuses and names that a file tells problems by: calls of ours, their tables, and what SQL writes down."""
    text = path.read_text()
    told = [int(status) for status in re.findall(r"\b(?:abort|problem|ProblemException)\(\s*(\d+)", text)]
    told += re.findall(r"\"(.*?)\"", " ".join(re.findall(r"\b(?:problem|ProblemException)\(\s*(\"[^,]*),", text)))
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
