"""The OpenAPI document, made from what each route states of itself: its contract, role and docstring."""

import json
import re
from functools import cache
from http import HTTPStatus
from typing import Any

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from flask import current_app

from handlers.http.contract import MULTIPART, Contract, parameters
from handlers.http.event_stream import EVENTS
from handlers.http.idempotency import is_once
from handlers.http.parameters import (
    header_parameters,
    path_parameters,
    query_parameters,
    reads_one,
    reads_pages,
    schema_name,
)
from handlers.http.request_body import JSON, PATCHES
from handlers.http.schemas import Problem, Versioned, VersionProblem, over_version

TITLE, VERSION = "Rowhouse", "0.1.0"

FOLLOWING: dict[str, tuple[str, Any]] = {
    "406": ("None of these media types is taken.", Problem),
    "429": ("The token has as many sockets and streams as it may.", Problem),
    "503": ("There are too many sockets and streams, or the feed is away.", Problem),
}
"""Why a stream may not begin."""


@cache
def document() -> str:
    """The OpenAPI document, as JSON."""
    spec = APISpec(
        TITLE,
        VERSION,
        "3.1.0",
        plugins=[MarshmallowPlugin(schema_name_resolver=schema_name)],
        info={
            "description": "A synchronous REST service over PostgreSQL: every statement a named block of a plain file,"
            " every change versioned by the database itself. Changes also arrive live, over the WebSocket /ws/events.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        servers=[{"url": "/"}],
    )
    for schema in (Problem, VersionProblem):
        spec.components.schema(schema.__name__, schema=schema)
    spec.components.security_scheme("token", {"type": "http", "scheme": "bearer"})
    rules = [rule for rule in current_app.url_map.iter_rules() if not rule.websocket]  # OpenAPI has no words for one
    for rule in sorted(rules, key=str):
        view = current_app.view_functions[rule.endpoint]
        operations = {
            method.lower(): operation(rule, view) for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})
        }
        spec.path(path=re.sub(r"<(?:[^:]*:)?(\w+)>", r"{\1}", rule.rule), operations=operations)
    return json.dumps(spec.to_dict(), separators=(",", ":"), ensure_ascii=False)


def operation(rule: Any, view: Any) -> dict[str, Any]:
    """A route as an Operation Object."""
    contract: Contract = view.contract
    found: dict[str, Any] = {
        "operationId": rule.endpoint.replace(".", "_"),
        "summary": (view.__doc__ or "").strip().splitlines()[0],
        "tags": [rule.endpoint.split(".")[0]],
        "x-role": view.role,
        "parameters": [*path_parameters(rule), *query_parameters(contract), *header_parameters(rule, view)],
        "responses": responses(rule, view),
    }
    if view.role != "anyone":
        found["security"] = [{"token": []}, {}]
    kinds: dict[str, Any] = {JSON: body_schema(contract)} if contract.body else {}
    if contract.body and "PATCH" in rule.methods:
        kinds |= dict.fromkeys(PATCHES, body_schema(contract))
    if contract.files:
        binary = {"type": "string", "format": "binary"}
        part = {"type": "object", "required": ["file"], "properties": {"file": binary}}
        kinds |= {MULTIPART: part, **dict.fromkeys(contract.files, binary)}
    if kinds:
        content = {kind: {"schema": schema} for kind, schema in kinds.items()}
        found["requestBody"] = {"required": not (contract.body and contract.files), "content": content}
    return found


def body_schema(contract: Contract) -> Any:
    """The schema of a JSON body; where it may name the version it starts from, with that."""
    if not contract.body or not contract.precondition:
        return contract.body
    return over_version(type(contract.body))(partial=contract.body.partial)


