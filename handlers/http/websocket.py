"""What WebSockets need beside simple-websocket: checked handshakes, small inboxes, frames made once."""

import json
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, SupportsIndex

from flask import Response, abort
from simple_websocket import ConnectionClosed, Server
from wsproto.utilities import LocalProtocolError

from handlers.http import problems
from handlers.http.problems import ProblemException
from handlers.http.request_body import sends_any
from handlers.http.steady import SEND_WITHIN

GOING_AWAY, UNSUPPORTED, REFUSED, BROKEN, TRY_AGAIN = 1001, 1003, 1008, 1011, 1013
"""Why a socket is closed: the service stops; unknown message; no good token; bug; no reading, or the feed is away."""

MESSAGE_LIMIT, INBOX = 1024, 16
"""Bytes of a client's message, and how many may wait."""

FIRST_LIMIT = 16 * 1024
"""Bytes of the first message, which may hold a token that others made."""

PING_EVERY = 25
"""Seconds between two pings; a client that does not answer one by the next is gone."""

ENDS_WITHIN = 2 * SEND_WITHIN
"""Seconds in which who reads has ended: a pong may have to be given up before."""

OPTIONS = {"ping_interval": PING_EVERY, "max_message_size": FIRST_LIMIT}
"""Flask-Sock's SOCK_SERVER_OPTIONS."""


CLOSED = (ConnectionClosed, LocalProtocolError)
"""What is raised where another has closed a socket, and where it is just about to: it waits to send its last frame."""

TARGET = re.compile("/[!-~]*")
"""A path with its query, as it stands in a request."""

VERSION = "13"
"""The only Sec-WebSocket-Version there is (RFC 6455, 4.4)."""

KEY = re.compile("[A-Za-z0-9+/]{21}[AQgw]==")
"""A Sec-WebSocket-Key: 16 bytes in Base64. Two of them are joined by a comma, and are none."""


def check_handshake(environ: dict[str, Any]) -> None:
    """426 for another version of the protocol, 400 for a bad key or a body: simple-websocket would fail at each."""
    if environ.get("HTTP_SEC_WEBSOCKET_VERSION") != VERSION:
        refused = ProblemException("upgrade-required", f"The Sec-WebSocket-Version must be {VERSION}.")
        refused.headers = {"Upgrade": "websocket", "Sec-WebSocket-Version": VERSION}
        raise refused
    if not KEY.fullmatch(environ.get("HTTP_SEC_WEBSOCKET_KEY", "")):
        abort(400, "There must be one Sec-WebSocket-Key: 16 bytes in Base64.")
    if sends_any():
        abort(400, "A handshake has no body.")


class Inbox(list[str | bytes]):
    """The messages that wait, never many: of whoever sends more nothing is read until there is room."""

    def __init__(self, ws: Server) -> None:
        super().__init__(ws.input_buffer)
        self.ws, self.room = ws, threading.Event()

    def append(self, message: str | bytes) -> None:
        while len(self) >= INBOX and self.ws.connected:
            self.room.clear()
            self.room.wait(1)
        super().append(message)

    def pop(self, index: SupportsIndex = -1) -> str | bytes:
        self.room.set()
        return super().pop(index)


def encode(text: str) -> bytes:
    """A text as a WebSocket frame (RFC 6455, 5.2): made once, whatever the number of sockets."""
    return framed(text.encode())


def framed(payload: bytes) -> bytes:
    if len(payload) < 126:
        head = bytes([0x81, len(payload)])
    elif len(payload) < 2**16:
        head = b"\x81\x7e" + len(payload).to_bytes(2, "big")
    else:
        head = b"\x81\x7f" + len(payload).to_bytes(8, "big")
    return head + payload


def text_of(frame: bytes) -> bytes:
    """What a frame of encode() says."""
    return frame[{126: 4, 127: 10}.get(frame[1], 2) :]


def fragments(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """A text in many frames, so that none needs to know how long it is (RFC 6455, 5.4)."""
    opcode = 0x01
    for block in blocks:
        frame = bytearray(framed(block))
        frame[0] = opcode
        yield bytes(frame)
        opcode = 0x00
    yield b"\x80\x00"


def reply(ws: Server, message: str | bytes) -> str | None:
    """Answer a command. What is to be sent a snapshot of is returned."""
    try:
        command = json.loads(message)
        wish = (command["cmd"], command.get("path"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        wish = (None, None)
    match wish:
        case "snapshot", str(path) if TARGET.fullmatch(path):
            return path
        case "ping", _:
            ws.send('{"cmd": "pong"}')
        case "auth", _:  # nobody asked for it
            pass
        case _:
            close(ws, UNSUPPORTED, "There are the commands ping, and snapshot with a path.")
    return None


def close(ws: Server, code: int, reason: str) -> NoReturn:
    ws.close(code, reason)
    raise ConnectionClosed(code, reason)


class Gone(Response):
    """What a client that has gone is answered: nothing. Its connection ends, as behind a socket."""

    def __call__(self, *_: object) -> NoReturn:
        raise StopIteration


def say_goodbye(ws: Any, code: int, reason: str) -> None:
    """Close a socket from outside of its greenlet."""
    with suppress(*CLOSED, OSError):
        ws.close(code, reason)
    ws.event.set()


@contextmanager
def ended_by_a_code(ws: Server) -> Iterator[None]:
    """Whatever goes wrong within the block, the client is told by a code: what Flask would answer were no frame."""
    try:
        yield
    except CLOSED:
        pass
    except OSError:  # the client is gone, or does not read: TimeoutError is one, too
        ws.connected = False
    except Exception as error:  # whatever it is
        code, reason = code_of(error)
        with suppress(*CLOSED, OSError):
            ws.close(code, reason)
    finally:
        stop_reading(ws)


def stop_reading(ws: Server) -> None:
    """End the greenlet that reads, before the server closes its socket: libev aborts a process in which somebody still
    watches a descriptor that is closed."""
    ws.connected = False
    ws.input_buffer.room.set()  # who waits for some sees that
    ws.sock.stop_reading()
    ws.thread.join(ENDS_WITHIN)


def code_of(error: Exception) -> tuple[int, str]:
    """What would be an answer's status as the code of a close, with its reason."""
    answer = problems.of(error)
    codes = dict.fromkeys((429, 503, 504), TRY_AGAIN) | {500: BROKEN}
    return codes.get(answer.status_code, REFUSED), answer.get_json()["detail"]
