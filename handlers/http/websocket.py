"""What WebSockets need beside simple-websocket: whole sends, small inboxes, frames made once."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import gevent
from flask import abort
from simple_websocket import ConnectionClosed, Server

from handlers.http import problems
from handlers.http.problems import ProblemException

GOING_AWAY, UNSUPPORTED, REFUSED, BROKEN, TRY_AGAIN = 1001, 1003, 1008, 1011, 1013
"""Why a socket is closed: the service stops; unknown message; no good token; bug; no reading, or the feed is away."""

SEND_WITHIN = 10.0
"""Seconds in which a client must read what it is sent."""

MESSAGE_LIMIT, INBOX = 1024, 16
"""Bytes of a client's message, and how many may wait."""

PING_EVERY = 25
"""Seconds between two pings; a client that does not answer one by the next is gone."""

OPTIONS = {"ping_interval": PING_EVERY, "max_message_size": MESSAGE_LIMIT}
"""Flask-Sock's SOCK_SERVER_OPTIONS."""


VERSION = "13"
"""The only Sec-WebSocket-Version there is (RFC 6455, 4.4)."""

KEY = re.compile("[A-Za-z0-9+/]{21}[AQgw]==")
"""A Sec-WebSocket-Key: 16 bytes in Base64. Two of them are joined by a comma, and are none."""


def check_handshake(environ: dict[str, Any]) -> None:
    """426 for another version of the protocol, 400 for a bad key: simple-websocket would fail at either."""
    if environ.get("HTTP_SEC_WEBSOCKET_VERSION") != VERSION:
        refused = ProblemException("upgrade-required", f"The Sec-WebSocket-Version must be {VERSION}.")
        refused.headers = {"Upgrade": "websocket", "Sec-WebSocket-Version": VERSION}
        raise refused
    if not KEY.fullmatch(environ.get("HTTP_SEC_WEBSOCKET_KEY", "")):
        abort(400, "There must be one Sec-WebSocket-Key: 16 bytes in Base64.")


class Steady:
    """A socket whose `send` sends all, one message after the other, and gives up on a client who does not read.

    simple-websocket sends pongs in one greenlet and frames in another, and takes a part that was sent for the whole.
    """

    def __init__(self, socket: Any) -> None:
        self.socket, self.lock = socket, threading.Lock()

    def send(self, data: bytes) -> None:
        with gevent.Timeout(SEND_WITHIN, TimeoutError), self.lock:
            # Not sendall, which asks the system for the size of its buffer each time: a fifth of what a frame costs.
            while sent := self.socket.send(data):
                data = data[sent:]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.socket, name)


class Inbox(list[str | bytes]):
    """The messages that wait, never many."""

    def append(self, message: str | bytes) -> None:
        if len(self) >= INBOX:
            raise OSError("The client sends more than it reads.")
        super().append(message)


def encode(text: str) -> bytes:
    """A text as a WebSocket frame (RFC 6455, 5.2): made once, whatever the number of sockets."""
    payload = text.encode()
    if len(payload) < 126:
        head = bytes([0x81, len(payload)])
    elif len(payload) < 2**16:
        head = b"\x81\x7e" + len(payload).to_bytes(2, "big")
    else:
        head = b"\x81\x7f" + len(payload).to_bytes(8, "big")
    return head + payload


def reply(ws: Server, message: str | bytes) -> None:
    try:
        command = json.loads(message)["cmd"]
    except (ValueError, TypeError, KeyError, RecursionError):
        command = None
    if command == "auth":  # nobody asked for it
        return
    if command != "ping":
        close(ws, UNSUPPORTED, "There is only the command ping.")
    ws.send('{"cmd": "pong"}')


def close(ws: Server, code: int, reason: str) -> NoReturn:
    ws.close(code, reason)
    raise ConnectionClosed(code, reason)


def say_goodbye(ws: Server, code: int, reason: str) -> None:
    """Close a socket from outside of its greenlet."""
    with suppress(ConnectionClosed, OSError):
        ws.close(code, reason)
    ws.event.set()


@contextmanager
def ended_by_a_code(ws: Server) -> Iterator[None]:
    """Whatever goes wrong within the block, the client is told by a code: what Flask would answer were no frame."""
    try:
        yield
    except ConnectionClosed:
        pass
    except OSError:  # the client is gone, or does not read: TimeoutError is one, too
        ws.connected = False
    except Exception as error:  # whatever it is
        code, reason = code_of(error)
        with suppress(ConnectionClosed, OSError):
            ws.close(code, reason)


def code_of(error: Exception) -> tuple[int, str]:
    """What would be an answer's status as the code of a close, with its reason."""
    answer = problems.of(error)
    codes = dict.fromkeys((429, 503, 504), TRY_AGAIN) | {500: BROKEN}
    return codes.get(answer.status_code, REFUSED), answer.get_json()["detail"]
