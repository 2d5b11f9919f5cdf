"""flask upload, backup, restore: whole tables, with a progress bar."""

import errno
import getpass
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import click
from flask import current_app

import db
import settings
from db import actor
from handlers.bulk.backup import ALL, TABLES, back_up
from handlers.bulk.backup_store import BackupStore
from handlers.bulk.csv_header import COLUMNS
from handlers.bulk.loading import load
from handlers.bulk.progress import Progress
from handlers.bulk.restore import files_of, restore
from handlers.cli.common import commands, database, one_line_errors


@contextmanager
def working(label: str) -> Iterator[Any]:
    """A pool to work with, and a progress bar; one line where it fails."""
    actor.set((f"{getpass.getuser()} (flask)", ""))
    with one_line_errors(), database() as url:
        db.open_pool(url, 2)
        try:
            with click.progressbar(length=1, label=label, show_pos=True, file=sys.stderr) as bar:
                yield bar
        finally:
            db.close_pool()


def by_rows(bar: Any) -> Progress:
    """Moves a bar as far as the rows are."""

    def progress(rows: int, of: int | None = None) -> None:
        bar.length = bar.length if of is None else of
        bar.update(rows)

    return progress


@contextmanager
def on_disk(file: BinaryIO) -> Iterator[BinaryIO]:
    """The file, which may be read from any place; what comes through a pipe is written down first."""
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        yield file
        return
    with tempfile.TemporaryFile() as spool:
        shutil.copyfileobj(file, spool)
        spool.seek(0)
        yield spool


def backup_dir() -> Path:
    """BACKUP_DIR, which need not be there. Ends the command where something else is."""
    directory: Path = current_app.config["BACKUP_DIR"]
    if settings.fault(directory) == errno.ENOTDIR:
        sys.exit(f"BACKUP_DIR {directory} is not a directory.")
    return directory


@commands.cli.command("upload")
@click.argument("table", type=click.Choice([*COLUMNS]))
@click.argument("file", type=click.File("rb"))
@click.option("--header", type=click.Choice(["auto", "yes", "no"]), default="auto", show_default=True)
@click.option("--mode", type=click.Choice(["partial", "atomic", "dry-run"]), default="partial", show_default=True)
@click.option("--max-errors", type=click.IntRange(0), help="With more rejects nothing is kept.")
def upload(table: str, file: BinaryIO, header: str, mode: str, max_errors: int | None) -> None:
    """Move a CSV file (- for standard input) into departments, jobs or employees; rejects: GET /errors/TABLE."""
    with working(f"Uploading {table}") as bar, on_disk(file) as source:
        bar.length = os.fstat(source.fileno()).st_size

        def progress(rows: int, of: int | None = None) -> None:
            bar.update(source.tell() - bar.pos)

        limit = current_app.config["REJECTS_LIMIT"]
        row, sha256, undone = load(table, source, progress, limit, header, mode, max_errors)
    kept = "Nothing was kept." if undone else f"Upload {row.upload_id}."
    click.echo(f"{kept} {row.rows} rows: {row.accepted} accepted, {row.rejected} rejected. SHA-256 {sha256}")
    for reject in undone.rejects if undone else []:
        click.echo(f"line {reject['line']}: {reject['column_name'] or 'row'}: {reject['detail']}")
    if undone and undone.too_many:
        sys.exit(1)


@commands.cli.command("backup")
@click.argument("table", type=click.Choice([*TABLES, ALL]))
def backup_table(table: str) -> None:
    """Back a table up, or all from one snapshot, into BACKUP_DIR."""
    directory = backup_dir()
    with working(f"Backing up {table}") as bar:
        manifest = back_up(directory, table, by_rows(bar))
    click.echo(f"{manifest['name']}: {manifest['rows']} rows in {directory}")


@commands.cli.command("restore")
@click.argument("table", type=click.Choice([*TABLES, ALL]))
@click.option("--backup", "name", help="Its name; the newest of the table by default.")
@click.option("--file", type=click.File("rb"), help="An Avro file instead; - for standard input.")
@click.option("--dry-run", is_flag=True, help="Only tell what it would change.")
def restore_table(table: str, name: str | None, file: BinaryIO | None, dry_run: bool) -> None:
    """Make a table, or all, equal to a backup; readers see the old rows or the new."""
    if file and name:
        raise click.UsageError("Either --backup or --file says what is restored.")
    if file and table == ALL:
        raise click.UsageError("A file holds one table; all is restored from a backup.")
    store = BackupStore(backup_dir())
    with working(f"Restoring {table}") as bar, ExitStack() as stack:
        source = stack.enter_context(on_disk(file)) if file else None
        name = None if file else store.manifest(name or store.newest(table))["name"]
        with files_of(store.directory, table, name, source) as files:
            found = restore(table, files, name or "a file", dry_run, by_rows(bar))
    for each in found:
        click.echo("{table}: {rows} rows, {added} added, {removed} removed, {changed} changed".format(**each))
    if dry_run:
        click.echo("This was a trial: nothing was changed.")
