"""The sockets that are open in a process: counted, told when it stops, closed when their tokens are no longer good."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import gevent
from flask import Flask, current_app, g
from simple_websocket import Server

from handlers.http.auth import holder
from handlers.http.metrics import Gauge
from handlers.http.websocket import GOING_AWAY, REFUSED, say_goodbye

LOOK_EVERY = 5
"""Seconds between two looks at the tokens of open sockets."""

NO_LONGER_GOOD = "The token is no longer good."

OPEN = Gauge("rowhouse_sockets", "Open sockets of the channel.", multiprocess_mode="livesum")

sockets: dict[Server, str | None] = {}
"""Those that are open, each with its token."""
looking: gevent.Greenlet | None = None
"""Who looks at the tokens of the open sockets; it ends where there are none."""


@contextmanager
def counted(ws: Server) -> Iterator[None]:
    """Counts a socket among those that are open; whose token is no longer good is looked at from time to time."""
    global looking
    sockets[ws] = g.token
    if not looking or looking.dead:
        looking = gevent.spawn(look_at_tokens, current_app._get_current_object())  # type: ignore[attr-defined]
    OPEN.inc()
    try:
        yield
    finally:
        del sockets[ws]
        OPEN.dec()


def look_at_tokens(app: Flask) -> None:
    """As long as there are sockets, close those whose tokens were revoked or have expired, whatever they wait for."""
    while sockets:
        for token in {token for token in sockets.values() if token}:
            # While the database is away, or the issuer of JWTs, nobody knows: the next look asks again.
            with suppress(Exception), app.app_context():
                if not holder(token):
                    close_those_of(token)
        gevent.sleep(LOOK_EVERY)


def close_those_of(token: str) -> None:
    for ws, its in [*sockets.items()]:
        if its == token:
            gevent.spawn(say_goodbye, ws, REFUSED, NO_LONGER_GOOD)


def too_many() -> bool:
    """Whether the holder of the token has as many sockets in this process as it may."""
    if g.token is None:
        return False
    return [*sockets.values()].count(g.token) >= current_app.config["SOCKETS_PER_TOKEN"]


def close_all() -> None:
    """Tell every client that the service stops."""
    for ws in [*sockets]:
        gevent.spawn(say_goodbye, ws, GOING_AWAY, "The service stops.")
