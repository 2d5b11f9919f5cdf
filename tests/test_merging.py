"""Many writers at one object: what does not overlap is kept, what does is refused with reasons, nothing is lost."""

from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from db.pool import connect

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


def test_a_version_that_never_was_merges_with_nothing(service, story):
    refused = service.patch(f"/userstories/{story['id']}", json={"status": "done", "version": 9})
    assert refused.status_code == 409
    assert refused.json()["base_version"] == 9


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
