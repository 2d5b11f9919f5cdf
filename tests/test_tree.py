"""The tree of a project: all of it, as one document and one moment, streamed."""

import json
import subprocess
import sys

import psycopg
import pytest
import requests

from tests.conftest import ROOT, serve, wait_for
from tests.test_users import person

NASTY = 'quote " backslash \\ tab \t line\n\x01\x02\u2028 π 😀 </script>'


@pytest.fixture
def project(service, unique):
    return service.post("/projects", json={"name": unique("project"), "description": NASTY}).json()


def test_a_tree_has_each_object_as_its_own_get_answers_it(service, project, unique):
    ann = service.post("/users", json=person(unique("ann"))).json()
    bob = service.post("/users", json=person(unique("bob"))).json()
    path = f"/projects/{project['id']}"
    for name in ("First", "Second"):
        service.post(f"{path}/milestones", json={"name": name})
    for number in range(3):
        body = {"subject": f"{NASTY} {number}", "tags": ["a", NASTY[:50]], "assigned_to": ann["id"], "points": 0.5}
        story = service.post(f"{path}/userstories", json=body).json()
        for turn in range(number):
            service.post(f"/userstories/{story['id']}/tasks", json={"subject": f"{NASTY} {turn}"})
            service.post(f"/userstories/{story['id']}/comments", json={"text": NASTY, "author_id": bob["id"]})

    answer = service.get(f"{path}/tree")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    tree = answer.json()
    assert {name: tree[name] for name in project} == service.get(path).json()
    assert tree["milestones"] == service.get(f"{path}/milestones").json()["items"]
    assert len(tree["userstories"]) == 3
    for story in tree["userstories"]:
        own = f"/userstories/{story['id']}"
        assert story.pop("tasks") == service.get(f"{own}/tasks").json()["items"]
        assert story.pop("comments") == service.get(f"{own}/comments").json()["items"]
        assert story == service.get(own).json()
    people = [{name: somebody[name] for name in ("id", "name", "image")} for somebody in (ann, bob)]
    assert tree["users"] == people


def test_an_empty_project_is_a_tree_too(service, project):
    tree = service.get(f"/projects/{project['id']}/tree").json()
    assert (tree["milestones"], tree["userstories"], tree["users"]) == ([], [], [])


def test_there_is_no_tree_of_an_absent_project(service):
    answer = service.get("/projects/2147483000/tree")
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_psql_prints_the_same_tree(service, project, psql):
    service.post(f"/projects/{project['id']}/userstories", json={"subject": NASTY})
    assert psql("projects.tree", id=project["id"]) == service.get(f"/projects/{project['id']}/tree").text


HALT = """
    create function passes(ref bigint) returns boolean
    language plpgsql
    set lock_timeout = 0
    as $$
    begin
        if ref = 5000 then
            perform pg_advisory_xact_lock_shared(1);
        end if;
        return true;
    end
    $$;
    create policy halt on userstories as restrictive for select using (passes(ref));
"""
"""Whoever reads the story 5000 waits for who holds the lock 1."""

HALTED = "select pid from pg_stat_activity where wait_event = 'advisory' and query like '%projects.tree%'"


@pytest.fixture(scope="module")
def forest(module_database):
    """A service of one process and one connection, over a project too large for the buffers of a socket."""
    command = [sys.executable, "-m", "flask", "--app", "app", "seed", "--projects", "1", "--userstories", "6000"]
    subprocess.run(
        command, cwd=ROOT, env={"DATABASE_URL": module_database, "PATH": ""}, check=True, capture_output=True
    )
    with psycopg.connect(module_database) as connection:
        connection.execute(HALT)
    with serve(module_database, WORKERS="1", POOL_SIZE="1") as found:
        yield found


@pytest.fixture
def halting(forest):
    """A connection that stops whoever reads the story 5000, until it unlocks."""
    with psycopg.connect(forest.database, autocommit=True) as connection:
        connection.execute("select pg_advisory_lock(1)")
        yield connection


def begun(forest, halting):
    """What came of a tree until its 1000th story, what is to come, and who finds it: it is halted at the 5000th."""
    chunks = requests.get(f"{forest.url}/projects/1/tree", stream=True, timeout=30).iter_content(10_000)
    came = b""
    while b'"ref":1000,' not in came:
        came += next(chunks)
    wait_for(lambda: halting.execute(HALTED).fetchone())
    return came, chunks, halting.execute(HALTED).fetchone()[0]


@pytest.mark.thorough
def test_a_tree_comes_while_it_is_being_found(forest, halting):
    """The first stories are here while the statement is still running."""
    came, chunks, _ = begun(forest, halting)
    assert came.startswith(b'{"id":1,')
    halting.execute("select pg_advisory_unlock(1)")
    assert len(json.loads(came + b"".join(chunks))["userstories"]) == 6000


def test_a_tree_is_of_one_moment(forest, halting):
    came, chunks, _ = begun(forest, halting)
    halting.execute("update userstories set subject = 'later' where project_id = 1 and ref > 5000")
    halting.execute("select pg_advisory_unlock(1)")
    tree = json.loads(came + b"".join(chunks))
    assert "later" not in {story["subject"] for story in tree["userstories"]}


def test_who_goes_away_gives_the_connection_back(forest):
    for _ in range(3):
        with requests.get(f"{forest.url}/projects/1/tree", stream=True, timeout=30) as answer:
            next(answer.iter_content(1000))
    wait_for(lambda: forest.get("/users?limit=1").status_code == 200)


def test_a_tree_that_breaks_off_is_not_taken_for_a_whole(forest, halting):
    """The server cancels it midway: the client's library raises, because the last chunk never came."""
    _, chunks, pid = begun(forest, halting)
    assert halting.execute("select pg_cancel_backend(%s)", [pid]).fetchone()[0]
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        b"".join(chunks)
    assert forest.get("/projects/1").status_code == 200
