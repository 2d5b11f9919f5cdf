"""History: every change is recorded, whoever makes it, and every version can be read and come back."""

import csv
import io
import json
import random
import re
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from itertools import count

import psycopg
import pytest
from psycopg import errors

import db
from app import create_app
from db.pool import connect
from db.queries import STATEMENTS
from handlers.http.crud_history import reverted
from handlers.http.schemas import decoded
from tests.conftest import first, serve
from tests.flask_command import flask
from tests.test_users import person

NOUNS = (
    "users",
    "audios",
    "projects",
    "milestones",
    "userstories",
    "tasks",
    "comments",
    "departments",
    "jobs",
    "employees",
)

sessions = count(7_000_000, 10)


def one_of_each(service, unique):
    """One new object of each noun: {"tasks": {...}, …}."""
    made = {}

    def make(noun, body, under=None):
        answer = service.post(f"/{under}/{noun}" if under else f"/{noun}", json=body)
        assert answer.status_code == 201, answer.text
        made[noun] = answer.json()

    make("users", person(unique("ann")))
    make("audios", {"session_id": next(sessions), "ticks": [-50] * 15, "selected_tick": 1, "step_count": 1})
    make("projects", {"name": unique("project")})
    project = f"projects/{made['projects']['id']}"
    make("milestones", {"name": "First"}, project)
    make("userstories", {"subject": "Read"}, project)
    story = f"userstories/{made['userstories']['id']}"
    make("tasks", {"subject": "Do"}, story)
    make("comments", {"text": "Said"}, story)
    make("departments", {"id": next(sessions), "department": unique("department")})
    make("jobs", {"id": next(sessions), "job": unique("job")})
    make(
        "employees",
        {
            "id": next(sessions),
            "name": "Ann",
            "datetime": "2021-11-07T02:48:42Z",
            "department_id": made["departments"]["id"],
            "job_id": made["jobs"]["id"],
        },
    )
    return made


@pytest.fixture
def objects(service, unique):
    return one_of_each(service, unique)


CHANGES = {
    "users": {"name": "Anna"},
    "audios": {"step_count": 2},
    "projects": {"description": "Changed"},
    "milestones": {"closed": True},
    "userstories": {"points": 2.5},
    "tasks": {"status": "done"},
    "comments": {"text": "Said again"},
    "departments": {"department": "Changed"},
    "jobs": {"job": "Changed"},
    "employees": {"datetime": "2021-12-07T02:48:42Z"},
}


def history(service, path, **query):
    answer = service.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


def execute(service, statement, *parameters):
    with psycopg.connect(service.database, autocommit=True, application_name="psql") as connection:
        return connection.execute(statement, parameters)


# What is recorded -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noun", NOUNS)
def test_a_life_is_recorded_from_creation_to_removal(service, objects, noun):
    made = objects[noun]
    path, (field, value) = f"/{noun}/{made['id']}", *CHANGES[noun].items()
    service.patch(path, json={field: value, "version": 1}, headers={"X-Request-Id": f"change-{noun}"})
    if noun in ("departments", "jobs"):
        service.delete(f"/employees/{objects['employees']['id']}", params={"version": 1})
    service.delete(path, params={"version": 2})
    create, update, delete = history(service, f"{path}/history")
    assert [entry["action"] for entry in (create, update, delete)] == ["create", "update", "delete"]
    assert [entry["version"] for entry in (create, update, delete)] == [1, 2, 2]
    assert {entry["obj_id"] for entry in (create, update, delete)} == {made["id"]}
    assert create["old_obj"] is None and delete["new_obj"] is None
    assert create["new_obj"] == update["old_obj"] and update["new_obj"] == delete["old_obj"]
    assert [*update["diff"]] == [field]
    assert update["request_id"] == f"change-{noun}"
    assert update["actor"] == "anonymous"
    assert create["operation_date"] == made["created_at"]


def test_a_change_that_changes_nothing_is_not_recorded(service, objects):
    path = f"/projects/{objects['projects']['id']}"
    assert service.patch(path, json={"name": objects["projects"]["name"], "version": 1}).json()["version"] == 1
    execute(service, "update projects set name = name where id = %s", objects["projects"]["id"])
    assert len(history(service, f"{path}/history")) == 1


