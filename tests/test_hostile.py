"""Input that means harm: SQL in parameters, naughty strings in texts, requests within requests, broken frames."""

import gc
import json
import re
import socket
import struct
import uuid
from functools import _lru_cache_wrapper
from itertools import product
from pathlib import Path

import psycopg
import pytest
from marshmallow import fields

from handlers.http.fields import Text
from tests.conftest import ROOT, first, serve
from tests.resources import OTHERS, path_below
from tests.test_refusals import APP, BODIES, CONTRACTS, ROUTES, check_problem, needed, parameters, somewhere

NAUGHTY = ROOT.parent / "shared/data/blns/blns.json"

MARK = "injected"
"""Stands in no statement of ours."""

INJECTIONS = [
    f"' or '{MARK}' = '{MARK}",
    f"'; drop table users; -- {MARK}",
    f"1; select pg_sleep(10) -- {MARK}",
    f"1) union select '{MARK}' --",
    f"$1 {MARK} :'id' %s %(id)s {{0}}",
    f'"{MARK}"::regclass',
]


def counted(connection) -> list:
    """All tables with the number of their rows."""
    tables = connection.execute(
        "select oid::regclass::text from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace"
    ).fetchall()
    return [(table, connection.execute(f"select count(*) from {table}").fetchone()) for (table,) in tables]


@pytest.fixture
def logged(database):
    """A database that logs each statement, without its parameters; what it has logged."""
    with psycopg.connect(database, autocommit=True) as connection:
        name, directory = connection.execute(
            "select current_database(), setting from pg_settings where name = 'data_directory'"
        ).fetchone()
        log = Path(directory) / "log"
        if not log.exists():
            pytest.skip("the server's log is not here: it is not the private one")
        for setting, value in {
            "log_statement": "all",
            "log_parameter_max_length": 0,
            "log_min_messages": "log",
        }.items():
            connection.execute(f"alter database {name} set {setting} = '{value}'")
    start = log.stat().st_size
    return database, lambda: log.read_text(errors="replace")[start:]


@pytest.mark.parametrize("injections", first(1, [INJECTIONS[::3], INJECTIONS]), ids=["some", "all"])
def test_no_parameter_becomes_a_part_of_a_statement(logged, injections):
    database, log = logged
    with serve(database, WORKERS="1") as service, psycopg.connect(database, autocommit=True) as connection:
        before = counted(connection)
        for method, path in ROUTES:
            contract = CONTRACTS[method, path]
            for injection in injections:
                requests = [
                    {"params": needed(method, path) | {name: injection}, "json": {}}
                    for name in parameters(contract.query)
                ]
                if contract.body:
                    body = dict.fromkeys(contract.body.load_fields, injection)
                    requests.append({"params": needed(method, path), "json": body})
                if not path.startswith("/docs"):
                    requests.append({"params": {injection: injection}})
                tag = f'"{injection}"'
                conditions = ({}, {"If-None-Match": tag}) if method == "GET" else ({"If-Match": tag},)
                for options, condition in product(requests, conditions):
                    options["headers"] = {"X-Request-Id": injection} | condition
                    answer = service.request(method, somewhere(path), **options)
                    assert answer.status_code < 500, (method, path, options, answer.text)
                    if answer.status_code >= 400:
                        check_problem(answer)
        for injection in injections:
            for path in ("/users/{}", "/tasks/{}/history", "/upload/{}", "/backups/{}", "/events/{}", "/operations/{}"):
                assert service.get(path.format(injection)).status_code in (404, 405, 422)
        told = log()
        assert told.count("/* users.list */") > 5 * len(injections) / len(INJECTIONS), "the log tells what was asked"
        assert "/* users.search */" in told
        assert MARK not in told
        changed = {table for (table, was), (_, now) in zip(before, counted(connection), strict=True) if was != now}
        # What such a text may well be: somebody's words.
        assert changed <= {
            "users",
            "events",
            "outbox",
            "first_answers",
            "departments_errors",
            "jobs_errors",
            "employees_errors",
        }


def made(service, unique: str) -> dict[str, str]:
    """One object of each noun with texts: its address and its texts."""

    def post(path: str, **body: object) -> str:
        answer = service.post(path, json=body)
        assert answer.status_code == 201, answer.text
        return answer.headers["Location"]

    number = uuid.uuid4().int % 10**9
    project = post("/projects", name="Naughty")
    story = post(f"{project}/userstories", subject="Naughty")
    above = {"projects": project.split("/")[-1], "userstories": story.split("/")[-1]}
    user = {"email": f"{unique}@naughty.test", "name": "N", "address": "N", "image": "https://n.test/n.png"}
    return {
        post("/users", **user): ("name", "address", "text"),
        project: ("name", "description"),
        post(f"{project}/milestones", name="Naughty"): ("name",),
        story: ("subject", "description", "status", "tags"),
        post(f"{story}/tasks", subject="Naughty"): ("subject", "status"),
        post(f"{story}/comments", text="Naughty"): ("text",),
        post("/events", user_id="naughty", description="Naughty"): ("user_id", "description"),
        post("/departments", id=number, department="Naughty"): ("department",),
        post("/jobs", id=number, job="Naughty"): ("job",),
        **{post(path_below(noun, above), **body): texts(noun) for noun, body in OTHERS.items()},
    }


