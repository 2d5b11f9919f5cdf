"""Addresses on a network, of people and of pictures: one rule, whichever way and in whichever spelling one comes."""

import os
import re
from itertools import compress, count
from unicodedata import category, name, normalize, unidata_version

import idna
import psycopg
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from marshmallow import ValidationError

from db import schema
from handlers.http.addresses import CHEROKEE, in_ascii, is_email, is_web_address
from handlers.http.fields import SEEN
from tests.conftest import first, serve
from tests.test_users import person

LONG = "ü" * 57  # of 63 octets in Punycode
EMAILS = (
    *("हिन्दी@example.org", "q\u0303@example.org", "a\u0130@x.org", "ai\u0307@x.org", "\u0130@\u0130.org", "❤@x.org"),
    *(
        "ann@m\u00fcnchen.example",
        "ANN@XN--MNCHEN-3YA.example",
        "a@हिन्दी.भारत",
        "a@\u0391\u03a3.gr",
        "a@stra\u1e9ee.de",
        "a@x.网",
    ),
    *(
        "a@\u05d0\u05d1.org",
        "a@\u0627\u0628.org",
        "xn--a@x.org",
        "o'neil+x@a--b.r3---sn.example",
        '"a\\"b"@x.org',
        '"ü"@x.org',
    ),
    *(
        "a@LocalHost",
        "a@[127.0.0.1]",
        f"a@{'b' * 63}.org",
        f"a@{LONG}.org",
        "a@\u30a2\u30fb\u30a2.jp",
        "a@\u13a0\uab70.org",
        "a@xn--58da.org",
    ),
)
NO_EMAILS = (
    *(
        "a",
        "@x.org",
        "a@",
        "a@x",
        "a@x.y",
        "a@.org",
        "a@x..org",
        "a@x.org.",
        "a@-x.org",
        "a@x-.org",
        "a@x.-y",
        "a.@x.org",
    ),
    *(
        ".a@x.org",
        "a..b@x.org",
        "a b@x.org",
        "a,b@x.org",
        "a@x_y.org",
        "a@b@c.org",
        '"a@b"@x.org',
        '"a"b@x.org',
        "a\\b@x.org",
    ),
    *(
        "a@\u2800.org",
        "a\u2800@x.org",
        "a@a\u203fb.org",
        "a\ue000@x.org",
        "a\uffff@x.org",
        "a\U0003ffff@x.org",
        "a\x85@x.org",
    ),
    *(
        "a@xn--a.org",
        "a@xn--.org",
        "a@xn--abc-.org",
        "a@xn--a-\u00fc.org",
        "a@xn--a\u00fc-3ya.org",
        "a@\u00fc-.org",
        "a@-\u00fc.org",
        "a@ab--\u00fc.org",
    ),
    *(f"a@{LONG}ü.org", f"a@{'b' * 64}.org", f"a@x.{'b' * 64}", f"a@{(LONG + '.') * 4}org"),
    *(
        "a@i❤.ws",
        "a@ｅxample.com",
        "a@x。org",
        "a@\u2460.org",
        "a@\u00a9.org",
        "a@\ufb01.org",
        "a@xn--9zg.org",
        "a@ü_b.org",
    ),
)
IMAGES = (
    *(
        "http://a/%7E%c3%bc",
        "http://a?b?c/d#e?f/g",
        "http://u:p%20@a:080/",
        "http://a./",
        "http://[::ffff:1.2.3.4]:65535",
    ),
    *(
        "http://m\u00fcnchen.example./ü",
        "HTTP://XN--MNCHEN-3YA.example",
        "http://a/xn--a",
        "http://a/हिन्दी/❤",
        "http://a/u\u0308",
    ),
    *("http://A_b.ü.org/", "http://_.a", "http://0x7f.1a/"),
)
NO_IMAGES = (
    *(
        "http://a/\u202e",
        "http://a/\\b",
        "http:\\\\a",
        "http://a\\b",
        "http://a/%zz",
        "http://a/%",
        "http://a/%4",
        "http://a/%4g",
    ),
    *(
        f"http://a/{each}"
        for each in ' "<>[]^`{|}\x07\x7f\x85\u00a0\u00ad\u200b\u2028\u2066\u2800\u3000\ue000\ufeff\uffff\U000e0041'
    ),
    *(
        "http://a#b#c",
        "http://a?%",
        "http://a#%zz",
        "http://a%62c/",
        "http://a:b@c@d/",
        "http://ü\u202e.org",
        "ü",
        "/ü",
        "https://",
    ),
    *(
        "http://a\u203fb.org/",
        "http://xn--a.org",
        "http://xn--mnchen-3yaa\u00fcxn--i-3wb",
        "http://xn--a.org:80/ü",
        "http://\u2800/",
        "http://x.\u203f/",
        "http://ü_b.org/",
    ),
    *(
        "http://a:65536/",
        "http://a:８０/",
        "http://1.2.3/",
        "http://1.2.3.256/",
        "http://01.2.3.4",
        "http://[::1",
        "http://[1.2.3.4]/",
    ),
    *(f"http://{'b' * 64}.org", f"http://{LONG}ü.org/"),
)

