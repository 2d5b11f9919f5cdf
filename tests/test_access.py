"""Who may use the service, and what it may do itself in the database: its role owns nothing."""

import json
import os
import re
import subprocess
import sys
import time
from itertools import filterfalse

import psycopg
import pytest
from flask import g
from psycopg import errors
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from werkzeug.exceptions import Unauthorized

from app import create_app
from db.pool import ROLE
from handlers.http import contract
from handlers.http.auth import ROLES, Anonymous, Pending, check_access, check_admitted
from handlers.operations import KINDS
from tests.browser import CHROMIUM, tab
from tests.conftest import ROOT, first, free_port, make_token, serve, wait_for
from tests.flask_command import flask
from tests.resources import OTHERS, standard_access

APP = create_app()


@pytest.fixture
def as_service(service):
    """A connection with the rights of the service."""
    with psycopg.connect(service.database, autocommit=True, options=f"-c role={ROLE}") as connection:
        yield connection


@pytest.mark.parametrize(
    "statement",
    [
        "update history.entries set actor = 'somebody else'",
        "delete from history.entries",
        "truncate history.entries",
        "insert into history.entries (operation_date, obj_type, action, actor) values (now(), 'user', 'create', 'me')",
        "update history.tracked set obj_type = 'other'",
        "delete from history.entries_default",
        "drop table history.entries_default",
        "select history.untrack('users')",
        "select history.prune(now())",
        "update history.seals set root = ''",
        "delete from history.sealed",
        "alter table users disable trigger all",
        "drop trigger history_90_change on users",
        "truncate users cascade",
        "create table public.mine (id int)",
        "create table history.mine (id int)",
        "update schema_migrations set checksum = null",
        "create or replace function history.record() returns trigger language sql as ''",
        "set session_replication_role = replica",
    ],
)
def test_the_service_cannot(as_service, statement):
    with pytest.raises(errors.InsufficientPrivilege) as refusal:
        as_service.execute(statement)
    assert refusal.value.sqlstate == "42501"


def test_the_service_may_not_even_call_what_tracks_or_prunes(as_service):
    found = as_service.execute(
        "select oid::regproc::text, has_function_privilege(oid, 'execute') from pg_proc"
        " where oid::regproc::text = any (%s)",
        [["history.track", "history.note", "history.untrack", "history.drop_triggers", "history.prune"]],
    ).fetchall()
    assert len(found) == 5
    assert not any(may for _, may in found), found


def test_the_service_works_as_its_role(database):
    with psycopg.connect(database, autocommit=True) as owner, serve(database) as service:
        assert service.get("/users").status_code == 200
        owner.execute(f"revoke select on users from {ROLE}")
        assert service.get("/users").status_code == 500
        assert service.get("/audios").status_code == 200


def test_what_the_service_writes_is_recorded_all_the_same(as_service):
    made = as_service.execute("insert into projects (name) values ('As the service') returning id").fetchone()
    found = as_service.execute("select action from history.entries where project = %s", made).fetchall()
    assert found == [("create",)]


# Tokens ---------------------------------------------------------------------------------------------------------------


def token(database: str, name: str, *options: str) -> str:
    made = flask(database, "token", "create", name, *options)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


@pytest.fixture(scope="module")
def guarded(module_database):
    """A service with a token of each role: guarded.tokens["reader"]."""
    with psycopg.connect(module_database) as connection:
        connection.execute("insert into projects (name) values ('The one')")
        tokens = {role: make_token(connection, role, role) for role in ROLES[1:]}
        for role in ROLES[1:]:
            tokens[f"{role}, project"] = make_token(connection, f"{role} of one", role, project=1)
    with serve(module_database) as service:
        service.tokens = tokens
        yield service


def asked(service, held: str | None, method: str = "GET", path: str = "/users", **options):
    headers = {"Authorization": f"Bearer {held}"} if held is not None else {}
    return service.request(method, path, headers=headers | options.pop("headers", {}), **options)


