"""Every end of a socket is a code, and whoever may no longer listen hears no more."""

import base64
import json
import re
import socket
import struct
import time
from contextlib import ExitStack, suppress
from importlib import import_module
from types import SimpleNamespace
from urllib.parse import unquote

import psutil
import psycopg
import pytest
from flask import g
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg_pool import PoolTimeout
from simple_websocket import ConnectionClosed as Ended
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from werkzeug.exceptions import Forbidden, ServiceUnavailable
from wsproto.utilities import LocalProtocolError

from db.feed import Cursor
from handlers.http import subscribers
from handlers.http.open_sockets import FEW
from handlers.http.steady import SEND_WITHIN
from handlers.http.websocket import BROKEN, GOING_AWAY, REFUSED, TRY_AGAIN, say_goodbye
from tests.conftest import cloned, first, make_token, serve, wait_for
from tests.test_changes import LINES, told
from tests.test_hostile import frame
from tests.test_refusals import APP, check_problem

events = import_module("handlers.feed")

CHANNEL = next(APP.view_functions[rule.endpoint] for rule in APP.url_map.iter_rules() if rule.websocket)

# Cursors --------------------------------------------------------------------------------------------------------------

PLACES = [
    *("0:0:", "5:3:", "0:5:", "5:0:", "5:5:5", "5:9:9", "5:9:4", "5:9:7,6", "5:9:6,6", "5:9:6,", "5:9:,6", "05:9:"),
    *("5:9:06", "5:9", "5:9:6:", "-5:9:", "+5:9:", " 5:9:", "5:9: ", "5_0:90:", "٥:9:", "", "5:9:x", "5:9:6\n"),
    *(f"5:{2**32}:", f"{2**32}:{2**33 - 1}:", f"5:{2**63}:", f"{2**64}:{2**65}:", "5:" + "9" * 5000 + ":"),
]
BAD = [
    *(f"feedfeed|{place}||0" for place in PLACES),
    *(f"feedfeed|5:9:6|{place}|0" for place in PLACES if place),
    *(f"feedfeed|5:9:6|5:9:|{id}" for id in ("", "-1", "x", "1_0", " 1", "01", 2**63, 10**30)),
    *("|5:9:||0", "feed\0|5:9:||0", "feed|5:9:|0", "feed|5:9:||0|0", "", "|", "é|5:9:||0"),
]


