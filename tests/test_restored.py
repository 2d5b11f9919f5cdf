"""The database elsewhere: what came in a dump is no news there, and no place of where it was made is one."""

import subprocess
from contextlib import ExitStack

import psycopg
import pytest
from psycopg import conninfo

from db import private_postgres, schema
from tests.conftest import clone, drop, serve, tool
from tests.test_changes import EVENTS, LINES, SOME
from tests.test_failover import resumed
from tests.test_feed import channel, execute, silent


def use_up(url, number):
    """Give so many numbers of transactions out."""
    with psycopg.connect(url, autocommit=True) as connection:
        for _ in range(number):
            connection.execute("select pg_current_xact_id()")


def dump(url, directory):
    subprocess.run([tool("pg_dump", url), "-Fc", "-f", directory / "dump", url], check=True, timeout=60)


def restore(url, directory):
    subprocess.run([tool("pg_restore", url), "--exit-on-error", "-d", url, directory / "dump"], check=True, timeout=60)


@pytest.fixture
def elsewhere(tmp_path_factory):
    """Another server, with the roles of the service and an empty database."""
    with private_postgres.server(tmp_path_factory.mktemp("elsewhere") / "data") as server:
        schema.create_database(server, "made_for_its_roles")
        schema.migrate(conninfo.make_conninfo(server, dbname="made_for_its_roles"))
        schema.create_database(server, "restored")
        yield conninfo.make_conninfo(server, dbname="restored")


def places(service, project):
    path = f"/projects/{project}/milestones"
    made = [service.post(path, json={"name": "m"}).json()["id"] for _ in range(20)]
    cursors = [service.get(path).headers["Feed-Cursor"], service.get("/changes").json()["cursor"]]
    with channel(service) as ws:
        cursors.append(ws.subscribed)
        service.patch(f"/milestones/{made[0]}", json={"version": 1, "name": "n"})
        cursors.append(ws.listen()["cursor"])
    return cursors


def check_that_nothing_is_news(service, project, before):
    for cursor in before:
        for media in (EVENTS, LINES, SOME):
            assert resumed(service, media, cursor)["type"] == "reset"
    path = f"/projects/{project}/milestones"
    place = service.get(path).headers["Feed-Cursor"]
    with channel(service) as ws:
        use_up(service.database, 1000)
        assert silent(ws)
        assert service.get("/changes", params={"since": place}).json()["items"] == []
        made = service.post(path, json={"name": "new"}).json()["id"]
        assert ws.listen()["object"]["obj_id"] == made
        assert silent(ws)
    (frame,) = service.get("/changes", params={"since": place}).json()["items"]
    assert frame["object"]["obj_id"] == made


@pytest.mark.thorough
def test_what_came_in_a_dump_is_no_news_on_another_server(database, elsewhere, tmp_path):
    use_up(database, 500)
    with serve(database) as service:
        project = service.post("/projects", json={"name": "One"}).json()["id"]
        before = places(service, project)
    dump(database, tmp_path)
    restore(elsewhere, tmp_path)
    with serve(elsewhere) as service:
        check_that_nothing_is_news(service, project, before)


@pytest.mark.thorough
def test_what_came_in_a_dump_is_no_news_in_another_database_of_the_server(server, template, tmp_path):
    with ExitStack() as ends:
        name = clone(server, template)
        ends.callback(drop, server, name)
        url = conninfo.make_conninfo(server, dbname=name)
        with serve(url) as service:
            project = service.post("/projects", json={"name": "One"}).json()["id"]
            before = places(service, project)
        dump(url, tmp_path)
        drop(server, name)
        schema.create_database(server, name)
        restore(url, tmp_path)
        with serve(url) as service:
            check_that_nothing_is_news(service, project, before)


def test_whoever_puts_files_back_says_so(database):
    with serve(database) as service:
        project = service.post("/projects", json={"name": "One"}).json()["id"]
        before = places(service, project)
        execute(service, "select history.rename_feed()")
        check_that_nothing_is_news(service, project, before)
