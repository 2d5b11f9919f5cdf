"""Notifications: events come in, and each is told once, in its user's order, whatever breaks in between."""

import http.server
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path

import pika
import psycopg
import pytest

import db
from db.pool import connect
from handlers.messages.delivery import Due, leave, send_lines
from handlers.messages.notifier import consume, drain
from handlers.messages.senders import Sender
from tests.conftest import ROOT, first, free_port, serve, wait_for

BROKER = os.environ.get("AMQP_URL") or "amqp://guest:guest@127.0.0.1:5672/"


def event(service, user_id="ann", description="Your parcel is here."):
    answer = service.post("/events", json={"user_id": user_id, "description": description})
    assert answer.status_code == 201, answer.text
    return answer.json()


def status(service, made):
    return service.get(f"/events/{made['event_id']}").json()["status"]


# Coming in ------------------------------------------------------------------------------------------------------------


def test_an_event_comes_in_as_the_contract_says(service):
    answer = service.post("/events", json={"user_id": "ann", "description": "Hello."})
    made = answer.json()
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"/events/{made['event_id']}"
    assert answer.headers["ETag"] == '"1"'
    assert {name: made[name] for name in ("user_id", "description", "status", "version")} == {
        "user_id": "ann",
        "description": "Hello.",
        "status": "NotProcessed",
        "version": 1,
    }
    assert service.get(answer.headers["Location"]).json() == made


def test_ids_count_up_with_time(service):
    ids = [event(service)["event_id"] for _ in range(50)]
    assert ids == sorted(ids)
    assert {id[14] for id in ids} == {"7"}


def test_events_are_found_by_user_and_status_and_walked_page_by_page(service, unique):
    user = unique("ann")
    made = [event(service, user) for _ in range(5)]
    path = f"/events/{made[0]['event_id']}"
    body = {"user_id": user, "description": "Done by hand.", "status": "Processed"}
    assert service.put(path, json=body, headers={"If-Match": '"1"'}).status_code == 200
    found = service.get(f"/events?user_id={user}&status=NotProcessed&sort=-id").json()["items"]
    assert [each["event_id"] for each in found] == [each["event_id"] for each in reversed(made[1:])]
    first = service.get(f"/events?user_id={user}&limit=2").json()
    second = service.get(f"/events?user_id={user}&limit=2&cursor={first['next']}").json()
    assert [each["event_id"] for each in second["items"]] == [each["event_id"] for each in made[2:4]]


def test_events_have_versions_merges_and_a_past_like_all_else(service):
    made = event(service)
    path = f"/events/{made['event_id']}"
    assert service.patch(path, json={"user_id": "bob", "version": 1}).json()["version"] == 2
    merged = service.patch(path, json={"description": "Two.", "version": 1}).json()
    assert (merged["user_id"], merged["description"], merged["version"]) == ("bob", "Two.", 3)
    assert service.patch(path, json={"user_id": "eve", "version": 1}).status_code == 409
    assert service.get(f"{path}?as_of=1").json() == made
    assert [entry["action"] for entry in service.get(f"{path}/history").json()["items"]] == ["create"] + ["update"] * 2
    assert service.get(f"/history?obj_type=event&obj_id={made['event_id']}").json()["items"][0]["version"] == 1
    assert service.post(f"{path}/revert", json={"version": 3, "to": 1}).json()["description"] == made["description"]
    assert service.delete(f"{path}?version=4").status_code == 204


def test_only_a_failed_event_is_queued_again(service):
    assert service.post(f"/events/{event(service)['event_id']}/requeue").status_code == 409


def test_whoever_inserts_an_event_has_queued_it(service, database):
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("insert into events (user_id, description) values ('ann', 'a'), ('ann', 'b'), ('bob', 'c')")
        assert connection.execute("select count(*) from outbox").fetchone() == (3,)
        connection.execute("update events set status = 'Processed' where description = 'a'")
        connection.execute("delete from events where description = 'b'")
        connection.execute("update events set user_id = 'eve' where description = 'c'")
        assert connection.execute("select user_id from outbox").fetchall() == [("eve",)]
        connection.execute("update events set status = 'NotProcessed'")
        assert connection.execute("select count(*) from outbox").fetchone() == (2,)


