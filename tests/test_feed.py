"""The channel: every committed change once, in order, to whoever listens, however often they fall off."""

import json
import random
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from db import private_postgres
from tests.conftest import first, serve, wait_for
from tests.test_users import person


@contextmanager
def channel(service, **query):
    """A subscriber: `listen()` is the next frame, after `subscribed`, whose cursor is `ws.subscribed`."""
    asked = "&".join(f"{name}={value}" for name, value in query.items())
    with connect(f"{service.url.replace('http', 'ws')}/ws/events?{asked}", close_timeout=0.1) as ws:
        ws.listen = lambda timeout=10: json.loads(ws.recv(timeout))
        first = ws.listen()
        assert first["type"] == "subscribed", first
        ws.subscribed = first["cursor"]
        yield ws


def execute(service, statement, *parameters):
    with psycopg.connect(service.database, autocommit=True, application_name="psql") as connection:
        connection.execute(statement, parameters)


def silent(ws):
    """Whether nothing comes: what would have come is there before the pong of a later ping."""
    ws.send('{"cmd": "ping"}')
    return ws.listen() == {"cmd": "pong"}


# What comes -----------------------------------------------------------------------------------------------------------


def test_a_change_made_after_subscribed_comes_as_the_contract_says(service, project, story):
    path = f"/userstories/{story['id']}"
    with channel(service, project=project["id"]) as ws:
        changed = service.patch(path, json={"status": "ready", "version": 1}).json()
        frame = ws.listen()
    entry = service.get(f"{path}/history?sort=-id").json()["items"][0]
    assert frame.pop("cursor")
    assert frame == {
        "project": project["id"],
        "object": {"obj_type": "userstory", "obj_id": story["id"], "action": "update"},
        "id": entry["id"],
        "version": 2,
        "operation_date": changed["updated_at"],
        "actor": "anonymous",
        "diff": {"status": ["new", "ready"]},
    }


def test_creation_and_removal_come_too(service, project):
    with channel(service, project=project["id"]) as ws:
        made = service.post(f"/projects/{project['id']}/milestones", json={"name": "First"}).json()
        service.delete(f"/milestones/{made['id']}?version=1")
        created, deleted = ws.listen(), ws.listen()
    assert (created["object"]["action"], deleted["object"]["action"]) == ("create", "delete")
    assert created["diff"]["name"] == [None, "First"]
    assert deleted["diff"]["name"] == ["First", None]


def test_what_psql_does_comes_and_a_rollback_does_not(service, project, story):
    with channel(service, project=project["id"]) as ws:
        with psycopg.connect(service.database) as connection:
            connection.execute("update userstories set status = 'never' where id = %s", [story["id"]])
            connection.rollback()
        execute(service, "update userstories set status = 'psql' where id = %s", story["id"])
        frame = ws.listen()
        assert frame["diff"] == {"status": ["new", "psql"]}
        assert frame["actor"].endswith(" (psql)")


def test_copy_and_truncate_come(database):
    with serve(database) as service:
        made = service.post("/projects", json={"name": "Copied"}).json()
        story = service.post(f"/projects/{made['id']}/userstories", json={"subject": "Read"}).json()
        with channel(service, obj_type="task") as ws:
            with (
                psycopg.connect(database) as connection,
                connection.cursor().copy("copy tasks (project_id, userstory_id, subject) from stdin") as copy,
            ):
                copy.write_row((made["id"], story["id"], "one"))
                copy.write_row((made["id"], story["id"], "two"))
            assert [ws.listen()["diff"]["subject"][1] for _ in range(2)] == ["one", "two"]
            execute(service, "truncate tasks")
            assert ws.listen()["object"] == {"obj_type": "task", "obj_id": None, "action": "truncate"}


MOVES = {
    "milestone": "update milestones set project_id = %(there)s where id = %(id)s",
    "userstory": "update userstories set project_id = %(there)s, ref = 99 where id = %(id)s",
    "task": "update tasks set project_id = %(there)s, userstory_id = %(parent)s where id = %(id)s",
    "comment": "update comments set project_id = %(there)s, userstory_id = %(parent)s where id = %(id)s",
}
"""What SQL can do and the API does not."""


