"""Many writers at one object: what does not overlap is kept, what does is refused with reasons, nothing is lost."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count, groupby, product

import psycopg
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app import create_app
from db.pool import connect
from tests.conftest import serve, wait_for
from tests.test_feed import execute
from tests.test_users import person
from tests.test_versions import HIRING, NOUNS

numbers = count(5_000_000)

JSON = {"Content-Type": "application/json"}

FIELDS = ("subject", "description", "status", "points", "tags")
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "subject": st.sampled_from(["a", "b", "c"]),
        "description": st.sampled_from([None, "", "long"]),
        "status": st.sampled_from(["new", "ready", "done"]),
        "points": st.sampled_from([None, 0, 1, 2.5]),
        "tags": st.sampled_from([[], ["x"], ["x", "y"]]),
    },
)


@pytest.fixture
def story(service, unique):
    """A new user story, as it was answered."""
    project = service.post("/projects", json={"name": unique("project")}).json()
    body = {"subject": "Read", "description": "As it was", "status": "new", "points": 1, "tags": []}
    return service.post(f"/projects/{project['id']}/userstories", json=body).json()


def entries(service, id):
    """What history says of a story: [(action, version, changed fields)] in order."""
    with connect(service.database) as connection:
        return connection.execute(
            "select action, version, array(select jsonb_object_keys(history.diff(old_obj, new_obj)) order by 1)"
            " from history.entries where obj_type = 'userstory' and obj_id = $1 order by id",
            [str(id)],
        ).fetchall()


def test_fields_that_nobody_else_changed_are_merged(service, story):
    path = f"/userstories/{story['id']}"
    assert service.patch(path, json={"subject": "Mine", "version": 1}).status_code == 200
    merged = service.patch(path, json={"status": "ready", "version": 1})
    assert merged.status_code == 200
    assert (merged.json()["subject"], merged.json()["status"], merged.json()["version"]) == ("Mine", "ready", 3)
    assert merged.headers["ETag"] == '"3"'


def test_a_field_changed_on_both_sides_is_a_conflict_and_nothing_is_applied(service, story):
    path = f"/userstories/{story['id']}"
    service.patch(path, json={"subject": "Theirs", "version": 1}, headers={"X-Request-Id": "theirs"})
    refused = service.patch(path, json={"subject": "Mine", "status": "ready", "version": 1})
    assert refused.status_code == 409
    problem = refused.json()
    now = service.get(path).json()
    assert problem["current"] == now
    assert problem["base_version"] == 1
    assert problem["conflicts"] == [
        {
            "field": "subject",
            "base": "Read",
            "yours": "Mine",
            "theirs": "Theirs",
            "changed_by": "anonymous",
            "changed_at": now["updated_at"],
        }
    ]
    assert (now["status"], now["version"]) == ("new", 2)


def test_a_field_sent_as_it_was_read_does_not_take_back_what_others_wrote(service, story):
    """A client that sends the whole object back changed only what differs from what it read."""
    path = f"/userstories/{story['id']}"
    service.patch(path, json={"subject": "Theirs", "version": 1})
    merged = service.patch(path, json={"subject": "Read", "status": "ready", "version": 1})
    assert merged.status_code == 200
    assert (merged.json()["subject"], merged.json()["status"]) == ("Theirs", "ready")


def test_a_change_sent_twice_is_made_once(service, story):
    """The answer to the first was lost: the second finds its own values there, and no conflict."""
    path = f"/userstories/{story['id']}"
    body = {"subject": "Mine", "version": 1}
    first, second = service.patch(path, json=body), service.patch(path, json=body)
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.content == second.content
    assert [version for _, version, _ in entries(service, story["id"])] == [1, 2]


def test_a_field_changed_there_and_back_was_changed(service, story):
    path = f"/userstories/{story['id']}"
    service.patch(path, json={"status": "ready", "version": 1})
    service.patch(path, json={"status": "new", "version": 2})
    refused = service.patch(path, json={"status": "done", "version": 1})
    assert refused.status_code == 409
    assert [conflict["field"] for conflict in refused.json()["conflicts"]] == ["status"]


SPELLED = {
    "email": [
        ("ann{}@example.org", "ANN{}@Example.ORG"),
        ("ann{}@b\u00fccher.example", "Ann{}@xn--bcher-kva.example"),
        ("stra\u00dfe{}@example.org", "STRASSE{}@example.org"),
        ("caf\u00e9{}@example.org", "cafe\u0301{}@example.org"),
    ],
    "image": [
        ("https://example.org/{}", "HTTPS://Example.ORG/{}"),
        ("http://u:P@example.org:80/{}?Q", "http://u:P@EXAMPLE.org:80/{}?Q"),
        ("http://b\u00fccher.example/{}", "http://xn--bcher-kva.example/{}"),
        ("http://[2001:db8::ab]/{}", "http://[2001:DB8::AB]/{}"),
        ("http://example.org?{}#A", "http://Example.org?{}#A"),
    ],
}
"""Fields of a user of which two spellings are one value."""

OTHER = {"email": "other{}@example.com", "image": "http://example.com/other/{}"}

DISTINCT = {
    "image": [
        ("https://example.org/{}A", "https://example.org/{}a"),
        ("http://U@example.org/{}", "http://u@example.org/{}"),
        ("http://example.org/{}", "https://example.org/{}"),
    ],
    "address": [("Caf\u00e9 {}", "Cafe\u0301 {}"), ("Road {}", "road {}"), ("Road {}", " Road {}")],
    "name": [("Ann {}", "ann {}")],
}
"""Fields of which two spellings are two values."""


def two_spellings(service, unique, field, pair):
    """A user with the first spelling of a field; both of them, and another value."""
    mark = unique("s")
    one, two, other = (each.format(mark) for each in (*pair, OTHER.get(field, "Other")))
    made = service.post("/users", json=person(unique("merged"), **{field: one}))
    assert made.status_code == 201, made.text
    return f"/users/{made.json()['id']}", one, two, other


@pytest.mark.parametrize(("field", "pair"), [(field, pair) for field in SPELLED for pair in SPELLED[field]])
def test_a_field_that_is_only_spelled_otherwise_is_as_others_saved_it(service, unique, field, pair):
    """Sent back as it was, in another spelling, beside what somebody else has changed it to."""
    path, _, two, other = two_spellings(service, unique, field, pair)
    assert service.patch(path, json={field: other, "version": 1}).status_code == 200
    merged = service.patch(path, json={field: two, "text": "Mine", "version": 1})
    assert (merged.status_code, merged.json().get(field), merged.json().get("text")) == (200, other, "Mine")


@pytest.mark.parametrize(("field", "pair"), [(field, pair) for field in SPELLED for pair in SPELLED[field]])
def test_two_who_save_one_value_in_two_spellings_agree(service, unique, field, pair):
    path, _, _, other = two_spellings(service, unique, field, pair)
    assert service.patch(path, json={field: other, "version": 1}).status_code == 200
    assert service.patch(path, json={field: pair[0].format(path[7:]), "version": 2}).status_code == 200
    again = service.patch(path, json={field: pair[1].format(path[7:]), "text": "Mine", "version": 2})
    assert (again.status_code, again.json().get(field)) == (200, pair[0].format(path[7:]))
    third = service.patch(path, json={field: OTHER[field].format("3"), "version": 2})
    assert [conflict["field"] for conflict in third.json()["conflicts"]] == [field]


@pytest.mark.parametrize(("field", "pair"), [(field, pair) for field in SPELLED for pair in SPELLED[field]])
def test_another_spelling_is_saved_where_nobody_else_changed_the_field(service, unique, field, pair):
    path, _, two, _ = two_spellings(service, unique, field, pair)
    assert service.patch(path, json={"text": "Theirs", "version": 1}).status_code == 200
    merged = service.patch(path, json={field: two, "version": 1})
    assert (merged.status_code, merged.json()[field], merged.json()["text"]) == (200, two, "Theirs")


@pytest.mark.parametrize(("field", "pair"), [(field, pair) for field in DISTINCT for pair in DISTINCT[field]])
def test_what_is_another_value_is_a_conflict_however_alike(service, unique, field, pair):
    path, _, two, other = two_spellings(service, unique, field, pair)
    assert service.patch(path, json={field: other, "version": 1}).status_code == 200
    refused = service.patch(path, json={field: two, "version": 1})
    assert refused.status_code == 409
    assert [conflict["field"] for conflict in refused.json()["conflicts"]] == [field]


def test_a_version_that_never_was_merges_with_nothing(service, story):
    refused = service.patch(f"/userstories/{story['id']}", json={"status": "done", "version": 9})
    assert refused.status_code == 409
    assert refused.json()["base_version"] == 9
    same = service.patch(f"/userstories/{story['id']}", json={"status": story["status"], "version": 9})
    assert (same.status_code, same.json()["conflicts"]) == (409, [])


def test_if_match_is_strict_where_a_merge_would_do(service, story):
    path = f"/userstories/{story['id']}"
    service.patch(path, json={"subject": "Theirs", "version": 1})
    refused = service.patch(path, json={"status": "ready"}, headers={"If-Match": '"1"'})
    assert refused.status_code == 412
    assert refused.json()["conflicts"] == []
    assert service.get(path).json()["version"] == 2


def test_what_psql_changes_is_merged_with_as_well(service, story):
    with connect(service.database) as connection:
        connection.execute("update userstories set subject = 'psql was here' where id = $1", [story["id"]])
    path = f"/userstories/{story['id']}"
    assert service.patch(path, json={"status": "ready", "version": 1}).json()["subject"] == "psql was here"
    refused = service.patch(path, json={"subject": "Mine", "version": 1})
    assert refused.json()["conflicts"][0]["changed_by"].startswith("postgres")


def test_of_64_clients_nobody_loses_a_change(service, story):
    """Each patches the same story 20 times from the version it last read; every second one a field of its own."""
    path = f"/userstories/{story['id']}"

    def client(number):
        saved, version = [], 1
        for turn in range(20):
            field = FIELDS[number % 3]
            answer = service.patch(path, json={field: f"{number} {turn}", "version": version})
            assert answer.status_code in (200, 409), answer.text
            if answer.status_code == 200:
                saved.append((answer.json()["version"], field, f"{number} {turn}"))
                version = answer.json()["version"]
            else:
                version = answer.json()["current"]["version"]
        return saved

    with ThreadPoolExecutor(64) as pool:
        saved = sorted(each for made in pool.map(client, range(64)) for each in made)
    versions = [version for version, *_ in saved]
    now = service.get(path).json()
    assert versions == [*range(2, now["version"] + 1)], "every 2xx is one version"
    assert entries(service, story["id"])[1:] == [("update", version, [field]) for version, field, _ in saved]
    last = {field: value for _, field, value in saved}
    assert {field: now[field] for field in last} == last


def version_of(saved):
    return saved[0]["version"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(1, 4), VALUES), min_size=2, max_size=12))
def test_any_interleaving_of_merges_equals_a_serial_order(service, story, changes):
    """Many at once, each from some version: what was saved, in the order of its versions, explains the object."""
    project = story["project_id"]
    fresh = {name: story[name] for name in FIELDS}
    made = service.post(f"/projects/{project}/userstories", json=fresh).json()
    path = f"/userstories/{made['id']}"
    states = {1: made}
    for status in ("ready", "done", "new"):
        now = service.patch(path, json={"status": status, "version": max(states)}).json()
        states[now["version"]] = now

    def patch(change):
        version, body = change
        return service.patch(path, json=body | {"version": version})

    with ThreadPoolExecutor(6) as pool:
        answers = [*pool.map(patch, changes)]
    saved = [
        (answer.json(), {name: value for name, value in body.items() if value != states[version][name]})
        for answer, (version, body) in zip(answers, changes, strict=True)
        if answer.status_code == 200
    ]
    assert {answer.status_code for answer in answers} <= {200, 409}
    before = states[4]
    for version, group in groupby(sorted(saved, key=version_of), version_of):
        made_so = [*group]
        after = made_so[0][0]
        if version != before["version"]:
            assert version == before["version"] + 1
            explained = [{name: before[name] for name in FIELDS} | mine for _, mine in made_so]
            assert {name: after[name] for name in FIELDS} in explained
        for same, mine in made_so:
            assert same == after
            assert {name: after[name] for name in mine} == mine
        before = after
    assert service.get(path).json() == before
    assert [version for _, version, _ in entries(service, made["id"])] == [*range(1, before["version"] + 1)]


# What is meant -------------------------------------------------------------------------------------------------------


def values(service, unique):
    """Of each noun, its members: as the object is made, and as somebody else changes it."""
    user = service.post("/users", json=person(unique("ann"))).json()["id"]
    project = service.post("/projects", json={"name": unique("project")}).json()["id"]
    milestone = service.post(f"/projects/{project}/milestones", json={"name": "First"}).json()["id"]
    story = service.post(f"/projects/{project}/userstories", json={"subject": "Read"}).json()["id"]
    first, second = next(numbers), next(numbers)
    for id in (first, second):
        service.post("/departments", json={"id": id, "department": "d"})
        service.post("/jobs", json={"id": id, "job": "j"})
    named = {"name": ("Röw", "Other"), "description": (None, "Other"), "owner_id": (None, user)}
    return {
        "users": (
            "/users",
            {
                "email": (f"{unique('x')}@b.org", f"{unique('y')}@b.org"),
                "name": ("Änn", "Bo"),
                "address": ("1 Main Street", "2 Main Street"),
                "image": ("http://a.org/x", "http://b.org/x"),
                "text": (None, "Said"),
            },
        ),
        "audios": (
            "/audios",
            {
                "session_id": (next(numbers), next(numbers)),
                "ticks": ([-50.25, -10, *[-96.33] * 13], [-50] * 15),
                "selected_tick": (0, 14),
                "step_count": (0, 9),
            },
        ),
        "projects": ("/projects", named | {"slug": (unique("x"), unique("y"))}),
        "milestones": (
            f"/projects/{project}/milestones",
            {
                "name": ("First", "Second"),
                "starts_on": ("2021-11-01", None),
                "ends_on": ("2021-11-30", "2021-12-01"),
                "closed": (False, True),
            },
        ),
        "userstories": (
            f"/projects/{project}/userstories",
            {
                "milestone_id": (None, milestone),
                "subject": ("Read", "Write"),
                "description": ("", None),
                "status": ("new", "done"),
                "assigned_to": (user, None),
                "tags": (["ä", "b"], []),
                "points": (2.5, 3),
            },
        ),
        "tasks": (
            f"/userstories/{story}/tasks",
            {"subject": ("Do", "Undo"), "status": ("new", "done"), "assigned_to": (None, user)},
        ),
        "comments": (f"/userstories/{story}/comments", {"author_id": (None, user), "text": ("Said", "Said again")}),
        "departments": ("/departments", {"department": ("Old", "New")}),
        "jobs": ("/jobs", {"job": ("Old", "New")}),
        "employees": (
            "/employees",
            {
                "name": ("Ann", "Bo"),
                "datetime": ("2021-11-07T02:48:42.5Z", "2021-11-07T02:48:42.500001Z"),
                "department_id": (first, second),
                "job_id": (first, second),
            },
        ),
        "events": (
            "/events",
            {"user_id": ("ann", "bo"), "description": ("Told", "Not told"), "status": ("NotProcessed", "Failed")},
        ),
    }


SPELLINGS = {
    '"2021-11-07T02:48:42.5Z"': [
        '"2021-11-07T02:48:42.500Z"',
        '"2021-11-07T02:48:42.500000Z"',
        '"2021-11-07T03:48:42.50+01:00"',
        '"2021-11-06T21:18:42.5-05:30"',
        '"2021-11-07T02:48:42.5"',
    ],
    '"2021-11-07T02:48:42.500001Z"': ['"2021-11-07T03:48:42.500001+01:00"', '"2021-11-07T02:48:42.500001"'],
    '"2021-11-01"': ['"20211101"', '"2021-W44-1"'],
    '"2021-11-30"': ['"20211130"', '"2021-W48-2"'],
    "2.5": ["2.50", "25e-1", "0.25E+1"],
}

WHOLE_POINTS = {"3": ["3.0", "3e0"]}
"""Spellings for a member that takes fractions: an id that happens to be 3 has only one."""


CHANGED = {
    noun: {*view.contract.body.load_fields}
    for name, view in create_app().view_functions.items()
    for noun in NOUNS
    if name.endswith(f".change_{noun}") or name == f"{noun}.change"
}
"""The members of each noun that a PATCH may change."""


def spelled(name, value):
    """JSON texts that mean a value of this member."""
    plain = json.dumps(value, ensure_ascii=False)
    found = {plain, json.dumps(value), *SPELLINGS.get(plain, [])}
    if name == "points":
        found |= {*WHOLE_POINTS.get(plain, [])}
    if isinstance(value, list) and -10 in value:
        found |= {
            plain.replace("-10,", "-1e1,"),
            plain.replace("-50.25,", "-5025E-2,"),
            plain.replace("-10,", "-10.0,"),
        }
    return sorted(found)


COMMON = ("audios", "employees", "milestones", "userstories")
"""Nouns with members that can be spelled in more than one way."""


@pytest.mark.parametrize(
    "noun", [noun if noun in COMMON else pytest.param(noun, marks=pytest.mark.thorough) for noun in NOUNS]
)
def test_values_are_compared_by_what_they_mean(service, unique, noun):
    """Every member in every spelling: sent as it was read it is no change, over the same version or another's."""
    collection, members = values(service, unique)[noun]
    body = {name: first for name, (first, _) in members.items() if (noun, name) != ("events", "status")}
    given = {"id": next(numbers)} if noun in HIRING else {}
    made = service.post(collection, json=body | given)
    assert made.status_code == 201, made.text
    path, version = made.headers["Location"], 1
    assert members.keys() == CHANGED[noun], "a new member is to be walked, too"

    def patch(version, name, text):
        return service.patch(path, data=f'{{"version": {version}, "{name}": {text}}}', headers=JSON)

    for name, (first, second) in members.items():
        assert patch(version, name, json.dumps(second)).json()["version"] == version + 1
        for text in spelled(name, first) + spelled(name, second):
            kept = patch(version, name, text)
            assert (kept.status_code, kept.json().get("version")) == (200, version + 1), (name, text, kept.text)
            assert kept.json()[name] == second, (name, text)
        version = patch(version + 1, name, json.dumps(first)).json()["version"]
        for text in spelled(name, first):
            same = patch(version, name, text)
            assert (same.status_code, same.json()["version"]) == (200, version), (name, text, same.text)
            others = ", ".join(f'"{key}": {json.dumps(value)}' for key, (value, _) in members.items() if key != name)
            whole = f'{{"version": {version}, "{name}": {text}{", " if others else ""}{others}}}'
            same = service.put(path, data=whole, headers=JSON)
            assert (same.status_code, same.json()["version"]) == (200, version), (name, text, same.text)