# Being told -----------------------------------------------------------------------------------------------------------


class Receiver:
    """A webhook that goes by the Idempotency-Key: `effects` has each event once, `tries` how often it came.

    What is for a user whose name begins with "hanging" is not answered before `end`.
    """

    def __init__(self, chance_to_fail=0.0):
        self.effects, self.tries, self.lock = [], Counter(), threading.Lock()
        self.chance_to_fail, self.end = chance_to_fail, threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                content = self.rfile.read(int(self.headers["Content-Length"]))
                if len(content) < int(self.headers["Content-Length"]):
                    return  # its sender was killed meanwhile
                body = json.loads(content)
                assert body["event_id"] == self.headers["Idempotency-Key"]
                if body["user_id"].startswith("hanging"):
                    outer.end.wait()
                fails = random.random() < outer.chance_to_fail
                if not fails:
                    outer.take(body)
                with suppress(OSError):
                    self.send_response(500 if fails else 204)
                    self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"

    def take(self, body):
        with self.lock:
            if not self.tries[body["event_id"]]:
                self.effects.append(body)
            self.tries[body["event_id"]] += 1

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.end.set()
        self.server.shutdown()
        self.server.server_close()


class Worker:
    """A `flask notifier` or `flask relay` of the test's own."""

    def __init__(self, service, command="notifier", **settings):
        self.command = [sys.executable, "-m", "flask", "--app", "app", command]
        self.environment = os.environ | {"DATABASE_URL": service.database} | settings
        self.start()

    def start(self):
        # A file, not a pipe: one that nobody reads would hold the notifier up after some 700 events.
        self.printed = tempfile.TemporaryFile("w+")  # noqa: SIM115  # read once it has ended
        self.process = subprocess.Popen(
            self.command, cwd=ROOT, env=self.environment, stdout=self.printed, stderr=subprocess.DEVNULL, text=True
        )

    def kill(self):
        self.process.kill()
        self.process.wait(15)
        self.printed.close()

    def stop(self):
        """Ends it as an operator would; returns what it printed."""
        self.process.terminate()
        self.process.wait(15)
        self.printed.seek(0)
        return self.printed.read()


@contextmanager
def working(*arguments, **settings):
    worker = Worker(*arguments, **settings)
    try:
        yield worker
    finally:
        worker.kill()


@pytest.fixture
def alone(database):
    """A service on a database of its own, without a notifier."""
    with serve(database) as service:
        yield service


def test_an_event_is_printed_and_processed(alone):
    made = event(alone, "ann", "Grüße.")
    with working(alone) as notifier:
        wait_for(lambda: status(alone, made) == "Processed")
        assert notifier.stop() == f"Event {made['event_id']} has been sent to ann: Grüße.\n"
        assert notifier.process.returncode == 0


def test_the_service_sends_by_itself_and_its_notifier_comes_back(database):
    with serve(database, NOTIFIER="") as service:
        made = event(service)
        wait_for(lambda: status(service, made) == "Processed")
        service_pid = next(pid for pid in notifiers(database))
        os.kill(service_pid, signal.SIGKILL)
        made = event(service)
        wait_for(lambda: status(service, made) == "Processed")
        metrics = service.get("/metrics").text
        assert "rowhouse_events_waiting" in metrics
        assert "rowhouse_events_sent_total 2.0" in metrics
    wait_for(lambda: not [*notifiers(database)], 5)


def notifiers(database):
    """The processes that send the events of a database."""
    import psutil

    for process in psutil.process_iter(["cmdline"]):
        with suppress(psutil.Error):
            if "notifier" in (process.info["cmdline"] or []) and process.environ().get("DATABASE_URL") == database:
                yield process.pid


