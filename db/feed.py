"""The feed: every committed change once, to any number of subscribers, by one reader a process.

The reader asks history what became visible since the snapshot it knows (sql/queries/feed.sql). Writers do nothing for
it, and it holds none of them up; while nobody subscribes it does not ask at all.
"""

import base64
import logging
import re
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from itertools import islice
from typing import Any, NamedTuple

import psycopg

import db
from db.cooperate import next_turn
from db.pool import SERVICE, connect

log = logging.getLogger("rowhouse")

POLL = 0.025
"""Seconds between two looks for changes."""

RETRY = 0.5
"""Seconds between two tries to reach a database that is away."""

JOIN_WITHIN = 10.0
"""Seconds in which a subscriber must find the reader at its place, or it is told that the database is away."""

QUEUE = 2_000
"""Frames that wait for one subscriber; one who lets more pile up does not read."""

CATCH_UP_TIMEOUT = 60
"""Seconds that one stretch of what a subscriber missed may take to read."""

SNAPSHOT = "[0-9]+:[0-9]+:[0-9,]*"

CURSOR = re.compile(rf"([^|\0]{{1,100}})\|({SNAPSHOT})\|({SNAPSHOT}|)\|([0-9]{{1,19}})")

BIGINT = 2**63 - 1
"""The last id; no transaction has a greater one either."""

EPOCH = 2**32
"""Transactions of an epoch; none has the first number of one, and PostgreSQL takes no snapshot that ends in it."""


class Cursor(NamedTuple):
    """A place in the feed: what was visible in `snapshot`, or of what came `until` another, the entries up to `id`."""

    feed: str
    snapshot: str
    until: str = ""
    id: int = 0

    def __str__(self) -> str:
        return base64.urlsafe_b64encode(f"{self.feed}|{self.snapshot}|{self.until}|{self.id}".encode()).decode()

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """The cursor of its text, in the one spelling that it is given out in. Raises ValueError."""
        parts = CURSOR.fullmatch(base64.urlsafe_b64decode(text.encode("ascii")).decode("ascii"))
        if not parts:
            raise ValueError("no cursor")
        cursor = cls(parts[1], canonical(parts[2]), parts[3] and canonical(parts[3]), int(parts[4]))
        if str(cursor) != text or cursor.id > BIGINT:
            raise ValueError("no cursor of ours")
        return cursor


def canonical(snapshot: str) -> str:
    """A snapshot as PostgreSQL writes it: who ran first, who is next, and who ran between. Raises ValueError."""
    xmin, xmax, running = snapshot.split(":")
    first, last = int(xmin), int(xmax)
    ids = [int(id) for id in running.split(",")] if running else []
    if not 1 <= first <= last <= BIGINT or ids != sorted(set(ids)) or not all(first <= id < last for id in ids):
        raise ValueError("no snapshot")
    if not first % EPOCH or not last % EPOCH:
        raise ValueError("no snapshot")
    return f"{first}:{last}:{','.join(map(str, ids))}"


NOWHERE = Cursor("", "")


class Change(NamedTuple):
    """A change as it is sent: the frame with its cursor, and what subscribers choose by."""

    frame: bytes
    cursor: Cursor
    project: int | None
    obj_type: str
    obj_id: str | None
    emptied: bool
    """Whether it is about all objects of its kind."""
    of_projects: bool
    """Whether it is about all projects."""


class Subscription:
    """What one subscriber has not been sent yet. `wake` is called when there is something."""

    def __init__(self, wanted: Callable[[Change], bool] | None, wake: Callable[[], object]) -> None:
        self.wanted, self.wake = wanted, wake
        self.frames: list[bytes] = []
        self.overflowed = False
        self.joined = threading.Event()
        self.place = NOWHERE
        """From where on it is sent all that it wants."""

    def chosen(self, changes: Iterable[Change]) -> Iterator[bytes]:
        """The frames of those that it wants."""
        return (change.frame for change in changes if self.wanted is None or self.wanted(change))

    def offer(self, changes: list[Change]) -> None:
        waiting = len(self.frames)
        self.frames.extend(self.chosen(changes))
        if len(self.frames) > QUEUE:
            self.overflowed = True
            self.frames.clear()
        if self.overflowed or len(self.frames) > waiting:
            self.wake()


