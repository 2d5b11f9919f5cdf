"""Undo: what was deleted comes back, what a request or an upload changed is taken back, whatever others did since."""

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from statistics import median

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import first
from tests.test_history import CHANGES, NOUNS, execute, history, one_of_each, sessions
from tests.test_users import person

BELOW = {
    "users": (),
    "audios": (),
    "projects": ("milestones", "userstories", "tasks", "comments"),
    "milestones": (),
    "userstories": ("tasks", "comments"),
    "tasks": (),
    "comments": (),
    "departments": (),
    "jobs": (),
    "employees": (),
}


@pytest.fixture
def objects(service, unique):
    return one_of_each(service, unique)


def free(service, objects, noun):
    """Take away what would keep an object from being deleted."""
    if noun in ("departments", "jobs"):
        employee = objects["employees"]["id"]
        assert service.delete(f"/employees/{employee}", params={"version": 1}).status_code == 204


def same(one, other):
    """Equal, but for what counts and dates the versions."""
    counted = ("version", "updated_at")
    return {k: v for k, v in one.items() if k not in counted} == {k: v for k, v in other.items() if k not in counted}


def undo(service, expected=200, **body):
    answer = service.post("/undo", json=body)
    assert answer.status_code == expected, answer.text
    return answer.json()


def named(service, method, path, **how):
    """A request under a X-Request-Id of its own: that, and the answer."""
    request_id = str(uuid.uuid4())
    answer = service.request(method, path, headers={"X-Request-Id": request_id}, **how)
    assert answer.status_code < 300, answer.text
    return request_id, answer


# What was deleted -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noun", NOUNS)
def test_what_was_deleted_comes_back_under_its_id(service, objects, noun):
    free(service, objects, noun)
    path = f"/{noun}/{objects[noun]['id']}"
    changed = service.patch(path, json=CHANGES[noun] | {"version": 1}).json()
    assert service.delete(path, params={"version": 2}).status_code == 204
    trash = history(service, f"{path}/history", sort="-id", limit=1)[0]
    assert (trash["action"], trash["revert"]) == ("delete", f"{path}/revert")
    answer = service.post(trash["revert"], json={"to": trash["version"]})
    assert (answer.status_code, answer.headers["ETag"]) == (200, '"3"'), answer.text
    assert same(answer.json(), changed)
    assert service.get(path).json() == answer.json()
    assert [entry["action"] for entry in history(service, f"{path}/history")] == [
        "create",
        "update",
        "delete",
        "create",
    ]
    assert service.get(path, params={"as_of": answer.json()["updated_at"]}).json() == answer.json()
    assert service.delete(path, params={"version": 3}).status_code == 204
    assert same(service.post(f"{path}/revert", json={"to": 1, "version": 3}).json(), objects[noun])


def test_what_the_service_set_stays_as_it_was_last(service):
    made = service.post("/events", json={"user_id": "ann", "description": "Parcel"}).json()
    path = f"/events/{made['event_id']}"
    execute(service, "update events set status = 'Processed' where id = %s", made["event_id"])
    assert service.delete(path, params={"version": 2}).status_code == 204
    back = service.post(f"{path}/revert", json={"to": 1})
    assert (back.status_code, back.json()["status"], back.json()["version"]) == (200, "Processed", 3)
    assert execute(service, "select from outbox where event_id = %s", made["event_id"]).fetchall() == []


def test_what_comes_back_names_the_version_it_had_or_none(service, objects):
    path = f"/tasks/{objects['tasks']['id']}"
    service.delete(path, params={"version": 1})

    def status(headers=None, **body):
        return service.post(f"{path}/revert", json={"to": 1} | body, headers=headers or {}).status_code

    assert status(version=2) == 409
    assert status({"If-Match": '"2"'}) == 412
    assert status({"If-Match": "*"}) == 412
    assert status(to=7) == 422
    assert status({"If-Match": '"1"'}) == 200
    assert service.post("/tasks/999999999/revert", json={"to": 1}).status_code == 404


@pytest.mark.parametrize("noun", [noun for noun, below in BELOW.items() if below])
@pytest.mark.parametrize("children", (True, False))
def test_what_went_with_it_comes_back_if_it_is_asked_for(service, objects, noun, children):
    path = f"/{noun}/{objects[noun]['id']}"
    assert service.delete(path, params={"version": 1}).status_code == 204
    query = {"with": "children"} if children else {}
    assert service.post(f"{path}/revert", json={"to": 1}, params=query).status_code == 200
    for below in BELOW[noun]:
        answer = service.get(f"/{below}/{objects[below]['id']}")
        assert answer.status_code == (200 if children else 404)
        assert not children or same(answer.json(), objects[below])
    story = service.post(f"/projects/{objects['projects']['id']}/userstories", json={"subject": "later"})
    assert story.json()["ref"] == 2  # a ref is never given twice


