"""Idempotency-Key: what is sent twice is done once."""

import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from db.pool import connect
from tests.conftest import wait_for
from tests.test_users import person

CSV_ROWS = b"1,Engineering\n2,\n"


def rows(service, statement, *parameters):
    with connect(service.database) as connection:
        return connection.execute(statement, parameters).fetchall()


def test_the_same_request_again_gets_the_first_answer_byte_for_byte(service, unique):
    key, body = {"Idempotency-Key": unique("key")}, person(unique("ann"))
    first = service.post("/users", json=body, headers=key)
    assert first.status_code == 201
    service.patch(first.headers["Location"], json={"name": "Changed", "version": 1})
    again = service.post("/users", json=body, headers=key)
    assert (again.status_code, again.content) == (201, first.content)
    for name in ("Content-Type", "Location", "ETag"):
        assert again.headers[name] == first.headers[name]
    assert rows(service, "select count(*) from users where email = $1", body["email"]) == [(1,)]


def test_the_same_key_with_another_body_or_path_is_refused(service, unique):
    key = {"Idempotency-Key": unique("key")}
    assert service.post("/users", json=person(unique("ann")), headers=key).status_code == 201
    for path, body in (("/users", person(unique("bob"))), ("/projects", {"name": unique("p")})):
        answer = service.post(path, json=body, headers=key)
        assert answer.status_code == 422
        assert "Idempotency-Key" in answer.json()["detail"]


@pytest.mark.parametrize("key", ["", "x" * 256, "ключ".encode(), "a\tb"])
def test_a_bad_key_is_refused(service, unique, key):
    answer = service.post("/users", json=person(unique("ann")), headers={"Idempotency-Key": key})
    assert answer.status_code == 400


def test_a_refused_request_may_be_mended_and_sent_again(service, unique):
    """What was refused was not done: the key is still free."""
    key, taken = {"Idempotency-Key": unique("key")}, person(unique("ann"))
    service.post("/users", json=taken)
    assert service.post("/users", json=taken, headers=key).status_code == 409
    assert service.post("/users", json=person(unique("bob")), headers=key).status_code == 201


def test_while_the_first_is_running_the_second_is_told_so(service, unique):
    """The first waits for a lock that this test holds."""
    key, slug = {"Idempotency-Key": unique("key")}, unique("slug")
    with psycopg.connect(service.database) as holder, ThreadPoolExecutor() as pool:
        holder.execute("insert into projects (name, slug) values ('In the way', %s)", [slug])
        first = pool.submit(service.post, "/projects", json={"name": "First", "slug": slug}, headers=key)
        waiting = "select 1 from pg_stat_activity where wait_event_type = 'Lock' and query like '%projects.create%'"
        wait_for(lambda: rows(service, waiting))
        second = service.post("/projects", json={"name": "First", "slug": slug}, headers=key)
        assert second.status_code == 409
        assert "still running" in second.json()["detail"]
        holder.rollback()
        assert first.result().status_code == 201
    third = service.post("/projects", json={"name": "First", "slug": slug}, headers=key)
    assert third.content == first.result().content


def test_of_many_who_send_the_same_at_once_one_is_done(service, unique):
    key, body = {"Idempotency-Key": unique("key")}, person(unique("ann"))
    with ThreadPoolExecutor(16) as pool:
        answers = [*pool.map(lambda _: service.post("/users", json=body, headers=key), range(32))]
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.content for answer in answers if answer.status_code == 201}) == 1
    assert rows(service, "select count(*) from users where email = $1", body["email"]) == [(1,)]


def test_data_and_key_are_kept_together_or_not_at_all(service, unique):
    """Where the key cannot be kept, the data is not either."""
    key, body = {"Idempotency-Key": unique("key")}, person(unique("ann"))
    with psycopg.connect(service.database) as holder, ThreadPoolExecutor() as pool:
        holder.execute("lock table first_answers in share mode")
        answer = pool.submit(service.post, "/users", json=body, headers=key).result()
    assert answer.status_code == 503
    assert rows(service, "select 1 from users where email = $1", body["email"]) == []
    assert service.post("/users", json=body, headers=key).status_code == 201


def test_a_key_is_forgotten_after_a_day(service, unique):
    name = unique("key")
    key = {"Idempotency-Key": name}
    assert service.post("/users", json=person(unique("ann")), headers=key).status_code == 201
    rows(
        service,
        "update first_answers set created_at = now() - interval '24 hours' where key = $1 returning key",
        name,
    )
    other = person(unique("bob"))
    assert service.post("/users", json=other, headers=key).status_code == 201
    kept = rows(service, "select body::jsonb ->> 'email' from first_answers where key = $1", name)
    assert kept == [(other["email"],)]
    rows(
        service,
        "update first_answers set created_at = now() - interval '25 hours' where key = $1 returning key",
        name,
    )
    service.post("/users", json=person(unique("cleo")), headers={"Idempotency-Key": unique("key")})
    wait_for(lambda: not rows(service, "select 1 from first_answers where key = $1", name))


@pytest.mark.parametrize("form", ["body", "multipart"])
def test_an_upload_sent_again_gets_its_first_answer(service, unique, form):
    key = {"Idempotency-Key": unique("key")}
    content = CSV_ROWS + f"{time.time_ns() % 2**31},{unique('x')}\n".encode()

    def send(content):
        if form == "multipart":
            return service.post("/upload/departments", files={"file": content}, headers=key)
        return service.post("/upload/departments", data=content, headers=key | {"Content-Type": "text/csv"})

    first, again = send(content), send(content)
    assert first.status_code == again.status_code == 200
    assert first.content == again.content
    assert send(content + b"3,Sales\n").status_code == 422