def test_after_five_tries_an_event_has_failed_and_can_be_queued_again(alone):
    with Receiver(chance_to_fail=1) as receiver:
        first, second = event(alone, "ann", "one"), event(alone, "ann", "two")
        with working(alone, NOTIFY_URL=receiver.url, NOTIFY_DELAYS="0,0,0,0"):
            wait_for(lambda: status(alone, second) == "Failed")
            assert status(alone, first) == "Failed"
            failures = alone.get(f"/events/{first['event_id']}/failures").json()["items"]
            assert [failure["try"] for failure in failures] == [1, 2, 3, 4, 5]
            tries = alone.get(f"/events/{first['event_id']}/failures?fields=try").json()["items"]
            assert tries == [{"try": number} for number in range(1, 6)]
            assert {failure["reason"] for failure in failures} == {"HTTP Error 500: Internal Server Error"}
            receiver.chance_to_fail = 0
            again = alone.post(f"/events/{first['event_id']}/requeue")
            assert (again.status_code, again.json()["status"]) == (200, "NotProcessed")
            wait_for(lambda: status(alone, first) == "Processed")
        assert receiver.tries == {first["event_id"]: 1}


def test_a_line_waits_for_its_first_and_holds_no_other_up(alone):
    with Receiver() as receiver:
        receiver.chance_to_fail = 1
        first, second = event(alone, "ann", "one"), event(alone, "ann", "two")
        with working(alone, NOTIFY_URL=receiver.url, NOTIFY_DELAYS="1,1,1,1"):
            wait_for(lambda: alone.get(f"/events/{first['event_id']}/failures").json()["items"])
            receiver.chance_to_fail = 0
            other = event(alone, "bob", "three")
            wait_for(lambda: status(alone, second) == "Processed")
        assert [effect["event_id"] for effect in receiver.effects] == [
            made["event_id"] for made in (other, first, second)
        ]


def hanging_and_others(service, hanging, each, settings):
    """Seconds that 30 users wait for their event beside some whose webhook hangs, all queued at once."""
    with Receiver() as receiver, working(service, NOTIFY_URL=receiver.url, **settings):
        first = event(service)
        wait_for(lambda: status(service, first) == "Processed")  # it came up
        with connect(service.database) as connection:
            connection.execute(
                "insert into events (user_id, description)"
                " select 'hanging ' || h, 'x' from generate_series(1, $1::int) as h, generate_series(1, $2::int)"
                " union all select 'user ' || i, 'x' from generate_series(1, 30) as i",
                [hanging, each],
            )
            began = time.monotonic()
            left = "select 1 from events where status = 'NotProcessed' and user_id like 'user %' limit 1"
            wait_for(lambda: not connection.execute(left).fetchone())
            return time.monotonic() - began


@pytest.mark.parametrize(("hanging", "each"), first(1, [(3, 100), (3, 1), (1, 1)]))
def test_users_whose_webhook_hangs_hold_no_other_up(alone, hanging, each):
    assert hanging_and_others(alone, hanging, each, {}) < 5


@pytest.mark.thorough
@pytest.mark.parametrize(("hanging", "each"), first(1, [(3, 100), (1, 1)]))
def test_users_whose_webhook_hangs_hold_no_other_up_behind_a_broker_either(alone, queue, hanging, each):
    assert hanging_and_others(alone, hanging, each, queue.settings) < 5


def sending_in_turn(database, send, delays):
    """Let one sender send what waits, until nothing is NotProcessed; returns nothing."""
    stop = threading.Event()
    sender = Sender(send, at_once=1, threads=1)
    with connect(database) as looking, connect(database) as connection:
        draining = threading.Thread(target=drain, args=(connection, Due(), sender, delays, stop))
        draining.start()
        try:
            wait_for(lambda: not looking.execute("select 1 from outbox limit 1").fetchone())
        finally:
            stop.set()
            draining.join()


