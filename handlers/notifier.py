"""The notifier: sends each event, and the event becomes Processed. `flask notifier`; several may run side by side.

An event that was sent, but could not be marked before the process was killed, is sent again: whoever takes it tells it
by its event_id. Events of one user are sent one after the other, in their order.
"""

import json
import logging
import sys
import threading
import time
from contextlib import suppress
from typing import Any
from uuid import UUID

import psycopg
from prometheus_client import Counter, Gauge

import db
from db.pool import SERVICE, connect
from handlers import broker
from handlers.channels import Send
from handlers.relay import BACK_OFF, POLL, relay

log = logging.getLogger("rowhouse")

Delays = tuple[float, ...]
"""Seconds before the second try, the third, and so on, while the line waits; after the last the event is Failed."""

SENDERS = 4
"""How many lines are sent at once, each over connections of its own."""

CLAIM, CLAIM_SECONDS = 50, 60
"""Without a broker: how many events are taken from the outbox at a time, and for how many seconds."""

PREFETCH = 50
"""Messages that wait here for their turn."""

MESSAGE_LIMIT = 64 * 1024
"""Bytes of a message; ours are smaller."""

MEASURE_EVERY, LOOK_EVERY = 5.0, 0.2
"""Seconds between two counts of what waits, and between two looks at whether all threads live."""

SENT = Counter("rowhouse_events_sent_total", "Events sent.")
FAILED = Counter("rowhouse_events_failed_total", "Tries to send an event that failed.")
GIVEN_UP = Counter("rowhouse_events_given_up_total", "Events that became Failed.")
REDELIVERED = Counter("rowhouse_events_redelivered_total", "Messages that the broker delivered more than once.")
DEAD = Counter("rowhouse_events_dead_total", "Messages put aside, because they are no events of ours.")
WAITING = Gauge("rowhouse_events_waiting", "Events in the outbox.", multiprocess_mode="mostrecent")
OLDEST = Gauge(
    "rowhouse_events_oldest_seconds", "How long the oldest event in the outbox waits.", multiprocess_mode="mostrecent"
)


class Unreadable(Exception):
    """A message that is no event of ours; the message says why."""


def notify(dsn: str, amqp_url: str, queue: str, send: Send, delays: Delays, stop: threading.Event) -> None:
    """Send events until told to stop: from RabbitMQ, with a relay beside, or without it from the outbox itself."""

    def work() -> None:
        wait = BACK_OFF[0]
        while not stop.is_set():
            began = time.monotonic()
            try:
                with connect(dsn, SERVICE, "notifier") as connection:
                    if amqp_url:
                        consume(connection, amqp_url, queue, send, delays, stop)
                    else:
                        drain(connection, send, delays, stop)
            except (psycopg.Error, *broker.Lost) as error:
                log.warning("The notifier lost its connection and tries again: %s", str(error) or type(error).__name__)
                lasted = time.monotonic() - began > BACK_OFF[1]
                wait = BACK_OFF[0] if lasted else min(wait * 2, BACK_OFF[1])
                stop.wait(wait)

    threads = [threading.Thread(target=measure, args=(dsn, stop))]
    threads += [threading.Thread(target=work) for _ in range(SENDERS)]
    if amqp_url:
        threads.append(threading.Thread(target=relay, args=(dsn, amqp_url, queue, stop)))
    for thread in threads:
        thread.daemon = True
        thread.start()
    # A thread that ends before it was told to met what nobody foresaw: better to end, and be started again.
    while not stop.wait(LOOK_EVERY) and all(thread.is_alive() for thread in threads):
        pass
    if not stop.is_set():
        sys.exit("A thread of the notifier ended.")
    for thread in threads:
        thread.join()


def drain(connection: db.Connection, send: Send, delays: Delays, stop: threading.Event) -> None:
    """Send what is due in the outbox."""
    while not stop.is_set():
        rows = [*db.run(connection, "outbox.claim", limit=CLAIM, seconds=CLAIM_SECONDS)]
        for user_id in dict.fromkeys(row.user_id for row in rows):
            with suppress(psycopg.errors.LockNotAvailable):  # another notifier is at it
                send_line(connection, user_id, send, delays, stop)
        if not rows:
            stop.wait(POLL)


