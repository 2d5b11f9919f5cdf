"""Who reads in fits and starts gets each frame whole, once and in order, whatever of one the system has taken."""

import http.client
import json
import random
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress

import psycopg
import pytest
from websockets.sync.client import connect
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Message, Pong, Request

from db import feed
from db.feed import NOWHERE, Change, Feed, Subscription
from tests.conftest import first, make_token, serve, wait_for
from tests.test_changes import EVENTS, LINES

WRITE = "update projects set description = repeat(%s, %s) where id = %s"


def connected(service):
    """A connection whose client takes little at once."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(30)
    client.connect(("127.0.0.1", int(service.url.rpartition(":")[2])))
    return client


def frames_of_socket(client, token, pause):
    """What comes on a WebSocket; each of its pauses asks for a pong, too."""
    ws, text = WSConnection(ConnectionType.CLIENT), ""
    headers = [("Authorization", f"Bearer {token}")]
    client.sendall(ws.send(Request(host="127.0.0.1", target="/ws/events", extra_headers=headers)))
    while data := client.recv(1500):
        ws.receive_data(data)
        for event in ws.events():
            if isinstance(event, CloseConnection):
                assert event.code == 1013
                return
            assert isinstance(event, AcceptConnection | Message | Pong), event
            if isinstance(event, Message):
                text += event.data
                if event.message_finished:
                    if "pong" not in text:
                        yield json.loads(text)
                    text = ""
        if pause():
            client.sendall(ws.send(Message('{"cmd": "ping"}')))


def frames_of_stream(media, version):
    def frames(client, token, pause):
        headers = f"Host: 127.0.0.1\r\nAccept: {media}\r\nAuthorization: Bearer {token}\r\n"
        client.sendall(f"GET /changes HTTP/{version}\r\n{headers}\r\n".encode())
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert (answer.status, answer.chunked) == (200, version == "1.1")
        for line in iter(answer.readline, b""):
            pause()
            text = line.removeprefix(b"data: ").strip()
            if text.startswith(b"{"):
                yield json.loads(text)

    return frames


WAYS = {
    "socket": frames_of_socket,
    **{
        f"{media} {version}": frames_of_stream(media, version)
        for media in (EVENTS, LINES)
        for version in ("1.0", "1.1")
    },
}


@pytest.mark.parametrize("way", first(1, WAYS))
def test_each_frame_comes_whole_and_in_order(database, way):
    chance, number, size = random.Random(way), 900, 9_000
    with serve(database, WORKERS="1") as service, psycopg.connect(database, autocommit=True) as sql:
        project = service.post("/projects", json={"name": "One"}).json()["id"]
        token = make_token(sql, role="reader")
        go_on, written = threading.Event(), threading.Event()

        def write():
            try:
                for each in range(number):
                    sql.execute(WRITE, [chr(ord("a") + each % 26), size, project])
                    if each % 50 == 49:
                        go_on.set()
            finally:
                written.set()

        def pause():
            """Read nothing until more was written, now and then."""
            if written.is_set() or chance.random() > 0.05:
                return False
            go_on.wait(2)
            go_on.clear()
            return True

        with closing(connected(service)) as client, ThreadPoolExecutor(1) as aside:
            frames = WAYS[way](client, token, pause)
            assert next(frames)["type"] == "subscribed"
            writing = aside.submit(write)
            for each in range(number):
                frame = next(frames)
                assert frame["version"] == each + 2
                assert frame["diff"]["description"][1] == chr(ord("a") + each % 26) * size
            writing.result()


@pytest.mark.parametrize("of_each", first(1, [12_000, 30]), ids=["one transaction", "many"])
@pytest.mark.parametrize("way", first(1, [*WAYS][::-1]))
def test_who_is_cut_off_goes_on_behind_the_last_frame_that_came(database, way, of_each):
    """Whoever lets too much pile up is cut off there, and nothing that comes later is sent as if it came next."""
    with (
        serve(database, WORKERS="1") as service,
        psycopg.connect(database, autocommit=True) as sql,
        ExitStack() as ends,
    ):
        project = service.post("/projects", json={"name": "One"}).json()["id"]
        token = make_token(sql, role="reader")
        headers = {"Authorization": f"Bearer {token}"}
        address = f"{service.url.replace('http', 'ws')}/ws/events?obj_type=project"
        other = ends.enter_context(connect(address, additional_headers=headers))
        other.recv(10)
        frames = WAYS[way](ends.enter_context(closing(connected(service))), token, lambda: False)
        cursor = next(frames)["cursor"]
        for _ in range(0, 12_000, of_each):
            sql.execute(
                "insert into userstories (project_id, subject, description)"
                " select %s, 's', repeat('d', 1000) from generate_series(1, %s)",
                [project, of_each],
            )
        sql.execute("update projects set description = 'All stories are told of.'")
        other.recv(60)
        came = []
        with suppress(OSError, ValueError, http.client.HTTPException):  # it ends amid a frame, or between two
            for frame in frames:
                came.append(frame["object"]["obj_id"])
                cursor = frame["cursor"]
        assert came == [*range(1, len(came) + 1)], "there is a hole"
        assert len(came) < 12_000, "it was not cut off"
        query = {"obj_type": "userstory", "since": cursor}
        while more := service.get("/changes", params=query, headers=headers).json()["items"]:
            came += [frame["object"]["obj_id"] for frame in more]
            query["since"] = more[-1]["cursor"]
        assert came == [*range(1, 12_001)]


def test_who_was_cut_off_is_offered_nothing_any_more():
    subscription = Subscription(None, lambda _: None)
    change = Change(b"frame", NOWHERE, None, "task", "1", False, False)
    for _ in range(4):
        subscription.offer([change] * 1000, (b"frame",) * 1000)
    assert subscription.ended and subscription.frames == ()


def test_a_fault_in_what_is_sent_ends_who_listens_and_not_the_feed(database, monkeypatch):
    monkeypatch.setattr(feed, "RETRY", 0.05)
    woken = []

    def broken(text):
        if not woken:
            raise ValueError("a fault of ours")
        return text.encode()

    def wake(subscription):
        woken.append(subscription.ended)

    made = Feed(database, broken, lambda _: None)
    first, second = Subscription(None, wake), Subscription(None, wake)
    with psycopg.connect(database, autocommit=True) as sql:
        assert made.join(first)
        sql.execute("insert into projects (name) values ('One')")
        wait_for(lambda: first.ended)
        made.leave(first)
        assert made.join(second)
        sql.execute("insert into projects (name) values ('Two')")
        wait_for(lambda: any(b'"Two"' in frame for frame in second.frames))
        made.leave(second)
    wait_for(lambda: made.reader is None)
    assert (first.ended, second.ended) == ("The feed failed.", "")


def test_who_comes_as_the_last_one_leaves_is_told_once(database, monkeypatch):
    """The reader that ends must not go on beside the one that begins, however long its connection takes to close."""

    @contextmanager
    def closing_slowly(*where):
        with feed_connect(*where) as connection:
            yield connection
        left.set()
        go_on.wait(10)

    feed_connect, left, go_on = feed.connect, threading.Event(), threading.Event()
    monkeypatch.setattr(feed, "connect", closing_slowly)
    made = Feed(database, str.encode, lambda _: None)
    first, second = Subscription(None, lambda _: None), Subscription(None, lambda _: None)
    assert made.join(first)
    ending = made.reader
    made.leave(first)
    assert left.wait(10)
    assert made.join(second)
    go_on.set()
    ending.join(2)
    assert not ending.is_alive()
    with psycopg.connect(database, autocommit=True) as sql:
        for number in range(20):
            sql.execute("insert into projects (name) values (%s)", [str(number)])
    wait_for(lambda: len(second.frames) >= 20)
    frames, _ = made.leave(second)
    assert len(frames) == 20
    wait_for(lambda: made.reader is None)
