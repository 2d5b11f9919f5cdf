"""Changes taken back, and what was deleted brought back: staged, compared with what others did since, carried out."""

import json
from collections.abc import Callable
from typing import Any

import psycopg

import db
from handlers.bulk.errors import ChangedSince
from handlers.bulk.progress import STATEMENT_TIMEOUT

TOLD = 1000
"""Objects and conflicts that are told of an undo."""

Stage = Callable[[db.Connection], bool]
"""Stages what is to be undone; false where nothing is known of it."""


class Unknown(Exception):
    """Nothing is known of what is to be undone."""


def undo(stage: Stage, *, keep_theirs: bool = False, dry_run: bool = False, at_length: bool = True) -> dict[str, Any]:
    """Undo what `stage` stages, as one transaction: {"objects": 2, "undone": [{…}], "conflicts": [{…}]}.

    Raises Unknown, or ChangedSince where others changed the same since and nothing of theirs is kept: then nothing
    is done. With `dry_run` it only tells what would be. `at_length` its statements have the time of long work.
    """
    found: dict[str, Any] = {}
    with db.transaction(STATEMENT_TIMEOUT if at_length else None) as connection:
        db.run(connection, "undo.stage")
        if not stage(connection):
            raise Unknown
        db.run(connection, "undo.leave_foreign")
        plan = next(db.run(connection, "undo.plan"))
        found["conflicts"] = json.loads(plan.body)
        if plan.conflicts and not keep_theirs and not dry_run:
            raise ChangedSince(found["conflicts"])
        done = next(db.run(connection, "undo.carry_out"))
        found |= {"objects": done.objects, "undone": json.loads(done.body)}
        if dry_run:
            raise psycopg.Rollback
    return found


def request(request_id: str, of_project: bool) -> Stage:
    """What the requests with this X-Request-Id changed; for a token of one project, of that."""

    def stage(connection: db.Connection) -> bool:
        entries: int = next(db.run(connection, "undo.request", request_id=request_id)).entries
        if entries and not of_project:  # such a token sees no uploads
            db.run(connection, "undo.uploads", request_id=request_id)
        return entries > 0

    return stage


def upload(upload_id: int) -> Stage:
    """The rows that an upload added."""

    def stage(connection: db.Connection) -> bool:
        found: bool = next(db.run(connection, "undo.upload", upload_id=upload_id)).found
        return found

    return stage


def deletion(noun: str, key: str, version: int, kept: list[str], children: bool) -> Stage:
    """That an object was deleted, to come back as a version of it was, but for the members that are `kept` as they were
    last; with `children` also what went with it."""

    def stage(connection: db.Connection) -> bool:
        asked = {"noun": noun, "key": key, "to": version, "kept": ",".join(kept), "children": children}
        found: bool = next(db.run(connection, "undo.delete", **asked)).found
        return found

    return stage
