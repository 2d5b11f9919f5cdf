"""Changes that start from a version a client read: saved, merged with what others saved since, or refused with reasons.

The only place where this is decided, for all nouns.
"""

import json
import time
from typing import Any, NamedTuple, NoReturn

from flask import Response, abort

from db import read, write
from handlers.answers import item
from handlers.preconditions import Expected
from handlers.problems import Problem

Key = int | str
"""A number, or a UUID as text."""

MERGE_WITHIN = 5.0
"""Seconds in which a merge must find a moment when nobody else saves the same object."""


class Stale(NamedTuple):
    """A change whose version is no longer the current one, beside what others did meanwhile."""

    version: int
    current: dict[str, Any]
    mine: dict[str, Any]
    """The members that the caller changed."""
    conflicts: list[dict[str, Any]]
    """Those of them that somebody else changed too, to something else."""
    known: bool
    """Whether history has every version since."""


def changed(noun: str, id: Key, body: dict[str, Any], expected: Expected, *, merge: bool = False) -> Response:
    """The object as `{noun}.change` saved it; 404, 409 or 412 where it could not.

    With `merge`, members that nobody else changed since the version that the body names are saved over the newer one.
    """
    versions, deadline = expected.versions, time.monotonic() + MERGE_WITHIN
    while True:
        row = write(f"{noun}.change", id=id, body=json.dumps(body), versions=versions)
        if row:
            return item(row)
        stale = compared(noun, id, body, expected)
        if expected.strict or not merge or not stale.known or stale.conflicts:
            refuse(stale, expected)
        if time.monotonic() > deadline:
            abort(503, "Others keep changing the object.")
        body, versions = stale.mine, str(stale.version)


def removed(noun: str, id: Key, expected: Expected) -> Response:
    """204 once `{noun}.remove` took the object away; 404, 409 or 412 where it could not."""
    if not write(f"{noun}.remove", id=id, versions=expected.versions):
        refuse(compared(noun, id, {}, expected), expected)
    return Response(status=204)


def compared(noun: str, id: Key, yours: dict[str, Any], expected: Expected) -> Stale:
    """What a change would do to the object as it is now. 404 where there is none."""
    row = read(f"{noun}.get", id=id) or abort(404, "There is no such object.")
    current = json.loads(row.body)
    base: dict[str, Any] | None = None
    theirs: dict[str, Any] = {}
    known = False
    if expected.base is not None and expected.base < row.version:
        since = read("history.since", noun=noun, id=id, base=expected.base, version=row.version)
        theirs = json.loads(since.body)
        known = since.versions == row.version - expected.base
        past = read(f"{noun}.as_of", id=id, as_of=expected.base)
        base = json.loads(past.body) if past else None
    mine = {name: value for name, value in yours.items() if base is None or value != base[name]}
    conflicts = [
        {
            "field": name,
            "base": base[name] if base else None,
            "yours": value,
            "theirs": current[name],
            **theirs.get(name, {"changed_by": None, "changed_at": current["updated_at"]}),
        }
        for name, value in mine.items()
        if value != current[name] and (name in theirs or not known)
    ]
    return Stale(row.version, current, mine, conflicts, known)


def refuse(stale: Stale, expected: Expected) -> NoReturn:
    """Raise 412 for If-Match, else 409, with what there is now and where it collides."""
    raise Problem(
        412 if expected.strict else 409,
        f"The object is at version {stale.version}.",
        current=stale.current,
        base_version=expected.base,
        conflicts=stale.conflicts,
    )
