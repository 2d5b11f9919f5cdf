"""What a contract says of members and filters is so in SQL: what is saved comes back, what does not fit is left out."""

import pytest
from marshmallow import ValidationError, fields, validate

from handlers.http.contract import parameters
from handlers.http.fields import Date, StrictBoolean, StrictInteger, Text
from tests import resources
from tests.conftest import serve
from tests.test_refusals import CONTRACTS

SAVED = {
    "email": "other@example.com",
    "image": "https://example.com/other.png",
    "ticks": [-30.5] * 15,
    "tags": ["other"],
    "points": 2.5,
    "datetime": "2022-02-02T00:00:00Z",
    "status": "Processed",
}
"""What a member is saved as, where another end makes no value of it."""

NAMED = {"owner_id": "users", "assigned_to": "users", "author_id": "users", "milestone_id": "milestones"}
NAMED |= {"department_id": "departments", "job_id": "jobs"}
"""The members that name something else."""

NULL = {Text: "Other", Date: "2026-01-31", StrictBoolean: True, StrictInteger: 7}
"""What is saved where there was nothing, by kind."""

NOBODYS = ("999999999", "nobody@example.com", "00000000-0000-7000-8000-000000000000", "1999-09-09T09:09:09Z")
"""Of these nobody has any."""

MEMBERS = [
    (noun, name)
    for (method, path), contract in CONTRACTS.items()
    for noun in [path.split("/")[1]]
    if method == "PATCH" and noun in resources.PATHS
    for name in contract.body.load_fields
]

FILTERS = [
    (path, name)
    for (method, path), contract in CONTRACTS.items()
    if method == "GET" and path in {*resources.NEW, "/history"}
    for name in parameters(contract.query)
    if name in contract.answer.fields and name != "diff"  # that is a form
]


@pytest.fixture(scope="module")
def made(module_database):
    """A service with one of each resource, under `made`, and another of each that can be named."""
    with serve(module_database) as service:
        service.made = resources.create_all(service)
        ids = {noun: one["id"] for noun, one in service.made.items()}
        service.others = {
            noun: resources.created(service, resources.path_below(noun, ids), resources.NEW[resources.PATHS[noun]](2))
            for noun in {*NAMED.values()}
        }
        yield service


def another(service, noun, name, field):
    """Another value for a member than it has."""
    now = service.get(f"/{noun}/{service.made[noun]['id']}").json()[name]
    if name in NAMED:
        return service.others[NAMED[name]]["id"]
    changed = resources.other(field, now, 9) if isinstance(now, (str, int)) and name not in SAVED else None
    if changed is None or changed == now:
        changed = SAVED.get(name) or NULL.get(type(field))
    assert changed not in (None, now), f"tests/test_members.py: SAVED lacks another value of {noun}.{name} than {now}"
    return changed


@pytest.mark.parametrize("noun, name", MEMBERS)
def test_each_member_is_saved_alone_and_comes_back(made, noun, name):
    path = f"/{noun}/{made.made[noun]['id']}"
    value = another(made, noun, name, CONTRACTS["PATCH", f"/{noun}/<{kind(noun)}:id>"].body.load_fields[name])
    before = made.get(path).json()
    answer = made.patch(path, json={name: value}, headers={"If-Match": "*"})
    assert answer.status_code == 200, answer.text
    after = made.get(path).json()
    assert after[name] == value, f"sql/queries: {noun}.change forgets {name}"
    served = {"version", "updated_at", name}
    assert {key: value for key, value in after.items() if key not in served} == {
        key: value for key, value in before.items() if key not in served
    }


def kind(noun):
    return "uuid" if ("PATCH", f"/{noun}/<uuid:id>") in CONTRACTS else "id"


@pytest.mark.parametrize("rule, name", FILTERS)
def test_each_filter_leaves_out_what_does_not_fit(made, rule, name):
    noun = rule.split("/")[-1]
    path = rule if rule == "/history" else resources.path_below(noun, {of: one["id"] for of, one in made.made.items()})
    field = parameters(CONTRACTS["GET", rule].query)[name]
    assert made.get(path).json()["items"]
    for value in values_of(field):
        answer = made.get(path, params={name: value})
        assert answer.status_code == 200, answer.text
        others = [item for item in answer.json()["items"] if str(item[name]).lower() != value.lower()]
        assert not others, f"sql/queries: a list of {noun} takes no heed of ?{name}="


def values_of(field):
    """A value that nobody has; of a closed list, all that there are."""
    closed = [each for each in field.validators if isinstance(each, validate.OneOf)]
    if closed:
        return closed[0].choices
    if isinstance(field, fields.Boolean):
        return ["true", "false"]
    for value in NOBODYS:
        try:
            field.deserialize(value)
        except ValidationError:
            continue
        return [value]
    raise AssertionError(f"tests/test_members.py: NOBODYS lacks a value for {field}")


def test_there_is_something_to_walk():
    assert {noun for noun, _ in MEMBERS} == {*resources.PATHS}
    assert {path for path, _ in FILTERS} == {*resources.NEW, "/history"}
