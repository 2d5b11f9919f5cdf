"""The answers of the routes: one object with its ETag, a page, a stream of pages."""

import csv
import io
import json
from collections.abc import Generator, Iterable, Iterator
from typing import Any
from urllib.parse import urlencode

from flask import abort, g, request
from flask.globals import request_ctx
from werkzeug.http import parse_etags

from db import read
from handlers.access import current_view
from handlers.bodies import JSON
from handlers.contract import CSV
from handlers.lean import Response
from handlers.schemas import PAGE_LIMIT

FORMULAS = ("=", "+", "-", "@", "\t", "\r")
"""What a formula begins with, for spreadsheets."""

BLOCK = 2**15
"""Characters of a stream that are sent at once."""


def answer(body: bytes | str, status: int = 200) -> Response:
    """A JSON answer. Ends with a line feed, as the same statement does in psql."""
    return Response((body if isinstance(body, bytes) else body.encode()) + b"\n", status, content_type=JSON)


def item(row: Any, status: int = 200) -> Response:
    """One object with its ETag; 304 where the client has this version, 404 where there is no row."""
    if row is None:
        abort(404, "There is no such object.")
    etag = f'"{row.version}"'
    asked = request_ctx.request
    known = asked.environ.get("HTTP_IF_NONE_MATCH")
    if known and asked.method in ("GET", "HEAD") and parse_etags(known).contains_weak(str(row.version)):
        return Response(status=304, headers={"ETag": etag})
    response = answer(row.body, status)
    response.headers.add("ETag", etag)
    return response


def created(row: Any, location: str) -> Response:
    """The new object, and where it is from now on."""
    response = item(row, 201)
    response.headers["Location"] = location
    return response


def streamed(rows: Generator[Any, None, None]) -> Response:
    """One JSON document out of the lines of a statement, sent as they are found; 404 where there are none.

    What fails midway breaks the connection off, so that nobody takes a part for the whole.
    """
    first = next(rows, None) or abort(404, "There is no such object.")
    response = Response(blocks(first.line, rows), mimetype=JSON)
    response.call_on_close(rows.close)
    return response


def blocks(first: str, rows: Iterable[Any]) -> Iterator[bytes]:
    """The first line at once, the others in blocks that are worth sending."""
    yield f"{first}\n".encode()
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
    """A page of a `.list` statement as JSON; as NDJSON or CSV the whole selection, unless a limit is asked for."""
    if g.media == JSON:
        row = first_page(name, query)
        response = answer(row.body)
        link_next(response, row.next)
        return response
    whole = "limit" not in query
    row = first_page(name, {"limit": PAGE_LIMIT, **query, "form": "lines"})
    lines = pages(name, query, row) if whole else iter([row.body])
    columns = query.get("fields", "").split(",") if query.get("fields") else None
    if g.media == CSV:
        body = csv_lines(lines, columns or members(), query.get("formulas") == "neutral")
    else:
        body = (f"{some}\n".encode() for some in lines if some)
    response = Response(body, mimetype=g.media)
    if not whole:
        link_next(response, row.next)
    return response


def first_page(name: str, query: dict[str, Any]) -> Any:
    """The row of a `.list` statement. 404 where it stands below an object that is not there."""
    row = read(name, **query)
    if getattr(row, "parent", True) is None:
        abort(404, "There is no such object.")
    return row


def pages(name: str, query: dict[str, Any], row: Any) -> Iterator[str]:
    """The lines of this page and of all that follow; between two no connection is held, whatever the client's pace."""
    yield row.body
    while row.next:
        row = read(name, **query | {"limit": PAGE_LIMIT, "form": "lines", "cursor": row.next})
        yield row.body


def link_next(response: Response, cursor: str | None) -> None:
    """RFC 8288: where the next page is."""
    if cursor:
        arguments = request.args.to_dict() | {"cursor": cursor}
        response.headers["Link"] = f'<{request.path}?{urlencode(arguments)}>; rel="next"'


def members() -> list[str]:
    """The members of what this route answers with, in the schema's order."""
    return [*current_view().contract.answer.fields]


def csv_lines(lines: Iterable[str], columns: list[str], neutral: bool) -> Iterator[bytes]:
    """JSON lines as RFC 4180, with a header row; what is neither text nor number stays JSON."""
    value = neutral_value if neutral else csv_value
    yield csv_block([columns])
    for some in lines:
        rows = (json.loads(line) for line in some.split("\n") if line)
        yield csv_block([value(row[column]) for column in columns] for row in rows)


def csv_block(rows: Iterable[list[Any]]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer).writerows(rows)
    return buffer.getvalue().encode()


def csv_value(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict | bool) else value


def neutral_value(value: Any) -> Any:
    """As csv_value; a text that a spreadsheet would take for a formula becomes one it takes for text."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULAS) else csv_value(value)
