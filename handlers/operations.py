"""Operations: long work that goes on without the client that asked for it."""

from typing import Any

from flask import Blueprint, Response, abort
from marshmallow import Schema, fields

from db import read, write
from handlers.http.auth import may, requires_role
from handlers.http.contract import gives, takes
from handlers.http.problems import ProblemException
from handlers.http.responses import answer, page
from handlers.http.schemas import page_query

operations = Blueprint("operations", __name__)

KINDS = {"upload": "writer", "delete": "writer", "undo": "writer", "backup": "admin", "restore": "admin"}
"""Which role an operation needs, by its kind: that of the route which begins it. To others it is not there."""


class Operation(Schema):
    """An upload, a delete, an undo, a backup or a restore: how far it is, and what came of it."""

    id = fields.Integer(metadata={"format": "int64"})
    kind = fields.String(metadata={"enum": [*KINDS]})
    table = fields.String(metadata={"example": "employees"})
    state = fields.String(metadata={"enum": ["running", "succeeded", "failed", "canceled"]})
    rows_done = fields.Integer()
    rows_total = fields.Integer(allow_none=True, metadata={"description": "Null while it is not known."})
    status = fields.Integer(allow_none=True, metadata={"description": "The status that would have answered."})
    location = fields.String(allow_none=True, metadata={"description": "Where what it made is."})
    result = fields.Raw(allow_none=True, metadata={"description": "The body that would have answered, or a problem."})
    actor = fields.String()
    request_id = fields.String(allow_none=True)
    created_at = fields.String(metadata={"format": "date-time"})
    finished_at = fields.String(allow_none=True, metadata={"format": "date-time"})


def kinds() -> str:
    """The kinds of operations that the caller has the role for."""
    return ",".join(kind for kind, role in KINDS.items() if may(role))


@operations.get("/operations")
@requires_role("writer")
@takes(query=page_query(Operation, {"id": str}))
@gives(Operation, many=True)
def list(query: dict[str, Any]) -> Response:
    """Operations page by page: uploads, deletes and undos, and for an admin backups and restores."""
    return page("operations.list", query | {"kinds": kinds()})


@operations.get("/operations/<id:id>")
@requires_role("writer")
@gives(Operation)
def get(id: int) -> Response:
    """How far an operation is, and what came of it. One whose process died has failed."""
    return answer((read("operations.get", id=id, kinds=kinds()) or abort(404, "There is no such object.")).body)


@operations.delete("/operations/<id:id>")
@requires_role("writer")
@gives(status=204)
def cancel(id: int) -> Response:
    """Break an operation off: all that it did is taken back. 409 where it is too late for that."""
    if not write("operations.cancel", id=id, kinds=kinds()):
        read("operations.get", id=id, kinds=kinds()) or abort(404, "There is no such object.")
        raise ProblemException("wrong-state", "It has ended, or is about to.")
    return Response(status=204)
