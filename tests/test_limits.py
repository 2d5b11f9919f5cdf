"""Limits: too much, too fast and too slow is refused, and holds nobody else up."""

import json
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import psutil
import psycopg
import pytest
import requests
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.conftest import make_token, serve, wait_for


@pytest.fixture
def holders(database):
    """Two tokens."""
    with psycopg.connect(database, autocommit=True) as connection:
        return [{"Authorization": f"Bearer {make_token(connection)}"} for _ in range(2)]


def test_what_a_token_may_ask_is_counted_over_all_processes(database, holders):
    first, second = holders
    if time.time() % 60 > 50:  # not over the end of a minute
        time.sleep(61 - time.time() % 60)  # the time that is promised
    with serve(database, RATE_LIMIT="50", WORKERS="2") as service, ThreadPoolExecutor(8) as crowd:
        answers = list(crowd.map(lambda _: requests.get(f"{service.url}/users", headers=first), range(120)))
        assert Counter(answer.status_code for answer in answers) == {200: 50, 429: 70}
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert refused.json()["detail"] == "The token may make 50 requests a minute."
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        assert refused.headers["RateLimit"].startswith('"token";r=0;t=')
        assert service.get("/health/live").status_code == 200
        other = service.get("/users", headers=second)
        assert other.status_code == 200
        assert other.headers["RateLimit-Policy"] == '"token";q=50;w=60'
        assert other.headers["RateLimit"].startswith('"token";r=49;t=')


def test_the_next_minute_begins_anew(database, holders):
    with psycopg.connect(database, autocommit=True) as connection:
        # As if the minute before had been asked out.
        connection.execute("insert into quotas select name, now() - interval '1 minute', 1000 from tokens")
    with serve(database, RATE_LIMIT="5", WORKERS="1") as service:
        assert service.get("/users", headers=holders[0]).status_code == 200


def test_what_is_refused_counts_too(database):
    """Whatever for, but for a bad token, which is nobody's."""
    refusals = {
        403: ("POST", "/users"),
        404: ("GET", "/users/77"),
        406: ("GET", "/users/1"),
        422: ("GET", "/users?limit=x"),
    }
    with (
        psycopg.connect(database, autocommit=True) as connection,
        serve(database, RATE_LIMIT="5", WORKERS="1") as service,
    ):
        for status, (method, path) in refusals.items():
            headers = {"Authorization": f"Bearer {make_token(connection, role='reader')}"}
            headers |= {"Accept": "image/png"} if status == 406 else {}
            answers = Counter(service.request(method, path, headers=headers).status_code for _ in range(20))
            # A minute may end midway.
            assert {*answers} == {status, 429} and answers[status] <= 10, answers


def test_what_could_not_be_counted_is_counted_again_soon(database, holders):
    with (
        psycopg.connect(database, autocommit=True) as connection,
        serve(database, RATE_LIMIT="5", WORKERS="1") as service,
    ):
        connection.execute("alter table quotas rename to away")
        assert {service.get("/users", headers=holders[0]).status_code for _ in range(20)} == {200}
        connection.execute("alter table away rename to quotas")
        wait_for(lambda: service.get("/users", headers=holders[0]).status_code == 429)


def test_a_token_has_so_many_sockets(database, holders):
    with serve(database, SOCKETS_PER_TOKEN="2", WORKERS="1") as service, ExitStack() as open_ones:
        url = f"{service.url.replace('http', 'ws')}/ws/events"
        for _ in range(2):
            ws = open_ones.enter_context(connect(url, additional_headers=holders[0]))
            assert json.loads(ws.recv(5))["type"] == "subscribed"
        with pytest.raises(InvalidStatus) as refused:
            connect(url, additional_headers=holders[0])
        assert refused.value.response.status_code == 429
        with connect(url) as third:
            third.send(json.dumps({"cmd": "auth", "token": holders[0]["Authorization"].split()[1]}))
            with pytest.raises(ConnectionClosed):
                third.recv(5)
            assert third.close_code == 1008
        with connect(url, additional_headers=holders[1]) as other:
            assert json.loads(other.recv(5))["type"] == "subscribed"
        ws.close()
        with connect(url, additional_headers=holders[0]) as again:
            assert json.loads(again.recv(5))["type"] == "subscribed"


