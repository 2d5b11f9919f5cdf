"""Bad input over every route: cases as data (cases/*.json: add one without code), and sweeps over whole families.

A case says what is sent and what comes back. Its body is the valid one of its route `with` other members and `without`
some, or `json` or `body` as it is; {"repeat": [x, n]} is a text or a list n times, {"join": [...]} several as one.
"""

import json
import re
from functools import reduce
from http.client import HTTPResponse
from operator import add

import psycopg
import pytest

from app import create_app
from handlers.http.contract import parameters
from handlers.http.problem_kinds import KINDS, PREFIX
from tests.conftest import ROOT, serve

FILES = [json.loads(path.read_text()) for path in sorted((ROOT / "tests/cases").glob("*.json"))]


def written_out(value):
    """What a value of a file means."""
    match value:
        case {"repeat": [part, times], **others} if not others:
            return written_out(part) * times
        case {"join": [first, *parts], **others} if not others:
            return reduce(add, map(written_out, parts), written_out(first))
        case dict():
            return {name: written_out(each) for name, each in value.items()}
        case list():
            return [written_out(each) for each in value]
    return value


def cases_of(file):
    """The cases of a file, each with its request and what is expected of the answer."""
    valid = {route: written_out(body) for route, body in file["valid"].items()}
    for case in file["cases"]:
        case = written_out(case)
        description, sent, expected = case.pop("case"), case.pop("send"), {"status": case.pop("status")}
        expected |= {name: case.pop(key) for key, name in EXPECTED.items() if key in case}
        request = dict(zip(("method", "path"), sent.split(" ", 1), strict=True))
        if "with" in case or "without" in case:
            without = case.pop("without", [])
            body = valid[sent.partition("?")[0]] | case.pop("with", {})
            request["json"] = {name: value for name, value in body.items() if name not in without}
        assert case.keys() <= {"json", "body", "headers"}, f"{description}: what is {[*case]}?"
        yield {"description": description, "request": request | case, "expected": expected}


EXPECTED = {"errors": "errors", "answer_headers": "headers"}
CASES = [case for file in FILES for case in cases_of(file)]
APP = create_app()
CONTRACTS = {
    (method, rule.rule): APP.view_functions[rule.endpoint].contract
    for rule in APP.url_map.iter_rules()
    if not rule.websocket
    for method in rule.methods - {"HEAD", "OPTIONS"}
}
ROUTES = sorted(CONTRACTS)
BODIES = [route for route in ROUTES if CONTRACTS[route].body]
PATHS = sorted({path for _, path in ROUTES})
SUITE = ROOT.parent / "shared/data/JSONTestSuite/test_parsing"

JSON = {"Content-Type": "application/json"}
LEAK = re.compile(r"Traceback|File \"|/handlers/|psycopg|\bselect\b.*\bfrom\s+\w|\binsert into\b", re.IGNORECASE)


def somewhere(path):
    """A path of this rule, to something that is not there."""
    return (
        re.sub(r"<any\(([^,)]+).*?\):\w+>", lambda found: found[1].strip("'"), path)
        .replace("<id:id>", "999999999")
        .replace("<uuid:id>", "00000000-0000-7000-8000-000000000000")
    )


def needed(method, path):
    """The parameters that the route cannot do without."""
    known = parameters(CONTRACTS[method, path].query)
    return {name: field.metadata["example"] for name, field in known.items() if field.required}


def check_problem(answer):
    """What every failure is."""
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert {"type", "title", "status", "detail", "request_id"} <= set(problem)
    assert problem["status"] == answer.status_code
    assert problem["request_id"] == answer.headers["X-Request-Id"]
    check_kind(problem)
    assert not LEAK.search(answer.text), answer.text


def check_kind(problem):
    """The type of a failure is one that is explained; none of its messages comes twice."""
    kind = KINDS[problem["type"].removeprefix(PREFIX)]
    assert (problem["title"], problem["status"]) == (kind.title, kind.status)
    assert all(len(messages) == len(set(messages)) for messages in problem.get("errors", {}).values())


@pytest.mark.parametrize("name", KINDS)
def test_every_type_leads_to_its_explanation(service, name):
    kind = KINDS[name]
    told = {"type": f"{PREFIX}{name}", **kind._asdict()}
    assert service.get(told["type"]).json() == told
    page = service.get(told["type"], headers={"Accept": "text/html"})
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert kind.title in page.text
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    assert not re.search(r"https?://|[\"'(]//", page.text)


def test_all_types_are_listed(service):
    types = [f"{PREFIX}{name}" for name in KINDS]
    assert [each["type"] for each in service.get("/problems").json()["items"]] == types
    assert re.findall('href="(/[^"]+)"', service.get("/problems", headers={"Accept": "text/html"}).text) == types
    schema = service.get("/openapi.json").json()["components"]["schemas"]["Problem"]
    assert schema["properties"]["type"]["enum"] == types
    check_problem(service.get("/problems/nothing"))


VALID = {route: written_out(body) for file in FILES for route, body in file["valid"].items()}