def test_parents_that_are_gone_are_named(service, objects):
    task, story = (f"/{noun}/{objects[noun]['id']}" for noun in ("tasks", "userstories"))
    service.delete(task, params={"version": 1})
    service.delete(story, params={"version": 1})
    answer = service.post(f"{task}/revert", json={"to": 1})
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/changed-since")
    conflict = answer.json()["conflicts"][0]
    assert (conflict["obj_type"], conflict["field"], conflict["yours"]) == (
        "task",
        "userstory_id",
        objects["userstories"]["id"],
    )
    assert service.post(f"{story}/revert", json={"to": 1}).status_code == 200
    assert service.post(f"{task}/revert", json={"to": 1}).status_code == 200


REFERENCES = {
    ("userstories", "milestone_id"): "milestones",
    ("userstories", "assigned_to"): "users",
    ("tasks", "assigned_to"): "users",
    ("projects", "owner_id"): "users",
    ("employees", "department_id"): "departments",
    ("employees", "job_id"): "jobs",
}


@pytest.mark.parametrize(("noun", "field"), REFERENCES)
def test_what_goes_back_to_a_parent_that_is_gone_is_told_which(service, objects, noun, field):
    parent = REFERENCES[noun, field]
    gone = objects[parent]["id"]
    path = f"/{noun}/{objects[noun]['id']}"
    other = None
    if noun == "employees":
        name = {"departments": "department", "jobs": "job"}[parent]
        other = service.post(f"/{parent}", json={"id": 2**31 - 1 - gone, name: "Other"}).json()["id"]
    assert service.patch(path, json={field: gone, "version": service.get(path).json()["version"]}).status_code == 200
    then = service.get(path).json()["version"]
    assert service.patch(path, json={field: other, "version": then}).status_code == 200
    assert service.delete(f"/{parent}/{gone}", params={"version": 1}).status_code == 204
    answer = service.post(f"{path}/revert", json={"to": then}, headers={"If-Match": f'"{then + 1}"'})
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/changed-since"), answer.text
    (conflict,) = answer.json()["conflicts"]
    assert (conflict["obj_id"], conflict["field"], conflict["yours"]) == (objects[noun]["id"], field, gone)


@pytest.mark.parametrize("noun", NOUNS)
def test_of_those_who_bring_back_the_same_beside_each_other_nobody_is_told_that_it_is_taken(service, objects, noun):
    free(service, objects, noun)
    path = f"/{noun}/{objects[noun]['id']}"
    assert service.delete(path, params={"version": 1}).status_code == 204
    with ThreadPoolExecutor(4) as pool:
        answers = [*pool.map(lambda _: service.post(f"{path}/revert", json={"to": 1}), range(4))]
    assert {(answer.status_code, answer.json().get("type")) for answer in answers} <= {
        (200, None),
        (428, "/problems/precondition-required"),  # who came when it was there already
    }
    assert service.get(path).json()["version"] == 2


def test_the_trash_names_a_way_back_only_for_what_has_one(service, unique):
    name = unique("orders").replace("-", "_")
    execute(service, f"create table {name} (id bigint primary key, version integer not null default 1)")
    execute(service, "select history.track(%s::regclass)", name)
    execute(service, f"insert into {name} values (1)")
    execute(service, f"delete from {name}")
    (entry,) = history(service, "/history", obj_type=name, action="delete")
    assert entry["revert"] is None
    execute(service, "select history.untrack(%s::regclass)", name)
    execute(service, f"drop table {name}")


def test_kinds_may_have_blanks_between_them(service, objects):
    there = {"userstory", "task"}
    for kinds in ("userstory,task", "userstory, task", " task ,\tuserstory "):
        found = history(service, "/history", obj_type=kinds, project=objects["projects"]["id"])
        assert {entry["obj_type"] for entry in found} == there, kinds
        changes = service.get("/changes", params={"obj_type": kinds, "project": objects["projects"]["id"]})
        assert changes.status_code == 200


def test_the_trash_says_what_it_takes(service, objects):
    project = objects["projects"]["id"]
    service.delete(f"/userstories/{objects['userstories']['id']}", params={"version": 1})
    trash = history(service, "/history", action="delete", project=project)
    assert {entry["obj_type"] for entry in trash} == {"userstory", "task", "comment"}
    for entry in sorted(trash, key=lambda entry: entry["obj_type"] != "userstory"):
        assert service.post(entry["revert"], json={"to": entry["version"]}).status_code == 200


# Requests -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noun", NOUNS)
def test_each_kind_of_request_is_undone_and_that_too(service, objects, noun):
    free(service, objects, noun)
    path = f"/{noun}/{objects[noun]['id']}"
    first = service.get(path).json()
    changing, _ = named(service, "PATCH", path, json=CHANGES[noun] | {"version": 1})
    second = service.get(path).json()
    trial = undo(service, request_id=changing, dry_run=True)
    assert [found["obj_id"] for found in trial["undone"]] == [first["id"]]
    assert service.get(path).json() == second
    undone = undo(service, request_id=changing)
    assert (undone["objects"], undone["conflicts"], undone["undone"][0]["version"]) == (1, [], 3)
    assert same(service.get(path).json(), first)
    assert undo(service, request_id=changing)["undone"] == []
    again = undo(service, request_id=undone["request_id"])
    assert same(service.get(path).json(), second) and again["undone"][0]["version"] == 4
    deleting, _ = named(service, "DELETE", path, params={"version": 4})
    restoring = undo(service, request_id=deleting)
    assert same(service.get(path).json(), second)
    for below in BELOW[noun]:
        assert same(service.get(f"/{below}/{objects[below]['id']}").json(), objects[below])
    undo(service, request_id=restoring["request_id"])
    assert service.get(path).status_code == 404


