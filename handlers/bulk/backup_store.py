"""The store of backups: a directory, and the manifests that lie there."""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from marshmallow import ValidationError

from handlers.bulk.backup import ALL, file_name, tables_of
from handlers.bulk.errors import NoBackup

NAME = re.compile(r"(all|[a-z]+(?:_errors)?)-[0-9]{8}T[0-9]{12}Z")
"""What a backup is called: its table, and when it was made."""


def check_name(name: str) -> None:
    """For a field: whether this is what a backup may be called."""
    if not NAME.fullmatch(name):
        raise ValidationError("Not the name of a backup.")


def age(name: str) -> tuple[str, str]:
    """What backups are sorted by."""
    return name.rpartition("-")[2], name


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
        names = self.names(table, ALL)
        if not names:
            raise NoBackup(f"There is no backup of {table}.")
        return names[0]

    def manifest(self, name: str) -> dict[str, Any]:
        """A backup's manifest. Raises NoBackup where there is none that can be read."""
        try:
            found: dict[str, Any] = json.loads(self.path(name).read_bytes())
        except (OSError, ValueError):
            raise NoBackup("There is no such backup.") from None
        return found

    def manifests(self, names: Iterable[str]) -> Iterator[dict[str, Any]]:
        """The manifests of these that can be read."""
        for name in names:
            with suppress(NoBackup):
                yield self.manifest(name)

    def remove(self, name: str) -> None:
        """Delete a backup: its manifest first, then its files. Raises NoBackup."""
        manifest = self.manifest(name)
        self.path(name).unlink(missing_ok=True)
        for table in tables_of(manifest["table"]):
            (self.directory / file_name(name, table)).unlink(missing_ok=True)

    def path(self, name: str) -> Path:
        """Where the manifest of a name lies. Raises NoBackup for what is no name of a backup."""
        if not NAME.fullmatch(name):
            raise NoBackup("There is no such backup.")
        return self.directory / f"{name}.json"
