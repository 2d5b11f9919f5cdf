"""The feed: every committed change once, to any number of subscribers, by one reader a process.

The reader asks history what became visible since the snapshot it knows (sql/queries/feed.sql), if there is another by
now. Writers do nothing for it, and it holds none of them up; while nobody subscribes it does not ask at all.
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
from db.pool import SERVICE, BoundConnection, connect

log = logging.getLogger("rowhouse")

POLL, REST = 0.025, 0.001
"""Seconds from one look for changes to the next, and at least between them."""

RETRY = 0.5
"""Seconds between two tries to reach a database that is away."""

PRESENT_WITHIN, AWAY_AFTER = 4.0, 6.0
"""Seconds for a look for changes, and without one after which subscribers are told that the database is away."""

JOIN_WITHIN = 10.0
"""Seconds in which a subscriber must find the reader at its place, or it is told that the database is away."""

AT_ONCE = 100
"""Subscribers to whom changes are offered before others have a turn."""

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


class OtherFeed(psycopg.OperationalError):
    """The server is not the one that a place is of, or has no feed."""


class Change(NamedTuple):
    """A change as it is sent: the frame with its cursor, and what subscribers choose by."""

    frame: bytes
    cursor: Cursor
    project: int | None
    obj_type: str
    obj_id: str | None
    of_all: bool
    """Whether it may be about any object of its kind: a truncate, or a load."""
    of_projects: bool
    """Whether it is about all projects."""


class Subscription:
    """What one subscriber has not been sent yet. `wake` is called with it when there is something; it may send it."""

    def __init__(
        self,
        wanted: Callable[[Change], bool] | None,
        wake: Callable[["Subscription"], object],
        query: dict[str, Any] | None = None,
    ) -> None:
        self.wanted, self.wake = wanted, wake
        self.query = query or {}
        """The `project`, `obj_type` and `obj_id` by which what it missed is looked for."""
        self.frames: tuple[bytes, ...] = ()
        self.ended = ""
        """Why it is sent nothing any more."""
        self.joined = threading.Event()
        self.place = self.reached = NOWHERE
        """From where on, and up to where, it was sent all that it wants, or has it among its frames."""

    def chosen(self, changes: Iterable[Change]) -> Iterator[bytes]:
        """The frames of those that it wants."""
        return (change.frame for change in changes if self.wanted is None or self.wanted(change))

    def offer(self, changes: list[Change], frames: tuple[bytes, ...]) -> None:
        """`frames`: those of all the changes, which are the same for all who want all."""
        if self.ended:  # what comes now is not what comes next
            return
        chosen = frames if self.wanted is None else tuple(self.chosen(changes))
        self.reached = changes[-1].cursor
        self.frames += chosen
        if len(self.frames) > QUEUE:
            self.end("You do not read.")
        elif chosen:
            self.wake(self)

    def end(self, reason: str) -> None:
        self.ended = reason
        self.frames = ()
        self.joined.set()
        self.wake(self)


class Feed:
    """The reader of a process. `encode` makes of a frame's text what is sent, once for all subscribers.

    `tell` is called with the time of each look for changes, in seconds since 1970; with infinity where none follows.
    """

    def __init__(self, dsn: str, encode: Callable[[str], bytes], tell: Callable[[float], object]) -> None:
        self.dsn, self.encode, self.tell = dsn, encode, tell
        self.looked: float | None = None
        """When it last looked for changes, by the monotonic clock; None while nobody subscribes."""
        self.failing = False
        """Whether the last look failed: it goes on until one does not, though all were told and nobody is left."""
        self.place = NOWHERE
        self.subscriptions: set[Subscription] = set()
        self.joining: set[Subscription] = set()
        self.lock = threading.Lock()
        self.reader: threading.Thread | None = None

    # The subscribers' side

    def join(self, subscription: Subscription) -> bool:
        """Send a subscription all that is committed from now on. False where the database is away, or a standby."""
        with self.lock:
            self.joining.add(subscription)
            if self.reader is None:
                self.reader = threading.Thread(target=self.read, name="feed", daemon=True)
                self.reader.start()
        return subscription.joined.wait(JOIN_WITHIN) and not subscription.ended

    def age(self) -> float | None:
        """Seconds since it last looked for changes; None while nobody subscribes."""
        return None if self.looked is None else time.monotonic() - self.looked

    def leave(self, subscription: Subscription) -> tuple[tuple[bytes, ...], Cursor]:
        """Send it nothing any more; it may join again. Returns what it was not sent yet, up to which place."""
        # Together, before another greenlet has its turn: what comes later is not of this place.
        frames, subscription.frames, place = subscription.frames, (), subscription.reached
        with self.lock:
            self.joining.discard(subscription)
            self.subscriptions.discard(subscription)
        subscription.frames, subscription.joined = (), threading.Event()
        return frames, place

    def missed(self, cursor: Cursor, until: str, query: dict[str, Any]) -> Generator[Change, None, None]:
        """What came after a cursor, until a snapshot: all that a query asks for, and maybe more."""
        if cursor.until:
            yield from self.between(cursor, query)
            cursor = Cursor(cursor.feed, cursor.until)
        if cursor.snapshot != until:
            yield from self.between(cursor._replace(until=until), query)

    def between(self, cursor: Cursor, query: dict[str, Any]) -> Iterator[Change]:
        """Raises OtherFeed where the server is not the same any more, as it may be behind one name."""
        present = of_feed(cursor.feed, db.read("feed.present", since=cursor.snapshot))
        with closing(db.stream("feed.changes", CATCH_UP_TIMEOUT, **query, **asked(cursor, present.dated_from))) as rows:
            yield from self.changes(rows, cursor)
        of_feed(cursor.feed, db.read("feed.present"))

    def changes(self, rows: Iterable[Any], since: Cursor) -> Iterator[Change]:
        """Rows as changes, each with the cursor that resumes behind it: behind the last that is a snapshot alone."""
        held = None
        for row in rows:
            if held:
                yield self.change(held, since._replace(id=held.id))
            held = row
        if held:
            yield self.change(held, Cursor(since.feed, since.until))

    def change(self, row: Any, cursor: Cursor) -> Change:
        frame = self.encode(f'{row.frame[:-1]},"cursor":"{cursor}"}}')
        return Change(frame, cursor, row.project, row.obj_type, row.obj_id, row.of_all, row.of_projects)

    # The reader's side

    def read(self) -> None:
        """Read until nobody subscribes any more, whatever becomes of the connection."""
        self.looked = time.monotonic()
        while True:
            try:
                with connect(self.dsn, SERVICE) as connection:
                    while not self.is_left():
                        began = time.monotonic()
                        self.tick(connection)
                        self.look()
                        time.sleep(max(REST, began + POLL - time.monotonic()))
                return  # there may be another reader by now
            except OtherFeed as error:
                log.warning("The feed is another: %s", error)
                self.failing = False
                self.end_all(str(error))
            except psycopg.Error as error:
                if not self.failing:
                    log.warning("The feed lost its connection and tries again: %s", str(error).partition("\n")[0])
                self.failing = True
                if (self.age() or 0) > AWAY_AFTER:
                    self.end_all("The database is away.")
            except Exception:  # a fault of ours, in what is sent or how: nobody shall wait for what does not come
                log.exception("The feed failed")
                self.end_all("The feed failed.")
            time.sleep(RETRY)

    def look(self) -> None:
        self.looked, self.failing = time.monotonic(), False
        self.tell(time.time())

    def is_left(self) -> bool:
        """Whether nobody subscribes any more: whoever comes next begins with a reader of its own."""
        with self.lock:
            if self.joining or self.subscriptions or self.failing:
                return False
            self.reader, self.place, self.looked = None, NOWHERE, None
            self.tell(float("inf"))
            return True

    def end_all(self, reason: str) -> None:
        for subscription in [*self.subscriptions, *self.joining]:
            subscription.end(reason)

    def tick(self, connection: BoundConnection) -> None:
        """Send what became visible since the last tick."""
        connection.answer_within = PRESENT_WITHIN
        with self.lock:
            joining = set(self.joining)
        if self.place is NOWHERE or not self.subscriptions:
            self.begin(next(db.run(connection, "feed.present")))
        else:
            self.dispatch(connection)
        with self.lock:
            self.subscriptions |= joining & self.joining
            self.joining -= joining
        for subscription in joining:
            subscription.place = subscription.reached = self.place
            subscription.joined.set()

    def begin(self, present: Any) -> None:
        """Begin where the feed is. Raises OtherFeed where there is none."""
        of_feed(present.feed, present)
        self.place = Cursor(present.feed, present.snapshot)

    def dispatch(self, connection: BoundConnection) -> None:
        """Offer each change to all; the place moves with it, so that a lost connection loses and repeats nothing."""
        present = next(db.run(connection, "feed.present", since=self.place.snapshot))
        if present.feed != self.place.feed:
            self.begin(present)
            self.end_all("The server was replaced or restored.")
            return
        since = self.place._replace(until=self.place.until or present.snapshot)
        if since.snapshot != since.until:
            connection.answer_within = CATCH_UP_TIMEOUT
            changes = self.changes(db.streamed(connection, "feed.changes", **asked(since, present.dated_from)), since)
            while some := [*islice(changes, db.STREAM_SLICE)]:
                self.offer(some)
                self.place = some[-1].cursor
                next_turn()
        self.place = Cursor(since.feed, since.until)

    def offer(self, changes: list[Change]) -> None:
        """Offer changes to all who subscribe just now, some at a time: they may send them at once."""
        frames = tuple(change.frame for change in changes)
        for number, subscription in enumerate([*self.subscriptions], 1):
            if subscription in self.subscriptions:
                subscription.offer(changes, frames)
            if number % AT_ONCE == 0:
                next_turn()


def of_feed(feed: str, present: Any) -> Any:
    """Where the feed is, if it is this one. Raises OtherFeed."""
    if present.feed is None:
        raise OtherFeed("The database is a standby, which has no feed.")
    if present.feed != feed:
        raise OtherFeed("The server was replaced or restored.")
    return present


def asked(cursor: Cursor, dated_from: str) -> dict[str, Any]:
    """A cursor as the parameters of feed.changes."""
    return {"since": cursor.snapshot, "until": cursor.until, "after": cursor.id, "dated_from": dated_from}
