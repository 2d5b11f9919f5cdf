"""Bodies that end early: on whatever route, however they come and break off, it is 400 and nothing of it is done."""

import gzip
import io
import json
import socket
import struct
import subprocess
import sys
from itertools import count, product
from uuid import uuid4

import fastavro
import psycopg
import pytest

from tests.conftest import serve, wait_for
from tests.test_refusals import CONTRACTS, ROUTES, needed, somewhere

PARTS = 16

CSV_ROWS = b"".join(b"%d,Cut %d\n" % (id, id) for id in range(9001, 9033))

FORM = b'--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n%b\r\n--x--\r\n'

USER = {"email": "cut@example.com", "name": "C", "address": "A", "image": "http://x.example/y"}

VALID = {
    ("POST", "/users"): USER,
    ("POST", "/projects"): {"name": "Cut"},
    ("POST", "/departments"): {"id": 9000, "department": "Cut"},
    ("POST", "/events"): {"user_id": "cut", "description": "cut"},
    ("POST", "/batch"): {"departments": [{"id": 9001, "department": "Cut"}]},
}
"""Bodies that do something where they are whole; all others need only be JSON."""

KILLED = """
import socket, sys, time
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as client:
    client.sendall(sys.stdin.buffer.read())
    print("sent", flush=True)
    time.sleep(60)
"""

numbers = count(1)


def avro_file() -> bytes:
    """Departments, a block for each, so that many a cut is at a block's end."""
    schema = {
        "type": "record",
        "name": "d",
        "fields": [{"name": "id", "type": "int"}, {"name": "department", "type": "string"}],
    }
    file = io.BytesIO()
    fastavro.writer(file, schema, [{"id": 9001 + each, "department": "Cut"} for each in range(40)], sync_interval=1)
    return file.getvalue()


def bodies(method: str, path: str) -> list[tuple[str, bytes]]:
    """Content types and bodies for a route: also in part they would pass for something, wherever that can be."""
    contract, found = CONTRACTS[method, path], []
    for kind in contract.files:
        plain = {"text/csv": CSV_ROWS, "application/gzip": gzip.compress(CSV_ROWS)}.get(kind) or avro_file()
        found += [(kind, plain), ("multipart/form-data; boundary=x", FORM % plain + b"\r\n" * 400)]
    if contract.body or not contract.files:
        found.append(("application/json", json.dumps(VALID.get((method, path), {})).encode() + b" " * 1600))
    return found


def request_of(method, path, kind, body, chunked, key, headers):
    """A request's head and body, and the id by which the log knows it."""
    query = "&".join(f"{name}={value}" for name, value in needed(method, path).items())
    lines = [
        f"{method} {somewhere(path)}?{query} HTTP/1.1",
        *("Host: localhost", f"X-Request-Id: {key}", f"Content-Type: {kind}", *headers),
        "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}",
    ]
    if chunked:
        size = max(1, len(body) // 8)
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    return "\r\n".join([*lines, "", ""]).encode(), body


def cut(service, how: str, data: bytes) -> bytes:
    """Send what there is and go away, in one of the ways to go; what was heard, where one can still hear."""
    if how == "killed":
        command = [sys.executable, "-S", "-c", KILLED, service.url.rpartition(":")[2]]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
            client.stdin.write(data)
            client.stdin.close()
            client.stdout.readline()
            client.kill()
        return b""
    with service.raw() as client:
        client.sendall(data)
        if how == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if how != "half closed":
            return b""
        client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(65536), b""))


@pytest.fixture(scope="module")
def house(module_database, tmp_path_factory):
    running = serve(module_database, BACKUP_DIR=str(tmp_path_factory.mktemp("cut")), RATE_LIMIT="0")
    with running as service:
        service.log = running.log
        yield service


def kept(service) -> list:
    """Everything that is there: each table with its rows and what they are."""
    with psycopg.connect(service.database, autocommit=True) as connection:
        tables = connection.execute(
            "select oid::regclass::text from pg_class where relkind = 'r' and relnamespace in"
            " (select oid from pg_namespace where nspname !~ '^(pg_|information_schema)') order by 1"
        ).fetchall()
        return [
            (name, connection.execute(f"select count(*), sum(hashtext(t::text)) from {name} t").fetchone())
            for (name,) in tables
        ]


def walk(service, hows, parts, every=1, ways=(False, True)) -> int:
    """Cut every body of every route in these parts and ways: all the same afterwards. How many requests that were."""
    before, asked = kept(service), []
    cases = list(product(ROUTES, hows, ways, parts))
    for (method, path), how, chunked, part in cases[::every]:
        for kind, body in bodies(method, path):
            key = uuid4().hex
            headers = [[], ["Prefer: respond-async"], [f"Idempotency-Key: {key}"]][next(numbers) % 3]
            head, body = request_of(method, path, kind, body, chunked, key, headers)
            heard = cut(service, how, head + body[: len(body) * part // PARTS])
            if how == "half closed":
                assert heard.startswith(b"HTTP/1.1 400 "), (method, path, kind, chunked, part, heard)
            asked.append(key)
    wait_for(lambda: not [key for key in asked if key not in service.log.read_text()])
    assert kept(service) == before
    return len(asked)


def test_a_body_that_ends_early_is_400_on_every_route(house):
    assert walk(house, ["half closed"], [0, 9, 15], every=3) > len(ROUTES)


def test_nothing_is_done_of_a_body_whose_client_left(house):
    assert walk(house, ["closed", "reset"], [7, 15], every=7) > 50
    assert walk(house, ["killed"], [15], every=40)


@pytest.mark.thorough
@pytest.mark.parametrize("how", ["half closed", "closed", "reset"])
def test_nothing_is_done_wherever_it_ends(house, how):
    assert walk(house, [how], range(PARTS)) >= len(ROUTES) * PARTS * 2


@pytest.mark.thorough
def test_nothing_is_done_where_the_client_is_killed(house):
    assert walk(house, ["killed"], range(PARTS), every=5)


@pytest.mark.parametrize("chunked", [False, True])
def test_the_same_bodies_do_something_where_they_are_whole(house, chunked):
    for method, path in [*VALID, ("POST", next(path for _, path in ROUTES if path.startswith("/upload/")))]:
        for kind, body in bodies(method, path):
            before = kept(house)
            body = body.replace(b"cut@", b"cut%d@" % next(numbers)).replace(b"900", b"9%d" % next(numbers))
            head, body = request_of(method, path, kind, body, chunked, uuid4().hex, [])
            heard = cut(house, "half closed", head + body)
            assert heard.startswith((b"HTTP/1.1 200", b"HTTP/1.1 201")), (path, kind, heard)
            assert kept(house) != before or kind != "application/json"
