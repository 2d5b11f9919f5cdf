"""Events: the WebSocket channel on which every committed change arrives, once."""

import json
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, closing, suppress
from typing import Any

from flask import Blueprint, abort, current_app, g, request
from flask_sock import Sock
from marshmallow import Schema, ValidationError
from simple_websocket import ConnectionClosed, Server
from werkzeug.exceptions import HTTPException

from db import project as only_project
from db import read
from db.feed import Change, Cursor, Feed, Subscription
from handlers.http import websocket
from handlers.http.auth import admit, holder, requires_role, waits_for_token
from handlers.http.contract import gives, takes
from handlers.http.fields import IntegerParam, Text
from handlers.http.metrics import Counter
from handlers.http.open_sockets import NO_LONGER_GOOD, counted, sockets, too_many
from handlers.http.problems import ProblemException
from handlers.http.responses import BLOCK
from handlers.http.streaming import ahead
from handlers.http.websocket import REFUSED, TRY_AGAIN, Inbox, Steady, close, encode, ended_by_a_code, reply

routes = Blueprint("feed", __name__)
sock = Sock()

AUTHENTICATE_WITHIN = 5
"""Seconds for the message with the token."""

SENT = Counter("rowhouse_frames_total", "Changes sent to sockets.")

feed: Feed


def place(value: str) -> None:
    try:
        Cursor.parse(value)
    except ValueError:
        raise ValidationError("Not a cursor of this channel.") from None


class EventsQuery(Schema):
    """What to be told of, and from where on."""

    project = IntegerParam(metadata={"description": "Only what belongs to this project."})
    obj_type = Text(100, metadata={"description": "Only this kind of object.", "example": "userstory"})
    obj_id = Text(1000, metadata={"description": "Only the object with this key."})
    since = Text(20_000, validate=[place], metadata={"description": "The `cursor` of the last frame one has seen."})


def open_feed(dsn: str) -> None:
    """Let this process's sockets be fed from this database."""
    global feed
    feed = Feed(dsn, encode)


@routes.before_request
def check_caller() -> None:
    """Before the upgrade: 400 or 426 for no good handshake, 429 or 503 where there are too many sockets."""
    websocket.check_handshake(request.environ)
    if len(sockets) >= current_app.config["SOCKETS_LIMIT"]:
        abort(503, "There are too many sockets.")
    if too_many():
        raise ProblemException(
            "too-many-at-once", f"The token has {current_app.config['SOCKETS_PER_TOKEN']} sockets already."
        )
    # Compression would keep some 300 KB a socket, and make each frame anew for each.
    request.environ.pop("HTTP_SEC_WEBSOCKET_EXTENSIONS", None)


@sock.route("/ws/events", bp=routes)  # type: ignore[untyped-decorator]
@requires_role("reader", by_message=True, of_project=True)
@takes(query=EventsQuery)
@gives(status=101)
def channel(ws: Server, query: dict[str, Any]) -> None:
    """Every change after its commit, once, in the order of each object: a WebSocket, described in docs/clients.md."""
    ws.sock, ws.input_buffer = Steady(ws.sock), Inbox(ws.input_buffer)
    with ended_by_a_code(ws), ExitStack() as ends:
        if waits_for_token():
            authenticate(ws)
        if too_many():
            close(ws, REFUSED, "The token has too many sockets already.")
        subscription = Subscription(wanted(query), ws.event.set)
        ends.enter_context(counted(ws))
        ends.callback(feed.leave, subscription)
        subscribe(ws, subscription, query.get("since"))
        talk(ws, subscription, g.token)


def authenticate(ws: Server) -> None:
    """Let in whose first message has a good token, as {"cmd": "auth", "token": "…"}; close all others."""
    with suppress(ValueError, TypeError, KeyError, RecursionError, HTTPException):
        message = json.loads(ws.receive(AUTHENTICATE_WITHIN) or "")
        if message["cmd"] == "auth":
            g.caller = admit(str(message["token"]), "reader")
            return
    close(ws, REFUSED, "The first message must have a good token.")


