"""What a route takes and gives: `takes` and `gives` state it, `check_contract` holds each request to it.

The same statements make the OpenAPI document (docs.py), so that it cannot promise anything else.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes

from flask import request
from flask.globals import app_ctx, request_ctx
from marshmallow import Schema, fields

from handlers.http.accept import media
from handlers.http.places import Place
from handlers.http.preconditions import precondition, read_only
from handlers.http.problems import ProblemException
from handlers.http.request_body import JSON, json_body, sends_any, whole_body
from handlers.http.schemas import VersionQuery

NDJSON, CSV = "application/x-ndjson", "text/csv"
AVRO, GZIP, MULTIPART = "application/avro", "application/gzip", "multipart/form-data"

View = TypeVar("View", bound=Callable[..., Any])


class Nothing(Schema):
    """The query of a route that has no parameters."""


class Contract:
    """What a route takes and gives."""

    def __init__(self) -> None:
        self.query: Schema = Nothing()
        self.defaults: dict[str, Any] | None = {}
        """What an empty query is loaded as, found once; None where a parameter is required."""
        self.body: Schema | None = None
        self.precondition = False
        self.any_version = False
        """Whether a change need not name the version it starts from."""
        self.answer: Schema | None = None
        self.status = 200
        self.also: tuple[int, ...] = ()
        """Other statuses with the same answer."""
        self.many = False
        self.media: tuple[str, ...] = (JSON,)
        self.files: tuple[str, ...] = ()
        """The media types of a body that is a file; it may also be a part of a form."""
        self.long = self.tells_place = self.absent = self.told_once = False

    @cached_property
    def passes_query(self) -> bool:
        """Whether the view is passed its query: it has parameters besides the version, which has a place of its own."""
        return type(self.query) not in (Nothing, VersionQuery)


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
    any_version: bool = False,
    files: tuple[str, ...] = (),
    long: bool = False,
) -> Callable[[View], View]:
    """State what the view is passed: the JSON `body`, the `query`, the `expected` version; or that it reads a file.

    With both a body and files it is either, and no body is an empty object. `long` work may go on without the client.
    """

    def state(view: View) -> View:
        contract = contract_of(view)
        if body:
            contract.body = body(partial=partial or None)
        if query:
            contract.query = query()
            required = any(field.required for field in contract.query.fields.values())
            contract.defaults = None if required else contract.query.load({})
        contract.precondition |= precondition
        contract.any_version |= any_version
        contract.files += files
        contract.long |= long
        return view

    return state


def gives(
    answer: type[Schema] | None = None,
    status: int = 200,
    *,
    also: tuple[int, ...] = (),
    many: bool = False,
    media: tuple[str, ...] | None = None,
    tells_place: bool = False,
    absent: bool = False,
    told_once: bool = False,
) -> Callable[[View], View]:
    """State the answer: its schema, statuses and media types, the first by default; `many` for a collection.

    It `tells_place` where it says from where on the feed goes on; lists do anyway. What its query or body names may be
    `absent` (404), as what a path names always may. What is `told_once` is kept for no Idempotency-Key.
    """

    def state(view: View) -> View:
        contract = contract_of(view)
        contract.answer = answer() if answer else None
        contract.status, contract.also, contract.many, contract.absent = status, also, many, absent
        contract.told_once = told_once
        contract.media = media or ((JSON, NDJSON, CSV) if many else (JSON,))
        contract.tells_place = tells_place or (many and NDJSON in contract.media)
        return view

    return state


def check_contract() -> None:
    """Before a request: 400, 406, 415, 422 or 428 for one that does not keep its route's contract."""
    asked = request_ctx.request
    arguments = asked.view_args
    if asked.url_rule is None or arguments is None or asked.method == "OPTIONS":
        return
    kept = app_ctx.g
    contract: Contract = kept.view.contract
    kept.media = media(contract.media, asked)
    query = contract.defaults
    if query is None or asked.query_string:
        query = checked_query(contract.query)
    if contract.passes_query:
        arguments["query"] = {**query}
    taken = contract.body and not sends_file(contract)
    payload = json_body() if taken and (not contract.files or sends_any()) else {}
    if not taken and not contract.files and sends_any():
        whole_body()  # nobody wants it, but what is cut off is not done
    given: dict[str, Any] = {}
    if contract.precondition:
        expected = precondition(payload, query, any_version=contract.any_version)
        given = read_only(payload, contract.body, contract.answer)
        arguments["expected"] = expected._replace(given=given) if given else expected
    if taken:
        body: Any = contract.body
        arguments["body"] = body.load(payload, partial=body.partial or tuple(given) or None)
    if contract.long and contract.files:
        kept.place = Place()  # before the file comes: those who wait for one spool nothing


def sends_file(contract: Contract) -> bool:
    """Whether the body is a file rather than JSON."""
    if not contract.body or not contract.files:
        return bool(contract.files)
    return not request.is_json and (sends_any() or bool(request.mimetype))


def checked_query(schema: Schema) -> dict[str, Any]:
    """The query, validated. 400 for one that is not UTF-8, and a parameter that is unknown, missing or given twice."""
    try:
        unquote_to_bytes(request.query_string).decode()
    except UnicodeDecodeError:  # Werkzeug would leave the escape there, as if that was meant
        raise ProblemException("wrong-parameters", "The query is not UTF-8.") from None
    known = parameters(schema)
    for name, values in request.args.lists():
        if name not in known:
            raise ProblemException(
                "wrong-parameters", f"Unknown parameter {name!a}. There is {', '.join(known) or 'none'}."
            )
        if len(values) > 1:
            raise ProblemException("wrong-parameters", f"The parameter {name} is given {len(values)} times.")
    for name, field in known.items():
        if field.required and name not in request.args:
            raise ProblemException("wrong-parameters", f"The parameter {name} is missing.")
    return schema.load(request.args.to_dict())


def parameters(schema: Schema) -> dict[str, fields.Field]:
    """The parameters of a query, by the name they have in a URL."""
    return {field.data_key or name: field for name, field in schema.fields.items()}
