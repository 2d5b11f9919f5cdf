"""The worker: what it reads is what gunicorn would read; all else is left to gunicorn; nothing holds it for ever."""

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest
from gunicorn.config import Config
from gunicorn.http.errors import LimitRequestHeaders, LimitRequestLine
from gunicorn.http.parser import RequestParser
from gunicorn.http.wsgi import create
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.sync.client import connect

from tests.conftest import serve
from worker import Limits, read_head

LIMITS = Limits(8190, 100, 8190)

COMMON = {"SCRIPT_NAME": "", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "http"}

CLIENT, SERVER = ("127.0.0.1", 50000), ("127.0.0.1", 8000)

GET = b"GET /ping HTTP/1.1\r\nHost: [::1]\r\n\r\n"
POST = b"POST %b HTTP/1.1\r\nHost: [::1]\r\nContent-Type: application/json\r\n%b\r\n\r\n"

NAMES = st.from_regex(r"[!-~]{1,12}", fullmatch=True) | st.sampled_from(
    "Host HOST Accept Content-Type Content-Length content-length Connection Transfer-Encoding Expect Upgrade"  # noqa: SIM905
    " X-Request-Id X-Forwarded-Proto X_Underscore TE Cookie Script-Name".split()
)
VALUES = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=20) | st.sampled_from(
    ["0", "3", "+3", "03", "3, 3", "close", "keep-alive", "Keep-Alive", "chunked", "100-continue", "https"]
)
BETWEEN, BEHIND = st.sampled_from([": ", ":", " : ", ":\t"]), st.sampled_from(["", " ", "\t"])
HEADERS = st.lists(st.tuples(NAMES, BETWEEN, VALUES, BEHIND), max_size=6)
TARGETS = st.from_regex(r"/[!-~]{0,20}(\?[!-~]{0,20})?", fullmatch=True) | st.sampled_from(
    ["*", "http://rowhouse/", "//a//b", "/%2e%2e/%ff%41", "/a?b?c#d", "/a%00b", "/é"]
)
LINES = st.builds(
    "{} {} {}".format,
    st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "get", "CONNECT", "TRACE"]),
    TARGETS,
    st.sampled_from(["HTTP/1.1"] * 5 + ["HTTP/1.0", "HTTP/2.0", "http/1.1", "HTTP/1.1 "]),
)


def written(line: str, headers: list[tuple[str, str, str, str]], end: str = "\r\n") -> bytes:
    lines = [line, *("".join(header) for header in headers)]
    return (end.join(lines) + end + end).encode("latin-1", errors="replace")


def as_gunicorn_reads(data: bytes, limits: Limits = LIMITS) -> dict:
    config = Config()
    config.set("limit_request_line", limits.line)
    config.set("limit_request_fields", limits.headers)
    config.set("limit_request_field_size", limits.header)
    request = next(RequestParser(config, iter([data]), CLIENT))
    assert not request.should_close()
    return create(request, None, CLIENT, SERVER, Config())[1]


@given(LINES, HEADERS)
@example(
    "GET /users/1?fields=id%2Cname HTTP/1.1", [("Host", ": ", "rowhouse:8000", ""), ("X-Request-Id", ":", "é", " \t")]
)
@example("POST /users HTTP/1.1", [("Content-Length", ": ", "3", ""), ("Content-Type", ": ", "application/json", "")])
def test_what_it_reads_is_what_gunicorn_reads(line, headers):
    data = written(line, headers)
    head = read_head(
        data + b"abc", {"SCRIPT_NAME": "", "wsgi.url_scheme": "http", "SERVER_PROTOCOL": "HTTP/1.1"}, LIMITS
    )
    if head is None:
        return
    theirs = as_gunicorn_reads(data + b"abc")
    ours = head.environ
    assert head.rest == b"abc"
    assert head.length == int(theirs.get("CONTENT_LENGTH", 0))
    assert ours == {name: value for name, value in theirs.items() if name in ours}
    assert {name for name in theirs if name.startswith(("HTTP_", "CONTENT_"))} <= ours.keys()


@pytest.mark.parametrize(
    "data",
    [
        GET[:-2],
        GET.replace(b"\r\n", b"\n"),
        written("GET / HTTP/1.1", [("Host", ": ", "a", ""), ("Host", ": ", "b", "")]),
        written("GET / HTTP/1.1", [("Content-Length", ": ", "1", ""), ("Content-Length", ": ", "1", "")]),
        written("POST / HTTP/1.1", [("Content-Length", ": ", "3", ""), ("Transfer-Encoding", ": ", "chunked", "")]),
        written("GET / HTTP/1.1", [("Connection", ": ", "close", "")]),
        written("GET / HTTP/1.1", [("Upgrade", ": ", "websocket", "")]),
        written("GET / HTTP/1.1", [("X-Forwarded-Proto", ": ", "https", "")]),
        written("POST / HTTP/1.1", [("Expect", ": ", "100-continue", "")]),
        written("GET / HTTP/1.1", [("A", " : ", "space before the colon", "")]),
        written("GET / HTTP/1.1", [(" A", ": ", "folded", "")]),
        written("GET / HTTP/1.1", [("A", ": ", "x" * 8190, "")]),
        written("GET / HTTP/1.1", [(f"A{number}", ": ", "x", "") for number in range(101)]),
        written(f"GET /{'x' * 8190} HTTP/1.1", []),
        written("GET / HTTP/1.0", []),
    ],
)
def test_what_is_not_plain_is_left_to_gunicorn(data):
    assert read_head(data, {}, LIMITS) is None


