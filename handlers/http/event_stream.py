"""The forms in which frames are streamed by plain HTTP: server-sent events, and lines."""

from collections.abc import Callable
from functools import lru_cache, partial

from flask import request

from handlers.http.contract import NDJSON
from handlers.http.subscribers import Packed, cursor_in
from handlers.http.websocket import text_of

EVENTS = "text/event-stream"


def event(text: bytes) -> bytes:
    """A frame as a server-sent event."""
    return b"id: %b\ndata: %b\n\n" % (cursor_in(text).encode(), text)


def line(text: bytes) -> bytes:
    """A frame as a line."""
    return text + b"\n"


Form = Callable[[bytes], bytes]

FORMS: dict[str, Form] = {EVENTS: event, NDJSON: line}

QUIET: dict[Form, bytes] = {event: b":\n\n", line: b"\n"}
"""What a stream says when there is nothing to say: what those who read it pass over."""


def packed_as(form: Form | None) -> Packed:
    """How frames are sent on a connection that is in the midst of an answer in a form."""
    if request.environ["SERVER_PROTOCOL"] == "HTTP/1.0":
        return partial(joined, form)
    return partial(chunk, form)


@lru_cache(4)
def chunk(form: Form, frames: tuple[bytes, ...]) -> bytes:
    """Frames in a form, as one chunk (RFC 9112, 7.1)."""
    data = joined(form, frames)
    return b"%x\r\n%b\r\n" % (len(data), data)


@lru_cache(4)
def joined(form: Form, frames: tuple[bytes, ...]) -> bytes:
    """Frames in a form, as one piece; kept for the other streams that are sent the same at the same time."""
    return b"".join(form(text_of(frame)) for frame in frames)
