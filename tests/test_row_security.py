"""Tokens of one project: they reach what is theirs and nothing beside it, and the database sees to it."""

import json
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count

import psycopg
import pytest
from psycopg import conninfo, errors
from websockets.sync.client import connect

from handlers.http.contract import NDJSON
from handlers.http.request_body import JSON
from tests.conftest import make_token, serve, tool, wait_for
from tests.resources import CHANGES, FENCED, OF_PROJECTS, anew, create_all, insert
from tests.test_access import TABLE
from tests.test_changes import EVENTS, LINES, MEDIA
from tests.test_changes import told as told_by_http

ROUTES = [route for route, least in TABLE.items() if least.endswith(", project")]

BODIES = {
    "projects": {"name": "Named anew"},
    "milestones": {"name": "Named anew"},
    "userstories": {"subject": "Named anew"},
    "tasks": {"subject": "Named anew"},
    "comments": {"text": "Said anew"},
}

PEOPLE = {"projects": "owner_id", "userstories": "assigned_to", "tasks": "assigned_to", "comments": "author_id"}
"""Where a person is named."""

FORMS = {"POST": ("", "once"), "PUT": ("",), "PATCH": ("", "merged", "merge patch")}

NAMING = [
    (route, form, noun)
    for route in ROUTES
    for method, path in [route.split(" ")]
    for noun in [path.split("/")[1 if method != "POST" or path.endswith("/revert") else -1]]
    if noun in PEOPLE
    for form in (("",) if path.endswith("/revert") else FORMS.get(method, ()))
]
"""Each way to name one."""

numbers = count(1)


@pytest.fixture(scope="module")
def guarded(module_database):
    """A service that lets nobody in without a token."""
    with serve(module_database) as service:
        with psycopg.connect(service.database, autocommit=True) as connection:
            service.admin = make_token(connection)
            service.foreign = project(connection)
        yield service


@pytest.fixture
def own(guarded):
    """A project with something of each noun, and its token."""
    with psycopg.connect(guarded.database, autocommit=True) as connection:
        made = project(connection)
        return made | {"token": make_token(connection, project=made["projects"])}


def project(connection) -> dict[str, int]:
    """A project with one of each noun, each changed once; their ids."""

    def made(table: str, columns: str, *values: object) -> int:
        places = ", ".join(["%s"] * len(values))
        row = connection.execute(f"insert into {table} ({columns}) values ({places}) returning id", values).fetchone()
        return row[0]

    number = next(numbers)
    user = made("users", "email, name", f"row{number}@security.test", "Row")
    id = made("projects", "name, owner_id", f"Project {number}", user)
    milestone = made("milestones", "project_id, name", id, "First")
    story = made("userstories", "project_id, subject, assigned_to", id, "First", user)
    task = made("tasks", "project_id, userstory_id, subject", id, story, "First")
    comment = made("comments", "project_id, userstory_id, author_id, text", id, story, user, "First")
    ids = {"projects": id, "milestones": milestone, "userstories": story, "tasks": task, "comments": comment}
    for noun in OF_PROJECTS:
        insert(connection, noun, ids, [number])
        ids[noun] = connection.execute(f"select max(id) from {noun}").fetchone()[0]
    for noun in ids:
        field = next(iter(CHANGES[noun]))
        value = anew(noun, number + 100_000)[field] if noun in OF_PROJECTS else "Second"
        connection.execute(f"update {noun} set {field} = %s where id = %s", [value, ids[noun]])
    return ids


def call(service, held: str, route: str, ids: dict[str, int], form: str = "", **members: object):
    """Call a route as it is meant to be, on the object of its noun among these ids; with these members in its body."""
    method, path = route.split(" ")
    noun = path.split("/")[1]
    options = {"headers": {"Authorization": f"Bearer {held}"}}
    if method in ("PUT", "PATCH", "DELETE") or path.endswith("/revert"):
        options["headers"]["If-Match"] = "*"
    if path.endswith("/revert"):
        options["json"] = {"to": 1}
    elif method in ("POST", "PUT", "PATCH"):
        made = path.split("/")[-1] if method == "POST" else noun
        options["json"] = anew(made, next(numbers)) if made in OF_PROJECTS else BODIES[made]
    if route == "PUT /projects/<id:id>":
        options["json"] = options["json"] | {"slug": f"slug-{next(numbers)}"}
    if path.endswith("/diff"):
        options["params"] = {"from": "2021-11-07T02:48:42Z"}
    if members:
        options["json"] = options["json"] | members
    if form == "merged":
        del options["headers"]["If-Match"]
    elif form == "once":
        options["headers"]["Idempotency-Key"] = f"once {next(numbers)}"
    elif form == "merge patch":
        options["headers"]["Content-Type"] = "application/merge-patch+json"
    return service.request(method, path.replace("<id:id>", str(ids.get(noun))), **options)