@pytest.mark.parametrize("route", VALID)
def test_the_body_that_cases_differ_from_is_valid(route):
    method, path = route.split(" ")
    rule, _ = APP.url_map.bind("").match(path, method, return_rule=True)
    contract = CONTRACTS[method, rule.rule]
    # The version is no part of a thing: it is taken out before.
    body = {name: value for name, value in VALID[route].items() if name != "version" or not contract.precondition}
    assert contract.body.validate(body) == {}


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
    {"headers": {"If-Match": '""'}},
]


@pytest.mark.parametrize("method, path", ROUTES)
def test_no_route_falls_over(service, method, path):
    path = somewhere(path)
    for hostile in HOSTILE:
        answer = service.request(method, path, **hostile)
        assert answer.status_code < 500, (hostile, answer.text)
        # Files are served, and refused, by Flask itself.
        if answer.status_code >= 400 and not path.startswith("/docs/"):
            check_problem(answer)


DOUBLED = {
    "top level": (b'{"x": [1], "y": 1, "x": [2]}', "x"),
    "top level, escaped": (b'{"x": 1, "\\u0078": 1}', "x"),
    "the version": (b'{"version": 1, "version": 2}', "version"),
    "nested": (b'{"departments": [{"id": 1, "name": 1, "id": 2}]}', "id"),
    "nested deeply": (b'{"a": {"b": [[{"c": null, "": 1, "c": null}]]}}', "c"),
    "long": (b'{"%b": 1, "%b": 2}' % (b"n" * 9000, b"n" * 9000), "n" * 200 + "\\u2026"),
}


@pytest.mark.parametrize("doubled", DOUBLED)
@pytest.mark.parametrize("method, path", BODIES)
def test_no_member_is_lost_because_another_has_its_name(service, method, path, doubled):
    body, name = DOUBLED[doubled]
    answer = service.request(method, somewhere(path), data=body, headers=JSON, params=needed(method, path))
    check_problem(answer)
    assert (answer.status_code, answer.json()["type"]) == (400, f"{PREFIX}not-json")
    assert answer.json()["detail"] == f"The member '{name}' is given 2 times."


@pytest.mark.parametrize("method, path", ROUTES)
def test_no_route_takes_a_parameter_nobody_knows_or_one_twice(service, method, path):
    for name in ("nonsense", *parameters(CONTRACTS[method, path].query)):
        for query in (f"{name}=1&{name}=1", "nonsense=1"):
            answer = service.request(method, f"{somewhere(path)}?{query}")
            assert answer.status_code == 400, query
            check_problem(answer)


NOT_UTF8 = ("%ff", "a%FFb", "%c0%af", "%ed%a0%80", "%e2%82", "%f5%80%80%80")
"""What stands for no text."""


@pytest.mark.parametrize("method, path", ROUTES)
def test_no_route_takes_a_query_that_is_not_utf_8(service, method, path):
    names = ("nonsense", *parameters(CONTRACTS[method, path].query))
    with service.raw() as client:
        for name, value in [(name, NOT_UTF8[0]) for name in names] + [(names[-1], value) for value in NOT_UTF8]:
            for query in (f"{name}={value}", f"{value}=1"):
                client.sendall(
                    f"{method} {somewhere(path)}?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode("latin-1")
                )
                answer = HTTPResponse(client, method=method)
                answer.begin()
                told = json.loads(answer.read())
                assert (answer.status, told["type"]) == (400, f"{PREFIX}wrong-parameters"), (query, told)
                assert "not UTF-8" in told["detail"], (query, told)


def test_a_query_of_any_letters_is_read(service, unique):
    address = f"%ff \u00e9\U0001f600+& {unique('query')}"
    body = {"email": f"{unique('q')}@example.org", "name": "Q", "address": address, "image": "http://x.org"}
    made = service.post("/users", json=body)
    assert service.get("/users", params={"address": address}).json()["items"] == [made.json()]


@pytest.mark.parametrize("path", PATHS)
def test_a_wrong_verb_is_told_the_right_ones(service, path):
    # Two rules may have a first path in common: of backups one is of all tables together.
    allowed = {"OPTIONS", *(method for method, other in ROUTES if somewhere(other) == somewhere(path))}
    allowed |= {"HEAD"} if "GET" in allowed else set()
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "BREW"} - allowed:
        answer = service.request(method, somewhere(path))
        assert answer.status_code == 405
        assert set(answer.headers["Allow"].split(", ")) == allowed
        check_problem(answer)


@pytest.mark.parametrize("path", PATHS)
def test_who_asks_for_the_verbs_is_told_them(service, path):
    answer = service.request("OPTIONS", somewhere(path))
    assert answer.status_code == 200, answer.text
    assert "OPTIONS" in answer.headers["Allow"]


@pytest.mark.parametrize("method, path", [route for route in ROUTES if "*/*" not in CONTRACTS[route].media])
def test_no_route_answers_in_a_media_type_it_does_not_have(service, method, path):
    answer = service.request(method, somewhere(path), params=needed(method, path), headers={"Accept": "image/tiff"})
    assert answer.status_code == 406
    check_problem(answer)


