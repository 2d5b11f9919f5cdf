"""The channels that events are sent by: each takes an event, and raises where it could not send it."""

import json
import urllib.request
from collections.abc import Callable
from typing import Any

import click

WEBHOOK_WITHIN = 10.0
"""Seconds in which a webhook must answer."""

Send = Callable[[Any], None]
"""Sends an event (event_id, user_id, description); whatever it raises is the reason of a failed try."""


def by_line(event: Any) -> None:
    """Send an event as a line of standard output."""
    click.echo(f"Event {event.event_id} has been sent to {event.user_id}: {event.description}")


def by_webhook(url: str) -> Send:
    """Sends an event as a POST to this address, its event_id as Idempotency-Key, and then as a line."""

    def send(event: Any) -> None:
        members = {name: getattr(event, name) for name in ("event_id", "user_id", "description")}
        headers = {"Content-Type": "application/json", "Idempotency-Key": event.event_id}
        request = urllib.request.Request(url, json.dumps(members).encode(), headers, method="POST")
        urllib.request.urlopen(request, timeout=WEBHOOK_WITHIN).close()
        by_line(event)

    return send
