"""The parameters of a route as OpenAPI has them: of its path, its query and its headers."""

import re
from typing import Any

from apispec.ext.marshmallow.openapi import OpenAPIConverter

from handlers.http.contract import Contract, parameters
from handlers.http.event_stream import EVENTS
from handlers.http.idempotency import HEADER, KEY_LIMIT, is_once

TAGS = r'^(\*|[0-9]+|(W/)?"[!#-~]*"(, ?(W/)?"[!#-~]*")*)$'
"""What If-Match and If-None-Match are: a version may lack its quotes."""

ID = {"type": "integer", "format": "int64", "minimum": 1}

VISIBLE = "^[!-~]([ -~]*[!-~])?$"
"""ASCII that can be seen, perhaps with spaces between."""


def schema_name(schema: Any) -> str:
    """The component's name of a schema: its class's, with Members behind it where each may be left out."""
    instance = schema() if isinstance(schema, type) else schema
    return type(instance).__name__ + ("Members" if instance.partial else "")


def path_parameters(rule: Any) -> list[dict[str, Any]]:
    """The variables of a path: ids, and names out of a closed list, as in <any(jobs, employees):table>."""
    found = []
    for kind, names, name in re.findall(r"<(any|id|uuid|string)(?:\((.*?)\))?:(\w+)>", rule.rule):
        one_of = {"type": "string", "enum": [each.strip(" '") for each in names.split(",")]}
        kinds = {"id": ID, "uuid": {"type": "string", "format": "uuid"}, "string": {"type": "string"}}
        schema = kinds.get(kind, one_of)
        found.append({"name": name, "in": "path", "required": True, "schema": schema})
    return found


def query_parameters(contract: Contract) -> list[dict[str, Any]]:
    convert = OpenAPIConverter("3.1.0", schema_name, None)  # type: ignore[arg-type]
    found = []
    for name, field in parameters(contract.query).items():
        schema = convert.field2property(field)
        description = schema.pop("description", "")
        found.append(
            {"name": name, "in": "query", "required": field.required, "description": description, "schema": schema}
        )
    return found


def header_parameters(rule: Any, view: Any) -> list[dict[str, Any]]:
    contract: Contract = view.contract
    found = []
    if contract.precondition:
        found.append(header("If-Match", "The ETag you read; strict, unlike version.", example='"1"', pattern=TAGS))
        found.append(header("If-None-Match", "412 where it is of these.", example='"0"', pattern=TAGS))
    if reads_one(rule, contract):
        found.append(header("If-Match", "412 where it is none of these.", example='"1"', pattern=TAGS))
        found.append(header("If-None-Match", "304 where it is of these.", example='"0"', pattern=TAGS))
    if reads_pages(rule, contract):
        found.append(header("If-None-Match", "304 where the page is of these.", example='W/"0"', pattern=TAGS))
    if EVENTS in contract.media:
        found.append(header("Last-Event-ID", "The `cursor` of the last frame one has seen, instead of `since`."))
    if contract.long:
        found.append(
            header("Prefer", "Do not wait: 202, and the work goes on as an operation.", example="respond-async")
        )
    if is_once(rule, view):
        found.append(
            header(HEADER, "Sent again with it, the request is done once.", maxLength=KEY_LIMIT, pattern=VISIBLE)
        )
    return found


def reads_one(rule: Any, contract: Contract) -> bool:
    """Whether the route answers one object with its ETag."""
    return "GET" in rule.methods and not contract.many and "fields" in parameters(contract.query)


def reads_pages(rule: Any, contract: Contract) -> bool:
    """Whether the route answers pages with their weak ETag."""
    return "GET" in rule.methods and contract.many and contract.tells_place


def header(name: str, description: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": description, "schema": {"type": "string", **schema}}
