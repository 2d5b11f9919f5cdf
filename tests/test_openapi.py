"""The OpenAPI document is valid and complete, and its pages need nothing from elsewhere."""

import re

import pytest
from jsonschema import Draft202012Validator, FormatChecker
from openapi_spec_validator import OpenAPIV31SpecValidator

from app import create_app
from handlers.http.contract import parameters
from tests import resources
from tests.browser import CHROMIUM, tab
from tests.conftest import first, serve, wait_for


def test_the_document_is_valid(service):
    OpenAPIV31SpecValidator(service.get("/openapi.json").json()).validate()


def test_every_route_is_in_it(service):
    paths = service.get("/openapi.json").json()["paths"]
    for rule in create_app().url_map.iter_rules():
        if rule.websocket:
            continue
        path = re.sub(r"<(?:[^:]*:)?(\w+)>", r"{\1}", rule.rule)
        for method in rule.methods - {"HEAD", "OPTIONS"}:
            operation = paths[path][method.lower()]
            assert operation["summary"]
            assert operation["x-role"]
            assert any(status.startswith("2") for status in operation["responses"])


def test_it_says_which_posts_are_done_once_and_how_others_are_refused(service):
    for path, operations in service.get("/openapi.json").json()["paths"].items():
        for method, operation in operations.items():
            role, headers = operation["x-role"], [each["name"] for each in operation["parameters"]]
            assert ("Idempotency-Key" in headers) is (method == "post" and role != "reader" and path != "/tokens"), (
                method,
                path,
            )
            refusals = operation["responses"].keys() & {"401", "403", "421"}
            expected = {"403", "421"} if role == "anyone" else {"401", "403", "421"}
            assert refusals == (set() if path.startswith("/health/") else expected), (method, path)


def test_it_names_no_route_that_is_not_there(service):
    rules = {re.sub(r"<(?:[^:]*:)?(\w+)>", r"{\1}", rule.rule): rule for rule in create_app().url_map.iter_rules()}
    for path in service.get("/openapi.json").json()["paths"]:
        assert path in rules


def test_every_failure_in_it_is_a_problem(service):
    for path, operations in service.get("/openapi.json").json()["paths"].items():
        for method, operation in operations.items():
            failures = [said for status, said in operation["responses"].items() if not status.startswith(("2", "304"))]
            assert failures, (method, path)
            for said in failures:
                assert list(said["content"]) == ["application/problem+json"], (method, path)


TOLD = {"ETag", "Feed-Cursor"}


def test_it_says_which_answers_have_an_etag_and_a_place_in_the_feed(database):
    """Of every route that answers JSON about one of each resource; files and what is streamed have their own."""
    with serve(database) as service:
        made = {noun: one["id"] for noun, one in resources.create_all(service).items()}
        walked = []
        for path, operations in service.get("/openapi.json").json()["paths"].items():
            where = re.sub(r"\{\w+\}", str(made.get(path.split("/")[1], "1")), path)
            if "get" not in operations or path.startswith("/health"):
                continue
            query = {
                each["name"]: each["schema"].get("example")
                for each in operations["get"]["parameters"]
                if each.get("required")
            }
            answer = service.get(where, params=query, headers={"Accept": "application/json, */*; q=0.1"})
            if answer.status_code == 200 and answer.headers["Content-Type"] == "application/json":
                told = operations["get"]["responses"]["200"].get("headers", {})
                walked.append((where, TOLD & {*answer.headers}, TOLD & {*told}))
        assert [each for each in walked if each[1] != each[2]] == []
        assert len(walked) > 40


def test_it_says_how_changes_are_gone_on_with_and_why_they_may_not_be(service):
    changes = service.get("/openapi.json").json()["paths"]["/changes"]["get"]
    assert ("Last-Event-ID", "header") in {(each["name"], each["in"]) for each in changes["parameters"]}
    assert changes["responses"].keys() >= {"200", "406", "422", "429", "503"}