numbers = count(1)


@pytest.fixture(scope="module")
def connection(service):
    with psycopg.connect(service.database, autocommit=True) as found:
        yield found


def is_taken(rule, value: str) -> bool:
    try:
        rule(value)
    except ValidationError:
        return False
    return True


def in_postgresql(connection, function: str, values: list[str]) -> list:
    rows = connection.execute(
        f"select {function}(v) from unnest(%s::text[]) with ordinality as t (v, n) order by n", [values]
    )
    return [found for (found,) in rows]


def new(service) -> dict:
    return service.post("/users", json=person(f"addresses{next(numbers)}x{os.getpid()}")).json()


def answered(answer, member: str) -> bool:
    """Whether what was sent was taken; if not, 422 because of it."""
    if answer.status_code != 422:
        assert answer.status_code in (200, 201), answer.text
        return True
    assert [*answer.json()["errors"]] == [member], answer.text
    return False


def by_change(method: str):
    def change(service, member: str, value: str) -> bool:
        before = new(service)
        whole = {name: before[name] for name in ("email", "name", "address", "image")}
        body = (whole if method == "PUT" else {}) | {member: value, "version": 1}
        try:
            answer = service.request(method, f"/users/{before['id']}", json=body)
            return answered(answer, member) and answer.json()[member] == value
        finally:
            service.delete(f"/users/{before['id']}", headers={"If-Match": "*"})

    return change


def by_post(service, member: str, value: str) -> bool:
    answer = service.post("/users", json=person(f"addresses{next(numbers)}", **{member: value}))
    taken = answered(answer, member)
    if taken:
        assert service.delete(answer.headers["Location"], headers={"If-Match": "*"}).status_code == 204
    return taken


def by_email(service, member: str, value: str) -> bool:
    """The short forms, which all say the same; of a picture they know nothing."""
    if member == "image":
        return by_post(service, member, value)
    asked = {"params": {"email": value}}
    before = service.get("/user", **asked).status_code
    taken = answered(service.post("/user", json={"text": "x"}, **asked), "email")
    ways = (service.get("/user", **asked).status_code, service.delete("/user", **asked).status_code)
    assert (before, *ways, service.delete("/user", **asked).status_code) == (
        (404, 200, 204, 404) if taken else (422, 422, 422, 422)
    ), value
    return taken


def by_psql(service, member: str, value: str) -> bool:
    with psycopg.connect(service.database) as connection:
        try:
            connection.execute("insert into users (email, image) values ('psql@example.com', 'http://a')")
            connection.execute(f"update users set {member} = %s where email = 'psql@example.com'", [value])
        except psycopg.errors.CheckViolation:
            return False
        finally:
            connection.rollback()
    return True


WAYS = {"POST": by_post, "PUT": by_change("PUT"), "PATCH": by_change("PATCH"), "/user": by_email, "psql": by_psql}


