"""How many requests the holder of a token may make in a minute, counted for all processes together.

A process takes a hundredth of them at a time from the database, and passes those out without asking: one statement in
so many requests. The headers are those of draft-ietf-httpapi-ratelimit-headers.
"""

import threading
import time
from collections import defaultdict
from contextvars import Context
from dataclasses import dataclass, field

import psycopg
from flask import Response, abort, current_app, g

from db import write

WINDOW = 60
"""Seconds: a minute of the database's clock."""

SHARES = 100
"""A process takes one of so many parts at a time."""

UNTOLD = 1.0
"""Seconds for which requests pass uncounted where the database cannot count: it is away, or takes no changes."""


@dataclass
class Quota:
    """What one token may still ask of this process."""

    left: int = 0
    others: int = 0
    """What nobody had taken when this process last asked."""
    until: float = 0.0
    """When the minute ends, by time.monotonic()."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def spend(self, holder: str, limit: int) -> bool:
        """Count one request. False where there were too many."""
        with self.lock:  # not twice a share, where two find that they have none
            ended = time.monotonic() >= self.until
            if ended or (self.left <= 0 < self.others):
                self.take(holder, limit)
            if self.left <= 0:
                return False
            self.left -= 1
            return True

    def take(self, holder: str, limit: int) -> None:
        """Take another share."""
        share = max(1, limit // SHARES)
        try:
            # Not held to a project: only the service itself counts.
            row = Context().run(write, "access.take", holder=holder, share=share, limit=limit)
            self.left, self.others, seconds = row.granted, row.others, row.seconds
        except psycopg.Error:
            self.left, self.others, seconds = share, limit, UNTOLD
        self.until = time.monotonic() + seconds


HOLDERS = 10_000
"""Holders whose shares a process keeps; what is forgotten of them was counted all the same."""

quotas: defaultdict[str, Quota] = defaultdict(Quota)
"""By the name of the holder."""


def spend(holder: str) -> None:
    """Count a request of a token. 429 where it has made too many in this minute."""
    limit = current_app.config["RATE_LIMIT"]
    if limit:
        if len(quotas) >= HOLDERS:
            quotas.clear()
        g.quota = quotas[holder]
        if not g.quota.spend(holder, limit):
            abort(429, f"The token may make {limit} requests a minute.")


def tell(response: Response) -> Response:
    """After a request with a token: how many more it may make, and when it may again."""
    quota = g.get("quota")
    if quota:
        seconds = max(1, round(quota.until - time.monotonic()))
        response.headers.add("RateLimit-Policy", f'"token";q={current_app.config["RATE_LIMIT"]};w={WINDOW}')
        response.headers.add("RateLimit", f'"token";r={quota.left + quota.others};t={seconds}')
        if response.status_code == 429:
            response.headers.setdefault("Retry-After", str(seconds))
    return response
