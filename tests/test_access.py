"""What the service may do in the database: its role owns nothing."""

import psycopg
import pytest
from psycopg import errors

from db.pool import ROLE
from tests.conftest import serve


@pytest.fixture
def as_service(service):
    """A connection with the rights of the service."""
    with psycopg.connect(service.database, autocommit=True, options=f"-c role={ROLE}") as connection:
        yield connection


@pytest.mark.parametrize(
    "statement",
    [
        "update history.entries set actor = 'somebody else'",
        "delete from history.entries",
        "truncate history.entries",
        "insert into history.entries (operation_date, obj_type, action, actor) values (now(), 'user', 'create', 'me')",
        "update history.tracked set obj_type = 'other'",
        "delete from history.entries_default",
        "drop table history.entries_default",
        "select history.untrack('users')",
        "select history.prune(now())",
        "alter table users disable trigger all",
        "drop trigger history_90_change on users",
        "truncate users cascade",
        "create table public.mine (id int)",
        "create table history.mine (id int)",
        "update schema_migrations set checksum = null",
        "create or replace function history.record() returns trigger language sql as ''",
        "set session_replication_role = replica",
    ],
)
def test_the_service_cannot(as_service, statement):
    with pytest.raises(errors.InsufficientPrivilege) as refusal:
        as_service.execute(statement)
    assert refusal.value.sqlstate == "42501"


def test_the_service_works_as_its_role(database):
    with psycopg.connect(database, autocommit=True) as owner, serve(database) as service:
        assert service.get("/users").status_code == 200
        owner.execute(f"revoke select on users from {ROLE}")
        assert service.get("/users").status_code == 500
        assert service.get("/audios").status_code == 200


def test_what_the_service_writes_is_recorded_all_the_same(as_service):
    made = as_service.execute("insert into projects (name) values ('As the service') returning id").fetchone()
    found = as_service.execute("select action from history.entries where project = %s", made).fetchall()
    assert found == [("create",)]
