"""Shares: how much of what a process has for streams one caller may have of it, so that there is some for others."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from flask import abort, current_app, g, request

import db
from db.pool import PoolTimeout
from handlers.http.problems import ProblemException

STREAMS, STREAMS_OF_ONE = 100, 25
"""Streams that wait for their clients in a process, and those of one caller."""

READ_WITHIN = 10.0
"""Seconds in which a stream must find a place to be read."""


def caller() -> str:
    """Whose stream it is: the token's, or without one the address's."""
    return str(g.token or request.remote_addr)


class Share:
    """What a caller keeps waiting in this process: one stream, and so many bytes of it. `release` it in the end."""

    streams: Counter[str] = Counter()
    waiting: Counter[str] = Counter()

    def __init__(self, caller: str) -> None:
        self.caller, self.limit, self.size = caller, current_app.config["SPOOL_LIMIT"], 0
        if self.streams[caller] >= STREAMS_OF_ONE:
            raise ProblemException("too-many-at-once", f"{STREAMS_OF_ONE} streams of yours are not read to their ends.")
        if self.streams.total() >= STREAMS or self.waiting.total() >= self.limit:
            abort(503, "Too much waits for its clients to read it.")
        self.streams[caller] += 1
        self.released = False

    def grow(self, size: int) -> None:
        """Count bytes that wait from now on; fewer than none for those that were sent. 503 where it is too much."""
        self.size += size
        self.waiting[self.caller] += size
        if size > 0 and (self.waiting[self.caller] > self.limit // 2 or self.waiting.total() > self.limit):
            abort(503, "Too much waits for its clients to read it.")

    def release(self) -> None:
        if not self.released:
            self.released = True
            self.streams[self.caller] -= 1
            self.waiting[self.caller] -= self.size
            for counter in (self.streams, self.waiting):
                if not counter[self.caller]:
                    del counter[self.caller]


class Readers:
    """Who reads streams just now: half of the pool's connections at most, and of these half for one caller."""

    def __init__(self) -> None:
        self.free = threading.Condition()
        self.reading: Counter[str] = Counter()

    @contextmanager
    def taken(self, caller: str, at_once: int = 0) -> Iterator[None]:
        """A place for as long as the block lasts, of `at_once` of this caller. Raises PoolTimeout after READ_WITHIN."""
        most = max(1, db.pool().max_size // 2)
        own = at_once or (most + 1) // 2
        with self.free:
            if not self.free.wait_for(lambda: self.reading.total() < most and self.reading[caller] < own, READ_WITHIN):
                raise PoolTimeout("no place to read a stream")
            self.reading[caller] += 1
        try:
            yield
        finally:
            with self.free:
                self.reading[caller] -= 1
                self.reading += Counter()  # forgets those who have none
                self.free.notify_all()


readers = Readers()
