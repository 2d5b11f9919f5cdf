"""The application's short cuts lead where Flask's and Werkzeug's own ways do."""

import re

import pytest
from flask import Flask
from werkzeug.exceptions import HTTPException
from werkzeug.routing import RequestRedirect

from app import create_app

APP = create_app()

IDS = (
    "1",
    "7",
    "00012",
    "0",
    "999999999999999999",
    "9223372036854775807",
    "9223372036854775808",
    "١",
    "x",
    "",
    "1/",
    "-1",
)

PATHS = sorted(
    {re.sub("<[^>]+>", id, rule.rule) for rule in APP.url_map.iter_rules() for id in IDS}
    | {"/nowhere/1", "/users/1/nowhere", "*"}
)


def found(path: str, method: str, adapter: object) -> object:
    """The endpoint and its arguments, or what is answered instead."""
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path.encode().decode("latin-1"),
        "QUERY_STRING": "a=b",
        "SCRIPT_NAME": "",
        "HTTP_HOST": "Rowhouse:8000",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "wsgi.url_scheme": "http",
    }
    try:
        rule, arguments = adapter(APP, APP.request_class(environ)).match(return_rule=True)
    except RequestRedirect as redirect:
        return redirect.code, redirect.new_url.lower()
    except HTTPException as refusal:
        return refusal.code, sorted(getattr(refusal, "valid_methods", None) or ())
    return rule.endpoint, arguments


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_each_path_leads_where_werkzeug_leads(method):
    for path in PATHS:
        # Where theirs would send a client on, or leave a slash out, ours finds nothing.
        theirs = (404, []) if "//" in path else found(path, method, Flask.create_url_adapter)
        assert found(path, method, type(APP).create_url_adapter) == theirs, path


def test_the_short_cut_knows_the_single_objects():
    assert {
        ("GET", "/users"),
        ("HEAD", "/users"),
        ("PATCH", "/tasks"),
        ("GET", "/user"),
    } <= APP.url_map.of_objects.keys()
