"""What a migration would do: what is pending, the SQL with its locks, and what an administrator has to allow first."""

from db import run
from db.pool import connect
from db.schema import begin, check_server, checksums, expected, is_standby, steps

TIMES = b"select name, to_char(applied_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') from schema_migrations"

LOCKS = b"""
    select l.relation::regclass::text, l.mode
    from pg_locks as l
    where l.pid = pg_backend_pid()
        and l.relation = any ($1)
        and l.relation >= 16384 -- not the catalog's own
        and l.mode = any ('{ShareLock,ShareRowExclusiveLock,ExclusiveLock,AccessExclusiveLock}')
    order by l.relation::regclass::text, l.mode
"""
"""What this transaction holds that keeps writers or readers waiting, on what was there before."""


def status(dsn: str) -> list[tuple[str, str]]:
    """Each migration, and the book: when the database took it as it is now; empty where it did not."""
    with connect(dsn) as connection:
        check_server(connection)
        applied = checksums(connection)
        if not applied:  # a new one takes the book alone
            return [("book", "")]
        times = dict(connection.execute(TIMES).fetchall())
        return [
            (name, times[name] if applied.get(name, "") in (checksum, None) else "")
            for name, checksum in expected().items()
        ]


def rehearse(dsn: str) -> list[str]:
    """What `migrate` would run, and then the locks that it held others up with; all of it was taken back."""
    with connect(dsn) as connection:
        if is_standby(connection):
            return []
        with connection.transaction(force_rollback=True):
            begin(connection)
            there = connection.execute("select array_agg(oid) from pg_class").fetchone()
            ran = [f"-- {name}\n{statements.strip()}\n" for name, statements in steps(connection)]
            locks = connection.execute(LOCKS, there).fetchall()
        return [*ran, *(f"-- {mode} on {relation}" for relation, mode in locks)]


def rights(dsn: str) -> list[str]:
    """The statements that an administrator runs once, for whoever `dsn` names; none where nothing is missing."""
    with connect(dsn) as connection:
        check_server(connection)
        return [right.statement for right in run(connection, "access.rights")]
