"""What a body is said to be: patches and encodings that are not known are 415, and told what is; the short forms."""

import json

import pytest

from handlers.http.contract import GZIP
from tests.test_refusals import BODIES, CONTRACTS, check_problem, needed, somewhere

PLAIN = [route for route in BODIES if not CONTRACTS[route].files]
PATCHED = [route for route in PLAIN if route[0] == "PATCH"]


@pytest.mark.parametrize("method, path", PLAIN)
def test_no_route_takes_json_in_an_encoding(service, method, path):
    for coding, known in (
        ("gzip", False),
        ("br", False),
        ("identity, gzip", False),
        ("identity", True),
        ("IDENTITY", True),
    ):
        headers = {"Content-Type": "application/json", "Content-Encoding": coding, "If-Match": '"1"'}
        answer = service.request(method, somewhere(path), params=needed(method, path), data="[]", headers=headers)
        assert answer.status_code == (422 if known else 415), (coding, answer.text)
        assert known or answer.headers["Accept-Encoding"] == "identity"
        check_problem(answer)


@pytest.mark.parametrize("method, path", [route for route in BODIES if CONTRACTS[route].files])
def test_a_file_is_taken_in_the_encodings_that_are_known(service, method, path):
    """Only an upload takes gzip: as its type, as its encoding, or without a word."""
    contract = CONTRACTS[method, path]
    for kind in (*contract.files, "multipart/form-data; boundary=b"):
        known = ["identity", *(["gzip", "x-gzip", "GZip"] if GZIP in contract.files and "form" not in kind else [])]
        for coding in ("identity", "gzip", "x-gzip", "GZip", "br", "deflate", "gzip, gzip", "aes128gcm"):
            headers = {"Content-Type": kind, "Content-Encoding": coding}
            answer = service.request(method, somewhere(path), data=b"nothing", headers=headers)
            assert (answer.status_code == 415) == (coding not in known), (kind, coding, answer.text)
            check_problem(answer) if answer.status_code >= 400 else None


@pytest.mark.parametrize("method, path", PATCHED)
def test_a_patch_is_json_or_a_merge_patch(service, method, path):
    for kind in ("application/json-patch+json", "application/xml-patch+xml", "text/plain", "application/x+json"):
        answer = service.patch(somewhere(path), data="[]", headers={"Content-Type": kind, "If-Match": '"1"'})
        assert answer.status_code == 415, kind
        assert answer.headers["Accept-Patch"] == "application/json, application/merge-patch+json"
        check_problem(answer)
    for kind in ("application/merge-patch+json", "Application/Merge-Patch+JSON; charset=utf-8", "application/json"):
        answer = service.patch(somewhere(path), data="{}", headers={"Content-Type": kind, "If-Match": '"1"'})
        assert answer.status_code == 404, (kind, answer.text)


OTHER_JSON = (
    *(
        "application/json-patch+json",
        "application/problem+json",
        "application/vnd.api+json",
        "application/merge-patch+json",
    ),
    *("application/geo+json; charset=utf-8", "text/json", "application/json, text/plain", "application/x-json"),
)
"""What is JSON, and means something else; or is none."""


@pytest.mark.parametrize("method, path", [route for route in PLAIN if route[0] != "PATCH"])
def test_a_body_is_json_and_not_what_is_built_upon_it(service, method, path):
    for kind in OTHER_JSON:
        headers = {"Content-Type": kind, "If-Match": '"1"'}
        answer = service.request(method, somewhere(path), params=needed(method, path), data="[]", headers=headers)
        assert answer.status_code == 415, (kind, answer.text)
        check_problem(answer)
    for kind in ("application/json", "APPLICATION/JSON;charset=utf-8", 'application/json; profile="a b"'):
        headers = {"Content-Type": kind, "If-Match": '"1"'}
        answer = service.request(method, somewhere(path), params=needed(method, path), data="[]", headers=headers)
        assert answer.status_code == 422, (kind, answer.text)


@pytest.mark.parametrize("method, path", [route for route in BODIES if CONTRACTS[route].files])
def test_a_file_or_json_is_not_what_is_built_upon_json(service, method, path):
    for kind in OTHER_JSON:
        answer = service.request(method, somewhere(path), data="{}", headers={"Content-Type": kind})
        assert answer.status_code == 415, (kind, answer.text)
        check_problem(answer)


def test_the_short_delete_needs_no_version_and_honours_one(service, unique):
    who = {"email": f"{unique('short')}@example.com"}
    assert service.post("/user", params=who, json={"text": "x"}).status_code == 201
    assert service.delete("/user", params={**who, "version": 2}).status_code == 409
    assert service.delete("/user", params=who, headers={"If-Match": '"2"'}).status_code == 412
    assert service.delete("/user", params=who).status_code == 204
    assert service.delete("/user", params=who).status_code == 404


def test_a_merge_patch_takes_a_value_away_with_null(service, unique):
    made = service.post("/projects", json={"name": unique("merge"), "description": "x"})
    headers = {"Content-Type": "application/merge-patch+json", "If-Match": made.headers["ETag"]}
    changed = service.patch(made.headers["Location"], data=json.dumps({"description": None}), headers=headers)
    assert changed.json()["description"] is None
    headers["If-Match"] = changed.headers["ETag"]
    assert service.patch(made.headers["Location"], data='{"name": null}', headers=headers).status_code == 422


def test_a_time_may_have_a_small_t_and_z(service):
    assert service.get("/departments/1?as_of=2030-01-01t00:00:00z").status_code in (200, 404)
    body = {"id": 7, "name": "A", "datetime": "2021-11-07t02:48:42z", "department_id": 2147483000, "job_id": 1}
    assert "datetime" not in service.post("/employees", json=body).json()["errors"]
