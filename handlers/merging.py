"""Changes that start from a version a client read: saved, merged with what others saved since, or refused with reasons.

The only place where this is decided, for all nouns.
"""

import json
from typing import Any, NoReturn

import psycopg
from flask import Response, abort

from db import read, write
from handlers.answers import item
from handlers.preconditions import Expected
from handlers.problems import Problem

Key = int | str
"""A number, or a UUID as text."""

CONFLICT = "RH409"
"""The SQLSTATE with which a merge is refused (history.mine)."""


def changed(noun: str, id: Key, body: dict[str, Any], expected: Expected, *, merge: bool = False) -> Response:
    """The object as `{noun}.change` saved it; 404, 409 or 412 where it could not.

    With `merge`, members that nobody else changed since the version that the body names are saved over the newer one.
    """
    base = expected.base if merge and not expected.strict else ""
    try:
        row = write(f"{noun}.change", id=id, body=json.dumps(body), versions=expected.versions, base=base)
    except psycopg.Error as error:
        if error.sqlstate != CONFLICT:
            raise
        row = None
    return item(row or refuse(noun, id, body, expected))


def removed(noun: str, id: Key, expected: Expected) -> Response:
    """204 once `{noun}.remove` took the object away; 404, 409 or 412 where it could not."""
    if not write(f"{noun}.remove", id=id, versions=expected.versions):
        refuse(noun, id, {}, expected)
    return Response(status=204)


def refuse(noun: str, id: Key, yours: dict[str, Any], expected: Expected) -> NoReturn:
    """Raise 412 for If-Match, else 409, with what there is now and where it collides; 404 where there is nothing."""
    body = json.dumps(yours)
    found = read("history.compare", noun=noun, id=id, base=expected.base or "", body=body) or abort(
        404, "There is no such object."
    )
    current = as_of(noun, id, found.version)
    base = as_of(noun, id, expected.base) if expected.base and expected.base < found.version else {}
    raise Problem(
        412 if expected.strict else 409,
        f"The object is at version {found.version}.",
        current=current,
        base_version=expected.base,
        conflicts=[
            {"field": name, "base": base.get(name), "yours": yours[name], "theirs": current[name], **who}
            for name, who in json.loads(found.conflicts).items()
        ],
    )


def as_of(noun: str, id: Key, version: int) -> dict[str, Any]:
    """The members of an object as a version had them; none where history does not know it."""
    row = read(f"{noun}.as_of", id=id, as_of=version)
    return json.loads(row.body) if row else {}
