"""The walk of routes, roles and headers: nothing that a client adds to a request makes its refusal kinder."""

import json
import re
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from itertools import combinations, islice
from threading import Thread
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

import db
from app import create_app
from handlers.http import auth
from handlers.http.contract import MULTIPART
from tests.browser import CHROMIUM, tab
from tests.conftest import make_token, serve
from tests.test_access import TABLE, place

OURS, FOREIGN = "127.0.0.1:8000", "https://elsewhere.example"

UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}

ADDED = [
    *UPGRADE.items(),
    UPGRADE,
    ("Sec-WebSocket-Key", "x"),
    ("Sec-WebSocket-Protocol", "bearer, {admin}"),
    ("Connection", "close, Authorization"),
    *(("Forwarded", "for=127.0.0.1;host=localhost;proto=https"), ("Via", "1.1 localhost"), ("X-Real-IP", "127.0.0.1")),
    *(("X-Forwarded-For", "127.0.0.1"), ("X-Forwarded-Host", "localhost"), ("X-Forwarded-Proto", "https")),
    *(
        ("X-Forwarded-User", "admin"),
        ("X-Remote-User", "admin"),
        ("Remote-User", "admin"),
        ("Remote-Addr", "127.0.0.1"),
    ),
    *(("REMOTE_USER", "admin"), ("REMOTE_ADDR", "127.0.0.1"), ("X_FORWARDED_FOR", "127.0.0.1"), ("HTTP_HOST", OURS)),
    *(("Script-Name", "/docs"), ("SCRIPT_NAME", "/docs"), ("Path-Info", "/docs"), ("PATH_INFO", "/docs")),
    *(("X-Original-URL", "/docs"), ("X-Rewrite-URL", "/docs"), ("X-Forwarded-Prefix", "/docs")),
    *((name, method) for name in ("X-HTTP-Method-Override", "X-Method-Override") for method in ("GET", "OPTIONS")),
    *(("Host", host) for host in ("localhost", OURS, "[::1]", "evil.example", "a.localhost:1")),
    *(("Origin", origin) for origin in ("null", f"http://{OURS}", FOREIGN)),
    *(("Sec-Fetch-Site", site) for site in ("none", "same-origin", "same-site", "cross-site")),
    *(("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document"), ("Sec-Fetch-User", "?1")),
    *(("Access-Control-Request-Method", "GET"), ("Expect", "100-continue"), ("TE", "trailers")),
    *(("Trailer", "Authorization"), ("Range", "bytes=0-"), ("Prefer", "respond-async"), ("If-Match", "*")),
    *(("If-None-Match", "*"), ("Idempotency-Key", "walk"), ("Accept", "text/html")),
    *(("Content-Type", kind) for kind in ("application/json", "text/plain", MULTIPART + "; boundary=x")),
    *(
        ("Cookie", "token={admin}; session={admin}"),
        ("Proxy-Authorization", "Bearer {admin}"),
        ("X-Api-Key", "{admin}"),
    ),
    *(("X-Auth-Token", "{admin}"), ("Token", "{admin}"), ("X-Authorization", "Bearer {admin}")),
    *(("Authorization", given) for given in ("Basic {held}", "Basic {admin}", "bearer  {held} ", "BEARER {held}")),
    *(("Authorization", given) for given in ("Bearer {held}, Bearer {admin}", "Bearer {held},{held}", "{admin}", " ")),
]
"""What means something to the service, or to a layer below it. Of a good token that is told in a wrong place too."""

SPREAD = 23
"""Each route and caller is asked with one in so many pairs, the next with the ones beside: all pairs, on some route."""

REFUSED, CONTINUE = {401, 403, 421}, b"HTTP/1.1 100 Continue\r\n\r\n"