@pytest.mark.parametrize("kind", MOVES)
def test_what_sql_moves_ends_in_one_project_and_begins_in_the_other(service, unique, kind):
    """So is told who follows either, or both; and so say what was, what is otherwise, and the history."""
    here, there = places = [service.post("/projects", json={"name": unique("P")}).json()["id"] for _ in range(2)]
    stories = [service.post(f"/projects/{id}/userstories", json={"subject": "S"}).json()["id"] for id in places]
    collections = {
        "milestone": ("/projects/{}/milestones", places, {"name": "M"}),
        "userstory": ("/projects/{}/userstories", places, {"subject": "S"}),
        "task": ("/userstories/{}/tasks", stories, {"subject": "S"}),
        "comment": ("/userstories/{}/comments", stories, {"text": "T"}),
    }
    path, parents, body = collections[kind]
    id = service.post(path.format(parents[0]), json=body).json()["id"]
    before = service.get(f"/history?sort=-id&project={here}").json()["items"][0]["operation_date"]
    object = {"obj_type": kind, "obj_id": id}
    ended = {"project": here, "object": object | {"action": "delete"}, "version": 1}
    began = {"project": there, "object": object | {"action": "create"}, "version": 2}
    with channel(service, project=here) as left, channel(service, project=there) as joined, channel(service) as every:
        with psycopg.connect(service.database, autocommit=True) as connection:
            connection.execute(MOVES[kind], {"id": id, "there": there, "parent": stories[1]})
        for ws, frames in ((left, [ended]), (joined, [began]), (every, [ended, began])):
            for frame in frames:
                assert ws.listen().items() >= frame.items()
            assert silent(ws)
    for place, parent, frame, was in ((here, parents[0], ended, True), (there, parents[1], began, False)):
        query = {"since": left.subscribed, "project": place}
        (missed,) = service.get("/changes", params=query).json()["items"]
        assert missed.items() >= frame.items()
        newest = service.get(f"/history?sort=-id&project={place}").json()["items"][0]
        assert {name: newest[name] for name in ("obj_type", "obj_id", "action", "version")} == (
            frame["object"] | {"version": frame["version"]}
        )
        (change,) = service.get(f"/projects/{place}/diff", params={"from": before}).json()["changes"]
        assert change.items() >= frame["object"].items()
        for query, expected in (({"as_of": before}, was), ({}, not was)):
            items = service.get(path.format(parent), params=query).json()["items"]
            assert (id in [item["id"] for item in items]) == expected


def test_one_may_listen_to_a_kind_or_an_object(service, project, story):
    other = service.post(f"/projects/{project['id']}/userstories", json={"subject": "Other"}).json()
    with (
        channel(service, obj_type="userstory", obj_id=story["id"]) as to_one,
        channel(service, obj_type="task", project=project["id"]) as to_kind,
    ):
        service.patch(f"/userstories/{other['id']}", json={"status": "ready", "version": 1})
        task = service.post(f"/userstories/{other['id']}/tasks", json={"subject": "Do"}).json()
        service.patch(f"/userstories/{story['id']}", json={"status": "ready", "version": 1})
        assert to_one.listen()["object"]["obj_id"] == story["id"]
        assert to_kind.listen()["object"]["obj_id"] == task["id"]
        assert silent(to_one) and silent(to_kind)


def test_who_follows_an_object_is_told_of_a_load_that_may_have_brought_it(service):
    """Live and missed: what comes back by an upload or a batch is in no frame of its own."""
    id = 1_900_000_000
    assert service.post("/departments", json={"id": id, "department": "Of a load"}).status_code == 201
    with channel(service, obj_type="department", obj_id=id) as ws:
        execute(service, "delete from departments where id = %s", id)
        assert ws.listen()["object"] == {"obj_type": "department", "obj_id": id, "action": "delete"}
        service.post("/upload/departments?header=no", data=f"{id},Again\n", headers={"Content-Type": "text/csv"})
        load = ws.listen()
        assert load["object"] == {"obj_type": "department", "obj_id": None, "action": "create"}
        assert silent(ws)
    query = {"obj_type": "department", "obj_id": id, "since": ws.subscribed}
    assert service.get("/changes", params=query).json()["items"][1] == load