def test_what_goes_with_its_parent_is_recorded(service, objects):
    project = objects["projects"]["id"]
    service.delete(f"/projects/{project}", params={"version": 1}, headers={"X-Request-Id": "all-gone"})
    gone = history(service, "/history", project=project, action="delete")
    assert {entry["obj_type"] for entry in gone} == {"project", "milestone", "userstory", "task", "comment"}
    assert {entry["request_id"] for entry in gone} == {"all-gone"}


def test_changes_by_psql_are_recorded_with_role_and_application(service, objects):
    task = objects["tasks"]["id"]
    execute(service, "update tasks set status = 'psql was here' where id = %s", task)
    entry = history(service, f"/tasks/{task}/history", sort="-id")[0]
    assert entry["actor"].endswith(" (psql)")
    assert entry["diff"] == {"status": ["new", "psql was here"]}
    assert service.get(f"/tasks/{task}").json()["updated_at"] == entry["operation_date"]


def test_copy_is_recorded_row_by_row(service, objects):
    story = objects["userstories"]
    with (
        psycopg.connect(service.database) as connection,
        connection.cursor().copy("copy tasks (project_id, userstory_id, subject) from stdin") as copy,
    ):
        for number in range(3):
            copy.write_row((story["project_id"], story["id"], f"copied {number}"))
    entries = history(service, "/history", obj_type="task", project=story["project_id"], action="create")
    assert [entry["new_obj"]["subject"] for entry in entries] == ["Do", "copied 0", "copied 1", "copied 2"]


def test_a_truncate_is_recorded_and_ends_what_there_was(server, database):
    with serve(database) as service:
        made = service.post("/users", json=person("ann")).json()
        execute(service, "truncate users cascade")
        truncates = history(service, "/history", action="truncate")
        assert {"user", "project", "userstory"} <= {entry["obj_type"] for entry in truncates}
        assert {(entry["obj_id"], entry["diff"]) for entry in truncates} == {(None, None)}
        assert service.get(f"/users/{made['id']}").status_code == 404
        assert service.get(f"/users/{made['id']}?as_of=1").json() == made
        assert service.get(f"/users/{made['id']}?as_of={made['created_at']}").json() == made
        assert service.get(f"/users/{made['id']}?as_of={truncates[0]['operation_date']}").status_code == 404


def test_what_is_rolled_back_was_not(service, objects):
    with psycopg.connect(service.database) as connection:
        connection.execute("update tasks set status = 'never' where id = %s", [objects["tasks"]["id"]])
        connection.rollback()
    assert len(history(service, f"/tasks/{objects['tasks']['id']}/history")) == 1


def test_an_upload_is_one_entry_and_its_rows_are_recorded_from_then_on(service, unique):
    first = next(sessions)
    rows = "".join(f"{first + number},{unique('department')}\n" for number in range(3))
    upload = service.post("/upload/departments", data=rows, headers={"Content-Type": "text/csv"}).json()
    load = history(service, "/history", obj_type="department", sort="-id", limit=1)[0]
    assert (load["action"], load["obj_id"]) == ("create", None)
    assert load["new_obj"] == {"load": f"upload of {upload['sha256']}", "rows": 3}
    path = f"/departments/{first}"
    before = service.get(path).json()
    assert history(service, f"{path}/history") == []
    service.patch(path, json={"department": "Changed", "version": 1})
    assert service.get(f"{path}?as_of=1").json() == before
    assert service.get(f"{path}?as_of={before['created_at']}").json() == before
    merge = service.patch(path, json={"department": "Mine", "version": 1})
    assert merge.json()["conflicts"][0]["base"] == before["department"]


# How it is shown ------------------------------------------------------------------------------------------------------