SIZES = [*range(1, 20), *range(20, 500, 37), *range(508, 519), *range(600, 8190, 487), 8188, 8189, 8190]


def sized(line: int, headers: int, header: int) -> bytes:
    """A request whose line has so many bytes, and so many headers, the last of so many with its end."""
    few = [f"a{number}:" for number in range(headers - 1)]
    return "\r\n".join([f"GET /{'x' * (line - 14)} HTTP/1.1", *few, f"b:{'x' * (header - 4)}", "\r\n"]).encode()


@pytest.mark.parametrize("which", Limits._fields)
def test_every_limit_is_held_as_gunicorn_holds_it(which):
    for limit in SIZES:
        limits = Limits(8190, 100, 8190)._replace(**{which: limit})
        for size in {limit - 2, limit - 1, limit, limit + 1, limit + 2, 2 * limit, 511, 512, 513, 514, 515, 516}:
            sizes = {"line": 20, "headers": 1, "header": 10} | {which: size}
            if sizes["line"] < 14 or not 1 <= sizes["headers"] <= 200 or sizes["header"] < 4:
                continue
            data = sized(**sizes)
            if len(data) > 2**16:
                continue
            try:
                theirs = as_gunicorn_reads(data, limits)
            except (LimitRequestHeaders, LimitRequestLine):
                theirs = None
            assert (read_head(data, COMMON, limits) is None) == (theirs is None), (limits, sizes)


HOSTS = [
    *([], [""], ["[::1]", "[::1]"], ["[::1]", "a"], ["a b"], ["a,b"], ["a/b"], ["u@[::1]"], ["[::1"], ["[::g]"]),
    *(["[::1]:x"], [":80"], ["[::1]:123456"], ["é"], ["http://[::1]"], ["a?b"], ["a#b"], ["%5B::1]"]),
]


@pytest.mark.parametrize(
    "more", ["", "Connection: close\r\n", "X_A: b\r\n", "Transfer-Encoding: chunked\r\n", "H_ost: [::1]\r\n"]
)
def test_a_request_says_once_and_well_formed_to_whom_it_speaks_whoever_reads_it(service, more):
    end = "0\r\n\r\n" if "chunked" in more else ""
    for hosts in HOSTS:
        for line in ("GET /users//1 HTTP/1.1", "GET /users/1 HTTP/1.1", "DELETE /nowhere HTTP/1.1"):
            lines = [line, *[f"Host: {host}" for host in hosts], more + "\r\n" + end]
            head, _, body = said(service, "\r\n".join(lines).encode("latin-1"), pause=0).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 400 "), (hosts, line)
            assert b"Content-Type: application/problem+json" in head
            assert b"\nLocation:" not in head
            assert json.loads(body)["request_id"]


def test_without_a_host_older_http_is_refused_too(service):
    assert said(service, b"GET /ping HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 400 ")


@pytest.mark.parametrize("more", ["", "Connection: close\r\n"])
def test_a_name_with_an_underscore_is_no_header(service, more):
    """In WSGI's environment it would be another one."""
    for name in ("If_Match", "X_Request_Id", "Host_", "Content_Length", "Transfer_Encoding", "X-Request_Id"):
        heard = said(service, f"GET /ping HTTP/1.1\r\nHost: [::1]\r\n{name}: 999\r\n{more}\r\n".encode(), pause=0)
        assert heard.startswith(b"HTTP/1.1 200 OK"), name
        assert b"999\r\n" not in heard


def said(service, *pieces: bytes, answers: int = 1, pause: float = 0.05) -> bytes:
    """What the service answers to bytes that come piece by piece on one connection."""
    with service.raw() as client:
        for piece in pieces:
            client.sendall(piece)
            time.sleep(pause)  # a segment of its own
        heard = b""
        while heard.count(b"HTTP/1.1 ") < answers or not heard.endswith(b"}\n"):
            some = client.recv(65536)
            if not some:
                break
            heard += some
        return heard


def test_requests_that_come_together_are_answered_in_their_order(service):
    asked = [GET.replace(b"/ping", b"/users/%d" % id) for id in (2**40, 2**41)]
    heard = said(service, b"".join([GET, *asked, GET]), answers=4)
    assert heard.count(b"HTTP/1.1 200 OK") == 2
    assert heard.count(b"HTTP/1.1 404 NOT FOUND") == 2
    assert heard.index(b"404") > heard.index(b"200") < heard.rindex(b"404") < heard.rindex(b'{"now"')


def test_a_head_in_pieces_is_answered_too(service):
    for at in (1, 10, len(GET) - 1):
        assert said(service, GET[:at], GET[at:]).startswith(b"HTTP/1.1 200 OK")