def test_what_a_user_s_end_took_from_others_comes_back(service, objects):
    ann, story = objects["users"]["id"], f"/userstories/{objects['userstories']['id']}"
    service.patch(story, json={"assigned_to": ann, "version": 1})
    ending, _ = named(service, "DELETE", f"/users/{ann}", params={"version": 1})
    assert service.get(story).json()["assigned_to"] is None
    found = undo(service, request_id=ending)
    assert {each["obj_type"] for each in found["undone"]} == {"user", "userstory"}
    assert service.get(story).json()["assigned_to"] == ann


def test_what_others_changed_since_is_kept_or_told(service, objects):
    path = f"/userstories/{objects['userstories']['id']}"
    changing, _ = named(service, "PATCH", path, json={"subject": "mine", "points": 5, "version": 1})
    service.patch(path, json={"subject": "theirs", "status": "done", "version": 2})
    problem = undo(service, 409, request_id=changing)
    (conflict,) = problem["conflicts"]
    assert {k: conflict[k] for k in ("obj_type", "field", "base", "yours", "theirs")} == {
        "obj_type": "userstory",
        "field": "subject",
        "base": "mine",
        "yours": "Read",
        "theirs": "theirs",
    }
    assert conflict["changed_by"] and conflict["changed_at"]
    assert service.get(path).json()["version"] == 3
    assert undo(service, request_id=changing, dry_run=True)["conflicts"] == [conflict]
    kept = undo(service, request_id=changing, conflicts="keep theirs")
    assert kept["conflicts"] == [conflict]
    now = service.get(path).json()
    assert (now["subject"], now["points"], now["status"], now["version"]) == ("theirs", None, "done", 4)


def test_what_others_changed_between_two_changes_of_a_request_is_kept_or_told(service, objects):
    path, request_id = f"/userstories/{objects['userstories']['id']}", str(uuid.uuid4())

    def save(version, theirs=False, **members):
        sent = {} if theirs else {"X-Request-Id": request_id}
        assert service.patch(path, json=members | {"version": version}, headers=sent).status_code == 200

    save(1, subject="first", points=1)
    save(2, theirs=True, status="done", points=2)
    save(3, subject="second")
    save(4, subject="third", points=3)
    (conflict,) = undo(service, 409, request_id=request_id)["conflicts"]
    assert [conflict[name] for name in ("field", "base", "yours", "theirs")] == ["points", 1, None, 2]
    assert conflict["changed_at"] == history(service, f"{path}/history")[2]["operation_date"]
    assert undo(service, request_id=request_id, conflicts="keep theirs")["conflicts"] == [conflict]
    now = service.get(path).json()
    assert [now[name] for name in ("subject", "points", "status", "version")] == ["Read", 2, "done", 6]


def test_what_others_changed_before_a_request_deletes_it_comes_back(service, objects):
    path, request_id = f"/userstories/{objects['userstories']['id']}", str(uuid.uuid4())
    mine = {"X-Request-Id": request_id}
    service.patch(path, json={"subject": "mine", "version": 1}, headers=mine)
    service.patch(path, json={"status": "done", "version": 2})
    assert service.delete(path, params={"version": 3}, headers=mine).status_code == 204
    assert undo(service, request_id=request_id)["conflicts"] == []
    now = service.get(path).json()
    assert (now["subject"], now["status"]) == ("Read", "done")


# What only one may have -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [{}, {"conflicts": "keep theirs"}], ids=["refuse", "keep theirs"])
@pytest.mark.parametrize("gone", [False, True])
def test_what_a_request_left_as_it_had_found_it_is_in_nobodys_way(service, objects, gone, keep):
    path, request_id = f"/tasks/{objects['tasks']['id']}", {"X-Request-Id": str(uuid.uuid4())}
    for version, subject in enumerate(("other", objects["tasks"]["subject"]), 1):
        body = {"subject": subject, "version": version}
        assert service.patch(path, json=body, headers=request_id).status_code == 200
    if gone:
        service.delete(path, params={"version": 3})
    undone = undo(service, request_id=request_id["X-Request-Id"], **keep)
    assert (undone["objects"], undone["conflicts"]) == (0, [])
    assert service.get(path).status_code == (404 if gone else 200)


@pytest.fixture
def users(service, unique):
    """Three of them."""
    return [service.post("/users", json=person(unique("u"))).json() for _ in range(3)]


def renamed(service, users, *turns):
    """Users that are given e-mails one after the other under one X-Request-Id."""
    request_id = str(uuid.uuid4())
    for user, email in turns:
        path = f"/users/{user['id']}"
        version = service.get(path).json()["version"]
        body = {"email": email, "version": version}
        answer = service.patch(path, json=body, headers={"X-Request-Id": request_id})
        assert answer.status_code == 200, answer.text
    return request_id


def emails(service, users):
    return [service.get(f"/users/{user['id']}").json().get("email") for user in users]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)], ids=str)
