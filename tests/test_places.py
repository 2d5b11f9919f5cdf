"""Feed-Cursor: a list or a tree, and all that the feed brings from there on, are what the tables hold."""

import csv
import io
import json
import random
import threading
import time
from contextlib import contextmanager
from urllib.parse import parse_qsl

import psycopg
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.sync.client import connect

from db.feed import Cursor
from tests.conftest import first, make_token, serve
from tests.test_feed import channel, silent
from tests.test_history import one_of_each
from tests.test_refusals import needed, somewhere
from tests.test_streaming import LISTS

CSV, JSON, NDJSON = "text/csv", "application/json", "application/x-ndjson"


@pytest.fixture
def objects(service, unique):
    event = service.post("/events", json={"user_id": unique("ann"), "description": "d"}).json()
    return one_of_each(service, unique) | {"events": event}


def read(service, path, media=JSON, **options):
    answer = service.get(path, headers={"Accept": media}, **options)
    assert answer.status_code == 200, answer.text
    return answer


def address(path, objects):
    """A path of this rule, to what is there."""
    noun = path.split("/")[1]
    return somewhere(path.replace("<id:id>", str(objects[noun]["id"])) if "<id:id>" in path else path)


@pytest.mark.parametrize("media", [JSON, NDJSON, CSV])
def test_every_list_tells_where_it_was_read(service, objects, media):
    for path, order in LISTS:
        query = needed("GET", path) | ({"sort": order} if order else {})
        path = path.replace("<uuid:id>", objects["events"]["event_id"])
        answer = read(service, address(path, objects), media, params=query)
        assert Cursor.parse(answer.headers["Feed-Cursor"]).snapshot, path
        assert "Feed-Cursor" in service.request("HEAD", address(path, objects), params=query).headers


def test_what_is_of_the_past_is_no_place_to_go_on_from(service, objects):
    at = {"as_of": objects["tasks"]["created_at"]}
    for path in ("/users", f"/projects/{objects['projects']['id']}/tree"):
        assert "Feed-Cursor" not in read(service, path, params=at).headers
        assert "Feed-Cursor" in read(service, path).headers


def changes(service, cursor, **query):
    """All that comes from a place on, until there is nothing."""
    while True:
        answer = service.get("/changes", params=query | {"since": cursor})
        assert answer.status_code == 200, answer.text
        yield from answer.json()["items"]
        if not answer.json()["items"]:
            return
        cursor = answer.json()["cursor"]


def rows(answer, media):
    if media == NDJSON:
        return [json.loads(line) for line in answer.text.splitlines()]
    if media == CSV:
        return [
            row | {"id": int(row["id"]), "version": int(row["version"])}
            for row in csv.DictReader(io.StringIO(answer.text))
        ]
    return answer.json()["items"]


READS = {
    "a page": ("milestones", JSON, lambda answer: rows(answer, JSON)),
    "all as lines": ("milestones", NDJSON, lambda answer: rows(answer, NDJSON)),
    "all as a table": ("milestones", CSV, lambda answer: rows(answer, CSV)),
    "a tree": ("tree", JSON, lambda answer: answer.json()["milestones"]),
}


SOME_MILESTONE = "(select id from milestones order by random() limit 1 for update skip locked)"

MOST = 500
"""Milestones that there may be, but for what writers add at the same time: a page has room for 1,000."""

FEWER = f"(select count(*) from milestones) < {MOST}"

DEEDS = [
    *[f"insert into milestones (project_id, name) select id, 'm' from projects where {FEWER}"] * 3,
    *[f"update milestones set name = name || '.' where id = {SOME_MILESTONE}"] * 4,
    f"delete from milestones where id = {SOME_MILESTONE}",
]


