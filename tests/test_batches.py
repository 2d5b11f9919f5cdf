"""Batches: good rows in, bad rows logged, each told by its place; nothing else can happen to a row."""

from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ids = count(100_000, 10)


def batch(service, **tables):
    answer = service.post("/batch", json=tables)
    assert answer.status_code == 200, answer.text
    return answer.json()


def employee(id, department=1, job=1, **members):
    return {
        "id": id,
        "name": "Ann",
        "datetime": "2021-11-07T02:48:42Z",
        "department_id": department,
        "job_id": job,
    } | members


def test_parents_and_children_go_in_together(service):
    id = next(ids)
    result = batch(
        service,
        employees=[employee(id, id, id)],
        jobs=[{"id": id, "job": "Clerk"}],
        departments=[{"id": id, "department": "Sales"}],
    )
    assert result == {"accepted": 3, "rejected": 0, "errors": []}
    assert service.get(f"/employees/{id}").json()["department_id"] == id


def test_good_rows_go_in_and_bad_ones_are_logged_with_their_place(service):
    id = next(ids)
    rows = [
        {"id": id, "department": "Good"},
        {"id": str(id), "department": "A text for an id"},
        {"id": True, "department": "A truth for an id"},
        {"id": 7.0, "department": "A fraction for an id"},
        {"id": 2**31, "department": "Too great"},
        {"id": 10**400, "department": "Far too great"},
        {"id": -1, "department": "Negative"},
        {"department": "No id"},
        {"id": id + 1},
        {"id": id + 1, "department": None},
        {"id": id + 1, "department": " "},
        {"id": id + 1, "department": 7},
        {"id": id + 1, "department": ["x"]},
        {"id": id + 1, "department": "a\0b"},
        {"id": id + 1, "department": "x" * 1001},
        {"id": id + 1, "department": "x", "more": 1},
        {"id": id, "department": "The id once more"},
        [1, "a list"],
        None,
        "a text",
    ]
    result = batch(service, departments=rows)
    assert (result["accepted"], result["rejected"]) == (1, 19)
    assert [error["index"] for error in result["errors"]] == [*range(1, 20)]
    assert {error["table"] for error in result["errors"]} == {"departments"}
    found = [(error["field"], error["code"]) for error in result["errors"]]
    assert found == [
        ("id", "not_integer"),
        ("id", "not_integer"),
        ("id", "not_integer"),
        ("id", "out_of_range"),
        ("id", "not_integer"),
        ("id", "not_integer"),
        ("id", "missing"),
        ("department", "missing"),
        ("department", "missing"),
        ("department", "missing"),
        (None, "unreadable"),
        (None, "unreadable"),
        (None, "unreadable"),
        ("department", "too_long"),
        (None, "unreadable"),
        ("id", "duplicate"),
        (None, "unreadable"),
        (None, "unreadable"),
        (None, "unreadable"),
    ]
    logged = service.get("/errors/departments?sort=-id&limit=19").json()["items"]
    assert [reject["line"] for reject in reversed(logged)] == [*range(2, 21)]
    assert logged[-1]["raw"] == f'{{"id": "{id}", "department": "A text for an id"}}'


def test_a_parent_that_is_unknown_is_told_and_mended_by_the_same_batch_later(service):
    id = next(ids)
    batch(service, jobs=[{"id": id, "job": "Clerk"}])
    rows = [employee(id, id, id)]
    assert batch(service, employees=rows)["errors"] == [
        {
            "table": "employees",
            "index": 0,
            "field": "department_id",
            "code": "unknown",
            "detail": f"There is no department {id}.",
        }
    ]
    batch(service, departments=[{"id": id, "department": "Sales"}])
    assert batch(service, employees=rows) == {"accepted": 1, "rejected": 0, "errors": []}
    assert batch(service, employees=rows) == {"accepted": 1, "rejected": 0, "errors": []}, "which changes nothing"
    assert service.get(f"/employees/{id}").json()["version"] == 1
    raws = [reject["raw"] for reject in service.get("/errors/employees?sort=-id&limit=50").json()["items"]]
    assert not [raw for raw in raws if f'"id": {id},' in raw], "the reject is gone"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"departments": []},
        {"departments": [{"id": 1, "department": "x"}] * 1001},
        {"departments": [{}] * 500, "jobs": [{}] * 501},
        {"users": [{"id": 1}]},
        {"departments": {"id": 1, "department": "x"}},
        {"departments": None},
    ],
    ids=str,
)
def test_a_batch_that_is_none_is_refused_as_a_whole(service, body):
    assert service.post("/batch", json=body).status_code == 422


def test_a_thousand_rows_are_a_batch(service):
    first = next(ids)
    for _ in range(100):
        next(ids)
    rows = [{"id": first + number, "job": f"Job {number}"} for number in range(1000)]
    assert batch(service, jobs=rows)["accepted"] == 1000


def test_a_batch_with_a_key_is_done_once(service):
    id = next(ids)
    body, headers = {"jobs": [{"id": id, "job": "Clerk"}, {"id": 0, "job": "None"}]}, {"Idempotency-Key": f"batch {id}"}
    first = service.post("/batch", json=body, headers=headers)
    assert service.post("/batch", json=body, headers=headers).content == first.content


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
rows = st.lists(
    anything
    | st.fixed_dictionaries({}, optional={"id": st.integers(1, 50) | anything, "department": st.text() | anything}),
    min_size=1,
    max_size=20,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows)
def test_whatever_the_rows_are_each_is_accepted_or_told(service, rows):
    result = batch(service, departments=rows)
    assert result["accepted"] + result["rejected"] == len(rows)
    places = [error["index"] for error in result["errors"]]
    assert sorted(set(places)) == places
    assert len(places) == result["rejected"]
