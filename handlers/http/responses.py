"""The answers of the routes: one object with its ETag, a page, a stream of pages."""

import csv
import io
import json
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from functools import partial
from itertools import chain, islice
from typing import Any
from urllib.parse import urlencode

from flask import abort, g, request
from flask.globals import request_ctx

from db import read, run, snapshot
from handlers.http.auth import current_view
from handlers.http.contract import CSV
from handlers.http.flask_app import Response
from handlers.http.preconditions import is_known
from handlers.http.request_body import JSON
from handlers.http.schemas import PAGE_LIMIT, decoded
from handlers.http.streaming import Blocks, ahead

FORMULAS = ("=", "+", "-", "@", "\t", "\r")
"""What a formula begins with, for spreadsheets."""

BLOCK = 2**16
"""Characters of lines that are sent at once."""

SLICE = 2**18
"""Bytes of a page that are sent at once."""

Form = Callable[[Iterator[str]], Iterator[bytes]]


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


def streamed(blocks: Blocks, media: str) -> Response:
    """An answer sent block by block while it is being found. What fails before the first is answered as a problem.

    What fails midway breaks the connection off, so that nobody takes a part for the whole.
    """
    sent = ahead(blocks)
    first = [*islice(sent, 1)]
    response = Response(chain(first, sent), mimetype=media)
    response.call_on_close(sent.close)
    return response


def document(rows: Generator[Any, None, None]) -> Response:
    """One JSON document out of the lines of a statement; 404 where there are none."""
    return streamed(blocks(rows), JSON)


def blocks(rows: Generator[Any, None, None]) -> Blocks:
    """The first line at once, the others in blocks that are worth sending."""
    with closing(rows):
        first = next(rows, None) or abort(404, "There is no such object.")
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
    name = in_order(name, query.get("sort", ""))
    if g.media != JSON and "limit" not in query:
        return streamed(selection(name, query, form_of(query)), g.media)
    row = found(read(name, **query if g.media == JSON else query | {"form": "lines"}))
    response = answer(row.body) if g.media == JSON else Response(form_of(query)(iter([row.body])), mimetype=g.media)
    link_next(response, row.next)
    return response


def in_order(name: str, sort: str) -> str:
    """The block of a list for an order: users.list in that of "-name" is users.list_by_name_desc."""
    key = sort.lstrip("-")
    return name + f"_by_{key}" * (key not in ("", "id")) + "_desc" * sort.startswith("-")


def selection(name: str, query: dict[str, Any], form: Form) -> Blocks:
    """A whole selection in blocks that a slow client may be sent one of."""
    with closing(pages(name, query)) as lines:
        for block in form(lines):
            for start in range(0, len(block), SLICE):
                yield block[start : start + SLICE]


def found(row: Any) -> Any:
    """The row of a `.list` statement. 404 where it stands below an object that is not there."""
    if getattr(row, "parent", True) is None:
        abort(404, "There is no such object.")
    return row


def pages(name: str, query: dict[str, Any]) -> Generator[str, None, None]:
    """The lines of a whole selection, page by page, all of one snapshot."""
    query = query | {"limit": PAGE_LIMIT, "form": "lines"}
    with snapshot() as connection:
        while True:
            row = found(next(run(connection, name, **query)))
            yield row.body
            if not row.next:
                return
            query |= decoded(row.next)[1]


def form_of(query: dict[str, Any]) -> Form:
    """What makes of JSON lines what is asked for: NDJSON, or CSV of these fields."""
    if g.media != CSV:
        return lambda lines: (f"{some}\n".encode() for some in lines if some)
    columns = query["fields"].split(",") if query.get("fields") else members()
    return partial(csv_lines, columns=columns, neutral=query.get("formulas") == "neutral")


def link_next(response: Response, cursor: str | None) -> None:
    """RFC 8288: where the next page is."""
    if cursor:
        arguments = request.args.to_dict() | {"cursor": cursor}
        response.headers["Link"] = f'<{request.path}?{urlencode(arguments)}>; rel="next"'


def members() -> list[str]:
    """The members of what this route answers with, in the schema's order."""
    return [field.data_key or name for name, field in current_view().contract.answer.fields.items()]


def csv_lines(lines: Iterable[str], columns: list[str], neutral: bool) -> Iterator[bytes]:
    """JSON lines as RFC 4180, with a header row; what is neither text nor number stays JSON."""
    value = neutral_value if neutral else csv_value
    for number, some in enumerate(lines):
        if number == 0:  # not before the first lines are here: there may be none to head
            yield csv_block([columns])
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
