"""A body that ends before its length: 400, and nothing of it is done, on every route and in whatever way it ends."""

import gzip
import json
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count
from uuid import uuid4

import psycopg
import pytest
from urllib3 import encode_multipart_formdata

from handlers.http.auth import KNOWN_FOR
from tests import resources
from tests.conftest import make_token, serve, wait_for
from tests.test_refusals import APP, CONTRACTS

NEW = resources.NEW | {
    "/user": lambda n: {"text": f"Text {n}"},
    "/users/search": lambda n: {"name": "Cut"},
    "/audios/search": lambda n: {"session_id": n},
    "/tokens": lambda n: {"name": f"Name {n}", "role": "admin"},
    "/batch": lambda n: {"departments": [{"id": n, "department": f"D{n}"}]},
}
"""What is posted to a path."""

READING = ("/users/search", "/audios/search")
"""Routes that take a body and change nothing."""

WRITING = sorted(
    (method, rule.rule)
    for rule in APP.url_map.iter_rules()
    for method in rule.methods & {"POST", "PUT", "PATCH", "DELETE"}
)

numbers, undone = count(10_000), count(0)

UNDONE = 100
"""Requests that can be undone."""


@pytest.fixture(scope="module")
def alone(module_database, tmp_path_factory):
    """A service with one of each noun, under `made`, and a backup of all."""
    with serve(module_database, BACKUP_DIR=str(tmp_path_factory.mktemp("backups"))) as service:
        service.made = resources.create_all(service)
        assert service.post("/backup/all").status_code == 201
        for number in range(UNDONE):
            service.post("/projects", json={"name": "Undone"}, headers={"X-Request-Id": f"undone-{number}"})
        yield service


def requests_of(service, method, rule):
    """Whole requests of a route, each (path, content type, body, more headers), that would do something."""
    number = next(numbers)
    noun = rule.split("/")[1]
    path = rule.replace("<any(departments, jobs, employees):table>", "departments")
    if "<any(" in path:
        path = path[: path.index("<any(")] + "departments"
    target = service.made.get(noun)
    if target:
        path = path.replace("<id:id>", str(target["id"])).replace("<uuid:id>", str(target["id"]))
    path = path.replace("<id:id>", "1").replace("<string:name>", "none")
    contract = CONTRACTS[method, rule]
    if rule == "/user":
        path += f"?email=cut{number}@example.com"
    if method == "DELETE":
        version = f"{'&' if '?' in path else '?'}version=1" if "version" in contract.query.fields else ""
        return [(path + version, "text/plain", b"a body that nobody wants", "")]
    if contract.files and noun == "upload":
        return files(path, f"{number},Department {number}\n{number + 100_000},Other {number}\n".encode(), "text/csv")
    if contract.files:
        avro = service.get("/backup/departments").content
        return [*files(path, avro, "application/avro"), (path, "application/json", b'{"dry_run": false}', "")]
    if rule in NEW:
        body = NEW[rule](number)
    elif rule.endswith("/revert"):
        body = {"version": 1, "to": 1}
    elif rule == "/undo":
        body = {"request_id": f"undone-{next(undone)}"}
    elif method in ("PATCH", "PUT"):
        body = (
            {"version": 1}
            | ({} if method == "PATCH" else NEW.get(f"/{noun}", lambda n: whole(target))(number))
            | resources.CHANGES[noun]
        )
        body.pop("id", None)
    elif contract.body is None:
        return [(path, "text/plain", b"a body that nobody wants", "")]
    else:
        raise AssertionError(f"NEW lacks a body for {method} {rule}")
    return [
        (
            path,
            "application/json",
            json.dumps(body).encode(),
            f"Idempotency-Key: {uuid4()}\r\n" if method == "POST" else "",
        )
    ]


def whole(found):
    """What PUT takes of an object that was read."""
    served = ("id", "version", "created_at", "updated_at", "ref", "project_id", "userstory_id", "event_id")
    return {name: value for name, value in found.items() if name not in served}


def files(path, content, kind):
    form, form_kind = encode_multipart_formdata({"file": ("a", content, kind)})
    found = [(path, kind, content, ""), (path, form_kind, form, ""), (path, kind, content, "Prefer: respond-async\r\n")]
    return [*found, (path, "application/gzip", gzip.compress(content), "")] if kind == "text/csv" else found


def heads(method, request):
    """The request's head and body, with its length and in chunks."""
    path, kind, body, more = request
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n{more}"
    yield f"{head}Content-Length: {len(body)}\r\n\r\n".encode(), body
    middle = len(body) // 2
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:middle], body[middle:]) if part)
    yield f"{head}Transfer-Encoding: chunked\r\n\r\n".encode(), chunks + b"0\r\n\r\n"


def state(connection) -> str:
    """What there is in the database, but for what reading changes."""
    tables = connection.execute("""
        select format('%I.%I', schemaname, tablename) from pg_tables
        where schemaname in ('public', 'history') and tablename not in ('tokens', 'quotas', 'broker') order by 1
    """).fetchall()
    asked = " || ".join(
        f"(select coalesce(md5(string_agg(t::text, ',' order by t::text)), '') from {name} as t)" for (name,) in tables
    )
    return connection.execute(f"select {asked} || (select count(*) from tokens)").fetchone()[0]