class Walk:
    """Requests and their answers, whatever asks them; `count` is how many."""

    def __init__(self, ask, tokens: dict[str, str]) -> None:
        self.ask, self.tokens, self.count, self.walked, self.last = ask, tokens, 0, 0, None

    def told(self, added: object, held: str) -> dict[str, str]:
        """Headers, with the tokens that they name."""
        headers = added if isinstance(added, dict) else dict([added])
        return {name: value.format(held=held, admin=self.tokens["admin"]) for name, value in headers.items()}

    def refused(self, method: str, path: str, headers: dict[str, str]) -> bool:
        self.count += 1
        status, body = self.last = self.ask(method, path, headers)
        # No route takes the query: whoever is let in is told so. What leads nowhere besides, by an upgrade, is no view.
        return status in REFUSED or (status in (400, 404, 405) and b"nonsense" not in body)

    def tries(self, method: str, path: str, held: str, base: dict[str, str], several: int) -> None:
        """What is refused so is refused with all that may be added, so many at a time; of pairs each SPREADth."""
        if not self.refused(method, path, base):
            return
        self.walked += 1
        step = SPREAD if several > 1 else 1
        for chosen in islice(combinations(ADDED, several), self.walked % step, None, step):
            added = {name: value for each in chosen for name, value in self.told(each, held).items()}
            # What makes it refused stays.
            if base.keys() & added.keys() <= {"Authorization"}:
                assert self.refused(method, path, base | added), (method, path, base, added, self.last)


def key(name: str) -> str:
    """A header's name in WSGI's environment."""
    found = name.upper().replace("-", "_")
    return found if found.startswith("CONTENT_") else f"HTTP_{found}"


def within(app):
    """Ask an application in this process, as gunicorn would."""

    def ask(method: str, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
        path, _, query = path.partition("?")
        environ = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "SCRIPT_NAME": "",
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "8000",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "HTTP_HOST": OURS,
            "wsgi.url_scheme": "http",
            "wsgi.input": BytesIO(),
            "wsgi.input_terminated": True,
        }
        told = []
        # A name in brackets is the environment's own: whence the request comes.
        environ |= {name[1:-1] if name[0] == "[" else key(name): value for name, value in headers.items()}
        body = b"".join(app(environ, lambda status, _: told.append(int(status[:3]))))
        return told[0], body

    return ask


def whole(connection: socket.socket) -> bytes:
    """An answer, to the length that its head tells."""
    answer = b""
    while some := connection.recv(2**16):
        answer = (answer + some).removeprefix(CONTINUE)
        head, end, body = answer.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        if end and (not length or len(body) >= int(length[1])):
            break
    return answer


