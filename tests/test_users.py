"""Users: the pattern of all resources, over HTTP and beside psql."""

import csv
import io
import json
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import psycopg
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from db.pool import connect
from db.queries import STATEMENTS
from handlers.http.fields import SEEN
from handlers.http.responses import in_order
from handlers.http.schemas import decoded
from tests.conftest import first

ORDERS = ["id", "-id", "email", "-email", "name", "-name", "created_at", "-created_at"]


@pytest.fixture
def ann(service, unique):
    """A new user, as the service answered."""
    return service.post("/users", json=person(unique("ann"))).json()


def person(who: str, **members: object) -> dict:
    return {
        "email": f"{who}@example.com",
        "name": who[:30],
        "address": f"{who} Street 1",
        "image": "https://example.com/a.png",
        **members,
    }


def crowd(service, mark: str, number: int) -> None:
    """Many users, whose addresses have a mark."""
    with psycopg.connect(service.database) as connection:
        connection.execute(
            "insert into users (email, name, address, image, created_at)"
            " select i || %(mark)s || '@example.com', 'Name ' || i %% 7, i || ' ' || %(mark)s || ' Street', 'http://x.org',"
            " now() - (i %% 11) * interval '1 day' from generate_series(1, %(number)s) as i",
            {"mark": mark, "number": number},
        )


def walk(service, path: str) -> list[dict]:
    """All items of a collection, page by page along its Link headers."""
    items = []
    while path:
        answer = service.get(path)
        assert answer.status_code == 200, answer.text
        items += answer.json()["items"]
        assert ("next" in answer.links) == (answer.json()["next"] is not None)
        path = answer.links.get("next", {}).get("url")
    return items


# A life ---------------------------------------------------------------------------------------------------------------


def test_a_new_user_is_version_1_and_has_an_address(service, unique):
    answer = service.post("/users", json=person(unique("ann"), text="Hello"))
    assert answer.status_code == 201
    assert answer.headers["ETag"] == '"1"'
    assert answer.json()["version"] == 1
    assert service.get(answer.headers["Location"]).text == answer.text


def test_a_user_that_did_not_change_is_not_sent_again(service, ann):
    answer = service.get(f"/users/{ann['id']}", headers={"If-None-Match": '"1"'})
    assert (answer.status_code, answer.text, answer.headers["ETag"]) == (304, "", '"1"')
    assert service.get(f"/users/{ann['id']}", headers={"If-None-Match": '"2"'}).status_code == 200


@pytest.mark.parametrize("named", [{"headers": {"If-Match": '"1"'}}, {"json": {"version": 1}}])
def test_a_change_from_the_current_version_makes_the_next(service, ann, named):
    options = {"headers": {}, **named, "json": {"name": "Anna", **named.get("json", {})}}
    answer = service.patch(f"/users/{ann['id']}", **options)
    assert answer.status_code == 200
    assert answer.headers["ETag"] == '"2"'
    assert answer.json() == ann | {"name": "Anna", "version": 2, "updated_at": answer.json()["updated_at"]}


@pytest.mark.parametrize("named", [{"headers": {"If-Match": '"1"'}}, {"json": {"version": 1}}])
def test_a_replacement_of_the_current_version_makes_the_next(service, ann, unique, named):
    new = person(unique("anna"), text="Hello")
    answer = service.put(f"/users/{ann['id']}", **{"headers": {}, **named, "json": new | named.get("json", {})})
    assert (answer.status_code, answer.headers["ETag"]) == (200, '"2"')
    assert answer.json() == ann | new | {"version": 2, "updated_at": answer.json()["updated_at"]}


def test_a_replacement_leaves_out_what_it_does_not_say(service, unique):
    name = unique("ann")
    ann = service.post("/users", json=person(name, text="Hello")).json()
    answer = service.put(f"/users/{ann['id']}", json=person(name, version=1))
    assert answer.json()["text"] is None


def test_a_change_must_name_its_version(service, ann):
    for answer in (
        service.patch(f"/users/{ann['id']}", json={"name": "Anna"}),
        service.put(f"/users/{ann['id']}", json=person("anna")),
        service.delete(f"/users/{ann['id']}"),
    ):
        assert answer.status_code == 428


