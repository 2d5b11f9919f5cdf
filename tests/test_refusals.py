"""Bad input over every route: cases as data (cases/*.json: add one without code), and sweeps over whole families."""

import json
import re

import pytest

from app import create_app
from tests.conftest import ROOT

CASES = [case for path in sorted((ROOT / "tests/cases").glob("*.json")) for case in json.loads(path.read_text())]
ROUTES = sorted(
    (method, rule.rule) for rule in create_app().url_map.iter_rules() for method in rule.methods - {"HEAD", "OPTIONS"}
)
SUITE = ROOT.parent / "shared/data/JSONTestSuite/test_parsing"
NAUGHTY = ROOT.parent / "shared/data/blns/blns.json"

JSON = {"Content-Type": "application/json"}
LEAK = re.compile(r"Traceback|File \"|/handlers/|psycopg|\bselect\b.*\bfrom\b|\binsert into\b", re.IGNORECASE)


def check_problem(answer):
    """What every failure is."""
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert {"type", "title", "status", "detail", "request_id"} <= set(problem)
    assert problem["status"] == answer.status_code
    assert problem["request_id"] == answer.headers["X-Request-Id"]
    assert not LEAK.search(answer.text), answer.text


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["description"])
def test_a_bad_request_is_refused(service, case):
    request, expected = {**case["request"]}, case["expected"]
    if "json" in request:
        # As the file says it: requests would refuse a lone surrogate before the service can.
        request["body"] = json.dumps(request.pop("json"))
        request["headers"] = {**JSON, **request.get("headers", {})}
    body = request.pop("body", None)
    answer = service.request(request.pop("method"), request.pop("path"), data=body and body.encode(), **request)
    assert answer.status_code == expected["status"], answer.text
    check_problem(answer)
    assert set(expected.get("errors", [])) == set(answer.json().get("errors", {}))
    for name, value in expected.get("headers", {}).items():
        assert ", ".join(sorted(answer.headers[name].split(", "))) == value


HOSTILE = [
    {"data": b"\xff\xfe{", "headers": JSON},
    {"data": b"[" * 100_000, "headers": JSON},
    {"data": b'{"a":' * 10_000, "headers": JSON},
    {"data": b'"\\ud800"', "headers": JSON},
    {"data": b'{"\\u0000": "\\u0000"}', "headers": JSON},
    {"data": b'{"version": 9223372036854775808}', "headers": JSON},
    {"data": b"9" * 5000, "headers": JSON},
    {"data": b"\0", "headers": {"Content-Type": "text/csv; charset=nothing"}},
    {"params": {"x\0": "\ud800".encode("utf-8", "surrogatepass")}},
    {"headers": {"Accept": "nothing/at-all"}},
    {"headers": {"If-Match": '"9223372036854775808"'}},
]


@pytest.mark.parametrize("method, path", ROUTES)
def test_no_route_falls_over(service, method, path):
    path = re.sub(r"<any\(([^,)]+).*?\):\w+>", lambda found: found[1].strip("'"), path).replace("<id:id>", "999999999")
    for hostile in HOSTILE:
        answer = service.request(method, path, **hostile)
        assert answer.status_code < 500, (hostile, answer.text)
        # Files are served, and refused, by Flask itself.
        if answer.status_code >= 400 and not path.startswith("/docs/"):
            check_problem(answer)


@pytest.mark.parametrize("method, path", [("POST", "/users"), ("PATCH", "/users/1"), ("POST", "/users/search")])
def test_a_body_of_ten_megabytes_is_too_large(service, method, path):
    body = json.dumps({"name": "x" * 10_000_000}).encode()
    for data in (body, iter([body])):
        answer = service.request(method, path, data=data, headers=JSON)
        assert answer.status_code == 413
        check_problem(answer)


@pytest.mark.parametrize(
    "path", sorted(SUITE.glob("*.json")) or [None], ids=lambda path: path.stem if path else "absent"
)
def test_json_is_what_the_standard_says(service, path):
    if path is None:
        pytest.skip("../shared/data/JSONTestSuite is not here")
    answer = service.post("/users/search", data=path.read_bytes(), headers=JSON)
    assert answer.status_code < 500
    if path.name.startswith("n_"):
        assert answer.status_code == 400
    if path.name.startswith("y_"):
        assert answer.status_code in (200, 422)
    if answer.status_code >= 400:
        check_problem(answer)


def test_naughty_strings_come_back_as_they_were(service):
    if not NAUGHTY.exists():
        pytest.skip("../shared/data/blns is not here")
    for naughty in json.loads(NAUGHTY.read_text()):
        answer = service.post("/user?email=naughty@example.com", json={"text": naughty})
        assert answer.status_code in (200, 201)
        assert service.get("/user?email=naughty@example.com").json()["text"] == naughty
        assert service.get("/users", params={"name": naughty or "-", "address": naughty or "-"}).status_code in (
            200,
            422,
        )
