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


@pytest.fixture(scope="module")
def forest(module_database):
    """A service of one process and one connection, over a project too large for the buffers of a socket."""
    command = [sys.executable, "-m", "flask", "--app", "app", "seed", "--projects", "1", "--userstories", "6000"]
    subprocess.run(
        command, cwd=ROOT, env={"DATABASE_URL": module_database, "PATH": ""}, check=True, capture_output=True
    )
    with serve(module_database, WORKERS="1", POOL_SIZE="1") as found:
        yield found


def begun(forest, connection, statement):
    """The chunks of a tree, of which the first is here, once `statement` found that the service still reads it."""
    while True:  # what nobody held up may be read to its end before one can look
        answer = requests.get(f"{forest.url}/projects/1/tree", stream=True, timeout=30)
        chunks = answer.iter_content(10_000)
        first = next(chunks)
        if connection.execute(statement).fetchone():
            return first, chunks
        answer.close()


READING = " from pg_stat_activity where state = 'active' and query like '%projects.tree%' and pid <> pg_backend_pid()"


def test_a_tree_comes_while_it_is_being_found(forest):
    """The first stories are here while the statement is still running."""
    with psycopg.connect(forest.database, autocommit=True) as onlooker:
        first, chunks = begun(forest, onlooker, f"select 1 {READING}")
        assert first.startswith(b'{"id":1,')
        assert len(json.loads(first + b"".join(chunks))["userstories"]) == 6000


def test_a_tree_is_of_one_moment(forest):
    with requests.get(f"{forest.url}/projects/1/tree", stream=True, timeout=30) as answer:
        chunks = answer.iter_content(10_000)
        first = next(chunks)
        with psycopg.connect(forest.database) as connection:
            connection.execute("update userstories set subject = 'later' where project_id = 1 and ref > 5000")
        tree = json.loads(first + b"".join(chunks))
    assert "later" not in {story["subject"] for story in tree["userstories"]}


def test_who_goes_away_gives_the_connection_back(forest):
    for _ in range(3):
        with requests.get(f"{forest.url}/projects/1/tree", stream=True, timeout=30) as answer:
            next(answer.iter_content(1000))
    wait_for(lambda: forest.get("/users?limit=1").status_code == 200)


def test_a_tree_that_breaks_off_is_not_taken_for_a_whole(forest):
    """The server cancels it midway: the client's library raises, because the last chunk never came."""
    with psycopg.connect(forest.database, autocommit=True) as other:
        first, chunks = begun(forest, other, f"select pg_cancel_backend(pid) {READING}")
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            b"".join([first, *chunks])
    assert forest.get("/projects/1").status_code == 200
