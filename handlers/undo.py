"""Undo: all that a request or an upload changed taken back, as new versions, in one transaction."""

from typing import Any

from flask import Blueprint, Response, abort, g
from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from db import project
from handlers.bulk.operation import Outcome
from handlers.bulk.progress import Progress
from handlers.bulk.undo import TOLD, Unknown, request, undo, upload
from handlers.http.auth import requires_role
from handlers.http.contract import gives, takes
from handlers.http.fields import BIGINT, StrictBoolean, StrictInteger, Text
from handlers.http.respond_async import run_or_enqueue
from handlers.http.schemas import Conflict

undos = Blueprint("undos", __name__)


class Undo(Schema):
    """What to take back: all that the requests of one X-Request-Id changed, or the rows that an upload added."""

    request_id = Text(200, metadata={"description": "The X-Request-Id of what is to be undone."})
    upload_id = StrictInteger(most=BIGINT, metadata={"description": "The upload that is to be undone.", "example": 1})
    dry_run = StrictBoolean(load_default=False, metadata={"description": "Only tell what it would do."})
    conflicts = fields.String(
        validate=validate.OneOf(("refuse", "keep theirs")),
        load_default="refuse",
        metadata={
            "description": "What to do where others changed the same since: refuse all of it, or undo the rest and"
            " keep theirs."
        },
    )

    @validates_schema
    def name_one(self, data: dict[str, Any], **_: Any) -> None:
        if ("request_id" in data) == ("upload_id" in data):
            raise ValidationError("Name either a request or an upload.", "request_id")


class UndoneObject(Schema):
    """An object that was undone."""

    obj_type = fields.String(metadata={"example": "userstory"})
    obj_id = fields.Raw(metadata={"description": "Its key.", "example": 118})
    version = fields.Integer(allow_none=True, metadata={"description": "That this made, or that was deleted."})


class UndoResult(Schema):
    """What was undone, or would be."""

    request_id = fields.String(metadata={"description": "Of the undo itself: by it, it can be undone."})
    dry_run = fields.Boolean()
    objects = fields.Integer(metadata={"description": "How many were undone."})
    undone = fields.List(fields.Nested(UndoneObject), metadata={"description": f"The first {TOLD} of them."})
    conflicts = fields.List(
        fields.Nested(Conflict),
        metadata={"description": f"What others changed since, and was kept; the first {TOLD}."},
    )


@undos.post("/undo")
@requires_role("writer", of_project=True)
@takes(Undo, long=True)
@gives(UndoResult, absent=True)
def create(body: dict[str, Any]) -> Response:
    """Take back what a request or an upload changed, merged with what others changed since; it can itself be undone."""
    if "upload_id" in body and project.get():
        abort(404, "There is no such upload.")
    stage = upload(body["upload_id"]) if "upload_id" in body else request(body["request_id"], bool(project.get()))
    request_id = g.request_id

    def work(progress: Progress) -> Outcome:
        try:
            found = undo(stage, keep_theirs=body["conflicts"] != "refuse", dry_run=body["dry_run"])
        except Unknown:
            abort(404, "Nothing is known to have been changed by it.")
        progress(found["objects"], of=found["objects"])
        return Outcome(200, {"request_id": request_id, "dry_run": body["dry_run"], **found})

    return run_or_enqueue("undo", "all", work)
