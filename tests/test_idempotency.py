"""Idempotency-Key: what is sent twice is done once."""

import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from db.pool import connect
from tests.conftest import make_token, serve, wait_for
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
        "update first_answers set created_at = now() - interval '24 hours' where key like '%/' || $1 returning $1",
        name,
    )
    other = person(unique("bob"))
    assert service.post("/users", json=other, headers=key).status_code == 201
    kept = rows(service, "select body::jsonb ->> 'email' from first_answers where key like '%/' || $1", name)
    assert kept == [(other["email"],)]
    rows(
        service,
        "update first_answers set created_at = now() - interval '25 hours' where key like '%/' || $1 returning $1",
        name,
    )
    service.post("/users", json=person(unique("cleo")), headers={"Idempotency-Key": unique("key")})
    wait_for(lambda: not rows(service, "select 1 from first_answers where key like '%/' || $1", name))


@pytest.mark.parametrize("form", ["body", "multipart"])
def test_an_upload_sent_again_gets_its_first_answer(service, unique, form):
    key = {"Idempotency-Key": unique("key")}
    content = CSV_ROWS + f"{time.time_ns() % 2**31},{unique('x')}\n".encode()

    def send(content, query=""):
        path = f"/upload/departments{query}"
        if form == "multipart":
            return service.post(path, files={"file": content}, headers=key)
        return service.post(path, data=content, headers=key | {"Content-Type": "text/csv"})

    first, again = send(content), send(content)
    assert first.status_code == again.status_code == 200
    assert first.content == again.content
    assert send(content + b"3,Sales\n").status_code == 422
    other = send(content, "?max_errors=7")
    assert (other.status_code, "Idempotency-Key" in other.text) == (422, True)


@pytest.fixture(scope="module")
def forgetful(module_database):
    """A service that keeps 3 answers of a caller, or 2,000 bytes of them; and three callers."""
    with serve(module_database, WORKERS="2", ANSWERS_LIMIT="3", ANSWERS_BYTES_LIMIT="2000") as service:
        with psycopg.connect(module_database, autocommit=True) as connection:
            made = service.post("/projects", json={"name": "Held to"}).json()["id"]
            service.held = [make_token(connection), make_token(connection, project=made), make_token(connection)]
            service.story = connection.execute(
                "insert into userstories (project_id, subject) values (%s, 'Told of') returning id", [made]
            ).fetchone()[0]
        yield service


def comment(service, caller: int, key: str, text: str = "Said"):
    return service.post(
        f"/userstories/{service.story}/comments",
        json={"text": text},
        headers={"Authorization": f"Bearer {service.held[caller]}"} | ({"Idempotency-Key": key} if key else {}),
    )


@pytest.fixture
def all_forgotten(forgetful):
    with psycopg.connect(forgetful.database) as connection:
        connection.execute("truncate first_answers, answer_counts")


@pytest.mark.parametrize("caller", [0, 1])
@pytest.mark.parametrize(("texts", "kept"), [(["Said"] * 4, 3), (["Said at length" * 100, "Said" * 200, "Said"], 2)])
def test_so_many_answers_are_kept_of_a_caller(forgetful, all_forgotten, unique, caller, texts, kept):
    """Of a token of a project, too. What is refused is not done; what was done is answered, and others go on."""
    keys = [unique("key") for _ in texts]
    answers = [comment(forgetful, caller, key, text) for key, text in zip(keys, texts, strict=True)]
    assert [answer.status_code for answer in answers] == [201] * kept + [429]
    assert answers[-1].json()["detail"].startswith("3 answers, or 2000 bytes of them, are kept")
    assert 24 * 3600 <= int(answers[-1].headers["Retry-After"]) <= 25 * 3600
    assert comment(forgetful, caller, keys[0], texts[0]).content == answers[0].content
    assert comment(forgetful, caller, keys[0], "Other").status_code == 422
    assert comment(forgetful, caller, "").status_code == 201
    assert comment(forgetful, 2, unique("key")).status_code == 201
    assert rows(forgetful, "select count(*) from first_answers") == [(kept + 1,)]


def test_the_same_key_of_another_caller_is_another_while_it_is_running_too(forgetful, all_forgotten, unique):
    key = unique("key")
    with psycopg.connect(forgetful.database) as holder, ThreadPoolExecutor() as pool:
        holder.execute("select 1 from userstories where id = %s for update", [forgetful.story])
        first = pool.submit(comment, forgetful, 0, key)
        waiting = "select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
        wait_for(lambda: rows(forgetful, waiting))
        headers = {"Authorization": f"Bearer {forgetful.held[2]}", "Idempotency-Key": key}
        assert forgetful.post("/projects", json={"name": "Another's"}, headers=headers).status_code == 201
        holder.rollback()
        assert first.result().status_code == 201


def test_the_same_key_of_another_caller_is_another(forgetful, all_forgotten, unique):
    """Of one role, too: nobody is told what another was answered."""
    key = unique("key")
    first = [comment(forgetful, caller, key) for caller in range(3)]
    again = [comment(forgetful, caller, key) for caller in range(3)]
    assert [answer.status_code for answer in first] == [201] * 3
    assert len({answer.json()["id"] for answer in first}) == 3
    assert [answer.content for answer in again] == [answer.content for answer in first]


def test_what_is_refused_or_forgotten_does_not_count(forgetful, all_forgotten, unique):
    for _ in range(3):
        assert comment(forgetful, 0, unique("key"), "").status_code == 422
        assert comment(forgetful, 0, unique("key")).status_code == 201
    assert comment(forgetful, 0, unique("key")).status_code == 429
    age = "update answer_counts set hour = date_trunc('hour', now(), 'UTC') - $1::interval returning 1"
    rows(forgetful, age, "24 hours")
    refused = comment(forgetful, 0, unique("key"))
    assert refused.status_code == 429 and 1 <= int(refused.headers["Retry-After"]) <= 3600
    rows(forgetful, age, "25 hours")
    assert comment(forgetful, 0, unique("key")).status_code == 201
    old = "select 1 from answer_counts where hour <= now() - interval '25 hours'"
    assert rows(forgetful, old) == []


def test_what_is_counted_is_what_is_kept(service, unique):
    """Also by many connections at once."""
    body = person(unique("ann"))["name"]
    before = rows(service, "select coalesce(sum(answers), 0), coalesce(sum(bytes), 0) from answer_counts")
    keys = [unique("key") for _ in range(32)]
    with ThreadPoolExecutor(8) as crowd:
        made = [
            *crowd.map(
                lambda key: service.post("/projects", json={"name": body}, headers={"Idempotency-Key": key}), keys
            )
        ]
    assert {answer.status_code for answer in made} == {201}
    after = rows(service, "select sum(answers), sum(bytes) from answer_counts")
    assert after[0][0] - before[0][0] == 32
    assert after[0][1] - before[0][1] == sum(len(answer.content) for answer in made)