def everything(service, ids: dict[str, int]) -> list:
    """All rows of a project, and its history."""
    with psycopg.connect(service.database) as connection:
        return [
            connection.execute(
                f"select t::text from {table} as t where {'id' if table == 'projects' else column} = %s order by 1",
                [ids["projects"]],
            ).fetchall()
            for table in FENCED
            for column in ["project" if table == "history.entries" else "project_id"]
        ]


@pytest.mark.parametrize("route", [route for route in ROUTES if "<id:id>" in route])
def test_a_token_of_one_project_reaches_its_own_and_no_other(guarded, own, route):
    before = everything(guarded, guarded.foreign)
    assert call(guarded, own["token"], route, guarded.foreign).status_code == 404
    assert everything(guarded, guarded.foreign) == before
    answer = call(guarded, own["token"], route, own)
    assert answer.status_code in (200, 201, 204), answer.text


@pytest.mark.parametrize("route", [route for route in ROUTES if "<id:id>" in route])
def test_a_token_of_no_project_reaches_all(guarded, own, route):
    answer = call(guarded, guarded.admin, route, own)
    assert answer.status_code in (200, 201, 204), answer.text


@pytest.mark.parametrize("prefer", [{}, {"Prefer": "respond-async"}], ids=["", "async"])
@pytest.mark.parametrize("noun", ["milestones", *PEOPLE])
def test_a_token_of_one_project_undoes_what_it_deleted(guarded, own, noun, prefer):
    """Also the project itself, and what alone named somebody. It waits in any case: it sees no operations."""

    def seen(held: str) -> list:
        headers = {"Authorization": f"Bearer {held}"}
        return [
            {k: v for k, v in answer.json().items() if k not in ("version", "updated_at")}
            for each in ("milestones", *PEOPLE)
            for answer in [guarded.get(f"/{each}/{own[each]}", headers=headers)]
        ]

    headers = {"Authorization": f"Bearer {own['token']}"} | prefer
    before, request_id = seen(own["token"]), f"deleted-{next(numbers)}"
    sent = headers | {"X-Request-Id": request_id, "If-Match": "*"}
    assert guarded.delete(f"/{noun}/{own[noun]}", headers=sent).status_code == 204
    answer = guarded.post("/undo", json={"request_id": request_id}, headers=headers)
    assert answer.status_code == 200, answer.text
    assert seen(own["token"]) == before


@pytest.mark.parametrize("how", ["DELETE", "PATCH"])
@pytest.mark.parametrize("noun", BODIES)
def test_a_token_of_one_project_undoes_nothing_of_others(guarded, own, noun, how):
    """Also where one request changed both, and as a revert: of another project nothing is known to have been done."""
    with psycopg.connect(guarded.database, autocommit=True) as connection:
        other = project(connection)
    admin = {"Authorization": f"Bearer {guarded.admin}", "If-Match": "*"}
    theirs, both = (f"undone-{next(numbers)}" for _ in "12")
    body = {"json": BODIES[noun]} if how == "PATCH" else {}
    changed = guarded.request(how, f"/{noun}/{other[noun]}", headers=admin | {"X-Request-Id": theirs}, **body)
    assert changed.ok, changed.text
    kept = "milestones" if noun != "milestones" else "comments"
    for ids in (own, guarded.foreign):
        sent = admin | {"X-Request-Id": both}
        assert guarded.patch(f"/{kept}/{ids[kept]}", json=BODIES[kept], headers=sent).status_code == 200
    before = everything(guarded, other), everything(guarded, guarded.foreign)
    headers = {"Authorization": f"Bearer {own['token']}"}
    for dry in (True, False):
        refused = guarded.post("/undo", json={"request_id": theirs, "dry_run": dry}, headers=headers)
        assert refused.status_code == 404, refused.text
        undone = guarded.post("/undo", json={"request_id": both, "dry_run": dry}, headers=headers)
        assert [each["obj_id"] for each in undone.json()["undone"]] == [own[kept]]
    for query in ("", "?with=children"):
        sent = headers | {"If-Match": "*"}
        reverted = guarded.post(f"/{noun}/{other[noun]}/revert{query}", json={"to": 1}, headers=sent)
        assert reverted.status_code == 404, reverted.text
    assert (everything(guarded, other), everything(guarded, guarded.foreign)) == before