def texts(noun: str) -> tuple[str, ...]:
    """The members that are texts of any form."""
    members = CONTRACTS["PATCH", f"/{noun}/<id:id>"].body.load_fields.items()
    return tuple(name for name, field in members if isinstance(field, Text) and is_free(field))


def is_free(text: Text) -> bool:
    """Whether a text has no form of its own."""
    return text.metadata.get("pattern", r"\S") == r"\S"


@pytest.mark.parametrize("part", first(1, [8, 1]))
def test_naughty_strings_go_through_every_text_and_come_back(service, unique, part):
    if not NAUGHTY.exists():
        pytest.skip("../shared/data/blns is not here")
    objects = made(service, unique("naughty"))
    came_back = dict.fromkeys(objects, 0)
    for naughty in json.loads(NAUGHTY.read_text())[::part]:
        for address, names in objects.items():
            body = {name: [naughty] if name == "tags" else naughty for name in names}
            answer = service.patch(address, json=body, headers={"If-Match": "*"})
            if answer.status_code == 422:  # too long for some, or blank
                refused = {path.split(".")[0] for path in answer.json()["errors"]}
                body = {name: value for name, value in body.items() if name not in refused}
                answer = service.patch(address, json=body, headers={"If-Match": "*"})
            assert answer.status_code == 200, (naughty, answer.text)
            assert {name: answer.json()[name] for name in body} == body
            came_back[address] += bool(body)
        answer = service.get("/users", params={"name": naughty or "-", "address": naughty or "-"})
        assert answer.status_code in (200, 422), (naughty, answer.text)
    assert min(came_back.values()) > 400 / part, came_back


def test_every_text_of_a_body_is_among_them(service, unique):
    """A new text must be listed in `made`, too."""
    listed = {
        (address.split("/")[1], name) for address, names in made(service, unique("listed")).items() for name in names
    }
    for method, path in BODIES:
        noun = path.split("/")[1]
        if method != "PATCH":
            continue
        texts = {
            name
            for name, field in CONTRACTS[method, path].body.load_fields.items()
            for text in [field.inner if isinstance(field, fields.List) else field]
            if isinstance(text, Text) and is_free(text)
        }
        # These have a form of their own, or need a department and a job to stand below.
        assert {(noun, name) for name in texts - {"email", "image", "slug"}} - {("employees", "name")} <= listed, path


# Requests within requests ---------------------------------------------------------------------------------------------

INNER = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKED = f"0\r\n\r\n{INNER}"


def head(*headers: str) -> str:
    return "\r\n".join(
        ["POST /users/search HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers, "", ""]
    )


SMUGGLED = {
    "both lengths": head(f"Content-Length: {len(CHUNKED)}", "Transfer-Encoding: chunked") + CHUNKED,
    "both lengths, the other way": head("Transfer-Encoding: chunked", "Content-Length: 4") + f"2\r\n{{}}\r\n{CHUNKED}",
    "two lengths": head("Content-Length: 2", f"Content-Length: {2 + len(INNER)}") + "{}" + INNER,
    "a list of lengths": head(f"Content-Length: 2, {2 + len(INNER)}") + "{}" + INNER,
    "a length with a sign": head("Content-Length: +2") + "{}" + INNER,
    "a negative length": head("Content-Length: -2") + "{}" + INNER,
    "a length in hexadecimal": head("Content-Length: 0x2") + "{}" + INNER,
    "a length with an underscore": head("Content-Length: 0_2") + "{}" + INNER,
    "a length of other digits": head("Content-Length: ²") + "{}" + INNER,
    "a space before the colon": head("Transfer-Encoding : chunked", "Content-Length: 2") + "{}" + INNER,
    "a folded header": head("X: y\r\n Transfer-Encoding: chunked", "Content-Length: 2") + "{}" + INNER,
    "an unknown coding": head("Transfer-Encoding: xchunked") + CHUNKED,
    "chunked before another coding": head("Transfer-Encoding: chunked, identity") + CHUNKED,
    "chunked twice": head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked") + CHUNKED,
    "a tab in the coding": head("Transfer-Encoding:\tchunked\x0b") + CHUNKED,
    "a chunk's size with 0x": head("Transfer-Encoding: chunked") + f"0x2\r\n{{}}\r\n{CHUNKED}",
    "a chunk's size with a sign": head("Transfer-Encoding: chunked") + f"+2\r\n{{}}\r\n{CHUNKED}",
    "a chunk longer than its size": head("Transfer-Encoding: chunked") + f"2\r\n{{}}{INNER}\r\n{CHUNKED}",
    "a NUL in a header": head("X: \0", "Content-Length: 2") + "{}" + INNER,
    "a return alone": head("X: y\rTransfer-Encoding: chunked", "Content-Length: 2") + "{}" + INNER,
    "no name": head(": chunked", "Content-Length: 2") + "{}" + INNER,
    "HTTP/1.0 with chunks": head("Transfer-Encoding: chunked").replace("1.1", "1.0") + CHUNKED,
}


@pytest.mark.parametrize("request_text", SMUGGLED.values(), ids=SMUGGLED)
def test_a_request_within_a_request_is_not_answered(service, request_text):
    with service.raw() as client:
        client.sendall(request_text.encode())
        client.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: client.recv(10_000), b"")).decode()
    assert re.findall(r"HTTP/1\.1 (\d+)", answer) in (["400"], ["501"]), answer
    assert "/smuggled" not in answer


