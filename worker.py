"""The porter: a gunicorn worker that reads plain requests itself, and leaves all others to gunicorn.

gunicorn's own reading and writing of HTTP costs twice what Flask does. Here a head is told by two regular expressions,
a header that was seen before by a look-up, and a short answer goes out in one write. What is not plain is handed to
gunicorn unread, together with its connection: a head that does not come whole, has a header twice, or speaks of the
connection, of chunks, of an upgrade or a proxy's scheme; a version other than HTTP/1.1. What strange heads mean is for
gunicorn to say.
"""

import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from io import BytesIO
from socket import SHUT_RD
from typing import Any, NamedTuple

import gevent
from gevent.local import local
from gevent.pool import Pool
from gunicorn import SERVER, util
from gunicorn.http.body import Body, LengthReader
from gunicorn.http.message import TOKEN_RE
from gunicorn.http.unreader import SocketUnreader
from gunicorn.http.wsgi import HEADER_VALUE_RE, Response, base_environ
from gunicorn.workers import ggevent
from gunicorn.workers.ggevent import VERSION, GeventWorker

BLOCK = 2**16
"""Bytes that are read at once: a head must lie within them."""

REQUEST_LINE = re.compile(rb"(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) (/[!\"$-~]*) HTTP/1\.1")

HEADER = re.compile(rb"([!#$%&'*+\-.^`|~0-9A-Za-z]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
"""Without the underscore, which the environment of WSGI cannot tell from a hyphen."""

LENGTH = re.compile("[0-9]{1,15}")

GUNICORNS = {
    *("CONNECTION", "EXPECT", "TRANSFER-ENCODING", "UPGRADE", "HTTP2-SETTINGS"),
    *("X-FORWARDED-PROTO", "X-FORWARDED-PROTOCOL", "X-FORWARDED-SSL"),
}
"""Headers that change what comes before or after their request, or its scheme if one believes them."""

REMEMBERED, WORTH_IT = 4096, 512
"""Headers that are remembered, and bytes of the longest."""

LOOK_EVERY = 0.5
"""Seconds between two looks for connections that are idle too long."""


class Head(NamedTuple):
    """A plain request: its environment, the length of its body, and what came after the head."""

    environ: dict[str, Any]
    length: int
    rest: bytes


class Limits(NamedTuple):
    """What a head may have, from gunicorn's settings: bytes of the request line, headers, bytes of one."""

    line: int
    headers: int
    header: int


def read_head(data: bytes, common: dict[str, Any], limits: Limits) -> Head | None:
    """The plain request that begins here, with its headers beside what is `common`; None where it is not plain."""
    head, end, rest = data.partition(b"\r\n\r\n")
    line, *headers = head.split(b"\r\n")
    found = REQUEST_LINE.fullmatch(line)
    if not (end and found and len(line) <= limits.line and len(headers) <= limits.headers):
        return None
    environ = common.copy()
    short = min(WORTH_IT, limits.header - 2)
    for each in headers:
        if len(each) > short:
            if len(each) + 2 > limits.header:
                return None
            header = read_header.__wrapped__(each)
        else:
            header = read_header(each)
        if header is None or header[0] in environ:
            return None
        environ[header[0]] = header[1]
    target = found[2].decode()
    path, _, query = target.partition("?")
    environ["REQUEST_METHOD"] = found[1].decode()
    environ["RAW_URI"] = target
    environ["PATH_INFO"] = util.unquote_to_wsgi_str(path) if "%" in path else path
    environ["QUERY_STRING"] = query
    return Head(environ, int(environ.get("CONTENT_LENGTH", 0)), rest)


@lru_cache(REMEMBERED)
def read_header(line: bytes) -> tuple[str, str] | None:
    """A header's name in the environment, and its value; None where it is not plain."""
    found = HEADER.fullmatch(line)
    if not found:
        return None
    name, value = found[1].decode().upper(), found[2].decode("latin-1").strip(" \t")
    if name == "CONNECTION" and value.lower() == "keep-alive":
        return "HTTP_CONNECTION", value
    if name in GUNICORNS or (name == "CONTENT-LENGTH" and not LENGTH.fullmatch(value)):
        return None
    key = name.replace("-", "_")
    return (key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"), value


class Target(NamedTuple):
    """What gunicorn's Response wants to know of a plain request."""

    method: str
    version: tuple[int, int] = (1, 1)

    def should_close(self) -> bool:
        return False


class Answer(Response):  # type: ignore[misc]
    """gunicorn's, whose first block goes out with its head."""

    headers_sent: bool

    def process_headers(self, headers: Iterable[tuple[str, str]]) -> None:
        rest: list[tuple[str, str]] = []
        for header in headers:
            (self.headers if is_plain(*header) else rest).append(header)
        super().process_headers(rest)

    def is_chunked(self) -> bool:
        return self.response_length is None and super().is_chunked()

    def write(self, block: bytes) -> None:
        if self.headers_sent or len(block) != self.response_length or self._omits_body:
            super().write(block)
            return
        self.headers_sent, self.sent = True, len(block)
        lines = [
            f"HTTP/1.1 {self.status}\r\nServer: {SERVER}\r\nDate: {date(int(time.time()))}\r\n",
            "Connection: close\r\n" if self.must_close else "Connection: keep-alive\r\n",
            *[f"{name}: {value}\r\n" for name, value in self.headers],
            "\r\n",
        ]
        whole = "".join(lines).encode("latin-1") + block
        sent = self.sock.send(whole)
        if sent < len(whole):
            self.sock.sendall(whole[sent:])


@lru_cache(2)
def date(second: int) -> str:
    """The Date of an answer, made once a second."""
    return util.http_date(second)


@lru_cache(REMEMBERED)
def is_plain(name: str, value: str) -> bool:
    """Whether a header of an answer is well-formed, and speaks neither of the connection nor of the length."""
    well_formed = TOKEN_RE.fullmatch(name) and HEADER_VALUE_RE.fullmatch(value)
    return bool(well_formed) and not util.is_hoppish(name) and name.lower() != "content-length"


class PrependedSocket:
    """A socket of which some was read already: that comes first."""

    __slots__ = ("data", "socket")

    def __init__(self, socket: Any, data: bytes) -> None:
        self.socket, self.data = socket, data

    def recv(self, size: int, *flags: int) -> bytes:
        if not self.data:
            return self.socket.recv(size, *flags)
        some, self.data = self.data[:size], self.data[size:]
        return some

    def __getattr__(self, name: str) -> Any:
        return getattr(self.socket, name)


def end_reading(client: Any) -> None:
    """Let a connection end where it waits. What has come already is still read: gevent's own shutdown cuts it off."""
    with suppress(OSError):
        client._sock.shutdown(SHUT_RD)


class Connections(Pool):  # type: ignore[misc]
    """The connections of a process: whoever asks whether all places are taken has somebody who waits for one."""

    def __init__(self, size: int, make_room: Callable[[], None]) -> None:
        super().__init__(size)
        self.make_room, self.wanted = make_room, False

    def full(self) -> bool:
        self.wanted = super().full()
        if self.wanted:
            self.make_room()
        return self.wanted


class Worker(GeventWorker):  # type: ignore[misc]
    """gunicorn's gevent worker, which answers plain requests itself."""

    def init_signals(self) -> None:
        """Ctrl-C reaches the whole foreground group, but the master alone answers it."""
        super().init_signals()
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def handle_quit(self, *_: object) -> None:
        gevent.spawn(self.leave)

    def leave(self) -> None:
        """End at once, without gunicorn's traceback of an exit from a greenlet."""
        self.alive = False
        self.cfg.worker_int(self)
        gevent.sleep(0.1)
        gevent.kill(gevent.get_hub().parent, SystemExit(0), block=False)

    def run(self) -> None:
        self.common = base_environ(self.cfg) | {
            "SERVER_SOFTWARE": VERSION,
            "SERVER_PROTOCOL": "HTTP/1.1",
            "SCRIPT_NAME": "",
            "wsgi.multithread": True,
            "wsgi.url_scheme": "http",
        }
        cfg = self.cfg
        self.limits = Limits(cfg.limit_request_line, cfg.limit_request_fields, cfg.limit_request_field_size)
        self.idle: dict[Any, float] = {}
        """Connections that nothing is asked on, the longest idle first: since when they wait for a head."""
        self.left_to_gunicorn = local()
        self.places = Connections(cfg.worker_connections, self.make_room)
        ggevent.Pool = lambda _: self.places
        gevent.spawn(self.close_idle)
        super().run()

    def make_room(self) -> None:
        """End the connection that is idle longest; where none is, the next look tries again."""
        if client := next(iter(self.idle), None):
            del self.idle[client]
            end_reading(client)

    def close_idle(self) -> None:
        """End connections whose next head does not come in time, and all that are idle once the worker stops."""
        while True:
            gevent.sleep(LOOK_EVERY)
            # A client that asks without pause is told in its next answer, and not cut in between.
            due = time.monotonic() - (self.cfg.keepalive if self.alive else LOOK_EVERY)
            for client, since in [*self.idle.items()]:
                if since <= due:
                    end_reading(client)
            if self.places.wanted:
                self.places.full()

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        cfg = self.cfg
        if cfg.is_ssl or cfg.accesslog or cfg.proxy_protocol != "off" or not cfg.keepalive or len(addr) < 2:
            self.left_to_gunicorn.client = client
            super().handle(listener, client, addr)
            return
        unread = b""
        try:
            client.setblocking(True)
            unread = self.answer_plain(client, addr, listener.getsockname())
        except (OSError, gevent.GreenletExit):  # the client is gone, or the worker
            pass
        except BaseException as error:
            self.handle_error(None, client, addr, error)
        if unread:
            self.left_to_gunicorn.client = client
            super().handle(listener, PrependedSocket(client, unread), addr)
        else:
            util.close(client)

    def answer_plain(self, client: Any, addr: Any, server: Any) -> bytes:
        """Answer plain requests until the connection ends, or until one is not: what was read of that."""
        common = self.common | {
            "REMOTE_ADDR": addr[0],
            "REMOTE_PORT": str(addr[1]),
            "SERVER_NAME": server[0],
            "SERVER_PORT": str(server[1]),
            "gunicorn.socket": client,
        }
        data = b""
        while True:
            data = data or self.receive(client, client.recv)
            head = read_head(data, common, self.limits) if data else None
            if head is None:
                return data
            behind = self.answer_with_body(client, head) if head.length else self.answer_without(client, head)
            if behind is None:
                return b""
            data = behind

    def receive(self, client: Any, some: Callable[[int], bytes]) -> bytes:
        """The next bytes of a connection that nothing is asked on just now; none where they do not come in time."""
        self.idle[client] = time.monotonic()
        try:
            return some(BLOCK)
        finally:
            self.idle.pop(client, None)

    @contextmanager
    def timeout_ctx(self) -> Iterator[None]:
        """Around gunicorn's wait for a head, which may come byte by byte: as idle as if none of it had come."""
        client = self.left_to_gunicorn.client
        self.idle[client] = time.monotonic()
        try:
            yield
        finally:
            self.idle.pop(client, None)

    def answer_without(self, client: Any, head: Head) -> bytes | None:
        """Answer a request without a body: what was read behind it, or None where the connection ends here."""
        head.environ["wsgi.input"] = BytesIO()
        return head.rest if self.answer(client, head.environ) else None

    def answer_with_body(self, client: Any, head: Head) -> bytes | None:
        """Answer a request that has a body; as `answer_without`."""
        unreader = SocketUnreader(client)
        unreader.unread(head.rest)
        body = head.environ["wsgi.input"] = Body(LengthReader(unreader, head.length))
        if not self.answer(client, head.environ) or body.failed:
            return None
        # What the application left of it must go before the next head can be told.
        left = self.receive(client, body.read)
        return unreader.take_buffered() if len(left) < BLOCK else None

    def answer(self, client: Any, environ: dict[str, Any]) -> bool:
        """Answer a request; whether another may follow."""
        self.nr += 1
        if self.nr >= self.max_requests:
            self.alive = False
        answer = Answer(Target(environ["REQUEST_METHOD"]), client, self.cfg)
        if not self.alive:
            answer.force_close()
        try:
            blocks = self.wsgi(environ, answer.start_response)
            try:
                for block in blocks:
                    answer.write(block)
                answer.close()
            finally:
                if hasattr(blocks, "close"):
                    blocks.close()
        except OSError:
            raise
        except Exception:
            if not answer.headers_sent:
                raise
            self.log.exception("Error handling request")
            return False
        return not answer.should_close()