@pytest.mark.parametrize("named, status", [({"If-Match": '"1"'}, 412), ({}, 409), ({"If-Match": 'W/"2"'}, 412)])
def test_a_second_writer_is_told_the_user_moved_on(service, ann, named, status):
    service.patch(f"/users/{ann['id']}", json={"name": "Anna", "version": 1})
    answer = service.patch(f"/users/{ann['id']}", json={"name": "Annette", "version": 1}, headers=named)
    assert answer.status_code == status
    told = answer.json()
    assert told["current"] == service.get(f"/users/{ann['id']}").json()
    (conflict,) = told["conflicts"]
    assert (conflict["field"], conflict["yours"], conflict["theirs"]) == ("name", "Annette", "Anna")
    assert set(conflict) == {"field", "base", "yours", "theirs", "changed_by", "changed_at"}


@pytest.mark.parametrize("status", [409, 412])
@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_every_refused_writer_is_told_where_the_user_is_now(service, ann, method, status):
    now = service.patch(f"/users/{ann['id']}", json={"name": "Anna", "version": 1}).json()
    named = {"headers": {"If-Match": '"1"'}} if status == 412 else {"params": {"version": 1}}
    if method != "DELETE":
        named = {**named, "params": {}, "json": person("annette", version=1)}
    answer = service.request(method, f"/users/{ann['id']}", **named)
    told = answer.json()
    assert (answer.status_code, told["current"], told["base_version"]) == (status, now, 1)
    assert ("name" in {conflict["field"] for conflict in told["conflicts"]}) == (method != "DELETE")


@pytest.mark.parametrize("named, status", [({"If-Match": '"1"'}, 412), ({}, 409)])
def test_a_conflict_says_what_both_started_from(service, ann, named, status):
    now = service.patch(f"/users/{ann['id']}", json={"name": "Anna", "version": 1}).json()
    answer = service.patch(f"/users/{ann['id']}", json={"name": "Annette", "version": 1}, headers=named)
    assert answer.status_code == status
    (conflict,) = answer.json()["conflicts"]
    assert (conflict["base"], conflict["changed_at"]) == (ann["name"], now["updated_at"])


def test_changes_of_different_members_are_both_kept(service, ann):
    service.patch(f"/users/{ann['id']}", json={"name": "Anna", "version": 1})
    answer = service.patch(f"/users/{ann['id']}", json={"address": "2 Side Street", "version": 1})
    assert answer.status_code == 200, answer.text
    kept = {name: answer.json()[name] for name in ("name", "address", "version")}
    assert kept == {"name": "Anna", "address": "2 Side Street", "version": 3}


@pytest.mark.parametrize("tag", ['""', '"01"', '"x"', '"9223372036854775808"'])
def test_a_tag_that_is_no_version_matches_none(service, ann, tag):
    for method, new in (("PATCH", {"name": "Anna"}), ("PUT", person("anna")), ("DELETE", None)):
        answer = service.request(method, f"/users/{ann['id']}", json=new, headers={"If-Match": tag})
        assert answer.status_code == 412, answer.text


def test_a_stale_replacement_or_removal_changes_nothing(service, ann):
    service.patch(f"/users/{ann['id']}", json={"name": "Anna", "version": 1})
    assert service.put(f"/users/{ann['id']}", json=person("annette", version=1)).status_code == 409
    assert service.delete(f"/users/{ann['id']}?version=1").status_code == 409
    assert service.delete(f"/users/{ann['id']}", headers={"If-Match": '"1"'}).status_code == 412
    assert service.get(f"/users/{ann['id']}").json()["name"] == "Anna"


def test_any_version_will_do_for_a_star(service, ann):
    assert service.patch(f"/users/{ann['id']}", json={"name": "A"}, headers={"If-Match": "*"}).status_code == 200
    assert service.patch(f"/users/{ann['id']}", json={"name": "B"}, headers={"If-Match": '"1", "2"'}).status_code == 200


def test_a_change_that_changes_nothing_is_no_version(service, ann):
    whole = {name: ann[name] for name in ("email", "name", "address", "image", "text")}
    for answer in (
        service.patch(f"/users/{ann['id']}", json={"name": ann["name"], "version": 1}),
        service.patch(f"/users/{ann['id']}", json={"version": 1}),
        service.put(f"/users/{ann['id']}", json=whole, headers={"If-Match": '"1"'}),
    ):
        assert (answer.status_code, answer.json()) == (200, ann)