class Feed:
    """The reader of a process. `encode` makes of a frame's text what is sent, once for all subscribers."""

    def __init__(self, dsn: str, encode: Callable[[str], bytes]) -> None:
        self.dsn, self.encode = dsn, encode
        self.place = NOWHERE
        self.subscriptions: set[Subscription] = set()
        self.joining: set[Subscription] = set()
        self.lock = threading.Lock()
        self.reader: threading.Thread | None = None

    # The subscribers' side

    def join(self, subscription: Subscription) -> bool:
        """Send a subscription all that is committed from now on. False where the database is away."""
        with self.lock:
            self.joining.add(subscription)
            if self.reader is None:
                self.reader = threading.Thread(target=self.read, name="feed", daemon=True)
                self.reader.start()
        return subscription.joined.wait(JOIN_WITHIN)

    def leave(self, subscription: Subscription) -> None:
        """Send it nothing any more."""
        with self.lock:
            self.joining.discard(subscription)
            self.subscriptions.discard(subscription)

    def missed(self, cursor: Cursor, until: str) -> Generator[Change, None, None]:
        """What came after a cursor, until a snapshot."""
        if cursor.until:
            yield from self.between(cursor)
            cursor = Cursor(cursor.feed, cursor.until)
        if cursor.snapshot != until:
            yield from self.between(cursor._replace(until=until))

    def between(self, cursor: Cursor) -> Iterator[Change]:
        with closing(db.stream("feed.changes", CATCH_UP_TIMEOUT, **asked(cursor))) as rows:
            yield from self.changes(rows, cursor)

    def changes(self, rows: Iterable[Any], since: Cursor) -> Iterator[Change]:
        """Rows as changes, each with the cursor that resumes behind it: behind the last that is a snapshot alone."""
        held = None
        for row in rows:
            if held:
                yield self.change(held, since._replace(until=since.until or held.snapshot, id=held.id))
            held = row if row.id is not None else None
        if held:
            yield self.change(held, Cursor(since.feed, since.until or held.snapshot))

    def change(self, row: Any, cursor: Cursor) -> Change:
        frame = self.encode(f'{row.frame[:-1]},"cursor":"{cursor}"}}')
        return Change(frame, cursor, row.project, row.obj_type, row.obj_id, row.emptied, row.of_projects)

    # The reader's side

    def read(self) -> None:
        """Read until nobody subscribes any more, whatever becomes of the connection."""
        while True:
            try:
                with connect(self.dsn, SERVICE) as connection:
                    while self.tick(connection):
                        time.sleep(POLL)
                return
            except psycopg.Error as error:
                log.warning("The feed lost its connection and tries again: %s", str(error).partition("\n")[0])
                time.sleep(RETRY)

    def tick(self, connection: db.Connection) -> bool:
        """Send what became visible since the last tick. False once there is nobody left to send it to."""
        with self.lock:
            joining = set(self.joining)
            if not joining and not self.subscriptions:
                self.reader, self.place = None, NOWHERE
                return False
        if self.place is NOWHERE:
            row = next(db.run(connection, "feed.present"))
            self.place = Cursor(row.feed, row.snapshot)
        else:
            self.dispatch(connection)
        with self.lock:
            self.subscriptions |= joining & self.joining
            self.joining -= joining
        for subscription in joining:
            subscription.place = self.place
            subscription.joined.set()
        return True

    def dispatch(self, connection: db.Connection) -> None:
        """Offer each change to all; the place moves with it, so that a lost connection loses and repeats nothing."""
        since = self.place
        seen = since.until

        def noted(rows: Iterable[Any]) -> Iterator[Any]:
            nonlocal seen
            for row in rows:
                seen = seen or row.snapshot
                yield row

        rows = db.streamed(connection, "feed.changes", **asked(since))
        changes = self.changes(noted(rows), since)
        while some := [*islice(changes, db.STREAM_SLICE)]:
            for subscription in [*self.subscriptions]:
                subscription.offer(some)
            self.place = some[-1].cursor
            next_turn()
        self.place = Cursor(since.feed, seen)


def asked(cursor: Cursor) -> dict[str, Any]:
    """A cursor as the parameters of feed.changes."""
    return {"since": cursor.snapshot, "until": cursor.until, "after": cursor.id}
