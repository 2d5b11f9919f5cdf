"""The notifier: sends each event, and the event becomes Processed. `flask notifier`; several may run side by side.

An event that was sent, but could not be marked before the process was killed, is sent again: whoever takes it tells it
by its event_id. Events of one user are sent one after the other, in their order.
"""

import json
import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from uuid import UUID

import psycopg

import db
from db import partitions
from db.pool import SERVICE, connect
from handlers.http.metrics import Counter
from handlers.messages import rabbitmq
from handlers.messages.delivery import Delays, Due, send_lines
from handlers.messages.relay import BACK_OFF, OPTIONS, POLL, relay, run
from handlers.messages.senders import Closed, Sender

log = logging.getLogger("rowhouse")

PREFETCH = 50
"""Messages that wait here for their turn, beside those that are sent at once; none where others could send them."""

GATHER = 0.02
"""Seconds in which messages are gathered to be sent at once, where a sender takes several."""

MESSAGE_LIMIT = 64 * 1024
"""Bytes of a message; ours are smaller."""

SEAL_LOOK = 60.0
"""Seconds between two looks at whether history is to be sealed."""

REDELIVERED = Counter("rowhouse_events_redelivered_total", "Messages that the broker delivered more than once.")
DEAD = Counter("rowhouse_events_dead_total", "Messages put aside, because they are no events of ours.")


class NotAnEvent(Exception):
    """A message that is no event of ours; the message says why."""


def notify(dsn: str, amqp_url: str, queue: str, sender: Sender, delays: Delays, stop: threading.Event) -> None:
    """Send events until told to stop: from RabbitMQ, with a relay beside, or without it from the outbox itself."""
    why = ["A thread of the notifier ended."]
    due = Due()

    def work() -> None:
        wait = BACK_OFF[0]
        while not stop.is_set():
            began = time.monotonic()
            try:
                with connect(dsn, OPTIONS, "notifier") as connection:
                    if amqp_url:
                        consume(connection, amqp_url, queue, sender, delays, stop)
                    else:
                        drain(connection, due, sender, delays, stop)
            except Closed as error:
                why[0] = str(error)
                return
            except (psycopg.Error, *rabbitmq.Lost) as error:
                log.warning("The notifier lost its connection and tries again: %s", str(error) or type(error).__name__)
                lasted = time.monotonic() - began > BACK_OFF[1]
                wait = BACK_OFF[0] if lasted else min(wait * 2, BACK_OFF[1])
                stop.wait(wait)

    threads = [threading.Thread(target=watch, args=(dsn, stop)) for watch in (seal, partitions.keep)]
    threads += [threading.Thread(target=work) for _ in range(sender.threads)]
    if amqp_url:
        threads.append(threading.Thread(target=relay, args=(dsn, amqp_url, queue, stop)))
    run(threads, stop)
    # A thread that ends before it was told to met what nobody foresaw: better to end, and be started again.
    if not stop.is_set():
        sys.exit(why[0])


def drain(connection: db.Connection, due: Due, sender: Sender, delays: Delays, stop: threading.Event) -> None:
    """Send what is due in the outbox."""
    try:
        while not stop.is_set():
            users = due.take(connection, sender.at_once)
            # Where somebody else changes one of these events for long, another try is due later.
            with suppress(psycopg.errors.LockNotAvailable):
                send_lines(connection, users, sender, delays, stop)
            if not users:
                stop.wait(POLL)
    finally:
        if not connection.closed:
            due.put_back(connection)


def consume(
    connection: db.Connection, url: str, queue: str, sender: Sender, delays: Delays, stop: threading.Event
) -> None:
    """Take messages and send what they are about; they are acknowledged once nothing more is to be done for them."""
    channel = rabbitmq.open_channel(url, queue)
    try:
        channel.basic_qos(prefetch_count=sender.at_once + (PREFETCH if sender.threads == 1 else 0))
        for bodies, tag in gather(channel, queue, sender.at_once, stop):
            try:
                bad = send_messages(connection, bodies, sender, delays, stop)
            except psycopg.errors.LockNotAvailable:
                # Somebody else changes one of these events for long.
                channel.basic_nack(tag, multiple=True)
                continue
            if stop.is_set():
                return  # what was not sent any more is delivered again
            settle(channel, queue, bad, tag)
    finally:
        rabbitmq.close(channel)


def gather(channel: Any, queue: str, at_once: int, stop: threading.Event) -> Iterator[tuple[list[bytes], int]]:
    """Messages as they come, so many together or what came within GATHER, each time with the tag of the last."""
    bodies: list[bytes] = []
    began, tag = 0.0, 0
    for method, _, body in channel.consume(queue, inactivity_timeout=GATHER):
        if stop.is_set():
            return
        if method is not None:
            REDELIVERED.inc(method.redelivered)
            began, tag = began if bodies else time.monotonic(), method.delivery_tag
            bodies.append(body)
        if bodies and (len(bodies) >= at_once or time.monotonic() - began >= GATHER):
            yield bodies, tag
            bodies = []


def settle(channel: Any, queue: str, bad: list[tuple[bytes, str]], tag: int) -> None:
    """Put aside the messages that are no events of ours, and acknowledge all up to a tag."""
    for body, reason in bad:
        DEAD.inc()
        log.warning("A message was put aside: %s", reason)
        rabbitmq.put_aside(channel, queue, body, reason)
    channel.basic_ack(tag, multiple=True)


def send_messages(
    connection: db.Connection, bodies: list[bytes], sender: Sender, delays: Delays, stop: threading.Event
) -> list[tuple[bytes, str]]:
    """Send what messages are about; those that are no events of ours, each with the reason."""
    bad, known = [], {}
    for body in bodies:
        try:
            event_id, user_id = about(body)
            known[event_id] = user_id, body
        except NotAnEvent as error:
            bad.append((body, str(error)))
    seen = send_lines(connection, [*{user_id for user_id, _ in known.values()}], sender, delays, stop)
    # An event whose line did not have it was sent before, or must wait; or there is none.
    if left := known.keys() - seen:
        for row in db.run(connection, "outbox.unknown", ids=",".join(left)):
            bad.append((known[row.event_id][1], f"There is no event {row.event_id}."))
    return bad


def about(body: bytes) -> tuple[str, str]:
    """The event and the user that a message is about. Raises NotAnEvent."""
    if len(body) > MESSAGE_LIMIT:
        raise NotAnEvent(f"It is larger than {MESSAGE_LIMIT} bytes.")
    try:
        members = json.loads(body)
        event_id, user_id = str(UUID(members["event_id"])), members["user_id"]
        readable = b"\0" not in user_id.encode()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        readable = False
    if not readable:
        raise NotAnEvent("It is no JSON object with an event_id and a user_id.")
    return event_id, user_id


def seal(dsn: str, stop: threading.Event) -> None:
    """Seal history once each hour, whichever notifier comes first; the first seal may take long."""
    while not stop.is_set():
        try:
            with connect(dsn, SERVICE, "notifier") as connection:
                connection.execute("set statement_timeout = 0; set lock_timeout = 0")
                db.run(connection, "seals.make", only_if_due="yes")
        except psycopg.Error as error:
            log.warning("History could not be sealed and is tried again: %s", str(error).partition("\n")[0])
        stop.wait(SEAL_LOOK)