def test_a_token_of_one_project_knows_of_no_upload(guarded, own):
    headers = {"Authorization": f"Bearer {guarded.admin}", "Content-Type": "text/csv"}
    made = guarded.post("/upload/departments", data=f"{next(numbers)},Loaded\n".encode(), headers=headers).json()
    told = [
        guarded.post("/undo", json={"upload_id": id}, headers={"Authorization": f"Bearer {own['token']}"})
        for id in (made["upload_id"], made["upload_id"] + 1000)
    ]
    assert [answer.status_code for answer in told] == [404, 404]
    one, other = (answer.json() | {"request_id": ""} for answer in told)
    assert one == other


@pytest.mark.parametrize("how", ["deleted", "changed", "reverted"])
def test_whom_others_took_from_a_project_its_token_does_not_bring_back(guarded, own, how):
    story = f"/userstories/{own['userstories']}"
    with psycopg.connect(guarded.database, autocommit=True) as connection:
        for table, column in PEOPLE.items():
            key = "id" if table == "projects" else "project_id"
            connection.execute(f"update {table} set {column} = null where {key} = %s", [own["projects"]])
        add = "insert into users (name, email) select name, %s || email from users limit 1 returning id"
        ann = connection.execute(add, [f"n{next(numbers)}"]).fetchone()[0]
        connection.execute("update userstories set assigned_to = %s where id = %s", [ann, own["userstories"]])
    admin = {"Authorization": f"Bearer {guarded.admin}", "X-Request-Id": f"took-{next(numbers)}", "If-Match": "*"}
    if how != "changed":
        assert guarded.delete(story, headers=admin).status_code == 204
    else:
        assert guarded.patch(story, json={"assigned_to": None}, headers=admin).status_code == 200
    headers = {"Authorization": f"Bearer {own['token']}"}
    if how == "reverted":
        gone = guarded.get(f"{story}/history", headers=headers, params={"sort": "-id"}).json()["items"][0]
        answer = guarded.post(f"{story}/revert", json={"to": gone["version"]}, headers=headers)
    else:
        answer = guarded.post("/undo", json={"request_id": admin["X-Request-Id"]}, headers=headers)
    assert (answer.status_code, [*answer.json().get("errors", [])]) == (422, ["assigned_to"]), answer.text


@pytest.mark.parametrize("media", [JSON, NDJSON])
@pytest.mark.parametrize("path", ["/projects", "/history", "/history?obj_type=task", "/history?action=create"])
def test_lists_and_exports_have_nothing_of_others(guarded, own, path, media):
    def projects(held: str) -> set[int]:
        headers = {"Authorization": f"Bearer {held}", "Accept": media}
        answer = guarded.get(path, headers=headers, params={"sort": "-id"})
        items = answer.json()["items"] if media == JSON else map(json.loads, answer.text.splitlines())
        return {item["id"] if path == "/projects" else item["project"] for item in items}

    assert projects(own["token"]) == {own["projects"]}
    assert projects(guarded.admin) > {own["projects"]}


@pytest.mark.parametrize("query", ["project={foreign}", "obj_type=task&obj_id={task}"])
def test_asking_for_another_projects_history_finds_nothing(guarded, own, query):
    asked = query.format(foreign=guarded.foreign["projects"], task=guarded.foreign["tasks"])
    found = guarded.get(f"/history?{asked}", headers={"Authorization": f"Bearer {own['token']}"})
    assert (found.status_code, found.json()["items"]) == (200, [])
    assert guarded.get(f"/history?{asked}", headers={"Authorization": f"Bearer {guarded.admin}"}).json()["items"]