def test_what_went_from_one_to_the_next_goes_back(service, users, unique, order):
    first = emails(service, users)
    a, b, c = (users[number] for number in order)
    request_id = renamed(service, users, (a, f"{unique('u')}@x.org"), (b, a["email"]), (c, b["email"]))
    assert undo(service, request_id=request_id)["objects"] == 3
    assert emails(service, users) == first


def test_what_another_has_by_now_is_in_the_way_of_it_alone(service, users, unique):
    a, b, c = users
    given, taken = f"{unique('u')}@x.org", a["email"]
    request_id = renamed(service, users, (a, given), (b, f"{unique('u')}@x.org"))
    service.patch(f"/users/{c['id']}", json={"email": taken.upper(), "version": 1})
    (conflict,) = undo(service, 409, request_id=request_id)["conflicts"]
    assert [conflict[name] for name in ("obj_type", "obj_id", "field")] == ["user", c["id"], "email"]
    assert conflict["theirs"] == service.get(f"/users/{c['id']}").json()["email"] and conflict["changed_at"]
    assert undo(service, request_id=request_id, dry_run=True)["conflicts"] == [conflict]
    assert undo(service, request_id=request_id, conflicts="keep theirs")["undone"][0]["obj_id"] == b["id"]
    assert emails(service, users)[:2] == [given, b["email"]]


def test_who_comes_back_and_another_has_the_place_of_by_now_stays_away(service, users):
    a, b, _ = users
    deleting, _ = named(service, "DELETE", f"/users/{a['id']}", params={"version": 1})
    service.patch(f"/users/{b['id']}", json={"email": a["email"], "version": 1})
    (conflict,) = undo(service, 409, request_id=deleting)["conflicts"]
    assert (conflict["obj_id"], conflict["field"]) == (b["id"], "email")
    assert undo(service, request_id=deleting, conflicts="keep theirs")["undone"] == []
    again = service.post(f"/users/{a['id']}/revert", json={"to": 1})
    assert (again.status_code, again.json()["conflicts"]) == (409, [conflict])


def test_two_who_undo_the_same_do_it_once(service, objects):
    deleting, _ = named(service, "DELETE", f"/userstories/{objects['userstories']['id']}", params={"version": 1})
    with ThreadPoolExecutor(4) as pool:
        found = [*pool.map(lambda _: undo(service, request_id=deleting)["objects"], range(4))]
    assert sorted(found) == [0, 0, 0, 3]


def test_what_was_made_and_others_build_on_stays(service, unique):
    making, made = named(service, "POST", "/projects", json={"name": unique("project")})
    project = made.json()["id"]
    story = service.post(f"/projects/{project}/userstories", json={"subject": "theirs"}).json()["id"]
    (conflict,) = undo(service, 409, request_id=making)["conflicts"]
    assert (conflict["obj_type"], conflict["obj_id"], conflict["field"]) == ("userstory", story, "project_id")
    assert undo(service, request_id=making, conflicts="keep theirs")["undone"] == []
    assert service.get(f"/projects/{project}").status_code == 200
    service.delete(f"/userstories/{story}", params={"version": 1})
    assert undo(service, request_id=making)["objects"] == 1
    assert service.get(f"/projects/{project}").status_code == 404


@pytest.mark.parametrize("below", ["tasks", "comments"])
def test_what_was_moved_and_others_build_on_there_stays_there(service, objects, unique, below):
    story, request_id = objects["userstories"]["id"], str(uuid.uuid4())
    for noun in ("tasks", "comments"):
        service.delete(f"/{noun}/{objects[noun]['id']}", params={"version": 1})
    elsewhere = service.post("/projects", json={"name": unique("project")}).json()["id"]
    with psycopg.connect(service.database) as connection:
        connection.execute("select set_config('app.request_id', %s, true)", [request_id])
        connection.execute(
            "update userstories set project_id = %s, subject = 'moved', milestone_id = null where id = %s",
            [elsewhere, story],
        )
    made = {"tasks": {"subject": "theirs"}, "comments": {"text": "theirs"}}[below]
    theirs = service.post(f"/userstories/{story}/{below}", json=made).json()["id"]
    problem = undo(service, 409, request_id=request_id)
    assert (problem["type"], [conflict["obj_id"] for conflict in problem["conflicts"]]) == (
        "/problems/changed-since",
        [theirs],
    )
    undo(service, request_id=request_id, conflicts="keep theirs")
    now = service.get(f"/userstories/{story}").json()
    assert (now["project_id"], now["subject"]) == (elsewhere, "Read")
    service.delete(f"/{below}/{theirs}", params={"version": 1})
    undo(service, request_id=request_id)
    assert service.get(f"/userstories/{story}").json()["project_id"] == objects["projects"]["id"]


