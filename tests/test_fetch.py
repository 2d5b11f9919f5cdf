"""What the service asks of others: whatever they answer, and however slowly, it ends in time and goes nowhere else."""

import json
import socket
import ssl
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from ipaddress import ip_address
from types import SimpleNamespace

import gevent
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from jwt.exceptions import PyJWKClientError

from handlers.http import oidc
from handlers.http.fetch import Connection, Failed, Timed, fetch
from handlers.messages import senders
from handlers.messages.senders import by_webhook

WITHIN, UNHURRIED, LIMIT = 0.3, 10.0, 20_000

BODY = b'{"keys": []}'


def plain(client, head):
    client.sendall(head + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)


def until_the_end(client, head):
    client.sendall(head + b"\r\n" + BODY)


def chunked(client, head):
    client.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY))


def empty(client, head):
    client.sendall(head + b"Content-Length: 0\r\n\r\n")


def cut(client, head):
    client.sendall(head + b"Content-Length: 1000\r\n\r\n" + BODY)


def cut_chunk(client, head):
    client.sendall(head + b"Transfer-Encoding: chunked\r\n\r\nff\r\n" + BODY)


def no_head(client, head):
    client.sendall(head)


def endless(client, head):
    client.sendall(head + b"\r\n")
    while True:
        client.sendall(BODY * 1000)


def endless_chunks(client, head):
    client.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
    while True:
        client.sendall(b"4\r\nabcd\r\n" * 1000)


def slow(client, head):
    client.sendall(head + b"Content-Length: 1000\r\n\r\n")
    while True:
        client.sendall(b".")
        time.sleep(0.05)  # a slow peer


def slow_head(client, head):
    for byte in head + b"X: " + b"x" * 1000:
        client.sendall(bytes([byte]))
        time.sleep(0.05)  # a slow peer


def silent(client, head):
    client.recv(1)


def many_headers(client, head):
    client.sendall(head + b"".join(b"X-%d: x\r\n" % number for number in range(200)) + b"\r\n" + BODY)


def long_header(client, head):
    client.sendall(head + b"X: " + b"x" * 2**17 + b"\r\n\r\n" + BODY)


def endless_headers(client, head):
    client.sendall(head + b"X: ")
    while True:
        client.sendall(b"x" * 1000)


def continued(client, head):
    while True:
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        time.sleep(0.01)  # a slow peer


def hinted(client, head):
    while True:
        client.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n")
        time.sleep(0.01)  # a slow peer


def interim(client, head):
    """All that may come before an answer, and then it."""
    for status in (100, *range(102, 200), 100):
        client.sendall(b"HTTP/1.1 %d Not yet\r\nLink: </>\r\n\r\n" % status)
    plain(client, head)


def reset(client, head):
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


WHOLE = (plain, until_the_end, chunked, empty, interim)
LONG = (endless, endless_chunks)
BROKEN = (cut, cut_chunk, no_head, many_headers, long_header, endless_headers, reset)
LATE = (slow, slow_head, silent, continued, hinted)

KINDS = {kind.__name__: kind for kind in (*WHOLE, *LONG, *BROKEN, *LATE)}


class Strange:
    """Answers /{status}/{kind} so, with a Location that leads to itself; counts what it was asked for."""

    def __init__(self):
        self.server = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.url, self.asked = f"http://127.0.0.1:{self.server.getsockname()[1]}", []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with suppress(OSError):
            while True:
                threading.Thread(target=self.answer, args=self.server.accept()[:1], daemon=True).start()

    def answer(self, client):
        with client, suppress(OSError):
            got = b""
            while b"\r\n\r\n" not in got and (some := client.recv(65536)):
                got += some
            line = got.partition(b"\r\n")[0].decode()
            self.asked.append(line)
            _, status, kind = line.split()[1].split("/")
            location = f"Location: {self.url}/200/plain\r\n"
            KINDS[kind](client, f"HTTP/1.1 {status} Said\x1b so\r\n{location}".encode())
            client.shutdown(socket.SHUT_WR)
            client.settimeout(1)
            client.recv(1)


@pytest.fixture(scope="module")
def strange():
    found = Strange()
    yield found
    found.server.close()


@contextmanager
def in_time(within=WITHIN):
    began = time.monotonic()
    yield
    assert time.monotonic() - began < within + 3


def outcome(url, data=None, within=WITHIN):
    """The length of what was fetched, or "failed"."""
    with in_time(within):
        try:
            return len(fetch(url, within, LIMIT, data))
        except Failed:
            return "failed"


def expected(status, kind):
    if not 200 <= status < 300 or kind in (*BROKEN, *LATE):
        # A 204 has no body, and its head came.
        return 0 if status == 204 and kind in (cut, slow) else "failed"
    if status == 204 or kind is empty:
        return 0
    return len(BODY) if kind in WHOLE else LIMIT