def packed(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


GARBAGE = ["=", "====", "a", "%%%%", packed("feed|5:9:||0") + "=", "!" + packed("feed|5:9:||0"), "é", "\0"]


@pytest.mark.parametrize("cursor", [*map(packed, BAD), *GARBAGE])
def test_what_is_no_cursor_is_refused_before_there_is_a_socket(service, cursor):
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    key = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    answer = service.get("/ws/events", params={"since": cursor}, headers=upgrade | key)
    assert answer.status_code in (400, 414, 422), cursor
    check_problem(answer)


HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def head(target: str, headers: dict, more: str = "", method: str = "GET", version: str = "1.1") -> bytes:
    lines = [f"{method} {target} HTTP/{version}", "Host: 127.0.0.1", *(f"{k}: {v}" for k, v in headers.items())]
    return ("\r\n".join(lines) + f"\r\n{more}\r\n").encode("latin-1")


def status_of(service, request: bytes) -> tuple[int, str]:
    """The status of an answer, and its head."""
    with service.raw() as raw:
        raw.sendall(request)
        text = raw.recv(4096).decode("latin-1")
        return int(text.split()[1]), text


def test_a_bad_handshake_is_refused_and_never_a_failure(service, module_database):
    """With and without a token that is asked for."""
    again = f"Sec-WebSocket-Key: {HANDSHAKE['Sec-WebSocket-Key']}\r\n"
    without = {name: {k: v for k, v in HANDSHAKE.items() if k != name} for name in HANDSHAKE}
    versions = ("", "0", "8", "12", "14", "013", "13, 12", "13.0", "x", "é")
    keys = ("", "x", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZR==", "dGhl", "=" * 24, "é", "a" * 24)
    bad = {
        426: [
            head("/ws/events", without["Sec-WebSocket-Version"]),
            head("/ws/events", HANDSHAKE, "Sec-WebSocket-Version: 13\r\n"),
            *(head("/ws/events", HANDSHAKE | {"Sec-WebSocket-Version": each}) for each in versions),
        ],
        400: [
            head("/ws/events", without["Sec-WebSocket-Key"]),
            head("/ws/events", HANDSHAKE, again),
            *(head("/ws/events", HANDSHAKE | {"Sec-WebSocket-Key": each}) for each in keys),
            *(head("/ws/events", without[name]) for name in ("Connection", "Upgrade")),
            *(head("/ws/events", HANDSHAKE, method=method) for method in ("HEAD", "OPTIONS")),
            head("/ws/events", HANDSHAKE, version="1.0"),
        ],
        404: [
            head(target, HANDSHAKE)
            for target in ("//ws/events", "///ws/events", "/ws//events", "/ws%2Fevents", "/%77s/events", "/ws/events/")
        ],
        405: [head("/ws/events", HANDSHAKE, "Content-Length: 0\r\n", method=method) for method in ("POST", "DELETE")],
    }
    with serve(module_database, WORKERS="1") as guarded:
        with psycopg.connect(module_database) as connection:
            token = make_token(connection, "shakes hands", "reader")
        for more in (b"", f"Authorization: Bearer {token}\r\n".encode(), b"Authorization: Bearer x\r\n"):
            for expected, requests in bad.items():
                for request in requests:
                    refused, text = status_of(guarded, request[:-2] + more + b"\r\n")
                    barred = expected in (400, 426) and b"Bearer x" in more
                    assert refused == expected or (barred and refused in (400, 401)), (request, more, text)
                    assert refused != 426 or "Sec-WebSocket-Version: 13\r\n" in text
            good, text = status_of(guarded, head("/ws/events", HANDSHAKE)[:-2] + more + b"\r\n")
            assert good == (401 if b"Bearer x" in more else 101), text


def test_on_other_routes_an_upgrade_changes_nothing():
    client = APP.test_client()
    for rule in APP.url_map.iter_rules():
        if rule.websocket or "GET" not in rule.methods:
            continue
        path = re.sub("<[^>]+>", "1", rule.rule) + "?nonsense=1"
        plain, upgraded = client.get(path), client.get(path, headers=HANDSHAKE)
        assert plain.status_code == upgraded.status_code, path


def test_a_path_is_spelled_in_one_way():
    client = APP.test_client()
    asked = 0
    for rule in APP.url_map.iter_rules():
        path = re.sub("<[^>]+>", "1", rule.rule)
        escaped = {path[:at] + f"%{ord(path[at]):02{x}}" + path[at + 1 :] for at in range(1, len(path)) for x in "xX"}
        zeros = {re.sub("<id:[^>]+>", "01", rule.rule)} if "<id:" in rule.rule else set()
        for other in {f"/{path}", f"//{path}", *escaped, *zeros}:
            for headers in ({}, HANDSHAKE, {"Authorization": "Bearer x"}):
                for method in sorted(rule.methods - {"HEAD", "OPTIONS"}):
                    environ = {"PATH_INFO": unquote(other), "RAW_URI": f"{other}?nonsense=1"}
                    answer = client.open(method=method, headers=headers, environ_overrides=environ)
                    asked += 1
                    assert answer.status_code == 404, (method, other)
    assert asked > 2000


NUMBERS = st.one_of(st.integers(0, 12), st.integers(0, 2**65))
ANY = st.builds(lambda *ids: f"{ids[0]}:{ids[1]}:{','.join(map(str, ids[2]))}", NUMBERS, NUMBERS, st.lists(NUMBERS))
IN_ORDER = st.lists(NUMBERS, min_size=2, max_size=5).map(sorted)
LIKELY = IN_ORDER.map(lambda ids: f"{ids[0]}:{ids[-1]}:{','.join(map(str, ids[1:-1]))}")
SNAPSHOTS = LIKELY | ANY
NAMES = st.just("feedfeed") | st.text("a\0|", max_size=3)
TEXTS = st.one_of(
    st.text(max_size=20),
    st.builds(lambda *parts: "|".join(parts), NAMES, SNAPSHOTS, st.just("") | SNAPSHOTS, NUMBERS.map(str)),
)


def check_cursors(database, examples):
    with psycopg.connect(database, autocommit=True) as connection:
        taken = 0

        @settings(max_examples=examples, deadline=None, database=None, derandomize=True)
        @given(TEXTS)
        def check(text):
            nonlocal taken
            try:
                cursor = Cursor.parse(packed(text))
            except ValueError:
                return
            taken += 1
            assert str(cursor) == packed(text)
            places = [place for place in (cursor.snapshot, cursor.until) if place]
            for place in places:
                valid = "select pg_input_is_valid(%s, 'pg_snapshot') and %s::pg_snapshot::text = %s"
                assert connection.execute(valid, [place] * 3).fetchone()[0], place
            connection.execute("select %s::bigint, %s::text", [str(cursor.id), cursor.feed])

        check()
    return taken


@pytest.mark.parametrize("examples", [300, pytest.param(3_000, marks=pytest.mark.thorough)])
def test_what_is_taken_for_a_cursor_postgresql_takes_too(module_database, examples):
    assert check_cursors(module_database, examples) > examples / 100


# Ends -----------------------------------------------------------------------------------------------------------------


class Socket:
    """A WebSocket that keeps how it was closed."""

    def __init__(self, *messages):
        self.sock, self.event = (
            SimpleNamespace(send=lambda data: len(data), shutdown=lambda _: None),
            SimpleNamespace(set=lambda: None, clear=lambda: None, wait=lambda *_: None),
        )
        self.input_buffer, self.connected, self.closed = [*messages], True, None
        self.thread = SimpleNamespace(join=lambda _: None)

    def send(self, text):
        pass

    def receive(self, timeout):
        return '{"cmd": "auth", "token": "rh_x"}'

    def close(self, code=1000, reason=""):
        if not self.connected:
            raise Ended
        self.connected, self.closed = False, code


FAILURES = {
    PoolTimeout("none"): TRY_AGAIN,
    psycopg.OperationalError("gone"): TRY_AGAIN,
    psycopg.errors.AdminShutdown("gone"): TRY_AGAIN,
    psycopg.errors.QueryCanceled("slow"): TRY_AGAIN,
    psycopg.errors.ReadOnlySqlTransaction("standby"): TRY_AGAIN,
    ServiceUnavailable(): TRY_AGAIN,
    Forbidden(): REFUSED,
    psycopg.errors.UndefinedFunction("bug"): BROKEN,
    KeyError("bug"): BROKEN,
    ValueError("bug"): BROKEN,
    AttributeError("bug"): BROKEN,
}
POINTS = ["waits_for_token", "admit", "too_many", "subscription_to", "counted", "why_lost", "present"]
POINTS += ["join", "ahead", "subscribe", "talk"]
"""All that the channel calls and that may fail."""


class Stub:
    """A feed in which one finds one's place at once."""

    def join(self, subscription):
        subscription.place = Cursor("feed", "9:9:")
        return True

    def leave(self, subscription):
        pass


def ended(monkeypatch, point, failure):
    """How a socket is closed where `point` fails."""

    def fail(*_, **__):
        raise failure

    calm = {"waits_for_token": lambda: True, "admit": lambda *_: None, "ahead": lambda *_, **__: []}
    calm |= {"why_lost": lambda _: None, "present": lambda: Cursor("feed", "8:8:"), "talk": lambda *_: None}
    with monkeypatch.context() as patched, APP.test_request_context("/ws/events"):
        g.token = None
        patched.setattr(subscribers, "feed", Stub(), raising=False)
        for name, value in (calm | {point: fail}).items():
            patched.setattr(events, name, value, raising=False)
        ws = Socket()
        CHANNEL.__wrapped__(ws, {"since": str(Cursor("feed", "7:7:"))})
    return ws.closed


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
def test_whatever_fails_a_socket_is_closed_by_a_code(monkeypatch, failure):
    assert ended(monkeypatch, "nothing", failure) is None
    for point in POINTS:
        refused = point == "admit" and isinstance(failure, Forbidden | ServiceUnavailable | KeyError | ValueError)
        assert ended(monkeypatch, point, failure) == (REFUSED if refused else FAILURES[failure]), point


def test_a_socket_that_another_closes_just_now_is_nobodys_error(monkeypatch, caplog):
    """Who closes it has said so to wsproto, and waits to send it: it takes no other frame, nor a second end."""
    told = LocalProtocolError("Event CloseConnection() cannot be sent in state ConnectionState.LOCAL_CLOSING.")

    def closing(*_):
        raise told

    for point in POINTS:
        assert ended(monkeypatch, point, told) in (None, REFUSED), point
    monkeypatch.setattr(Socket, "close", closing)
    assert ended(monkeypatch, "talk", KeyError("bug")) is None
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == ["'bug'"]
    ws = Socket()
    say_goodbye(ws, GOING_AWAY, "The service stops.")
    say_goodbye(ws, GOING_AWAY, "The service stops.")


def test_a_socket_whose_token_is_no_longer_good_is_closed_where_nothing_changes(database):
    with psycopg.connect(database, autocommit=True) as connection, serve(database) as service, ExitStack() as ends:
        tokens = [make_token(connection) for _ in range(2)]
        url = f"{service.url.replace('http', 'ws')}/ws/events"
        sockets = [
            ends.enter_context(connect(url, additional_headers={"Authorization": f"Bearer {token}"}))
            for token in tokens
        ]
        assert all(json.loads(ws.recv(10))["type"] == "subscribed" for ws in sockets)
        connection.execute("update tokens set revoked_at = now() where id = 1")
        connection.execute("update tokens set expires_at = now() where id = 2")
        for ws in sockets:
            with pytest.raises(ConnectionClosed):
                ws.recv(20)
            assert ws.close_code == REFUSED


def test_of_many_who_listen_nobody_hears_anything_behind_the_end_of_a_token(database):
    """There are too many for each to be looked at all the time: who is sent something is looked at before that."""
    unheard = "insert into projects (name) values ('Unheard')"
    revoke = "update tokens set revoked_at = now() where name = any (%s)"
    with psycopg.connect(database, autocommit=True) as connection, serve(database) as service, ExitStack() as ends:
        tokens = [make_token(connection, f"{number}") for number in range(FEW + 4)]
        streams = [told(service, LINES, token) for token in tokens[:2]]
        assert all(next(frame for frame in frames if frame)["type"] == "subscribed" for frames in streams)
        sockets = [
            ends.enter_context(
                connect(
                    f"{service.url.replace('http', 'ws')}/ws/events",
                    additional_headers={"Authorization": f"Bearer {token}"},
                    close_timeout=0.1,
                )
            )
            for token in tokens[2:]
        ]
        assert all(json.loads(ws.recv(10))["type"] == "subscribed" for ws in sockets)
        # Twice: once somebody may have looked at all of them between.
        for number, (ws, frames) in enumerate(zip(sockets, streams, strict=False)):
            connection.execute(revoke, [[f"{number}", f"{number + 2}"]])
            time.sleep(1.5)  # the time that is promised
            connection.execute(unheard)
            assert len([frame for frame in frames if frame and "id" in frame]) == number
            for _ in range(number):
                ws.recv(10)
            with pytest.raises(ConnectionClosed):
                ws.recv(10)
            assert ws.close_code == REFUSED
        assert [json.loads(sockets[-1].recv(10))["object"]["action"] for _ in "12"] == ["create"] * 2


def test_that_tables_were_emptied_is_told_to_each_project_live_and_resumed(database):
    with psycopg.connect(database, autocommit=True) as connection, serve(database) as service:
        url = f"{service.url.replace('http', 'ws')}/ws/events?project=7"
        with connect(url) as ws:
            cursor = json.loads(ws.recv(10))["cursor"]
            connection.execute("truncate users, projects cascade")
            kinds = connection.execute("select obj_type from history.tracked where project is not null").fetchall()
            live = [json.loads(ws.recv(10))["object"] for _ in kinds]
        token = make_token(connection, project=7)
        with connect(f"{url}&since={cursor}", additional_headers={"Authorization": f"Bearer {token}"}) as ws:
            assert json.loads(ws.recv(10))["type"] == "subscribed"
            resumed = [json.loads(ws.recv(10))["object"] for _ in kinds]
        assert sorted(each["obj_type"] for each in live) == sorted(kind for (kind,) in kinds)
        assert resumed == live


# However a client goes ------------------------------------------------------------------------------------------------

SNAPSHOT = b'{"cmd": "snapshot", "path": "/users?limit=1"}'

LEFT = {
    "snapshots": frame(0x81, SNAPSHOT) * 300,
    "nothing": b"",
    "snapshots and part of one": frame(0x81, SNAPSHOT) * 40 + frame(0x81, SNAPSHOT)[:20],
    "commands": frame(0x81, b'{"cmd": "ping"}') * 1500,
    "pings": frame(0x89, b"") * 1500,
    "what is no command": frame(0x81, b"{}") * 300,
    "tokens": frame(0x81, b'{"cmd": "auth", "token": "x"}') * 300,
    "parts of a message": frame(0x01, b"x") + frame(0x00, b"x") * 300,
}

GOING = {
    "a reset": lambda raw: raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)),
    "a close": lambda raw: None,
    "half a close": lambda raw: raw.shutdown(socket.SHUT_WR),
    "no reading": lambda raw: raw.shutdown(socket.SHUT_RD),
    "a shutdown": lambda raw: raw.shutdown(socket.SHUT_RDWR),
    "a close frame": lambda raw: raw.sendall(frame(0x88, b"\x03\xe8")),
}