@pytest.mark.parametrize("change", ["rename column text to words", "drop column text"])
@pytest.mark.parametrize(("before", "after"), [(None, "x"), ("x", None), ("x", "y")], ids=str)
def test_a_member_that_is_no_more_is_told_not_passed_over(service, change, before, after):
    with psycopg.connect(service.database) as connection, connection.transaction(force_rollback=True):
        connection.execute("create table public.notes (id bigint primary key, text text, version integer default 1)")
        connection.execute("select history.track('notes', 'note_of_mine')")
        connection.execute("insert into notes (id, text) values (1, %s)", [before])
        connection.execute("select set_config('app.request_id', 'change of notes', true)")
        connection.execute("update notes set text = %s", [after])
        connection.execute("select set_config('app.request_id', 'later', true)")
        connection.execute(f"alter table notes {change}")
        connection.execute("select history.track('notes', 'note_of_mine')")
        connection.execute("select history.stage_undo()")
        connection.execute("select history.undo_request('change of notes')")
        (conflicts,) = connection.execute("select history.plan_undo()").fetchone()
        (found,) = connection.execute("select history.undo_conflicts(10)").fetchone()
        assert conflicts == 1
        assert (found[0]["field"], found[0]["base"], found[0]["yours"]) == ("text", after, before)
        assert connection.execute("select history.carry_out_undo()").fetchone() == (0,)


@pytest.mark.parametrize("noun", ["milestones", "tasks", "comments"])
@pytest.mark.parametrize("undoes", [False, True], ids=["made", "brought back"])
def test_what_others_build_on_keeps_all_that_is_above_it(service, unique, noun, undoes):
    mine = {"X-Request-Id": str(uuid.uuid4())}
    project = service.post("/projects", json={"name": unique("project")}, headers=mine).json()["id"]
    above = f"/projects/{project}"
    if noun != "milestones":
        story = service.post(f"{above}/userstories", json={"subject": "mine"}, headers=mine).json()["id"]
        above = f"/userstories/{story}"
    request_id = mine["X-Request-Id"]
    if undoes:
        deleting, _ = named(service, "DELETE", f"/projects/{project}", params={"version": 1})
        request_id = undo(service, request_id=deleting)["request_id"]
    made = {"milestones": {"name": "theirs"}, "tasks": {"subject": "theirs"}, "comments": {"text": "theirs"}}[noun]
    theirs = service.post(f"{above}/{noun}", json=made).json()
    told = undo(service, 409, request_id=request_id)["conflicts"]
    assert theirs["id"] in [conflict["obj_id"] for conflict in told]
    trial = undo(service, request_id=request_id, conflicts="keep theirs", dry_run=True)
    assert (trial["objects"], trial["undone"]) == (0, [])
    assert undo(service, request_id=request_id, conflicts="keep theirs")["undone"] == []
    for path in (f"/projects/{project}", above, f"/{noun}/{theirs['id']}"):
        assert service.get(path).status_code == 200


def test_what_others_brought_back_otherwise_is_told_although_the_request_went_on(service, objects):
    path, mine = f"/userstories/{objects['userstories']['id']}", {"X-Request-Id": str(uuid.uuid4())}
    service.patch(path, json={"subject": "two", "version": 1})
    assert service.delete(path, params={"version": 2}, headers=mine).status_code == 204
    assert service.post(f"{path}/revert", json={"to": 1}).status_code == 200
    assert service.patch(path, json={"status": "x", "version": 3}, headers=mine).status_code == 200
    told = undo(service, 409, request_id=mine["X-Request-Id"])["conflicts"]
    conflict = next(each for each in told if each["obj_type"] == "userstory")
    assert (conflict["field"], conflict["yours"]["subject"], conflict["theirs"]["subject"]) == (None, "two", "Read")


def test_what_others_deleted_or_made_anew_since_is_told(service, objects):
    path = f"/departments/{objects['departments']['id']}"
    free(service, objects, "departments")
    changing, _ = named(service, "PATCH", path, json={"department": "Mine", "version": 1})
    deleting, _ = named(service, "DELETE", path, params={"version": 2})
    (gone,) = undo(service, 409, request_id=changing)["conflicts"]
    assert (gone["field"], gone["theirs"]) == (None, None)
    service.post("/departments", json={"id": objects["departments"]["id"], "department": "Theirs"})
    (anew,) = undo(service, 409, request_id=deleting)["conflicts"]
    assert (anew["field"], anew["theirs"]["department"]) == (None, "Theirs")
    assert undo(service, request_id=deleting, conflicts="keep theirs")["undone"] == []
    assert service.get(path).json()["department"] == "Theirs"


def test_an_undo_names_one_thing_that_is_known(service):
    assert undo(service, 404, request_id="never was")["type"] == "/problems/not-found"
    assert undo(service, 404, upload_id=2**40)["type"] == "/problems/not-found"
    for body in (
        {},
        {"request_id": "a", "upload_id": 1},
        {"request_id": ""},
        {"upload_id": "1"},
        {"request_id": "a", "conflicts": "mine"},
    ):
        undo(service, 422, **body)


# Any requests in any order --------------------------------------------------------------------------------------------

SOME = st.sampled_from("abc")
STEP = st.one_of(
    st.tuples(
        st.integers(0, 2), st.just("update"), st.dictionaries(st.sampled_from(("subject", "status")), SOME, min_size=1)
    ),
    st.tuples(st.integers(0, 2), st.just("delete"), st.none()),
    st.tuples(st.integers(0, 2), st.just("insert"), st.fixed_dictionaries({"subject": SOME, "status": SOME})),
)
REQUESTS = st.lists(st.tuples(st.integers(0, 2), st.lists(STEP, min_size=1, max_size=3)), min_size=1, max_size=8)
"""Transactions, each under one of three X-Request-Ids."""


