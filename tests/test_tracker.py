"""The tracker and the audios: projects and all below them, over HTTP, in psql and when two come at once."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
import requests

TICKS = [-96.33, -10, -100, *[-50.5] * 12]


@pytest.fixture
def project(service, unique):
    return service.post("/projects", json={"name": unique("Row house ")}).json()


@pytest.fixture
def story(service, project):
    return service.post(f"/projects/{project['id']}/userstories", json={"subject": "A door"}).json()


@pytest.fixture
def user(service, unique):
    return service.post(f"/user?email={unique('u')}@example.com", json={"text": ""}).json()


@pytest.fixture
def audio(unique):
    session = int("".join(filter(str.isdigit, unique("9"))))
    return {"session_id": session, "ticks": TICKS, "selected_tick": 5, "step_count": 1}


@pytest.fixture(params=["audios", "projects", "milestones", "userstories", "tasks", "comments"])
def noun(request, project, story, audio, unique):
    """A noun, where its objects are made, what one is made from, and a change to it."""
    return {
        "audios": ("audios", "/audios", audio, {"step_count": 2}),
        "projects": ("projects", "/projects", {"name": unique("Shed "), "slug": unique("shed")}, {"name": "Barn"}),
        "milestones": ("milestones", f"/projects/{project['id']}/milestones", {"name": "Roof"}, {"closed": True}),
        "userstories": (
            "userstories",
            f"/projects/{project['id']}/userstories",
            {"subject": "A window", "tags": ["glass", "süd"], "points": 0.5},
            {"status": "done", "points": 3},
        ),
        "tasks": ("tasks", f"/userstories/{story['id']}/tasks", {"subject": "Measure"}, {"status": "done"}),
        "comments": ("comments", f"/userstories/{story['id']}/comments", {"text": "Why?"}, {"text": "Because."}),
    }[request.param]


def test_milestones_are_found_by_whether_they_are_over(service, project):
    path = f"/projects/{project['id']}/milestones"
    made = [service.post(path, json={"name": "A", "closed": closed}).json() for closed in (False, True)]
    for closed in (False, True):
        found = service.get(path, params={"closed": str(closed).lower()})
        assert found.status_code == 200, found.text
        assert [each["id"] for each in found.json()["items"]] == [made[closed]["id"]]


# What all have in common ----------------------------------------------------------------------------------------------


def test_an_object_is_made_read_changed_replaced_and_removed(service, noun):
    name, collection, new, change = noun
    made = service.post(collection, json=new)
    assert made.status_code == 201, made.text
    path = made.headers["Location"]
    assert path == f"/{name}/{made.json()['id']}"
    assert new.items() <= made.json().items()
    assert (made.json()["version"], made.headers["ETag"]) == (1, '"1"')
    assert service.get(path).text == made.text
    assert service.get(path, headers={"If-None-Match": '"1"'}).status_code == 304

    assert service.patch(path, json=change).status_code == 428
    changed = service.patch(path, json={**change, "version": 1})
    assert changed.json() == made.json() | change | {"version": 2, "updated_at": changed.json()["updated_at"]}
    stale = service.patch(path, json=change, headers={"If-Match": '"1"'})
    assert (stale.status_code, stale.json()["current"]) == (412, changed.json())
    assert service.put(path, json={**new, "version": 1}).status_code == 409
    replaced = service.put(path, json=new, headers={"If-Match": '"2"'}).json()
    assert {**made.json(), "version": 3, "updated_at": ""} == {**replaced, "updated_at": ""}

    assert service.delete(f"{path}?version=2").status_code == 409
    assert service.delete(f"{path}?version=3").status_code == 204
    assert service.get(path).status_code == 404


def test_a_list_has_what_is_in_it(service, noun):
    _, collection, new, _ = noun
    made = service.post(collection, json=new).json()
    found = service.get(collection, params={"id": made["id"]}).json()
    assert found == {"items": [made], "next": None}
    assert service.get(f"{collection}?sort=-id&limit=1&fields=id").json()["items"] == [{"id": made["id"]}]
    lines = service.get(f"{collection}?id={made['id']}", headers={"Accept": "application/x-ndjson"})
    assert lines.json() == made
    table = service.get(f"{collection}?id={made['id']}", headers={"Accept": "text/csv"}).text
    assert table.startswith("id,version,") or table.split("\r\n")[0].split(",")[:2] == ["id", "version"]
    assert len(table.splitlines()) == 2


def test_psql_prints_the_bodies_of_the_service(service, psql, noun):
    name, collection, new, _ = noun
    made = service.post(collection, json=new).json()
    above = {}
    for parent, variable in (("project_id", "project_id"), ("userstory_id", "userstory_id")):
        if parent in made and collection != f"/{name}":
            above[variable] = made[parent]
    assert psql(f"{name}.get", id=made["id"]) == service.get(f"/{name}/{made['id']}").text
    assert psql(f"{name}.list", limit=2, **above) == service.get(f"{collection}?limit=2").text
    assert psql(f"{name}.list_desc", limit=1, **above) == service.get(f"{collection}?limit=1&sort=-id").text


@pytest.mark.parametrize(
    "above, below",
    [
        ("projects", "milestones"),
        ("projects", "userstories"),
        ("userstories", "tasks"),
        ("userstories", "comments"),
    ],
)
def test_there_is_nothing_below_what_is_not_there(service, above, below):
    new = {
        "milestones": {"name": "A"},
        "userstories": {"subject": "A"},
        "tasks": {"subject": "A"},
        "comments": {"text": "A"},
    }
    path = f"/{above}/999999999/{below}"
    assert service.get(path).status_code == 404
    assert service.get(path, headers={"Accept": "text/csv"}).status_code == 404
    assert service.post(path, json=new[below]).status_code == 404


@pytest.mark.parametrize("sort", ["id", "-id", "ref", "-ref"])
def test_stories_are_walked_in_any_order(service, project, sort):
    path = f"/projects/{project['id']}/userstories"
    for _ in range(12):
        service.post(path, json={"subject": "A"})
    found, cursor = [], None
    while True:
        page = service.get(path, params={"sort": sort, "limit": 5, "cursor": cursor}).json()
        found += [each["ref"] for each in page["items"]]
        cursor = page["next"]
        if not cursor:
            break
    assert found == sorted(range(1, 13), reverse=sort.startswith("-"))


# Projects -------------------------------------------------------------------------------------------------------------


def test_a_slug_is_made_from_the_name_and_is_nobody_elses(service, unique):
    mark = unique("x")
    made = [service.post("/projects", json={"name": f"  Ünder the  {mark} -- Roof! "}).json() for _ in range(2)]
    assert made[0]["slug"] == f"nder-the-{mark}-roof"
    assert made[1]["slug"] == f"{made[0]['slug']}-{made[1]['id']}"
    taken = service.post("/projects", json={"name": "Other", "slug": made[0]["slug"]})
    assert (taken.status_code, [*taken.json()["errors"]]) == (409, ["slug"])
    assert service.post("/projects", json={"name": "Проект"}).json()["slug"].startswith("project")


def test_projects_made_in_one_statement_take_few_locks(service, unique):
    with psycopg.connect(service.database) as connection:
        made = "insert into projects (name) select %s || n from generate_series(1, 1500) as n"
        connection.execute(made, [unique("many ")])
        locks = "select count(*) from pg_locks where pid = pg_backend_pid() and locktype = 'advisory'"
        assert connection.execute(locks).fetchone()[0] <= 1024
        connection.rollback()


def test_many_who_make_one_slug_at_once_all_get_one(service, unique):
    new = {"name": unique("race ")}
    with ThreadPoolExecutor(8) as clients:
        answers = [*clients.map(lambda _: requests.post(f"{service.url}/projects", json=new, timeout=10), range(8))]
    assert [answer.status_code for answer in answers] == [201] * 8
    assert len({answer.json()["slug"] for answer in answers}) == 8


def test_a_project_takes_all_that_is_its_own_with_it(service, project, story):
    task = service.post(f"/userstories/{story['id']}/tasks", json={"subject": "A"}).json()
    assert service.delete(f"/projects/{project['id']}?version=1").status_code == 204
    for path in (f"/userstories/{story['id']}", f"/tasks/{task['id']}"):
        assert service.get(path).status_code == 404


def test_a_user_who_leaves_is_nobodys_owner_any_more(service, user):
    made = service.post("/projects", json={"name": "Owned", "owner_id": user["id"]}).json()
    assert service.get(f"/projects?owner_id={user['id']}").json()["items"] == [made]
    assert service.delete(f"/users/{user['id']}?version=1").status_code == 204
    left = service.get(f"/projects/{made['id']}").json()
    assert (left["owner_id"], left["version"]) == (None, 2)


@pytest.mark.parametrize(
    "collection, body, field",
    [
        ("/projects", {"name": "A", "owner_id": 999999999}, "owner_id"),
        ("/projects/{project}/userstories", {"subject": "A", "assigned_to": 999999999}, "assigned_to"),
        ("/projects/{project}/userstories", {"subject": "A", "milestone_id": 999999999}, "milestone_id"),
        ("/userstories/{story}/tasks", {"subject": "A", "assigned_to": 999999999}, "assigned_to"),
        ("/userstories/{story}/comments", {"text": "A", "author_id": 999999999}, "author_id"),
    ],
)
def test_what_is_pointed_to_must_be_there(service, project, story, collection, body, field):
    answer = service.post(collection.format(project=project["id"], story=story["id"]), json=body)
    assert (answer.status_code, [*answer.json()["errors"]]) == (422, [field])


# Stories --------------------------------------------------------------------------------------------------------------


def test_refs_count_within_their_project_and_are_never_given_twice(service, project):
    path = f"/projects/{project['id']}/userstories"
    with ThreadPoolExecutor(8) as clients:
        answers = [
            *clients.map(lambda _: requests.post(service.url + path, json={"subject": "A"}, timeout=10), range(16))
        ]
    assert sorted(answer.json()["ref"] for answer in answers) == [*range(1, 17)]
    last = max((answer.json() for answer in answers), key=lambda story: story["ref"])
    service.delete(f"/userstories/{last['id']}?version=1")
    assert service.post(path, json={"subject": "A"}).json()["ref"] == 17
    with psycopg.connect(service.database) as connection:
        insert = "insert into userstories (project_id, subject) values (%s, 'psql') returning ref"
        assert connection.execute(insert, [project["id"]]).fetchone() == (18,)
    assert service.get(f"/projects/{project['id']}").json()["version"] == 1


def test_refs_that_sql_gives_are_never_given_again(service, project, story):
    """A story that it gives another ref, or moves to another project, is counted there."""
    other = service.post("/projects", json={"name": "Other"}).json()
    paths = [f"/projects/{each['id']}/userstories" for each in (project, other)]
    with psycopg.connect(service.database, autocommit=True) as connection:
        connection.execute("update userstories set ref = 5 where id = %s", [story["id"]])
        assert [service.post(path, json={"subject": "A"}).json()["ref"] for path in paths] == [6, 1]
        connection.execute("update userstories set project_id = %s, ref = 9 where id = %s", [other["id"], story["id"]])
        assert [service.post(path, json={"subject": "A"}).json()["ref"] for path in paths] == [7, 10]


def test_a_milestone_is_of_the_same_project_and_leaves_its_stories(service, project, story):
    other = service.post("/projects", json={"name": "Other"}).json()
    foreign = service.post(f"/projects/{other['id']}/milestones", json={"name": "A"}).json()
    own = service.post(f"/projects/{project['id']}/milestones", json={"name": "A"}).json()
    path = f"/userstories/{story['id']}"
    answer = service.patch(path, json={"milestone_id": foreign["id"], "version": 1})
    assert (answer.status_code, [*answer.json()["errors"]]) == (422, ["milestone_id"])
    assert service.patch(path, json={"milestone_id": own["id"], "version": 1}).status_code == 200
    assert service.delete(f"/milestones/{own['id']}?version=1").status_code == 204
    assert service.get(path).json()["milestone_id"] is None


def test_stories_are_filtered(service, project, user):
    path = f"/projects/{project['id']}/userstories"
    for status, who in (("new", None), ("done", user["id"]), ("done", None)):
        service.post(path, json={"subject": "A", "status": status, "assigned_to": who})
    assert [each["ref"] for each in service.get(f"{path}?status=done").json()["items"]] == [2, 3]
    assert [each["ref"] for each in service.get(f"{path}?assigned_to={user['id']}").json()["items"]] == [2]
    assert [each["ref"] for each in service.get(f"{path}?ref=3").json()["items"]] == [3]


def test_a_task_of_another_project_cannot_be(service, project, story):
    other = service.post("/projects", json={"name": "Other"}).json()
    with psycopg.connect(service.database) as connection, pytest.raises(psycopg.errors.ForeignKeyViolation):
        connection.execute(
            "insert into tasks (project_id, userstory_id, subject) values (%s, %s, 'A')", [other["id"], story["id"]]
        )


# The rules in the database --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement, constraint",
    [
        (
            "insert into audios (session_id, ticks, selected_tick, step_count) values (1, '{-50}', 0, 0)",
            "audios_ticks_check",
        ),
        (
            "insert into audios (session_id, ticks, selected_tick, step_count)"
            " values (1, array_fill(-101, array[15]), 0, 0)",
            "audios_ticks_check",
        ),
        (
            "insert into audios (session_id, ticks, selected_tick, step_count)"
            " values (1, array_fill(null::float8, array[15]), 0, 0)",
            "audios_ticks_check",
        ),
        (
            "insert into audios (session_id, ticks, selected_tick, step_count)"
            " values (1, array_fill('NaN'::float8, array[15]), 0, 0)",
            "audios_ticks_check",
        ),
        ("insert into projects (name, slug) values ('A', 'A b')", "projects_slug_check"),
        ("insert into projects (name) values (' ')", "projects_name_check"),
        ("update userstories set tags = array_fill('a'::text, array[21])", "userstories_tags_check"),
        ("update userstories set tags = '{\" \"}'", "userstories_tags_check"),
        ("update userstories set tags = array[null]", "userstories_tags_check"),
        ("update userstories set points = -1", "userstories_points_check"),
    ],
)
def test_psql_keeps_the_rules_as_well(service, story, statement, constraint):
    with psycopg.connect(service.database) as connection, pytest.raises(psycopg.errors.CheckViolation) as refused:
        connection.execute(statement)
    assert refused.value.diag.constraint_name == constraint


# Audios ---------------------------------------------------------------------------------------------------------------


def test_a_session_has_one_audio_and_is_found_by_it(service, audio):
    made = service.post("/audios", json=audio).json()
    again = service.post("/audios", json=audio)
    assert (again.status_code, [*again.json()["errors"]]) == (409, ["session_id"])
    found = service.post("/audios/search", json={"session_id": audio["session_id"]}).json()
    assert found == {"items": [made], "next": None}
    assert service.get(f"/audios?session_id={audio['session_id']}").json() == found