def responses(rule: Any, view: Any) -> dict[str, Any]:
    """The answers of a route: the one it is for, and the failures it may tell of."""
    contract: Contract = view.contract
    good: dict[str, Any] = {"description": HTTPStatus(contract.status).phrase, "headers": headers(rule, contract)}
    if contract.status != 204:
        good["content"] = content(contract)
    if contract.status == 201 and (found := links(rule, contract)):
        good["links"] = found
    problems = {"default": ("Any other failure.", Problem), **refusals(view)}
    if contract.precondition:
        problems |= {
            "409": ("Another version is current, or something unique is taken.", VersionProblem),
            "412": ("If-Match does not name the current version, or If-None-Match does.", VersionProblem),
        }
        if not contract.any_version:
            problems["428"] = ("No version is named.", Problem)
    elif reads_one(rule, contract):
        problems["412"] = ("If-Match does not name the version.", Problem)
    elif reads_pages(rule, contract):
        problems["412"] = ("If-Match names tags, and a page has a weak one.", Problem)
    elif is_once(rule, view):
        kind = VersionProblem if contract.answer and "conflicts" in contract.answer.fields else Problem
        problems["409"] = ("Something unique is taken, or the first with this Idempotency-Key is running.", kind)
    if EVENTS in contract.media:
        problems |= FOLLOWING
    if rule.arguments or contract.absent:
        problems["404"] = ("There is no such object.", Problem)
    if contract.body or parameters(contract.query):
        problems["422"] = ("Some values are not valid.", Problem)
    told = {
        status: {"description": description, "content": {"application/problem+json": {"schema": schema}}}
        for status, (description, schema) in problems.items()
    }
    if reads_one(rule, contract):
        told["304"] = {"description": "If-None-Match names the version."}
    if reads_pages(rule, contract):
        told["304"] = {"description": "The page is as it was.", "headers": headers(rule, contract)}
    for status in contract.also:
        told[str(status)] = good | {"description": HTTPStatus(status).phrase}
    if contract.long:
        told["202"] = {"description": "It goes on as an operation: see Location."}
    return {str(contract.status): good} | told


def refusals(view: Any) -> dict[str, tuple[str, Any]]:
    """Why a request may be refused before its route looks at it."""
    if view.any_host:
        return {}
    found = {
        "403": ("Not for this token, for a page of this origin, or for what was forwarded.", Problem),
        "421": ("The service does not answer to this Host.", Problem),
    }
    return found if view.role == "anyone" else {"401": ("The token is missing, or not good.", Problem), **found}


def links(rule: Any, contract: Contract) -> dict[str, Any]:
    """What can be done with the object that the route made."""
    noun = rule.rule.rsplit("/", 1)[1]
    key = next((name for name in ("id", "event_id") if contract.answer and name in contract.answer.fields), None)
    return {
        other.endpoint.rpartition(".")[2]: {
            "operationId": other.endpoint.replace(".", "_"),
            "parameters": {"id": f"$response.body#/{key}"},
        }
        for other in current_app.url_map.iter_rules()
        if key and re.match(rf"/{noun}/<\w+:id>", other.rule)
    }


def headers(rule: Any, contract: Contract) -> dict[str, Any]:
    names = {"X-Request-Id": "The request's id."}
    one = isinstance(contract.answer, Versioned) and not contract.many and not contract.tells_place
    if one and contract.status != 204:
        names["ETag"] = "The version."
    if contract.status == 201:
        names["Location"] = "Where the new object is."
    if contract.many:
        names["Link"] = "The next page, if there is one."
    if reads_pages(rule, contract):
        names["ETag"] = "A page's, which is weak, and the same as long as the page is; what is streamed has none."
    if contract.tells_place:
        names["Feed-Cursor"] = "From where on /changes and the channel bring what is not in it, as `since`."
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in names.items()}


def content(contract: Contract) -> dict[str, Any]:
    """The answer by media type."""
    schema: Any = contract.answer or {}
    if contract.answer and "fields" in parameters(contract.query):
        schema = type(contract.answer)(partial=True)
    if contract.many:
        schema = {
            "type": "object",
            "required": ["items", "next"],
            "properties": {"items": {"type": "array", "items": schema}, "next": {"type": ["string", "null"]}},
        }
    texts = {"schema": {"type": "string"}}
    return {kind: {"schema": schema} if kind == JSON else texts for kind in contract.media}
