"""The past of an object, for every noun: what was changed, how it was, and back to a version."""

import json
from typing import Any

from flask import Blueprint, Response, abort
from marshmallow import Schema, ValidationError, fields, validate
from psycopg.errors import ForeignKeyViolation

from db import read
from handlers.bulk.errors import ChangedSince
from handlers.bulk.operation import Outcome
from handlers.bulk.progress import Progress
from handlers.bulk.undo import Unknown, deletion, undo
from handlers.http.auth import requires_role
from handlers.http.concurrency import Key, changed
from handlers.http.contract import gives, takes
from handlers.http.fields import INTEGER, StrictInteger
from handlers.http.preconditions import Expected, require_version
from handlers.http.problems import ProblemException, constraint
from handlers.http.respond_async import prefers_async, response_of, run_for_client, run_or_enqueue
from handlers.http.responses import page
from handlers.http.schemas import Versioned, instant, page_query


class Entry(Schema):
    """A change: of one object, or of a whole table."""

    id = fields.Integer(metadata={"format": "int64"})
    operation_date = fields.String(metadata={"format": "date-time", "description": "When."})
    obj_type = fields.String(metadata={"example": "userstory"})
    obj_id = fields.Raw(allow_none=True, metadata={"description": "Its key; null where a whole table is meant."})
    action = fields.String(metadata={"enum": ["create", "update", "delete", "truncate"]})
    project = fields.Integer(allow_none=True)
    actor = fields.String(metadata={"description": "The caller, or the role and application on the database."})
    request_id = fields.String(allow_none=True)
    version = fields.Integer(allow_none=True, metadata={"description": "That the change made, or that was deleted."})
    old_obj = fields.Dict(allow_none=True, metadata={"description": "The row before."})
    new_obj = fields.Dict(allow_none=True, metadata={"description": "The row after."})
    diff = fields.Raw(allow_none=True, metadata={"description": 'As {"field": [old, new]}, or as JSON Patch.'})
    revert = fields.String(allow_none=True, metadata={"description": "Of what was deleted: where it comes back."})


class Revert(Schema):
    """The version to go back to."""

    to = StrictInteger(
        most=INTEGER, required=True, metadata={"description": "The version to be as again.", "example": 1}
    )


class RevertQuery(Schema):
    """What else to bring back."""

    children = fields.String(
        data_key="with",
        validate=validate.OneOf(("children",)),
        metadata={"description": "With what was deleted, also what went with it in the same request."},
    )


def entry_query(**filters: fields.Field) -> Any:
    """The parameters of a list of entries, with these filters."""
    diff = fields.String(
        validate=validate.OneOf(("fields", "json-patch")),
        metadata={"description": 'The form of `diff`: {"field": [old, new]}, or RFC 6902.'},
    )
    return page_query(Entry, {"id": instant}, diff=diff, **filters)


def set_by_service(kind: type[Versioned]) -> list[str]:
    """The members that say what the service did: taken back, it would be done once more."""
    return [name for name, field in kind().load_fields.items() if field.metadata.get("x-set-by-service")]


def reverted(kind: type[Versioned]) -> list[str]:
    """The members that a revert takes back."""
    return [name for name in kind().load_fields if name not in set_by_service(kind)]


def undeleted(noun: str, kind: type[Versioned], id: Key, version: int, children: bool, expected: Expected) -> Response:
    """What was deleted, there again as it was in a version; 404, 409 or 412 where it cannot be. It may be long work."""
    deleted = read("undo.deleted", noun=noun, id=id) or abort(404, "There is no such object.")
    if expected.strict and expected.versions == "*":
        abort(412, f"The object was deleted at version {deleted.version}.")
    if expected.versions != "*" and str(deleted.version) not in expected.versions.split(","):
        told = "stale-version" if expected.strict else "conflict"
        raise ProblemException(told, f"The object was deleted at version {deleted.version}.", conflicts=[])
    # One object alone is no long work, and needs no place among it, unless nobody waits for it.
    at_length = children or prefers_async()
    stage = deletion(noun, deleted.key, version, set_by_service(kind), children)

    def work(progress: Progress) -> Outcome:
        try:
            found = undo(stage, at_length=at_length)
        except Unknown:
            raise ValidationError({"to": ["There is no such version."]}) from None
        progress(found["objects"], of=found["objects"])
        row = read(f"{noun}.get", id=id) or abort(404, "There is no such object.")
        return Outcome(200, json.loads(row.body), etag=f'"{row.version}"')

    return run_or_enqueue("undo", noun, work) if at_length else response_of(run_for_client(work))


def without_parent(noun: str, id: Key, past: dict[str, Any], error: ForeignKeyViolation) -> Exception:
    """What an object would refer to again that is there no more, told as undo tells it."""
    diag = error.diag
    broken = constraint(diag.schema_name, diag.table_name, diag.constraint_name)
    if not broken or broken.field not in past:
        return error
    told = {"obj_type": read("history.kind", table=noun).obj_type, "obj_id": id, "field": broken.field}
    values = {"base": None, "yours": past[broken.field], "theirs": None}
    return ChangedSince([told | values | {"changed_by": None, "changed_at": None}])


def add_history_routes(
    blueprint: Blueprint, *, noun: str, one: str, schema: type[Versioned], key: str = "id", of_project: bool = False
) -> None:
    """Add the routes to the history of `noun` ("tasks", "a task"), and back to a version."""

    @blueprint.get(f"/{noun}/<{key}:id>/history", endpoint=f"history_of_{noun}")
    @requires_role("reader", of_project=of_project)
    @takes(query=entry_query())
    @gives(Entry, many=True)
    def history(id: Key, query: dict[str, Any]) -> Response:
        if not (read(f"{noun}.get", id=id) or read("history.known", noun=noun, id=id)):
            abort(404, "There is no such object, and there never was.")
        return page("history.list", query | {"noun": noun, "obj_id": id})

    @blueprint.post(f"/{noun}/<{key}:id>/revert", endpoint=f"revert_{noun}")
    @requires_role("writer", of_project=of_project)
    @takes(Revert, query=RevertQuery, precondition=True, any_version=True, long=True)
    @gives(schema)
    def revert(id: Key, query: dict[str, Any], body: dict[str, Any], expected: Expected) -> Response:
        if not read(f"{noun}.get", id=id):
            return undeleted(noun, schema, id, body["to"], "children" in query, expected)
        require_version(expected)
        past = read(f"{noun}.as_of", id=id, as_of=body["to"])
        if past is None:
            raise ValidationError({"to": ["There is no such version."]})
        members = json.loads(past.body)
        try:
            return changed(noun, id, {name: members[name] for name in reverted(schema)}, expected)
        except ForeignKeyViolation as error:
            raise without_parent(noun, id, members, error) from None

    history.__doc__ = f"What was changed of {one}, page by page, by whom, from what to what."
    revert.__doc__ = (
        f"Save {one} as it was in an earlier version, over the version you read; or bring it back, deleted."
    )