def test_a_text_is_its_letters(service, story):
    """One written otherwise is another text, though it may look the same."""
    path = f"/userstories/{story['id']}"
    composed = service.patch(path, json={"version": 1, "subject": "\u00e9"}).json()
    service.patch(path, json={"version": composed["version"], "subject": "Theirs"})
    refused = service.patch(path, json={"version": composed["version"], "subject": "e\u0301"})
    assert (refused.status_code, refused.json()["conflicts"][0]["yours"]) == (409, "e\u0301")


# Fair ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("theirs", "status"), [("description", 200), ("subject", 409)])
@pytest.mark.parametrize("read", [1, 2])
def test_who_waits_for_another_save_is_merged_with_it_at_once(service, story, theirs, status, read):
    """The other commits while the statement waits: it sees that version and its history, and never begins anew."""
    path = f"/userstories/{story['id']}"
    service.patch(path, json={"version": 1, "status": "ready"})
    with ThreadPoolExecutor(1) as pool, psycopg.connect(service.database) as other:
        other.execute(f"update userstories set {theirs} = 'Theirs' where id = %s", [story["id"]])
        answer = pool.submit(service.patch, path, json={"version": read, "subject": "Mine"})
        with connect(service.database) as looking:
            asked = (
                "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '/* userstories%'"
            )
            wait_for(lambda: looking.execute(asked).fetchone() == (1,))
        other.commit()
        answer = answer.result()
    assert answer.status_code == status, answer.text
    now = service.get(path).json()
    assert (now["version"], now[theirs], now["status"]) == (4 if status == 200 else 3, "Theirs", "ready")
    assert (now["subject"] == "Mine") == (status == 200)