def test_a_transaction_that_began_before_and_commits_after_others_is_not_lost(service, project, story):
    other = service.post(f"/projects/{project['id']}/userstories", json={"subject": "Other"}).json()
    with channel(service, project=project["id"]) as ws, psycopg.connect(service.database) as early:
        early.execute("update userstories set status = 'early' where id = %s", [story["id"]])
        service.patch(f"/userstories/{other['id']}", json={"status": "later", "version": 1})
        later = ws.listen()
        early.commit()
        earlier = ws.listen()
    assert later["diff"] == {"status": ["new", "later"]}
    assert earlier["diff"] == {"status": ["new", "early"]}
    assert earlier["id"] < later["id"]


# Resuming -------------------------------------------------------------------------------------------------------------


def test_what_was_missed_comes_once_and_then_what_is_new(service, project, story):
    path = f"/userstories/{story['id']}"
    with channel(service, project=project["id"]) as ws:
        service.patch(path, json={"status": "1", "version": 1})
        cursor = ws.listen()["cursor"]
    for version in (2, 3):
        service.patch(path, json={"status": str(version), "version": version})
    with channel(service, project=project["id"], since=cursor) as ws:
        service.patch(path, json={"status": "4", "version": 4})
        assert [ws.listen()["version"] for _ in range(3)] == [3, 4, 5]
        assert silent(ws)


def test_one_may_resume_between_two_changes_of_one_transaction(service, project, story):
    with channel(service, project=project["id"]) as ws:
        with psycopg.connect(service.database) as connection:
            for number in range(5):
                connection.execute("update userstories set status = %s where id = %s", [f"s{number}", story["id"]])
        frames = [ws.listen() for _ in range(5)]
    for place, frame in enumerate(frames):
        with channel(service, project=project["id"], since=frame["cursor"]) as ws:
            assert [ws.listen()["id"] for _ in frames[place + 1 :]] == [each["id"] for each in frames[place + 1 :]]
            assert silent(ws)


def test_where_history_was_dropped_nothing_is_resumed(database):
    with serve(database) as service:
        with channel(service) as ws:
            service.post("/users", json=person("ann"))
            cursor = ws.listen()["cursor"]
        service.post("/users", json=person("bob"))
        execute(service, "select history.prune(now() + interval '2 months')")
        with connect(f"{service.url.replace('http', 'ws')}/ws/events?since={cursor}") as ws:
            reset = json.loads(ws.recv(10))
            assert (reset["type"], reset["reason"]) == ("reset", "History no longer reaches back to the cursor.")
            with pytest.raises(ConnectionClosed):
                ws.recv(10)


def test_a_cursor_of_another_database_is_no_place_here(service, database):
    execute_there = psycopg.connect(database, autocommit=True)
    execute_there.execute("update history.horizon set feed = 'elsewher'")
    execute_there.close()
    with serve(database) as other, channel(other) as ws:
        foreign = ws.subscribed
    with connect(f"{service.url.replace('http', 'ws')}/ws/events?since={foreign}") as ws:
        assert json.loads(ws.recv(10)) == {"type": "reset", "reason": "The cursor is of another database."}


@pytest.mark.parametrize("query", ["since=nonsense", "since=YQ==", "project=x", "obj_type="])
def test_a_bad_subscription_is_refused_before_it_begins(service, query):
    with pytest.raises(InvalidStatus) as refusal, connect(f"{service.url.replace('http', 'ws')}/ws/events?{query}"):
        pass
    assert refusal.value.response.status_code == 422


# Who listens ----------------------------------------------------------------------------------------------------------