QUICK = [kind for kind in KINDS.values() if kind not in LATE]

EVERY = [(status, kind) for status in range(101, 600) for kind in QUICK]
SOME = [(status.value, kind) for status in HTTPStatus for kind in KINDS.values() if kind in QUICK or status % 100 < 3]


@pytest.mark.parametrize("cases", [SOME, pytest.param(EVERY, marks=pytest.mark.thorough)], ids=["some", "every"])
def test_whatever_is_answered_it_ends_in_time_and_no_redirect_is_followed(strange, cases):
    # 100 is no answer yet, and chunks behind a 204 are no HTTP.
    cases = [
        (status, kind) for status, kind in cases if status != 100 and (status, "chunk" in kind.__name__) != (204, True)
    ]
    strange.asked.clear()
    with ThreadPoolExecutor(40) as pool:
        asked = [
            pool.submit(
                outcome, f"{strange.url}/{status}/{kind.__name__}", b"{}", WITHIN if kind in LATE else UNHURRIED
            )
            for status, kind in cases
        ]
        found = [each.result() for each in asked]
    wrong = [
        (status, kind.__name__, got)
        for (status, kind), got in zip(cases, found, strict=True)
        if got != expected(status, kind)
    ]
    assert not wrong, wrong
    lines = {kind: [] for kind in (True, False)}
    for status, kind in cases:
        lines[kind in LATE].append(f"POST /{status}/{kind.__name__} HTTP/1.1")
    came = Counter(strange.asked)
    assert not came - Counter(lines[True] + lines[False])
    # Time may be over before what is late anyway was asked for.
    assert not Counter(lines[False]) - came


def test_all_addresses_of_a_host_have_one_time_together(monkeypatch):
    def nobody(address, timeout):
        time.sleep(timeout)  # a slow peer
        raise TimeoutError

    many = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (f"192.0.2.{n}", 80)) for n in range(1, 20)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **options: many)
    monkeypatch.setattr(socket, "create_connection", nobody)
    with in_time(), pytest.raises(Failed):
        fetch("http://many.example/", WITHIN, LIMIT)


def test_nothing_is_sent_after_the_time_is_over():
    one, other = socket.socketpair()
    with one, other, pytest.raises(TimeoutError):
        Timed(one, Connection("many.example", 0)).sendall(b"late")