@pytest.mark.parametrize("way", first(2, WAYS))
@pytest.mark.parametrize(
    ("member", "good", "bad"), [("email", EMAILS, NO_EMAILS), ("image", IMAGES, NO_IMAGES)], ids=["email", "image"]
)
def test_an_address_is_taken_or_not_whichever_way_it_comes(service, member, good, bad, way):
    found = {value: WAYS[way](service, member, value) for value in (*good, *bad)}
    assert [value for value in good if not found[value]] == [], "should be taken"
    assert [value for value in bad if found[value]] == [], "should be refused"


PIECES = st.sampled_from(
    [
        *(
            "a",
            "Z",
            "0",
            "-",
            "--",
            "_",
            ".",
            "..",
            '"',
            "\\",
            " ",
            "%",
            "%4",
            "%41",
            "[",
            "]",
            ":",
            "/",
            "?",
            "#",
            "'",
            "{",
        ),
        *(
            "ü",
            "Ü",
            "u\u0308",
            "ß",
            "ẞ",
            "ς",
            "Σ",
            "\u0130",
            "i\u0307",
            "i",
            "I",
            "ı",
            "K",
            "\u0327",
            "हि",
            "न्दी",
            "中",
            "한",
            "\u1112\u1161",
        ),
        *(
            "⠀",
            "‿",
            "❤",
            "😀",
            "ﬁ",
            "ｅ",
            "\u00a0",
            "\u00ad",
            "\u200b",
            "\u200d",
            "\u202e",
            "\ue000",
            "\ufffe",
            "\U0010ffff",
            "א",
            "ا",
        ),
        *(
            "xn--",
            "XN--",
            "xn--a",
            "xn--mnchen-3ya",
            "xn--i-3wb",
            "xn--strae-oqa",
            "_xn--a",
            "localhost",
            "org",
            "x.org",
            "1.2.3.4",
            "::1",
        ),
    ]
)
WORDS = st.lists(PIECES, max_size=8).map("".join) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SOME_EMAILS = st.builds("{}@{}".format, WORDS, st.builds("{}{}".format, WORDS, st.sampled_from(["", ".org"]))) | WORDS
SOME_IMAGES = st.builds("{}{}{}".format, st.sampled_from(["http://", "HTTPS://", "", "ftp://"]), WORDS, WORDS)


def in_letters(label: str) -> str:
    """A label that may be in Punycode."""
    return label[4:].encode().decode("punycode", "replace") if label.startswith("xn--") else label


def is_none_by_context(domain: str) -> bool:
    """Whether a domain is none by what IDNA asks of neighbours, or says of what came after Unicode 14."""
    for label in normalize("NFC", normalize("NFC", domain).lower()).translate(CHEROKEE).split("."):
        try:
            idna.alabel(label)
        except (idna.InvalidCodepointContext, idna.IDNABidiError):
            return True
        except idna.IDNAError as error:
            if error.code == "leading_combiner" or any(category(letter) == "Cn" for letter in in_letters(label)):
                return True
    return False


@pytest.mark.parametrize(
    ("rule", "some", "domain"),
    [(is_email, SOME_EMAILS, r"@(.*)"), (is_web_address, SOME_IMAGES, r"//(?:[^/?#@]*@)?([^/?#:]*)")],
    ids=["email", "image"],
)
@pytest.mark.parametrize("examples", first(1, [20, 500]))
def test_an_address_here_is_one_in_postgresql(connection, rule, some, domain, examples):
    @settings(max_examples=examples, deadline=None)
    @given(st.lists(some, min_size=20, max_size=40))
    def agree(values):
        values = [value for value in values if "\0" not in value]  # which no text of PostgreSQL holds
        there = in_postgresql(connection, rule.__name__, values)
        for value, known in zip(values, there, strict=True):
            here = is_taken(rule, value)
            assert known or not here, value
            if known and not here:
                found = re.search(domain, value, re.DOTALL)
                assert found and (found[1].startswith("[") or is_none_by_context(found[1])), value

    agree()


