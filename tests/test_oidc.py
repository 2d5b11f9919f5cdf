"""JWTs of an issuer: which are good, for what, and what becomes of all others."""

import base64
import hashlib
import hmac
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import permutations, product
from types import SimpleNamespace

import jwt
import psycopg
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import HMACAlgorithm, RSAAlgorithm, get_default_algorithms
from websockets.sync.client import connect

from app import create_app
from handlers.http import oidc
from tests.conftest import free_port, make_token, serve
from tests.test_running import refusal

APP = create_app()

KEY, OTHER, CURVE = (
    rsa.generate_private_key(65537, 2048),
    rsa.generate_private_key(65537, 2048),
    ec.generate_private_key(ec.SECP256R1()),
)

SECRET = b"known to each who checks a JWT by it"

KINDS = {
    KEY: ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    CURVE: ("ES256",),
    ec.generate_private_key(ec.SECP384R1()): ("ES384",),
    ec.generate_private_key(ec.SECP521R1()): ("ES512", "ES521"),
    ec.generate_private_key(ec.SECP256K1()): ("ES256K",),
    ed25519.Ed25519PrivateKey.generate(): ("EdDSA",),
    SECRET * 2: ("HS256", "HS384", "HS512"),
}
"""A key of each kind, and what it can sign by."""

NAMED = {f"{algorithms[0]} for {alg}": (key, alg) for key, algorithms in KINDS.items() for alg in (None, *algorithms)}
"""Keys of the issuer, by their names: each for any algorithm, and for one."""


def as_jwk(key: object, algorithm: str) -> dict:
    public = key if isinstance(key, bytes) else key.public_key()
    return get_default_algorithms()[algorithm].to_jwk(public, as_dict=True)