def refused(service) -> int:
    """How many requests were answered with 400; or with 503, where all places for long work were taken."""
    lines = service.get("/metrics").text.splitlines()
    found = [line for line in lines if line.startswith("rowhouse_requests_total{")]
    return sum(float(line.split()[-1]) for line in found if 'status="400"' in line or 'status="503"' in line)


def send_killed(service, requests):
    """Send the requests by a process that is killed while their connections are open."""
    host, port = service.url.removeprefix("http://").split(":")
    code = (
        "import socket, sys, json, time\n"
        "held = []\n"
        f"for sent in json.load(sys.stdin):\n    held.append(socket.create_connection(({host!r}, {port})))\n"
        "    held[-1].sendall(sent.encode('latin-1'))\n"
        "print('sent', flush=True); time.sleep(60)"
    )
    client = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    client.stdin.write(json.dumps([each.decode("latin-1") for each in requests]).encode())
    client.stdin.close()
    assert client.stdout.readline() == b"sent\n"
    client.kill()
    client.wait()


def send(service, requests, way):
    if way == "killed":
        send_killed(service, requests)
        return
    for sent in requests:
        with service.raw() as client:
            client.sendall(sent)
            if way == "half closed":
                client.shutdown(socket.SHUT_WR)
                told = b""
                while b"ends early" not in told and (some := client.recv(65536)):
                    told += some
                assert told.startswith(b"HTTP/1.1 400 ") and b"ends early" in told, (sent, told)
            elif way == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


ALL = ("closed", "half closed", "reset", "killed")
WAYS = [
    ("half closed", 2),
    *(pytest.param(way, 16, id=f"{way} at each 16th", marks=pytest.mark.thorough) for way in ALL),
]


@pytest.mark.parametrize(("way", "parts"), WAYS)
def test_a_body_that_is_cut_is_refused_and_nothing_of_it_is_done(alone, way, parts):
    sent = 0
    with psycopg.connect(alone.database, autocommit=True) as connection:
        before, answered = state(connection), refused(alone)
        for method, rule in WRITING:
            for request in requests_of(alone, method, rule):
                for head, body in heads(method, request):
                    cuts = sorted({len(body) * part // parts for part in range(parts)})
                    requests = [head + body[:cut] for cut in cuts]
                    send(alone, requests, way)
                    sent += len(requests)
            if way != "half closed":
                wait_for(lambda expected=answered + sent: refused(alone) >= expected, within=60)
            assert state(connection) == before, f"{method} {rule} did something"
    assert refused(alone) == answered + sent
    print(f"{sent} requests, {way}")


def test_the_same_requests_do_something_when_they_come_whole(alone):
    """What was cut above was worth refusing."""
    admitted = {}
    with psycopg.connect(alone.database, autocommit=True) as connection:
        for method, rule in sorted(WRITING, key=lambda route: route[0] == "DELETE"):
            for path, kind, body, _ in requests_of(alone, method, rule):
                before = state(connection)
                answer = alone.request(method, path, data=body, headers={"Content-Type": kind} | admitted)
                assert answer.status_code < 500 and answer.status_code != 400, (method, path, answer.text)
                if method == "POST" and rule in NEW and rule not in READING:
                    assert answer.ok and state(connection) != before, (method, path, answer.text)
                if path == "/tokens":  # from now on one is needed
                    admitted["Authorization"] = f"Bearer {answer.json()['token']}"


def begun(service, token, method, request) -> Iterator[tuple[socket.socket, bytes]]:
    """The request in both of its forms, sent but for its last byte by the holder of a token."""
    for head, body in heads(method, request):
        client = service.raw()
        line, rest = head.split(b"\r\n", 1)
        client.sendall(line + f"\r\nAuthorization: Bearer {token}\r\n".encode() + rest + body[:-1])
        yield client, body[-1:]


@pytest.mark.parametrize("of_files", [False, pytest.param(True, marks=pytest.mark.thorough)])
def test_whoever_is_no_longer_let_in_when_the_body_ends_has_nothing_done(database, of_files):
    """All that takes a body, held back until the token was revoked for so long that no process believes in it."""
    with psycopg.connect(database, autocommit=True) as connection, serve(database) as service:
        service.made = resources.create_all(service)
        assert service.post("/departments", json={"id": 7, "department": "Seven"}).ok
        requests = [
            (method, request)
            for method, rule in WRITING
            for request in requests_of(service, method, rule)
            if bool(CONTRACTS[method, rule].files) is of_files
        ]
        make_token(connection)  # so that one is needed
        before, size = state(connection), 1 if of_files else len(requests)  # a file has a place of few
        for first in range(0, len(requests), size):
            token = make_token(connection)
            held = [
                each
                for method, request in requests[first : first + size]
                for each in begun(service, token, method, request)
            ]
            assert service.get("/users?limit=1", headers={"Authorization": f"Bearer {token}"}).ok
            connection.execute("update tokens set revoked_at = now() where name = %s", [token])
            time.sleep(KNOWN_FOR + 1)  # the time that is promised
            for client, last in held:
                with client:
                    client.sendall(last)
                    assert client.recv(65536).split(b" ", 2)[1] == b"401", requests[first]
        assert len(requests) >= (8 if of_files else 20)
        connection.execute("delete from tokens where revoked_at is not null")
        assert state(connection) == before