def test_a_line_that_failed_is_put_behind_the_others(database):
    came = []

    def send(events):
        came.extend(event.user_id for event in events)
        if events[0].user_id == "bad":
            raise OSError("no")

    with connect(database) as connection:
        connection.execute(
            "insert into events (user_id, description) select u, 'x' from unnest('{bad,bad,a,b,c,d,e,f}'::text[]) as u"
        )
    sending_in_turn(database, send, (0, 0))
    assert came[:7] == ["bad", "a", "b", "c", "d", "e", "f"]
    assert came[7:] == ["bad"] * 5


def test_a_long_line_lets_others_have_their_turn(database, monkeypatch):
    came = []
    monkeypatch.setattr("handlers.messages.delivery.TURN", 0.0001)
    with connect(database) as connection:
        connection.execute(
            "insert into events (user_id, description) select u, 'x' from unnest('{a,a,a,a,b,a,a,a}'::text[]) as u"
        )
    sending_in_turn(database, lambda events: came.extend(event.user_id for event in events), ())
    assert came[:2] == ["a", "b"]
    assert came.count("a") == 7


def test_what_comes_while_its_line_is_in_hand_is_sent_by_whoever_has_it(database):
    """Whoever finds the line locked leaves it, at the latest moment: when nothing more was seen in it."""
    with connect(database) as connection, connect(database) as another:
        assert [row.user_id for row in db.run(another, "outbox.lock", user_ids=["ann", "bob"])] == ["ann", "bob"]
        connection.execute("insert into events (user_id, description) values ('ann', 'x'), ('bob', 'x')")
        due = Due()
        users = due.take(connection, 10)
        sender = Sender(lambda events: pytest.fail("it is not its turn"), at_once=10, threads=1)
        assert send_lines(connection, users, sender, (), threading.Event()) == set()
        assert due.take(connection, 10) == []
        leave(another, ["ann", "bob"])
        assert sorted(due.take(connection, 10)) == ["ann", "bob"]


def test_what_was_claimed_and_not_sent_is_due_at_once_when_a_notifier_stops(database):
    stop = threading.Event()
    sender = Sender(lambda events: stop.set(), at_once=1, threads=1)
    with connect(database) as connection:
        connection.execute("insert into events (user_id, description) values ('a', 'x'), ('a', 'y'), ('b', 'x')")
        drain(connection, Due(), sender, (), stop)
        assert len([*db.run(connection, "outbox.claim", limit=10, seconds=60)]) == 2


def whatever_breaks(service, receiver, events, workers, break_something, chance, within=60.0):
    """Post events while workers are killed with -9 and more is broken; then each has one effect, in order."""
    users = [f"user {number}" for number in range(20)]
    made, done = {user: [] for user in users}, threading.Event()

    def kill():
        while not done.wait(0.3 + chance.random() / 2):
            worker = chance.choice(workers)
            worker.kill()
            worker.start()
            break_something()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        for number in range(events):
            user = users[number % len(users)]
            made[user].append(event(service, user, f"number {number}")["event_id"])
    finally:
        done.set()
        killer.join()
    wait_for(lambda: not service.get("/events?status=NotProcessed&limit=1").json()["items"], within)
    assert service.get("/events?status=Failed&limit=1").json()["items"] == []
    for user in users:
        assert [effect["event_id"] for effect in receiver.effects if effect["user_id"] == user] == made[user]
    return sum(receiver.tries.values()) - events


@pytest.mark.thorough
def test_without_a_broker_nothing_is_lost_or_out_of_order_whatever_is_killed(alone):
    with Receiver(chance_to_fail=0.05) as receiver:
        settings = {"NOTIFY_URL": receiver.url, "NOTIFY_DELAYS": "0,0,0,0,0,0,0,0,0"}
        with working(alone, **settings) as one, working(alone, **settings) as two:
            whatever_breaks(alone, receiver, 300, [one, two], lambda: None, random.Random(1))


