"""The sockets and streams that are open in a process: counted, closed when it stops or their tokens are not good."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import gevent
from flask import Flask, current_app, g
from simple_websocket import Server

from handlers.bulk.operation import LOOK_EVERY
from handlers.http.auth import KNOWN_FOR, is_still_admitted
from handlers.http.metrics import Gauge
from handlers.http.respond_async import has_gone
from handlers.http.steady import Steady
from handlers.http.tokens import NO_LONGER_GOOD
from handlers.http.websocket import GOING_AWAY, REFUSED, say_goodbye

TOKENS_EVERY, FEW_EVERY, FEW = 5.0, KNOWN_FOR / 4, 100
"""Seconds between two looks at the tokens of open sockets, and where they are few; of more, each is looked at, too, as
something is sent to its sockets.
"""

OPEN = Gauge("rowhouse_sockets", "Open sockets of the channel, and streams of changes.", multiprocess_mode="livesum")


class Stream:
    """Changes by HTTP: what a socket is to those who count it and close it."""

    def __init__(self, client: Any) -> None:
        """`client`: the connection that it is sent on, if there is one."""
        self.event, self.connected, self.client, self.sock = threading.Event(), True, client, Steady(client)

    def close(self, code: int, reason: str) -> None:
        self.connected = False

    def end_if_gone(self) -> None:
        """Wake who waits for what nobody would read: a stream without news writes too seldom to find out."""
        if self.client and has_gone(self.client):
            self.connected = False
            self.event.set()


sockets: dict[Server | Stream, str | None] = {}
"""Those that are open, each with its token; None where it was opened before there was any."""
good: dict[str | None, float] = {}
"""Until when a token is known to be good without being looked at, by the monotonic clock."""
watchers: dict[Callable[..., None], gevent.Greenlet] = {}
"""Who looks at the open sockets, by what they do; they end where there are none."""


@contextmanager
def counted(ws: Server | Stream) -> Iterator[None]:
    """Counts a socket among those that are open; whose token is no longer good is looked at from time to time."""
    sockets[ws] = g.token
    watch(look_at_tokens, current_app._get_current_object())  # type: ignore[attr-defined]
    watch(look_at_clients)
    OPEN.inc()
    try:
        yield
    finally:
        del sockets[ws]
        OPEN.dec()


def watch(look: Callable[..., None], *arguments: Any) -> None:
    """Have somebody look as long as there are sockets, unless somebody does."""
    if look not in watchers or watchers[look].dead:
        watchers[look] = gevent.spawn(look, *arguments)


def look_at_tokens(app: Flask) -> None:
    """As long as there are sockets, close those that would not be let in any more, whatever they wait for."""
    looked = 0.0
    while sockets:
        tokens = {*sockets.values()}
        if len(tokens) <= FEW or time.monotonic() - looked > TOKENS_EVERY:
            looked = time.monotonic()
            for gone in good.keys() - tokens:
                del good[gone]
            for token in tokens:
                # While the database is away, or the issuer of JWTs, nobody knows: the next look asks again.
                with suppress(Exception), app.app_context():
                    if not is_still_good(token):
                        close_those_of(token)
        gevent.sleep(FEW_EVERY)


def look_at_clients() -> None:
    """As long as there are sockets, end the streams whose clients have gone: a socket hears that by itself."""
    while sockets:
        for ws in [*sockets]:
            if isinstance(ws, Stream):
                ws.end_if_gone()
        gevent.sleep(LOOK_EVERY)


def is_still_good(token: str | None) -> bool:
    """Whether who has a socket would still be admitted; that is believed for half as long as of who asks."""
    found = is_still_admitted(token, KNOWN_FOR / 2)
    good[token] = time.monotonic() + KNOWN_FOR / 2 if found else 0.0
    return found


def is_known_good(ws: Server | Stream) -> bool:
    """Whether a socket's token was found good a moment ago."""
    return good.get(sockets.get(ws), 0.0) > time.monotonic()


def close_those_of(token: str | None) -> None:
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
