"""The routes that most resources have: list, create, get, replace, change, remove. users.py has them written out."""

import json
from typing import Any

from flask import Blueprint, Response, abort
from marshmallow import Schema

from db import read, write
from handlers.http.auth import requires_role
from handlers.http.concurrency import Key, changed, removed
from handlers.http.contract import gives, takes
from handlers.http.crud_history import add_history_routes
from handlers.http.preconditions import Expected
from handlers.http.responses import created, item, page
from handlers.http.schemas import Versioned, VersionQuery, item_query


def add_crud_routes(
    blueprint: Blueprint,
    *,
    noun: str,
    one: str,
    schema: type[Versioned],
    query: type[Schema],
    new: type[Versioned] | None = None,
    under: tuple[str, str] | None = None,
    key: str = "id",
    of_project: bool = False,
) -> None:
    """Add the routes of `noun` ("tasks", "a task") over its statements: list, create, get, replace, change, remove.

    `schema` is what is answered, changed and, unless `new` is, created; `query` that of the list. `under` names the
    collection that lists and creations stand below, and the parameter it has in the statements:
    ("userstories", "userstory_id") for /userstories/{id}/tasks. `key` is the converter of its ids: id or uuid. What
    stands below something is of a project, or is one.
    """
    of_project |= under is not None
    collection = f"/{under[0]}/<id:id>/{noun}" if under else f"/{noun}"

    def above(id: int | None) -> dict[str, Any]:
        return {under[1]: id} if under else {}

    @blueprint.get(collection, endpoint=f"list_{noun}")
    @requires_role("reader", of_project=of_project)
    @takes(query=query)
    @gives(schema, many=True)
    def list(query: dict[str, Any], id: int | None = None) -> Response:
        return page(f"{noun}.list", query | above(id))

    @blueprint.post(collection, endpoint=f"create_{noun}")
    @requires_role("writer", of_project=under is not None)
    @takes(new or schema)
    @gives(schema, 201)
    def create(body: dict[str, Any], id: int | None = None) -> Response:
        row = write(f"{noun}.create", body=json.dumps(body), **above(id))
        return created(row or abort(404, "There is no such object."), f"/{noun}/{row.id}")

    @blueprint.get(f"/{noun}/<{key}:id>", endpoint=f"get_{noun}")
    @requires_role("reader", of_project=of_project)
    @takes(query=item_query(schema))
    @gives(schema)
    def get(id: Key, query: dict[str, Any]) -> Response:
        return item(read(f"{noun}.as_of" if "as_of" in query else f"{noun}.get", id=id, **query))

    @blueprint.put(f"/{noun}/<{key}:id>", endpoint=f"replace_{noun}")
    @requires_role("writer", of_project=of_project)
    @takes(schema, precondition=True)
    @gives(schema)
    def replace(id: Key, body: dict[str, Any], expected: Expected) -> Response:
        return changed(noun, id, body, expected)

    @blueprint.patch(f"/{noun}/<{key}:id>", endpoint=f"change_{noun}")
    @requires_role("writer", of_project=of_project)
    @takes(schema, partial=True, precondition=True)
    @gives(schema)
    def change(id: Key, body: dict[str, Any], expected: Expected) -> Response:
        return changed(noun, id, body, expected, merge=True)

    @blueprint.delete(f"/{noun}/<{key}:id>", endpoint=f"remove_{noun}")
    @requires_role("writer", of_project=of_project)
    @takes(query=VersionQuery, precondition=True, long=True)
    @gives(status=204)
    def remove(id: Key, expected: Expected) -> Response:
        return removed(noun, id, expected)

    add_history_routes(blueprint, noun=noun, one=one, schema=schema, key=key, of_project=of_project)

    list.__doc__ = f"{noun.capitalize()} page by page, or all of them as NDJSON or CSV."
    create.__doc__ = f"Make {one}."
    get.__doc__ = f"Look at {one}, as it is or as it was."
    replace.__doc__ = f"Save {one} as the body says, over the version you read."
    change.__doc__ = f"Save some members of {one}, merged with what others changed since the version you read."
    remove.__doc__ = f"Delete {one}, if it still is the version you read."
