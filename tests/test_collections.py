"""A walk over many pages while others write: whoever stays is seen, and once."""

import threading

import psycopg
import pytest

from tests.conftest import first, serve
from tests.test_seed import seed

PEOPLE = 100_000


@pytest.fixture(scope="module")
def town(module_database):
    """A service over 100,000 users."""
    assert seed(module_database, "--users", str(PEOPLE)).returncode == 0
    with serve(module_database) as service:
        yield service


class Crowd(threading.Thread):
    """People who come and go while others walk: every second one of those seeded stays."""

    def __init__(self, database):
        super().__init__()
        self.database, self.done, self.changes = database, threading.Event(), 0

    def run(self):
        with psycopg.connect(self.database, autocommit=True) as connection:
            while not self.done.is_set():
                connection.execute(
                    "with gone as (delete from users where id in (select id from users where id %% 2 = 0"
                    " and id > %(after)s order by id limit 50) returning id)"
                    " insert into users (email, name) select 'new' || id || '-' || %(after)s || '@example.com', 'New'"
                    " from gone",
                    {"after": self.changes * 997 % PEOPLE},
                )
                self.changes += 1


@pytest.mark.thorough
@pytest.mark.parametrize("sort", first(1, ["-email", "id", "name"]))
def test_who_stays_is_seen_once_whoever_comes_and_goes(town, sort):
    with psycopg.connect(town.database) as connection:
        staying = {id for (id,) in connection.execute("select id from users where id % 2 = 1")}
    crowd = Crowd(town.database)
    crowd.start()
    seen, path = [], f"/users?sort={sort}&limit=1000&fields=id"
    try:
        while path:
            answer = town.get(path)
            assert answer.status_code == 200
            seen += [user["id"] for user in answer.json()["items"]]
            path = answer.links.get("next", {}).get("url")
    finally:
        crowd.done.set()
        crowd.join()
    assert crowd.changes > 10
    assert staying <= set(seen)
    assert len([id for id in seen if id in staying]) == len(staying)