@contextmanager
def busy(database, deeds=DEEDS):
    """A service with a project in which 8 writers change things, until they are told to stop."""
    over, failed = threading.Event(), []

    def write(chance):
        try:
            with psycopg.connect(database) as connection:
                while not over.is_set():
                    try:
                        for _ in range(chance.randint(1, 5)):
                            connection.execute(chance.choice(deeds))
                        time.sleep(chance.random() / 50)  # any moment
                        connection.rollback() if chance.random() < 0.2 else connection.commit()
                    except psycopg.errors.DeadlockDetected:
                        connection.rollback()
        except psycopg.Error as error:
            failed.append(error)

    def stop():
        over.set()
        for writer in writers:
            writer.join(60)
        assert not failed

    writers = [threading.Thread(target=write, args=(random.Random(number),)) for number in range(8)]
    with serve(database) as service:
        project = service.post("/projects", json={"name": "Busy"}).json()["id"]
        for writer in writers:
            writer.start()
        try:
            yield service, project, stop
        finally:
            stop()


def held(database):
    with psycopg.connect(database) as connection:
        return dict(connection.execute("select id, version from milestones").fetchall())


def versions(items):
    return {each["id"]: each["version"] for each in items}


def take(model, frame):
    """A change, which is the next of its object."""
    id, action = frame["object"]["obj_id"], frame["object"]["action"]
    if action == "create":
        assert id not in model
    elif action == "update":
        assert model[id] == frame["version"] - 1
    model[id] = frame["version"]
    if action == "delete":
        del model[id]


@pytest.mark.parametrize("what", first(1, READS))
@pytest.mark.parametrize("reads", first(1, [20, 200]))
def test_a_list_and_what_comes_from_there_on_is_what_the_table_holds(database, what, reads):
    below, media, found = READS[what]
    query = {"limit": 1000} if what == "a page" else {}
    with busy(database) as (service, project, stop):
        answers = [read(service, f"/projects/{project}/{below}", media, params=query) for _ in range(reads)]
        stop()
        for answer in random.Random(7).sample(answers, 5):
            model = versions(found(answer))
            for frame in changes(service, answer.headers["Feed-Cursor"], project=project, obj_type="milestone"):
                take(model, frame)
            assert model == held(database)


@pytest.mark.parametrize("below", first(1, ["milestones?limit=1000", "tree"]))
@pytest.mark.parametrize("rounds", first(1, [5, 50]))
def test_a_snapshot_on_the_socket_comes_behind_what_was_before_it_and_before_the_rest(database, below, rounds):
    with (
        busy(database) as (service, project, stop),
        channel(service, project=project, obj_type="milestone") as ws,
    ):
        path, model = f"/projects/{project}/{below}", None
        for _ in range(rounds):
            ws.send(json.dumps({"cmd": "snapshot", "path": path}))
            while (frame := ws.listen(30)).get("type") != "snapshot":
                if model is not None:
                    take(model, frame)
            now = versions(frame["body"]["items" if "limit" in below else "milestones"])
            assert model is None or model == now
            model = now
            for _ in range(20):
                take(model, ws.listen(30))
        stop()
        cursor = frame["cursor"]
        ws.send(json.dumps({"cmd": "snapshot", "path": path}))
        while (frame := ws.listen(30)).get("type") != "snapshot":
            take(model, frame)
        assert model == held(database) and frame["cursor"] != cursor


def test_what_the_handshake_asked_for_is_not_asked_for_again(service, objects):
    headers = {"If-None-Match": "*", "Range": "bytes=0-1", "Prefer": "respond-async"}
    url = f"{service.url.replace('http', 'ws')}/ws/events"
    with connect(url, additional_headers=headers | {"X-Request-Id": "mine"}) as ws:
        ws.recv(10)
        ws.listen = lambda timeout=10: json.loads(ws.recv(timeout))
        for path in (f"/userstories/{objects['userstories']['id']}", "/users"):
            assert said_of(ws, path)["body"]
        assert said_of(ws, "/nowhere")["problem"]["request_id"] == "mine"


def said_of(ws, path):
    ws.send(json.dumps({"cmd": "snapshot", "path": path}))
    return ws.listen(30)


