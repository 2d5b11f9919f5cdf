"""Sockets on which much is sent to many: by whoever has it, where their clients take it at once."""

import socket
import threading
from contextlib import suppress
from typing import Any

import gevent.socket

SEND_WITHIN = 10.0
"""Seconds in which a client must read what it is sent."""


class Steady:
    """A socket whose `send` sends all, one message after the other, and gives up on a client who does not read.

    simple-websocket sends pongs in one greenlet and frames in another, and takes a part that was sent for the whole.
    While its own greenlet waits, by `wait`, others may `offer` what it would send: a switch to it and back, for each
    of many clients, would cost more than the sending.
    """

    def __init__(self, client: Any) -> None:
        self.socket, self.lock = client, threading.Lock()
        self.plain: Any = getattr(client, "_sock", None) if type(client) is gevent.socket.socket else None
        self.waits, self.rest, self.is_read = False, b"", True

    def send(self, data: bytes) -> None:
        with gevent.Timeout(SEND_WITHIN, TimeoutError), self.lock:
            data, self.rest = self.rest + data, b""
            # Not sendall, which asks the system for the size of its buffer each time: a fifth of what a frame costs.
            while data and (sent := self.socket.send(data)):
                data = data[sent:]

    def recv(self, size: int) -> bytes:
        return self.socket.recv(size) if self.is_read else b""

    def stop_reading(self) -> None:
        """Let whoever reads find the end, now; a shutdown alone would still give them all that comes."""
        self.is_read = False
        with suppress(OSError):  # closed already
            self.socket.shutdown(socket.SHUT_RD)

    def wait(self, event: threading.Event, seconds: float | None = None) -> bool:
        """Wait for an event, and let others send meanwhile; then send the rest of what they could not send all of."""
        self.waits = True
        try:
            woken = event.wait(seconds)
        finally:
            self.waits = False
        if self.rest:
            self.send(b"")
        return woken

    def is_free(self) -> bool:
        """Whether others may send now."""
        return self.waits and self.plain is not None and not self.rest and not self.lock.locked()

    def offer(self, data: bytes) -> bool:
        """Send what the system takes at once, while it is free; whether it took any of it."""
        try:
            self.rest = data[self.plain.send(data) :]
        except OSError:  # no room, or no client: whoever waits finds out
            return False
        return True

    def __getattr__(self, name: str) -> Any:
        return getattr(self.socket, name)
