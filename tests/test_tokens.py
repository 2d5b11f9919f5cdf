"""Tokens over HTTP: what one is, is told once; who may make one; from when and until when it is good."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import product

import psycopg
import pytest

from tests.conftest import make_token, serve, wait_for
from tests.flask_command import flask


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def tokens(database):
    """A service that has no token yet."""
    with serve(database) as service:
        yield service


@pytest.fixture(scope="module")
def guarded(module_database):
    """A service with the token of an `admin`."""
    with psycopg.connect(module_database, autocommit=True) as connection, serve(module_database) as service:
        service.admin = bearer(make_token(connection, "the admin"))
        yield service


def test_from_the_first_one_on_nobody_is_let_in_without(tokens):
    made = tokens.post("/tokens", json={"name": "ann", "role": "admin"})
    assert (made.status_code, made.headers["Cache-Control"]) == (201, "no-store")
    assert made.headers["Location"] == f"/tokens/{made.json()['id']}"
    wait_for(lambda: tokens.get("/tokens").status_code == 401)
    ann = bearer(made.json()["token"])
    told = {name: value for name, value in made.json().items() if name != "token"}
    assert told | {"last_used_at": None} == told
    found = tokens.get(made.headers["Location"], headers=ann).json()
    assert found.pop("last_used_at")
    assert found == {name: value for name, value in told.items() if name != "last_used_at"}
    assert [each["name"] for each in tokens.get("/tokens", headers=ann).json()["items"]] == ["ann"]


def test_one_that_is_taken_back_is_refused_and_stays_in_the_list(guarded):
    made = guarded.post("/tokens", json={"name": "bob", "role": "reader"}, headers=guarded.admin).json()
    path, bob = f"/tokens/{made['id']}", bearer(made["token"])
    assert guarded.get("/users", headers=bob).ok
    for _ in range(2):
        assert guarded.delete(path, headers=guarded.admin).status_code == 204
    wait_for(lambda: guarded.get("/users", headers=bob).status_code == 401)
    revoked = guarded.get(path, headers=guarded.admin).json()["revoked_at"]
    assert guarded.delete(path, headers=guarded.admin).status_code == 204
    assert guarded.get(path, headers=guarded.admin).json()["revoked_at"] == revoked
    again = guarded.post("/tokens", json={"name": "bob", "role": "reader"}, headers=guarded.admin)
    assert (again.status_code, again.json()["type"]) == (409, "/problems/taken")
    assert "bob\treader\teverything\trevoked" in flask(guarded.database, "token", "list").stdout
    for method, id in product(("GET", "DELETE"), (999_999_999, 2**31, 2**63 - 1)):
        assert guarded.request(method, f"/tokens/{id}", headers=guarded.admin).status_code == 404


def test_it_ends_when_it_should(guarded):
    soon = (datetime.now(UTC) + timedelta(seconds=3)).isoformat()
    made = guarded.post("/tokens", json={"name": "soon", "role": "reader", "expires_at": soon}, headers=guarded.admin)
    assert datetime.fromisoformat(made.json()["expires_at"]) == datetime.fromisoformat(soon)
    wait_for(lambda: guarded.get("/users", headers=bearer(made.json()["token"])).status_code == 401)
    assert datetime.now(UTC) >= datetime.fromisoformat(soon)


def test_one_of_a_project_reaches_nothing_else_and_makes_none(guarded):
    project = guarded.post("/projects", json={"name": "Its", "slug": "its"}, headers=guarded.admin).json()["id"]
    other = guarded.post("/projects", json={"name": "Not", "slug": "not"}, headers=guarded.admin).json()["id"]
    wanted = {"name": "of one", "role": "admin", "project": project}
    made = guarded.post("/tokens", json=wanted, headers=guarded.admin).json()
    own = bearer(made["token"])
    assert made["project"] == project
    statuses = [guarded.get(f"/projects/{id}", headers=own).status_code for id in (project, other)]
    assert statuses == [200, 404]
    asked = [guarded.get(path, headers=own) for path in ("/tokens", f"/tokens/{made['id']}")]
    asked += [guarded.post("/tokens", json=wanted | {"name": "more"}, headers=own)]
    asked += [guarded.delete(f"/tokens/{made['id']}", headers=own)]
    assert {(answer.status_code, answer.json()["type"]) for answer in asked} == {(403, "/problems/project-token")}


@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "once"}])
def test_what_it_is_is_kept_nowhere(guarded, key):
    name = f"told once {len(key)}"
    made = guarded.post("/tokens", json={"name": name, "role": "reader"}, headers=guarded.admin | key)
    assert guarded.get("/users", headers=bearer(made.json()["token"])).ok
    with psycopg.connect(guarded.database) as connection:
        tables = connection.execute(
            "select c.oid::regclass::text from pg_class as c where c.relkind in ('r', 'p')"
            " and c.relnamespace::regnamespace::text in ('public', 'history')"
        ).fetchall()
        kept = "\n".join(
            row for (table,) in tables for (row,) in connection.execute(f"select t::text from {table} as t")
        )
    assert name in kept
    assert made.json()["token"] not in kept
    lists = guarded.get("/tokens", headers=guarded.admin | {"Accept": "application/x-ndjson"}).text
    assert name in lists
    assert made.json()["token"] not in lists


FUTURE = "2999-01-01T00:00:00Z"

REFUSED = [
    *({"name": name} for name in ("", " ", "x" * 101, "a\nb", "a\u202eb", "anonymous", "oidc:ann", "by hand (psql)")),
    *({"name": name} for name in (None, 1, ["ann"])),
    *({"role": role} for role in ("anyone", "owner", "", None, 1)),
    *({"project": project} for project in (0, -1, "1", 1.5, True, 2**63)),
    *({"expires_at": moment} for moment in ("2020-01-01T00:00:00Z", "soon", "90d", 1, "")),
    *({field: "x"} for field in ("id", "sha256", "token", "created_at", "revoked_at", "last_used_at")),
]


@pytest.mark.parametrize("wrong", REFUSED, ids=repr)
def test_what_would_be_none_is_refused_and_nothing_is_made(guarded, wrong):
    before = guarded.get("/tokens", headers=guarded.admin).json()["items"]
    body = {"name": "refused", "role": "reader", "project": None, "expires_at": FUTURE} | wrong
    answer = guarded.post("/tokens", json=body, headers=guarded.admin)
    assert (answer.status_code, [*answer.json()["errors"]]) == (422, [*wrong]), answer.text
    assert [each["id"] for each in guarded.get("/tokens", headers=guarded.admin).json()["items"]] == [
        each["id"] for each in before
    ]


def test_of_a_project_that_is_not_there_none_is_made(guarded):
    body = {"name": "refused", "role": "reader", "project": 999_999}
    answer = guarded.post("/tokens", json=body, headers=guarded.admin)
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/no-reference")
    assert [*answer.json()["errors"]] == ["project"]


CHANGES = {
    "insert": "insert into tokens (name, role, sha256) values ('x', 'admin', repeat('0', 64))",
    "update": "update tokens set role = 'admin'",
    "delete": "delete from tokens",
    "create": "select create_token('x', 'admin', repeat('0', 64), null, null)",
    "revoke": "select revoke_token(1)",
}


@pytest.mark.parametrize("role", ["service", "project", "readonly", "backup"])
def test_a_role_of_the_database_can_make_and_end_tokens_only_where_it_serves(module_database, role):
    for deed, statement in CHANGES.items():
        with psycopg.connect(module_database) as connection:
            connection.execute(f"set role rowhouse_{role}")
            if role == "service" and deed in ("create", "revoke"):
                connection.execute(statement)
            else:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement)
            connection.rollback()


def test_two_that_want_one_name_at_once_get_one(guarded):
    def ask(_):
        return guarded.post("/tokens", json={"name": "wanted", "role": "reader"}, headers=guarded.admin).status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = pool.map(ask, range(8))
    assert sorted(statuses) == [201] + [409] * 7