def test_nobody_is_let_in_without_a_good_token(guarded):
    for headers, error in (
        ({}, None),
        ({"Authorization": ""}, "invalid_token"),
        ({"Authorization": "Bearer"}, "invalid_token"),
        ({"Authorization": "Bearer nonsense"}, "invalid_token"),
        ({"Authorization": f"Basic {guarded.tokens['admin']}"}, "invalid_token"),
        ({"Authorization": f"Bearer {guarded.tokens['admin']}x"}, "invalid_token"),
    ):
        answer = guarded.get("/users", headers=headers)
        assert (answer.status_code, answer.json()["status"]) == (401, 401)
        challenge = answer.headers["WWW-Authenticate"]
        assert challenge.startswith("Bearer") and (error is None or error in challenge)
    for path in ("/health/live", "/health/ready", "/ping", "/docs", "/openapi.json", "/", "/requirements"):
        assert guarded.get(path).status_code == 200, path
    assert guarded.get("/nothing").status_code == 404


TABLE = {
    **json.loads((ROOT / "tests" / "access.json").read_text()),
    **{route: least for noun in OTHERS for route, least in standard_access(noun).items()},
}
"""What a person says of each route: the least role that is let in, and whether a token of one project is."""

PLACES = {
    r"<any\([^\w]*([\w.]+).*?\):\w+>": r"\1",
    r"<uuid:\w+>": "00000000-0000-4000-8000-000000000000",
    r"<\w+:\w+>": "999999999",
}


def test_the_table_has_every_route():
    rules = [rule for rule in APP.url_map.iter_rules() if not rule.websocket]
    routes = {f"{method} {rule.rule}" for rule in rules for method in rule.methods - {"HEAD", "OPTIONS"}}
    assert routes == TABLE.keys()


@pytest.mark.parametrize("route", TABLE)
def test_each_route_lets_in_whom_the_table_says(guarded, route):
    method, path = place(route)
    least, *of_project = TABLE[route].split(", ")
    for held_role, held in {"anyone": None, **guarded.tokens}.items():
        # What no route takes: whoever is let in is refused for that, and nothing is done.
        answer = asked(guarded, held, method, path)
        role, *bound = held_role.split(", ")
        reaches = not bound or of_project or least == "anyone"
        if ROLES.index(role) >= ROLES.index(least) and reaches:
            assert answer.status_code not in (401, 403), (role, answer.text)
        else:
            assert answer.status_code == (401 if role == "anyone" else 403), (role, answer.text)


def place(route: str) -> tuple[str, str]:
    """The method and a path of a route; its query is one that no route takes, so that nothing is ever done."""
    method, path = route.split(" ", 1)
    for pattern, filled in PLACES.items():
        path = re.sub(pattern, filled, path)
    return method, f"{path}?nonsense=1"


def test_the_header_of_a_socket_lets_nobody_in(guarded):
    for route, least in TABLE.items():
        for headers in ({"Sec-WebSocket-Key": "x"}, {"Sec-WebSocket-Key": "x", "Sec-WebSocket-Version": "13"}):
            answer = guarded.request(*place(route), headers=headers)
            assert least == "anyone" or answer.status_code == 401, (route, headers, answer.text)


def test_a_view_runs_only_for_who_was_admitted_to_it():
    """Whatever leads to a view: with no caller, one of another view, or one who has still to say its token."""
    for endpoint, view in APP.view_functions.items():
        for admitted in (
            {},
            {"view": view},
            {"caller": Anonymous(), "view": None},
            {"caller": Pending(), "view": view},
        ):
            with APP.test_request_context():
                vars(g).update(admitted)
                if admitted.get("caller") == Pending() and endpoint == "feed.channel":
                    check_admitted(view)
                    continue
                with pytest.raises(Unauthorized):
                    check_admitted(view)


def test_only_the_channel_may_be_told_the_token_later():
    assert [name for name, view in APP.view_functions.items() if view.by_message] == ["feed.channel"]


