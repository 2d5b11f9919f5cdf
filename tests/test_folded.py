"""Whatever the case: one rule for the search and the e-mail's unique key, walked over all of Unicode."""

import subprocess
import sys
from unicodedata import category, normalize

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.flask_command import flask
from tests.test_users import person

ALL = [chr(code) for code in range(1, sys.maxunicode + 1) if not 0xD800 <= code <= 0xDFFF]

SPELLED = [
    each for each in ALL if each.lower() != each or (normalize("NFD", each) != each and not "가" <= each <= "힣")
]
"""Those that have another spelling, but for the Hangul, which are composed by a rule."""

INVISIBLE = [
    *("\u00ad", "\u034f", "\u061c", "\u115f", "\u1160", "\u17b4", "\u17b5", "\u3164", "\ufeff", "\uffa0"),
    *map(chr, (*range(1, 32), *range(0x7F, 0xA0), *range(0x180B, 0x1810), *range(0x200B, 0x2010))),
    *map(chr, (*range(0x2028, 0x202F), *range(0x2060, 0x2070), *range(0xFE00, 0xFE10), *range(0xE0000, 0xE1000))),
]

SAME = [
    ("ΟΔΟΣ ΕΡΜΟΥ", "οδος"),
    ("οδός Ερμού", "ΟΔΌΣ"),
    ("Straße", "STRASSE"),
    ("STRASSE", "straße"),
    ("Straẞe", "strasse"),
    ("Zimowa la\u0328ka", "l\u0105ka"),
    ("Cafe\u0301", "CAF\u00c9"),
    ("J\u030ca street", "\u01f0a"),
    ("\u0130zmir", "izmir"),
    ("izmir", "\u0130z"),
    ("i\u0307zmir", "\u0130ZM"),
    ("\u0130\u0301zmir", "i\u0307\u0301z"),
    ("I\u0327\u0307zmir", "i\u0307\u0327z"),
    ("300 \u212a", "300 k"),
    ("\U00010400 Deseret", "\U00010428 deseret"),
]


@pytest.fixture(scope="module")
def connection(service):
    with psycopg.connect(service.database, autocommit=True) as found:
        yield found


def keys(connection, function: str, values: list[str]) -> list[str]:
    rows = connection.execute(
        f"select {function}(v) from unnest(%s::text[]) with ordinality as t (v, n) order by n", [values]
    )
    return [key for (key,) in rows]


@pytest.fixture(params=["spelled", pytest.param("all", marks=pytest.mark.thorough)])
def letters(request) -> list[str]:
    return SPELLED if request.param == "spelled" else ALL


def test_every_letter_of_unicode_is_the_same_in_each_spelling(connection, letters):
    folded = keys(connection, "folded", letters)
    for spelled in ([each.lower() for each in letters], [normalize("NFD", each) for each in letters], folded):
        again = keys(connection, "folded", spelled)
        # What is not in this Python's Unicode yet may have a small letter in PostgreSQL's.
        other = {a for a, b, c in zip(letters, folded, again, strict=True) if b != c and category(a) != "Cn"}
        assert not other, other


def test_a_text_is_folded_once_and_for_all(connection, letters):
    folded = keys(connection, "folded", ["".join(letters[at : at + 50]) for at in range(0, len(letters), 50)])
    assert keys(connection, "folded", folded) == folded


MARKS = [chr(code) for code in range(0x300, 0x370)]
"""Accents, and what else is put on or under a letter."""


def test_a_letter_is_folded_with_what_stands_on_it(connection):
    """Also where it becomes two: the accent of an ß is that of an s."""
    pairs = [("ß", "ss"), ("ẞ", "SS"), ("ß", "sS"), ("ς", "Σ"), ("ſ", "ſ"), ("K", "\u212a")]
    behind = [*MARKS, *(mark + "\u0301" for mark in MARKS), *("\u0327" + mark for mark in MARKS)]
    one = [f"a{letter}{marks}b" for letter, _ in pairs for marks in behind]
    other = [normalize("NFC", f"A{letters}{marks}B") for _, letters in pairs for marks in behind]
    folded = keys(connection, "folded", one)
    assert folded == keys(connection, "folded", other) == keys(connection, "folded", folded)
    assert folded == [normalize("NFC", each) for each in folded]


@pytest.mark.parametrize(("address", "part"), SAME)
def test_an_address_is_found_whatever_its_case(service, unique, address, part):
    mark = unique("case")
    ann = service.post("/users", json=person(mark, address=f"{address} {mark}")).json()
    for asked in ({"address": part, "email": ann["email"]}, {"address": f"{part}"}, {"address": f"{mark}"}):
        found = service.get("/users", params={**asked, "limit": 1000, "fields": "id"}).json()["items"]
        assert {"id": ann["id"]} in found, asked


