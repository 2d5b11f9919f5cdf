"""Tokens: who may use the service, and as what. From the first one on nobody is let in without one."""

import json
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Response, abort
from marshmallow import Schema, ValidationError, fields, validate, validates

from db import read, write
from handlers.http.auth import ROLES, requires_role
from handlers.http.contract import gives, takes
from handlers.http.fields import BIGINT, StrictInteger, Timestamp
from handlers.http.problems import ProblemException
from handlers.http.responses import answer, page
from handlers.http.schemas import page_query
from handlers.http.tokens import HolderName, digest, new_secret

tokens = Blueprint("tokens", __name__)


class NewToken(Schema):
    """Whose a token shall be, and what its holder may do."""

    name = HolderName(
        required=True, metadata={"description": "History calls its holder so; no two have one name.", "example": "ann"}
    )
    role = fields.String(
        required=True,
        validate=validate.OneOf(ROLES[1:]),
        metadata={"description": "Each may do what those before it may.", "example": "writer"},
    )
    project = StrictInteger(
        most=BIGINT,
        allow_none=True,
        load_default=None,
        metadata={"description": "The only project it reaches; null for all there is."},
    )
    expires_at = Timestamp(
        allow_none=True,
        load_default=None,
        metadata={"description": "From when on it is no longer good; null for never."},
    )

    @validates("expires_at")
    def check_future(self, value: str | None, **_: Any) -> None:
        if value and datetime.fromisoformat(value) <= datetime.now(UTC):
            raise ValidationError("Must be in the future.")


class Token(NewToken):
    """A token, without what it is."""

    id = fields.Integer(dump_only=True)
    created_at = fields.String(dump_only=True, metadata={"format": "date-time"})
    revoked_at = fields.String(
        dump_only=True, allow_none=True, metadata={"format": "date-time", "description": "Null while it is good."}
    )
    last_used_at = fields.String(
        dump_only=True, allow_none=True, metadata={"format": "date-time", "description": "To the minute."}
    )


class MadeToken(Token):
    """A new token: what it is, is told this once and kept nowhere."""

    token = fields.String(dump_only=True, metadata={"description": "For Authorization: Bearer …"})


@tokens.get("/tokens")
@requires_role("admin")
@takes(query=page_query(Token, {"id": str}))
@gives(Token, many=True)
def list(query: dict[str, Any]) -> Response:
    """Tokens page by page, also those that are no longer good; none says what it is."""
    return page("tokens.list", query)


@tokens.get("/tokens/<id:id>")
@requires_role("admin")
@gives(Token)
def get(id: int) -> Response:
    """Whose a token is, what its holder may do, and when it was used last."""
    return answer((read("tokens.get", id=id) or abort(404, "There is no such object.")).body)


@tokens.post("/tokens")
@requires_role("admin")
@takes(NewToken)
@gives(MadeToken, 201, told_once=True)
def create(body: dict[str, Any]) -> Response:
    """Make a token. This answer alone says what it is. 409 where another has its name, if only a revoked one."""
    secret = new_secret()
    given = {name: "" if value is None else value for name, value in body.items()}
    made = write("tokens.create", **given, sha256=digest(secret), expires="")
    if made is None:
        raise ProblemException("no-reference", "A field refers to nothing.", errors={"project": ["There is none."]})
    response = answer(json.dumps(json.loads(made.body) | {"token": secret}), 201)
    response.headers |= {"Location": f"/tokens/{made.id}", "Cache-Control": "no-store"}
    return response


@tokens.delete("/tokens/<id:id>")
@requires_role("admin")
@gives(status=204)
def revoke(id: int) -> Response:
    """Take a token back: within 2 seconds it is refused, and its sockets are closed. It stays in the list."""
    write("tokens.revoke", id=id) or read("tokens.get", id=id) or abort(404, "There is no such object.")
    return Response(status=204)
