"""The lines that events wait in, one for each user: they are sent in order, and how that went is noted."""

import logging
import threading
from typing import Any

import db
from handlers.http.metrics import Counter
from handlers.messages.senders import Channel, Closed
from logs import escape

log = logging.getLogger("rowhouse")

Delays = tuple[float, ...]
"""Seconds before the second try, the third, and so on, while the line waits; after the last the event is Failed."""

REASON = 1000
"""Characters that are kept of why an event could not be sent: a receiver may have written them."""

SENT = Counter("rowhouse_events_sent_total", "Events sent.")
FAILED = Counter("rowhouse_events_failed_total", "Tries to send an event that failed.")
GIVEN_UP = Counter("rowhouse_events_given_up_total", "Events that became Failed.")


def send_lines(
    connection: db.Connection, user_ids: list[str], way: Channel, delays: Delays, stop: threading.Event
) -> set[str]:
    """Send what waits for these users, each line in order, until nothing is left that may be sent; the events met."""
    met: set[str] = set()
    heads = {"user_ids": user_ids, "limit": way.at_once}
    try:
        with connection.pipeline():
            db.run(connection, "outbox.lock", user_ids=user_ids)
            rows = db.run(connection, "outbox.first", **heads)
        while (events := [*rows]) and not stop.is_set():
            met |= {event.event_id for event in events}
            with connection.pipeline():
                send(connection, events, way, delays)
                rows = db.run(connection, "outbox.first", **heads)
    finally:
        if not connection.closed:
            db.run(connection, "outbox.unlock")
    return met


def send(connection: db.Connection, events: list[Any], way: Channel, delays: Delays) -> None:
    """Send some events, and note how that went."""
    try:
        way.send(events)
    except Closed:
        raise
    except Exception as error:  # whatever a channel raises is why it failed
        for event in events:
            note_failure(connection, event, escape(str(error) or type(error).__name__)[:REASON], delays)
        return
    SENT.inc(len(events))
    db.run(connection, "outbox.processed", ids=",".join(event.event_id for event in events))


def note_failure(connection: db.Connection, event: Any, reason: str, delays: Delays) -> None:
    FAILED.inc()
    log.warning("Event %s could not be sent: %s", event.event_id, reason)
    seconds = [*delays, 0][min(event.tries, len(delays))]
    failed = {"event_id": event.event_id, "reason": reason, "seconds": seconds, "most": len(delays) + 1}
    row = next(db.run(connection, "outbox.failed", **failed), None)
    GIVEN_UP.inc(bool(row and row.given_up))