@pytest.fixture(scope="module")
def one_worker(server, template):
    with cloned(server, template) as url:
        running = serve(url, WORKERS="1")
        with running as service:
            yield running, service


@pytest.mark.parametrize("since", [False, True], ids=["new", "resumed"])
@pytest.mark.parametrize("left", first(1, LEFT.values()), ids=LEFT)
@pytest.mark.parametrize("going", GOING.values(), ids=GOING)
def test_however_a_client_goes_and_whatever_it_left_the_process_stays(one_worker, going, left, since):
    running, service = one_worker
    workers = psutil.Process(running.process.pid).children()
    target = f"/ws/events?since={service.get('/users').headers['Feed-Cursor']}" if since else "/ws/events"
    for seconds in (0, 0.02, 0.3):
        with service.raw() as raw:
            raw.sendall(head(target, HANDSHAKE))
            raw.recv(4096)
            with suppress(OSError):  # it may have closed the socket before all came
                raw.sendall(left)
                time.sleep(seconds)  # any moment of its work
                going(raw)
        assert service.get("/ping").ok
    wait_for(lambda: re.search(r"^rowhouse_sockets 0", service.get("/metrics").text, re.MULTILINE))
    assert psutil.Process(running.process.pid).children() == workers, running.log.read_text()[-2000:]