@pytest.mark.parametrize("address", ["10.0.0.9", "192.168.1.1", "128.0.0.1", "2001:db8::1", "::ffff:10.0.0.9", ""])
def test_without_tokens_other_machines_are_answered_nothing_but_what_is_for_anyone(monkeypatch, address):
    """However they come to be asked: a start on another address than loopback is refused anyway."""
    monkeypatch.setattr("handlers.http.auth.guarded", lambda *_: False)
    app = create_app()
    asked = app.test_client()
    for rule in filterfalse(lambda rule: rule.websocket, app.url_map.iter_rules()):
        path = re.sub("<uuid:[^>]+>", "00000000-0000-0000-0000-000000000007", re.sub("<id:[^>]+>", "7", rule.rule))
        path = re.sub("<[^>]+>", "departments", path)
        for method in sorted(rule.methods - {"OPTIONS", "HEAD"}):
            answer = asked.open(path, method=method, environ_overrides={"REMOTE_ADDR": address})
            open_to_anyone = app.view_functions[rule.endpoint].role == "anyone"
            assert (answer.status_code == 403) != open_to_anyone, (method, path, answer.text)


def test_a_route_without_a_role_answers_nobody():
    app = create_app()
    app.add_url_rule("/forgotten", view_func=lambda: "seen")
    assert app.test_client().get("/forgotten").status_code == 403


def test_a_view_is_closed_where_the_check_is_forgotten():
    app = create_app()
    app.before_request_funcs[None].remove(check_access)
    app.before_request_funcs[None].remove(contract.check_contract)
    asked = app.test_client()
    for rule in app.url_map.iter_rules():
        path = re.sub("<[^>]+>", "1", rule.rule)
        for method in rule.methods - {"OPTIONS"}:
            assert asked.open(path, method=method).status_code in (400, 401, 404), rule
    assert asked.get("/docs").status_code == asked.get("/users").status_code == 401


@pytest.mark.parametrize("kind", KINDS)
def test_an_operation_needs_the_role_of_its_kind(guarded, kind):
    posts = {each: f"POST /{each}/<" for each in ("upload", "backup", "restore")}
    begins = (posts | {"delete": "DELETE /departments/<", "undo": "POST /undo"})[kind]
    assert {role.split(",")[0] for route, role in TABLE.items() if route.startswith(begins)} == {KINDS[kind]}
    with psycopg.connect(guarded.database, autocommit=True) as connection:
        made = "insert into operations (kind, table_name, actor) values (%s, 'jobs', 'x') returning id"
        (id,) = connection.execute(made, [kind]).fetchone()
        # It goes on.
        connection.execute("select pg_advisory_lock(operation_lock(%s))", [id])
        for role in ROLES[1:]:
            held, may = guarded.tokens[role], ROLES.index(role) >= ROLES.index(KINDS[kind])
            refused = 403 if role == "reader" else 404
            assert asked(guarded, held, path=f"/operations/{id}").status_code == (200 if may else refused)
            for order in ("id", "-id"):
                listed = asked(guarded, held, path=f"/operations?limit=1000&sort={order}")
                assert (str(id) in [str(each["id"]) for each in listed.json().get("items", [])]) is may, order
            answer = asked(guarded, held, "DELETE", f"/operations/{id}")
            canceled = connection.execute("select canceled from operations where id = %s", [id]).fetchone()
            assert (answer.status_code, canceled) == (204 if may else refused, (may,))


def test_of_a_post_that_only_reads_no_answer_is_kept(guarded):
    """A reader could fill the disk with searches."""
    for route, role in TABLE.items():
        if route.startswith("POST ") and role.startswith("reader"):
            bodies = ({"name": "x"}, {"session_id": 1})
            for body in bodies:
                path = place(route)[1].partition("?")[0]
                asked(guarded, guarded.tokens["reader"], "POST", path, json=body, headers={"Idempotency-Key": "mine"})
    with psycopg.connect(guarded.database) as connection:
        assert connection.execute("select count(*) from first_answers where actor = 'reader'").fetchone() == (0,)