def test_one_request_after_the_other_is_answered(service):
    with service.raw() as client:
        client.sendall((head("Content-Length: 2") + "{}" + INNER).encode())
        client.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: client.recv(10_000), b"")).decode()
    assert re.findall(r"HTTP/1\.1 (\d+)", answer) == ["200", "404"], "what the others are compared with"


# Memory -------------------------------------------------------------------------------------------------------------

HEADERS = (
    *("Accept", "Accept-Encoding", "Accept-Language", "Authorization", "Content-Type", "Cookie", "Host", "If-Match"),
    *(
        "If-None-Match",
        "Last-Event-ID",
        "Origin",
        "Prefer",
        "Range",
        "Referer",
        "Sec-Fetch-Site",
        "Upgrade",
        "User-Agent",
    ),
    *("X-Forwarded-Host", "X-Request-Id", "Idempotency-Key", "Sec-Fetch-Site", "Sec-WebSocket-Key"),
)


def remembered() -> dict[str, int]:
    """How much our functions remember of what they were asked, by their name."""
    # Not isinstance: it asks proxies, which may be of what is gone.
    caches = [each for each in gc.get_objects() if type(each) is _lru_cache_wrapper]
    ours = [each for each in caches if each.__module__.split(".")[0] in ("handlers", "db", "worker", "logs")]
    return {f"{each.__module__}.{each.__qualname__}": each.cache_info().currsize for each in ours}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", first(2, ["/users/1", "/health/live", "/users", "/docs", "/nothing"]))
def test_what_a_client_chooses_is_not_remembered_where_it_is_long(path, method):
    """A few thousand of such headers would fill a process; what is remembered has a bound."""
    client = APP.test_client()
    for number in range(2):
        before = remembered()
        for name in HEADERS:
            client.open(f"{path}?x={'y' * 5000}", method=method, headers={name: f"{number}" + "x/y," * 1500})
            client.open(path, method=method, headers={"Host": "localhost", name: f"{number}" + "x/y," * 1500})
            client.open(path, method=method, headers={f"X-{number}-{name}-{'long' * 1000}": "x"})
        after = remembered()
    assert after == before


# Frames ---------------------------------------------------------------------------------------------------------------


def frame(first: int, payload: bytes) -> bytes:
    """A client's frame, masked with zeros."""
    length = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + struct.pack(">H", len(payload))
    return bytes([first]) + length + b"\0\0\0\0" + payload


PING = b'{"cmd": "ping"}'

FRAMES = {
    "a message in parts": (frame(0x01, PING[:5]) + frame(0x00, PING[5:9]) + frame(0x80, PING[9:]), "pong"),
    "a ping between the parts": (frame(0x01, PING[:5]) + frame(0x89, b"x") + frame(0x80, PING[5:]), "pong"),
    "a part of nothing": (frame(0x80, PING), 1002),
    "a new message between the parts": (frame(0x01, PING[:5]) + frame(0x81, PING), 1002),
    "parts that are too many": (frame(0x01, b"x" * 600) + frame(0x00, b"x" * 600), 1009),
    "an unknown opcode": (frame(0x83, b""), 1002),
    "a bit that is reserved": (frame(0xC1, PING), 1002),
    "a ping that is too long": (frame(0x89, b"x" * 126), 1002),
    "a ping in parts": (frame(0x09, b"x"), 1002),
    "wrong UTF-8": (frame(0x81, b"\xc3\x28"), 1007),
    "wrong UTF-8 in parts": (frame(0x01, b"\xc3") + frame(0x80, b"\x28"), 1007),
    "not masked": (b"\x81\x05hello", 1002),
    "a message of 2^63 bytes": (b"\x81\xff" + b"\xff" * 8, 1002),
    "a close with a code that is none": (frame(0x88, b"\x00\x01"), 1002),
    "a message of bytes": (frame(0x82, b"\xff\xfe"), 1003),
}


@pytest.mark.parametrize(("sent", "answer"), FRAMES.values(), ids=FRAMES)
def test_a_broken_frame_ends_its_socket_by_the_right_code(service, sent, answer):
    upgrade = "GET /ws/events HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    upgrade += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    with service.raw() as client:
        client.sendall(upgrade.encode())
        came = b""
        while b'"subscribed"' not in came:
            came += client.recv(1000)
        client.sendall(sent)
        came = b""
        while b"pong" not in came and (some := client.recv(1000)):
            came += some
    if answer == "pong":
        assert b'{"cmd": "pong"}' in came
    else:
        assert struct.pack(">H", answer) in came, came
