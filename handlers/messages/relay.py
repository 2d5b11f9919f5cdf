"""The relay hands events on from the outbox to RabbitMQ: `flask relay`, or inside the notifier. Several may run."""

import json
import logging
import threading
import time
from collections.abc import Iterable

import psycopg

import db
from db.pool import SERVICE, connect
from handlers.messages import rabbitmq

log = logging.getLogger("rowhouse")

CLAIM, CLAIM_SECONDS = 200, 60
"""How many events are handed on at a time, and in how many seconds that must be done before another relay may try."""

KEPT_SECONDS = 600
"""Seconds after which an event that the broker has, but nobody processed, is handed on once more."""

POLL = 0.05
"""Seconds between two looks at an outbox that was empty."""

SAY_EVERY = 5.0
"""Seconds between two words on whether the broker is up."""

OPTIONS = f"{SERVICE} -c enable_seqscan=off"
"""Of connections that work on the outbox. Mostly empty, it would be planned for as such, and read as a whole."""

BACK_OFF = (0.2, 5.0)
"""Seconds before the first try to reach a broker that is away, and at most; twice as many each time."""


LOOK_EVERY, END_WITHIN = 0.2, 8.0
"""Seconds between two looks at whether all threads live, and in which they must have ended once they are told to."""


def run(threads: Iterable[threading.Thread], stop: threading.Event) -> None:
    """Let threads work until told to stop, or until one ends; whoever waits for a frozen peer then is left behind."""
    threads = [*threads]
    for thread in threads:
        thread.daemon = True
        thread.start()
    while not stop.wait(LOOK_EVERY) and all(thread.is_alive() for thread in threads):
        pass
    deadline = time.monotonic() + END_WITHIN
    for thread in threads if stop.is_set() else ():
        thread.join(max(0, deadline - time.monotonic()))


def relay(dsn: str, url: str, queue: str, stop: threading.Event) -> None:
    """Hand events on until told to stop, whatever becomes of the broker and the database."""
    wait = BACK_OFF[0]
    while not stop.is_set():
        try:
            with connect(dsn, OPTIONS, "relay") as connection:
                wait = session(connection, url, queue, stop, wait)
        except psycopg.Error as error:
            log.warning("The relay lost the database and tries again: %s", str(error).partition("\n")[0])
            stop.wait(BACK_OFF[1])


def session(connection: db.Connection, url: str, queue: str, stop: threading.Event, wait: float) -> float:
    """Hand events on over one connection to the broker; returns how long to wait should the next one fail, too."""
    try:
        with rabbitmq.publisher(url, queue) as publisher:
            wait = BACK_OFF[0]
            log.info("The relay hands events on to %s.", queue)
            hand_on(connection, publisher, stop)
    except rabbitmq.Lost as error:
        log.warning("The relay cannot reach the broker and tries again: %s", error or type(error).__name__)
        say(connection, queue, up=False)
        stop.wait(wait)
        return min(wait * 2, BACK_OFF[1])
    return BACK_OFF[0]


def hand_on(connection: db.Connection, publisher: rabbitmq.Publisher, stop: threading.Event) -> None:
    """Claim, publish, note that it was confirmed, again and again. Raises rabbitmq.Lost."""
    said = float("-inf")
    while not stop.is_set():
        rows = [*db.run(connection, "outbox.claim", limit=CLAIM, seconds=CLAIM_SECONDS)]
        if rows:
            ids, due = ",".join(row.event_id for row in rows), 0
            try:
                publisher.publish((row.event_id, message(row)) for row in rows)
                due = KEPT_SECONDS
            finally:
                db.run(connection, "outbox.postpone", ids=ids, seconds=due)
        if time.monotonic() - said > SAY_EVERY:
            say(connection, publisher.queue, up=True)
            db.run(connection, "outbox.reckon")
            said = time.monotonic()
        if len(rows) < CLAIM:
            publisher.idle(POLL)


def message(row: object) -> bytes:
    """An event as it goes through the queue."""
    members = {name: getattr(row, name) for name in ("event_id", "user_id", "description")}
    return json.dumps(members, ensure_ascii=False).encode()


def say(connection: db.Connection, queue: str, *, up: bool) -> None:
    db.run(connection, "outbox.say", name=queue, up=up)
