"""The channels that events are sent by."""

import json
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import click

WEBHOOK_WITHIN = 10.0
"""Seconds in which a webhook must answer."""


class Channel(NamedTuple):
    """A way to send events (event_id, user_id, description)."""

    send: Callable[[Sequence[Any]], None]
    """Sends events in this order. Whatever it raises is the reason why each of them has failed."""

    at_once: int
    """How many it is given at a time, and so how many may come a second time after a kill."""

    senders: int
    """How many threads send side by side."""


def print_lines(events: Sequence[Any]) -> None:
    """Print each event as a line."""
    lines = (f"Event {event.event_id} has been sent to {event.user_id}: {event.description}" for event in events)
    click.echo("\n".join(lines))


by_line = Channel(print_lines, at_once=200, senders=1)
"""Sends events as lines of standard output."""


def by_webhook(url: str) -> Channel:
    """Sends each event as a POST to this address, its event_id as Idempotency-Key, and then as a line."""

    def send(events: Sequence[Any]) -> None:
        for event in events:
            members = {name: getattr(event, name) for name in ("event_id", "user_id", "description")}
            headers = {"Content-Type": "application/json", "Idempotency-Key": event.event_id}
            request = urllib.request.Request(url, json.dumps(members).encode(), headers, method="POST")
            urllib.request.urlopen(request, timeout=WEBHOOK_WITHIN).close()
        print_lines(events)

    # One at a time: a receiver that does not answer costs only the event that it was asked to take.
    return Channel(send, at_once=1, senders=4)