def test_a_token_of_a_project_is_made_by_the_command(guarded):
    held = token(guarded.database, "fenced", "--role", "reader", "--project", "1")
    assert asked(guarded, held, path="/projects/1").status_code == 200
    assert asked(guarded, held, path="/users").status_code == 403
    assert "fenced\treader\tproject 1\t" in flask(guarded.database, "token", "list").stdout


def test_history_names_the_holder(guarded):
    made = asked(guarded, guarded.tokens["writer"], "POST", "/projects", json={"name": "Whose"}).json()
    entries = asked(guarded, guarded.tokens["reader"], path=f"/projects/{made['id']}/history").json()["items"]
    assert [entry["actor"] for entry in entries] == ["writer"]


def test_a_token_that_is_revoked_or_too_old_is_refused_within_two_seconds(guarded):
    with psycopg.connect(guarded.database, autocommit=True) as connection:
        first = token(guarded.database, "first", "--role", "reader")
        second = token(guarded.database, "second", "--role", "reader", "--expires", "30m")
        assert asked(guarded, first).status_code == asked(guarded, second).status_code == 200
        used = "select last_used_at is not null from tokens where name in ('first', 'second')"
        assert connection.execute(used).fetchall() == [(True,), (True,)]
        assert flask(guarded.database, "token", "revoke", "first").returncode == 0
        connection.execute("update tokens set expires_at = now() where name = 'second'")
        for held in (first, second):
            wait_for(lambda held=held: asked(guarded, held).status_code == 401, within=2)
            assert {asked(guarded, held).status_code for _ in range(8)} == {401}
    assert flask(guarded.database, "token", "revoke", "first").returncode == 1
    listed = flask(guarded.database, "token", "list").stdout
    assert "first\treader\teverything\trevoked" in listed and first not in listed


def test_the_token_itself_is_kept_nowhere(guarded, server):
    with psycopg.connect(guarded.database) as connection:
        rows = str(connection.execute("select t::text from tokens t").fetchall())
    assert not any(held in rows or held[3:20] in rows for held in guarded.tokens.values())


@pytest.mark.parametrize(
    "words",
    first(
        5,
        [
            ["token", "create", "x"],
            ["token", "create", "x", "--role", "owner"],
            ["token", "create", "reader", "--role", "reader"],
            *(
                ["token", "create", name, "--role", "reader"]
                for name in ("", " ", "oidc:ann", "anonymous", "postgres (psql)", "a\nb", "\x1b[31mred", "x" * 101)
            ),
            *(
                ["token", "create", "x", "--role", "reader", "--expires", time]
                for time in ("90", "0d", "d", "1y", "-1d")
            ),
            *(
                ["token", "create", "x", "--role", "reader", "--project", project]
                for project in ("0", "x", "999999999")
            ),
            ["token", "revoke", "nobody"],
        ],
    ),
    ids=" ".join,
)
def test_what_is_no_token_is_refused_in_a_line(guarded, words):
    done = flask(guarded.database, *words)
    assert done.returncode != 0 and done.stdout == "" and "Traceback" not in done.stderr
    assert "constraint" not in done.stderr or words[2] == " "