def test_what_failed_before_the_relay_noted_it_is_due_as_the_failure_says(database):
    with connect(database) as connection:
        connection.execute("insert into events (user_id, description) values ('ann', 'a'), ('bob', 'b'), ('eve', 'c')")
        claimed = [row.event_id for row in db.run(connection, "outbox.claim", limit=10, seconds=60)]
        db.run(connection, "outbox.failed", event_id=claimed[0], seconds=0, most=5, reason="x")
        db.run(connection, "outbox.failed", event_id=claimed[1], seconds=30, most=5, reason="x")
        db.run(connection, "outbox.postpone", ids=",".join(claimed), seconds=600)
        due = "select extract(epoch from relay_at - now()) from outbox order by event_id"
        at_once, soon, late = (float(seconds) for (seconds,) in connection.execute(due))
    assert at_once <= 0 < soon <= 30 < 590 < late <= 600


def test_of_each_line_the_first_events_are_sent_at_once_unless_one_before_them_waits(database):
    with connect(database) as connection:
        connection.execute(
            "insert into events (user_id, description)"
            " values ('ann', 'a'), ('bob', 'b'), ('ann', 'c'), ('eve', 'd'), ('bob', 'e'), ('eve', 'f')"
        )
        ids = dict(connection.execute("select description, id::text from events"))

        def first(limit):
            rows = db.run(connection, "outbox.first", user_ids=["ann", "bob", "eve"], limit=limit)
            return "".join(row.description for row in rows)

        assert (first(10), first(3)) == ("abcdef", "abc")
        db.run(connection, "outbox.failed", event_id=ids["b"], seconds=30, most=5, reason="x")
        assert first(10) == "acdf"
        db.run(connection, "outbox.processed", ids=f"{ids['a']},{ids['d']}")
        assert first(10) == "cf"


def test_what_a_notifier_has_in_hand_is_not_postponed_and_holds_no_relay_up(database):
    with connect(database) as notifier, connect(database) as relay:
        notifier.execute("insert into events (user_id, description) values ('ann', 'a'), ('bob', 'b')")
        claimed = [row.event_id for row in db.run(relay, "outbox.claim", limit=10, seconds=60)]
        with notifier.transaction():
            db.run(notifier, "outbox.processed", ids=claimed[0])
            db.run(relay, "outbox.postpone", ids=",".join(claimed), seconds=600)
        due = "select event_id::text, relay_at > now() + interval '500 s' from outbox"
        assert relay.execute(due).fetchall() == [(claimed[1], True)]


def many(database):
    """Ten lines of ten events each, made at once; their ids by user."""
    made = {}
    with connect(database) as connection:
        rows = connection.execute(
            "insert into events (user_id, description) select 'user ' || i % 10, 'It happened.'"
            " from generate_series(1, 100) as i returning user_id, id::text"
        )
        for user, id in sorted(rows, key=lambda row: row[1]):
            made.setdefault(user, []).append(id)
    return made


def told(printed):
    """The ids that were printed, by user."""
    found = {}
    for line in printed.splitlines():
        _, id, rest = line.split(" ", 2)
        found.setdefault(rest.removeprefix("has been sent to ").partition(":")[0], []).append(id)
    return found


def processed_in(database):
    """How many events were processed, in how many transactions."""
    with connect(database) as connection:
        return connection.execute(
            "select count(*), count(distinct xid) from history.entries where obj_type = 'event' and action = 'update'"
        ).fetchone()


def test_many_events_are_printed_in_order_and_noted_at_once(alone):
    made = many(alone.database)
    with working(alone) as notifier:
        wait_for(lambda: processed_in(alone.database)[0] == 100)
        assert told(notifier.stop()) == made
    assert processed_in(alone.database)[1] <= 20


# Through RabbitMQ -----------------------------------------------------------------------------------------------------


class Proxy:
    """Stands between a client and the broker: `cut()` ends all connections, `shut` refuses new ones."""

    def __init__(self, target):
        self.target, self.port, self.shut, self.sockets = target, free_port(), False, set()
        self.server = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with suppress(OSError):
            while True:
                client, _ = self.server.accept()
                if self.shut:
                    client.close()
                    continue
                server = socket.create_connection(self.target)
                self.sockets |= {client, server}
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=self.pump, args=(one, other), daemon=True).start()

    def pump(self, source, sink):
        with suppress(OSError):
            while some := source.recv(65536):
                sink.sendall(some)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def cut(self):
        for each in [*self.sockets]:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self.sockets.clear()

    def close(self):
        self.server.close()
        self.cut()


