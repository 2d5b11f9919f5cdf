"""Events: the WebSocket channel on which every committed change arrives, once."""

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import gevent
from flask import Blueprint, abort, current_app, g, request
from flask_sock import Sock
from marshmallow import Schema, ValidationError
from simple_websocket import ConnectionClosed, Server
from werkzeug.exceptions import HTTPException

from db import project as only_project
from db import read
from db.feed import Change, Cursor, Feed, Subscription
from handlers.access import admit, holder, needs, waits_for_token
from handlers.contract import gives, takes
from handlers.fields import Digits, Text
from handlers.metrics import Counter, Gauge
from handlers.sockets import GOING_AWAY, REFUSED, TRY_AGAIN, Inbox, Steady, close, encode, reply

events = Blueprint("events", __name__)
sock = Sock()

AUTHENTICATE_WITHIN = 5
"""Seconds for the message with the token."""

OPEN = Gauge("rowhouse_sockets", "Open sockets of the channel.", multiprocess_mode="livesum")
SENT = Counter("rowhouse_frames_total", "Changes sent to sockets.")

sockets: dict[Server, str | None] = {}
"""Those that are open, each with its token."""
feed: Feed


def place(value: str) -> None:
    try:
        Cursor.parse(value)
    except ValueError:
        raise ValidationError("Not a cursor of this channel.") from None


class EventsQuery(Schema):
    """What to be told of, and from where on."""

    project = Digits(metadata={"description": "Only what belongs to this project."})
    obj_type = Text(100, metadata={"description": "Only this kind of object.", "example": "userstory"})
    obj_id = Text(1000, metadata={"description": "Only the object with this key."})
    since = Text(20_000, validate=[place], metadata={"description": "The `cursor` of the last frame one has seen."})


def open_feed(dsn: str) -> None:
    """Let this process's sockets be fed from this database."""
    global feed
    feed = Feed(dsn, encode)


@events.before_request
def check_caller() -> None:
    """Before the upgrade: 429 or 503 where there are too many sockets."""
    if len(sockets) >= current_app.config["SOCKETS_LIMIT"]:
        abort(503, "There are too many sockets.")
    if too_many():
        abort(429, f"The token has {current_app.config['SOCKETS_PER_TOKEN']} sockets already.")
    # Compression would keep some 300 KB a socket, and make each frame anew for each.
    request.environ.pop("HTTP_SEC_WEBSOCKET_EXTENSIONS", None)


@sock.route("/ws/events", bp=events)  # type: ignore[untyped-decorator]
@needs("reader", by_message=True)
@takes(query=EventsQuery)
@gives(status=101)
def channel(ws: Server, query: dict[str, Any]) -> None:
    """Every change after its commit, once, in the order of each object: a WebSocket, described in the README."""
    ws.sock, ws.input_buffer = Steady(ws.sock), Inbox(ws.input_buffer)
    if waits_for_token():
        authenticate(ws)
    if too_many():
        close(ws, REFUSED, "The token has too many sockets already.")
    subscription = Subscription(wanted(query), ws.event.set)
    sockets[ws] = g.token
    OPEN.inc()
    try:
        subscribe(ws, subscription, query.get("since"))
        talk(ws, subscription, g.token)
    except OSError:  # the client is gone, or does not read: TimeoutError is one, too
        ws.connected = False
    finally:
        feed.leave(subscription)
        del sockets[ws]
        OPEN.dec()


def too_many() -> bool:
    """Whether the holder of the token has as many sockets in this process as it may."""
    if g.token is None:
        return False
    return [*sockets.values()].count(g.token) >= current_app.config["SOCKETS_PER_TOKEN"]


def authenticate(ws: Server) -> None:
    """Let in whose first message has a good token, as {"cmd": "auth", "token": "…"}; close all others."""
    with suppress(ValueError, TypeError, KeyError, RecursionError, HTTPException):
        message = json.loads(ws.receive(AUTHENTICATE_WITHIN) or "")
        if message["cmd"] == "auth":
            g.caller = admit(str(message["token"]), "reader")
            return
    close(ws, REFUSED, "The first message must have a good token.")


def wanted(query: dict[str, Any]) -> Callable[[Change], bool] | None:
    """Whether a change is what a query asks for, and of the token's project; None for all."""
    only = only_project.get()
    if not query.keys() - {"since"} and not only:
        return None
    project, obj_type, obj_id = (query.get(name) for name in ("project", "obj_type", "obj_id"))
    keys = (obj_id, json.dumps(obj_id, ensure_ascii=False))
    return lambda change: (
        (not only or change.project == int(only))
        and (project is None or change.project == project)
        and (obj_type is None or change.obj_type == obj_type)
        # A key is given as it stands in its address.
        and (obj_id is None or change.obj_id in keys)
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
    send(ws, subscription.chosen(feed.missed(cursor, present)))
    join(ws, subscription)
    send(ws, subscription.chosen(feed.missed(Cursor(cursor.feed, present), subscription.place.snapshot)))


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
            close(ws, REFUSED, "The token is no longer good.")
        if subscription.frames:
            frames, subscription.frames = subscription.frames, []
            send(ws, [b"".join(frames)], len(frames))


def send(ws: Server, frames: Iterable[bytes], each: int = 1) -> None:
    """Send frames, or bytes that are several."""
    for frame in frames:
        ws.sock.send(frame)
        SENT.inc(each)


def close_all() -> None:
    """Tell every client that the service stops."""
    for ws in [*sockets]:
        gevent.spawn(go_away, ws)


def go_away(ws: Server) -> None:
    with suppress(ConnectionClosed, OSError):
        ws.close(GOING_AWAY, "The service stops.")
    ws.event.set()
