"""What a route takes and gives: `takes` and `gives` state it, `check_contract` holds a request to it, the rest shapes the answer.

The same statements make the OpenAPI document (docs.py), so that it cannot promise anything else.
"""

import base64
import binascii
import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlencode

from flask import Response, abort, current_app, g, request
from marshmallow import Schema, ValidationError, fields, validate, validates_schema
from werkzeug.datastructures import ETags
from werkzeug.http import parse_etags

from db import read, write
from handlers.problems import Problem

JSON, NDJSON, CSV, AVRO = "application/json", "application/x-ndjson", "text/csv", "application/avro"

BIGINT = 2**63 - 1
INTEGER = 2**31 - 1

PAGE_SIZE, PAGE_LIMIT = 50, 1000

View = TypeVar("View", bound=Callable[..., Any])


# Fields ---------------------------------------------------------------------------------------------------------------


class Text(fields.String):
    """A string that PostgreSQL can hold: no NUL, no lone surrogate; at most `longest` characters, and some that can be seen."""

    def __init__(self, longest: int, *, blank: bool = False, **options: Any) -> None:
        rules = [validate.Length(max=longest)] + ([] if blank else [validate.Regexp(r".*\S", re.DOTALL, error="Must not be blank.")])
        super().__init__(validate=[*rules, *options.pop("validate", [])], **options)

    def _deserialize(self, value: Any, *args: Any, **options: Any) -> Any:
        text = super()._deserialize(value, *args, **options)
        if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
            raise ValidationError("Must not hold NUL or a lone surrogate.")
        return text


class Whole(fields.Integer):
    """A JSON integer (not true, not 1.0, not "1") within a range."""

    def __init__(self, least: int = 1, most: int = BIGINT, **options: Any) -> None:
        super().__init__(validate=validate.Range(least, most), **options)

    def _deserialize(self, value: Any, *args: Any, **options: Any) -> Any:
        if type(value) is not int:
            raise self.make_error("invalid", input=value)
        return value


class Digits(Whole):
    """An integer in a URL: plain ASCII digits."""

    def _deserialize(self, value: Any, *args: Any, **options: Any) -> Any:
        if not re.fullmatch(r"[0-9]{1,19}", value):
            raise self.make_error("invalid", input=value)
        return int(value)


class Instant(fields.AwareDateTime):
    """A moment in ISO 8601, in UTC where it names no zone; loaded as text in UTC, as the service answers it."""

    def __init__(self, **options: Any) -> None:
        super().__init__("iso", default_timezone=UTC, **options)

    def _deserialize(self, value: Any, *args: Any, **options: Any) -> Any:
        try:
            moment = super()._deserialize(value, *args, **options).astimezone(UTC)
        except OverflowError:
            raise self.make_error("invalid", input=value, obj_type="datetime") from None
        return moment.isoformat().replace("+00:00", "Z")


# Schemas --------------------------------------------------------------------------------------------------------------


class Item(Schema):
    """What every single object has besides its own members."""

    class Meta:
        ordered = True

    id = fields.Integer(dump_only=True, metadata={"format": "int64", "example": 1})
    version = fields.Integer(dump_only=True, metadata={"description": "1 when created; the ETag.", "example": 1})
    created_at = fields.String(dump_only=True, metadata={"format": "date-time", "example": "2021-11-07T02:48:42Z"})
    updated_at = fields.String(dump_only=True, metadata={"format": "date-time", "example": "2021-11-07T02:48:42Z"})


class Nothing(Schema):
    """The query of a route that has no parameters."""


class VersionQuery(Schema):
    """Where a DELETE may name the version it starts from."""

    version = Digits(most=INTEGER, metadata={"description": "The version that is to be deleted, unless If-Match names it."})


def known_fields(answer: type[Schema]) -> Callable[[str], None]:
    def check(value: str) -> None:
        unknown = [name for name in value.split(",") if name not in answer._declared_fields]
        if unknown:
            raise ValidationError(f"Unknown: {', '.join(unknown)}. There are {', '.join(answer._declared_fields)}.")

    return check


def fields_of(answer: type[Schema]) -> Text:
    return Text(
        500,
        data_key="fields",
        attribute="fields",
        validate=[known_fields(answer)],
        metadata={"description": "The members to answer with, separated by commas; all by default.", "example": "id"},
    )