def test_a_story_cannot_be_given_a_milestone_of_another_project(guarded, own):
    answer = guarded.patch(
        f"/userstories/{own['userstories']}",
        json={"milestone_id": guarded.foreign["milestones"]},
        headers={"Authorization": f"Bearer {own['token']}", "If-Match": "*"},
    )
    assert answer.status_code == 422 and "milestone_id" in answer.json()["errors"]


def test_merging_and_idempotency_work_within_a_project(guarded, own):
    headers = {"Authorization": f"Bearer {own['token']}"}
    merged = guarded.patch(f"/tasks/{own['tasks']}", json={"version": 1, "status": "done"}, headers=headers)
    assert (merged.status_code, merged.json()["subject"], merged.json()["status"]) == (200, "Second", "done")
    made = [
        guarded.post(
            f"/userstories/{own['userstories']}/tasks",
            json={"subject": "Once"},
            headers=headers | {"Idempotency-Key": "once"},
        )
        for _ in range(2)
    ]
    assert made[0].status_code == made[1].status_code == 201 and made[0].json() == made[1].json()
    assert len(guarded.get(f"/userstories/{own['userstories']}/tasks", headers=headers).json()["items"]) == 2


def test_the_tree_names_people_and_keeps_their_addresses(guarded, own):
    tree = guarded.get(f"/projects/{own['projects']}/tree", headers={"Authorization": f"Bearer {own['token']}"}).json()
    assert [person["name"] for person in tree["users"]] == ["Row"]
    assert guarded.get("/users", headers={"Authorization": f"Bearer {own['token']}"}).status_code == 403


def test_history_and_the_connection_are_as_before(guarded, own):
    """Whatever a connection was used for last: the next request is not held to a project, nor freed of one."""
    for _ in range(30):
        mine = guarded.get("/projects", headers={"Authorization": f"Bearer {own['token']}"}).json()["items"]
        assert [item["id"] for item in mine] == [own["projects"]]
        admin = {"Authorization": f"Bearer {guarded.admin}"}
        assert len(guarded.get("/projects", headers=admin).json()["items"]) > 1
        # All of them come by a connection that others had.
        assert len(guarded.get("/projects", headers=admin | {"Accept": NDJSON}).text.splitlines()) > 1
        call(guarded, own["token"], "PATCH /tasks/<id:id>", guarded.foreign)


@contextmanager
def channel(service, held: str, query: str = ""):
    url = service.url.replace("http", "ws") + "/ws/events" + query
    with connect(url, additional_headers={"Authorization": f"Bearer {held}"}) as ws:
        yield ws, json.loads(ws.recv(5))["cursor"]


def test_a_socket_is_told_of_its_project_only(guarded, own):
    with channel(guarded, own["token"]) as (ws, start):
        call(guarded, guarded.admin, "PATCH /comments/<id:id>", own)
        with psycopg.connect(guarded.database, autocommit=True) as connection:
            connection.execute("update tasks set status = status || '.' where id = %s", [guarded.foreign["tasks"]])
            connection.execute("update tasks set status = status || '.' where id = %s", [own["tasks"]])
        frames = [json.loads(ws.recv(5)) for _ in range(2)]
        assert [(frame["project"], frame["object"]["obj_type"]) for frame in frames] == [
            (own["projects"], "comment"),
            (own["projects"], "task"),
        ]
        with pytest.raises(TimeoutError):
            ws.recv(0.3)
    with channel(guarded, own["token"], f"?since={start}") as (ws, _):
        assert [json.loads(ws.recv(5))["id"] for _ in range(2)] == [frame["id"] for frame in frames]
        with pytest.raises(TimeoutError):
            ws.recv(0.3)
    with channel(guarded, own["token"], f"?project={guarded.foreign['projects']}") as (ws, _):
        with psycopg.connect(guarded.database, autocommit=True) as connection:
            connection.execute("update tasks set status = status || '.'")
        with pytest.raises(TimeoutError):
            ws.recv(0.5)


def heard(frames) -> list[int]:
    """Of which projects the frames of changes are, until the last."""
    found = []
    for frame in frames:
        if frame and "object" in frame:
            found.append(frame["project"])
            if frame.get("diff", {}).get("name", [""])[-1] == "The last":
                return found
    raise AssertionError(f"it ended after {found}")