def carried_out(connection, story, tasks, request_id, steps):
    """A request's steps on tasks by psql: each task that it changed, before and after it."""
    before, changed = {}, set()
    with connection.transaction():
        connection.execute("select set_config('app.request_id', %s, true)", [request_id])
        for number, how, row in steps:
            task = tasks[number]
            before.setdefault(number, seen(connection, task))
            if how == "delete":
                statements = [("delete from tasks where id = %s", [task])]
            elif how == "update":
                update = "update tasks set {0} = %s where id = %s and {0} <> %s"
                statements = [(update.format(name), [value, task, value]) for name, value in row.items()]
            else:
                insert = (
                    "insert into tasks (id, project_id, userstory_id, subject, status) overriding system value"
                    " values (%s, %s, %s, %s, %s) on conflict do nothing"
                )
                statements = [(insert, [task, story["project_id"], story["id"], row["subject"], row["status"]])]
            changed |= {number for statement in statements if connection.execute(*statement).rowcount}
    return {number: (before[number], seen(connection, tasks[number])) for number in changed}


def seen(connection, id):
    names = ("subject", "status", "created_at")
    row = connection.execute(f"select {', '.join(names)} from tasks where id = %s", [id]).fetchone()
    return dict(zip(names, row, strict=True)) if row else None


def as_if_never(turns):
    """A task as it would be without a request's turns at it, but with what others made of it between them; as the
    request left it; and what of theirs it went over, None for the whole."""
    (before, after), *more = turns
    over = set()
    for found, made in more:
        if (found is None) != (after is None):
            over |= {None} if found != before else set()
            before = found
        elif found is not None:
            theirs = {name for name in found if found[name] != after[name]}
            if before is None:
                over, before = over | theirs, found if theirs else None
            else:
                over |= {name for name in theirs if after[name] != before[name] != found[name]}
                before = before | {name: found[name] for name in theirs}
        after = made
    return before, after, over


def undone_by_hand(turns, live):
    """What undoing makes of a task, by the rule alone; and the fields that conflict, None for the whole."""
    before, after, over = as_if_never(turns)
    if before == after:
        return live, over
    if before is None:
        changed = {name for name in after if live and live[name] != after[name]}
        return (live if changed else None), over | changed
    if after is None:
        return (before, over) if live in (None, before) else (live, over | {None})
    if live is None:
        return None, over | {None}
    fields = [name for name in before if before[name] != after[name]]
    conflicts = {name for name in fields if live[name] not in (before[name], after[name])}
    return live | {name: before[name] for name in fields if name not in conflicts}, over | conflicts


def is_theirs(turns, name, request_id):
    """Whether others than a request saved last what a task has, and something else than the request had."""
    theirs, made = False, set()
    for one, (before, after) in turns:
        if one == request_id:
            made |= {after[name]} if after else set()
        if (before is None) != (after is None):
            theirs = False
        elif before and before[name] != after[name]:
            theirs = one != request_id and after[name] not in made
    return theirs


@pytest.mark.thorough
@settings(max_examples=150, deadline=None)
@given(requests=REQUESTS, chance=st.randoms(use_true_random=False))
def test_any_requests_are_undone_in_any_order(service, requests, chance):
    project = service.post("/projects", json={"name": "undone"}).json()["id"]
    story = service.post(f"/projects/{project}/userstories", json={"subject": "undone"}).json()
    tasks = [
        service.post(f"/userstories/{story['id']}/tasks", json={"subject": "a", "status": "a"}).json()["id"]
        for _ in range(3)
    ]
    order = [str(uuid.uuid4()) for _ in range(3)]
    with psycopg.connect(service.database, autocommit=True) as connection:
        turns = {number: [] for number in range(3)}
        for name, steps in requests:
            for number, turn in carried_out(connection, story, tasks, order[name], steps).items():
                turns[number].append((order[name], turn))
        chance.shuffle(order)
        for undone, request_id in enumerate(order):
            live = {number: seen(connection, tasks[number]) for number in range(3)}
            wanted = {
                number: undone_by_hand(mine, live[number])
                for number in range(3)
                if (mine := [turn for one, turn in turns[number] if one == request_id])
            }
            answer = service.post("/undo", json={"request_id": request_id, "conflicts": "keep theirs"})
            if answer.status_code == 404:  # none of its steps changed anything
                assert all(wanted[number] == (live[number], set()) for number in wanted)
                continue
            assert answer.status_code == 200, answer.text
            told = {(each["obj_id"], each["field"]) for each in answer.json()["conflicts"]}
            assert told == {(tasks[number], name) for number, (_, names) in wanted.items() for name in names}
            now = {number: seen(connection, tasks[number]) for number in range(3)}
            assert now == {number: wanted.get(number, (live[number],))[0] for number in range(3)}
            for number, name in product(range(3), ("subject", "status")):
                if not undone and is_theirs(turns[number], name, request_id):
                    assert now[number] and now[number][name] == live[number][name]
            assert connection.execute("select * from history.replay(%s)", [project]).fetchall() == []


