"""The lines that events wait in, one for each user: they are sent in order, and how that went is noted."""

import logging
import threading
import time
from typing import Any

import db
from handlers.http.metrics import Counter
from handlers.messages.senders import Closed, Sender
from logs import escape

log = logging.getLogger("rowhouse")

Delays = tuple[float, ...]
"""Seconds before the second try, the third, and so on, while the line waits; after the last the event is Failed."""

REASON = 1000
"""Characters that are kept of why an event could not be sent: a receiver may have written them."""

CLAIM, CLAIM_SECONDS = 50, 60
"""Without a broker: how many events are taken from the outbox at a time, and for how many seconds."""

RECKON_EVERY = 5.0
"""Seconds between two looks at whether the clock was set back."""

TURN = 1.0
"""Seconds after which a sender turns to other lines, though this one goes on; after a failure it does so at once."""

SENT = Counter("rowhouse_events_sent_total", "Events sent.")
FAILED = Counter("rowhouse_events_failed_total", "Tries to send an event that failed.")
GIVEN_UP = Counter("rowhouse_events_given_up_total", "Events that became Failed.")


class Due:
    """What is due in the outbox, taken line by line by all senders: one that hangs keeps back only the line it has."""

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self.lines: dict[str, list[str]] = {}
        self.reckoned = float("-inf")

    def take(self, connection: db.Connection, at_once: int) -> list[str]:
        """The users of the next lines; none where nothing is due."""
        with self.turn:
            if time.monotonic() - self.reckoned > RECKON_EVERY:
                db.run(connection, "outbox.reckon")
                self.reckoned = time.monotonic()
            if not self.lines:
                for row in db.run(connection, "outbox.claim", limit=CLAIM, seconds=CLAIM_SECONDS):
                    self.lines.setdefault(row.user_id, []).append(row.event_id)
            users = [*self.lines][:at_once]
            for user in users:
                del self.lines[user]
            return users

    def put_back(self, connection: db.Connection) -> None:
        """Whoever comes next need not wait until what was claimed is due again."""
        with self.turn:
            ids = [id for line in self.lines.values() for id in line]
            self.lines.clear()
            db.run(connection, "outbox.postpone", ids=",".join(ids), seconds=0)


def send_lines(
    connection: db.Connection, user_ids: list[str], sender: Sender, delays: Delays, stop: threading.Event
) -> set[str]:
    """Send what waits for these users, each line in order, until nothing may be sent or others have their turn.

    Returns the events that it saw. Lines that somebody else has in hand are left to them.
    """
    seen: set[str] = set()
    mine = [row.user_id for row in db.run(connection, "outbox.lock", user_ids=user_ids)]
    if not mine:
        return seen
    until = time.monotonic() + TURN
    try:
        batch = {"user_ids": mine, "limit": sender.at_once}
        rows = db.run(connection, "outbox.first", **batch)
        while (events := [*rows]) and not stop.is_set():
            seen |= {event.event_id for event in events}
            with connection.pipeline():
                well = send(connection, events, sender, delays)
                rows = db.run(connection, "outbox.first", **batch)
            if not well or time.monotonic() > until:
                break
    finally:
        if not connection.closed:
            leave(connection, mine)
    return seen


def leave(connection: db.Connection, user_ids: list[str]) -> None:
    """Let others have these lines; what they found locked meanwhile, and so left to us, is due at once."""
    db.run(connection, "outbox.unlock")
    # One by one: several rows in one transaction, and two notifiers might wait for each other.
    for row in [*db.run(connection, "outbox.left", user_ids=user_ids)]:
        db.run(connection, "outbox.due", event_id=row.event_id)


def send(connection: db.Connection, events: list[Any], sender: Sender, delays: Delays) -> bool:
    """Send some events, and note how that went; whether it went well."""
    try:
        sender.send(events)
    except Closed:
        raise
    except Exception as error:  # whatever a sender raises is why it failed
        for event in events:
            note_failure(connection, event, escape(str(error) or type(error).__name__)[:REASON], delays)
        return False
    SENT.inc(len(events))
    db.run(connection, "outbox.processed", ids=",".join(event.event_id for event in events))
    return True


def note_failure(connection: db.Connection, event: Any, reason: str, delays: Delays) -> None:
    FAILED.inc()
    log.warning("Event %s could not be sent: %s", event.event_id, reason)
    seconds = [*delays, 0][min(event.tries, len(delays))]
    failed = {"event_id": event.event_id, "reason": reason, "seconds": seconds, "most": len(delays) + 1}
    row = next(db.run(connection, "outbox.failed", **failed), None)
    GIVEN_UP.inc(bool(row and row.given_up))