@pytest.fixture(scope="module")
def impatient(module_database):
    """A service that waits for nobody longer than 2 seconds."""
    limits = {
        "HEADERS_LIMIT": "50",
        "HEADER_LIMIT": "4000",
        "SOCKETS_LIMIT": "1",
        "IDLE_TIMEOUT": "4",
        "BODY_TIMEOUT": "1",
        "UPLOAD_TIMEOUT": "1",
        "SEND_TIMEOUT": "2",
        "BODY_LIMIT": "1000",
        "UPLOAD_LIMIT": "2000",
    }
    with serve(module_database, WORKERS="1", **limits) as service:
        yield service


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("path", "media"),
    [("/users", "application/json"), ("/upload/jobs", "text/csv"), ("/restore/jobs", "application/avro")],
)
def test_a_body_that_does_not_come_is_not_waited_for(impatient, path, media):
    with impatient.raw() as client:
        client.sendall(
            f"POST {path} HTTP/1.1\r\nHost: [::1]\r\nContent-Type: {media}\r\nContent-Length: 900\r\n\r\n1,".encode()
        )
        began = time.monotonic()
        assert client.recv(1000).startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - began < 10


def test_a_body_that_trickles_is_not_waited_for(impatient):
    with impatient.raw() as client:
        client.sendall(
            b"POST /users HTTP/1.1\r\nHost: [::1]\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n"
        )
        for _ in range(40):
            client.sendall(b" ")
            time.sleep(0.05)  # a slow peer
        assert client.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_a_body_may_be_so_large(impatient):
    assert impatient.post("/users", data=" " * 1001, headers={"Content-Type": "application/json"}).status_code == 413
    assert impatient.post("/upload/jobs", data=" " * 2001, headers={"Content-Type": "text/csv"}).status_code == 413


@pytest.mark.thorough
def test_a_body_that_nobody_wants_holds_nobody_up(impatient):
    """It is read once the answer is given, in turns with other requests, up to a bound; then the connection ends."""
    # One that does wait, else a client of a busy machine is cut off before it has read its answer.
    with serve(impatient.database) as patient, ThreadPoolExecutor(4) as crowd, requests.Session() as other:
        bodies = [crowd.submit(patient.post, "/users", data=b" " * 20_000_000, headers=JSON) for _ in range(8)]
        waits = []
        while not all(body.done() for body in bodies):
            began = time.monotonic()
            assert other.get(f"{patient.url}/ping", timeout=20).status_code == 200
            waits.append(time.monotonic() - began)
        assert {body.result().status_code for body in bodies} == {413}
        assert max(waits) < 2, "gunicorn alone takes minutes"
    with impatient.raw() as client:
        client.sendall(
            b"POST /users HTTP/1.1\r\nHost: [::1]\r\nContent-Type: text/plain\r\nContent-Length: 99999999\r\n\r\n"
        )
        assert client.recv(1000).startswith(b"HTTP/1.1 415 ")
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            for _ in range(1000):
                client.sendall(b" " * 99_999)


MEBI = 1_000_000
"""Bytes of a body that is refused for something else than its size."""

FORM = b'--b\r\nContent-Disposition: form-data; name="x"; filename="y"\r\n\r\n'

