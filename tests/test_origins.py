"""By which names and from whose pages the service may be used: no site can use it through somebody's browser."""

import re

import pytest
from flask import g, request
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from app import create_app
from db import actor
from handlers.http import auth
from tests.test_access import TABLE, place

LOCAL = [
    "localhost",
    "LocalHost:1",
    "a.localhost:8000",
    "127.0.0.1",
    "127.9.8.7:65535",
    "[::1]",
    "[::1]:8000",
    "localhost:",
]
FOREIGN = [
    "evil.example",
    "evil.example:8000",
    "localhost.evil.example",
    "evillocalhost",
    "127.0.0.1.evil.example",
    "128.0.0.1",
    "10.0.0.1",
    "0.0.0.0",
    "[::]",
    "[::2]",
    "2130706433",
    "127.1",
    "0x7f.0.0.1",
    "x",
    "-",
    "localhost.",
]
MALFORMED = [
    "",
    " ",
    "local host",
    "loé",
    *[
        "localhost,evil.example",
        "localhost/",
        "localhost:x",
        "localhost:-1",
        "localhost:123456",
        "::1",
        "[::1",
        "[::1]x",
        "user@localhost",
        "http://localhost",
        "localhost:80:80",
        "localhost?",
        "localhost#",
        "*",
        "..localhost",
        ".localhost",
        "a..localhost",
        "localhost..",
        ".",
        ":8000",
        "localhost:65536",
        "127.0.0.1:99999",
        "[::1]:65536",
        "x" * 64 + ".localhost",
        "x." * 127 + "localhost",
    ],
]

FORWARDED = [
    "Forwarded",
    "Via",
    "X-Real-IP",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Forwarded-Server",
    "X-Forwarded",
    "X-Forwarded-By-Nobody-Knows-Whom",
    "X-Client-IP",
    "X-Cluster-Client-IP",
    "True-Client-IP",
    "CF-Connecting-IP",
    "Fastly-Client-IP",
    "X-Envoy-External-Address",
    "X-Original-Forwarded-For",
    "X-Original-Host",
    "X-Original-URL",
    "X-Rewrite-URL",
    *[
        "Client-IP",
        "Real-IP",
        "X-Remote-IP",
        "X-Originating-IP",
        "X-Forwarder-For",
        "X-Azure-ClientIP",
        "X-Azure-SocketIP",
    ],
    *[
        "CF-Connecting-IPv6",
        "CF-Pseudo-IPv4",
        "DO-Connecting-IP",
        "Fly-Client-IP",
        "X-AppEngine-User-IP",
        "X-ProxyUser-IP",
    ],
    *[
        "Proxy-Client-IP",
        "WL-Proxy-Client-IP",
        "X-Nf-Client-Connection-IP",
        "Ali-CDN-Real-IP",
        "X-IP",
        "X-Client-IP-Address",
    ],
    *["Remote-Addr", "X-Remote-Addr", "X-Client-Addr", "CloudFront-Viewer-Address", "Remote-User", "X-Remote-User"],
    *["X-Remote-Host", "X-Host", "Disguised-Host", "X-HTTP-Host-Override", "X-Original-URI", "X-Via", "CDN-Loop"],
    *["X-Vercel-Forwarded-For", "Fly-Forwarded-Port", "HTTP-Client-IP", "X-Proxied-For", "X-Proxy-Host"],
]

HARMLESS = [
    *["User-Agent", "Accept", "Accept-Language", "Cookie", "DNT", "Referer", "X-Request-Id", "X-Requested-With"],
    *[
        "Idempotency-Key",
        "Prefer",
        "X-Zip",
        "X-Skip",
        "X-Shipping",
        "Priority",
        "Traceparent",
        "X-Description",
        "X-Recipient",
    ],
]
"""What clients send of themselves."""

OURS = "127.0.0.1:8000"

