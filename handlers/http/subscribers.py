"""Who is told of changes, whatever carries them there: what they ask for, how many may, and what they missed."""

import json
from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any

from flask import abort, current_app, request
from marshmallow import Schema, ValidationError
from simple_websocket import Server

from db import project as only_project
from db import read
from db.feed import Change, Cursor, Feed, Subscription
from handlers.http.fields import IntegerParam, Names, Text
from handlers.http.metrics import Counter, Gauge
from handlers.http.open_sockets import Stream, is_known_good, sockets, too_many
from handlers.http.problems import ProblemException
from handlers.http.responses import BLOCK
from handlers.http.websocket import encode, text_of

SENT = Counter("rowhouse_frames_total", "Changes sent to sockets and streams.")

LOOKED = Gauge(
    "rowhouse_feed_looked_timestamp_seconds",
    "When a process last looked for changes, of those in which somebody listens the one that waits longest.",
    multiprocess_mode="livemin",
)
LOOKED.set(float("inf"))

Packed = Callable[[tuple[bytes, ...]], bytes]
"""How frames go out on a connection."""

feed: Feed


def open_feed(dsn: str) -> None:
    """Let this process's subscribers be fed from this database."""
    global feed
    feed = Feed(dsn, encode, LOOKED.set)


def place(value: str) -> None:
    try:
        Cursor.parse(value)
    except ValueError:
        raise ValidationError("Not a cursor of this channel.") from None


class ChangesQuery(Schema):
    """What to be told of, and from where on."""

    project = IntegerParam(metadata={"description": "Only what belongs to this project."})
    obj_type = Names(
        500,
        metadata={"description": "Only this kind of object, or these, with commas between.", "example": "userstory"},
    )
    obj_id = Text(1000, metadata={"description": "Only the object with this key."})
    since = Text(8000, validate=[place], metadata={"description": "The `cursor` of the last frame one has seen."})


def check_room() -> None:
    """429 or 503 where there are too many who listen."""
    config = current_app.config
    if len(sockets) >= min(config["SOCKETS_LIMIT"], config["CONNECTIONS_LIMIT"] * 9 // 10):
        abort(503, "There are too many sockets.")
    if too_many():
        raise ProblemException("too-many-at-once", f"The token has {config['SOCKETS_PER_TOKEN']} sockets already.")


def wanted(
    project: str | None = None, obj_type: str | None = None, obj_id: str | None = None
) -> Callable[[Change], bool] | None:
    """Whether a change is what is asked for, and of the token's project; None for all.

    That a table was emptied, or loaded, is about each object of its kind, and each project that its rows belong to.
    """
    projects = {int(each) for each in (project, only_project.get()) if each}
    if obj_type is None and obj_id is None and not projects:
        return None
    kinds = (obj_type or "").split(",")
    keys = (obj_id, json.dumps(obj_id, ensure_ascii=False))
    return lambda change: (
        (not projects or change.of_projects or projects == {change.project})
        and (obj_type is None or change.obj_type in kinds)
        # A key is given as it stands in its address.
        and (obj_id is None or change.of_all or change.obj_id in keys)
    )


def subscription_to(query: dict[str, Any], wake: Callable[[Subscription], object]) -> Subscription:
    """A subscription to what a query asks for."""
    project = query.get("project") or only_project.get()
    return Subscription(wanted(**query), wake, query | ({"project": project} if project else {}))


def hand_over(listener: Server | Stream, packed: Packed, subscription: Subscription) -> None:
    """Send a subscription's frames at once where its greenlet waits for them and its token is good; else wake it."""
    sendable = listener.sock.is_free() and listener.connected and not subscription.ended and is_known_good(listener)
    if sendable and listener.sock.offer(packed(subscription.frames)):
        SENT.inc(len(subscription.frames))
        subscription.frames = ()
        if not listener.sock.rest:
            return
    listener.event.set()


def last_seen(since: str | None) -> Cursor | None:
    """Where to go on: a browser that connects again names it in a header, whatever its address says."""
    if seen := request.headers.get("Last-Event-ID"):
        try:
            place(seen)
        except ValidationError as error:
            raise ValidationError({"Last-Event-ID": error.messages}) from None
    found = seen or since
    return Cursor.parse(found) if found else None


def cursor_in(text: bytes) -> str:
    """The cursor of a frame, which is its last member."""
    return text[text.rindex(b'"cursor":"') + 10 : -2].decode()


def why_lost(cursor: Cursor) -> str | None:
    """Why nothing can be resumed from a cursor; None where it can. 503 on a standby."""
    lost = of_a_feed(read("feed.lost", since=cursor.snapshot))
    if cursor.feed.partition(".")[0] != lost.feed.partition(".")[0]:
        return "The cursor is of another database."
    if cursor.feed != lost.feed:
        return "The server was replaced or restored since."
    reason: str | None = lost.reason
    return reason


def present() -> Cursor:
    """The place where the feed is now. 503 on a standby."""
    row = of_a_feed(read("feed.present"))
    return Cursor(row.feed, row.snapshot)


def of_a_feed(row: Any) -> Any:
    """What was read of the feed. 503 on a standby, which has none."""
    if row.feed is None:
        abort(503, "The database is a standby, which has no feed.")
    return row


def missed(
    subscription: Subscription, cursor: Cursor, until: Cursor, form: Callable[[bytes], bytes] | None = None
) -> Generator[bytes, None, None]:
    """The frames between two places, or what `form` makes of their texts, in blocks that are worth sending.

    What is chosen holds them to the token's project, as it does what comes live: row-level security would hide that a
    table was emptied.
    """
    only_project.set("")
    some: list[bytes] = []
    size = 0
    with closing(feed.missed(cursor, until.snapshot, subscription.query)) as changes:
        for frame in subscription.chosen(changes):
            some.append(form(text_of(frame)) if form else frame)
            size += len(frame)
            SENT.inc()
            if size > BLOCK:
                yield b"".join(some)
                some, size = [], 0
    if some:
        yield b"".join(some)
