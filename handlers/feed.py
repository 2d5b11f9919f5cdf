"""Events: the WebSocket channel on which every committed change arrives, once."""

import json
from collections.abc import Iterable
from contextlib import ExitStack, closing, suppress
from functools import partial
from itertools import chain
from typing import Any

from flask import Blueprint, g, request
from flask_sock import Sock
from simple_websocket import ConnectionClosed, Server
from werkzeug.exceptions import HTTPException

from db.feed import Cursor, Subscription
from handlers.http import subscribers, websocket
from handlers.http.asides import asked
from handlers.http.auth import admit, requires_role, waits_for_token
from handlers.http.contract import gives, takes
from handlers.http.open_sockets import counted, is_still_good, too_many
from handlers.http.steady import Steady
from handlers.http.streaming import ahead
from handlers.http.subscribers import (
    SENT,
    ChangesQuery,
    check_room,
    hand_over,
    missed,
    present,
    subscription_to,
    why_lost,
)
from handlers.http.tokens import NO_LONGER_GOOD
from handlers.http.websocket import (
    MESSAGE_LIMIT,
    REFUSED,
    TRY_AGAIN,
    Gone,
    Inbox,
    close,
    ended_by_a_code,
    fragments,
    reply,
)

routes = Blueprint("feed", __name__)
sock = Sock()

AUTHENTICATE_WITHIN = 5
"""Seconds for the message with the token."""


@routes.before_request
def check_caller() -> None:
    """Before the upgrade: 400 or 426 for no good handshake, 429 or 503 where there are too many sockets."""
    websocket.check_handshake(request.environ)
    check_room()
    # Compression would keep some 300 KB a socket, and make each frame anew for each.
    request.environ.pop("HTTP_SEC_WEBSOCKET_EXTENSIONS", None)


@routes.errorhandler(ConnectionError)
def end_without_answer(_: ConnectionError) -> Gone:
    """A client that has gone while it shook hands: later ones are ended_by_a_code."""
    return Gone()


@sock.route("/ws/events", bp=routes)  # type: ignore[untyped-decorator]
@requires_role("reader", by_message=True, of_project=True)
@takes(query=ChangesQuery)
@gives(status=101)
def channel(ws: Server, query: dict[str, Any]) -> None:
    """Every change after its commit, once, in the order of each object: a WebSocket, described in docs/clients.md."""
    ws.sock, ws.input_buffer = Steady(ws.sock), Inbox(ws)
    since = query.pop("since", None)
    with ended_by_a_code(ws), ExitStack() as ends:
        if waits_for_token():
            authenticate(ws)
        ws.max_message_size = MESSAGE_LIMIT
        if too_many():
            close(ws, REFUSED, "The token has too many sockets already.")
        subscription = subscription_to(query, partial(hand_over, ws, b"".join))
        ends.enter_context(counted(ws))
        ends.callback(subscribers.feed.leave, subscription)
        subscribe(ws, subscription, since)
        talk(ws, subscription, g.token)


def authenticate(ws: Server) -> None:
    """Let in whose first message has a good token, as {"cmd": "auth", "token": "…"}; close all others."""
    with suppress(ValueError, TypeError, KeyError, RecursionError, HTTPException):
        message = json.loads(ws.receive(AUTHENTICATE_WITHIN) or "")
        if message["cmd"] == "auth":
            g.caller = admit(str(message["token"]), "reader")
            request.environ["HTTP_AUTHORIZATION"] = f"Bearer {message['token']}"
            return
    close(ws, REFUSED, "The first message must have a good token.")


def subscribe(ws: Server, subscription: Subscription, since: str | None) -> None:
    """Join the feed; a client that resumes is sent what it missed before."""
    if since is None:
        join(ws, subscription)
        ws.send(json.dumps({"type": "subscribed", "cursor": str(subscription.place)}))
        return
    cursor = Cursor.parse(since)
    if reason := why_lost(cursor):
        ws.send(json.dumps({"type": "reset", "reason": reason}))
        ws.close()
        raise ConnectionClosed
    ws.send(json.dumps({"type": "subscribed", "cursor": since}))
    go_on(ws, subscription, cursor)


def go_on(ws: Server, subscription: Subscription, cursor: Cursor) -> None:
    """Send all that came after a place, and join."""
    # First the long stretch, without joining: what is committed meanwhile shall not pile up in the queue.
    now = present()
    catch_up(ws, subscription, cursor, now)
    join(ws, subscription)
    catch_up(ws, subscription, now, subscription.place)


def catch_up(ws: Server, subscription: Subscription, cursor: Cursor, until: Cursor) -> None:
    """Send what came between two places, read ahead of a slow client; of one caller one such is read at a time."""
    if cursor != until:
        send(ws, ahead(missed(subscription, cursor, until), at_once=1))


def join(ws: Server, subscription: Subscription) -> None:
    if not subscribers.feed.join(subscription):
        close(ws, TRY_AGAIN, subscription.ended or "The feed is away.")


def talk(ws: Server, subscription: Subscription, token: str | None) -> None:
    """Send what comes from the feed, answer what comes from the client, until one of them ends it."""
    ws.event.set()  # for what came together with the token
    while ws.connected:
        ws.sock.wait(ws.event)
        ws.event.clear()
        while ws.input_buffer:
            if path := reply(ws, ws.input_buffer.pop(0)):
                check_that_it_goes_on(ws, subscription)
                frames, place = subscribers.feed.leave(subscription)
                deliver(ws, frames, token)
                send_snapshot(ws, subscription, place, path)
        check_that_it_goes_on(ws, subscription)
        if subscription.frames:
            frames, subscription.frames = subscription.frames, ()
            deliver(ws, frames, token)


def check_that_it_goes_on(ws: Server, subscription: Subscription) -> None:
    if subscription.ended:
        close(ws, TRY_AGAIN, subscription.ended)


def deliver(ws: Server, frames: tuple[bytes, ...], token: str | None) -> None:
    """Send frames to who still may have them."""
    if not is_still_good(token):
        close(ws, REFUSED, NO_LONGER_GOOD)
    send(ws, [b"".join(frames)])
    SENT.inc(len(frames))


def send_snapshot(ws: Server, subscription: Subscription, place: Cursor, path: str) -> None:
    """Send what GET answers: behind all that came before it was read, and before all that came after."""
    blocks, status, headers = asked(path)
    with closing(blocks):
        # What has a version instead may be newer than what comes next.
        cursor = Cursor.parse(headers["Feed-Cursor"]) if "Feed-Cursor" in headers else place
        catch_up(ws, subscription, place, cursor)
        head = json.dumps({"type": "snapshot", "path": path, "cursor": str(cursor)})[:-1]
        member = "body" if status == 200 else "problem"
        send(ws, fragments(chain([f'{head}, "{member}": '.encode()], blocks, [b"}"])))
    go_on(ws, subscription, cursor)


def send(ws: Server, blocks: Iterable[bytes]) -> None:
    """Send whole frames, until the socket is closed by another greenlet."""
    for block in blocks:
        if not ws.connected:
            raise ConnectionClosed
        ws.sock.send(block)