def test_whatever_is_changed_a_token_hears_of_its_project_alone(database):
    """Rows of each kind, loads and emptied tables: live and missed, by the channel and by HTTP."""
    with psycopg.connect(database, autocommit=True) as connection, serve(database) as service, ExitStack() as ends:
        create_all(service)
        own = service.post("/projects", json={"name": "Own"}).json()["id"]
        held, admin = make_token(connection, project=own), make_token(connection)
        wait_for(lambda: service.get("/users").status_code == 401)
        ws, since = ends.enter_context(channel(service, held))
        live = {"the channel": map(json.loads, ws)} | {
            media: told_by_http(service, media, held) for media in (EVENTS, LINES)
        }
        for media in (EVENTS, LINES):
            assert any(frame.get("type") == "subscribed" for frame in live[media])
        for noun, change in CHANGES.items():
            for field, value in change.items():
                connection.execute(f"update {noun} set {field} = %s", [value])
        headers = {"Authorization": f"Bearer {admin}", "Content-Type": "text/csv"}
        assert service.post("/upload/departments", data=b"9,Loaded\n", headers=headers).status_code == 200
        connection.execute("truncate audios, events, departments, jobs cascade")
        connection.execute("update projects set name = 'The last' where id = %s", [own])
        assert {way: heard(frames) for way, frames in live.items()} == {way: [own, own] for way in live}
        for media in MEDIA:
            assert heard(told_by_http(service, media, held, since=since)) == [own, own], media
        with channel(service, held, f"?since={since}") as (ws, _):
            assert heard(map(json.loads, ws)) == [own, own]


# People ---------------------------------------------------------------------------------------------------------------


class People:
    """Users, by how they stand to a project, and the version of each of its objects that named them."""

    def __init__(self, connection, own: dict[str, int], foreign: dict[str, int]) -> None:
        self.connection, self.own = connection, own
        self.colleague, self.former, self.stranger, self.nobody = (self.somebody() for _ in range(4))
        connection.execute(
            "insert into comments (project_id, userstory_id, text, author_id) values (%s, %s, 'Of it', %s)",
            [own["projects"], own["userstories"], self.colleague],
        )
        connection.execute("update tasks set assigned_to = %s where id = %s", [self.stranger, foreign["tasks"]])
        self.versions = {
            (noun, person): self.name(noun, person)
            for noun in PEOPLE
            for person in (self.colleague, self.former, self.stranger, self.nobody)
        }
        for noun in PEOPLE:
            self.name(noun, None)
        connection.execute("delete from users where id = %s", [self.nobody])

    def somebody(self) -> int:
        values = [f"somebody{next(numbers)}@security.test"]
        made = self.connection.execute("insert into users (email, name) values (%s, 'Some') returning id", values)
        return made.fetchone()[0]

    def name(self, noun: str, person: int | None) -> int:
        """Name a person in the object of a noun, as somebody who may; the version that does."""
        statement = f"update {noun} set {PEOPLE[noun]} = %s where id = %s returning version"
        return self.connection.execute(statement, [person, self.own[noun]]).fetchone()[0]

    def outdated(self, noun: str) -> int:
        """The version of the object of a noun, over which somebody then saves another."""
        statement = f"update {noun} set created_at = created_at + '1 s' where id = %s returning version - 1"
        return self.connection.execute(statement, [self.own[noun]]).fetchone()[0]


def named(connection, ids: dict[str, int]) -> list:
    """Who is named where in a project."""
    return [
        connection.execute(
            f"select id, {field} from {noun} where {column} = %s order by id", [ids["projects"]]
        ).fetchall()
        for noun, field in PEOPLE.items()
        for column in ["id" if noun == "projects" else "project_id"]
    ]


@pytest.fixture
def people(guarded, own):
    with psycopg.connect(guarded.database, autocommit=True) as connection:
        yield People(connection, own, guarded.foreign)