BROKEN = [b"", b"{", b"nul", b"{'a': 1}", b'{"a": 1,}', b"{} {}", b"[NaN]", b"Infinity", b'{"a": -Infinity}']
BROKEN += [b"\xff\xfe{", b'{"a": "\xe9"}', b"\xef\xbb\xbf{}", b"[" * 100_000, b'{"a":' * 100_000]


@pytest.mark.parametrize("method, path", BODIES)
def test_no_route_takes_a_body_that_is_not_a_json_object(service, method, path):
    bodies = [(400, body, "application/json") for body in BROKEN]
    bodies += [(422, body, "application/json") for body in (b"[]", b'"x"', b"1", b"true", b"null", b"[{}]", b"1e400")]
    bodies += [
        (415, b"{}", kind) for kind in (None, "text/plain", "application/xml", "text/csv", "multipart/form-data")
    ]
    if CONTRACTS[method, path].files:  # no body at all is an empty object there, and a form may hold a file
        bodies = [each for each in bodies if each[1] and each[2] != "multipart/form-data"]
    for status, body, kind in bodies:
        headers = {"If-Match": '"1"', **({"Content-Type": kind} if kind else {})}
        answer = service.request(method, somewhere(path), params=needed(method, path), data=body, headers=headers)
        assert answer.status_code == status, (body[:20], kind, answer.text)
        check_problem(answer)


@pytest.mark.parametrize("method, path, name", [("POST", "/users/search", "id"), ("PATCH", "/users/1", "version")])
def test_an_integer_of_any_length_is_beyond_the_range(service, method, path, name):
    for digits in (b"9" * 4000, b"9" * 5000, b"-" + b"9" * 100_000):
        answer = service.request(method, path, data=b'{"%b": %b}' % (name.encode(), digits), headers=JSON)
        assert answer.status_code == 422, answer.text
        assert list(answer.json()["errors"]) == [name]
        check_problem(answer)


def test_a_body_in_broken_chunks_is_a_bad_request(service):
    head = "POST /users HTTP/1.1\r\nHost: [::1]\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    with service.raw() as client:
        client.sendall(f"{head}ZZ\r\n".encode())
        assert client.recv(1000).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("method, path", [("POST", "/users"), ("PATCH", "/users/1"), ("POST", "/users/search")])
def test_a_body_of_ten_megabytes_is_too_large(service, method, path):
    body = json.dumps({"name": "x" * 10_000_000}).encode()
    for data in (body, iter([body])):
        answer = service.request(method, path, data=data, headers=JSON)
        assert answer.status_code == 413
        check_problem(answer)


@pytest.mark.parametrize("route", ["/users", "/users/search"])
@pytest.mark.parametrize(
    "path", sorted(SUITE.glob("*.json")) or [None], ids=lambda path: path.stem if path else "absent"
)
def test_json_is_what_the_standard_says(service, path, route):
    if path is None:
        pytest.skip("../shared/data/JSONTestSuite is not here")
    answer = service.post(route, data=path.read_bytes(), headers=JSON)
    assert answer.status_code < 500
    if path.name.startswith("n_"):
        assert answer.status_code == 400
    if "duplicated_key" in path.name:
        assert answer.status_code == 400  # RFC 8259: names should be unique; of two values one would be lost
    elif path.name.startswith("y_"):
        assert answer.status_code in (200, 201, 422)
    if answer.status_code >= 400:
        check_problem(answer)


@pytest.mark.parametrize(
    "request_line, header, status",
    [
        ("GET /" + "x" * 9000 + " HTTP/1.1", "", 414),
        ("GET / HTTP/1.1", "X: " + "x" * 20_000, 431),
        ("GET / HTTP/9.9", "", 400),
        ("nonsense", "", 400),
        ("GET / HTTP/1.1", "Bad Header", 400),
    ],
)
def test_what_is_no_request_is_a_problem_too(service, request_line, header, status):
    with service.raw() as client:
        client.sendall(f"{request_line}\r\nHost: [::1]\r\n{header}\r\n\r\n".encode())
        answer = b"".join(iter(lambda: client.recv(10_000), b""))
    head, body = answer.split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"application/problem+json" in head
    assert json.loads(body)["status"] == status
    check_kind(json.loads(body))


def test_a_constraint_of_somebody_elses_is_told_as_a_bug_and_not_as_a_sentence(database):
    """A DBA may add one to a table of ours: nobody wrote what it means to a client."""
    with psycopg.connect(database, autocommit=True) as owner, serve(database) as service:
        owner.execute("alter table projects add constraint theirs check (name <> 'Theirs')")
        answer = service.post("/projects", json={"name": "Theirs"})
        assert answer.status_code == 500, answer.text
        check_problem(answer)
        assert "errors" not in answer.json()
        owner.execute("alter table projects drop constraint theirs")
        assert service.post("/projects", json={"name": "Theirs"}).status_code == 201