def wanted(query: dict[str, Any]) -> Callable[[Change], bool] | None:
    """Whether a change is what a query asks for, and of the token's project; None for all.

    That a table was emptied is about each object that was in it, and about each project that its rows belonged to.
    """
    projects = {int(each) for each in (query.get("project"), only_project.get()) if each}
    if not query.keys() - {"since"} and not projects:
        return None
    obj_type, obj_id = query.get("obj_type"), query.get("obj_id")
    keys = (obj_id, json.dumps(obj_id, ensure_ascii=False))
    return lambda change: (
        (not projects or change.of_projects or projects == {change.project})
        and (obj_type is None or change.obj_type == obj_type)
        # A key is given as it stands in its address.
        and (obj_id is None or change.emptied or change.obj_id in keys)
    )


def subscribe(ws: Server, subscription: Subscription, since: str | None) -> None:
    """Join the feed; a client that resumes is sent what it missed before."""
    if since is None:
        join(ws, subscription)
        ws.send(json.dumps({"type": "subscribed", "cursor": str(subscription.place)}))
        return
    cursor = Cursor.parse(since)
    lost = read("feed.lost", feed=cursor.feed, since=cursor.snapshot)
    if lost is None or lost.reason:
        reason = lost.reason if lost else "The cursor is of another database."
        ws.send(json.dumps({"type": "reset", "reason": reason}))
        ws.close()
        raise ConnectionClosed
    ws.send(json.dumps({"type": "subscribed", "cursor": since}))
    # First the long stretch, without joining: what is committed meanwhile shall not pile up in the queue.
    present = read("feed.present").snapshot
    catch_up(ws, subscription, cursor, present)
    join(ws, subscription)
    catch_up(ws, subscription, Cursor(cursor.feed, present), subscription.place.snapshot)


def catch_up(ws: Server, subscription: Subscription, cursor: Cursor, until: str) -> None:
    """Send what came between two places, read ahead of a slow client; of one caller one such is read at a time."""
    if cursor.until or cursor.snapshot != until:
        send(ws, ahead(joined(subscription, cursor, until), at_once=1))


def joined(subscription: Subscription, cursor: Cursor, until: str) -> Generator[bytes, None, None]:
    """The frames between two places in blocks that are worth sending.

    What is chosen holds them to the token's project, as it does what comes live: row-level security would hide that a
    table was emptied.
    """
    only_project.set("")
    some: list[bytes] = []
    size = 0
    with closing(feed.missed(cursor, until)) as changes:
        for frame in subscription.chosen(changes):
            some.append(frame)
            size += len(frame)
            SENT.inc()
            if size > BLOCK:
                yield b"".join(some)
                some, size = [], 0
    if some:
        yield b"".join(some)


def join(ws: Server, subscription: Subscription) -> None:
    if not feed.join(subscription):
        close(ws, TRY_AGAIN, "The feed is away.")


def talk(ws: Server, subscription: Subscription, token: str | None) -> None:
    """Send what comes from the feed, answer what comes from the client, until one of them ends it."""
    while ws.connected:
        ws.event.wait()
        ws.event.clear()
        while ws.input_buffer:
            reply(ws, ws.input_buffer.pop(0))
        if subscription.overflowed:
            close(ws, TRY_AGAIN, "You do not read.")
        if subscription.frames and token and not holder(token):
            close(ws, REFUSED, NO_LONGER_GOOD)
        if subscription.frames:
            frames, subscription.frames = subscription.frames, []
            send(ws, [b"".join(frames)])
            SENT.inc(len(frames))


def send(ws: Server, blocks: Iterable[bytes]) -> None:
    """Send whole frames, until the socket is closed by another greenlet."""
    for block in blocks:
        if not ws.connected:
            raise ConnectionClosed
        ws.sock.send(block)
