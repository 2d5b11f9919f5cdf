"""What sends events: it prints lines, or asks a webhook."""

import atexit
import json
import os
import select
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from handlers.http.fetch import fetch
from logs import Writer, escape

WEBHOOK_WITHIN = 10.0
"""Seconds in which a webhook must have answered, to the last byte."""

WEBHOOK_LIMIT = 64 * 1024
"""Bytes of its answer that are read."""


class Closed(Exception):
    """Nothing can be sent any more, whatever the event; the message says why."""


class Sender(NamedTuple):
    """What sends events (event_id, user_id, description)."""

    send: Callable[[Sequence[Any]], None]
    """Sends events in this order. Whatever it raises, but for Closed, is the reason why each of them has failed."""

    at_once: int
    """How many it is given at a time, and so how many may come a second time after a kill."""

    threads: int
    """How many send side by side."""


def lines(events: Sequence[Any]) -> str:
    """A line for each event, whatever is in it."""
    return "".join(
        f"Event {event.event_id} has been sent to {escape(event.user_id)}: {escape(event.description)}\n"
        for event in events
    )


def print_lines(events: Sequence[Any]) -> None:
    """Print each event as a line, and wait for whoever reads them: nobody is told what was not printed."""
    data = lines(events).encode()
    try:
        while data:
            data = data[os.write(1, data) :]
    except OSError as error:
        raise Closed(f"Standard output cannot be written: {error.strerror}.") from None


by_line = Sender(print_lines, at_once=200, threads=1)
"""Sends events as lines of standard output."""


def has_reader() -> bool:
    """Whether somebody may read standard output: not where it is a pipe whose other end was closed."""
    poll = select.poll()
    poll.register(1, select.POLLOUT)
    return not any(found & (select.POLLERR | select.POLLNVAL) for _, found in poll.poll(0))


def by_webhook(url: str) -> Sender:
    """Sends each event as a POST to this address, its event_id as Idempotency-Key; the line after it may be lost."""
    output = Writer(1)
    atexit.register(output.flush)

    def send(events: Sequence[Any]) -> None:
        for event in events:
            members = {name: getattr(event, name) for name in ("event_id", "user_id", "description")}
            headers = {"Content-Type": "application/json", "Idempotency-Key": event.event_id}
            fetch(url, WEBHOOK_WITHIN, WEBHOOK_LIMIT, json.dumps(members).encode(), headers)
        output.write(lines(events))

    # One at a time: a receiver that does not answer costs only the event that it was asked to take.
    return Sender(send, at_once=1, threads=4)
