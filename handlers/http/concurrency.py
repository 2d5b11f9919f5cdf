"""Changes that start from a version a client read: saved, merged with what others saved since, or refused with reasons.

The only place where this is decided, for all nouns.
"""

import json
from typing import Any, NoReturn

import psycopg
from flask import Response, abort
from marshmallow import ValidationError

import db
from db import read, write
from handlers.bulk.operation import Outcome
from handlers.bulk.progress import STATEMENT_TIMEOUT
from handlers.http.fields import Timestamp
from handlers.http.preconditions import Expected
from handlers.http.problems import ProblemException
from handlers.http.respond_async import prefers_async, run_or_enqueue
from handlers.http.responses import item

Key = int | str
"""A number, or a UUID as text."""

CONFLICT = "RH409"
"""The SQLSTATE with which a merge is refused (history.mine)."""


def changed(noun: str, id: Key, body: dict[str, Any], expected: Expected, *, merge: bool = False) -> Response:
    """The object as `{noun}.change` saved it; 404, 409 or 412 where it could not.

    With `merge`, members that nobody else changed since the version that the body names are saved over the newer one.
    """
    expected = checked(noun, id, body, expected)
    base = expected.base if merge and not expected.strict else ""
    try:
        row = write(f"{noun}.change", id=id, body=json.dumps(body), versions=expected.versions, base=base)
    except psycopg.Error as error:
        if error.sqlstate != CONFLICT:
            raise
        row = None
    return item(row or refuse(noun, id, body, expected))


def removed(noun: str, id: Key, expected: Expected) -> Response:
    """204 once `{noun}.remove` took the object away; 404, 409 or 412 where it could not. It may be long work."""
    expected = checked(noun, id, {}, expected)
    if prefers_async():
        return run_or_enqueue("delete", noun, lambda _: removed_at_length(noun, id, expected))
    try:
        gone = write(f"{noun}.remove", id=id, versions=expected.versions)
    except psycopg.errors.QueryCanceled:
        raise ProblemException(
            504, "What hangs on it is too much for one statement: ask with Prefer: respond-async."
        ) from None
    return Response(status=204) if gone else refuse(noun, id, {}, expected)


def removed_at_length(noun: str, id: Key, expected: Expected) -> Outcome:
    """The same, by a statement that has the time of long work."""
    with db.transaction(STATEMENT_TIMEOUT) as connection:
        gone = next(db.run(connection, f"{noun}.remove", id=id, versions=expected.versions), None)
    return Outcome(204, {}) if gone else refuse(noun, id, {}, expected)


def checked(noun: str, id: Key, yours: dict[str, Any], expected: Expected) -> Expected:
    """What a change may start from, once all that the client says of the object was found true of it.

    412 where If-None-Match names its version; 422 for what only the service sets, where it was not so.
    """
    if not expected.given and not expected.unwanted:
        return expected
    row = read(f"{noun}.get", id=id)
    if row and expected.unwanted and expected.unwanted.match_weakly(row.version):
        refuse(noun, id, yours, expected._replace(strict=True))
    seen = json.loads(row.body) if row else {}
    if row and expected.base and expected.base != row.version:
        seen = as_of(noun, id, expected.base)
    faults = {name: fault(value, seen, name) for name, value in expected.given.items()}
    if any(faults.values()):
        raise ValidationError({name: [told] for name, told in faults.items() if told})
    if row is None:
        abort(404, "There is no such object.")
    # The version that was looked at, and not one that somebody makes meanwhile.
    return expected._replace(versions=str(row.version)) if expected.versions == "*" else expected


def fault(given: Any, seen: dict[str, Any], name: str) -> str | None:
    """Why a member that is not the client's to change cannot stand in a body; None where it is as it was seen."""
    if given is None:
        return None if seen and seen[name] is None else "Field may not be null."
    return None if not seen or same(given, seen[name]) else "Only the service sets this."


def same(given: Any, seen: Any) -> bool:
    """Whether two values that the service set are one: moments of any zone, UUIDs of any case, and true is not 1."""
    if isinstance(given, str) and isinstance(seen, str):
        return meaning(given) == meaning(seen)
    return given == seen and type(given) is not bool


def meaning(text: str) -> str:
    try:
        return str(Timestamp().deserialize(text))
    except ValidationError:
        return text.lower()


def refuse(noun: str, id: Key, yours: dict[str, Any], expected: Expected) -> NoReturn:
    """Raise 412 for If-Match, else 409, with what there is now and where it collides; 404 where there is nothing."""
    body = json.dumps(yours)
    found = read("history.compare", noun=noun, id=id, base=expected.base or "", body=body) or abort(
        404, "There is no such object."
    )
    current = as_of(noun, id, found.version)
    base = as_of(noun, id, expected.base) if expected.base and expected.base < found.version else {}
    raise ProblemException(
        "stale-version" if expected.strict else "conflict",
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