def test_an_entry_of_any_depth_is_a_row_of_csv(service, unique):
    kind, depths = unique("deep"), (10, 900, *range(950, 1010, 3), 3000)
    deep = ["[" * depth + '"[, :"' + "]" * depth for depth in depths]
    apart = 10**9  # what others ask for by the ids of theirs can be read
    with psycopg.connect(service.database, autocommit=True) as connection:
        connection.execute(f"create table {kind} (id int primary key, it jsonb)")
        connection.execute("select history.track(%s::regclass, obj_type => %s)", [kind, kind])
        try:
            for place, text in enumerate(deep, apart):
                connection.execute(f"insert into {kind} values (%s, %s)", [place, text])
            for formulas in ("", "neutral"):
                answer = service.get(
                    "/history",
                    params={"obj_type": kind, "sort": "id"} | ({"formulas": formulas} if formulas else {}),
                    headers={"Accept": "text/csv"},
                )
                found = [row["new_obj"] for row in csv.DictReader(io.StringIO(answer.text))]
                assert [text.replace(" ", "") for text in found] == [
                    f'{{"id":{place},"it":{text.replace(" ", "")}}}' for place, text in enumerate(deep, apart)
                ]
        finally:
            connection.execute(f"drop table {kind}")


def test_history_is_found_by_each_of_its_filters(service, objects):
    project, task = objects["projects"]["id"], objects["tasks"]["id"]
    service.patch(f"/tasks/{task}", json={"status": "done", "version": 1})
    by_object = history(service, "/history", obj_type="task", obj_id=task)
    assert by_object == history(service, f"/tasks/{task}/history")
    assert by_object[-1] in history(service, "/history", obj_id=task, sort="-id")
    assert by_object == history(service, "/history", project=project, obj_type="task")
    assert by_object[1:] == history(service, "/history", project=project, action="update")
    assert history(service, "/history", project=project, actor="nobody") == []
    both = history(service, "/history", project=project, obj_type="task,comment")
    assert {entry["obj_type"] for entry in both} == {"task", "comment"}
    created, updated = by_object
    assert history(service, "/history", request_id=created["request_id"]) == [created]
    assert history(service, "/history", project=project, field="status", action="update") == [updated]
    assert history(service, "/history", obj_type="task", obj_id=task, field="userstory_id") == [created]
    assert history(service, "/history", obj_type="task", obj_id=task, since=updated["operation_date"]) == [updated]
    assert history(service, "/history", obj_type="task", obj_id=task, until=updated["operation_date"]) == [created]
    assert service.get("/history?since=yesterday").status_code == 422
    assert len(history(service, "/history", project=project, actor="anonymous")) == 6
    assert service.get("/history?action=steal").status_code == 422
    assert service.get("/history?obj=1").status_code == 400


def test_history_is_walked_page_by_page_both_ways(service, objects):
    project = objects["projects"]["id"]
    whole = [entry["id"] for entry in history(service, "/history", project=project)]
    for sort, expected in (("id", whole), ("-id", whole[::-1])):
        found, path = [], f"/history?project={project}&limit=2&sort={sort}"
        while path:
            answer = service.get(path)
            found += [entry["id"] for entry in answer.json()["items"]]
            path = answer.links.get("next", {}).get("url")
        assert found == expected


def test_a_json_patch_makes_the_new_object_of_the_old(service, objects):
    path = f"/userstories/{objects['userstories']['id']}"
    service.patch(path, json={"subject": "a/b~c", "tags": ["x"], "version": 1})
    create, update = history(service, f"{path}/history", diff="json-patch")
    assert create["diff"] == [{"op": "add", "path": "", "value": create["new_obj"]}]
    patched = dict(update["old_obj"])
    for operation in update["diff"]:
        assert operation["op"] == "replace"
        patched[operation["path"].removeprefix("/")] = operation["value"]
    assert patched == update["new_obj"]


def test_history_of_what_never_was_is_not_found(service):
    for noun in NOUNS:
        assert service.get(f"/{noun}/2147483000/history").status_code == 404
        assert service.post(f"/{noun}/2147483000/revert", json={"version": 1, "to": 1}).status_code == 404


def test_psql_prints_the_same_entries(service, objects, psql):
    task = objects["tasks"]["id"]
    body = service.get(f"/tasks/{task}/history").text
    assert psql("history.list", noun="tasks", obj_id=task) == body
    service.patch(f"/tasks/{task}", json={"status": "done", "version": 1})
    assert psql("tasks.as_of", id=task, as_of=1) == service.get(f"/tasks/{task}?as_of=1").text