class Queue:
    """A queue of the test's own on the real broker, reached through a proxy."""

    def __init__(self, name):
        self.name, self.parameters = name, pika.URLParameters(BROKER)
        self.proxy = Proxy((self.parameters.host, self.parameters.port))
        user = self.parameters.credentials
        self.url = f"amqp://{user.username}:{user.password}@127.0.0.1:{self.proxy.port}/"
        self.settings = {"AMQP_URL": self.url, "AMQP_QUEUE": name}

    @contextmanager
    def channel(self):
        connection = pika.BlockingConnection(self.parameters)
        try:
            channel = connection.channel()
            # A queue that is just being made may lose what nobody waits for.
            channel.confirm_delivery()
            yield channel
        finally:
            connection.close()

    def dead(self):
        """What was put aside: (body, reason)."""
        with self.channel() as channel:
            while True:
                method, properties, body = channel.basic_get(f"{self.name}.dead", auto_ack=True)
                if method is None:
                    return
                yield body, properties.headers["reason"]


@pytest.fixture
def queue(unique):
    try:
        pika.BlockingConnection(pika.URLParameters(BROKER)).close()
    except (pika.exceptions.AMQPError, OSError) as error:
        pytest.skip(f"no RabbitMQ at {BROKER.split('@')[-1]}: {type(error).__name__}")
    queue = Queue(unique("rowhouse.test"))
    yield queue
    queue.proxy.close()
    with queue.channel() as channel:
        channel.queue_delete(queue.name)
        channel.queue_delete(f"{queue.name}.dead")
        channel.exchange_delete(f"{queue.name}.dead")


def test_an_event_goes_through_the_broker(alone, queue):
    with working(alone, "relay", **queue.settings):
        made = event(alone)
        wait_for(lambda: declared(queue))
        with queue.channel() as channel:
            found = []
            wait_for(lambda: found.append(channel.basic_get(queue.name)) or found[-1][0])
            method, properties, body = found[-1]
            assert json.loads(body) == {name: made[name] for name in ("event_id", "user_id", "description")}
            assert (properties.delivery_mode, properties.message_id) == (2, made["event_id"])
            channel.basic_nack(method.delivery_tag)
        assert status(alone, made) == "NotProcessed"
        with working(alone, **queue.settings):
            wait_for(lambda: status(alone, made) == "Processed")


@pytest.mark.thorough
def test_many_events_go_through_the_broker_and_are_noted_at_once(alone, queue):
    with working(alone, **queue.settings) as notifier:
        wait_for(lambda: declared(queue))
        made = many(alone.database)
        wait_for(lambda: processed_in(alone.database)[0] == 100)
        assert told(notifier.stop()) == made
    assert processed_in(alone.database)[1] <= 20


def test_what_a_notifier_that_is_stopped_did_not_send_stays_in_the_queue(alone, queue):
    stop, sends, sent = threading.Event(), threading.Event(), []

    def send(events):
        sends.set()
        stop.wait(60)
        sent.extend(event.user_id for event in events)

    sender = Sender(send, at_once=1, threads=1)
    with working(alone, "relay", **queue.settings), connect(alone.database) as connection:
        event(alone, "ann")
        notifier = threading.Thread(target=consume, args=(connection, queue.url, queue.name, sender, (), stop))
        notifier.start()
        try:
            wait_for(sends.is_set)
            unsent = {event(alone, user)["event_id"] for user in ("ann", "bob")}
        finally:
            stop.set()
            notifier.join(60)
        with queue.channel() as channel:
            found = []

            def stays():
                _, properties, _ = channel.basic_get(queue.name)
                found.extend([properties.message_id] if properties else [])
                return unsent <= {*found}

            wait_for(stays)
    assert sent == ["ann"]