def test_a_change_in_psql_is_a_version(service, ann):
    with psycopg.connect(service.database) as connection:
        connection.execute("update users set name = 'Psql' where id = %s", [ann["id"]])
    assert service.get(f"/users/{ann['id']}").json()["version"] == 2


@pytest.mark.parametrize("how", [{"params": {"version": 1}}, {"headers": {"If-Match": '"1"'}}])
def test_a_removed_user_is_gone(service, ann, how):
    assert service.delete(f"/users/{ann['id']}", **how).status_code == 204
    assert service.get(f"/users/{ann['id']}").status_code == 404
    assert service.delete(f"/users/{ann['id']}", **how).status_code == 404
    assert service.patch(f"/users/{ann['id']}", json={"name": "A", "version": 1}).status_code == 404


def test_an_email_is_one_persons_whatever_the_case(service, ann):
    answer = service.post("/users", json=person("x", email=ann["email"].upper()))
    assert answer.status_code == 409
    assert list(answer.json()["errors"]) == ["email"]


def test_an_email_is_not_taken_over_by_a_change(service, ann, unique):
    bob = service.post("/users", json=person(unique("bob"))).json()
    answer = service.patch(f"/users/{bob['id']}", json={"email": ann["email"].upper(), "version": 1})
    assert (answer.status_code, [*answer.json()["errors"]]) == (409, ["email"])
    assert service.get(f"/users/{bob['id']}").json() == bob


def test_of_two_who_race_for_an_email_one_gets_it(service, unique):
    new = person(unique("race"))
    with ThreadPoolExecutor(8) as clients:
        answers = [*clients.map(lambda _: requests.post(f"{service.url}/users", json=new, timeout=10), range(8))]
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7


def test_of_many_who_start_from_one_version_one_saves(service, ann):
    url = f"{service.url}/users/{ann['id']}"
    with ThreadPoolExecutor(8) as clients:
        answers = [
            *clients.map(lambda i: requests.patch(url, json={"name": f"A{i}", "version": 1}, timeout=10), range(8))
        ]
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7
    assert {answer.json()["current"]["version"] for answer in answers if answer.status_code == 409} == {2}


def test_of_two_who_match_one_version_one_saves(service, ann):
    url, tag = f"{service.url}/users/{ann['id']}", {"If-Match": '"1"'}
    with ThreadPoolExecutor(2) as clients:
        answers = [
            *clients.map(lambda i: requests.patch(url, json={"name": f"A{i}"}, headers=tag, timeout=10), range(2))
        ]
    assert sorted(answer.status_code for answer in answers) == [200, 412]


@pytest.mark.parametrize(
    "address",
    ["a.b-c+d@sub.example.photography", "x@example.museum", "o'neil@example.co.uk", "1@a-b.example.international"],
)
def test_a_real_address_passes(service, unique, address):
    assert service.post("/users", json=person("x", email=unique("e") + address)).status_code == 201


@settings(max_examples=40, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=1000))
def test_any_text_comes_back_as_it_was(service, text):
    answer = service.request("POST", "/user?email=any-text@example.com", json={"text": text})
    assert service.get(f"/users/{answer.json()['id']}").json()["text"] == text


def fitting(longest: int) -> st.SearchStrategy[str]:
    """Texts that fit the rules: not blank, nothing that PostgreSQL cannot hold."""
    letters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
    return st.text(letters, min_size=1, max_size=longest).filter(SEEN.search)


@settings(max_examples=50, deadline=None)
@given(name=fitting(30), address=fitting(100), text=st.none() | fitting(1000))
def test_any_user_that_fits_the_rules_comes_back_as_they_were(service, name, address, text):
    new = person(uuid4().hex, name=name, address=address, text=text)
    answer = service.post("/users", json=new)
    assert answer.status_code == 201, answer.text
    assert new.items() <= service.get(answer.headers["Location"]).json().items()


# Pages ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sort", ORDERS)
def test_a_walk_in_any_order_meets_everybody_once(service, unique, sort):
    mark = unique("walk")
    crowd(service, mark, 40)
    found = walk(service, f"/users?address={mark}&limit=7&sort={sort}")
    name = sort.lstrip("-")
    assert len({user["id"] for user in found}) == len(found) == 40
    keys = [(user[name], user["id"]) for user in found]
    assert keys == sorted(keys, reverse=sort.startswith("-"))


