"""Brings a database to the book: a new one takes sql/schema, an older one the migrations it lacks, then the book again.

All of it is one transaction under an advisory lock: several services that start at once wait for the first, and a
failure leaves the database as it was. The months' partitions of history are made afterwards: nobody waits for those.
"""

import hashlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
from psycopg import sql

from db import Connection, partitions, run
from db.pool import connect

log = logging.getLogger("rowhouse")

SQL = Path(__file__).parent.parent / "sql"

OLDEST_SERVER = 16
"""The oldest PostgreSQL that knows what the statements use (pg_input_is_valid)."""

LOCK = 7_296_349_102
"""The key of the advisory lock: any number, the same for all."""

LOCK_WAIT = "60s"


LOCKING = re.compile(
    r"^create (?:(?:unique )?index if not exists (?P<index>\w+)|or replace trigger (?P<trigger>\w+))\s[^;]*;\n",
    re.MULTILINE,
)
"""What locks a table though it may be there: an index, which `if not exists` asks after the lock, and a trigger."""

THERE = b"""
    select 1 from pg_class as c
    where c.relname = $1
        and c.relkind in ('i', 'I')
        and c.relnamespace = any ('{public,history}'::regnamespace[])
    union all
    select 1 from pg_trigger as t
    where t.tgname = $2
        and t.tgenabled = 'O'
        and lower(pg_get_triggerdef(t.oid, true)) = $3
"""
"""A row where there is this index, or this trigger just as it is to be."""


class Refused(Exception):
    """The database cannot be used as it is; the message says why, in one line."""


def migrate(dsn: str) -> list[str]:
    """Bring the database up to date, unless it is a standby that is; returns the names of what was applied.

    Raises Refused, or psycopg's errors.
    """
    with connect(dsn) as connection:
        if is_standby(connection):
            return []
        with connection.transaction():
            begin(connection)
            applied = bring_up_to_date(connection)
            connection.execute("select history.recognize_server()")
        try:
            partitions.create(connection)
        except (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled) as error:
            log.warning("The months' partitions of history could not be made yet: %s", error.diag.message_primary)
        return applied


def begin(connection: Connection) -> None:
    """Wait until nobody else migrates, and for locks only so long."""
    connection.execute(f"set local lock_timeout = '{LOCK_WAIT}'; set local statement_timeout = 0")
    connection.execute("select pg_advisory_xact_lock($1)", [LOCK])


def check_server(connection: Connection) -> None:
    """Raises Refused where the server is too old or the database could not hold every text."""
    version = connection.info.server_version // 10000
    if version < OLDEST_SERVER:
        raise Refused(f"PostgreSQL {version} is too old: Rowhouse needs {OLDEST_SERVER} or newer.")
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise Refused(f"The database is encoded in {encoding}: Rowhouse needs one in UTF8.")


def is_standby(connection: Connection) -> bool:
    """Whether it takes nothing but from its primary. Raises Refused where it is not up to date, or by check_server."""
    check_server(connection)
    if connection.info.parameter_status("in_hot_standby") != "on":
        return False
    if not expected().items() <= checksums(connection).items():
        raise Refused("The database is a standby, and not up to date: migrate its primary first.")
    return True


def bring_up_to_date(connection: Connection) -> list[str]:
    applied = checksums(connection)
    fresh = dict.fromkeys(name for name, _ in steps(connection))
    for name, checksum in expected().items():
        if applied.get(name) != checksum:
            record(connection, name, checksum)
    return [*fresh]


def steps(connection: Connection) -> Iterator[tuple[str, str]]:
    """Do what the database lacks; each is told, by its name, once it is done.

    Raises Refused where a migration was changed since, or its owner may not make what is needed.
    """
    for name, statements in pending(connection):
        connection.execute(statements.encode())
        yield name, statements


def pending(connection: Connection) -> Iterator[tuple[str, str]]:
    """What the database lacks, by its name: the next is found once the one before was done."""
    applied, known = checksums(connection), migrations()
    for name, checksum in applied.items():
        if name in known and checksum not in (None, digest(known[name])):
            raise Refused(f"Migration {name} was changed after this database took it: restore it, write a new one.")
    # A database that took no migration is new (or was built from the book with psql): the book is all it needs.
    if applied:
        yield from ((name, text) for name, text in known.items() if name not in applied)
    if applied.get("book") != digest(book()):
        check_rights(connection)
        yield from (("book", statements) for statements in lacking(connection, book()))


def check_rights(connection: Connection) -> None:
    """Raises Refused where an administrator has to do something first."""
    rights = [*run(connection, "access.rights")]
    if not all(right.may for right in rights):
        owner = connection.execute("select current_user").fetchone()
        assert owner
        raise Refused(f"{owner[0]} may not make all that is needed: an administrator runs what `flask roles` prints.")


def checksums(connection: Connection) -> dict[str, str | None]:
    """What the database has taken: {"0001_first_house": checksum, …}; empty where it has taken nothing."""
    if connection.execute("select to_regclass('schema_migrations')").fetchone() == (None,):
        return {}
    return dict(connection.execute("select name, checksum from schema_migrations order by name").fetchall())


def record(connection: Connection, name: str, checksum: str) -> None:
    connection.execute(
        "insert into schema_migrations (name, checksum) values ($1, $2)"
        " on conflict (name) do update set checksum = excluded.checksum, applied_at = now()",
        [name, checksum],
    )


def migrations() -> dict[str, str]:
    """The migrations by name, in order."""
    return {path.stem: path.read_text() for path in sorted((SQL / "migrations").glob("*.sql"))}


def book() -> str:
    """The chapters of sql/schema, one after the other."""
    return "\n".join(path.read_text() for path in sorted((SQL / "schema").glob("*.sql")))


def lacking(connection: Connection, text: str) -> Iterator[str]:
    """The statements of the book, but for indexes and triggers that are there as it says.

    To make one again changes nothing, and yet waits for all who write to its table, and keeps others waiting.
    """
    place = 0
    for made in LOCKING.finditer(text):
        yield text[place : made.start()]
        place = made.end()
        there = connection.execute(THERE, [made["index"] or "", made["trigger"] or "", flat(made[0])]).fetchone()
        if not there:
            yield made[0]
    yield text[place:]


def flat(statement: str) -> str:
    """A statement as the catalog has it: one line of small letters."""
    return " ".join(statement.rstrip(";\n").replace("or replace ", "").split()).lower()


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def expected() -> dict[str, str]:
    """What schema_migrations says of a database that is up to date."""
    return {name: digest(text) for name, text in (migrations() | {"book": book()}).items()}


def create_database(dsn: str, name: str) -> None:
    """Make an empty database, unless it is there. It sorts by code point and knows Unicode's case, on any machine."""
    with connect(dsn) as connection:
        if not connection.execute("select 1 from pg_database where datname = $1", [name]).fetchone():
            # As bytes, because CREATE DATABASE takes no parameters: the name is quoted by psycopg.
            statement = sql.SQL(
                "create database {} template template0 encoding 'UTF8' lc_collate 'C' lc_ctype 'C.UTF-8'"
            )
            connection.execute(statement.format(sql.Identifier(name)))