def test_a_queue_that_vanished_is_made_again_and_no_event_is_lost(alone, queue):
    with working(alone, "relay", **queue.settings):
        wait_for(lambda: declared(queue))
        with queue.channel() as channel:
            channel.queue_delete(queue.name)
        made = event(alone)
        wait_for(lambda: declared(queue))
        with working(alone, **queue.settings):
            wait_for(lambda: status(alone, made) == "Processed")


def test_what_is_no_event_is_put_aside_with_the_reason_and_the_queue_goes_on(alone, queue):
    with working(alone, **queue.settings):
        absent = "00000000-0000-7000-8000-000000000000"
        bad = {
            b"\xff\x00": "It is no JSON object with an event_id and a user_id.",
            b"[1, 2]": "It is no JSON object with an event_id and a user_id.",
            b'{"event_id": 7}': "It is no JSON object with an event_id and a user_id.",
            json.dumps({"event_id": absent, "user_id": "nobody"}).encode(): f"There is no event {absent}.",
            json.dumps({"event_id": absent, "user_id": "\ud800"}).encode(): (
                "It is no JSON object with an event_id and a user_id."
            ),
            b"[" * 10_000: "It is no JSON object with an event_id and a user_id.",
            b"x" * 2**20: "It is larger than 65536 bytes.",
        }
        with queue.channel() as channel:
            wait_for(lambda: declared(queue))
            for body in bad:
                channel.basic_publish("", queue.name, body)
        found = {}
        wait_for(lambda: found.update(queue.dead()) or len(found) == len(bad))
        assert found == bad
        made = event(alone)
        wait_for(lambda: status(alone, made) == "Processed")


def declared(queue):
    with suppress(pika.exceptions.AMQPError), queue.channel() as channel:
        channel.queue_declare(queue.name, passive=True)
        return True
    return False


def test_a_message_that_comes_ten_times_has_one_effect(alone, queue):
    with Receiver() as receiver, working(alone, **queue.settings, NOTIFY_URL=receiver.url):
        made = event(alone)
        wait_for(lambda: declared(queue))
        with queue.channel() as channel:
            for _ in range(10):
                channel.basic_publish("", queue.name, json.dumps(made).encode())
        wait_for(lambda: status(alone, made) == "Processed")
        last = event(alone)
        wait_for(lambda: status(alone, last) == "Processed")
        assert receiver.tries == {made["event_id"]: 1, last["event_id"]: 1}


def test_a_broker_that_is_away_is_reported_and_refuses_no_event(database, queue):
    queue.proxy.shut = True
    with serve(database, **queue.settings) as service, working(service, **queue.settings):
        made = event(service)
        degraded = {"status": "degraded", "reasons": ["broker"]}
        assert service.get("/health/ready").status_code == 200
        assert service.get("/health/ready").json() == degraded
        queue.proxy.shut = False
        wait_for(lambda: status(service, made) == "Processed")
        wait_for(lambda: service.get("/health/ready").json() == {"status": "ready"})
        queue.proxy.shut = True
        queue.proxy.cut()
        wait_for(lambda: service.get("/health/ready").json() == degraded)


def test_a_broker_that_stands_still_blocks_no_request(database, queue):
    with socket.create_server(("127.0.0.1", 0)) as mute:  # takes connections and never says a word
        url = f"amqp://guest:guest@127.0.0.1:{mute.getsockname()[1]}/"
        with serve(database, AMQP_URL=url) as service, working(service, AMQP_URL=url):
            began = time.monotonic()
            for _ in range(20):
                event(service)
            assert service.get("/health/ready").json()["status"] == "degraded"
            assert time.monotonic() - began < 5


def test_with_a_broker_nothing_is_lost_or_out_of_order_whatever_is_killed(alone, queue):
    with Receiver(chance_to_fail=0.05) as receiver:
        settings = {**queue.settings, "NOTIFY_URL": receiver.url, "NOTIFY_DELAYS": "0,0,0,0,0,0,0,0,0"}
        with (
            working(alone, **settings) as one,
            working(alone, **settings) as two,
            working(alone, "relay", **settings) as relay,
        ):
            whatever_breaks(alone, receiver, 300, [one, two, relay], queue.proxy.cut, random.Random(2))