def over(url: str, *more: str):
    """Ask a service over a connection, with more lines in each head."""
    where = urlsplit(url)

    def ask(method: str, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
        lines = [f"{method} {path} HTTP/1.1", *([] if "Host" in headers else [f"Host: {where.netloc}"]), *more]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        with socket.create_connection((where.hostname, where.port), 15) as connection:
            connection.sendall("\r\n".join([*lines, "", ""]).encode())
            answer = whole(connection)
        return int(answer[9:12]), answer

    return ask


def rows(database: str) -> dict[str, int]:
    """How many rows each table has, but for the count of requests."""
    with psycopg.connect(database) as connection:
        tables = connection.execute(
            "select schemaname, relname from pg_stat_user_tables where relname <> 'quotas'"
        ).fetchall()
        counts = {}
        for table in tables:
            count = sql.SQL("select count(*) from {}").format(sql.Identifier(*table))
            counts[".".join(table)] = connection.execute(count).fetchone()[0]
        return counts


def tokens_of(database: str) -> dict[str, str]:
    """A token of each role, for all and for one project, and one that is not good."""
    with psycopg.connect(database) as connection:
        connection.execute("insert into projects (name) values ('The one')")
        roles = auth.ROLES[1:]
        return {
            "nobody": "rh_nonsense",
            **{role: make_token(connection, role, role) for role in roles},
            **{f"{role}, project": make_token(connection, f"{role} of one", role, 1) for role in roles},
        }


@pytest.fixture(scope="module")
def guarded(module_database):
    """A service with tokens; `tokens` are they."""
    tokens = tokens_of(module_database)
    with serve(module_database, RATE_LIMIT="100000000") as service:
        service.tokens = tokens
        yield service


@pytest.fixture
def app(guarded, monkeypatch):
    """The application in this process, on the same database."""
    monkeypatch.setenv("RATE_LIMIT", "100000000")
    db.open_pool(guarded.database, 2)
    yield create_app()
    db.close_pool()


def bases(tokens: dict[str, str]):
    """Whoever asks: by which token, and with which headers."""
    yield "", {}
    for held in tokens.values():
        yield held, {"Authorization": f"Bearer {held}"}
    for more in ({"Origin": FOREIGN}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        yield tokens["admin"], {"Authorization": f"Bearer {tokens['admin']}", **more}


NEIGHBOURS = (
    {"Host": "evil.example"},
    {"Host": "evil.example:8000", "Origin": "http://evil.example:8000"},
    {"X-Forwarded-For": "127.0.0.1"},
    {"Via": "1.1 x"},
    {"Origin": FOREIGN},
    {"Sec-Fetch-Site": "same-site"},
)
"""Who is refused where no token is needed."""


@pytest.mark.parametrize("several", [1, pytest.param(2, marks=pytest.mark.thorough)])
def test_no_header_makes_a_refusal_kinder(guarded, app, several):
    walk, before = Walk(within(app), guarded.tokens), rows(guarded.database)
    for route in TABLE if several == 2 else [*TABLE][::3]:
        for held, base in bases(guarded.tokens):
            walk.tries(*place(route), held, base, several)
    # Of the channel itself, whoever names no token may say one later.
    walk.tries("GET", "/ws/events", "x", UPGRADE | {"Authorization": "Bearer x"}, several)
    walk.tries("GET", "/ws/events", "x", UPGRADE | {"Origin": FOREIGN}, several)
    assert rows(guarded.database) == before
    print(f"{walk.count} requests, by {several}")
    assert walk.count > 10_000


@pytest.mark.parametrize("several", [1, pytest.param(2, marks=pytest.mark.thorough)])
def test_no_header_makes_a_refusal_kinder_without_tokens(guarded, app, several, monkeypatch):
    monkeypatch.setattr(auth, "guarded", lambda: False)
    walk, before = Walk(within(app), guarded.tokens), rows(guarded.database)
    routes = [place(route) for route in TABLE]
    for method, path in routes if several == 2 else routes[::5]:
        for base in (*NEIGHBOURS, {"[REMOTE_ADDR]": "192.0.2.1"}):
            walk.tries(method, path, "x", base, several)
    assert rows(guarded.database) == before
    print(f"{walk.count} requests, by {several}")
    assert walk.count > 4000


@pytest.mark.parametrize("part", [12, pytest.param(1, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("line", ["X-Plain: yes", "Connection: keep-alive, TE"], ids=["plain", "of the connection"])
def test_no_header_makes_a_refusal_kinder_over_http(guarded, part, line):
    """Through the worker, whatever the head says of its connection."""
    walk, before = Walk(over(guarded.url, line), guarded.tokens), rows(guarded.database)
    closed = [route for route, least in TABLE.items() if least != "anyone"]
    for route in closed[::part]:
        for held, base in list(bases(guarded.tokens))[: 2 if part > 1 else None]:
            walk.tries(*place(route), held, base, 1)
            # Twice: they become one list.
            for more in ("Bearer x", f"Bearer {guarded.tokens['admin']}"):
                twice = {"Authorization": "Bearer x", "authorization": more}
                assert walk.refused(*place(route), twice), (route, more, walk.last)
    assert rows(guarded.database) == before
    print(f"{walk.count} requests")


# Browsers -------------------------------------------------------------------------------------------------------------


class Page(BaseHTTPRequestHandler):
    """A page of another site."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>Evil</title><body>")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def elsewhere():
    """The port of another site."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


HARM = """(async (base, token) => {
  const read = [], REFUSED = [401, 403, 421];
  const within = (ms, promise) => Promise.race([promise, new Promise(done => setTimeout(done, ms))]);
  const json = JSON.stringify({email: 'evil@evil.example', name: 'Evil', address: 'x', image: 'https://x.example/x'});
  const file = new FormData(); file.append('file', new Blob(['1,Evil\\n']), 'departments.csv');
  const tries = [['GET', '/users'], ['GET', '/backups'], ['GET', '/history'], ['GET', '/docs'],
    ['POST', '/users', json], ['POST', '/upload/departments', file], ['POST', '/upload/departments', '1,Evil\\n'],
    ['POST', '/backup/all'], ['POST', '/restore/departments'], ['POST', '/projects', '{"name": "Evil"}'],
    ['DELETE', '/users/1'], ['PATCH', '/users/1', '{"name": "Evil"}']];
  const heads = [{}, {'Content-Type': 'application/json'}, {Authorization: `Bearer ${token}`}];
  await Promise.all(tries.flatMap(([method, path, body]) => heads.flatMap(headers =>
    [['cors', 'include'], ['no-cors', 'include'], ['cors', 'omit']].map(async ([mode, credentials]) => {
      try {
        const answer = await fetch(base + path, {method, body, headers, mode, credentials});
        if (answer.type !== 'opaque' && !REFUSED.includes(answer.status)) read.push([method, path, answer.status]);
      } catch (refused) { if (!(refused instanceof TypeError)) read.push(String(refused)); }
    }))));
  const loads = (tag, attributes, act = () => 0) => within(3000, new Promise(done => {
    const made = Object.assign(document.createElement(tag), attributes);
    made.onload = () => done(made); made.onerror = () => done(made);
    document.body.append(made); act(made);
  }));
  await Promise.all(['multipart/form-data', 'application/x-www-form-urlencoded', 'text/plain'].flatMap(enctype =>
    ['/upload/departments', '/backup/all', '/restore/departments', '/users', '/projects'].map((path, at) => {
      const name = `${enctype}${at}`;
      return loads('iframe', {name}, () => {
        const form = document.createElement('form');
        Object.assign(form, {action: base + path, method: 'POST', enctype, target: name});
        form.innerHTML = '<input name=name value=Evil><input name=file type=file>';
        const chosen = new DataTransfer(); chosen.items.add(new File(['1,Evil\\n'], 'departments.csv'));
        form.elements.file.files = chosen.files;
        document.body.append(form); form.submit();
      });
    })));
  for (const path of ['/users', '/backup/all', '/docs']) {
    for (const tag of ['img', 'script']) await loads(tag, {src: base + path});
    const frame = await loads('iframe', {src: base + path});
    let text = ''; try { text = frame.contentDocument.body.innerText; } catch { /* not ours to read */ }
    if (text && !REFUSED.some(status => text.includes(status))) read.push(['frame', path, text.slice(0, 200)]);
  }
  await within(3000, new Promise(done => {
    const ws = new WebSocket(base.replace('http', 'ws') + '/ws/events');
    ws.onmessage = message => { read.push(['socket', message.data]); done(); }; ws.onclose = done;
  }));
  return JSON.stringify(read);
})"""
"""All that a page can send; what it could read of the answers."""


@pytest.mark.thorough
@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium here: apt install chromium")
@pytest.mark.parametrize("kept", ["service", "guarded"], ids=["without tokens", "with tokens"])
def test_no_page_of_another_site_uses_the_service_through_a_browser(request, kept, elsewhere):
    service = request.getfixturevalue(kept)
    held = service.tokens["admin"] if kept == "guarded" else "x"
    own = {"Authorization": f"Bearer {held}"} if kept == "guarded" else {}
    port = service.url.rpartition(":")[2]
    before, backups = rows(service.database), service.get("/backups", headers=own).json()
    with tab("--host-resolver-rules=MAP evil.example 127.0.0.1") as browser:
        browser.send("Page.setBypassCSP", enabled=True)  # of an answer that the page may be: it is not what protects
        for page, base in (
            (f"http://evil.example:{elsewhere}/", service.url),
            (f"http://127.0.0.1:{elsewhere}/", service.url),  # same site, another origin
            (f"http://evil.example:{port}/docs", f"http://evil.example:{port}"),  # rebound: its own name leads here
        ):
            browser.open(page)
            known = "x" if base != service.url else held
            read = json.loads(browser.evaluate(f"{HARM}({json.dumps(base)}, {json.dumps(known)})"))
            open_to_all = {"/docs"} if kept == "guarded" and base != service.url else set()
            assert [each for each in read if each[1] not in open_to_all] == [], page
        assert rows(service.database) == before
        assert service.get("/backups", headers=own).json() == backups
        browser.open(f"{service.url}/docs")
        made = (
            "fetch('/projects', {method: 'POST', headers: {'Content-Type': 'application/json', ...%s},"
            """ body: '{"name": "By its own page"}'}).then(answer => answer.status)"""
        )
        assert browser.evaluate(made % json.dumps(own)) == 201
