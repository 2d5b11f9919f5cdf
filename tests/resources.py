"""What each resource is made of. What is not told of here is read out of its contract, its table and its keys."""

import re
from collections.abc import Iterable
from functools import partial

import psycopg
from marshmallow import ValidationError, fields
from psycopg.types.json import Jsonb

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
"""The resources that are not told of above, and what is posted for one: examples of its members."""

BOOK = "\n".join(path.read_text() for path in sorted(ROOT.glob("sql/schema/*.sql")))


def varied(noun: str, query) -> set[str]:
    """The columns that differ from row to row: what may be there once, or is filtered by, and refers to no row."""
    once = rf"(?:constraint {noun}_\w*key unique|create unique index[^;]* on {noun}) (\(.*\))"
    refers = rf"constraint {noun}_\w+_fkey foreign key (\(.*?\))"
    found, foreign = (set(re.findall(r"\w+", " ".join(re.findall(of, BOOK)))) for of in (once, refers))
    return (found | {*query.fields}) - foreign


def example(schema) -> dict:
    """A body out of the examples of the members that it must have."""
    return {name: field.metadata["example"] for name, field in schema.load_fields.items() if field.required}


def other(field: fields.Field, value: object, n: int) -> object:
    """Another value of a member, of its kind, for each n; the value itself, where its end cannot be a number."""
    if isinstance(value, bool):
        return value ^ bool(n % 2)
    changed = value + n if isinstance(value, int) else value[: max(0, len(value) - len(str(n)))] + str(n)
    try:
        field.deserialize(changed)
    except ValidationError:
        return value
    return changed


def body_of(noun: str, n: int) -> dict:
    """The nth of a resource."""
    return {
        name: other(FIELDS[noun][name], value, n) if name in VARIED[noun] else value
        for name, value in OTHERS[noun].items()
    }


def change_of(noun: str) -> dict:
    """A first member of which another value can be made, and that value."""
    for name, value in OTHERS[noun].items():
        for n in (9, 8):
            if (changed := other(FIELDS[noun][name], value, n)) != value:
                return {name: changed}
    raise AssertionError(
        f"tests/resources.py: NEW and CHANGES lack {noun}, whose examples cannot be changed at their end"
    )


FIELDS: dict[str, dict] = {}
VARIED: dict[str, set[str]] = {}
PARENT: dict[str, str] = {}
"""Of OTHERS: the members, those that differ from row to row, and the one that names what it stands below."""

for rule in APP.url_map.iter_rules():
    blueprint, _, noun = rule.endpoint.partition(".create_")
    if noun and rule.rule not in TOLD:
        schema = APP.view_functions[rule.endpoint].contract.body
        OTHERS[noun], FIELDS[noun] = example(schema), schema.load_fields
        VARIED[noun] = varied(noun, APP.view_functions[f"{blueprint}.list_{noun}"].contract.query)
        PARENT[noun] = next((name for name in schema.dump_fields if name.endswith("_id")), "")
        NEW[rule.rule] = partial(body_of, noun)
        CHANGES[noun] = change_of(noun)

ABOVE = {path.split("/")[-1]: path.split("/")[1] for path in NEW if "<id:id>" in path}
"""What a resource stands below."""

PATHS = {path.split("/")[-1]: path for path in NEW}
"""Where each resource is posted to."""

OF_PROJECTS = {noun: body for noun, body in OTHERS.items() if noun in ABOVE}
"""Those of them that stand below a project, or below what does."""

FENCED = re.findall(r"^select fence\('([\w.]+)'(?!, 'actor)", BOOK, re.MULTILINE)
"""The tables of which a token of a project sees its own rows."""


def created(service, path, body):
    """What a service made of a body; its UUID as its id, too."""
    answer = service.post(path, json=body)
    assert answer.status_code == 201, answer.text
    found = answer.json()
    return found | {"id": found.get("id") or found["event_id"]}


def path_below(noun: str, ids: dict[str, object]) -> str:
    """Where one of a resource is posted to, below what has these ids."""
    return PATHS[noun].replace("<id:id>", str(ids.get(ABOVE.get(noun, ""))))


def create_all(service) -> dict[str, dict]:
    """One of each resource, each below the one that was made before it."""
    made: dict[str, dict] = {}
    for noun, path in PATHS.items():
        ids = {above: found["id"] for above, found in made.items()}
        made[noun] = created(service, path_below(noun, ids), NEW[path](1))
    return made


PARENTS = """
    select distinct on (a.attname)
        a.attname,
        case f.attname when 'project_id' then 'projects' else k.confrelid::regclass::text end
    from pg_constraint as k
    cross join unnest(k.conkey, k.confkey) as pair (of, at)
    join pg_attribute as a on a.attrelid = k.conrelid and a.attnum = pair.of
    join pg_attribute as f on f.attrelid = k.confrelid and f.attnum = pair.at
    where k.contype = 'f'
        and k.conrelid = %s::regclass
        and a.attnotnull
    order by a.attname
"""
"""The columns of a table that must refer to something, and the table of what they refer to."""


def insert(connection: psycopg.Connection, noun: str, parents: dict[str, object], numbers: Iterable[int]) -> None:
    """Put in the rows of these numbers of one of OTHERS, below these ids by table: SQL that may name n, the row."""
    bodies = [body_of(noun, n) for n in numbers]
    keys = connection.execute(PARENTS, [noun]).fetchall()
    values = {column: str(parents[table]) for column, table in keys if column not in bodies[0]}
    values |= {name: f"r.{name}" for name in bodies[0]}
    connection.execute(
        f"insert into {noun} ({', '.join(values)}) select {', '.join(values.values())}"
        f" from jsonb_array_elements(%s) with ordinality as e (body, n)"
        f" cross join jsonb_populate_record(null::{noun}, e.body) as r",
        [Jsonb(bodies)],
    )


def seventh(noun: str) -> dict[str, str]:
    """The members of the seventh of one of OTHERS, as a query has them."""
    members = body_of(noun, 7) if noun in OTHERS else {}
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in members.items()}


def anew(noun: str, n: int) -> dict:
    """What one of OTHERS may be saved as, or made once more."""
    made = body_of(noun, n)
    return made | {name: value for name, value in CHANGES[noun].items() if name not in VARIED[noun]}


def standard_access(noun: str) -> dict[str, str]:
    """Who may call the routes of a resource, by route: a token of a project what stands below one."""
    at, one = PATHS[noun], f"/{noun}/<id:id>"
    reading, writing = ("reader, project", "writer, project") if noun in ABOVE else ("reader", "writer")
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