# Told to stop ---------------------------------------------------------------------------------------------------------


def signalled(process, chance, seconds):
    """Send SIGTERM and SIGINT in quick succession, so many seconds after its start; fails unless it ends in time."""
    time.sleep(seconds)  # any moment
    for _ in range(200):
        with suppress(ProcessLookupError):
            process.send_signal(chance.choice([signal.SIGTERM, signal.SIGINT]))
        if process.poll() is not None:
            break
        time.sleep(chance.random() / 1000)  # any moment
    process.wait(12)


COMMANDS = {
    "notifier": [],
    "relay": [],
    "migrate": [],
    "seed": ["--users", "100000"],
    "backup": ["all"],
    "upload": ["departments", "/dev/stdin"],
    "token": ["list"],
}


@pytest.mark.parametrize(
    ("command", "times"),
    [("notifier", 2), *[pytest.param(name, 10, marks=pytest.mark.thorough) for name in COMMANDS]],
)
def test_however_often_it_is_signalled_it_ends(database, tmp_path, command, times):
    chance = random.Random(times)
    settings = {"DATABASE_URL": database, "BACKUP_DIR": str(tmp_path), "AMQP_QUEUE": "rowhouse.test.signals"}
    settings |= {"AMQP_URL": BROKER} if command == "relay" else {}
    for number in range(times):
        process = subprocess.Popen(
            [sys.executable, "-m", "flask", "--app", "app", command, *COMMANDS[command]],
            cwd=ROOT,
            env=os.environ | settings,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with process:
            signalled(process, chance, (number + chance.random()) * 2 / times)


@pytest.mark.thorough
def test_a_frozen_webhook_holds_no_end_up(alone):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        event(alone)
        with working(alone, NOTIFY_URL=f"http://127.0.0.1:{mute.getsockname()[1]}/") as notifier:
            mute.settimeout(20)
            mute.accept()
            began = time.monotonic()
            notifier.process.send_signal(signal.SIGTERM)
            notifier.process.wait(12)
            assert time.monotonic() - began < 10


# Where its lines go ---------------------------------------------------------------------------------------------------


def printing(service, stdout, **settings):
    return subprocess.Popen(
        [sys.executable, "-m", "flask", "--app", "app", "notifier"],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": service.database} | settings,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.thorough
def test_an_event_that_nobody_can_read_is_not_sent_and_waits(alone):
    made = event(alone)
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone, Path("/dev/full").open("w") as full:
        for stdout, reason in ((gone, "nobody reads it"), (full, "No space left on device")):
            with printing(alone, stdout) as notifier:
                notifier.wait(20)
                assert notifier.returncode == 1
                assert notifier.stderr.read() == f"Standard output cannot be written: {reason}.\n"
    with printing(alone, subprocess.PIPE) as notifier:
        assert made["event_id"] in notifier.stdout.readline()
        notifier.stdout.close()
        event(alone)
        notifier.wait(20)
        assert notifier.stderr.read() == "Standard output cannot be written: Broken pipe.\n"
    assert alone.get(f"/events/{made['event_id']}/failures").json()["items"] == []
    with working(alone):
        wait_for(lambda: not alone.get("/events?status=NotProcessed").json()["items"])


@pytest.mark.thorough
def test_lines_wait_for_their_reader_and_the_notifier_ends_whoever_reads(alone):
    with connect(alone.database) as connection:
        connection.execute(
            "insert into events (user_id, description) select 'user ' || i % 10, repeat('x', 500)"
            " from generate_series(1, 400) as i"
        )
    with printing(alone, subprocess.PIPE) as notifier:
        notifier.stdout.read(1)  # it began; the pipe holds a part of it
        made = event(alone)
        assert status(alone, made) == "NotProcessed"
        notifier.terminate()
        assert notifier.wait(12) == 0