# How it was -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", first(1, [1_000, 10_000]))
def test_every_version_of_many_objects_is_as_get_gave_it_then(service, unique, asked):
    """Random pairs of an object and one of its versions, each by number and many by time."""
    project = service.post("/projects", json={"name": unique("project")}).json()["id"]
    chance = random.Random(7)

    def live(number):
        made = service.post(f"/projects/{project}/userstories", json={"subject": f"story {number}"})
        bodies = [made.content]
        path = made.headers["Location"]
        for version in range(1, 10):
            change = {
                "subject": f"s {chance.random()}",
                "tags": [str(chance.random())] * chance.randint(0, 3),
                "points": round(chance.random() * 100, 1),
                "description": None if chance.random() < 0.5 else "π\n" * 9,
            }
            answer = service.patch(path, json=change | {"version": version})
            assert answer.status_code == 200, answer.text
            bodies.append(answer.content)
        return path, bodies

    with ThreadPoolExecutor(8) as pool:
        lives = [*pool.map(live, range(60))]
        pairs = [(*chance.choice(lives), chance.randrange(10)) for _ in range(asked)]

        def differs(pair):
            path, bodies, place = pair
            then = place + 1 if place % 2 else json.loads(bodies[place])["updated_at"]
            return service.get(path, params={"as_of": then}).content != bodies[place]

        assert sum(pool.map(differs, pairs)) == 0
    with connect(service.database) as connection:
        assert connection.execute("select * from history.replay($1)", [project]).fetchall() == []


def test_a_time_between_two_versions_shows_the_first(service, objects):
    path = f"/tasks/{objects['tasks']['id']}"
    first = service.get(path).json()
    service.patch(path, json={"status": "done", "version": 1})
    second = service.get(path).json()
    moment = datetime.fromisoformat(second["updated_at"])
    just_before = (moment - timedelta(microseconds=1)).isoformat()
    assert service.get(path, params={"as_of": just_before}).json() == first
    assert service.get(path, params={"as_of": moment.isoformat()}).json() == second
    assert service.get(path, params={"as_of": "2999-01-01T00:00:00Z"}).json() == second
    assert service.get(path, params={"as_of": "2001-01-01T00:00:00Z"}).status_code == 404
    assert service.get(path, params={"as_of": 3}).status_code == 404
    assert service.get(path, params={"as_of": 2**31}).status_code == 422
    assert service.get(path, params={"as_of": 1, "fields": "status"}).json() == {"status": "new"}
    assert service.get(path, params={"as_of": 1}).headers["ETag"] == '"1"'


def test_a_later_version_has_a_later_time_whichever_transaction_began_first(service, objects):
    task = objects["tasks"]["id"]
    with psycopg.connect(service.database) as early:
        early.execute("select now()")
        service.patch(f"/tasks/{task}", json={"status": "second", "version": 1})
        early.execute("update tasks set status = 'third' where id = %s", [task])
    dates = [entry["operation_date"] for entry in history(service, f"/tasks/{task}/history")]
    assert dates == sorted(dates)


@pytest.mark.parametrize("noun", ("departments", "jobs", "employees"))
def test_what_gets_another_id_ends_under_the_old_one_and_begins_under_the_new(service, objects, noun):
    left, other = objects[noun]["id"], next(sessions)
    execute(service, "delete from employees where id = %s", objects["employees"]["id"]) if noun != "employees" else None
    first = service.get(f"/{noun}/{left}").json()
    execute(service, f"update {noun} set id = %s where id = %s", other, left)
    now = service.get(f"/{noun}/{other}").json()
    assert [entry["action"] for entry in history(service, f"/{noun}/{left}/history")] == ["create", "delete"]
    assert [entry["action"] for entry in history(service, f"/{noun}/{other}/history")] == ["create"]
    assert service.get(f"/{noun}/{left}", params={"as_of": first["updated_at"]}).json() == first
    assert service.get(f"/{noun}/{left}", params={"as_of": now["updated_at"]}).status_code == 404
    assert service.get(f"/{noun}/{other}", params={"as_of": first["updated_at"]}).status_code == 404
    assert service.get(f"/{noun}/{other}", params={"as_of": now["updated_at"]}).json() == now


