"""Requests to addresses of others: no redirect is followed, and an answer has bounds of time and size."""

import http.client
import io
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

Failed = (OSError, http.client.HTTPException, ValueError)
"""What is raised where there is no good answer: a status other than 2xx, none in time, half of one, none at all."""


def fetch(url: str, within: float, limit: int, data: bytes | None = None, headers: Mapping[str, str] = {}) -> bytes:
    """The body of an answer to a GET, or to a POST with data: at most its first bytes. Raises Failed."""
    request = urllib.request.Request(url, data, {**headers})
    try:
        with OPENER.open(request, timeout=within) as answer:
            body: bytes = answer.read(limit)
            if answer.length and len(body) < limit:
                raise http.client.IncompleteRead(body, answer.length)
            return body
    except urllib.error.HTTPError as error:
        error.close()
        raise


class BoundedResponse(http.client.HTTPResponse):
    """An answer whose head came whole: Python takes one that was cut for it, and of those before it knows only 100."""

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]
        # 101 is an answer: to a request for another protocol, and we made none.
        interim = 100 <= status < 200 and status != http.HTTPStatus.SWITCHING_PROTOCOLS
        return version, http.HTTPStatus.CONTINUE if interim else status, reason

    def begin(self) -> None:
        super().begin()
        if self.fp.raw.ended:  # type: ignore[attr-defined]
            raise http.client.IncompleteRead(b"")


class Connection(http.client.HTTPConnection):
    """A connection whose timeout is for all of it together: to connect, to send, to receive the last byte."""

    response_class = BoundedResponse

    def __init__(self, host: str, timeout: float, **options: Any) -> None:
        super().__init__(host, timeout=timeout, **options)
        self.deadline = time.monotonic() + timeout
        self._create_connection = self.reach

    def left(self) -> float:
        seconds = self.deadline - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("timed out")
        return seconds

    def reach(self, address: tuple[str, int], *_: object) -> socket.socket:
        """Connect to the first of a host's addresses that answers."""
        error: OSError = OSError("The host has no address.")
        for found in socket.getaddrinfo(*address, type=socket.SOCK_STREAM):
            where: Any = found[4][:2]
            try:
                sock = socket.create_connection(where, self.left())
                sock.settimeout(self.left())
                return sock
            except OSError as failed:
                error = failed
        raise error

    def connect(self) -> None:
        super().connect()
        self.sock: Any = Timed(self.sock, self)


class SecureConnection(Connection, http.client.HTTPSConnection):
    """The same over TLS."""


class Timed:
    """A socket that takes what is left of its connection's time for each step."""

    def __init__(self, sock: socket.socket, connection: Connection) -> None:
        self.sock, self.connection = sock, connection

    def sendall(self, data: Any) -> None:
        self.sock.settimeout(self.connection.left())
        self.sock.sendall(data)

    def makefile(self, *_: object) -> io.BufferedReader:
        return io.BufferedReader(TimedReader(self.sock, self.connection))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)


class TimedReader(io.RawIOBase):
    ended = False

    def __init__(self, sock: socket.socket, connection: Connection) -> None:
        self.sock, self.connection, self.raw = sock, connection, sock.makefile("rb", 0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self.sock.settimeout(self.connection.left())
        size = self.raw.readinto(buffer)
        self.ended = size == 0
        return size

    def close(self) -> None:
        self.raw.close()
        super().close()


class Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(Connection, req)  # type: ignore[arg-type]


class Https(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(SecureConnection, req)  # type: ignore[arg-type]


OPENER = urllib.request.OpenerDirector()
"""What speaks HTTP, by a proxy where the environment names one, and nothing else: a redirect is a failure."""

for handler in (
    urllib.request.ProxyHandler,
    Http,
    Https,
    urllib.request.UnknownHandler,
    urllib.request.HTTPDefaultErrorHandler,
    urllib.request.HTTPErrorProcessor,
):
    OPENER.add_handler(handler())