def test_what_it_says_of_a_user_is_so(service):
    document = service.get("/openapi.json").json()
    create = document["paths"]["/users"]["post"]
    assert create["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/User"}
    schema = document["components"]["schemas"]["User"]
    assert set(schema["required"]) == {"email", "name", "address", "image"}
    assert schema["properties"]["name"]["maxLength"] == 30
    assert schema["properties"]["version"]["readOnly"]
    names = {parameter["name"] for parameter in document["paths"]["/users"]["get"]["parameters"]}
    filters = {"id", "email", "name", "address"}
    assert names == filters | {"limit", "cursor", "sort", "fields", "formulas", "as_of", "If-None-Match"}


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_a_page_takes_all_it_needs_from_here(service, page):
    text = service.get(page).text
    needed = re.findall(r'(?:src|href|spec-url)="([^"]+)"|url: "([^"]+)"', text)
    assert needed
    for path in (tag or script for tag, script in needed):
        assert path == "data:," or service.get(path).status_code == 200


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_a_page_names_nothing_elsewhere(service, page):
    answer = service.get(page)
    assert not re.search(r"https?://|[\"'(]//", answer.text)
    assert "http" not in answer.headers["Content-Security-Policy"]


@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium here: apt install chromium")
@pytest.mark.parametrize("page", first(1, ["/docs", "/redoc"]))
def test_a_browser_shows_the_operations(service, page):
    with tab() as browser:
        browser.open(service.url + page)
        # The groups: ReDoc fills in what they hold only once it is scrolled to.
        for words in ("hiring", "uploads", "reports", "users"):
            wait_for(lambda words=words: words in browser.evaluate("document.body.innerText"))


@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium here: apt install chromium")
@pytest.mark.parametrize("page", first(1, ["/docs", "/redoc"]))
def test_a_browser_has_nothing_to_complain_of(service, page):
    """Its console would tell of each picture, script or style from elsewhere that the page asks for in vain."""
    with tab() as browser:
        browser.open(service.url + page)
        wait_for(lambda: browser.shows("users"))
        wait_for(lambda: browser.evaluate("[...document.images].every(image => image.complete)"))
        assert browser.errors == []
        elsewhere = "performance.getEntries().map(each => each.name).filter(name => name.startsWith('http')"
        assert browser.evaluate(f"{elsewhere} && !name.startsWith('{service.url}'))") == []


def examples(document):
    """Every example of a parameter, with its schema: (where, schema, example)."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for parameter in operation["parameters"]:
                if "example" in parameter["schema"]:
                    yield f"{method} {path} {parameter['name']}", parameter["schema"], parameter["schema"]["example"]


def test_every_example_of_a_parameter_is_as_its_schema_says(service):
    """What a page like /docs fills in for whoever tries a route."""
    checker = FormatChecker(formats=())
    checker.checks("date-time")(
        lambda value: bool(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", value))
    )
    checker.checks("date")(lambda value: bool(re.fullmatch(r"\d{4}-\d\d-\d\d", value)))
    checker.checks("uuid")(lambda value: bool(re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", value)))
    found = [*examples(service.get("/openapi.json").json())]
    assert len(found) > 100
    wrong = [
        (where, example)
        for where, schema, example in found
        if not Draft202012Validator(schema, format_checker=checker).is_valid(example)
    ]
    assert not wrong, wrong


def test_every_member_that_is_answered_can_be_asked_for_alone(service):
    """Of each collection and object with ?fields=, by the name that its answers have."""
    document = service.get("/openapi.json").json()
    app, walked = create_app(), 0
    for rule in app.url_map.iter_rules():
        contract = app.view_functions[rule.endpoint].contract
        if rule.websocket or "GET" not in rule.methods or "fields" not in parameters(contract.query):
            continue
        path = re.sub(r"<(?:[^:]*:)?(\w+)>", r"{\1}", rule.rule)
        operation = document["paths"][path]["get"]
        schema = next(each["schema"] for each in operation["parameters"] if each["name"] == "fields")
        body = operation["responses"]["200"]["content"]["application/json"]["schema"]
        item = body["properties"]["items"]["items"] if contract.many else body
        members = document["components"]["schemas"][item["$ref"].rpartition("/")[2]]["properties"]
        for name in members:
            assert re.search(schema["pattern"], name), (path, name)
            asked = re.sub(r"{\w+}", lambda found: STAND_INS.get(found[0], "1"), path)
            required = {
                each["name"]: "nobody@example.com"
                for each in operation["parameters"]
                if each["in"] == "query" and each["required"]
            }
            answer = service.get(asked, params={"fields": name} | required)
            assert answer.status_code in (200, 404), (path, name, answer.text)
            for each in answer.json().get("items", []) if answer.status_code == 200 else []:
                assert each.keys() == {name}, (path, name)
            walked += 1
    assert walked > 100


STAND_INS = {"{table}": "departments", "{resource}": "users"}