def test_editors_of_one_story_are_served_in_turn(service, story):
    """16 in pairs, each saves its own member without pause from the version it saw last: none starves."""
    project = story["project_id"]
    stories = [service.post(f"/projects/{project}/userstories", json={"subject": "Read"}).json() for _ in range(8)]

    def editor(number):
        made, member = stories[number // 2], ("subject", "description")[number % 2]
        version, longest = 1, 0.0
        with requests.Session() as session:
            for turn in range(15):
                began = time.monotonic()
                body = {"version": version, member: f"{number} {turn}"}
                answer = session.patch(f"{service.url}/userstories/{made['id']}", json=body, timeout=30)
                longest = max(longest, time.monotonic() - began)
                assert (answer.status_code, answer.json().get(member)) == (200, f"{number} {turn}"), answer.text
                version = answer.json()["version"]
        return longest

    with ThreadPoolExecutor(16) as pool:
        assert max(pool.map(editor, range(16))) < 3
    for made in stories:
        assert service.get(f"/userstories/{made['id']}").json()["version"] == 31


# Another object under its id ------------------------------------------------------------------------------------------

EMPLOYEE = {"name": "Zoltan", "datetime": "2024-01-01T00:00:00Z", "department_id": 71, "job_id": 71}

GONE = {
    "DELETE": lambda service: service.delete("/employees/71", headers={"If-Match": "*"}),
    "SQL": lambda service: execute(service, "delete from employees where id = 71"),
}

MADE_ANEW = {
    "POST": lambda service: service.post("/employees", json={"id": 71, **EMPLOYEE}),
    "batch": lambda service: service.post("/batch", json={"employees": [{"id": 71, **EMPLOYEE}]}),
    "upload": lambda service: service.post(
        "/upload/employees", data="71,Zoltan,2024-01-01T00:00:00Z,71,71\n", headers={"Content-Type": "text/csv"}
    ),
    "restore": lambda service: service.post("/restore/employees", json={}),
    "SQL": lambda service: execute(
        service,
        "insert into employees (id, name, datetime, department_id, job_id) values (71, 'Zoltan', '2024-01-01', 71, 71)",
    ),
}


def test_a_stale_change_does_not_reach_another_object_under_the_same_id(database):
    """Made anew, with the very values that the one before had: no field tells them apart."""
    with serve(database) as service:
        for id in (71, 72):
            service.post("/departments", json={"id": id, "department": f"D{id}"})
        service.post("/jobs", json={"id": 71, "job": "J"})
        for gone, made in product(GONE, MADE_ANEW):
            assert service.post("/employees", json={"id": 71, **EMPLOYEE}).status_code == 201
            base = service.get("/employees/71").json()["version"]
            assert service.post("/backup/employees").status_code == 201
            GONE[gone](service)
            MADE_ANEW[made](service)
            anew = service.get("/employees/71").json()
            assert anew["version"] == base + 1, (gone, made)
            for body in ({"department_id": 72}, {"name": "Zoltan"}, {"name": "Other", "department_id": 72}):
                stale = service.patch("/employees/71", json={"version": base, **body})
                assert stale.status_code == 409, (gone, made, body, stale.text)
                if made in ("POST", "SQL"):  # of the others history has no entry for each row
                    named = [conflict["changed_by"] for conflict in stale.json()["conflicts"]]
                    assert all(named), (gone, made, body, stale.text)
            assert service.get("/employees/71").json() == anew
            fresh = service.patch("/employees/71", json={"version": base + 1, "department_id": 72})
            assert fresh.status_code == 200
            execute(service, "delete from employees")
