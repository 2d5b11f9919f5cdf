"""The past of lists and trees: at any moment they are as they were answered then."""

import random
from datetime import timedelta
from itertools import product

import psycopg
import pytest

from tests.conftest import cloned, first, make_token, serve, wait_for
from tests.test_history import CHANGES, NOUNS, execute, history, one_of_each, sessions
from tests.test_users import person

BELOW = {
    "milestones": "projects/{projects}/milestones",
    "userstories": "projects/{projects}/userstories",
    "tasks": "userstories/{userstories}/tasks",
    "comments": "userstories/{userstories}/comments",
}


@pytest.fixture(scope="module")
def own(server, template):
    """A service of its own: its lists are short, and nobody else changes them."""
    with cloned(server, template) as url, serve(url) as found:
        yield found


@pytest.fixture
def objects(own, unique):
    return one_of_each(own, unique)


def moment(service):
    (now,) = execute(service, "select clock_timestamp()").fetchone()
    return now.isoformat()


def execute_all(service, *statements):
    with psycopg.connect(service.database, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def lists(objects):
    """The paths of all lists, and of the tree."""
    ids = {noun: made["id"] for noun, made in objects.items()}
    yield from (f"/{BELOW.get(noun, noun).format(**ids)}" for noun in NOUNS)
    yield from ("/users?sort=-name", "/departments?sort=department&limit=1", f"/projects/{ids['projects']}/tree")
    yield f"/projects/{ids['projects']}/userstories?status=new"


def answers(service, objects, as_of=None):
    query = {"as_of": as_of} if as_of else {}
    found = {}
    for path in lists(objects):
        answer = service.get(path, params=query)
        body = answer.json() if answer.status_code == 200 else {}
        found[path] = answer.status_code, {name: value for name, value in body.items() if name != "next"}
    return found


def change(service, objects, chance):
    """Something random is done, by the service or by psql."""
    noun = chance.choice(NOUNS)
    path = f"/{noun}/{objects[noun]['id']}"
    now = service.get(path)
    what = chance.choice(("change", "change", "psql", "delete", "make", "undelete"))
    if what == "make" and noun in ("departments", "jobs"):
        service.post(f"/{noun}", json={"id": next(sessions), noun[:-1]: f"made {chance.random()}"})
    elif what == "make" and noun in BELOW:
        ids = {noun: made["id"] for noun, made in objects.items()}
        body = {"milestones": {"name": "m"}, "comments": {"text": "t"}}.get(noun, {"subject": "s"})
        service.post(f"/{BELOW[noun].format(**ids)}", json=body)
    elif what == "undelete" and now.status_code == 404:
        service.post(f"{path}/revert", json={"to": 1}, params={"with": "children"})
    elif now.status_code == 404:
        return
    elif what == "change":
        name, value = next(iter(CHANGES[noun].items()))
        other = {str: f"c {chance.random()}", int: chance.randint(0, 9), float: 1.5, bool: not now.json()[name]}
        service.patch(
            path, json={name: value if name == "datetime" else other[type(value)], "version": now.json()["version"]}
        )
    elif what == "psql":
        execute(service, f"update {noun} set created_at = created_at where id = %s", objects[noun]["id"])
    elif what == "delete" and chance.random() < 0.4:
        service.delete(path, params={"version": now.json()["version"]})


@pytest.mark.parametrize("rounds", first(1, (20, 300)))
def test_every_list_and_the_tree_are_as_they_were_at_any_moment(own, objects, rounds):
    chance = random.Random(rounds)
    seen = {}
    for _ in range(rounds):
        change(own, objects, chance)
        seen[moment(own)] = answers(own, objects)
    for at in chance.sample([*seen], min(rounds, 200)):
        assert answers(own, objects, at) == seen[at], at


def test_pages_of_the_past_go_on_at_the_same_moment(own, unique):
    project = own.post("/projects", json={"name": unique("project")}).json()["id"]
    path = f"/projects/{project}/userstories"
    stories = [own.post(path, json={"subject": f"s {number}"}).json() for number in range(7)]
    at = moment(own)
    for story in stories[::2]:
        own.delete(f"/userstories/{story['id']}", params={"version": 1})
    own.patch(f"/userstories/{stories[1]['id']}", json={"subject": "other", "version": 1})
    for sort in ("id", "-id", "ref", "-ref"):
        found, after = [], own.get(path, params={"as_of": at, "limit": 2, "sort": sort})
        while after:
            found += after.json()["items"]
            after = own.get(after.links["next"]["url"]) if "next" in after.links else None
        assert found == (stories[::-1] if sort[0] == "-" else stories)
    lines = own.get(path, params={"as_of": at}, headers={"Accept": "application/x-ndjson"}).text.splitlines()
    assert len(lines) == 7


def test_what_was_loaded_and_what_a_truncate_took_is_there_at_its_time(database):
    with serve(database) as service:
        before = moment(service)
        upload = {"data": "1,One\n2,Two\n", "headers": {"Content-Type": "text/csv"}}
        assert service.post("/upload/jobs?header=no", **upload).status_code == 200
        service.post("/jobs", json={"id": 3, "job": "Three"})
        service.patch("/jobs/1", json={"job": "Other", "version": 1})
        at = moment(service)
        service.delete("/jobs/1", params={"version": 2})

        def jobs(moment):
            answer = service.get("/jobs", params={"as_of": moment})
            assert answer.status_code == 200, answer.text
            return [(item["id"], item["job"]) for item in answer.json()["items"]]

        assert (jobs(before), jobs(at)) == ([], [(1, "Other"), (2, "Two"), (3, "Three")])
        execute_all(service, "truncate jobs cascade")
        service.post("/jobs", json={"id": 3, "job": "Again"})
        assert jobs(before) == []
        assert jobs(at) == [(1, "Other"), (3, "Three")]  # of a row that nobody ever touched nothing was known


def loaded(service, chance):
    """Jobs change, by themselves or many at once; a backup is made, or is what there is again."""
    id, csv = chance.randint(1, 9), {"Content-Type": "text/csv"}
    now = service.get(f"/jobs/{id}")
    match chance.choice(("post", "patch", "delete", "upload", "batch", "backup", "restore", "restore")):
        case "post":
            service.post("/jobs", json={"id": id, "job": f"made {chance.random()}"})
        case "patch" if now.status_code == 200:
            service.patch(f"/jobs/{id}", json={"job": f"changed {chance.random()}", "version": now.json()["version"]})
        case "delete" if now.status_code == 200:
            service.delete(f"/jobs/{id}", params={"version": now.json()["version"]})
        case "upload":
            body = f"{id},uploaded {chance.random()}\n{id % 9 + 1},too\n"
            service.post("/upload/jobs?header=no", data=body, headers=csv)
        case "batch":
            service.post("/batch", json={"jobs": [{"id": id, "job": f"batched {chance.random()}"}]})
        case "backup":
            service.post("/backup/jobs")
        case "restore":
            service.post("/restore/jobs", json={})


@pytest.mark.thorough
@pytest.mark.parametrize("rounds", first(1, (60, 400)))
def test_what_loads_and_restores_brought_is_there_from_then_on(database, rounds):
    with serve(database) as service:
        chance, seen = random.Random(rounds), {}

        def jobs(at=None):
            query = {"as_of": at} if at else {}
            items = service.get("/jobs", params=query).json()["items"]
            single = [service.get(f"/jobs/{id}", params=query) for id in range(1, 10)]
            return items, [answer.json() if answer.status_code == 200 else None for answer in single]

        for _ in range(rounds):
            loaded(service, chance)
            seen[moment(service)] = jobs()
        for at, found in seen.items():
            assert [each for each in found[1] if each] == found[0]
            assert jobs(at) == found, at


def test_months_that_were_dropped_are_told_and_not_made_up(database):
    with serve(database) as service:
        project = service.post("/projects", json={"name": "kept"}).json()["id"]
        execute_all(
            service,
            "update history.horizon set pruned = '1'",
        )
        service.patch(f"/projects/{project}", json={"version": 1, "name": "kept"})
        for path in ("/projects", f"/projects/{project}", f"/projects/{project}/tree", "/users", "/jobs/1"):
            assert service.get(path, params={"as_of": "2001-01-01T00:00:00Z"}).status_code == 404, path
        for query in (
            {"from": "2001-01-01T00:00:00Z"},
            {"from": moment(service), "to": "2001-01-01T00:00:00Z"},
        ):
            assert service.get(f"/projects/{project}/diff", params=query).status_code == 404
        assert service.get(f"/projects/{project}", params={"as_of": 1}).status_code == 200
        # Whole months go: of the one that has the first entry nothing is missing.
        (begin,) = execute(service, "select date_trunc('month', now(), 'UTC')").fetchone()
        for at, status in ((begin, 200), (begin - timedelta(microseconds=1), 404)):
            assert service.get("/projects", params={"as_of": at.isoformat()}).status_code == status
        assert service.get("/projects", params={"as_of": moment(service)}).json()["items"][0]["name"] == "kept"


@pytest.mark.parametrize("path", ("/users", "/projects", "/jobs"))
def test_only_a_time_is_a_moment(own, path):
    for value in ("1", "yesterday", "", "2021-13-01T00:00:00Z"):
        assert own.get(path, params={"as_of": value}).status_code == 422
    assert own.get("/operations?as_of=2021-01-01T00:00:00Z").status_code == 400


def test_a_project_is_compared_with_itself(own, objects):
    project = objects["projects"]["id"]
    begun = moment(own)
    own.patch(f"/projects/{project}", json={"description": "first", "version": 1})
    between = moment(own)
    own.patch(f"/projects/{project}", json={"description": "second", "version": 2})
    own.delete(f"/userstories/{objects['userstories']['id']}", params={"version": 1})
    own.post(f"/projects/{project}/milestones", json={"name": "new"})

    def diff(**query):
        answer = own.get(f"/projects/{project}/diff", params=query)
        assert answer.status_code == 200, answer.text
        return {(each["obj_type"], each["action"]): each["diff"] for each in answer.json()["changes"]}

    found = diff(**{"from": begun})
    assert found["project", "update"] == {"description": [None, "second"]}
    assert found.keys() == {
        ("project", "update"),
        ("milestone", "create"),
        ("userstory", "delete"),
        ("task", "delete"),
        ("comment", "delete"),
    }
    assert diff(**{"from": begun, "to": between}) == {("project", "update"): {"description": [None, "first"]}}
    assert diff(**{"from": between, "to": begun}) == {("project", "update"): {"description": ["first", None]}}
    back = {"create": "delete", "delete": "create", "update": "update"}
    now = moment(own)
    assert diff(**{"from": now, "to": begun}) == {
        (obj_type, back[action]): {name: [new, old] for name, (old, new) in changes.items()}
        for (obj_type, action), changes in found.items()
    }
    assert diff(**{"from": now}) == {}
    assert own.get("/projects/999999999/diff", params={"from": begun}).status_code == 404
    assert own.get(f"/projects/{project}/diff").status_code == 400


def known(service, project, as_of, held):
    """The keys of what a project's tree had at a moment, and of the project itself."""
    answer = service.get(f"/projects/{project}/tree", params={"as_of": as_of}, headers=held)
    if answer.status_code == 404:
        return set()
    tree = answer.json()
    stories = tree["userstories"]
    below = [("task", task["id"]) for story in stories for task in story["tasks"]]
    below += [("comment", comment["id"]) for story in stories for comment in story["comments"]]
    below += [("milestone", milestone["id"]) for milestone in tree["milestones"]]
    return {("project", tree["id"]), *(("userstory", story["id"]) for story in stories), *below}


@pytest.mark.parametrize(
    "statement", ["tasks", "comments", "milestones cascade", "userstories cascade", "projects cascade"]
)
def test_what_a_truncate_took_is_otherwise(database, statement):
    """Between any two moments, in both directions, whatever came before it and after."""
    with serve(database) as service:
        project = service.post("/projects", json={"name": "One"}).json()["id"]
        moments = [moment(service)]

        def grow():
            service.post(f"/projects/{project}/milestones", json={"name": "m"})
            answer = service.post(f"/projects/{project}/userstories", json={"subject": "s"})
            if answer.status_code == 201:
                for path, body in (("tasks", {"subject": "t"}), ("comments", {"text": "c"})):
                    service.post(f"/userstories/{answer.json()['id']}/{path}", json=body)
            moments.append(moment(service))

        grow()
        grow()
        execute_all(service, "update tasks set subject = 'other'", "delete from comments where id = 1")
        execute_all(service, f"truncate {statement}")
        moments.append(moment(service))
        grow()
        with psycopg.connect(database, autocommit=True) as connection:
            tokens = [make_token(connection, role="reader", project=of) for of in (None, project)]
        had = None
        for token in tokens:
            held = {"Authorization": f"Bearer {token}"}
            before, had = had, {at: known(service, project, at, held) for at in moments}
            assert len(had[moments[2]]) == 9
            assert before in (None, had), "a token of the project sees what others see of it"
            for kind, id in had[moments[2]] - {("project", project)}:
                path = f"/{'userstories' if kind == 'userstory' else f'{kind}s'}/{id}"
                for at, keys in had.items():
                    answer = service.get(path, params={"as_of": at}, headers=held)
                    assert answer.status_code == (200 if (kind, id) in keys else 404), (path, at)
            for since, until in product(moments, moments):
                query = {"from": since, "to": until}
                answer = service.get(f"/projects/{project}/diff", params=query, headers=held)
                found = {"create": set(), "delete": set(), "update": set()}
                for each in answer.json()["changes"]:
                    found[each["action"]].add((each["obj_type"], each["obj_id"]))
                was, now = had[since], had[until]
                assert (found["create"], found["delete"]) == (now - was, was - now), (since, until)
                assert found["update"] <= was & now


def test_a_token_of_one_project_sees_the_past_of_that(database):
    with psycopg.connect(database, autocommit=True) as connection, serve(database) as service:
        for name in ("one", "other"):
            service.post("/projects", json={"name": name})
            service.post(f"/projects/{1 if name == 'one' else 2}/userstories", json={"subject": name})
        ann = service.post("/users", json=person("ann")).json()
        service.patch("/userstories/1", json={"assigned_to": ann["id"], "version": 1})
        at = moment(service)
        service.patch(f"/users/{ann['id']}", json={"name": "Anna", "version": 1})
        whole = service.get("/projects/1/tree", params={"as_of": at}).json()
        service.delete("/userstories/1", params={"version": 2})
        held = {"Authorization": f"Bearer {make_token(connection, 'of one', 'reader', project=1)}"}
        wait_for(lambda: service.get("/users").status_code == 401)
        assert service.get("/projects/1/tree", params={"as_of": at}, headers=held).json() == whole
        stories = service.get("/projects/1/userstories", params={"as_of": at}, headers=held).json()["items"]
        assert [story["subject"] for story in stories] == ["one"]
        assert service.get("/projects/2/userstories", params={"as_of": at}, headers=held).status_code == 404
        assert service.get("/projects/2/tree", params={"as_of": at}, headers=held).status_code == 404
        assert service.get("/projects/2/diff", params={"from": at}, headers=held).status_code == 404
        changes = service.get("/projects/1/diff", params={"from": at}, headers=held).json()["changes"]
        assert [(each["obj_type"], each["action"]) for each in changes] == [("userstory", "delete")]


def test_psql_reads_the_past_too(own, objects, psql):
    at = moment(own)
    own.patch(f"/tasks/{objects['tasks']['id']}", json={"status": "done", "version": 1})
    with psycopg.connect(own.database) as connection:
        connection.execute("select set_config('app.as_of', %s, true)", [at])
        connection.execute("set local search_path = past, public")
        (status,) = connection.execute("select status from tasks where id = %s", [objects["tasks"]["id"]]).fetchone()
        assert status == "new"
    assert history(own, f"/tasks/{objects['tasks']['id']}/history")[-1]["diff"] == {"status": ["new", "done"]}
