"""Changes by plain HTTP: what the channel sends, as server-sent events, as lines and some at a time."""

import json
import random
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import islice, takewhile

import psutil
import psycopg
import pytest
import requests

from tests.browser import CHROMIUM, tab
from tests.conftest import first, make_token, serve, wait_for
from tests.test_feed import channel, execute

EVENTS, LINES, SOME = "text/event-stream", "application/x-ndjson", "application/json"
MEDIA = [EVENTS, LINES, SOME]


def told(service, media, token=None, wait=10, **query):
    """Frames as they come, `subscribed` among them; None for each sign that a stream is there."""
    headers = {"Accept": media} | ({"Authorization": f"Bearer {token}"} if token else {})
    ask = requests.get
    if media == SOME:
        while True:
            answer = ask(f"{service.url}/changes", params=query | {"wait": wait}, headers=headers, timeout=90)
            assert answer.status_code == 200, answer.text
            yield {"type": "subscribed", "cursor": answer.json()["cursor"]}
            yield from answer.json()["items"]
            query["since"] = answer.json()["cursor"]
    with ask(f"{service.url}/changes", params=query, headers=headers, stream=True, timeout=90) as answer:
        assert (answer.status_code, answer.headers["Content-Type"].partition(";")[0]) == (200, media), answer.text
        for line in answer.iter_lines(chunk_size=1):
            if media == LINES:
                yield json.loads(line) if line else None
            elif line.startswith(b"id: "):
                cursor = line[4:].decode()
            elif line.startswith(b"data: "):
                frame = json.loads(line[6:])
                assert frame["cursor"] == cursor
                yield frame
            elif line:
                yield None if line == b":" else {"retry": line}


def changes(frames):
    return (frame for frame in frames if frame and "id" in frame)


def here(service):
    """A cursor of now."""
    return service.get("/changes").json()["cursor"]


def saved(service, story, number):
    path = f"/userstories/{story['id']}"
    for _ in range(number):
        version = service.get(path).json()["version"]
        body = {"status": f"s{version}", "version": version}
        assert service.patch(path, json=body).status_code == 200


# What comes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("media", MEDIA)
def test_what_comes_is_what_the_channel_sends(service, project, story, media):
    since = here(service)
    with channel(service, project=project["id"], since=since) as ws:
        saved(service, story, 3)
        sent = [ws.listen() for _ in range(3)]
    with closing(told(service, media, project=project["id"], since=since)) as frames:
        missed = changes(frames)
        assert [next(missed)["id"] for _ in range(3)] == [frame["id"] for frame in sent]
        saved(service, story, 1)
        live = next(missed)
    entry = service.get(f"/userstories/{story['id']}/history?sort=-id").json()["items"][0]
    assert (live["id"], live["diff"], live["version"]) == (entry["id"], entry["diff"], entry["version"])
    assert {*live} == {*sent[0]}


@pytest.mark.parametrize("media", [EVENTS, LINES])
def test_a_stream_says_where_it_begins(service, project, story, media):
    with closing(told(service, media, project=project["id"])) as frames:
        first = [next(frames) for _ in range(2 if media == EVENTS else 1)]
        assert first[-1]["type"] == "subscribed" and (media == LINES or first[0] == {"retry": b"retry: 1000"})
        saved(service, story, 1)
        one = next(frames)
    with closing(told(service, media, project=project["id"], since=first[-1]["cursor"])) as frames:
        assert next(changes(frames))["id"] == one["id"]


@pytest.mark.parametrize("media", MEDIA)
@pytest.mark.parametrize("by", ["project", "obj_type", "obj_id"])
def test_only_what_is_asked_for_comes(service, project, story, unique, media, by):
    since = here(service)
    service.post("/departments", json={"id": 10**9 + int(story["id"]), "department": unique("d")})
    saved(service, story, 1)
    asked = {"project": project["id"], "obj_type": "userstory", "obj_id": story["id"]}
    query = {by: asked[by]} | ({"obj_type": "userstory"} if by == "obj_id" else {})
    with closing(told(service, media, since=since, **query)) as frames:
        frame = next(changes(frames))
    assert frame["object"] == {"obj_type": "userstory", "obj_id": story["id"], "action": "update"}