def test_a_socket_is_let_in_by_header_or_by_its_first_message(guarded):
    url = guarded.url.replace("http", "ws") + "/ws/events"
    held = guarded.tokens["reader"]
    with connect(url, additional_headers={"Authorization": f"Bearer {held}"}) as ws:
        assert json.loads(ws.recv(5))["type"] == "subscribed"
    # A token by others may be long; nothing else is.
    for more in ("", "x" * 15_000):
        with connect(url) as ws:
            ws.send(json.dumps({"cmd": "auth", "token": held, "more": more}))
            assert json.loads(ws.recv(5))["type"] == "subscribed"
            ws.send("x" * 1025)
            with pytest.raises(ConnectionClosed):
                ws.recv(5)
            assert ws.close_code == 1009
    for message in ('{"cmd": "auth", "token": "x"}', '{"cmd": "auth"}', '{"cmd": "ping"}', "x", "[]"):
        with connect(url) as ws:
            ws.send(message)
            with pytest.raises(ConnectionClosed):
                ws.recv(5)
            assert ws.close_code == 1008, message
    with pytest.raises(InvalidStatus) as refused:
        connect(url, additional_headers={"Authorization": "Bearer x"})
    assert refused.value.response.status_code == 401
    with connect(url) as silent, pytest.raises(ConnectionClosed):
        silent.recv(10)


def test_a_socket_whose_token_is_revoked_hears_nothing_more(guarded):
    held = token(guarded.database, "listener", "--role", "reader")
    with connect(
        guarded.url.replace("http", "ws") + "/ws/events", additional_headers={"Authorization": f"Bearer {held}"}
    ) as ws:
        ws.recv(5)
        asked(guarded, guarded.tokens["writer"], "POST", "/projects", json={"name": "Heard"})
        assert json.loads(ws.recv(5))["object"]["action"] == "create"
        flask(guarded.database, "token", "revoke", "listener")
        time.sleep(1.5)  # the time that is promised
        asked(guarded, guarded.tokens["writer"], "POST", "/projects", json={"name": "Unheard"})
        with pytest.raises(ConnectionClosed):
            ws.recv(5)
        assert ws.close_code == 1008


@pytest.mark.thorough
@pytest.mark.parametrize("something_happens", first(1, (False, True)))
def test_a_socket_that_was_opened_before_the_first_token_hears_nothing_after_it(database, something_happens):
    with serve(database) as service, connect(service.url.replace("http", "ws") + "/ws/events") as ws:
        ws.recv(5)
        held = token(database, "first", "--role", "writer")
        time.sleep(1.5)  # the time that is promised
        if something_happens:
            asked(service, held, "POST", "/projects", json={"name": "Unheard"})
        with pytest.raises(ConnectionClosed):
            ws.recv(30)
        assert ws.close_code == 1008


def test_the_service_cannot_make_itself_a_token(guarded):
    with psycopg.connect(guarded.database, autocommit=True, options=f"-c role={ROLE}") as connection:
        for statement in (
            "insert into tokens (name, role, sha256) values ('mine', 'admin', repeat('0', 64))",
            "update tokens set role = 'admin'",
            "update tokens set revoked_at = null",
            "delete from tokens",
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(statement)


@pytest.mark.thorough
def test_with_a_token_it_answers_elsewhere(database):
    refused = subprocess.run(
        [sys.executable, "-m", "gunicorn"],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": database, "HOST": "0.0.0.0", "PORT": str(free_port())},
        capture_output=True,
        text=True,
    )
    assert refused.returncode != 0 and "without tokens" in refused.stderr
    held = token(database, "ann", "--role", "reader")
    with serve(database, HOST="0.0.0.0") as service:
        assert service.get("/users").status_code == 401
        assert asked(service, held).status_code == 200


@pytest.mark.thorough
@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium here: apt install chromium")
def test_the_pages_ask_for_a_token(guarded):
    with tab() as browser:
        for path, fact in (
            ("/", "document.getElementById('state')?.textContent === 'live'"),
            ("/requirements", "document.getElementById('summary').textContent.startsWith('Nobody')"),
        ):
            browser.open(guarded.url + path)
            browser.evaluate("sessionStorage.removeItem('token'); window.before = true; location.reload()")
            wait_for(lambda: browser.evaluate("!window.before && !!document.querySelector('dialog[open]')"))
            browser.evaluate(f"document.querySelector('dialog input').value = '{guarded.tokens['reader']}'")
            browser.evaluate("document.querySelector('dialog button').click()")
            wait_for(lambda fact=fact: browser.evaluate(fact))