@pytest.fixture(scope="module", params=first(1, [400, 10]))
def letters(request) -> list[str]:
    """All characters, but of those that are many of a kind only one in so many."""
    found = [chr(code) for code in range(1, 0x110000) if not 0xD800 <= code < 0xE000]
    return [
        each
        for each in found
        if ord(each) % request.param == 0
        or not (
            category(each) in ("Cn", "Co")
            or name(each, "").startswith(("CJK", "HANGUL SYL", "TANGUT IDEO", "EGYPTIAN"))
        )
    ]


@pytest.mark.thorough
def test_what_no_address_holds_is_the_same_in_python_and_in_postgresql(connection, letters):
    for rule, form in (
        (is_email, "a{}@x.org"),
        (is_email, '"{}"@x.org'),
        (is_web_address, "http://a/{}"),
        (is_web_address, "http://a?#{}"),
    ):
        values = [form.format(letter) for letter in letters]
        there = {*compress(letters, in_postgresql(connection, rule.__name__, values))}
        here = {letter for letter, value in zip(letters, values, strict=True) if is_taken(rule, value)}
        assert here == there
        assert not {letter for letter in here if category(letter) in ("Cc", "Cf", "Co", "Zs", "Zl", "Zp")}
        strangers = {letter for letter in letters if normalize("NFC", letter) > "\x7f"} - here
        assert not {letter for letter in strangers if category(letter)[0] in "LMNPS" and SEEN.search(letter)}


@pytest.mark.thorough
def test_a_letter_of_a_domain_here_is_one_in_postgresql(connection, letters):
    """In letters and in Punycode. PostgreSQL may let in what came after Unicode 14."""
    letters = [letter for letter in letters if letter > "\x7f"]
    here = {letter for letter in letters if is_taken(is_email, f"a@a{letter}a.org")}
    there = {*compress(letters, in_postgresql(connection, "is_email", [f"a@a{letter}a.org" for letter in letters]))}
    assert here <= there
    more = {letter for letter in there - here if category(letter) != "Cn" and not is_none_by_context(f"a{letter}a")}
    assert not more or unidata_version > "14.0.0", more
    coded = [f"a@xn--{f'a{letter}a'.encode('punycode').decode()}.org" for letter in letters]
    known = {*compress(letters, in_postgresql(connection, "is_email", coded))}
    assert {letter for letter, value in zip(letters, coded, strict=True) if is_taken(is_email, value)} <= known <= there


def spellings(email: str) -> list[str]:
    """Ways to write an e-mail address that differ in nothing but case, composition and Punycode."""
    local, _, domain = email.partition("@")
    other_case = "".join(each.upper() if each.upper().lower() == each else each.lower() for each in email)
    found = [email.lower(), other_case, f"{local}@{in_ascii(domain)}", f"{local.lower()}@{in_ascii(domain).upper()}"]
    if "[" not in domain:
        found += [f"{local}@{'.'.join(map(idna.ulabel, in_ascii(domain).split('.')))}"] if "--" not in domain else []
    found += [normalize(form, each) for each in (email, *found) for form in ("NFC", "NFD")]
    return [*dict.fromkeys(found)]


LETTERS = st.sampled_from(
    ["a", "Z", "0", "i", "I", "ü", "Ü", "u\u0308", "ß", "ẞ", "ς", "Σ", "\u0130", "i\u0307", "\u0307"]
)
MORE = st.sampled_from(
    ["K", "\u0301", "\u0327", "ı", "हि", "न्दी", "中", "한", "\u1112\u1161", "\u03b1\u0345", "\u1f80", "\u0345", "א"]
)
ANY = st.lists(LETTERS | MORE | st.characters(categories=["L", "M"]), min_size=1, max_size=8).map("".join)


@pytest.mark.thorough
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(st.builds("{}@{}.{}".format, ANY, ANY | st.just("xn--i-3wb"), ANY | st.just("org")) | st.sampled_from(EMAILS))
def test_each_spelling_of_an_email_is_taken_and_is_the_same(connection, email):
    assume(is_taken(is_email, email))
    spelled = spellings(email)
    assert [each for each in spelled if not is_taken(is_email, each)] == []
    assert {*in_postgresql(connection, "is_email", spelled)} == {True}
    keys = in_postgresql(connection, "email_key", [email, *spelled])
    assert len({*keys}) == 1, dict(zip([email, *spelled], keys, strict=True))