def test_a_snapshot_is_what_get_answers(service, objects):
    story = f"/userstories/{objects['userstories']['id']}"
    with channel(service, project=objects["projects"]["id"]) as ws:
        for path in (story, f"{story}/tasks?fields=id,subject", f"{story}/history", "/ping", "/users?limit=3&sort=-id"):
            told = said_of(ws, path)
            assert {*told} == {"type", "path", "cursor", "body"}
            assert (told["type"], told["path"]) == ("snapshot", path)
            assert path == "/ping" or told["body"] == service.get(path).json()
            assert service.get("/changes", params={"since": told["cursor"]}).json()["items"] == []
        for path, status in (
            ("/users/999999999", 404),
            ("/nowhere", 404),
            ("/users?nothing=1", 400),
            ("/ws/events", 400),
        ):
            told = said_of(ws, path)
            assert {*told} == {"type", "path", "cursor", "problem"} and told["problem"]["status"] == status
        assert said_of(ws, "/backup/jobs")["problem"]["status"] == 406
        service.patch(story, json={"status": "s", "version": 1})
        assert ws.listen()["version"] == 2
        assert silent(ws)


@pytest.mark.parametrize(
    "message",
    [
        {"cmd": "snapshot"},
        {"cmd": "snapshot", "path": None},
        {"cmd": "snapshot", "path": ["/users"]},
        {"cmd": "snapshot", "path": "users"},
        {"cmd": "snapshot", "path": "http://localhost/users"},
        {"cmd": "snapshot", "path": "/users?name=\u00e4"},
        {"cmd": "snapshot", "path": "/users\r\nX: y"},
        {"cmd": "nothing", "path": "/users"},
    ],
    ids=json.dumps,
)
def test_what_is_no_path_closes_the_socket(service, message):
    with channel(service) as ws:
        ws.send(json.dumps(message))
        with pytest.raises(ConnectionClosed):
            ws.listen()
        assert ws.close_code == 1003


def test_a_snapshot_is_for_who_may_read_it(database):
    with psycopg.connect(database, autocommit=True) as connection:
        own, other = (
            connection.execute("insert into projects (name) values (%s) returning id", [name]).fetchone()[0]
            for name in ("own", "other")
        )
        held = make_token(connection, name="held", role="reader", project=own)
        with serve(database) as service, connect(f"{service.url.replace('http', 'ws')}/ws/events") as ws:
            ws.listen = lambda timeout=10: json.loads(ws.recv(timeout))
            ws.send(json.dumps({"cmd": "auth", "token": held}))
            assert ws.listen()["type"] == "subscribed"
            assert said_of(ws, f"/projects/{own}/tree")["body"]["name"] == "own"
            for path, status in ((f"/projects/{other}/tree", 404), ("/backups", 403), ("/users", 403)):
                assert said_of(ws, path)["problem"]["status"] == status
            # What a snapshot was read by binds nothing that is read behind it.
            for project in (own, other):
                connection.execute("insert into milestones (project_id, name) values (%s, 'm')", [project])
            assert ws.listen()["project"] == own
            connection.execute("delete from tokens where name = 'held'")
            with pytest.raises(ConnectionClosed):
                while said_of(ws, f"/projects/{own}/tree"):
                    time.sleep(0.1)  # asks again
            assert ws.close_code == 1008


@pytest.mark.parametrize("commands", first(1, [16, 1, 200]))
def test_what_comes_at_once_is_answered_in_turn(database, commands):
    """Together with the token, and more than may wait."""
    with psycopg.connect(database, autocommit=True) as connection:
        auth = {"cmd": "auth", "token": make_token(connection, role="reader")}
    asked = [{"cmd": "ping"}, {"cmd": "snapshot", "path": "/users?limit=1"}] * commands
    with serve(database) as service, connect(f"{service.url.replace('http', 'ws')}/ws/events") as ws:
        frames = [Frame(Opcode.TEXT, json.dumps(each).encode()) for each in (auth, *asked)]
        ws.socket.sendall(b"".join(frame.serialize(mask=True) for frame in frames))
        assert json.loads(ws.recv(10))["type"] == "subscribed"
        told = [json.loads(ws.recv(30)) for _ in asked]
        assert [each.get("cmd", each.get("path")) for each in told] == ["pong", "/users?limit=1"] * commands


