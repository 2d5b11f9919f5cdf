"""Laws of the house for plans: what meets a big table goes by an index, and a late page costs what page 1 does."""

import re

import pytest
from psycopg import conninfo

import db
from db.pool import connect
from tests.conftest import clone, drop

USERS = 100_000

PEOPLE = f"""
    insert into users (email, name, address, image, created_at)
    select
        'user' || i || '@example.com',
        'Name ' || i % 5000,
        i || ' Street ' || md5(i::text),
        'http://example.com/' || i,
        now() + i * interval '1 second'
    from generate_series(1, {USERS}) as i;
    analyze users;
"""


@pytest.fixture(scope="module")
def crowd(server, template):
    """A database with many users."""
    name = clone(server, template)
    url = conninfo.make_conninfo(server, dbname=name)
    with connect(url) as connection:
        connection.execute("set statement_timeout = 0")
        connection.execute(PEOPLE.encode())
    yield url
    drop(server, name)


def plan(url: str, statement: str, **parameters: object) -> str:
    return "\n".join(db.explain(url, statement, parameters))


def buffers(text: str) -> int:
    """The pages that a plan touched in all, less those of planning."""
    return sum(int(number) for number in re.findall(r"(?:hit|read)=(\d+)", text.split("Planning:")[0].splitlines()[1]))


@pytest.mark.parametrize(
    "statement, parameters, index",
    [
        ("users.get", {"id": 7}, "users_pkey"),
        ("users.by_email", {"email": "USER7@example.com"}, "users_email_key"),
        ("users.id_by_email", {"email": "USER7@example.com"}, "users_email_key"),
        ("users.list", {}, "users_pkey"),
        ("users.list", {"sort": "-id"}, "Backward using users_pkey"),
        ("users.list", {"sort": "email"}, "users_email_key"),
        ("users.list", {"sort": "-email"}, "Backward using users_email_key"),
        ("users.list", {"sort": "name"}, "users_name_id_idx"),
        ("users.list", {"sort": "-name"}, "Backward using users_name_id_idx"),
        ("users.list", {"sort": "created_at"}, "users_created_at_id_idx"),
        ("users.list", {"sort": "-created_at"}, "Backward using users_created_at_id_idx"),
        ("users.list", {"id": "7"}, "users_pkey"),
        ("users.list", {"email": "user7@example.com"}, "users_email_key"),
        ("users.list", {"name": "Name 7"}, "users_name_id_idx"),
        ("users.list", {"address": "1679091c5a880faf"}, "users_address_idx"),
        ("users.change", {"id": 7, "body": '{"name": "Anna"}', "versions": "1"}, "users_pkey"),
        ("users.remove", {"id": 7, "versions": "1"}, "users_pkey"),
    ],
)
def test_a_statement_goes_by_its_index(crowd, statement, parameters, index):
    found = plan(crowd, statement, **parameters)
    assert index in found
    assert "Seq Scan on users" not in found


@pytest.mark.parametrize("sort", ["", "-id", "email", "-email", "name", "-name", "created_at", "-created_at"])
def test_a_late_page_costs_what_the_first_does(crowd, sort):
    with connect(crowd) as connection:
        first = next(db.run(connection, "users.list", sort=sort, limit=50))
        late = next(db.run(connection, "users.list", sort=sort, limit=1000))
        for _ in range(40):
            late = next(db.run(connection, "users.list", sort=sort, limit=1000, cursor=late.next))
    assert first.next
    early, much_later = (plan(crowd, "users.list", sort=sort, limit=50, cursor=row.next) for row in (first, late))
    assert shape(early) == shape(much_later)
    assert buffers(much_later) <= buffers(early) * 1.5 + 10


def shape(text: str) -> list[str]:
    """The nodes of a plan, without its figures."""
    return [line.split("(")[0].strip() for line in text.splitlines() if "->" in line]
