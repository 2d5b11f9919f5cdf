"""The answers of the routes: one object with its ETag, a change or why it was refused, a page or a stream of pages."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn
from urllib.parse import urlencode

from flask import Response, abort, g, request
from werkzeug.http import parse_etags

from db import read, write
from handlers.access import current_view
from handlers.contract import CSV, JSON, Expected
from handlers.fields import PAGE_LIMIT
from handlers.problems import Problem


def answer(body: bytes | str, status: int = 200) -> Response:
    """A JSON answer. Ends with a line feed, as the same statement does in psql."""
    return Response((body if isinstance(body, bytes) else body.encode()) + b"\n", status, mimetype=JSON)


def item(row: Any, status: int = 200) -> Response:
    """One object with its ETag; 304 where the client has this version, 404 where there is no row."""
    if row is None:
        abort(404, "There is no such object.")
    etag = f'"{row.version}"'
    known = request.environ.get("HTTP_IF_NONE_MATCH")
    if known and request.method in ("GET", "HEAD") and parse_etags(known).contains_weak(str(row.version)):
        return Response(status=304, headers={"ETag": etag})
    response = answer(row.body, status)
    response.headers["ETag"] = etag
    return response


def created(row: Any, location: str) -> Response:
    """The new object, and where it is from now on."""
    response = item(row, 201)
    response.headers["Location"] = location
    return response


def changed(noun: str, id: int, body: dict[str, Any], expected: Expected) -> Response:
    """The object as `{noun}.change` saved it; 404, 409 or 412 where it could not."""
    row = write(f"{noun}.change", id=id, body=json.dumps(body), versions=expected.versions)
    return item(row or refused(noun, id, expected, body))


def removed(noun: str, id: int, expected: Expected) -> Response:
    """204 once `{noun}.remove` took the object away; 404, 409 or 412 where it could not."""
    write(f"{noun}.remove", id=id, versions=expected.versions) or refused(noun, id, expected, {})
    return Response(status=204)


def refused(noun: str, id: int, expected: Expected, yours: dict[str, Any]) -> NoReturn:
    """Tell why a change did not find the version it started from. Raises 404, 409 or 412."""
    row = read(f"{noun}.get", id=id)
    if row is None:
        abort(404, "There is no such object.")
    current = json.loads(row.body)
    raise Problem(
        412 if expected.strict else 409,
        f"The object is at version {row.version}.",
        current=current,
        base_version=expected.base,
        conflicts=[
            {
                "field": name,
                "base": None,
                "yours": value,
                "theirs": current[name],
                "changed_by": None,
                "changed_at": current["updated_at"],
            }
            for name, value in yours.items()
            if value != current[name]
        ],
    )


# Collections ----------------------------------------------------------------------------------------------------------


def page(name: str, query: dict[str, Any]) -> Response:
    """A page of a `.list` statement as JSON; as NDJSON or CSV the whole selection, unless a limit is asked for."""
    if g.media == JSON:
        row = read(name, **query)
        response = answer(row.body)
        link_next(response, row.next)
        return response
    whole = "limit" not in query
    row = read(name, **{"limit": PAGE_LIMIT, **query, "form": "lines"})
    lines = pages(name, query, row) if whole else iter([row.body])
    columns = query.get("fields", "").split(",") if query.get("fields") else None
    body = (
        csv_lines(lines, columns or members()) if g.media == CSV else (f"{some}\n".encode() for some in lines if some)
    )
    response = Response(body, mimetype=g.media)
    if not whole:
        link_next(response, row.next)
    return response


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


def csv_lines(lines: Iterable[str], columns: list[str]) -> Iterator[bytes]:
    """JSON lines as RFC 4180, with a header row; what is neither text nor number stays JSON."""
    yield csv_block([columns])
    for some in lines:
        rows = (json.loads(line) for line in some.split("\n") if line)
        yield csv_block([csv_value(row[column]) for column in columns] for row in rows)


def csv_block(rows: Iterable[list[Any]]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer).writerows(rows)
    return buffer.getvalue().encode()


def csv_value(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict | bool) else value