@pytest.mark.thorough
def test_any_version_of_very_many_is_found_at_once(service, objects):
    """The best of several, side by side: what else the machine does only adds to it."""
    task, path = objects["tasks"]["id"], f"/tasks/{objects['tasks']['id']}"

    def saved(times):
        update = f"update tasks set subject = 'saved ' || version where id = {task};"
        execute(service, f"do $$ begin for n in 1..{times} loop {update} end loop; end $$")
        # Whoever reads rows first after their commit marks them as committed, page by page: that is none of it.
        read = f"select count(new_obj) from history.entries where obj_type = 'task' and obj_id = '{task}'"
        execute(service, read)

    def best(rounds, *asks):
        return map(min, zip(*([ask() for ask in asks] for _ in range(rounds)), strict=True))

    def reading(**query):
        return timed(lambda: service.get(path, params=query))

    def timed(ask):
        began = time.perf_counter()
        assert ask().status_code == 200
        return time.perf_counter() - began

    def changing(behind):
        version = service.get(path).json()["version"]
        saved(behind)
        return timed(lambda: service.patch(path, json={"status": f"s{next(sessions)}", "version": version}))

    saved(99_999)
    assert service.get(path, params={"as_of": 50_000}).json()["subject"] == "saved 49999"
    for version in (1, 1_000, 50_000, 99_999):
        present, past = best(200, reading, lambda version=version: reading(as_of=version))
        assert past < 2 * present + 0.001, version
    fresh, behind = best(50, lambda: changing(0), lambda: changing(1))
    assert behind < 2 * fresh + 0.001
    (far_behind,) = best(5, lambda: changing(10_000))
    assert far_behind < 10 * fresh


# Back to a version ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noun", NOUNS)
def test_a_revert_makes_a_new_version_equal_to_an_old_one(service, objects, noun):
    path = f"/{noun}/{objects[noun]['id']}"
    first = service.get(path).json()
    service.patch(path, json=CHANGES[noun] | {"version": 1})
    answer = service.post(f"{path}/revert", json={"version": 2, "to": 1})
    assert answer.status_code == 200, answer.text
    assert answer.json()["version"] == 3
    assert answer.headers["ETag"] == '"3"'
    same = {name: value for name, value in answer.json().items() if name not in ("version", "updated_at")}
    assert same == {name: value for name, value in first.items() if name not in ("version", "updated_at")}


def test_a_revert_is_refused_over_a_version_one_did_not_read(service, objects):
    path = f"/tasks/{objects['tasks']['id']}"
    service.patch(path, json={"status": "done", "version": 1})
    assert service.post(f"{path}/revert", json={"version": 1, "to": 1}).status_code == 409
    assert service.post(f"{path}/revert", json={"to": 1}, headers={"If-Match": '"1"'}).status_code == 412
    assert service.post(f"{path}/revert", json={"to": 1}).status_code == 428
    assert service.post(f"{path}/revert", json={"version": 2}).status_code == 422
    unknown = service.post(f"{path}/revert", json={"version": 2, "to": 7})
    assert (unknown.status_code, [*unknown.json()["errors"]]) == (422, ["to"])
    assert service.post(f"{path}/revert", json={"version": 2, "to": 2}).json()["version"] == 2


def test_what_the_service_sets_by_itself_is_known_from_its_statements():
    """A statement that sets a member to a word of its own, and not to what somebody sent."""
    found = {
        each
        for statement in STATEMENTS.values()
        for each in re.findall(r"update (\w+) as \w+\s+set (\w+) = '", statement.sql.decode())
    }
    kinds = {
        name.partition(".revert_")[2]: view.contract.answer
        for name, view in create_app().view_functions.items()
        if ".revert_" in name
    }
    marked = {(noun, name) for noun, kind in kinds.items() for name in {*kind.load_fields} - {*reverted(type(kind))}}
    assert found == marked == {("events", "status")}


@pytest.mark.parametrize("status", ["NotProcessed", "Processed", "Failed"])
def test_a_revert_sends_no_event_again(service, status):
    made = service.post("/events", json={"user_id": "ann", "description": "Your parcel is here."}).json()
    path = f"/events/{made['event_id']}"
    execute(service, "update events set status = %s where id = %s and status <> %s", status, made["event_id"], status)
    changed = service.patch(path, json={"version": service.get(path).json()["version"], "description": "hree"}).json()
    first = service.post(f"{path}/revert", json={"version": changed["version"], "to": 1})
    assert (first.status_code, first.json()["description"]) == (200, made["description"])
    assert first.json()["status"] == status
    (waiting,) = execute(service, "select count(*)::int from outbox where event_id = %s", made["event_id"]).fetchone()
    assert waiting == (status == "NotProcessed")


