"""Users: the pattern of all resources, over HTTP and beside psql."""

import csv
import io
import json
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

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
    answer = service.patch(f"/users/{ann['id']}", json={"name": ann["name"], "version": 1})
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


def test_a_stream_of_nobody_is_empty(service):
    assert service.get("/users?name=nobody", headers={"Accept": "application/x-ndjson"}).text == ""
    assert service.get("/users?name=nobody&fields=id,name", headers={"Accept": "text/csv"}).text == "id,name\r\n"


def test_fields_choose_and_leave_the_version_alone(service, ann):
    answer = service.get(f"/users/{ann['id']}?fields=name,id")
    assert answer.json() == {"id": ann["id"], "name": ann["name"]}
    assert answer.headers["ETag"] == '"1"'
    (only,) = service.get(f"/users?id={ann['id']}&fields=email").json()["items"]
    assert only == {"email": ann["email"]}


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
    assert service.delete("/user", params={"email": email}).status_code == 428
    assert service.delete("/user", params={"email": email, "version": 2}).status_code == 204
    assert service.get("/user", params={"email": email}).status_code == 404


def test_a_user_by_no_email_is_a_bad_request(service):
    assert service.get("/user").status_code == 400


# Around ---------------------------------------------------------------------------------------------------------------


def test_a_request_keeps_its_id(service):
    assert service.get("/ping", headers={"X-Request-Id": "mine"}).headers["X-Request-Id"] == "mine"
    assert len(service.get("/ping", headers={"X-Request-Id": "ü" * 3 + "x" * 200}).headers["X-Request-Id"]) == 32
    assert service.get("/users/9", headers={"X-Request-Id": "mine"}).headers["X-Request-Id"] == "mine"


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
        assert psql("users.list", limit=2, sort=sort) == page.text
        cursor = page.json()["next"]
        late = service.get("/users", params={"limit": 2, "sort": sort, "cursor": cursor})
        assert psql("users.list", limit=2, sort=sort, cursor=cursor) == late.text
    assert psql("users.list", address=address) == service.get("/users", params={"address": address}).text
