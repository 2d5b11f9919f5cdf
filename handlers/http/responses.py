"""The answers of the routes: one object with its ETag, a page, a stream of pages."""

from collections.abc import Generator
from contextlib import closing
from hashlib import sha256
from itertools import chain, islice
from typing import Any
from urllib.parse import urlencode

from flask import abort, g, request
from flask.globals import request_ctx

from db import as_of, read, run, snapshot
from db.feed import Cursor
from handlers.http.flask_app import Response
from handlers.http.forms import Form, form_of
from handlers.http.preconditions import Tags, is_known, known_pages
from handlers.http.request_body import JSON
from handlers.http.schemas import PAGE_LIMIT, decoded
from handlers.http.streaming import Blocks, ahead

BLOCK = 2**16
"""Characters of lines that are sent at once."""

SLICE = 2**18
"""Bytes of a page that are sent at once."""

TAG_LENGTH = 32
"""Hexadecimal digits of SHA-256 in the ETag of a page: 128 bits."""


def answer(body: bytes | str, status: int = 200) -> Response:
    """A JSON answer. Ends with a line feed, as the same statement does in psql."""
    return Response((body if isinstance(body, bytes) else body.encode()) + b"\n", status, content_type=JSON)


def item(row: Any, status: int = 200) -> Response:
    """One object with its ETag; 304 where the client has this version, 404 where there is no row, 412 by If-Match."""
    if row is None:
        abort(404, "There is no such object.")
    etag = f'"{row.version}"'
    environ = request_ctx.request.environ
    asks = "HTTP_IF_NONE_MATCH" in environ or "HTTP_IF_MATCH" in environ
    if asks and environ["REQUEST_METHOD"] in ("GET", "HEAD") and is_known(environ, row.version):
        return Response(status=304, headers={"ETag": etag})
    response = answer(row.body, status)
    response.headers.add("ETag", etag)
    return response


def created(row: Any, location: str) -> Response:
    """The new object, and where it is from now on."""
    response = item(row, 201)
    response.headers["Location"] = location
    return response


def streamed(blocks: Blocks, media: str, places: list[str | None]) -> Response:
    """An answer sent block by block while it is being found. What fails before the first is answered as a problem.

    What fails midway breaks the connection off, so that nobody takes a part for the whole. Where the feed was is in
    `places` once the first is there.
    """
    sent = ahead(blocks)
    first = [*islice(sent, 1)]
    response = Response(chain(first, sent), mimetype=media)
    response.call_on_close(sent.close)
    tell_place(response, places[0] if places else None)
    return response


def tell_place(response: Response, place: str | None) -> None:
    """From where on the feed brings what is not in the answer; nowhere where that is of the past, or of a standby."""
    if place and not as_of.get():
        feed, snapshot = place.split("|")
        response.headers["Feed-Cursor"] = str(Cursor(feed, snapshot))


def document(rows: Generator[Any, None, None]) -> Response:
    """One JSON document out of the lines of a statement; 404 where there are none."""
    places: list[str | None] = []
    return streamed(blocks(rows, places), JSON, places)


def blocks(rows: Generator[Any, None, None], places: list[str | None]) -> Blocks:
    """The first line at once, the others in blocks that are worth sending."""
    with closing(rows):
        first = next(rows, None) or abort(404, "There is no such object.")
        places += [first.place] if "place" in first._fields else []
        yield f"{first.line}\n".encode()
        lines, size = [], 0
        for row in rows:
            lines.append(f"{row.line}\n")
            size += len(row.line)
            if size > BLOCK:
                yield "".join(lines).encode()
                lines, size = [], 0
        yield "".join(lines).encode()


# Collections ----------------------------------------------------------------------------------------------------------


def page(name: str, query: dict[str, Any]) -> Response:
    """A page of a list as JSON; as NDJSON or CSV the whole selection, unless a limit is asked for.

    `name` is the statement of the list in the order of ids: its other orders are blocks beside it.
    """
    as_of.set(query.pop("as_of", ""))
    environ = request_ctx.request.environ
    known = known_pages(environ) if environ["REQUEST_METHOD"] in ("GET", "HEAD") else None
    name = in_order(name, query.get("sort", ""))
    if g.media != JSON and "limit" not in query:
        places: list[str | None] = []
        return streamed(selection(name, query, form_of(query), places), g.media, places)
    row = found(read(name, **query if g.media == JSON else query | {"form": "lines"}))
    response = answer(row.body) if g.media == JSON else Response(form_of(query)(iter([row.body])), mimetype=g.media)
    link_next(response, row.next)
    tell_place(response, row.place)
    return response if known is None else revalidated(response, known)


def revalidated(response: Response, known: Tags) -> Response:
    """A page with its weak ETag, which is of what it says and where the next one is; 304 where the client has this one.

    It has its place either way: a client whose page is as it was follows on from the newer place.
    """
    told = sha256(response.get_data())
    told.update(response.headers.get("Link", "").encode())
    tag = told.hexdigest()[:TAG_LENGTH]
    response.headers.add("ETag", f'W/"{tag}"')
    if known.match_weakly(tag):
        response.status_code = 304
        response.set_data(b"")
        del response.headers["Content-Type"], response.headers["Content-Length"]
    return response


def in_order(name: str, sort: str) -> str:
    """The block of a list for an order: users.list in that of "-name" is users.list_by_name_desc."""
    key = sort.lstrip("-")
    return name + f"_by_{key}" * (key not in ("", "id")) + "_desc" * sort.startswith("-")


def selection(name: str, query: dict[str, Any], form: Form, places: list[str | None]) -> Blocks:
    """A whole selection in blocks that a slow client may be sent one of."""
    with closing(pages(name, query, places)) as lines:
        for block in form(lines):
            for start in range(0, len(block), SLICE):
                yield block[start : start + SLICE]


def found(row: Any) -> Any:
    """The row of a `.list` statement. 404 where it stands below an object that is not there."""
    if getattr(row, "parent", True) is None:
        abort(404, "There is no such object.")
    return row


def pages(name: str, query: dict[str, Any], places: list[str | None]) -> Generator[str, None, None]:
    """The lines of a whole selection, page by page, all of one snapshot."""
    query = query | {"limit": PAGE_LIMIT, "form": "lines"}
    with snapshot() as connection:
        while True:
            row = found(next(run(connection, name, **query)))
            places[:] = places or [row.place]
            yield row.body
            if not row.next:
                return
            query |= decoded(row.next)[1]


def link_next(response: Response, cursor: str | None) -> None:
    """RFC 8288: where the next page is."""
    if cursor:
        arguments = request.args.to_dict() | {"cursor": cursor}
        response.headers["Link"] = f'<{request.path}?{urlencode(arguments)}>; rel="next"'