REFUSED = {
    "too large": (413, "/events", JSON, b" " * 5 * MEBI),
    "too full": (422, "/audios", JSON, b'{"ticks": [' + b"1," * (MEBI // 2) + b"1]}"),
    "malformed": (400, "/events", JSON, b'{"user_id": "' + b"x" * MEBI),
    "no UTF-8": (400, "/events", JSON, b'{"user_id": "\xff' + b"x" * MEBI + b'"}'),
    "too deep": (400, "/events", JSON, b'{"a":' * (MEBI // 5)),
    "too deep a list": (400, "/events", JSON, b"[" * MEBI),
    "too long a text": (422, "/events", JSON, b'{"user_id": "x", "description": "' + b"y" * MEBI + b'"}'),
    "too long a text of wide characters": (
        422,
        "/events",
        JSON,
        b'{"user_id": "' + b"\xf0\x9f\x98\x80" * 250_000 + b'"}',
    ),
    "a member nobody knows": (422, "/events", JSON, b'{"user_id": "x", "z": "' + b"y" * MEBI + b'"}'),
    "a member's name": (422, "/events", JSON, b'{"' + b"y" * MEBI + b'": 1}'),
    "a batch of too many rows": (422, "/batch", JSON, b'{"jobs": [' + b",".join([b" " * 900 + b"{}"] * 1001) + b"]}"),
    "no token": (401, "/events", JSON | {"Authorization": "Bearer rh_none"}, b" " * MEBI),
    "another type": (415, "/events", {"Content-Type": "text/plain"}, b" " * MEBI),
    "another coding": (415, "/events", JSON | {"Content-Encoding": "br"}, b" " * MEBI),
    "a path nobody knows": (404, "/nothing", JSON, b" " * MEBI),
    "another verb": (405, "/ping", JSON, b" " * MEBI),
    "a parameter nobody knows": (400, "/events?x=1", JSON, b" " * MEBI),
    "a form without its file": (
        422,
        "/upload/jobs",
        {"Content-Type": "multipart/form-data; boundary=b"},
        FORM + b"x" * MEBI + b"\r\n--b--\r\n",
    ),
    "a form that is none": (
        413,
        "/upload/jobs",
        {"Content-Type": "multipart/form-data; boundary=b"},
        b"--b\r\n" + b"x" * MEBI,
    ),
    "a batch of a row that is kept as refused": (
        200,
        "/batch",
        JSON,
        b'{"jobs": [{"id": 1, "job": "%b"}]}' % (b"y" * MEBI),
    ),
    "a file of a row that is kept as refused": (
        200,
        "/upload/jobs?header=no",
        {"Content-Type": "text/csv"},
        b"1," + b"x" * MEBI,
    ),
    "no Avro": (422, "/restore/jobs", {"Content-Type": "application/avro"}, b"x" * MEBI),
}
"""Bodies that are refused, with the answer: one for each way to be."""


@pytest.mark.thorough
def test_refused_bodies_of_every_kind_leave_no_memory_behind(database):
    with psycopg.connect(database, autocommit=True) as connection:
        holder = {"Authorization": f"Bearer {make_token(connection)}"}
    running = serve(database)
    with running as service, ThreadPoolExecutor(8) as crowd:
        (worker,) = psutil.Process(running.process.pid).children()

        def send(kind: str) -> int:
            _, path, headers, body = REFUSED[kind]
            return requests.post(service.url + path, data=body, headers=holder | headers, timeout=30).status_code

        def least() -> float:
            """MiB once what is under way is done."""
            found = []
            for _ in range(10):
                time.sleep(0.1)  # asks again
                found.append(worker.memory_info().rss / 2**20)
            return min(found)

        assert {kind: send(kind) for kind in REFUSED} == {kind: REFUSED[kind][0] for kind in REFUSED}
        before, kept = least(), {}
        for kind in REFUSED:
            list(crowd.map(send, [kind] * 60))
            kept[kind] = round(least() - before)
        assert max(kept.values()) <= 30, kept


@pytest.mark.thorough
def test_a_client_that_does_not_read_is_cut_off(impatient):
    asked = 400
    size = len(impatient.get("/openapi.json").content)
    with impatient.raw() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: [::1]\r\n\r\n" * asked)
            time.sleep(6)  # a slow peer
            came = 0
            while some := client.recv(2**20):
                came += len(some)
        except (ConnectionResetError, BrokenPipeError):
            return
        assert came < asked * size


def test_half_open_connections_hold_nobody_up(impatient):
    with ExitStack() as open_ones:
        for _ in range(200):
            client = open_ones.enter_context(impatient.raw())
            client.sendall(b"GET /users HTTP/1.1\r\nHost: [::1]\r\nX-Slow:")
        assert requests.get(f"{impatient.url}/users", timeout=5).status_code == 200


def test_a_head_that_does_not_come_is_not_waited_for(impatient):
    with impatient.raw() as client:
        client.sendall(b"GET /users HTTP/1.1\r\nHost: [::1]\r\n")
        began = time.monotonic()
        for _ in range(40):  # as it trickles: the time is for the whole
            try:
                client.sendall(b"X-Slow: x\r\n")
            except OSError:
                break
            time.sleep(0.25)  # a slow peer
        assert 3 < time.monotonic() - began < 8


def test_a_process_has_so_many_sockets(impatient):
    url = f"{impatient.url.replace('http', 'ws')}/ws/events"
    with connect(url) as ws, pytest.raises(InvalidStatus) as refused:
        assert json.loads(ws.recv(5))["type"] == "subscribed"
        connect(url)
    assert refused.value.response.status_code == 503


def test_headers_have_limits(impatient):
    assert impatient.get("/users", headers={"X-Long": "x" * 4001}).status_code == 431
    assert impatient.get("/users", headers={"X-Long": "x" * 3000}).status_code == 200
    assert impatient.get("/users", headers={f"X-{number}": "x" for number in range(60)}).status_code == 431
    assert impatient.get("/users?name=" + "x" * 9000).status_code == 414


# What browsers are told -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/users", "/nothing", "/", "/docs", "/page/chart.js", "/metrics", "/openapi.json"])
def test_every_answer_has_the_security_headers(service, path):
    headers = service.get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "no-cache" in headers["Cache-Control"]


def test_scripts_of_other_origins_are_not_let_in(service):
    answer = service.get("/users", headers={"Origin": "https://elsewhere.example"})
    assert "Access-Control-Allow-Origin" not in answer.headers
    preflight = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "PATCH"}
    assert "Access-Control-Allow-Origin" not in service.request("OPTIONS", "/users/1", headers=preflight).headers


def headers_taken(service):
    """Every header that the OpenAPI document says a route takes, and what goes with a body, a token or a log."""
    paths = service.get("/openapi.json").json()["paths"]
    told = {
        each["name"]
        for operations in paths.values()
        for operation in operations.values()
        for each in operation["parameters"]
        if each["in"] == "header"
    }
    assert "Last-Event-ID" in told
    return told | {"Authorization", "Content-Type", "X-Request-Id"}


def test_scripts_of_listed_origins_are(database, holders):
    listed, other = "https://a.example", "https://a.example.evil"
    with serve(database, CORS_ORIGINS=f"{listed} https://b.example") as service:
        preflight = {
            "Origin": listed,
            "Access-Control-Request-Method": "PATCH",
            "Access-Control-Request-Headers": "authorization, if-match",
        }
        allowed = service.request("OPTIONS", "/users/1", headers=preflight)
        assert allowed.status_code == 200
        assert allowed.headers["Access-Control-Allow-Origin"] == listed
        assert "PATCH" in allowed.headers["Access-Control-Allow-Methods"]
        assert allowed.headers["Access-Control-Allow-Headers"] == "authorization, if-match"
        for name in headers_taken(service):
            asked = preflight | {"Access-Control-Request-Headers": name.lower()}
            answer = service.request("OPTIONS", "/users/1", headers=asked)
            assert answer.headers.get("Access-Control-Allow-Headers") == name.lower()
        answer = service.get("/users", headers={"Origin": listed} | holders[0])
        assert answer.status_code == 200 and answer.headers["Access-Control-Allow-Origin"] == listed
        assert "ETag" in answer.headers["Access-Control-Expose-Headers"] and "Origin" in answer.headers["Vary"]
        assert service.get("/users", headers={"Origin": listed}).headers["Access-Control-Allow-Origin"] == listed
        assert "Access-Control-Allow-Origin" not in service.get("/users", headers={"Origin": other}).headers
        url = f"{service.url.replace('http', 'ws')}/ws/events"
        with connect(url, origin=listed, additional_headers=holders[0]) as ws:
            assert json.loads(ws.recv(5))["type"] == "subscribed"
        with pytest.raises(InvalidStatus):
            connect(url, origin=other, additional_headers=holders[0])