# Tables of others -----------------------------------------------------------------------------------------------------

MINE = {
    "insert": "insert into {0} values (2, 'new')",
    "update": "update {0} set a = 'new' where id = 1",
    "delete": "delete from {0} where id = 1",
}
"""What a request did to a table of the operator's own, beside what it did to the service's."""

AFTERWARDS = {
    "as it was": "select",
    "untracked": "select history.untrack('{0}')",
    "dropped": "drop table {0}",
    "granted": "grant all on {0} to rowhouse_service",
    "without a key": "alter table {0} drop constraint {1}_pkey; select history.track('{0}', '{1}')",
}


@pytest.mark.parametrize("afterwards", AFTERWARDS)
@pytest.mark.parametrize("done", MINE)
@pytest.mark.parametrize("schema", first(1, ("public", "elsewhere")))
def test_a_table_of_others_is_told_of_and_never_touched(service, unique, project, done, afterwards, schema):
    kind = unique("w")
    table, request_id = f"{schema}.{kind}", str(uuid.uuid4())
    made = f"create table {table} (id integer primary key, a text); insert into {table} values (1, 'old');"
    with psycopg.connect(service.database, autocommit=True) as connection:
        connection.execute(f"create schema if not exists {schema}; {made}")
        connection.execute(f"select history.track('{table}', '{kind}', baseline => true)")
        with connection.transaction():
            connection.execute("select set_config('app.request_id', %s, true)", [request_id])
            connection.execute(MINE[done].format(table))
            connection.execute("update projects set name = name || '!' where id = %s", [project["id"]])
        connection.execute(AFTERWARDS[afterwards].format(table, kind))
        rows = f"select * from {table} order by id" if afterwards != "dropped" else "select"
        before = connection.execute(rows).fetchall()
        (conflict,) = undo(service, 409, request_id=request_id)["conflicts"]
        assert conflict.keys() >= {"base", "yours", "theirs", "changed_by"}
        assert (conflict["obj_type"], conflict["obj_id"], conflict["field"]) == (
            kind,
            2 if done == "insert" else 1,
            None,
        )
        for dry_run in (True, False):
            told = undo(service, request_id=request_id, conflicts="keep theirs", dry_run=dry_run)
            assert (told["conflicts"], told["objects"]) == ([conflict], 1)
        assert connection.execute(rows).fetchall() == before
    assert service.get(f"/projects/{project['id']}").json()["name"] == project["name"]


@pytest.mark.parametrize("schema", ("public", "elsewhere"))
@pytest.mark.parametrize("rule", ("cascade", "restrict"))
def test_what_others_have_that_refers_to_it_is_no_failure(service, unique, rule, schema):
    kind = unique("w")
    table = f"{schema}.{kind}"
    request_id, made = named(service, "POST", "/projects", json={"name": unique("project")})
    id = made.json()["id"]
    with psycopg.connect(service.database, autocommit=True) as connection:
        connection.execute(f"create schema if not exists {schema}")
        reference = f"bigint references projects on delete {rule}"
        connection.execute(f"create table {table} (id integer primary key, project_id {reference})")
        try:
            connection.execute(f"select history.track('{table}', '{kind}')")
            connection.execute(f"insert into {table} values (1, {id})")
            if rule == "restrict":
                assert service.delete(f"/projects/{id}", params={"version": 1}).status_code == 409
            answer = service.post("/undo", json={"request_id": request_id})
            assert answer.status_code == (200 if rule == "cascade" else 409), answer.text
            if rule == "cascade":
                told = service.post(f"/projects/{id}/revert", json={"to": 1}, params={"with": "children"})
                assert told.status_code < 500, told.text
                assert connection.execute(f"select from {table}").fetchall() == []
        finally:
            connection.execute(f"drop table {table}")


# Uploads --------------------------------------------------------------------------------------------------------------


def uploaded(service, table, rows):
    body = "".join(f"{','.join(map(str, row))}\n" for row in rows)
    answer = service.post(f"/upload/{table}?header=no", data=body, headers={"Content-Type": "text/csv"})
    assert answer.status_code == 200, answer.text
    return answer


@pytest.mark.parametrize("by", ("request_id", "upload_id"))
@pytest.mark.parametrize("table", ("departments", "jobs"))
def test_an_upload_is_undone_but_for_what_others_use(service, unique, table, by):
    ids = [next(sessions) for _ in range(5)]
    answer = uploaded(service, table, [(id, unique("name")) for id in ids])
    what = {by: answer.headers["X-Request-Id"] if by == "request_id" else answer.json()["upload_id"]}
    column = table[:-1]
    service.patch(f"/{table}/{ids[0]}", json={column: "theirs", "version": 1})
    service.delete(f"/{table}/{ids[1]}", params={"version": 1})
    (conflict,) = undo(service, 409, **what)["conflicts"]
    assert (conflict["obj_id"], conflict["field"], conflict["theirs"]) == (ids[0], column, "theirs")
    undone = undo(service, conflicts="keep theirs", **what)
    assert (undone["objects"], sorted(each["obj_id"] for each in undone["undone"])) == (3, ids[2:])
    assert [service.get(f"/{table}/{id}").status_code for id in ids] == [200, 404, 404, 404, 404]
    undo(service, request_id=undone["request_id"])
    assert [service.get(f"/{table}/{id}").status_code for id in ids] == [200, 404, 200, 200, 200]


