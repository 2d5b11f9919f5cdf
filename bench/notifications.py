"""Events from POST to Processed: beside FastAPI publishing per request, beside POST /users, and while all is killed.

make bench-notifications, with RabbitMQ on 127.0.0.1:5672: `--chaos` stops and starts the broker itself (rabbitmqctl)
"""

import os
import random
import re
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from statistics import median

import pika
import psycopg

from bench.servers import PEERS, ROOT, database, fastapi, free_port, rowhouse
from tests.conftest import serve
from tests.test_events import BROKER, Receiver, Worker, whatever_breaks, working

ROUNDS, SECONDS, CLIENTS = 3, 5, 16
QUEUE = "rowhouse.bench"

LUA = {
    "/events": 'local n = 0 request = function() n = n + 1 return wrk.format("POST", "/events", nil, string.format('
    '[[{"user_id": "user %d", "description": "Something happened."}]], n % 1000)) end',
    "/users": 'local n = 0 request = function() n = n + 1 return wrk.format("POST", "/users", nil, string.format('
    '[[{"email": "SALT%d@example.com", "name": "Ann", "address": "1 Row", "image": "http://example.com/a"}]], n)) end',
}


def post(port: int, path: str) -> float:
    """201s a second."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        salt = f"u{time.time_ns()}x"
        script.write(f'wrk.headers["Content-Type"] = "application/json" {LUA[path].replace("SALT", salt)}')
        script.flush()
        command = ["wrk", "-t1", f"-c{CLIENTS}", f"-d{SECONDS}", "-s", script.name, f"http://127.0.0.1:{port}"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in said, said
    return float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1])


COUNT = {
    "Rowhouse": "select count(*) filter (where status = 'Processed'), count(*) from events",
    "FastAPI + pika": "select count(*) filter (where status = 'Processed'), count(*) from peer_events",
}


def processed(url: str, name: str, port: int) -> float:
    """Events a second, from the first POST until the last one is Processed."""
    with psycopg.connect(url, autocommit=True) as connection:
        before = connection.execute(COUNT[name]).fetchone()[1]
        began = time.monotonic()
        post(port, "/events")
        while (row := connection.execute(COUNT[name]).fetchone())[0] < row[1]:
            assert time.monotonic() - began < 300, "they are not processed"
            time.sleep(0.02)
        return (row[1] - before) / (time.monotonic() - began)


@contextmanager
def command(*words: str, **settings: str):
    process = subprocess.Popen(words, cwd=ROOT, env=os.environ | settings, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(15)


def side_by_side(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "create table peer_events (id bigint generated always as identity primary key, user_id text not null,"
            " description text not null, status text not null default 'NotProcessed')"
        )
    ours, theirs = free_port(), free_port()
    settings = {"DATABASE_URL": url, "AMQP_URL": BROKER, "AMQP_QUEUE": QUEUE}
    os.environ["NOTIFIER"] = "no"
    with (
        rowhouse(url, ours),
        fastapi("notifications", url, theirs),
        command(sys.executable, "-m", "flask", "--app", "app", "notifier", **settings),
        command(str(PEERS / "python"), "-m", "bench.peers.notifications", DATABASE_URL=url),
    ):
        sides = dict(zip(COUNT, (ours, theirs), strict=True))
        for name, port in sides.items():
            processed(url, name, port)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "vacuum analyze"
            )  # as autovacuum does within a minute; the tables were empty when seeded
        rounds = [[processed(url, name, port) for name, port in sides.items()] for _ in range(ROUNDS)]
    print(f"{CLIENTS} clients, {ROUNDS} rounds of {SECONDS} s each, one process each and one notifier\n")
    print("| | events/s, from the first POST to the last Processed |\n| --- | --- |")
    for name, rates in zip(COUNT, zip(*rounds, strict=True), strict=True):
        print(f"| {name} | {median(rates):.0f} ({min(rates):.0f} to {max(rates):.0f}) |")
    print(f"\nRatio: {median(one / other for one, other in rounds):.1f} (median of rounds).")


def cost(url: str) -> None:
    port = free_port()
    with rowhouse(url, port):
        rounds = [(post(port, "/events"), post(port, "/users")) for _ in range(ROUNDS)]
    ratio = median(users / events for events, users in rounds)
    rates = [f"{median(rates):.0f}" for rates in zip(*rounds, strict=True)]
    print(f"POST /events {rates[0]}/s, POST /users {rates[1]}/s: an event costs {ratio:.2f} of a user.")


def chaos(url: str, events: int = 10_000) -> None:
    """Kill relay and notifiers with -9 at random, and stop and start the broker's application now and then."""
    chance = random.Random(3)
    settings = {"AMQP_URL": BROKER, "AMQP_QUEUE": QUEUE, "NOTIFY_DELAYS": "0,0,0,0,0,0,0,0,0"}
    kills = []

    def break_something() -> None:
        kills.append("-9")
        if chance.random() < 0.1:
            kills.append("broker")
            for word in ("stop_app", "start_app"):
                subprocess.run(["rabbitmqctl", word], check=True, capture_output=True)

    with serve(url) as service, Receiver(chance_to_fail=0.02) as receiver:
        settings["NOTIFY_URL"] = receiver.url
        with (
            working(service, **settings) as one,
            working(service, **settings) as two,
            working(service, "relay", **settings) as three,
        ):
            workers: list[Worker] = [one, two, three]
            again = whatever_breaks(service, receiver, events, workers, break_something, chance, within=300)
    print(f"{events} events, {kills.count('-9')} kills with -9, {kills.count('broker')} stops of the broker:", end=" ")
    print(f"each has one effect, in its user's order; {again} came a second time.")


if __name__ == "__main__":
    with database(users=1000, projects=0, userstories=0) as address:
        if "--chaos" in sys.argv:
            chaos(address)
        else:
            side_by_side(address)
            cost(address)
    with pika.BlockingConnection(pika.URLParameters(BROKER)) as connection:
        for queue in (QUEUE, f"{QUEUE}.dead", "rowhouse.peer"):
            connection.channel().queue_delete(queue)
        connection.channel().exchange_delete(f"{QUEUE}.dead")
