"""The shelf of backups: BACKUP_DIR, and the manifests that lie there."""

import json
import re
from pathlib import Path
from typing import Any

from flask import abort, current_app
from marshmallow import ValidationError

from handlers.backing import ALL

NAME = re.compile(r"(all|[a-z]+(?:_errors)?)-[0-9]{8}T[0-9]{12}Z")
"""What a backup is called: its table, and when it was made."""


def check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise ValidationError("Not the name of a backup.")


def directory() -> Path:
    found: Path = current_app.config["BACKUP_DIR"]
    return found


def age(name: str) -> tuple[str, str]:
    """What backups are sorted by."""
    return name.rpartition("-")[2], name


def stored(*tables: str) -> list[str]:
    """The names of the backups of these tables, or of any, the newest first."""
    names = (path.stem for path in directory().glob("*.json") if NAME.fullmatch(path.stem))
    return sorted((name for name in names if not tables or name.split("-")[0] in tables), key=age, reverse=True)


def newest(table: str) -> str:
    return next(iter(stored(table, ALL)), None) or abort(404, f"There is no backup of {table}.")


def manifest_of(name: str) -> dict[str, Any] | None:
    """A backup's manifest; None where there is none that can be read."""
    try:
        found: dict[str, Any] = json.loads((directory() / f"{name}.json").read_bytes())
    except (OSError, ValueError):
        return None
    return found


def known(name: str) -> dict[str, Any]:
    """A backup's manifest. 404 where there is none."""
    return (manifest_of(name) if NAME.fullmatch(name) else None) or abort(404, "There is no such backup.")