def item_query(answer: type[Schema]) -> type[Schema]:
    """The parameters of a route that answers one object."""
    return Schema.from_dict({"only": fields_of(answer)}, name=f"{answer.__name__}Query")


class PageQuery(Schema):
    """The parameters of a collection: a page of it, its order, its members. Subclasses add their filters."""

    orders: dict[str, Callable[[str], object]] = {"id": str}
    """The sort orders, and what reads a key of each out of a cursor."""

    limit = Digits(most=PAGE_LIMIT, metadata={"description": f"How many to answer with; {PAGE_SIZE} by default."})
    cursor = Text(4000, metadata={"description": "The `next` of the page before."})

    @validates_schema
    def check_cursor(self, data: dict[str, Any], **_: Any) -> None:
        if "cursor" not in data:
            return
        try:
            cursor = data["cursor"]
            sort, key, id = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True))
            assert sort == data.get("sort", "")
            assert "\0" not in key
            self.orders[sort.lstrip("-") or "id"](key)
            assert re.fullmatch("[0-9]{1,18}", id)
        except (ValueError, TypeError, KeyError, AttributeError, AssertionError, binascii.Error, RecursionError):
            raise ValidationError("Not a cursor of this collection in this order.", "cursor") from None


def page_query(answer: type[Schema], orders: dict[str, Callable[[str], object]], **filters: fields.Field) -> type[PageQuery]:
    """The parameters of a collection of `answer` in these orders, with these filters."""
    names = [*orders, *(f"-{name}" for name in orders)]
    members = {
        "orders": orders,
        "sort": fields.String(
            validate=validate.OneOf(names), metadata={"description": "The order; `-` for descending; by id unless told.", "example": "id"}
        ),
        "only": fields_of(answer),
    }
    return type(f"{answer.__name__}PageQuery", (PageQuery,), members | filters)


instant = datetime.fromisoformat
"""Reads the key of an order by time."""


# The contract of a route ----------------------------------------------------------------------------------------------


class Contract:
    """What a route takes and gives."""

    def __init__(self) -> None:
        self.query: Schema = Nothing()
        self.body: Schema | None = None
        self.precondition = False
        self.answer: Schema | None = None
        self.status = 200
        self.many = False
        self.media: tuple[str, ...] = (JSON,)
        self.files = False


def contract_of(view: Any) -> Contract:
    if not hasattr(view, "contract"):
        view.contract = Contract()
    return view.contract


def takes(
    body: type[Schema] | None = None,
    *,
    query: type[Schema] | None = None,
    partial: bool = False,
    precondition: bool = False,
    files: bool = False,
) -> Callable[[View], View]:
    """State the JSON body, passed as `body`; the query, as `query`; a version that must be named, as `expected`; or that it is a file."""

    def state(view: View) -> View:
        contract = contract_of(view)
        if body:
            contract.body = body(partial=partial)
        if query:
            contract.query = query()
        contract.precondition |= precondition
        contract.files |= files
        return view

    return state


def gives(
    answer: type[Schema] | None = None, status: int = 200, *, many: bool = False, media: tuple[str, ...] | None = None
) -> Callable[[View], View]:
    """State the answer: its schema, its status, and its media types, the first of them by default; `many` for a collection."""

    def state(view: View) -> View:
        contract = contract_of(view)
        contract.answer = answer() if answer else None
        contract.status, contract.many = status, many
        contract.media = media or ((JSON, NDJSON, CSV) if many else (JSON,))
        return view

    return state


def check_contract() -> None:
    """Before a request: 400, 406, 415, 422 or 428 for one that does not keep its route's contract."""
    if request.endpoint is None or request.view_args is None:
        return
    contract: Contract = current_app.view_functions[request.endpoint].contract  # type: ignore[attr-defined]
    g.media = media(contract.media)
    query = checked_query(contract.query)
    if type(contract.query) not in (Nothing, VersionQuery):
        request.view_args["query"] = query
    payload = json_body() if contract.body else {}
    if contract.precondition:
        request.view_args["expected"] = precondition(payload, query)
    if contract.body:
        request.view_args["body"] = contract.body.load(payload)