@pytest.mark.parametrize(("route", "form", "noun"), NAMING)
def test_a_token_of_one_project_names_only_its_people(guarded, own, people, route, form, noun):
    """Whoever is not, or no longer, of the project is refused just as somebody who does not exist."""

    def name(held: str, person: int):
        member = {"to": people.versions[noun, person]} if route.endswith("/revert") else {PEOPLE[noun]: person}
        merging = {"version": people.outdated(noun)} if form == "merged" else {}
        return call(guarded, held, route, own, form, **member, **merging)

    told, before = [], named(people.connection, own)
    for person in (people.nobody, people.stranger, people.former):
        refused = name(own["token"], person)
        problem = refused.json() | {"request_id": ""}
        for conflict in problem.get("conflicts", []):
            assert conflict.pop("yours") == person
        told.append((refused.status_code, problem))
    assert named(people.connection, own) == before
    assert told == [told[0]] * 3
    status, problem = told[0]
    if route.endswith("/revert"):
        (conflict,) = problem["conflicts"]
        assert (status, conflict["field"], conflict["theirs"]) == (409, PEOPLE[noun], None)
    else:
        assert (status, problem["errors"]) == (422, {PEOPLE[noun]: ["There is no such user."]})
    assert name(own["token"], people.colleague).ok
    assert name(guarded.admin, people.stranger).ok
    if not route.endswith("/revert"):
        assert name(own["token"], people.stranger).ok  # who was brought in


def test_whoever_is_named_anywhere_in_a_project_is_of_it(guarded, own, people):
    """Also where a new table names people: then PEOPLE lacks it."""
    named = people.connection.execute("""
        select c.relname, a.attname
        from pg_constraint as k
        join pg_class as c on c.oid = k.conrelid and c.relforcerowsecurity
        join pg_attribute as a on a.attrelid = c.oid and a.attnum = any (k.conkey)
        where k.confrelid = 'users'::regclass
    """).fetchall()
    assert dict(named) == PEOPLE
    for noun in PEOPLE:
        person = people.somebody()
        people.name(noun, person)
        for other in PEOPLE.keys() - {noun}:
            field = PEOPLE[other]
            with (
                as_role(guarded, "rowhouse_project", own["projects"]) as connection,
                connection.transaction() as undone,
            ):
                statement = f"update {other} set {field} = %s where id = %s"
                assert connection.execute(statement, [person, own[other]]).rowcount == 1
                raise psycopg.Rollback(undone)
        tree = guarded.get(f"/projects/{own['projects']}/tree", headers={"Authorization": f"Bearer {own['token']}"})
        assert person in [user["id"] for user in tree.json()["users"]]


def test_one_of_many_who_is_not_of_the_project_keeps_all_out(guarded, own, people):
    with as_role(guarded, "rowhouse_project", own["projects"]) as connection:
        for named in ([people.colleague, people.stranger], [people.stranger, people.stranger]):
            with pytest.raises(errors.ForeignKeyViolation) as refused:
                connection.execute(
                    "insert into tasks (project_id, userstory_id, subject, assigned_to)"
                    " select %s, %s, 'Both', unnest(%s::bigint[])",
                    [own["projects"], own["userstories"], named],
                )
            assert refused.value.diag.constraint_name == "tasks_assigned_to_fkey"


def test_who_waits_for_another_to_bring_somebody_in_keeps_them(guarded, own, people):
    """A change of something else is made over the row as it is by then."""
    with psycopg.connect(guarded.database) as bringing, ThreadPoolExecutor() as pool:
        statement = "update tasks set assigned_to = %s where id = %s"
        bringing.execute(statement, [people.stranger, own["tasks"]])
        waiting = pool.submit(call, guarded, own["token"], "PATCH /tasks/<id:id>", own)
        asked = "select 1 from pg_stat_activity where wait_event_type = 'Lock' and query like '%tasks.change%'"
        wait_for(lambda: people.connection.execute(asked).fetchall())
        bringing.commit()
        assert (waiting.result().status_code, waiting.result().json()["assigned_to"]) == (200, people.stranger)


# In the database ------------------------------------------------------------------------------------------------------


@contextmanager
def as_role(service, role: str, project: int | str = ""):
    """A connection that works as a role, within a project if one is named."""
    options = f"-c role={role} -c app.project={project}"
    with psycopg.connect(service.database, autocommit=True, options=options) as connection:
        yield connection


@pytest.mark.parametrize("table", FENCED)
def test_a_forgotten_where_shows_nothing_of_others(guarded, own, table):
    column = {"projects": "id", "history.entries": "project"}.get(table, "project_id")
    with as_role(guarded, "rowhouse_project", own["projects"]) as connection:
        assert connection.execute(f"select distinct {column} from {table}").fetchall() == [(own["projects"],)]
    with as_role(guarded, "rowhouse_project") as connection:
        assert connection.execute(f"select count(*) from {table}").fetchone() == (0,)
    with as_role(guarded, "rowhouse_service") as connection:
        assert connection.execute(f"select count(distinct {column}) from {table}").fetchone()[0] > 1