@pytest.fixture
def secure(strange, tmp_path):
    """An address where the same is answered over TLS, each byte as it comes, and a file that vouches for it."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "server.pem"
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    pem.write_bytes(
        key.private_bytes(encoding, form, serialization.NoEncryption()) + certificate.public_bytes(encoding)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)

    def serve(server):
        with suppress(OSError):
            while True:
                threading.Thread(target=answer, args=server.accept()[:1], daemon=True).start()

    def answer(client):
        with suppress(OSError):
            strange.answer(context.wrap_socket(client, server_side=True))

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        yield f"https://127.0.0.1:{server.getsockname()[1]}", pem


@pytest.mark.parametrize("kind", [plain, *LATE, *BROKEN])
def test_over_tls_the_same_bounds_hold(secure, monkeypatch, kind):
    url, pem = secure
    assert outcome(f"{url}/200/plain") == "failed", "nobody vouches for it"
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    assert outcome(f"{url}/200/plain", within=UNHURRIED) == len(BODY)
    assert outcome(f"{url}/200/{kind.__name__}", within=WITHIN if kind in LATE else UNHURRIED) == expected(200, kind)


def test_only_http_is_spoken():
    for url in (
        "file:///etc/hostname",
        "ftp://127.0.0.1/x",
        "data:,x",
        "nowhere",
        "http://",
        "http://[",
        "http://127.0.0.1:1",
    ):
        assert outcome(url) == "failed", url


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308, 404, 500])
def test_a_webhook_that_does_not_take_an_event_is_a_failed_try(strange, status):
    strange.asked.clear()
    event = SimpleNamespace(event_id="7", user_id="ann", description="x")
    with pytest.raises(Failed, match=f"HTTP Error {status}"):
        by_webhook(f"{strange.url}/{status}/plain").send([event])
    assert strange.asked == [f"POST /{status}/plain HTTP/1.1"]


@pytest.mark.parametrize("kind", LATE)
def test_a_webhook_has_a_time_for_its_whole_answer(strange, kind, monkeypatch):
    monkeypatch.setattr(senders, "WEBHOOK_WITHIN", WITHIN)
    event = SimpleNamespace(event_id="7", user_id="ann", description="x")
    with in_time(), pytest.raises(Failed):
        by_webhook(f"{strange.url}/200/{kind.__name__}").send([event])


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS.values() if kind not in (plain, until_the_end, chunked, interim)]
)
def test_an_issuer_is_asked_within_limits(strange, kind, monkeypatch):
    monkeypatch.setattr(oidc, "ANSWER_WITHIN", WITHIN)
    oidc.failed.clear()
    url = f"{strange.url}/200/{kind.__name__}"
    with in_time(), pytest.raises(oidc.Away):
        oidc.document(url)
    strange.asked.clear()
    with pytest.raises(oidc.Away):
        oidc.document(url)
    assert strange.asked == [], "it is not asked again at once"


def test_an_issuer_is_asked_within_a_time_whatever_takes_it(monkeypatch):
    """A name that is not found in time, say."""
    oidc.failed.clear()
    monkeypatch.setattr(oidc, "ANSWER_WITHIN", WITHIN)
    monkeypatch.setattr(oidc.fetch, "fetch", lambda *_: gevent.sleep(WITHIN + 4) or b"{}")  # a slow peer
    with in_time(), pytest.raises(oidc.Away):
        oidc.document("https://issuer.example")


@pytest.mark.parametrize(
    "body", [b"", b"x", b"[]", b"7", b'"x"', b"{", b"\xff", b"[" * 100_000, b"{}" + b" " * oidc.DOCUMENT_LIMIT]
)
def test_what_is_no_document_is_none(monkeypatch, body):
    oidc.failed.clear()
    monkeypatch.setattr(oidc.fetch, "fetch", lambda *_: body)
    with pytest.raises(oidc.Away):
        oidc.document("https://issuer.example/keys")


@pytest.mark.parametrize(
    "where", [None, 7, [], "", "x", "http://issuer.example/keys", "file:///etc/passwd", "https", "http://["]
)
def test_keys_come_by_no_weaker_way_than_their_issuer(monkeypatch, where):
    oidc.failed.clear()
    oidc.keys.cache_clear()
    monkeypatch.setattr(oidc.fetch, "fetch", lambda *_: json.dumps({"jwks_uri": where}).encode())
    with pytest.raises(oidc.Away):
        oidc.keys("https://issuer.example")


@pytest.mark.parametrize(
    "found",
    [
        *({}, {"keys": 7}, {"keys": []}, {"keys": [7]}, {"keys": [{"kty": "?"}]}, {"keys": [{}]}),
        {"keys": [{"kty": "RSA", "alg": "none"}]},
    ],
)
def test_keys_that_are_none_are_as_if_it_was_away(monkeypatch, found):
    oidc.failed.clear()
    monkeypatch.setattr(oidc.fetch, "fetch", lambda *_: json.dumps(found).encode())
    with pytest.raises(oidc.Away):
        oidc.Keys("https://issuer.example/keys").get_jwk_set()


def test_keys_are_asked_for_again_after_five_minutes(monkeypatch):
    """Until then whoever took a key back is not heard."""
    key = ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key(), as_dict=True) | {"use": "sig"}
    told = {"keys": [key | {"kid": "old"}], "jwks_uri": "https://issuer.example/keys"}
    oidc.failed.clear()
    oidc.keys.cache_clear()
    monkeypatch.setattr(oidc.fetch, "fetch", lambda *_: json.dumps(told).encode())
    assert oidc.keys("https://issuer.example").get_signing_key("old")
    told["keys"] = [key | {"kid": "new"}]
    assert oidc.keys("https://issuer.example").get_signing_key("old")
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 301)
    with pytest.raises(PyJWKClientError):
        oidc.keys("https://issuer.example").get_signing_key("old")
    assert oidc.keys("https://issuer.example").get_signing_key("new")
    oidc.keys.cache_clear()


def test_for_keys_that_are_not_among_them_it_is_asked_every_half_minute_at_most(monkeypatch):
    """From when it was asked last, whatever for: anybody can make up names of keys."""
    key = ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key(), as_dict=True) | {"kid": "good"}
    asked = []
    oidc.failed.clear()
    monkeypatch.setattr(oidc.fetch, "fetch", lambda *_: asked.append(1) or json.dumps({"keys": [key]}).encode())
    keys, began = oidc.Keys("https://issuer.example/keys", lifespan=oidc.KEYS_KEPT), time.monotonic()
    for after, times in ((0, 1), (29, 1), (31, 2), (60, 2), (62, 3), (362.5, 4), (363, 4), (391, 4), (393, 5)):
        monkeypatch.setattr(time, "monotonic", lambda now=began + after: now)
        assert keys.get_signing_key("good")
        for number in range(5):
            with pytest.raises(PyJWKClientError):
                keys.get_signing_key(f"made up {number}")
        assert len(asked) == times, after