def errors_of(running) -> list[str]:
    """What the service wrote that somebody would be woken for: lines of level ERROR, and tracebacks."""
    lines = running.log.read_text().splitlines()
    return [line for line in lines if re.search(r"\bERROR\b|CRITICAL|Traceback|Error: ", line)]


def test_a_client_that_goes_while_it_shakes_hands_is_nobodys_error(one_worker):
    running, service = one_worker
    before, written = errors_of(running), re.compile(r'"/ws/events".*"status": 500|/ws/events.* 500')
    # Behind what keeps the service busy for a moment, it finds them gone as it answers.
    for _ in range(5):
        with ExitStack() as ends:
            busy = ends.enter_context(service.raw())
            busy.sendall(head("/users?limit=500", {}) * 50)
            for _ in range(40):
                raw = ends.enter_context(service.raw())
                raw.sendall(head("/ws/events", HANDSHAKE))
                GOING["a reset"](raw)
    wait_for(lambda: re.search(r"^rowhouse_sockets 0", service.get("/metrics").text, re.MULTILINE))
    assert service.get("/ping").ok
    assert errors_of(running) == before
    assert not written.search(running.log.read_text())


@pytest.mark.parametrize("more", [pytest.param(more, id=name) for name, more in LEFT.items() if more])
@pytest.mark.parametrize("end", [b"{}", b"x" * 20_000], ids=["no command", "too long"])
def test_who_sends_on_to_a_socket_that_ends_does_not_keep_it(one_worker, end, more):
    running, service = one_worker
    workers = psutil.Process(running.process.pid).children()
    with service.raw() as raw, pytest.raises(ConnectionError):
        raw.sendall(head("/ws/events", HANDSHAKE))
        raw.recv(4096)
        raw.sendall(frame(0x81, end))
        until = time.monotonic() + SEND_WITHIN
        while time.monotonic() < until:
            raw.sendall(more)
    assert service.get("/ping").ok
    assert psutil.Process(running.process.pid).children() == workers, running.log.read_text()[-2000:]