@pytest.mark.parametrize("table", [table for table in FENCED if table != "history.entries"])
def test_a_forgotten_where_changes_nothing_of_others(guarded, own, table):
    before = everything(guarded, guarded.foreign)
    with as_role(guarded, "rowhouse_project", own["projects"]) as connection:
        column = "last_ref = last_ref + 1" if table == "project_refs" else "created_at = now()"
        if table != "project_refs":
            assert connection.execute(f"update {table} set {column}").rowcount == 1
        if table not in ("projects", "project_refs"):
            assert connection.execute(f"delete from {table}").rowcount == 1
    assert everything(guarded, guarded.foreign) == before


@pytest.mark.parametrize(
    "statement",
    [
        "insert into milestones (project_id, name) values ({foreign}, 'Mine')",
        "update milestones set project_id = {foreign}",
        "insert into userstories (project_id, subject) values ({foreign}, 'Mine')",
        "insert into projects (name) values ('Mine')",
        "insert into projects (id, name) overriding system value values ({own} + 1000, 'Mine')",
        "select email from users",
        "update users set name = 'Mine'",
        "select sha256 from tokens",
        "select id from employees",
        "select id from events",
        "select id from history.entries_default",
        "delete from history.entries",
        "truncate tasks",
        "alter table tasks disable row level security",
        "drop policy one_project on tasks",
    ],
)
def test_the_role_of_a_project_cannot(guarded, own, statement):
    as_own = as_role(guarded, "rowhouse_project", own["projects"])
    with as_own as connection, pytest.raises(errors.InsufficientPrivilege):
        connection.execute(statement.format(foreign=guarded.foreign["projects"], own=own["projects"]))


def test_kept_answers_are_for_whom_they_were_given(guarded):
    with psycopg.connect(guarded.database, autocommit=True) as connection:
        for actor in ("somebody", "somebody else"):
            connection.execute("insert into first_answers values (%s, 'key', '', 200, '{}', '', now())", [actor])
            connection.execute("insert into answer_counts values (%s, now(), 0, 1, 1)", [actor])
    with as_role(guarded, "rowhouse_project", 1) as connection:
        connection.execute("set app.actor = 'somebody'")
        for table in ("first_answers", "answer_counts"):
            assert connection.execute(f"select actor from {table}").fetchall() == [("somebody",)]


def test_the_role_of_a_project_may_use_what_is_fenced_and_little_else(database):
    """Each column of each table and view that it may read or write."""
    may: dict[str, set[str]] = {}
    with psycopg.connect(database) as connection:
        found = connection.execute("""
            select c.oid::regclass::text, a.attname, p.privilege
            from pg_class as c
            join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
            cross join unnest('{select,insert,update,delete,truncate,references,trigger}'::text[]) as p (privilege)
            where c.relnamespace in ('public'::regnamespace, 'history'::regnamespace, 'past'::regnamespace)
                and c.relkind in ('r', 'p', 'v', 'm')
                -- A view of the past shows who may read its table, unless it shows it to all who may see the view.
                and (
                    c.relkind <> 'v'
                    or not c.reloptions && '{security_invoker=t,security_invoker=true}'
                    or has_any_column_privilege('rowhouse_project', to_regclass('public.' || c.relname), 'select')
                )
                and case
                    when p.privilege in ('delete', 'truncate', 'trigger')
                    then has_table_privilege('rowhouse_project', c.oid, p.privilege)
                    else has_column_privilege('rowhouse_project', c.oid, a.attnum, p.privilege)
                end
        """).fetchall()
    for table, column, privilege in found:
        may.setdefault(table, set()).add(f"{column} {privilege}" if table.endswith("users") else privilege)
    everybody = {f"{column} select" for column in ("id", "name", "image")}
    past = {f"past.{table}" for table in FENCED if table not in ("project_refs", "history.entries")}
    read = {"history.entries", "history.tracked", "history.horizon", "history.closings", "history.late_entries", *past}
    written = {*FENCED, "first_answers", "answer_counts"} - read
    assert may == (
        {"users": everybody, "past.users": everybody}
        | {table: {"select"} for table in read}
        | {table: {"select", "insert", "update", "delete"} for table in written}
    )