def test_a_page_is_of_fifty_unless_told(service, unique):
    mark = unique("fifty")
    crowd(service, mark, 60)
    assert len(service.get(f"/users?address={mark}").json()["items"]) == 50
    last = service.get(f"/users?address={mark}&limit=60")
    assert (len(last.json()["items"]), last.json()["next"], "Link" in last.headers) == (60, None, False)


# A page of seven ends every way there is: among those who follow, on the walk, at its end, at the end of all.
STREETS = """
    insert into users (email, address)
    select i || '@example.com', case
        when i % 5000 = 0 then null
        when i <= 4 then 'Gathered at the Front'
        when i between 29000 and 29020 then 'Gathered at the Back'
        else i || case i % 2 when 0 then ' MAIN Street, ' else ' Öland_50%\\\\ ' end
            || case when i % 23 = 0 then 'Springfield' when i % 200 = 1 then 'Middletown' else 'Ärger ' || i % 7000 end
    end
    from generate_series(1, 30000) as i
"""


@pytest.fixture(scope="module")
def town(module_database):
    """A connection to a database of people whose addresses are neither alike nor evenly spread."""
    with connect(module_database) as connection:
        connection.execute("set statement_timeout = 0")
        connection.execute(STREETS.encode())
        connection.execute("analyze users")
        connection.execute("set plan_cache_mode = force_generic_plan")
        yield connection


def rows(connection, name: str, **given: object) -> tuple:
    """The row of a statement as it stands in its page, but for the place of the feed, which goes on meanwhile."""
    statement = STATEMENTS[name].fit(given)
    (row,) = connection.execute(statement.sql, statement.values(given))
    return row[:2]


@pytest.mark.parametrize(
    "part",
    first(
        3,
        [
            "springfield",
            "MAIN",
            "street",
            "middletown",
            "gathered",
            "front",
            "back",
            "ärger 77",
            "öland_50%",
            "50%\\ ärger",
            "%%%",
            "___",
            "\\ mid",
            "12345 ",
            "6999",
            "qqq",
            "ärger 12 and more",
            " main street, spring",
        ],
    ),
)
def test_a_search_finds_page_by_page_what_a_list_finds(town, part):
    for after in ("", "3", "4000", "29005", "29990"):
        for _ in range(3):
            following = page_found(town, {"address": part, "limit": "7", "after_id": after})
            if not following:
                break
            after = decoded(following)[1]["after_id"]


@pytest.mark.parametrize("part", ["springfield", "öland_50%", "qqq"])
@pytest.mark.parametrize("limit, fields, form", [("7", "id,address", "lines"), ("1000", "id", "")])
def test_a_search_says_it_as_a_list_does(town, part, limit, fields, form):
    for after in ("", "100", "30000", str(10**17)):
        page_found(town, {"address": part, "limit": limit, "fields": fields, "form": form, "after_id": after})


def page_found(town, query: dict[str, str]) -> str | None:
    """The cursor of the page after this one, which is the same by both statements."""
    found = rows(town, "users.search", **query)
    assert found == rows(town, "users.list", **query)
    return found[0]


@pytest.mark.thorough
@pytest.mark.parametrize("examples", first(1, [15, 50]))
def test_a_search_for_a_part_of_anybodys_address_finds_what_a_list_finds(town, examples):
    @settings(max_examples=examples, deadline=None)
    @given(start=st.integers(1, 30000), begin=st.integers(0, 40), length=st.integers(3, 20), limit=st.integers(1, 60))
    def agree(start, begin, length, limit):
        address = town.execute("select address from users where id = $1", [start]).fetchone()[0] or "nowhere"
        part = address[begin : begin + length]
        if len(part) >= 3:
            for after in ("", str(start - 1)):
                asked = {"address": part, "limit": str(limit), "after_id": after}
                assert rows(town, "users.search", **asked) == rows(town, "users.list", **asked)

    agree()