def test_an_upload_that_brought_more_later_is_undone_by_each_of_its_requests(service, unique):
    department, job, ids = next(sessions), next(sessions), [next(sessions) for _ in range(2)]
    service.post("/departments", json={"id": department, "department": unique("d")})
    service.post("/jobs", json={"id": job, "job": unique("j")})
    other = next(sessions)
    rows = [
        (ids[0], "Ann", "2021-01-01T00:00:00Z", department, job),
        (ids[1], "Bob", "2021-01-01T00:00:00Z", other, job),
    ]
    first = uploaded(service, "employees", rows)
    service.post("/departments", json={"id": other, "department": unique("d")})
    second = uploaded(service, "employees", rows)
    assert (first.json()["accepted"], second.json()["accepted"]) == (1, 2)
    assert undo(service, request_id=second.headers["X-Request-Id"])["objects"] == 1
    assert [service.get(f"/employees/{id}").status_code for id in ids] == [200, 404]
    assert undo(service, upload_id=first.json()["upload_id"])["objects"] == 1
    assert uploaded(service, "employees", rows).json()["accepted"] == 2
    assert [service.get(f"/employees/{id}").json()["version"] for id in ids] == [2, 2]


def test_an_undo_may_be_long_work(service, unique):
    ids = [next(sessions) for _ in range(3)]
    answer = uploaded(service, "jobs", [(id, unique("name")) for id in ids])
    begun = service.post("/undo", json={"upload_id": answer.json()["upload_id"]}, headers={"Prefer": "respond-async"})
    assert (begun.status_code, begun.json()["kind"]) == (202, "undo")
    while (operation := service.get(begun.headers["Location"]).json())["state"] == "running":
        pass
    assert (operation["state"], operation["result"]["objects"]) == ("succeeded", 3)
    assert (operation["rows_done"], operation["rows_total"]) == (3, 3)
    undo(service, request_id=operation["request_id"])
    assert service.get(f"/jobs/{ids[0]}").status_code == 200


# Long work -----------------------------------------------------------------------------------------------------------

LARGE = """
    with made as (
        insert into userstories (project_id, subject)
        select %(project)s, 'story ' || n from generate_series(1, %(stories)s) as n
        returning id, project_id
    )
    insert into tasks (project_id, userstory_id, subject) select project_id, id, 'task' from made
"""


COUNT = """
    select (select count(*) from userstories where project_id = %s) + (select count(*) from tasks where project_id = %s)
"""


def large(service, unique, stories, request_id=""):
    """The path of a new project with so many stories and as many tasks, that were made by a request."""
    id = service.post("/projects", json={"name": unique("large")}).json()["id"]
    by_sql(service, request_id, LARGE, project=id, stories=stories)
    return f"/projects/{id}"


def by_sql(service, request_id, statement, **values):
    """What a request would do in one transaction."""
    with psycopg.connect(service.database) as connection:
        connection.execute("select set_config('app.request_id', %s, true)", [request_id])
        connection.execute(statement, values)


def deleted(service, unique, stories):
    request_id, _ = named(service, "DELETE", large(service, unique, stories), params={"version": 1})
    return lambda: undo(service, request_id=request_id, dry_run=True)["objects"] - 1


def made(service, unique, stories):
    request_id = str(uuid.uuid4())
    large(service, unique, stories, request_id)
    return lambda: undo(service, request_id=request_id, dry_run=True)["objects"]


def moved(service, unique, stories):
    """Stories alone: what hangs on one keeps it where it is."""
    request_id, here = str(uuid.uuid4()), large(service, unique, 2 * stories).split("/")[-1]
    there = service.post("/projects", json={"name": unique("there")}).json()["id"]
    by_sql(service, "", "delete from tasks where project_id = %(here)s", here=here)
    moving = "update userstories set project_id = %(there)s where project_id = %(here)s"
    by_sql(service, request_id, moving, here=here, there=there)
    return lambda: undo(service, request_id=request_id, dry_run=True)["objects"]


def brought_back(service, unique, stories):
    path = large(service, unique, stories)

    def revert():
        version = service.get(path).json()["version"]
        assert service.delete(path, params={"version": version}).status_code == 204
        answer = service.post(f"{path}/revert", json={"to": 1}, params={"with": "children"})
        assert answer.status_code == 200, answer.text
        (counted,) = execute(service, COUNT, *2 * [answer.json()["id"]]).fetchone()
        return counted

    return revert


def typical(work, objects):
    """The median of the seconds that work takes."""
    found = []
    for _ in range(3):
        begun = time.monotonic()
        assert work() == objects
        found.append(time.monotonic() - begun)
    return median(found)


@pytest.mark.thorough
@pytest.mark.parametrize("what", [deleted, made, moved, brought_back])
def test_eight_times_as_much_takes_no_more_than_twice_as_long_for_each(service, unique, what):
    few, many = (typical(what(service, unique, stories), 2 * stories) for stories in (250, 2000))
    assert many < 16 * few, (few, many)