def test_every_table_of_projects_is_fenced_even_for_its_owner(database):
    with psycopg.connect(database) as connection:
        found = connection.execute("""
            select c.oid::regclass::text
            from pg_class as c
            where c.relnamespace in ('public'::regnamespace, 'history'::regnamespace)
                and c.relkind in ('r', 'p')
                and c.relrowsecurity
                and c.relforcerowsecurity
                and (
                    select string_agg(p.polname, ' ' order by p.polname) from pg_policy as p where p.polrelid = c.oid
                ) = 'everything one_project'
        """).fetchall()
        holding = connection.execute("""
            select a.attrelid::regclass::text
            from pg_attribute as a
            join pg_class as c on c.oid = a.attrelid and c.relkind in ('r', 'p') and not c.relispartition
            where a.attname in ('project_id', 'project')
                and c.relnamespace in ('public'::regnamespace, 'history'::regnamespace)
        """).fetchall()
    assert {table for (table,) in found} == {*FENCED, "first_answers", "answer_counts"}
    # What a token reaches, and which column tells the project, is nothing of a project.
    assert {table for (table,) in holding} - {"tokens", "history.tracked"} <= {*FENCED}


def test_who_looks_reads_all_but_secrets_and_who_backs_up_reads_all(guarded):
    with as_role(guarded, "rowhouse_readonly") as connection:
        assert connection.execute("select count(distinct project_id) from tasks").fetchone()[0] > 1
        for statement in ("select 1 from tokens", "select 1 from first_answers", "update users set name = 'x'"):
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(statement)
    with as_role(guarded, "rowhouse_backup") as connection:
        assert connection.execute("select count(*) from tokens").fetchone()[0] > 1
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("update users set name = 'x'")


@pytest.mark.thorough
def test_an_owner_who_is_no_superuser_serves_all_the_same(server):
    """Forced policies hold the owner, too: history writes itself, foreign keys cascade, and a dump has every row."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("create role rowhouse_owner login createrole")
        # What those who made the roles before us would have granted.
        for (role,) in connection.execute("select rolname from pg_roles where rolname like 'rowhouse\\_%'").fetchall():
            if role != "rowhouse_owner":
                connection.execute(f"grant {role} to rowhouse_owner with admin true, inherit true, set true")
        connection.execute("create database owned owner rowhouse_owner template template0 encoding 'UTF8'")
    url = conninfo.make_conninfo(server, dbname="owned", user="rowhouse_owner")
    try:
        with serve(url) as service:
            made = service.post("/projects", json={"name": "Owned"}).json()["id"]
            story = service.post(f"/projects/{made}/userstories", json={"subject": "Owned"})
            assert story.status_code == 201, story.text
            assert len(service.get(f"/projects/{made}/history").json()["items"]) == 1
            command = [tool("pg_dump", url), "--enable-row-security", "--role=rowhouse_backup", url]
            dump = subprocess.run(command, capture_output=True, text=True)
            assert dump.returncode == 0, dump.stderr
            assert re.search(rf"COPY public.projects .*\n{made}\t", dump.stdout)
            with psycopg.connect(url, autocommit=True) as owner:
                # As in container/compose.yaml: a login that owns nothing.
                owner.execute("create role rowhouse_login login in role rowhouse_service, rowhouse_project")
                held = {"Authorization": f"Bearer {make_token(owner, project=made)}"}
            with serve(conninfo.make_conninfo(url, user="rowhouse_login")) as lesser:
                assert lesser.get(f"/projects/{made}", headers=held).status_code == 200
                assert lesser.post(story.headers["Location"] + "/tasks", json={"subject": "x"}, headers=held).ok
                assert lesser.get("/users", headers=held).status_code == 403
            with psycopg.connect(url, autocommit=True) as owner:
                owner.execute("delete from tokens")
            # It remembers for a moment that there was one.
            wait_for(lambda: service.get(f"/projects/{made}").status_code == 200)
            assert service.delete(f"/projects/{made}", headers={"If-Match": "*"}).status_code == 204
            assert service.get(story.headers["Location"]).status_code == 404
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute("drop database owned with (force)")
            connection.execute("drop role if exists rowhouse_login")
            connection.execute("drop role rowhouse_owner")
