"""The OpenAPI document is valid and complete, and its pages need nothing from elsewhere."""

import re
import shutil
import subprocess

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from app import create_app

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


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
            assert ("Idempotency-Key" in headers) is (method == "post" and role != "reader"), (method, path)
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


def test_what_it_says_of_a_user_is_so(service):
    document = service.get("/openapi.json").json()
    create = document["paths"]["/users"]["post"]
    assert create["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/User"}
    schema = document["components"]["schemas"]["User"]
    assert set(schema["required"]) == {"email", "name", "address", "image"}
    assert schema["properties"]["name"]["maxLength"] == 30
    assert schema["properties"]["version"]["readOnly"]
    names = {parameter["name"] for parameter in document["paths"]["/users"]["get"]["parameters"]}
    assert names == {"limit", "cursor", "sort", "fields", "formulas", "id", "email", "name", "address"}


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_a_page_takes_all_it_needs_from_here(service, page):
    text = service.get(page).text
    needed = re.findall(r'(?:src|href|spec-url)="([^"]+)"|url: "([^"]+)"', text)
    assert needed
    for path in (first or second for first, second in needed):
        assert path == "data:," or service.get(path).status_code == 200


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_a_page_names_nothing_elsewhere(service, page):
    answer = service.get(page)
    assert not re.search(r"https?://|[\"'(]//", answer.text)
    assert "http" not in answer.headers["Content-Security-Policy"]


@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium here: apt install chromium")
@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_a_browser_shows_the_operations(service, page, tmp_path):
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--virtual-time-budget=15000",
    ]
    command = [CHROMIUM, *options, f"--user-data-dir={tmp_path}", "--dump-dom", service.url + page]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    # The groups: ReDoc fills in what they hold only once it is scrolled to.
    for words in ("hiring", "uploads", "reports", "users"):
        assert words in shown