def test_a_body_may_come_later_or_in_part(service):
    body = b'{"email": "slow%d@example.com", "name": "S", "address": "A", "image": "http://x.example/y"}'
    for number, at in enumerate((0, 1, 40)):
        sent = body % number
        head = (
            b"POST /users HTTP/1.1\r\nHost: [::1]\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            % len(sent)
        )
        heard = said(service, head + sent[:at], sent[at:] + GET, answers=2)
        assert heard.startswith(b"HTTP/1.1 201 CREATED")
        assert heard.count(b"HTTP/1.1 200 OK") == 1


def test_what_nobody_read_of_a_body_is_not_taken_for_a_request(service):
    hidden = b"GET /users/1 HTTP/1.1\r\n\r\n"
    for path in (b"/ping", b"/", b"/nowhere"):
        head = b"GET %b HTTP/1.1\r\nHost: [::1]\r\nContent-Length: %d\r\n\r\n" % (path, len(hidden))
        heard = said(service, head, hidden, GET, answers=2)
        assert heard.count(b"HTTP/1.1 ") == 2


def test_a_plain_request_and_one_that_is_not_share_a_connection(service):
    chunked = (
        b"POST /events HTTP/1.1\r\nHost: [::1]\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    body = b'{"user_id": "u", "description": "d"}'
    heard = said(service, GET, chunked + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body), GET, answers=3)
    assert heard.count(b"HTTP/1.1 200 OK") == 2
    assert heard.count(b"HTTP/1.1 201 CREATED") == 1


def test_head_and_not_modified_have_no_body(service):
    asked = b"HEAD /ping HTTP/1.1\r\nHost: [::1]\r\n\r\n"
    heard = said(service, asked + GET, answers=2)
    first, _, rest = heard.partition(b"\r\n\r\n")
    assert b"Content-Length: " in first
    assert rest.startswith(b"HTTP/1.1 200 OK")


def test_an_idle_connection_is_closed_in_time_wherever_its_request_stopped(database):
    with serve(database, IDLE_TIMEOUT="1", BODY_TIMEOUT="1") as service:
        for begun in (b"", GET, GET[:10], b"GET /ping HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 9\r\n\r\nabc"):
            with service.raw() as client:
                client.sendall(begun)
                while client.recv(65536):
                    pass


def test_a_service_that_stops_ends_idle_connections_at_once(database):
    running = serve(database)
    with running as service, service.raw() as client:
        client.sendall(GET)
        assert client.recv(65536)
        running.process.terminate()
        assert client.recv(65536) == b""
        assert running.process.wait(15) == 0


BEGUN = [b"", b"G", GET, GET[:-2], b"POST /users HTTP/1.1\r\nConnection: keep-alive, x\r\n", b"GET / HTTP/1.0\r\nA: "]
"""Where connections stop that ask nothing more: before a head, after an answer, within one."""


def dribble(clients: list[socket.socket], done: threading.Event) -> None:
    """Send a byte of a head on each from time to time."""
    while not done.wait(0.2):
        for client in clients:
            with suppress(OSError):
                client.sendall(b"x")


def test_idle_connections_make_room_and_those_that_are_asked_on_stay(database):
    """Three times as many connections as there are places: none is refused, none is cut that is asked on."""
    with (
        serve(database, WORKERS="1", CONNECTIONS_LIMIT="12", BODY_TIMEOUT="30") as service,
        ExitStack() as open_ones,
        ThreadPoolExecutor(1) as other,
    ):
        url = service.url.replace("http:", "ws:") + "/ws/events"
        channel = open_ones.enter_context(connect(url))
        assert json.loads(channel.recv(10))["type"] == "subscribed"
        body = b'{"email": "slow@example.com", "name": "S", "address": "A", "image": "http://x.example/y"}'
        slow = open_ones.enter_context(service.raw())
        length = b"Content-Length: %d" % len(body)
        slow.sendall(POST % (b"/users", length) + body[:9])
        late = open_ones.enter_context(service.raw())
        late.sendall(POST % (b"/users", length + b"\r\nConnection: close") + body[:9])
        done = threading.Event()
        idle = []
        try:
            for number in range(36):
                idle.append(open_ones.enter_context(service.raw()))
                idle[-1].sendall(BEGUN[number % len(BEGUN)])
                if number == 12:
                    other.submit(dribble, idle, done)
                if number > 12:
                    began = time.monotonic()
                    with service.raw() as honest:
                        honest.sendall(GET)
                        assert honest.recv(1000).startswith(b"HTTP/1.1 200 OK"), number
                    assert time.monotonic() - began < 5, "they wait for IDLE_TIMEOUT"
        finally:
            done.set()
        for client in (slow, late):
            client.sendall(body[9:])
            assert client.recv(1000).startswith((b"HTTP/1.1 201 CREATED", b"HTTP/1.1 409 CONFLICT"))
        assert service.get("/users/1").status_code == 200
        service.post("/users", json=json.loads(body.replace(b"slow@", b"seen@")))
        assert json.loads(channel.recv(10))