@pytest.mark.parametrize("sort", ORDERS)
def test_a_walk_meets_the_nameless_and_those_in_capitals(service, unique, sort):
    mark = unique("odd")
    with psycopg.connect(service.database) as connection:
        connection.execute(
            "insert into users (email, name, address) select"
            " case i %% 2 when 0 then upper(i || %(mark)s) else i || %(mark)s end || '@example.com',"
            " case i %% 3 when 0 then null else 'N' || i %% 3 end, %(mark)s from generate_series(1, 20) as i",
            {"mark": mark},
        )
    found = walk(service, f"/users?address={mark}&limit=3&sort={sort}")
    name = sort.lstrip("-")
    assert len({user["id"] for user in found}) == len(found) == 20
    keys = [((user[name] or "").lower() if name in ("name", "email") else user[name], user["id"]) for user in found]
    assert keys == sorted(keys, reverse=sort.startswith("-"))


def test_a_walk_meets_every_survivor_once_while_others_come_and_go(service, unique):
    mark = unique("busy")
    crowd(service, mark, 300)
    everybody = {user["id"] for user in walk(service, f"/users?address={mark}&limit=1000")}
    found, path = [], f"/users?address={mark}&limit=20"
    with psycopg.connect(service.database, autocommit=True) as connection:
        for number in range(1000):
            answer = service.get(path)
            found += [user["id"] for user in answer.json()["items"]]
            connection.execute(
                "delete from users where id in (%s, %s)", [min(everybody) + number * 9, max(everybody) - number]
            )
            crowd(service, f"{mark}-{number}", 2)
            if "next" not in answer.links:
                break
            path = answer.links["next"]["url"]
        survivors = {id for (id,) in connection.execute("select id from users where id = any(%s)", [list(everybody)])}
    assert len(found) == len(set(found))
    assert survivors <= set(found)


def test_a_cursor_belongs_to_its_order(service, unique):
    crowd(service, unique("order"), 3)
    cursor = service.get("/users?limit=1&sort=name").json()["next"]
    assert service.get("/users", params={"limit": 1, "sort": "name", "cursor": cursor}).status_code == 200
    assert service.get("/users", params={"limit": 1, "sort": "email", "cursor": cursor}).status_code == 422


@pytest.mark.parametrize("kind", ["application/x-ndjson", "text/csv"])
def test_a_stream_holds_the_whole_selection(service, unique, kind):
    mark = unique("stream")
    crowd(service, mark, 2500)
    text = service.get(f"/users?address={mark}&sort=-name", headers={"Accept": kind}).content.decode()
    if kind == "text/csv":
        rows = [*csv.DictReader(io.StringIO(text))]
        found = [{**row, "id": int(row["id"]), "version": int(row["version"]), "text": None} for row in rows]
    else:
        found = [json.loads(line) for line in text.splitlines()]
    assert found == walk(service, f"/users?address={mark}&sort=-name&limit=1000")


def test_a_stream_keeps_commas_quotes_and_line_breaks(service, unique):
    new = person(unique("csv"), address='1, "Main"\r\nStreet;\tx\u2028y', text='\n,"')
    ann = service.post("/users", json=new).json()
    lines = service.get(f"/users?id={ann['id']}", headers={"Accept": "application/x-ndjson"}).content.decode()
    assert json.loads(lines) == ann
    table = service.get(f"/users?id={ann['id']}", headers={"Accept": "text/csv"}).content.decode()
    header, row = csv.reader(io.StringIO(table, newline=""))
    assert dict(zip(header, row, strict=True)) == {name: str(value) for name, value in ann.items()}


def test_a_stream_of_nobody_is_empty(service):
    assert service.get("/users?name=nobody", headers={"Accept": "application/x-ndjson"}).text == ""
    assert service.get("/users?name=nobody&fields=id,name", headers={"Accept": "text/csv"}).text == "id,name\r\n"


def test_fields_choose_and_leave_the_version_alone(service, ann):
    answer = service.get(f"/users/{ann['id']}?fields=name,id")
    assert answer.json() == {"id": ann["id"], "name": ann["name"]}
    assert answer.headers["ETag"] == '"1"'
    (only,) = service.get(f"/users?id={ann['id']}&fields=email").json()["items"]
    assert only == {"email": ann["email"]}