@pytest.mark.parametrize(
    ("kept", "other"),
    [
        ("ΣΑΣ{}@example.com", "σας{}@example.com"),
        ("Straße{}@example.com", "STRASSE{}@EXAMPLE.com"),
        ("ß\u0301{}@example.com", "S\u015a{}@example.com"),
        ("Caf\u00e9{}@example.com", "cafe\u0301{}@example.com"),
        ("ann{}@m\u00fcnchen.example", "ANN{}@xn--mnchen-3ya.example"),
        ("ann{}@XN--MNCHEN-3YA.example", "ann{}@M\u00dcNCHEN.example"),
        ("ann{}@stra\u00dfe.example", "ann{}@xn--strae-oqa.example"),
        ("ann{}@a.xn--fsqu00a.xn--0zwm56d", "ann{}@A.\u4f8b\u5b50.\u6d4b\u8bd5"),
    ],
)
def test_two_spellings_of_one_email_are_one_user(service, unique, kept, other):
    mark = unique("m")
    kept, other = kept.format(mark), other.format(mark)
    ann = service.post("/users", json=person(mark, email=kept))
    assert ann.status_code == 201 and ann.json()["email"] == kept
    assert service.post("/users", json=person(mark, email=other)).status_code == 409
    assert service.get("/user", params={"email": other}).json()["id"] == ann.json()["id"]
    assert service.get("/users", params={"email": other}).json()["items"] == [ann.json()]
    answer = service.post("/user", params={"email": other}, json={"text": "the same"})
    assert (answer.status_code, answer.json()["id"]) == (200, ann.json()["id"])


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(categories=("Ll", "Lo", "Nd"), exclude_characters="ß"), min_size=1, max_size=30))
def test_punycode_is_the_letters_that_it_stands_for(connection, label):
    coded = "xn--" + label.encode("punycode").decode()
    assert keys(connection, "punycode_decoded", [coded]) == [label]


@settings(max_examples=300, deadline=None)
@given(st.text("xn-a9zü.@\\", max_size=60))
def test_what_is_no_punycode_equals_itself(connection, text):
    (key,) = keys(connection, "email_key", [f"a@xn--{text}"])
    assert key is not None


def test_no_invisible_character_is_let_into_an_email(service, connection):
    told = connection.execute(
        "select array_agg(v) from unnest(%s::text[]) as v where is_email('a' || v || 'b@example.com')", [INVISIBLE]
    ).fetchone()
    assert told == (None,)
    for letter in (
        "\u00ad",
        "\u200b",
        "\u200d",
        "\u202e",
        "\u2066",
        "\u3164",
        "\ufe0f",
        "\ufeff",
        "\U000e0041",
        "\x07",
    ):
        for email in (f"a{letter}nn@example.com", f"ann@exa{letter}mple.com"):
            answer = service.post("/users", json=person("x", email=email))
            assert (answer.status_code, [*answer.json()["errors"]]) == (422, ["email"]), repr(letter)
            assert service.post("/user", params={"email": email}, json={"text": "x"}).status_code == 422, repr(letter)


def test_letters_that_are_seen_are_let_in(connection, letters):
    seen = [each for each in letters if category(each) in ("Ll", "Lu", "Lo", "Nd", "Mn") and each not in INVISIBLE]
    refused = "select array_agg(v) from unnest(%s::text[]) as v where not is_email('a' || v || 'b@example.com')"
    assert connection.execute(refused, [seen]).fetchone() == (None,)


def migrate(database: str) -> subprocess.CompletedProcess:
    return flask(database, "migrate")


@pytest.mark.parametrize(
    ("emails", "told"),
    [(("ΣΑΣ@example.com", "σας@example.com"), "users_email_key"), (("a\u200bnn@example.com",), "invisible characters")],
)
def test_a_database_from_before_is_told_which_users_to_mend(database, emails, told):
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute("drop index users_email_key; alter table users drop constraint users_email_check")
        owner.execute("create unique index users_email_key on users (lower(email))")
        owner.execute("delete from schema_migrations where name in ('0015_whatever_the_case', 'book')")
        for email in emails:
            owner.execute("insert into users (email) values (%s)", [email])
        refused = migrate(database)
        assert refused.returncode == 1 and told in refused.stderr and refused.stderr.count("\n") == 1, refused.stderr
        owner.execute("delete from users where email = %s", [emails[0]])
        assert migrate(database).returncode == 0
        with pytest.raises(psycopg.errors.UniqueViolation):
            owner.execute("insert into users (email) values ('bob@example.com'), ('BOB@example.com')")


UNCOMPOSED = """
    create or replace function folded(value text) returns text language sql immutable parallel safe
    return replace(
        replace(normalize(lower(normalize(replace(value, 'i', 'I')) collate unicode_case)), 'ς', 'σ'), 'ß', 'ss'
    );
    reindex table users;
    delete from schema_migrations where name in ('0030_composed_after_folding', 'book');
"""


def test_indexes_from_before_are_made_anew_where_they_have_other_keys(database):
    asked = "select oid from pg_class where relname in ('users_email_key', 'users_address_idx') order by relname"
    with psycopg.connect(database, autocommit=True) as owner:
        for users, anew in ((["ann", "stra\u00dfe"], False), (["\u00df\u0301x"], True), (["S\u015ax"], None)):
            owner.execute(UNCOMPOSED)
            for who in users:
                owner.execute(
                    "insert into users (email, address) values (%s, %s)", [f"{who}@example.com", f"{who} street"]
                )
            before = owner.execute(asked).fetchall()
            migrated = migrate(database)
            if anew is None:
                assert migrated.returncode == 1 and "users_email_key" in migrated.stderr
                owner.execute("delete from users where email = %s", [f"{users[0]}@example.com"])
                assert migrate(database).returncode == 0
            else:
                assert migrated.returncode == 0, migrated.stderr
                assert (owner.execute(asked).fetchall() != before) == anew
        owner.execute("set enable_seqscan = off")
        found = "select email from users where email_key(email) = email_key(%s)"
        assert owner.execute(found, ["S\u015aX@example.com"]).fetchone() == ("\u00df\u0301x@example.com",)
        found = "select email from users as u where matches(u, '', '', '', %s)"
        assert owner.execute(found, ["S\u015aX"]).fetchone() == ("\u00df\u0301x@example.com",)
