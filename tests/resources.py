"""What each resource is made of. What stands below a project and is not told of here is read out of its contract."""

import json
import re

from app import create_app
from tests.conftest import ROOT

APP = create_app()

PERSON = {"name": "Cut", "address": "1 Cut Street", "image": "https://example.com/c.png"}
AUDIO = {"ticks": [-20.5] * 15, "selected_tick": 1, "step_count": 1}
EMPLOYED = {"datetime": "2021-01-01T00:00:00Z", "department_id": 1, "job_id": 1}

NEW = {
    "/users": lambda n: PERSON | {"email": f"cut{n}@example.com"},
    "/audios": lambda n: AUDIO | {"session_id": n},
    "/projects": lambda n: {"name": f"Project {n}"},
    "/projects/<id:id>/milestones": lambda n: {"name": f"Milestone {n}", "starts_on": "2026-01-01"},
    "/projects/<id:id>/userstories": lambda n: {"subject": f"Story {n}"},
    "/userstories/<id:id>/tasks": lambda n: {"subject": f"Task {n}"},
    "/userstories/<id:id>/comments": lambda n: {"text": f"Comment {n}"},
    "/departments": lambda n: {"id": n, "department": f"Department {n}"},
    "/jobs": lambda n: {"id": n, "job": f"Job {n}"},
    "/employees": lambda n: {"id": n, "name": f"Ann {n}", **EMPLOYED},
    "/events": lambda n: {"user_id": f"ann{n}", "description": f"Parcel {n}"},
}  # fmt: skip
"""What makes something new, by the path that it is posted to."""

TOLD = {*NEW}

CHANGES = {
    "users": {"name": "Changed"},
    "audios": {"step_count": 2},
    "projects": {"name": "Changed"},
    "milestones": {"name": "Changed"},
    "userstories": {"subject": "Changed"},
    "tasks": {"subject": "Changed"},
    "comments": {"text": "Changed"},
    "departments": {"department": "Changed"},
    "jobs": {"job": "Changed"},
    "employees": {"name": "Changed"},
    "events": {"description": "Changed"},
}
"""What changes it."""

OTHERS: dict[str, dict] = {}
"""The resources of projects that are not told of above, and what is posted for one: examples of its members."""


def example(schema) -> dict:
    """A body out of the examples of the members that it must have."""
    return {name: field.metadata["example"] for name, field in schema.load_fields.items() if field.required}


def changed(body: dict) -> dict:
    """A first member with another value of its kind."""
    name, value = next(iter(body.items()))
    if isinstance(value, str):
        return {name: value[:-1] + ("1" if value[-1] != "1" else "2")}
    return {name: not value if isinstance(value, bool) else value + 1}


for rule in APP.url_map.iter_rules():
    noun = rule.endpoint.partition(".create_")[2]
    if noun and rule.rule not in TOLD:
        body = OTHERS[noun] = example(APP.view_functions[rule.endpoint].contract.body)
        NEW[rule.rule] = lambda n, body=body: body
        CHANGES[noun] = changed(body)

ABOVE = {path.split("/")[-1]: path.split("/")[1] for path in NEW if "<id:id>" in path}
"""What a resource stands below."""

NOUNS = [path.split("/")[-1] for path in NEW]
"""Every resource, each after what it stands below."""

FENCED = re.findall(
    r"^select fence\('([\w.]+)'(?!, 'actor)",
    "\n".join(path.read_text() for path in sorted(ROOT.glob("sql/schema/*.sql"))),
    re.M,
)
"""The tables of which a token of a project sees its own rows."""


def created(service, path, body):
    """What a service made of a body; its UUID as its id, too."""
    answer = service.post(path, json=body)
    assert answer.status_code == 201, answer.text
    found = answer.json()
    return found | {"id": found.get("id") or found["event_id"]}


def create_all(service) -> dict[str, dict]:
    """One of each resource, each below the one that was made before it."""
    made: dict[str, dict] = {}
    for path, body in NEW.items():
        noun = path.split("/")[-1]
        where = f"/{ABOVE[noun]}/{made[ABOVE[noun]]['id']}/{noun}" if noun in ABOVE else path
        made[noun] = created(service, where, body(1))
    return made


def inserted(noun: str, project: str, rows: int) -> str:
    """SQL that puts so many rows of one of OTHERS into a project, or into several: `project` may name n, the row."""
    columns = ", ".join(OTHERS[noun])
    members = ", ".join(f"r.{name}" for name in OTHERS[noun])
    return (
        f"insert into {noun} (project_id, {columns}) select {project}, {members} from generate_series(1, {rows}) as n,"
        f" jsonb_populate_record(null::{noun}, '{json.dumps(OTHERS[noun])}') as r;"
    )


def standard_access(noun: str) -> dict[str, str]:
    """Who may call the routes of a resource of projects, by route."""
    at, one = f"/projects/<id:id>/{noun}", f"/{noun}/<id:id>"
    reading, writing = "reader, project", "writer, project"
    return {
        f"GET {at}": reading,
        f"POST {at}": writing,
        f"GET {one}": reading,
        f"PUT {one}": writing,
        f"PATCH {one}": writing,
        f"DELETE {one}": writing,
        f"GET {one}/history": reading,
        f"POST {one}/revert": writing,
    }