def test_nobody_waits_within_a_snapshot(service):
    with channel(service) as ws:
        began = time.monotonic()
        assert said_of(ws, "/changes?wait=60&project=999999999")["body"]["items"] == []
        assert time.monotonic() - began < 20


def test_several_kinds_may_be_asked_for(service, objects):
    project, story = objects["projects"]["id"], objects["userstories"]["id"]
    since = service.get("/changes").json()["cursor"]
    with channel(service, project=project, obj_type="task,comment") as ws:
        for noun, body in (("tasks", {"subject": "s"}), ("comments", {"text": "t"})):
            assert service.post(f"/userstories/{story}/{noun}", json=body).status_code == 201
            assert service.post(f"/projects/{project}/milestones", json={"name": "m"}).status_code == 201
        live = [ws.listen() for _ in range(2)]
        assert silent(ws)
    assert [frame["object"]["obj_type"] for frame in live] == ["task", "comment"]
    query = {"since": since, "project": project, "obj_type": "task,comment"}
    missed = service.get("/changes", params=query).json()["items"]
    assert [frame["id"] for frame in missed] == [frame["id"] for frame in live]


MISSED = {
    "": "true",
    "project=2": "(project = 2 or action = 'truncate')",
    "obj_type=milestone": "obj_type = 'milestone'",
    "obj_type=department&obj_id=7": "obj_type = 'department' and obj_id = '7'",
    "obj_type=milestone&obj_id=3": "obj_type = 'milestone' and (obj_id = '3' or action = 'truncate')",
    "project=999": "action = 'truncate'",
}


def test_what_was_missed_and_is_asked_for_is_what_history_has(database):
    """The reader of what was missed leaves out what is not asked for, by the same rule as who listens."""
    with psycopg.connect(database, autocommit=True) as connection, serve(database) as service:
        since = service.get("/changes").json()["cursor"]
        for statement in (
            "insert into projects (name) select 'p' || i from generate_series(1, 3) as i",
            "insert into milestones (project_id, name) select id, 'm' from projects, generate_series(1, 5)",
            "insert into departments (id, department) select i, 'd' || i from generate_series(1, 3000) as i",
            "truncate milestones cascade",
            "update projects set name = name || '!'",
        ):
            connection.execute(statement)
        for query, condition in MISSED.items():
            found = connection.execute(f"select id from history.entries where {condition} order by id").fetchall()
            told = [frame["id"] for frame in changes(service, since, **dict(parse_qsl(query)))]
            assert told == [id for (id,) in found], query


@pytest.mark.thorough
def test_a_long_snapshot_comes_whole_and_holds_no_other_up(database):
    with psycopg.connect(database, autocommit=True) as connection:
        project = connection.execute("insert into projects (name) values ('long') returning id").fetchone()[0]
        connection.execute(
            "insert into milestones (project_id, name) select %s, repeat('ä', 200) from generate_series(1, 20000)",
            [project],
        )
        with serve(database) as service, connect(f"{service.url.replace('http', 'ws')}/ws/events", max_size=None) as ws:
            ws.recv(10)
            ws.send(json.dumps({"cmd": "snapshot", "path": f"/projects/{project}/tree"}))
            told = json.loads(ws.recv(60))
            assert told["body"] == service.get(f"/projects/{project}/tree").json()


def test_a_token_of_one_project_goes_on_from_what_it_reads(database):
    with psycopg.connect(database, autocommit=True) as connection:
        own, other = (
            connection.execute("insert into projects (name) values (%s) returning id", [name]).fetchone()[0]
            for name in ("own", "other")
        )
        held = {"Authorization": f"Bearer {make_token(connection, role='reader', project=own)}"}
        with serve(database) as service:
            for path in (f"/projects/{own}/milestones", f"/projects/{own}/tree", "/history"):
                cursor = service.get(path, headers=held).headers["Feed-Cursor"]
                for project in (own, other):
                    connection.execute("insert into milestones (project_id, name) values (%s, 'm')", [project])
                came = service.get("/changes", params={"since": cursor}, headers=held).json()["items"]
                assert [frame["project"] for frame in came] == [own], path
