"""The store of backups: a directory, and the manifests that lie there."""

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from marshmallow import ValidationError

from handlers.bulk.backup import ALL, TABLES, file_name, tables_of
from handlers.bulk.errors import Damaged, NoBackup

log = logging.getLogger("rowhouse")

NAME = re.compile(r"(all|[a-z]+(?:_errors)?)-[0-9]{8}T[0-9]{12}Z")
"""What a backup is called: its table, and when it was made."""

TEXT, NUMBER = (str,), (int,)

FILE = {"table": TEXT, "file": TEXT, "rows": NUMBER, "bytes": NUMBER, "sha256": TEXT, "schema": (dict,)}
"""What a manifest has of a file, and of which types."""

WHOLE = {
    "name": TEXT,
    "table": TEXT,
    "created_at": TEXT,
    "rows": NUMBER,
    "snapshot": (str, type(None)),
    "migration": (str, type(None)),
}
"""What it has besides."""


def check_name(name: str) -> None:
    """For a field: whether this is what a backup may be called."""
    if not NAME.fullmatch(name):
        raise ValidationError("Not the name of a backup.")


def age(name: str) -> tuple[str, str]:
    """What backups are sorted by."""
    return name.rpartition("-")[2], name


def is_manifest(found: Any, name: str) -> bool:
    """Whether this may be what `backup.described` made of a backup of this name."""
    table = name.split("-")[0]
    several = {"files": (list,)} if table == ALL else FILE
    root = {"history_root": TEXT} if isinstance(found, dict) and "history_root" in found else {}
    if not has_members(found, WHOLE | several | root) or (found["name"], found["table"]) != (name, table):
        return False
    files = found["files"] if table == ALL else [{member: found[member] for member in FILE}]
    return (
        table in (ALL, *TABLES)
        and all(has_members(each, FILE) for each in files)
        and [(each["table"], each["file"]) for each in files]
        == [(each, file_name(name, each)) for each in tables_of(table)]
    )


def has_members(found: Any, members: Mapping[str, tuple[type, ...]]) -> bool:
    """Whether this is an object of these members and no others, each of one of its types."""
    return (
        isinstance(found, dict)
        and found.keys() == members.keys()
        and all(type(found[name]) in types for name, types in members.items())
    )


class BackupStore:
    """The backups in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def names(self, *tables: str) -> list[str]:
        """The names of the backups of these tables, or of any, the newest first."""
        names = (path.stem for path in self.directory.glob("*.json") if NAME.fullmatch(path.stem))
        return sorted((name for name in names if not tables or name.split("-")[0] in tables), key=age, reverse=True)

    def newest(self, table: str) -> str:
        """The name of the newest backup that holds a table. Raises NoBackup."""
        for found in self.manifests(self.names(table, ALL)):
            return str(found["name"])
        raise NoBackup(f"There is no backup of {table}.")

    def manifest(self, name: str) -> dict[str, Any]:
        """A backup's manifest. Raises NoBackup where there is none, Damaged where it is not what was written."""
        try:
            found: Any = json.loads(self.path(name).read_bytes())
        except FileNotFoundError:
            raise NoBackup("There is no such backup.") from None
        except (OSError, ValueError, RecursionError) as error:
            raise Damaged("Its manifest cannot be read.") from error
        if not is_manifest(found, name):
            raise Damaged("Its manifest is not one of a backup.")
        return dict(found)

    def manifests(self, names: Iterable[str]) -> Iterator[dict[str, Any]]:
        """The manifests of these that are whole; others, which somebody has to look after, are logged."""
        for name in names:
            try:
                yield self.manifest(name)
            except Damaged as error:
                log.warning("backup %s is passed over: %s", name, error)
            except NoBackup:  # removed meanwhile
                pass

    def remove(self, name: str) -> None:
        """Delete a backup, also one that is damaged: its manifest first, then its files. Raises NoBackup."""
        manifest = self.path(name)
        if not manifest.is_file():
            raise NoBackup("There is no such backup.")
        manifest.unlink(missing_ok=True)
        for table in tables_of(name.split("-")[0]):
            (self.directory / file_name(name, table)).unlink(missing_ok=True)

    def path(self, name: str) -> Path:
        """Where the manifest of a name lies. Raises NoBackup for what is no name of a backup."""
        if not NAME.fullmatch(name):
            raise NoBackup("There is no such backup.")
        return self.directory / f"{name}.json"