ORIGINS = [
    "",
    "http://127.0.0.1:8000, null",
    *[
        "null",
        "https://evil.example",
        "http://127.0.0.1",
        "http://127.0.0.1:80",
        "http://127.0.0.1:8001",
        "http://localhost:8000",
        "127.0.0.1:8000",
        "ftp://127.0.0.1:8000",
        "http://127.0.0.1:8000/",
        "http://x@127.0.0.1:8000",
    ],
]
OTHERS = (
    *({"Origin": origin} for origin in ORIGINS),
    *({"Sec-Fetch-Site": site} for site in ("cross-site", "same-site", "CROSS-SITE", "nonsense", "")),
    {"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
)

OWN = (
    {},
    {"Origin": "http://127.0.0.1:8000"},
    {"Origin": "https://127.0.0.1:8000"},
    {"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none"},
)


@pytest.fixture(params=[False, True], ids=["without tokens", "with tokens"])
def client(request, monkeypatch):
    """The application in this process, its database left out: what comes before a view."""
    monkeypatch.setattr(auth, "guarded", lambda: request.param)
    found = create_app().test_client()
    found.guarded = request.param
    return found


@pytest.mark.parametrize("path", ["/docs", "/ping", "/users?nonsense=1", "/nothing", "/metrics", "/users//1"])
def test_a_name_is_answered_to_or_not_whatever_is_asked(client, path):
    for method in ("GET", "HEAD", "POST", "OPTIONS", "TRACE"):
        answered = client.open(path, method=method, headers={"Host": "localhost"}).status_code
        assert answered not in (403, 421)
        for host in LOCAL:
            assert client.open(path, method=method, headers={"Host": host}).status_code == answered, host
        for host in FOREIGN:
            expected = answered if client.guarded else 421
            assert client.open(path, method=method, headers={"Host": host}).status_code == expected, host
        for host in MALFORMED:
            assert client.open(path, method=method, headers={"Host": host}).status_code == 400, host


@pytest.mark.parametrize("host", ["[::1]", "[0:0::1]", "[0000:0000:0000:0000:0000:0000:0000:0001]"])
def test_an_address_is_the_same_however_it_is_written(client, host):
    client.application.config["ALLOWED_HOSTS"] = ["[::1]"]
    assert client.get("/docs", headers={"Host": host}).status_code == 200


def test_with_tokens_only_the_allowed_names_are_answered_to(client):
    client.application.config["ALLOWED_HOSTS"] = ["api.example", "[fe80::1]"]
    for host in ("api.example", "API.example:8443", "[fe80::1]"):
        assert client.get("/docs", headers={"Host": host}).status_code == (200 if client.guarded else 421), host
    for host in [*FOREIGN, "api.example.evil.example", "xapi.example"]:
        assert client.get("/docs", headers={"Host": host}).status_code == 421, host
    assert client.get("/docs", headers={"Host": "localhost"}).status_code == (421 if client.guarded else 200)


def test_the_name_it_was_told_to_serve_on_is_answered_to(client):
    client.application.config["HOST"] = "rowhouse.internal"
    assert client.get("/docs", headers={"Host": "rowhouse.internal:8000"}).status_code == 200
    for host in ("x.rowhouse.internal", "xrowhouse.internal", "rowhouse.internal.evil.example", "rowhouse", "internal"):
        assert client.get("/docs", headers={"Host": host}).status_code == (200 if client.guarded else 421), host


def test_a_load_balancer_is_told_whether_it_works_by_any_name(client):
    client.application.config["ALLOWED_HOSTS"] = ["api.example"]
    routes = [rule.rule for rule in client.application.url_map.iter_rules() if view(client, rule).any_host]
    assert routes == ["/health/live", "/health/ready"]
    for host in ("10.0.0.1:8000", "evil.example", ""):
        assert client.get("/health/live", headers={"Host": host, "Via": "1.1 x"}).status_code == 200
        assert client.post("/health/live", headers={"Host": host}).status_code in (400, 421)


def view(client, rule):
    return client.application.view_functions[rule.endpoint]


def test_what_was_forwarded_is_answered_with_tokens_only(client):
    for name in FORWARDED:
        for path in ("/docs", "/users?nonsense=1", "/nothing"):
            plain = client.get(path).status_code
            for others in ({}, {f"X-{number}-{'long' * 100}": "x" for number in range(10)}):
                answer = client.get(path, headers={name: "x"} | others)
                assert answer.status_code == (plain if client.guarded else 403), (name, path, len(others))


def test_what_clients_say_of_themselves_is_not_taken_for_forwarded(client):
    for name in HARMLESS:
        assert client.get("/users?nonsense=1", headers={name: "x"}).status_code not in (403, 421), name


@pytest.mark.parametrize("address", ["127.0.0.1", "192.0.2.1"])
def test_nobody_looks_like_another_by_a_header(client, address):
    """A claim to come from elsewhere gains nothing and changes nothing of what is kept of a caller."""
    seen = []
    client.application.after_request_funcs.setdefault(None, []).append(
        lambda answer: seen.append((request.remote_addr, g.get("token"), actor.get()[0])) or answer
    )
    environ = {"REMOTE_ADDR": address}
    plain = client.get("/users?nonsense=1", environ_overrides=environ).status_code
    for name in FORWARDED:
        for value in ("127.0.0.1", "for=127.0.0.1", "203.0.113.8", "::1", "localhost", "admin"):
            answer = client.get("/users?nonsense=1", headers={name: value}, environ_overrides=environ)
            assert answer.status_code == (plain if client.guarded else 403), name
            assert seen[-1] == seen[0], name
    assert seen[0][0] == address


@pytest.mark.parametrize("address", ["192.0.2.1", "10.0.0.1", "2001:db8::1", ""])
def test_without_tokens_nobody_on_another_machine_is_answered(client, address):
    answer = client.get("/users?nonsense=1", environ_overrides={"REMOTE_ADDR": address})
    assert answer.status_code == (401 if client.guarded else 403)


def refused(answer) -> bool:
    return answer.status_code == 403 and "other origins" in answer.json["detail"]


def test_no_page_of_another_origin_changes_anything(client):
    """Every route and method, also those that lead nowhere."""
    changing = [place(route) for route in TABLE if not route.startswith("GET ")]
    changing += [
        ("POST", "/nothing"),
        ("TRACE", "/users"),
        ("BREW", "/users"),
        ("PATCH", "/users"),
        ("POST", "/ws/events"),
    ]
    assert len(changing) > 60
    for method, path in changing:
        for headers in OTHERS:
            assert refused(client.open(path, method=method, headers={"Host": OURS} | headers)), (method, path, headers)
        for headers in OWN:
            assert not refused(client.open(path, method=method, headers={"Host": OURS} | headers)), (
                method,
                path,
                headers,
            )


def test_a_page_of_another_origin_may_ask_what_it_cannot_read(client):
    for route in TABLE:
        if route.startswith("GET "):
            for headers in OTHERS:
                assert not refused(client.get(place(route)[1], headers={"Host": OURS} | headers)), (route, headers)


def test_pages_of_the_origins_that_are_listed_may(client):
    client.application.config["CORS_ORIGINS"] = ["https://a.example"]
    for origin, may in (("https://a.example", True), ("http://a.example", False), ("https://a.example:8000", False)):
        headers = {"Host": OURS, "Origin": origin, "Sec-Fetch-Site": "cross-site"}
        assert refused(client.post("/users?nonsense=1", headers=headers)) is not may, origin


@pytest.mark.parametrize(
    ("host", "scheme", "origin", "own"),
    [
        ("api.example", "http", "https://api.example", True),  # TLS ended before
        ("api.example:443", "http", "https://api.example", True),
        ("api.example:80", "http", "https://api.example", False),
        ("api.example", "http", "http://api.example", True),
        ("api.example", "https", "http://api.example", False),  # a page that came without TLS
        ("api.example", "https", "https://api.example", True),
        ("api.example", "http", "https://api.example:8443", False),
        ("API.example", "http", "https://api.EXAMPLE", True),
    ],
)
def test_an_origin_is_own_as_its_client_sees_it(client, host, scheme, origin, own):
    if not client.guarded:
        client.application.config["HOST"] = "api.example"
    answer = client.post("/users?nonsense=1", headers={"Host": host, "Origin": origin}, base_url=f"{scheme}://x")
    assert refused(answer) is not own


def test_the_channel_is_refused_before_the_upgrade(service):
    url = service.url.replace("http", "ws") + "/ws/events"
    port = service.url.rpartition(":")[2]
    for headers, status in (
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": f"http://127.0.0.1:{int(port) + 1}"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"X-Forwarded-For": "203.0.113.8"}, 403),
    ):
        with pytest.raises(InvalidStatus) as refusal:
            connect(url, additional_headers=headers)
        assert refusal.value.response.status_code == status, headers
    with pytest.raises(InvalidStatus) as refusal:
        connect(f"ws://evil.example:{port}/ws/events", sock=service.raw(), origin=f"http://evil.example:{port}")
    assert refusal.value.response.status_code == 421
    with connect(url, origin=service.url) as ws:
        assert "subscribed" in ws.recv(5)


def spelled(path: str) -> set[str]:
    """A path, as others would spell it."""
    parts = [at for at, letter in enumerate(path) if letter == "/"]
    doubled = {path[:at] + more + path[at:] for at in parts for more in ("/", "//", "/.", "/evil.example/..")}
    return {"", f"{path}/", f"{path}//", f"//evil.example{path}", f"\\\\evil.example{path}", *doubled} - {path}


def test_nobody_is_sent_to_another_address(client):
    """Every route, below a Host that somebody else chose."""
    asked = 0
    for rule in client.application.url_map.iter_rules():
        path = re.sub("<[^>]+>", "1", rule.rule)
        for other in spelled(path):
            for method in sorted(rule.methods | {"GET"}):
                environ = {"PATH_INFO": other, "QUERY_STRING": "nonsense=1"}
                answer = client.open(method=method, headers={"Host": "a.localhost"}, environ_overrides=environ)
                asked += 1
                assert "Location" not in answer.headers, (method, other)
                assert answer.status_code >= 400 or method == "OPTIONS", (method, other)
    assert asked > 4000