def media(offers: tuple[str, ...]) -> str:
    """The media type to answer with. 406 where the client takes none of those on offer."""
    accept = request.environ.get("HTTP_ACCEPT", "*/*")
    if accept in ("*/*", offers[0]):
        return offers[0]
    best = request.accept_mimetypes.best_match(offers)
    return best or abort(406, f"There is only {', '.join(offers)}.")


def checked_query(schema: Schema) -> dict[str, Any]:
    """The query, validated. 400 for a parameter that is unknown, missing or given twice."""
    known = parameters(schema)
    for name, values in request.args.lists():
        if name not in known:
            abort(400, f"Unknown parameter {ascii(name)}. There is {', '.join(known) or 'none'}.")
        if len(values) > 1:
            abort(400, f"The parameter {name} is given {len(values)} times.")
    for name, field in known.items():
        if field.required and name not in request.args:
            abort(400, f"The parameter {name} is missing.")
    return schema.load(request.args.to_dict())


def parameters(schema: Schema) -> dict[str, fields.Field]:
    """The parameters of a query, by the name they have in a URL."""
    return {field.data_key or name: field for name, field in schema.fields.items()}


def json_body() -> Any:
    """The JSON body. 415 for another content type, 400 for what is not JSON."""
    if not request.is_json:
        abort(415, f"The body must be {JSON}.")
    try:
        return json.loads(request.get_data().decode(), parse_constant=refuse_constant)
    except UnicodeDecodeError:
        abort(400, "The body is not UTF-8.")
    except RecursionError:
        abort(400, "The body is nested too deeply.")
    except ValueError as error:
        abort(400, f"The body is not JSON: {error}.")


def refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


# Preconditions --------------------------------------------------------------------------------------------------------


class Expected(NamedTuple):
    """The versions that a change may start from ("3", "3,4" or "*"), the one it names, and whether by If-Match."""

    versions: str
    base: int | None
    strict: bool


def precondition(payload: Any, query: dict[str, Any]) -> Expected:
    """The version that a change starts from. 428 where it names none; takes `version` out of the body."""
    named = payload.pop("version", None) if isinstance(payload, dict) else None
    if "If-Match" in request.headers:
        return if_match(parse_etags(request.headers["If-Match"]))
    if named is not None:
        try:
            base = Whole(most=INTEGER).deserialize(named)
        except ValidationError as error:
            raise ValidationError({"version": error.messages}) from None
    elif "version" in query:
        base = query["version"]
    else:
        raise Problem(428, "Name the version you start from: in If-Match, or as version.")
    return Expected(str(base), base, strict=False)


def if_match(etags: ETags) -> Expected:
    if etags.star_tag:
        return Expected("*", None, strict=True)
    versions = [tag for tag in etags.as_set() if re.fullmatch("[1-9][0-9]{0,9}", tag)]
    return Expected(",".join(versions), int(versions[0]) if len(versions) == 1 else None, strict=True)


# Answers --------------------------------------------------------------------------------------------------------------


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


def refused(noun: str, id: int, expected: Expected, yours: dict[str, Any]) -> None:
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
    body = csv_lines(lines, columns or members(request)) if g.media == CSV else (f"{some}\n".encode() for some in lines if some)
    response = Response(body, mimetype=g.media)
    if not whole:
        link_next(response, row.next)
    return response


def pages(name: str, query: dict[str, Any], row: Any) -> Iterator[str]:
    """The lines of this page and of all that follow. Between two pages no connection is held, whatever the client's pace."""
    yield row.body
    while row.next:
        row = read(name, **query | {"limit": PAGE_LIMIT, "form": "lines", "cursor": row.next})
        yield row.body


def link_next(response: Response, cursor: str | None) -> None:
    """RFC 8288: where the next page is."""
    if cursor:
        arguments = request.args.to_dict() | {"cursor": cursor}
        response.headers["Link"] = f'<{request.path}?{urlencode(arguments)}>; rel="next"'


def members(of: Any) -> list[str]:
    """The members of what a route answers with, in the schema's order."""
    return [*current_app.view_functions[of.endpoint].contract.answer.fields]  # type: ignore[attr-defined]


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