HOSTS = ("localhost", "intranet", "cdn_1.example.com", "a_b", "127.0.0.1", "[::1]", "münchen.example", "EXAMPLE.COM")
ADDRESSES = [
    f"{scheme}://{host}{rest}" for scheme in ("http", "HTTPS") for host in HOSTS for rest in ("", "/", ":80/ü_?c#e")
]
NO_ADDRESSES = [
    *(
        "http://",
        "http:///a",
        "http://?",
        "http://.",
        "http://a b/c",
        "http://-a.example/",
        "//example.com/a",
        "http:/a",
    ),
    *("http://a:99999/", "http://a:b/", "http://999.1.1.1/", "http://[::1", "ftp_://a/", "http://a\n"),
]


@pytest.mark.parametrize(
    ("image", "status"), [*((each, 201) for each in ADDRESSES), *((each, 422) for each in NO_ADDRESSES)]
)
def test_an_image_is_at_a_web_address(service, unique, image, status):
    assert service.post("/users", json=person(unique("image"), image=image)).status_code == status


# Search ---------------------------------------------------------------------------------------------------------------


def test_people_are_found_by_all_that_is_said(service, unique):
    mark = unique("Søk%_")
    new = person("x", email=unique("find") + "@example.com", name=mark[:30], address=f"8 {mark} Straße")
    ann = service.post("/users", json=new).json()
    for search in (
        {"id": ann["id"]},
        {"email": ann["email"].upper()},
        {"name": ann["name"]},
        {"address": mark.upper()},
        {"address": f"8 {mark[:6]}"},
        {"address": "k%_", "name": ann["name"]},
        {"address": "8", "email": ann["email"]},
    ):
        found = service.get("/users", params=search).json()["items"]
        assert found == [ann], search
        assert service.post("/users/search", json=search).json()["items"] == found
    assert service.get("/users", params={"address": mark.replace("%", "x")}).json()["items"] == []
    assert service.get("/users", params={"name": ann["name"], "email": "other@example.com"}).json()["items"] == []


@pytest.mark.parametrize("part, found", [("0%", 1), ("_x\\", 1), ("0_", 0), ("%x", 0), ("%%", 0), ("_", 1), ("\\y", 1)])
def test_a_part_of_an_address_is_meant_as_written(service, unique, part, found):
    email = unique("part") + "@example.com"
    service.post("/users", json=person("x", email=email, address="50% a_x\\y"))
    assert len(service.get("/users", params={"email": email, "address": part}).json()["items"]) == found


@settings(max_examples=50, deadline=None)
@given(address=fitting(100), ends=st.tuples(st.integers(0, 99), st.integers(1, 100)))
def test_any_part_of_an_address_finds_it(service, address, ends):
    part = address[ends[0] : ends[1]].strip()
    part = part if SEEN.search(part) else address
    ann = service.post("/users", json=person(uuid4().hex, address=address)).json()
    found = service.get("/users", params={"email": ann["email"], "address": part}).json()["items"]
    assert found == [ann]


def test_a_search_is_walked_as_the_list_is(service, unique):
    mark = unique("both")
    crowd(service, mark, 10)
    query = {"limit": 4, "sort": "-email", "fields": "id,email"}
    listed = service.get("/users", params={**query, "address": mark})
    found = service.post("/users/search", params=query, json={"address": mark})
    assert found.json() == listed.json()
    rest = service.post(found.links["next"]["url"], json={"address": mark})
    assert rest.json() == service.get(listed.links["next"]["url"]).json()


# The short forms ------------------------------------------------------------------------------------------------------


def test_a_user_by_email_is_made_read_changed_and_removed(service, unique):
    email = unique("short") + "@example.com"
    first = service.post("/user", params={"email": email}, json={"text": "one"})
    second = service.post("/user", params={"email": email.upper()}, json={"text": "two"})
    assert (first.status_code, second.status_code) == (201, 200)
    assert second.json()["id"] == first.json()["id"]
    read = service.get("/user", params={"email": email})
    assert (read.json()["text"], read.headers["ETag"]) == ("two", '"2"')
    assert service.get(f"/user/{first.json()['id']}").text == read.text
    assert service.delete("/user", params={"email": email, "version": 1}).status_code == 409
    assert service.delete("/user", params={"email": email, "version": 2}).status_code == 204
    assert service.get("/user", params={"email": email}).status_code == 404