def test_a_page_of_another_origin_is_refused(service):
    url = f"{service.url.replace('http', 'ws')}/ws/events"
    with pytest.raises(InvalidStatus) as refusal, connect(url, origin="https://evil.example"):
        pass
    assert refusal.value.response.status_code == 403
    with connect(url, origin=service.url) as ws:
        assert json.loads(ws.recv(10))["type"] == "subscribed"


@pytest.mark.parametrize("message", ["nonsense", '{"cmd": "drop"}', "[1]", b"\x00", "[" * 1000])
def test_what_is_no_command_closes_the_socket(service, message):
    with channel(service) as ws:
        ws.send(message)
        with pytest.raises(ConnectionClosed):
            while True:
                ws.recv(10)
        assert ws.close_code == 1003


def test_a_message_that_is_too_big_closes_the_socket(service):
    with channel(service) as ws:
        ws.send("x" * 2000)
        with pytest.raises(ConnectionClosed):
            while True:
                ws.recv(10)
        assert ws.close_code == 1009


def test_broken_frames_end_the_socket_and_nothing_else(service):
    head = "GET /ws/events HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    head += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    unmasked, no_text, giant = b"\x81\x05hello", b"\x81\x82\x00\x00\x00\x00\xff\xfe", b"\x81\xff" + b"\xff" * 8
    for broken in (b"\xff\xff\xff\xff", unmasked, no_text, giant):
        with service.raw() as client:
            client.sendall(head.encode())
            assert b" 101 " in client.recv(1000)
            client.sendall(broken)
            while client.recv(1000):
                pass
    assert service.get("/ping").status_code == 200


@pytest.mark.thorough
def test_who_does_not_read_is_closed_and_holds_nobody_up(database):
    with serve(database, WORKERS="1") as service:
        made = service.post("/projects", json={"name": "Much"}).json()
        with channel(service) as slow, channel(service) as quick:
            text = "x" * 9000
            with psycopg.connect(database, autocommit=True) as connection, ThreadPoolExecutor() as pool:
                versions = pool.submit(lambda: [quick.listen()["version"] for _ in range(2500)])
                for number in range(2500):
                    connection.execute(
                        "update projects set description = %s where id = %s", [f"{number} {text}", made["id"]]
                    )
                assert versions.result() == [*range(2, 2502)]
            assert service.get("/ping").status_code == 200
            with pytest.raises(ConnectionClosed):
                while True:
                    slow.recv(20)


def test_sockets_are_told_when_the_service_stops(database):
    service = serve(database)
    with service as found, channel(found) as ws:
        service.process.send_signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosed):
            ws.recv(10)
        assert ws.close_code == 1001
        assert service.process.wait(10) == 0


# Exactly once ---------------------------------------------------------------------------------------------------------


class Subscriber(threading.Thread):
    """Listens, falls off at random, resumes behind the last frame it has seen."""

    def __init__(self, service, chance):
        super().__init__()
        self.service, self.chance = service, chance
        self.frames, self.falls, self.done, self.ready = [], 0, threading.Event(), threading.Event()

    def run(self):
        cursor = None
        while not self.done.is_set():
            with channel(self.service, **({"since": cursor} if cursor else {})) as ws:
                cursor = cursor or ws.subscribed
                self.ready.set()
                left = self.chance.randint(1, 60)
                while left and not self.done.is_set():
                    try:
                        frame = ws.listen(0.3)
                    except TimeoutError:
                        continue
                    self.frames.append(frame)
                    cursor = frame["cursor"]
                    left -= 1
            self.falls += 1


def write_at_random(database, chance, objects, times):
    """Transactions of one to five changes, some rolled back, some held open while others commit."""
    with psycopg.connect(database) as connection:
        for _ in times:
            for id in sorted(chance.sample(objects, chance.randint(1, 5))):
                connection.execute("update tasks set status = %s where id = %s", [f"s{chance.random()}", id])
            if chance.random() < 0.2:
                time.sleep(chance.random() * 0.2)  # any moment
            if chance.random() < 0.25:
                connection.rollback()
            else:
                connection.commit()