# Any table ------------------------------------------------------------------------------------------------------------


def entries(connection, kind):
    return connection.execute(
        "select obj_id, action, version, old_obj, new_obj from history.entries where obj_type = %s order by id", [kind]
    ).fetchall()


@pytest.fixture
def foreign(database):
    """A connection to a database with tables that are none of ours, in a schema of their own."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("create schema elsewhere")
        yield connection


def test_keys_of_every_kind_are_recorded(foreign):
    foreign.execute("""
        create table elsewhere.pair (a int, b text, note json, primary key (b, a));
        create table elsewhere.word (w text primary key);
        create table elsewhere.thing (u uuid primary key, half numeric generated always as (1.50) stored, big text);
        create table elsewhere.keyless (x int);
        select history.track('elsewhere.' || t) from unnest(array['pair', 'word', 'thing', 'keyless']::text[]) t;
        insert into elsewhere.pair values (1, 'x,"y', '{"a": 1}');
        insert into elsewhere.word values ('7'), ('it''s');
        insert into elsewhere.thing values ('00000000-0000-0000-0000-000000000001', default, repeat('long', 100000));
        update elsewhere.thing set u = '00000000-0000-0000-0000-000000000002';
        insert into elsewhere.keyless values (1);
    """)
    assert [row[0] for row in entries(foreign, "pair")] == ['["x,\\"y", 1]']
    assert [row[0] for row in entries(foreign, "word")] == ['"7"', '"it\'s"']
    made, left, anew = entries(foreign, "thing")
    assert made[4]["half"] == 1.5 and len(made[4]["big"]) == 400_000
    assert left[3] == made[4] and anew[4]["big"] == made[4]["big"]
    assert [row[0] for row in entries(foreign, "keyless")] == [None]


def test_columns_may_be_added_and_renamed_afterwards(foreign):
    foreign.execute("""
        create table elsewhere.note (id int primary key, project int, body text);
        select history.track('elsewhere.note', 'note', 'project');
        insert into elsewhere.note values (1, 13, 'first');
        alter table elsewhere.note add column colour text default 'red';
        alter table elsewhere.note rename column id to number;
        alter table elsewhere.note rename column project to tenant;
        update elsewhere.note set body = 'second';
    """)
    row = foreign.execute("select obj_id, project, new_obj from history.entries order by id desc limit 1").fetchone()
    assert row == ("1", 13, {"number": 1, "tenant": 13, "body": "second", "colour": "red"})


def test_a_partitioned_table_is_recorded_through_parent_and_partition(foreign):
    foreign.execute("""
        create table elsewhere.happening (id int, day date, what text, primary key (id, day)) partition by range (day);
        select history.track('elsewhere.happening');
        create table elsewhere.happening_2020 partition of elsewhere.happening
        for values from ('2020-01-01') to ('2021-01-01');
        insert into elsewhere.happening values (1, '2020-02-02', 'through the parent');
        insert into elsewhere.happening_2020 values (2, '2020-02-02', 'directly');
        update elsewhere.happening set what = 'changed' where id = 2;
        delete from elsewhere.happening_2020 where id = 1;
    """)
    assert [row[:2] for row in entries(foreign, "happening")] == [
        ('[1, "2020-02-02"]', "create"),
        ('[2, "2020-02-02"]', "create"),
        ('[2, "2020-02-02"]', "update"),
        ('[1, "2020-02-02"]', "delete"),
    ]


def test_a_table_can_be_untracked_and_tracked_again(foreign):
    foreign.execute("create table elsewhere.word (w text primary key); select history.track('elsewhere.word')")
    foreign.execute("select history.track('elsewhere.word'); insert into elsewhere.word values ('once')")
    foreign.execute("select history.untrack('elsewhere.word'); insert into elsewhere.word values ('unseen')")
    foreign.execute("select history.track('elsewhere.word'); insert into elsewhere.word values ('again')")
    assert [row[0] for row in entries(foreign, "word")] == ['"once"', '"again"']


def test_tracking_what_cannot_be_tracked_says_why(foreign):
    foreign.execute("create table elsewhere.word (w text primary key)")
    with pytest.raises(errors.UndefinedColumn, match="has no integer column w"):
        foreign.execute("select history.track('elsewhere.word', project => 'w')")
    with pytest.raises(errors.UndefinedTable):
        foreign.execute("select history.track('elsewhere.nothing')")


# Keeping and dropping -------------------------------------------------------------------------------------------------


def test_replaying_a_history_finds_what_went_by_it(service, objects):
    project = objects["projects"]["id"]
    with psycopg.connect(service.database) as connection:
        assert connection.execute("select * from history.replay(%s)", [project]).fetchall() == []
        connection.execute("alter table tasks disable trigger all")
        connection.execute("update tasks set status = 'unseen' where project_id = %s", [project])
        found = connection.execute("select obj_type, obj_id from history.replay(%s)", [project]).fetchall()
        assert found == [("task", str(objects["tasks"]["id"]))]
        connection.rollback()


# Months --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def years(database):
    """A database in which ann was saved in January to June of 2024, and once in 2020, for which nobody made room."""
    with psycopg.connect(database, autocommit=True) as connection:
        for month in range(1, 7):
            connection.execute(
                f"create table history.entries_2024_{month:02} partition of history.entries"
                f" for values from ('2024-{month:02}-01Z') to ('2024-{month + 1:02}-01Z')"
            )
        connection.execute(
            """
            set session_replication_role = replica;
            insert into users (email, name, address, image, version) values ('a@b.org', 'n7', '-', 'http://b.org', 7);
            insert into history.entries (operation_date, obj_type, obj_id, action, actor, version, old_obj, new_obj)
            select
                date, 'user', '1', 'update', 'ann', n,
                to_jsonb(u) || jsonb_build_object('name', 'n' || n - 1, 'version', n - 1),
                to_jsonb(u) || jsonb_build_object('name', 'n' || n, 'version', n)
            from users as u, unnest(
                '{2020-01-10Z,2024-01-10Z,2024-02-10Z,2024-03-10Z,2024-04-10Z,2024-05-10Z,2024-06-10Z}'::timestamptz[]
            ) with ordinality as d (date, n);
            analyze history.entries;
            """
        )
    return database


READ = "select relname from pg_stat_xact_user_tables where schemaname = 'history' and idx_scan + seq_scan > 0"


def months_read(database, statement, **parameters):
    """The bodies that a statement gives, and the months it read for them."""
    with connect(database) as connection:
        connection.execute("set enable_seqscan = off")
        with connection.transaction():
            rows = [*db.run(connection, statement, **parameters)]
            found = {name.removeprefix("entries_") for (name,) in connection.execute(READ)}
    return rows, found - {"tracked", "horizon"}


def test_a_time_reads_no_month_after_it(years):
    rows, read = months_read(years, "users.as_of", id=1, as_of="2024-03-15T00:00:00Z")
    assert json.loads(rows[0].body)["name"] == "n4"
    assert read == {"2024_01", "2024_02", "2024_03", "default"}


def test_a_page_of_history_reads_no_month_of_the_pages_before(years):
    asked = {"noun": "users", "obj_id": "1", "limit": 3}
    for statement, versions, unread in (
        ("history.list_desc", [4, 3, 2], "2024_06"),
        ("history.list", [4, 5, 6], "2024_01"),
    ):
        rows, _ = months_read(years, statement, **asked)
        rows, read = months_read(years, statement, **decoded(rows[0].next)[1], **asked)
        assert [entry["version"] for entry in json.loads(rows[0].body)["items"]] == versions
        assert "2024_04" in read
        assert unread not in read


def test_the_command_drops_the_months_that_ended(years):
    def prune(before):
        done = flask(years, "history", "prune", "--before", before)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def versions():
        with psycopg.connect(years) as connection:
            query = "select version from history.entries where obj_type = 'user' order by operation_date"
            return [version for (version,) in connection.execute(query)]

    assert prune("2020-01-31") == "There was nothing to drop.\n"
    assert versions() == [1, 2, 3, 4, 5, 6, 7]
    assert prune("2024-03-15") == "Dropped entries_2024_01, entries_2024_02.\n"
    assert versions() == [4, 5, 6, 7], "nor what lay in the default partition"
    assert prune("2024-03-15") == "There was nothing to drop.\n"