class Issuer(BaseHTTPRequestHandler):
    """An issuer with one key, or others, and a secret among them; it counts how often it is asked for them."""

    keys = {"first": KEY}
    asked = 0

    def do_GET(self) -> None:
        url = f"http://127.0.0.1:{self.server.server_port}"
        if self.path == "/.well-known/openid-configuration":
            answer = {"issuer": url, "jwks_uri": f"{url}/keys"}
        else:
            Issuer.asked += 1
            answer = {
                "keys": [
                    RSAAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": kid, "use": "sig"}
                    for kid, key in Issuer.keys.items()
                ]
                + [HMACAlgorithm.to_jwk(SECRET, as_dict=True) | {"kid": "shared", "use": "sig", "alg": "HS256"}]
                + [
                    as_jwk(key, kid.split()[0]) | {"kid": kid, "use": "sig"} | ({"alg": alg} if alg else {})
                    for kid, (key, alg) in NAMED.items()
                ]
            }
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def issuer():
    with ThreadingHTTPServer(("127.0.0.1", 0), Issuer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def guarded(module_database, issuer):
    with serve(module_database, WORKERS="1", OIDC_ISSUER=issuer, OIDC_AUDIENCE="rowhouse") as service:
        yield service


@pytest.fixture
def claims(issuer):
    now = int(time.time())
    return {
        "iss": issuer,
        "aud": "rowhouse",
        "sub": "ann",
        "iat": now,
        "nbf": now - 1,
        "exp": now + 60,
        "role": "writer",
    }


def signed(claims: dict, key=KEY, algorithm: str = "RS256", kid: str = "first") -> str:
    return jwt.encode(claims, key, algorithm, headers={"kid": kid})


def status(service, token: str, method: str = "GET", path: str = "/users", **options) -> int:
    return service.request(method, path, headers={"Authorization": f"Bearer {token}"}, **options).status_code


def test_the_claims_say_who_it_is_and_what_it_may(guarded, claims):
    token = signed(claims)
    made = guarded.post("/projects", json={"name": "By JWT"}, headers={"Authorization": f"Bearer {token}"})
    assert made.status_code == 201
    with psycopg.connect(guarded.database) as connection:
        actor = connection.execute("select actor from history.entries where project = %s", [made.json()["id"]])
        assert actor.fetchone() == ("oidc:ann",)
    assert status(guarded, token, "GET", "/backups") == 403
    assert status(guarded, signed(claims | {"role": ["other", "admin"]}), "GET", "/backups") == 200
    assert status(guarded, signed(claims | {"role": "reader"}), "POST", "/users", json={"email": "a@b.test"}) == 403
    assert status(guarded, signed({**claims, "role": "owner"})) == 403
    for roles in permutations(("reader", "writer", "admin"), 2):
        token = signed(claims | {"role": roles})
        assert status(guarded, token, "GET", "/backups") == (200 if "admin" in roles else 403), roles
        assert status(guarded, token, "POST", "/projects", json={"name": "By two roles"}) == 201, roles
    assert guarded.get("/users").status_code == 401


def test_a_claim_holds_it_to_a_project(guarded, claims):
    with psycopg.connect(guarded.database, autocommit=True) as connection:
        one, other = (
            connection.execute("insert into projects (name) values ('Fenced') returning id").fetchone()[0] for _ in "12"
        )
    token = signed(claims | {"project": one})
    assert status(guarded, token, "GET", f"/projects/{one}") == 200
    assert status(guarded, token, "GET", f"/projects/{other}") == 404
    assert status(guarded, token) == 403
    for nonsense in ("x", 0, -1, [], {}, "1 or 1", 10**30, f"{1:020}{0:020}", True, False, None, ""):
        assert status(guarded, signed(claims | {"project": nonsense}), "GET", f"/projects/{one}") == 404, nonsense


def test_claims_may_lie_deeper_and_what_lies_elsewhere_says_nothing(module_database, issuer, claims):
    """What is on the way and no object names no project: it is not as if there was no claim, which reaches all."""
    names = {"OIDC_ROLE_CLAIM": "realm.roles", "OIDC_PROJECT_CLAIM": "realm.of.project"}
    with serve(module_database, WORKERS="1", OIDC_ISSUER=issuer, OIDC_AUDIENCE="rowhouse", **names) as service:
        with psycopg.connect(module_database, autocommit=True) as connection:
            add = "insert into projects (name) values ('Deep') returning id"
            one, other = (connection.execute(add).fetchone()[0] for _ in "12")

        def answers(**realm: object) -> list[int]:
            token = signed(claims | {"role": "admin", "project": one, "realm.roles": "admin", "realm": realm})
            return [
                status(service, token, "GET", path) for path in (f"/projects/{one}", f"/projects/{other}", "/backups")
            ]

        assert answers() == answers(roles=7) == [403, 403, 403]
        assert answers(roles="writer") == answers(roles="writer", of={}) == [200, 200, 403]
        assert answers(roles=["admin"]) == [200, 200, 200]
        assert answers(roles="writer", of={"project": one}) == [200, 404, 403]
        for nothing in (one, f"{one}", [one], True, False, 0, "", [], {"project": {"id": one}}, {"project": ""}):
            assert answers(roles="writer", of=nothing) == [404, 404, 403], nothing


@pytest.mark.parametrize(
    ("claims", "reached"),
    [
        ({}, ""),
        ({"project": 7}, ""),
        ({"our": {}}, ""),
        ({"our": {"project": 7}}, "7"),
        ({"our": {"project": "7"}}, "7"),
        *(({"our": {"project": nothing}}, "0") for nothing in (None, [], {}, "", False, 0)),
        *(({"our": nothing}, "0") for nothing in (None, [], "", False, 0, 7)),
    ],
)
def test_only_a_jwt_without_the_claim_reaches_all_projects(claims, reached):
    """Also where it would be within another: what is no object there is no reason to let anybody in."""
    assert oidc.project(oidc.claim(claims, "our.project")) == reached


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def test_no_other_jwt_is_good(guarded, claims):
    now = int(time.time())
    public = KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    good = signed(claims)
    head, body, signature = good.split(".")
    # By hand: the library would refuse to make it.
    confused = f"{part({'alg': 'HS256', 'kid': 'first'})}.{body}"
    mac = base64.urlsafe_b64encode(hmac.digest(public, confused.encode(), hashlib.sha256)).rstrip(b"=").decode()
    bad = {
        "expired": signed(claims | {"exp": now - 1}),
        "expired just now": signed(claims | {"exp": now}),
        "too early": signed(claims | {"nbf": now + 30}),
        "issued later than now": signed(claims | {"iat": now + 30}),
        "for others": signed(claims | {"aud": "another"}),
        "of another issuer": signed(claims | {"iss": "https://evil.example"}),
        "signed by another key": signed(claims, OTHER),
        "of a key that is not the issuer's": signed(claims, OTHER, kid="second"),
        "of another kind of key": signed(claims, CURVE, "ES256"),
        "signed by a secret that is among the keys": signed(claims, SECRET, "HS256", kid="shared"),
        "unsigned": f"{part({'alg': 'none', 'kid': 'first'})}.{body}.",
        "with the public key as a secret": f"{confused}.{mac}",
        "altered": f"{head}.{part(claims | {'role': 'admin'})}.{signature}",
        "without a key's name": jwt.encode(claims, KEY, "RS256"),
        "a header that brings its own key": jwt.encode(
            claims, OTHER, "RS256", headers={"kid": "x", "jwk": RSAAlgorithm.to_jwk(OTHER.public_key(), as_dict=True)}
        ),
        "nonsense": "a.b.c",
        "dots": "..",
        **{
            f"without {name}": signed({key: claims[key] for key in claims.keys() - {name}})
            for name in ("iss", "sub", "aud", "exp")
        },
    }
    assert status(guarded, good) == 200
    assert {why: status(guarded, token) for why, token in bad.items()} == dict.fromkeys(bad, 401)


def test_a_jwt_is_good_by_four_algorithms_and_a_key_for_its_own(guarded, claims):
    """Each algorithm there is, by each kind of key that an issuer may have: all others are 401, never a failure."""
    signers = {algorithm: key for key, algorithms in KINDS.items() for algorithm in algorithms}
    assert {*signers, "none"} == {*get_default_algorithms()}
    answers, expected = {}, {}
    for algorithm, (kid, (key, only)) in product(get_default_algorithms(), NAMED.items()):
        fits = algorithm in KINDS[key] and only in (None, algorithm)
        token = jwt.encode(claims, signers.get(algorithm), algorithm, headers={"kid": kid})
        answers[algorithm, kid] = status(guarded, token)
        expected[algorithm, kid] = 200 if fits and algorithm in ("RS256", "PS256", "ES256", "EdDSA") else 401
    assert {case: got for case, got in answers.items() if got != expected[case]} == {}


def test_no_jwt_is_good_whose_claims_are_odd(guarded, claims):
    """As 401, on a write too, where history would be told the name: never as a failure."""
    subs = ["", " ", "\ud800", "a\0b", "a\nb", "\x1b[31m", "\u202eann", "x" * 256, 7, True, [], {}, None]
    times = ["1", str(int(time.time()) + 60), float("inf"), float("nan"), True, [], {}, None]
    odd = {f"sub {sub!r}": claims | {"sub": sub} for sub in subs}
    odd |= {f"{name} {when!r}": claims | {name: when} for name in ("exp", "nbf", "iat") for when in times[2:]}
    odd |= {f"exp {when!r}": claims | {"exp": when} for when in times[:2]}
    texts = {why: json.dumps(each) for why, each in odd.items()}
    texts |= {"deep": json.dumps(claims)[:-1] + ', "deep": ' + "[" * 2000 + "]" * 2000 + "}", "no object": "[]"}
    answers = {
        why: {
            status(
                guarded, jwt.api_jws.encode(text.encode(), KEY, "RS256", {"kid": "first"}), method, "/projects", **body
            )
            for method, body in (("GET", {}), ("POST", {"json": {"name": "By an odd one"}}))
        }
        for why, text in texts.items()
    }
    # PyJWT leaves these out of account where there is none, or one that is true.
    lenient = {
        "deep",
        *(why for why in answers if why.split()[1:] in (["None"], ["True"]) and why[:3] in ("nbf", "iat")),
    }
    assert {why: all_of for why, all_of in answers.items() if why not in lenient} == {
        why: {401} for why in answers if why not in lenient
    }
    assert all(each <= {200, 201, 401} for each in answers.values())
    none = ({}, [], [[]], [{}], 7, True, None, "\ud800", ["\ud800"], "")
    nearly = (
        "administrator",
        "Admin",
        " admin",
        "reader writer",
        "reader,writer",
        ["readers"],
        [["admin"]],
        {"admin": 1},
    )
    for role in (*none, *nearly):
        assert status(guarded, signed(claims | {"role": role})) == 403, role
    for longest in ("x" * 255, "Ann Ünal", "ann@example.com|7"):
        answer = status(guarded, signed(claims | {"sub": longest}), "POST", "/projects", json={"name": "Named"})
        assert answer == 201, longest


def named(project):
    """The claim of a JWT that is held to a project; without one it has none."""
    return {"project": project} if project else {}


@pytest.mark.thorough
def test_an_answer_kept_for_a_key_is_told_to_nobody_of_another_reach(guarded, claims):
    """Callers of one name, each before each: the second is answered as if there had been no first."""
    with psycopg.connect(guarded.database, autocommit=True) as connection:
        one, other = (
            connection.execute("insert into projects (name) values ('Kept') returning id").fetchone()[0] for _ in "12"
        )
        reaches = [("writer", None), ("admin", None), ("writer", one), ("writer", other)]
        callers = [
            (sub, reach, token)
            for sub, of_token in enumerate(reaches)
            for reach, token in [
                (of_token, make_token(connection, f"oidc:{sub}", *of_token)),
                *((reach, signed(claims | {"sub": f"{sub}", "role": reach[0]} | named(reach[1]))) for reach in reaches),
            ]
        ]
    pairs = [pair for pair in permutations(callers, 2) if pair[0][0] == pair[1][0]]
    for number, (pair, project, noun) in enumerate(product(pairs, (one, other), ("userstories", "milestones"))):
        answers = []
        for _, reach, token in pair:
            headers = {"Idempotency-Key": f"key {number}", "Authorization": f"Bearer {token}"}
            body = {"subject" if noun == "userstories" else "name": f"Kept {number}"}
            answers.append(guarded.post(f"/projects/{project}/{noun}", json=body, headers=headers))
            assert (answers[-1].status_code == 404) == (reach[1] not in (None, project)), (pair, project, noun)
        assert answers[0].status_code == 404 or answers[0].content != answers[1].content, (pair, project, noun)


def test_keys_are_asked_for_seldom(guarded, claims):
    status(guarded, signed(claims))
    before = Issuer.asked
    for number in range(20):
        assert status(guarded, signed(claims | {"sub": f"user {number}"})) == 200
        assert status(guarded, signed(claims, OTHER, kid=f"made up {number}")) == 401
    assert Issuer.asked - before <= 1


def test_all_jwts_of_one_name_are_counted_together(module_database, issuer, claims):
    """An issuer gives out as many as somebody asks for."""
    settings = {"WORKERS": "1", "RATE_LIMIT": "5", "OIDC_ISSUER": issuer, "OIDC_AUDIENCE": "rowhouse"}
    with serve(module_database, **settings) as service:
        answers = [status(service, signed(claims | {"sub": "greedy", "jti": str(number)})) for number in range(20)]
        # A minute may end midway.
        assert {*answers} == {200, 429} and answers.count(200) <= 10
        assert status(service, signed(claims | {"sub": "other"})) == 200


def test_who_names_a_known_key_waits_for_nobody_elses(monkeypatch):
    """Not over HTTP: for 30 s after its last answer an issuer is not asked for the key that somebody made up."""
    given = RSAAlgorithm.to_jwk(KEY.public_key(), as_dict=True) | {"kid": "first", "use": "sig"}
    hanging, asked = threading.Event(), threading.Event()

    def hang(_: str) -> dict:
        asked.set()
        hanging.wait(20)
        raise oidc.Away

    found = oidc.Keys("http://127.0.0.1:1/keys", lifespan=oidc.KEYS_KEPT)
    monkeypatch.setattr(oidc, "document", lambda _: {"keys": [given]})
    assert found.get_signing_key("first").key_id == "first"
    monkeypatch.setattr(found, "cooldown_duration", 0)
    monkeypatch.setattr(oidc, "document", hang)
    with ThreadPoolExecutor(3) as callers:
        try:
            stranger = callers.submit(found.get_signing_key, "made up")
            assert asked.wait(5)
            assert callers.submit(found.get_signing_key, "first").result(2).key_id == "first"
            # Whose keys are too old needs the answer, too.
            monkeypatch.setattr(found.jwk_set_cache, "lifespan", 0)
            late = callers.submit(found.get_signing_key, "first")
            with pytest.raises(TimeoutError):
                late.result(0.2)
        finally:
            hanging.set()
        for each in (stranger, late):
            with pytest.raises(oidc.Away):
                each.result(5)


def test_a_socket_takes_a_jwt_until_it_expires(guarded, claims):
    url = guarded.url.replace("http", "ws") + "/ws/events"
    with connect(url) as ws:
        ws.send(json.dumps({"cmd": "auth", "token": signed(claims | {"exp": int(time.time()) + 2})}))
        assert json.loads(ws.recv(5))["type"] == "subscribed"
        time.sleep(3.5)  # the time that is promised: it expires after two
        assert status(guarded, signed(claims), "POST", "/projects", json={"name": "Unheard"}) == 201
        with pytest.raises(Exception, match="1008"):
            ws.recv(5)


def test_without_its_issuer_the_keys_are_waited_for_in_vain(database, claims):
    address = f"http://127.0.0.1:{free_port()}"
    with serve(database, WORKERS="1", OIDC_ISSUER=address, OIDC_AUDIENCE="rowhouse") as service:
        answer = service.get("/users", headers={"Authorization": f"Bearer {signed(claims)}"})
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert service.get("/users").status_code == 401


@pytest.mark.parametrize(
    ("said", "settings"),
    [
        ("OIDC_AUDIENCE", {"OIDC_ISSUER": "https://issuer.example"}),
        ("https", {"OIDC_ISSUER": "http://issuer.example", "OIDC_AUDIENCE": "rowhouse"}),
    ],
)
def test_what_would_let_others_in_is_refused_at_the_start(database, tmp_path, said, settings):
    assert said in " ".join(refusal(tmp_path, DATABASE_URL=database, **settings))


@pytest.mark.parametrize("algorithm", ["RS256", "PS256"])
@pytest.mark.parametrize("named", [None, "RS256", "PS256"])
def test_a_key_is_bound_to_an_algorithm_only_where_its_issuer_says_to_which(claims, algorithm, named, monkeypatch):
    given = RSAAlgorithm.to_jwk(KEY.public_key(), as_dict=True) | {"kid": "first", "use": "sig"}
    found = jwt.PyJWK(given | ({"alg": named} if named else {}))
    monkeypatch.setattr(oidc, "keys", lambda _: SimpleNamespace(get_signing_key_from_jwt=lambda _: found))
    with APP.app_context():
        APP.config |= {"OIDC_ISSUER": claims["iss"], "OIDC_AUDIENCE": "rowhouse"}
        who = oidc.holder(signed(claims, algorithm=algorithm))
        APP.config |= {"OIDC_ISSUER": "", "OIDC_AUDIENCE": ""}
    assert (who is not None) == (named in (None, algorithm))