def test_the_same_text_by_email_is_no_version(service, unique):
    email = unique("same") + "@example.com"
    answers = [service.post("/user", params={"email": email}, json={"text": "one"}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [201, 200, 200]
    assert [answer.headers["ETag"] for answer in answers] == ['"1"'] * 3


def test_a_text_by_email_leaves_the_rest_alone(service, ann):
    answer = service.post("/user", params={"email": ann["email"]}, json={"text": "one"})
    assert answer.json() == ann | {"text": "one", "version": 2, "updated_at": answer.json()["updated_at"]}


def test_a_user_by_no_email_is_a_bad_request(service):
    assert service.get("/user").status_code == 400


# Around ---------------------------------------------------------------------------------------------------------------


def test_a_request_keeps_its_id(service):
    assert service.get("/ping", headers={"X-Request-Id": "mine"}).headers["X-Request-Id"] == "mine"
    assert len(service.get("/ping", headers={"X-Request-Id": "ü" * 3 + "x" * 200}).headers["X-Request-Id"]) == 32
    assert service.get("/users/9", headers={"X-Request-Id": "mine"}).headers["X-Request-Id"] == "mine"


def test_a_problem_names_its_request(service):
    answer = service.get("/users/999999999", headers={"X-Request-Id": "mine"})
    assert (answer.status_code, answer.json()["request_id"]) == (404, "mine")
    made = service.get("/nothing")
    assert made.json()["request_id"] == made.headers["X-Request-Id"] != service.get("/nothing").headers["X-Request-Id"]


def test_head_is_get_without_the_body(service, ann):
    for path in (f"/users/{ann['id']}", f"/users?id={ann['id']}", f"/user/{ann['id']}", "/users/999999999"):
        head, get = service.request("HEAD", path), service.get(path)
        assert (head.status_code, head.content) == (get.status_code, b"")
        for name in ("ETag", "Content-Type", "Content-Length"):
            assert head.headers.get(name) == get.headers.get(name)


def test_another_media_type_is_not_acceptable(service, ann):
    assert service.get(f"/users/{ann['id']}", headers={"Accept": "application/xml"}).status_code == 406
    assert service.get(f"/users/{ann['id']}", headers={"Accept": "text/html, */*;q=0.1"}).status_code == 200


def test_psql_prints_the_bodies_of_the_service(service, psql, unique):
    name = unique("ps")
    address = f"{name} \\n \\\\ \"quoted\" 'single' :name :'id' $1 %s € \U0001f600\n\ttab"
    ann = service.post("/users", json=person(name, address=address)).json()
    assert psql("users.get", id=ann["id"]) == service.get(f"/users/{ann['id']}").text
    assert psql("users.get", id=ann["id"], fields="name,id") == service.get(f"/users/{ann['id']}?fields=name,id").text
    assert psql("users.by_email", email=ann["email"]) == service.get("/user", params={"email": ann["email"]}).text
    assert psql("users.list", limit=3) == service.get("/users?limit=3").text
    for sort in ORDERS:
        page = service.get(f"/users?limit=2&sort={sort}")
        assert psql(in_order("users.list", sort), limit=2, sort=sort) == page.text
        cursor = page.json()["next"]
        late = service.get("/users", params={"limit": 2, "sort": sort, "cursor": cursor})
        assert psql(in_order("users.list", sort), limit=2, sort=sort, **decoded(cursor)[1]) == late.text
    assert psql("users.search", address=address) == service.get("/users", params={"address": address}).text
    assert psql("users.list", address=address) == service.get("/users", params={"address": address}).text


@pytest.mark.parametrize(
    "text", ["it's", '"', "\\", "\\n", ":name", ":'name'", ":{?name}", "a\nb", "€\U0001f600", "$1", "%s", "--"]
)
def test_psql_finds_whom_the_service_finds(service, psql, unique, text):
    new = person(unique("ps"), name=f"{text} {uuid4().hex[:9]}", address=f"{text} {uuid4().hex}")
    ann = service.post("/users", json=new).json()
    for search in (
        {"name": ann["name"]},
        {"address": ann["address"][:-9], "fields": "id,address"},
        {"email": ann["email"].upper(), "name": ann["name"], "sort": "-created_at"},
    ):
        answer = service.get("/users", params=search)
        assert len(answer.json()["items"]) == 1
        assert psql(in_order("users.list", search.get("sort", "")), **search) == answer.text