@pytest.mark.parametrize("media", MEDIA)
def test_nothing_is_lost_or_told_twice_however_often_a_client_falls_off(service, project, media):
    """Transactions of several changes, some rolled back, some held open."""
    chance, since = random.Random(7), here(service)

    def write(_):
        with psycopg.connect(service.database) as connection:
            for number in range(12):
                for _ in range(chance.randint(1, 4)):
                    statement = "insert into milestones (project_id, name) values (%s, 'm')"
                    connection.execute(statement, [project["id"]])
                time.sleep(chance.random() / 20)  # any moment
                connection.rollback() if number % 4 == 0 else connection.commit()

    with ThreadPoolExecutor(4) as pool:
        writers = pool.map(write, range(4))
        seen = []
        done = threading.Event()
        threading.Thread(target=lambda: ([*writers], done.set()), daemon=True).start()

        def all_of_them():
            entries = "select id from history.entries where project = %s and obj_type = 'milestone' order by id"
            with psycopg.connect(service.database) as connection:
                return [id for (id,) in connection.execute(entries, [project["id"]])]

        while not done.is_set() or len(seen) < len(all_of_them()):
            frames = told(service, media, wait=1, project=project["id"], obj_type="milestone", since=since)
            with closing(frames):
                # Quiet is when all has come before its writers are known to be done.
                for frame in takewhile(bool, islice(frames, chance.randint(3, 17))):
                    if "id" in frame:
                        seen.append(frame["id"])
                        since = frame["cursor"]
                    if done.is_set() and len(seen) >= len(all_of_them()):
                        break
    assert sorted(seen) == all_of_them()


def test_some_are_no_more_than_a_page_and_go_on_from_there(service, project):
    since = here(service)
    many = "insert into milestones (project_id, name) select %s, 'm' from generate_series(1, 2500)"
    execute(service, many, project["id"])
    found = []
    while items := (answer := service.get("/changes", params={"since": since}).json())["items"]:
        found.append([item["id"] for item in items])
        since = answer["cursor"]
    assert [*map(len, found)] == [1000, 1000, 500]
    assert len({id for ids in found for id in ids}) == 2500


def test_one_waits_as_long_as_one_says(service, project, story):
    began = time.monotonic()
    answer = service.get("/changes", params={"wait": 2, "project": project["id"]})
    assert (answer.json()["items"], 2 <= time.monotonic() - began < 20) == ([], True)
    with ThreadPoolExecutor() as pool:
        query = {"wait": 60, "project": project["id"], "since": answer.json()["cursor"]}
        waiting = pool.submit(service.get, "/changes", params=query)
        time.sleep(1)  # nothing may happen
        saved(service, story, 1)
        (item,) = waiting.result(30).json()["items"]
    assert item["object"]["obj_id"] == story["id"]


@pytest.mark.thorough
@pytest.mark.parametrize("media", [EVENTS, LINES])
def test_a_quiet_stream_says_that_it_is_there(service, media):
    with closing(told(service, media, obj_type="nothing of this kind")) as frames:
        assert [*islice(frames, 4)][-2:] == [None, None]


@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium here: apt install chromium")
def test_a_browser_follows_and_connects_again(database):
    running = serve(database)
    with running as service, tab() as browser:
        made = service.post("/projects", json={"name": "followed"}).json()
        browser.open(service.url)
        browser.evaluate(
            "window.seen = []; window.source = new EventSource('/changes');"
            " source.onmessage = message => seen.push(JSON.parse(message.data))"
        )
        wait_for(lambda: browser.evaluate("seen.length") == 1)
        path = f"/projects/{made['id']}"
        service.patch(path, json={"name": "one", "version": 1})
        wait_for(lambda: browser.evaluate("seen.length") == 2)
        # It is cut off, while somebody writes.
        for pid in psutil.Process(running.process.pid).children():
            pid.kill()
        execute(service, "update projects set name = 'two'")
        wait_for(lambda: browser.evaluate("seen.filter(frame => frame.id).map(frame => frame.version).join()") == "2,3")


# Who may, and how it ends ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("media", MEDIA)
def test_what_cannot_be_resumed_is_read_anew(service, media):
    foreign = "bm8gZmVlZHw5Ojk6fHww"
    with closing(told(service, media, since=foreign)) as frames:
        reset = next(frame for frame in frames if frame and frame["type"] != "subscribed")
        assert (reset["type"], reset["reason"]) == ("reset", "The cursor is of another database.")
        if media != SOME:
            assert [*frames] == []
    assert service.get("/changes", params={"since": reset["cursor"]}).json()["items"] == []