def exactly_once(service, times):
    """64 writers work, `times()` each, before three subscribers. Returns how many changes and falls there were."""
    chance = random.Random(7)
    project = service.post("/projects", json={"name": "Busy"}).json()
    story = service.post(f"/projects/{project['id']}/userstories", json={"subject": "Read"}).json()
    path = f"/userstories/{story['id']}/tasks"
    objects = [service.post(path, json={"subject": f"task {number}"}).json()["id"] for number in range(30)]
    subscribers = [Subscriber(service, random.Random(number)) for number in range(3)]
    for subscriber in subscribers:
        subscriber.start()
    try:
        assert all(subscriber.ready.wait(30) for subscriber in subscribers)
        with ThreadPoolExecutor(64) as pool:
            seeds = [random.Random(chance.random()) for _ in range(64)]
            [*pool.map(lambda chance: write_at_random(service.database, chance, objects, times()), seeds)]
        with psycopg.connect(service.database) as connection:
            committed = connection.execute(
                "select id, obj_id::bigint, version from history.entries"
                " where action = 'update' and obj_type = 'task' order by id"
            ).fetchall()
        wait_for(lambda: all(len(subscriber.frames) >= len(committed) for subscriber in subscribers), 30)
    finally:
        for subscriber in subscribers:
            subscriber.done.set()
            subscriber.join()
    for subscriber in subscribers:
        got = [(frame["id"], frame["object"]["obj_id"], frame["version"]) for frame in subscriber.frames]
        assert sorted(got) == committed
        for id in objects:
            versions = [version for _, obj_id, version in got if obj_id == id]
            assert versions == sorted(versions)
    return len(committed), sum(subscriber.falls for subscriber in subscribers)


@pytest.mark.parametrize("times", first(1, [4, 12]))
def test_each_subscriber_gets_each_committed_change_exactly_once_in_order(database, times):
    with serve(database) as service:
        changes, falls = exactly_once(service, lambda: range(times))
    assert changes > 500 * times / 12
    assert falls > 10 * times / 12


@pytest.mark.thorough
def test_a_database_that_is_killed_and_comes_back_loses_and_repeats_nothing(tmp_path):
    """PostgreSQL is killed with -9 between changes; its keeper starts it again, and the reader finds its place."""
    with (
        private_postgres.server(tmp_path / "data") as url,
        serve(url) as service,
        channel(service, obj_type="user") as ws,
    ):
        for number in range(2):
            made = wait_until_made(service, f"before{number}")
            assert ws.listen(20)["object"]["obj_id"] == made["id"]
            subprocess.run(["pkill", "-9", "-f", f"bin/postgres.*{tmp_path}"], check=False)
        made = wait_until_made(service, "after")
        assert ws.listen(20)["object"]["obj_id"] == made["id"]
        assert silent(ws)


@pytest.mark.thorough
def test_a_crash_hides_nothing_from_who_was_told_of_a_place_just_before(tmp_path):
    """Numbers of what was rolled back are given out again: what has them then is told, live and missed."""
    with private_postgres.server(tmp_path / "data") as url, serve(url) as service:
        project = service.post("/projects", json={"name": "One"}).json()["id"]
        with channel(service, project=project) as ws:
            for _ in range(30):
                assert service.post("/projects", json={"name": "Two", "slug": "one"}).status_code == 409
            cursor = service.get(f"/projects/{project}/milestones").headers["Feed-Cursor"]
            subprocess.run(["pkill", "-9", "-f", f"bin/postgres.*{tmp_path}"], check=False)
            made = []
            while len(made) < 60:
                answer = service.post(f"/projects/{project}/milestones", json={"name": f"m{len(made)}"})
                if answer.status_code == 201:
                    made.append(answer.json()["id"])
            frames = service.get("/changes", params={"project": project, "since": cursor}).json()["items"]
            assert [frame["object"]["obj_id"] for frame in frames] == made
            assert [ws.listen(20)["object"]["obj_id"] for _ in made] == made


def wait_until_made(service, name):
    answers = []

    def made():
        answers.append(service.post("/users", json=person(name)))
        return answers[-1].status_code == 201

    wait_for(made, 30)
    return answers[-1].json()