def consume(connection: db.Connection, url: str, queue: str, send: Send, delays: Delays, stop: threading.Event) -> None:
    """Take messages and send what they are about; each is acknowledged once nothing more is to be done for it."""
    channel = broker.open_channel(url, queue)
    try:
        channel.basic_qos(prefetch_count=PREFETCH)
        for method, _, body in channel.consume(queue, inactivity_timeout=POLL):
            if stop.is_set():
                return
            if method is None:
                continue
            REDELIVERED.inc(method.redelivered)
            try:
                event_id, user_id = about(body)
                if not send_line(connection, user_id, send, delays, stop):
                    check_known(connection, event_id)
                channel.basic_ack(method.delivery_tag)
            except Unreadable as error:
                DEAD.inc()
                log.warning("A message was put aside: %s", error)
                broker.put_aside(channel, queue, method.delivery_tag, body, str(error))
            except psycopg.errors.LockNotAvailable:
                # Another notifier is at this user's line for long: a webhook that does not answer.
                channel.basic_nack(method.delivery_tag)
    finally:
        broker.close(channel)


def about(body: bytes) -> tuple[str, str]:
    """The event and the user that a message is about. Raises Unreadable."""
    if len(body) > MESSAGE_LIMIT:
        raise Unreadable(f"It is larger than {MESSAGE_LIMIT} bytes.")
    try:
        members = json.loads(body)
        event_id, user_id = str(UUID(members["event_id"])), members["user_id"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        event_id, user_id = "", None
    if not isinstance(user_id, str) or "\0" in user_id:
        raise Unreadable("It is no JSON object with an event_id and a user_id.")
    return event_id, user_id


def check_known(connection: db.Connection, event_id: str) -> None:
    """Raises Unreadable where there is no such event."""
    if next(db.run(connection, "outbox.known", event_id=event_id), None) is None:
        raise Unreadable(f"There is no event {event_id}.")


def send_line(connection: db.Connection, user_id: str, send: Send, delays: Delays, stop: threading.Event) -> bool:
    """Send what waits for a user, in order, until nothing is left or one must wait; whether there was anything."""
    with connection.pipeline():
        db.run(connection, "outbox.lock", user_id=user_id)
        rows = db.run(connection, "outbox.first", user_id=user_id)
    event = first = next(rows, None)
    try:
        while event and not event.held and not stop.is_set():
            event = sent(connection, event, send, delays)
    finally:
        if not connection.closed:
            db.run(connection, "outbox.unlock", user_id=user_id)
    return first is not None


def sent(connection: db.Connection, event: Any, send: Send, delays: Delays) -> Any:
    """Send one event, and note how that went; the next in its line, if there is one."""
    try:
        send(event)
    except Exception as error:  # whatever a channel raises is why it failed
        FAILED.inc()
        log.warning("Event %s could not be sent: %s", event.event_id, error)
        seconds = [*delays, 0][min(event.tries, len(delays))]
        reason = str(error) or type(error).__name__
        failed = {"event_id": event.event_id, "reason": reason, "seconds": seconds, "most": len(delays) + 1}
        row = next(db.run(connection, "outbox.failed", **failed), None)
        GIVEN_UP.inc(bool(row and row.given_up))
        return next(db.run(connection, "outbox.first", user_id=event.user_id), None)
    SENT.inc()
    with connection.pipeline():
        db.run(connection, "outbox.processed", event_id=event.event_id)
        rows = db.run(connection, "outbox.first", user_id=event.user_id)
    return next(rows, None)


def measure(dsn: str, stop: threading.Event) -> None:
    """Keep the gauges of what waits."""
    while not stop.is_set():
        try:
            with connect(dsn, SERVICE, "notifier") as connection:
                while not stop.is_set():
                    row = next(db.run(connection, "outbox.waiting"))
                    WAITING.set(row.events)
                    OLDEST.set(row.seconds)
                    stop.wait(MEASURE_EVERY)
        except psycopg.Error:
            stop.wait(MEASURE_EVERY)