def test_where_to_go_on_is_what_a_browser_saw_last(service, project, story):
    since = here(service)
    saved(service, story, 2)
    first, second = service.get("/changes", params={"since": since, "project": project["id"]}).json()["items"]
    for given in ({"since": since}, {}):
        answer = service.get(
            "/changes", params=given | {"project": project["id"]}, headers={"Last-Event-ID": first["cursor"]}
        )
        assert [item["id"] for item in answer.json()["items"]] == [second["id"]]
    refused = service.get("/changes", headers={"Last-Event-ID": "x"})
    assert (refused.status_code, [*refused.json()["errors"]]) == (422, ["Last-Event-ID"])
    for query, status in (("since=x", 422), ("wait=61", 422), ("wait=-1", 422), ("limit=1", 400)):
        assert service.get(f"/changes?{query}").status_code == status
    assert service.get("/changes", headers={"Accept": "text/csv"}).status_code == 406
    assert service.request("HEAD", "/changes", headers={"Accept": EVENTS}).status_code == 200


@pytest.mark.parametrize("media", first(1, MEDIA))
def test_a_token_hears_of_its_project_as_long_as_it_is_good(database, media):
    with psycopg.connect(database, autocommit=True) as connection:
        add = "insert into projects (name) values (%s) returning id"
        own, other = (connection.execute(add, [name]).fetchone()[0] for name in ("own", "other"))
        held = make_token(connection, name="held", role="reader", project=own)
    with serve(database, SOCKETS_PER_TOKEN="2") as service:
        assert requests.get(f"{service.url}/changes", timeout=10).status_code == 401
        headers = {"Authorization": f"Bearer {held}"}
        since = service.get("/changes", headers=headers).json()["cursor"]
        execute(service, "update projects set name = name || '!'")
        open_ones = [told(service, media, held, since=since, wait=60) for _ in range(2)]
        for frames in open_ones:
            assert next(changes(frames))["project"] == own
        with ThreadPoolExecutor() as pool:
            rests = [pool.submit(lambda frames=frames: [*frames]) for frames in open_ones]
            try:
                # Whoever asks while these are not both waiting would take the place of one.
                wait_for(lambda: "rowhouse_sockets 2.0" in service.get("/metrics").text)
                assert service.get("/changes", headers=headers).status_code == 429
                execute(service, "update projects set name = name || '?' where id = %s", other)
            finally:
                execute(service, "delete from tokens where name = 'held'")
            for rest in rests:
                if media == SOME:  # asks again
                    with pytest.raises(AssertionError, match="401"):
                        rest.result(60)
                else:
                    assert not [*changes(rest.result(60))]


@pytest.mark.parametrize("media", first(1, MEDIA))
def test_the_service_stops_whoever_listens(database, media):
    began = None
    with ThreadPoolExecutor() as pool:
        with serve(database) as service:
            headers = {"Accept": media}
            ask = {"params": {"wait": 60}, "headers": headers, "timeout": 90}
            waiting = [pool.submit(lambda: requests.get(f"{service.url}/changes", **ask).content) for _ in range(3)]
            wait_for(lambda: "rowhouse_sockets 3.0" in service.get("/metrics").text)
            began = time.monotonic()
        assert time.monotonic() - began < 30
        for answer in waiting:
            assert b'"cursor":"' in answer.result(30)


@pytest.mark.parametrize("half", first(1, [False, True]))
@pytest.mark.parametrize("media", first(1, MEDIA))
def test_who_has_left_gives_its_place_back_at_once_though_nothing_changes(database, media, half):
    """Only closed, or for writing: who says that nothing more comes is gone here as in long work."""
    with psycopg.connect(database, autocommit=True) as connection:
        token = make_token(connection, role="reader")
    with serve(database, SOCKETS_PER_TOKEN="20") as service, ExitStack() as clients:
        headers = f"Host: localhost\r\nAuthorization: Bearer {token}\r\nAccept: {media}"
        open_ones = [clients.enter_context(closing(service.raw())) for _ in range(20)]
        for client in open_ones:
            client.sendall(f"GET /changes?wait=60 HTTP/1.1\r\n{headers}\r\n\r\n".encode())
        wait_for(lambda: "rowhouse_sockets 20.0" in service.get("/metrics").text)
        with service.get("/changes", headers={"Authorization": f"Bearer {token}"}) as refused:
            assert refused.status_code == 429
        for client in open_ones[1:]:
            client.shutdown(socket.SHUT_WR) if half else client.close()
        # Who is there still keeps its place.
        wait_for(lambda: "rowhouse_sockets 1.0" in service.get("/metrics").text, within=2)
        assert service.get("/changes", headers={"Authorization": f"Bearer {token}"}).status_code == 200