@pytest.mark.parametrize("email", first(8, EMAILS))
def test_who_is_stored_is_found_and_saved_again_in_each_spelling(service, unique, email):
    email = f'"{unique("m")}' + email[1:] if email[0] == '"' else unique("m") + email
    ann = service.post("/users", json=person("spelled", email=email)).json()
    assert ann["email"] == email
    for each in spellings(email):
        asked = {"params": {"email": each}}
        assert service.get("/user", **asked).json()["id"] == ann["id"], each
        assert [found["id"] for found in service.get("/users", **asked).json()["items"]] == [ann["id"]], each
        assert [found["id"] for found in service.post("/users/search", json=asked["params"]).json()["items"]] == [
            ann["id"]
        ]
        assert service.post("/users", json=person("spelled", email=each)).status_code == 409, each
        assert service.post("/user", json={"text": each}, **asked).json()["id"] == ann["id"], each
        for method, body in (("PATCH", {}), ("PUT", person("spelled"))):
            answer = service.request(
                method, f"/users/{ann['id']}", json=body | {"email": each}, headers={"If-Match": "*"}
            )
            assert (answer.status_code, answer.json().get("email")) == (200, each)
    assert service.delete("/user", params={"email": spellings(email)[-1]}).status_code == 204


OLD = [
    ("a@a\u203fb.org", "http://a/\\"),
    ("a@xn--a.org", "http://a/%zz"),
    ("a@\u2800.org", "http://a/ü"),
    ("good@example.org", 'http://a/"'),
    ("ai\u0307@\u0130.org", "http://a/"),
]
BEFORE = """
    alter table users drop constraint users_email_check, drop constraint users_image_check;
    create or replace function folded(value text) returns text language sql immutable parallel safe
    return replace(replace(normalize(lower(normalize(value) collate unicode_case)), 'ς', 'σ'), 'ß', 'ss');
    reindex index users_email_key;
    delete from schema_migrations where name in ('0022_addresses', 'book');
"""


def test_who_is_there_from_before_is_read_and_mended(database):
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute(BEFORE)
        owner.cursor().executemany("insert into users (email, image, address) values (%s, %s, 'ai\u0307b')", OLD)
        schema.migrate(database)
        assert owner.execute("select count(*) from users").fetchone() == (len(OLD),)
        unproven = "select array_agg(conname::text order by conname) from pg_constraint where not convalidated"
        assert owner.execute(unproven).fetchone() == (["users_email_check", "users_image_check"],)
        with serve(database) as service:
            for email, image in OLD:
                read = service.get("/user", params={"email": email})
                assert (read.status_code, read.json()["image"]) == (200, image)
                path = f"/users/{read.json()['id']}"
                assert service.get(path).json() == read.json()
                assert service.get("/users", params={"email": email}).json()["items"] == [read.json()]
                mended = {"email": f"mended{read.json()['id']}@example.org", "image": "http://a/", "name": "x"}
                assert service.patch(path, json=mended, headers={"If-Match": "*"}).status_code == 200
                assert service.get(f"{path}?as_of=1").json()["email"] == email
            assert len(service.get("/users", params={"address": "A\u0130B"}).json()["items"]) == len(OLD)
        owner.execute("alter table users validate constraint users_email_check")
        owner.execute("alter table users validate constraint users_image_check")


def test_a_database_in_order_is_held_to_the_rules_at_once(database):
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute(BEFORE)
        owner.execute("insert into users (email, image) values ('a@example.org', 'https://example.org/a%%20b?c=d')", [])
        schema.migrate(database)
        valid = "select bool_and(convalidated) from pg_constraint where conrelid = 'users'::regclass and contype = 'c'"
        assert owner.execute(valid).fetchone() == (True,)
