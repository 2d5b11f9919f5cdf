"""Operations: long work goes on without its client, tells how far it is, is broken off, and its death is seen."""

import errno
import io
import select
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import psutil
import psycopg
import pytest
import requests

import db
from db.pool import connect
from handlers.bulk import backup, loading, restore
from handlers.bulk.progress import Canceled
from tests.conftest import answers, first, make_token, serve, wait_for

ASYNC = {"Prefer": "respond-async"}
CSV = {"Content-Type": "text/csv"}


@pytest.fixture(scope="module")
def house(module_database, tmp_path_factory):
    with serve(module_database, WORKERS="1") as service:
        yield service


@pytest.fixture(autouse=True)
def empty(house):
    with psycopg.connect(house.database) as connection:
        connection.execute("truncate departments, jobs, employees, uploads cascade")


def run(house, statement: str) -> None:
    with psycopg.connect(house.database, autocommit=True) as connection:
        connection.execute(statement)


def accepted(house, path: str, **options):
    """The answer to a request that began an operation."""
    answer = house.post(path, headers=ASYNC | options.pop("headers", {}), **options)
    assert answer.status_code == 202, answer.text
    assert answer.headers["Preference-Applied"] == "respond-async"
    return answer


def begin(house, path: str, **options) -> str:
    """Where the operation is that a request began."""
    answer = accepted(house, path, **options)
    assert answer.json()["state"] == "running"
    return answer.headers["Location"]


def ended(house, location: str) -> dict:
    """The operation, once it has ended."""
    wait_for(lambda: house.get(location).json()["state"] != "running")
    return house.get(location).json()


class held:
    """Keeps others from writing to a table while the block lasts."""

    def __init__(self, house, table: str) -> None:
        self.connection = psycopg.connect(house.database)
        self.connection.execute(f"lock table {table} in row exclusive mode")

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        self.connection.close()


def test_an_upload_a_backup_and_a_restore_go_on_alone(house):
    content = "\n".join(f"{i},Job {i}" for i in range(1, 3001)) + "\n,nobody\n"
    uploaded = ended(house, begin(house, "/upload/jobs", data=content, headers=CSV))
    assert (uploaded["state"], uploaded["status"], uploaded["rows_done"]) == ("succeeded", 200, 3001)
    assert (uploaded["result"]["accepted"], uploaded["result"]["rejected"]) == (3000, 1)
    again = ended(house, begin(house, "/upload/jobs", files={"file": content}))
    assert again["result"] == uploaded["result"]

    backup = ended(house, begin(house, "/backup/jobs"))
    assert (backup["status"], backup["rows_done"], backup["result"]["rows"]) == (201, 3000, 3000)
    assert house.get(backup["location"]).json() == backup["result"]

    house.delete("/jobs/1?version=1")
    restored = ended(house, begin(house, "/restore/jobs", json={"backup": backup["result"]["name"]}))
    assert (restored["kind"], restored["table"], restored["result"]["added"]) == ("restore", "jobs", 1)
    assert {item["id"] for item in house.get("/operations").json()["items"]} >= {uploaded["id"], restored["id"]}


def test_it_is_never_further_than_there_is_to_do(house, tmp_path):
    """However little PostgreSQL knows of the tables: never analyzed, as they were once, emptied, or grown since."""
    content = b"".join(b"%d,Job %d\n" % (i, i) for i in range(1, 2501))
    told: list[tuple[int, int | None]] = []

    def progress(rows: int, of: int | None = None) -> None:
        done, total = told[-1]
        told.append((done + rows, total if of is None else of))

    def followed(work, *arguments) -> list[int | None]:
        told[:] = [(0, None)]
        work(*arguments, progress)
        assert all(total is None or done <= total for done, total in told)
        assert told[-1][0] == told[-1][1], "in the end all is done"
        return [*{total for _, total in told[2:-1]}]

    def moved_in(some: bytes, progress) -> None:
        loading.load("jobs", io.BytesIO(some), progress, 5000, "auto", "partial")

    def restored(progress) -> None:
        files = {"jobs": min(tmp_path.glob("*.jobs.avro")).open("rb")}
        restore.restore("jobs", files, "a file", False, progress)

    db.open_pool(house.database, 2)
    try:
        assert followed(moved_in, content) == [None], "how many a file has is known once it was read"
        for table, rows in (("all", 2501), ("jobs", 2500)):
            assert followed(backup.back_up, tmp_path, table) == [rows]
        run(house, "analyze jobs")
        followed(moved_in, content.replace(b"\n", b" of another\n").replace(b"Job", b"Job ") + b"9000,x\n")
        for table, rows in (("all", 5003), ("jobs", 2501)):
            assert followed(backup.back_up, tmp_path, table) == [rows]
        assert followed(restored) == [2500]
        run(house, "truncate jobs, uploads cascade")
        for table in ("all", "jobs", "employees"):
            followed(backup.back_up, tmp_path, table)
    finally:
        db.close_pool()


def test_an_upload_that_was_read_tells_how_much_there_is(house):
    with held(house, "jobs"):
        location = begin(house, "/upload/jobs", data="1,a\n2,b\n,c\n", headers=CSV)
        wait_for(lambda: house.get(location).json()["rows_total"] == 3)
        found = house.get(location).json()
        assert (found["state"], found["rows_done"]) == ("running", 3)
    assert ended(house, location)["rows_total"] == 3


@pytest.mark.parametrize(
    "path, options, status",
    [
        ("/upload/jobs", {"data": "1,a\xe9".encode("latin-1"), "headers": CSV}, 422),
        ("/upload/jobs?mode=atomic", {"data": "1,a\n1,b\n", "headers": CSV}, 422),
        ("/restore/jobs", {"data": b"no Avro", "headers": {"Content-Type": "application/avro"}}, 422),
    ],
)
def test_one_that_fails_tells_the_problem(house, path, options, status):
    answer = accepted(house, path, **options)
    failed = ended(house, answer.headers["Location"])
    assert answer.json()["state"] == "running" or answer.json() == failed  # by the time that it was answered
    assert (failed["state"], failed["status"]) == ("failed", status)
    assert failed["result"]["status"] == status
    assert failed["result"]["request_id"] == failed["request_id"]


def test_what_can_be_refused_at_once_is_no_operation(house):
    for path in ("/upload/nothing", "/restore/departments", "/upload/jobs"):
        assert house.post(path, headers=ASYNC).status_code in (404, 415)
    assert house.get("/operations/999999").status_code == house.delete("/operations/999999").status_code == 404


def test_one_is_broken_off_while_it_waits_and_while_it_reads(house):
    with held(house, "jobs"):
        location = begin(house, "/upload/jobs", data="1,a\n", headers=CSV)
        assert house.delete(location).status_code == 204
        assert ended(house, location)["state"] == "canceled"
    large = "".join(f"{i},Job {i}\n" for i in range(1, 400_000))
    location = begin(house, "/upload/jobs", data=large, headers=CSV)
    assert house.delete(location).status_code == 204
    assert ended(house, location)["state"] == "canceled"
    assert house.delete(location).status_code == 409
    assert house.get("/jobs").json()["items"] == []
    assert house.post("/upload/jobs", data=large[:1000], headers=CSV).status_code == 200


@pytest.mark.parametrize("path", ["/upload/jobs", "/restore/jobs"])
@pytest.mark.parametrize("headers", [{}, ASYNC], ids=["waited for", "async"])
def test_what_is_refused_gives_its_place_back(house, path, headers):
    """However it is refused once it has a place: more often than there are places."""
    kind = CSV if "upload" in path else {"Content-Type": "application/avro"}
    refusals = [
        ({"data": b"x", "headers": {"Content-Type": "image/png"}}, 415),
        ({"data": b"x", "headers": kind | {"Content-Encoding": "br"}}, 415),
        ({"files": {"other": b"x"}, "headers": {}}, 422),
        ({"data": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 422),
        ({"data": b"x", "headers": kind | {"Idempotency-Key": ""}}, 400),
    ]
    for options, status in refusals:
        sent = options | {"headers": headers | options["headers"]}
        assert [house.post(path, **sent).status_code for _ in range(10)] == [status] * 10, options
    wait_for(lambda: "rowhouse_operations 0.0" in house.get("/metrics").text)


def test_there_are_no_more_at_once_than_the_limit(house):
    with held(house, "departments"):
        locations = [begin(house, "/upload/departments", data=f"{n},x\n", headers=CSV) for n in range(1, 5)]
        refused = house.post("/upload/departments", data="9,x\n", headers=CSV | ASYNC)
        assert (refused.status_code, "Retry-After" in refused.headers) == (503, True)
        for location in locations:
            house.delete(location)
    assert {ended(house, location)["state"] for location in locations} <= {"canceled", "succeeded"}


def test_one_whose_process_died_has_failed_and_can_be_done_again(house):
    content = "1,a\n2,b\n"
    with held(house, "jobs"):
        location = begin(house, "/upload/jobs", data=content, headers=CSV)
        wait_for(lambda: waiting(house))
        for process in workers(house):
            process.kill()
        house.session.close()
        wait_for(lambda: answers(house.url))
        failed = ended(house, location)
    assert (failed["state"], failed["status"], failed["finished_at"]) == ("failed", 500, None)
    assert "has died" in failed["result"]["detail"]
    assert house.delete(location).status_code == 409
    wait_for(lambda: not waiting(house))
    with psycopg.connect(house.database) as connection:
        assert not connection.execute("select from pg_class where relname = 'staging'").fetchall()
    assert ended(house, begin(house, "/upload/jobs", data=content, headers=CSV))["result"]["accepted"] == 2


def waiting(house) -> bool:
    """Whether somebody waits for the lock on a table."""
    with psycopg.connect(house.database) as connection:
        waits = "select from pg_locks where not granted and locktype = 'relation'"
        return bool(connection.execute(waits).fetchall())


def workers(house) -> list[psutil.Process]:
    """The processes that answer for a service, without the one that starts them."""
    port = house.url.rsplit(":", 1)[1]
    found = [each for each in psutil.process_iter(["environ"]) if (each.info["environ"] or {}).get("PORT") == port]
    return [each for each in found if each.ppid() in {other.pid for other in found}]


def test_one_request_with_a_key_begins_one_operation(house):
    headers = CSV | ASYNC | {"Idempotency-Key": "one operation"}
    first, second = (house.post("/upload/jobs", data="1,a\n", headers=headers) for _ in range(2))
    assert (first.headers["Location"], first.content) == (second.headers["Location"], second.content)
    assert ended(house, first.headers["Location"])["result"]["accepted"] == 1


def test_requests_are_answered_while_one_goes_on(house):
    large = "".join(f"{i},Job {i}\n" for i in range(1, 100_000))
    location = begin(house, "/upload/jobs", data=large, headers=CSV)
    longest, done = 0.0, threading.Event()
    while not done.is_set():
        began = time.monotonic()
        if house.get(location).json()["state"] != "running":
            done.set()
        longest = max(longest, time.monotonic() - began)
    assert house.get(location).json()["state"] == "succeeded"
    assert longest < 3


@pytest.mark.thorough
def test_uploads_leave_connections_for_others(database):
    with serve(database, POOL_SIZE="5") as service, psycopg.connect(database) as other, ThreadPoolExecutor(8) as crowd:
        other.execute("lock table jobs in access exclusive mode")
        asked = [crowd.submit(requests.post, f"{service.url}/upload/jobs", data="1,x\n", headers=CSV) for _ in range(8)]
        wait_for(lambda: sum(answer.done() for answer in asked) == 4, within=2.5)
        assert requests.get(f"{service.url}/users/1", timeout=2).status_code == 404
        told = [answer.result() for answer in asked]
        other.rollback()
    assert {answer.status_code for answer in told} == {503}
    refused = [answer.json()["detail"] for answer in told if "operations are going on" in answer.json()["detail"]]
    assert len(refused) == 4


@pytest.mark.parametrize("route", ["/upload/jobs", "/restore/jobs"])
def test_whoever_holds_places_for_long_work_leaves_some_for_others(database, route):
    """By files that never come; with no token there is nobody else."""
    head = f"POST {route} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\nContent-Type: "
    head += "text/csv" if "upload" in route else "application/avro"
    with psycopg.connect(database, autocommit=True) as connection:
        greedy, other = make_token(connection, "greedy"), make_token(connection, "other")
    with serve(database, WORKERS="1") as service, ExitStack() as open_ones:
        raws = [open_ones.enter_context(service.raw()) for _ in range(8)]
        for raw in raws:
            raw.sendall(f"{head}\r\nAuthorization: Bearer {greedy}\r\n\r\nid".encode())
        wait_for(lambda: len(select.select(raws, [], [], 0)[0]) == 5)
        for raw in select.select(raws, [], [], 0)[0]:
            answer = raw.recv(4096)
            assert answer.startswith(b"HTTP/1.1 429") and b"/problems/too-many-at-once" in answer
        for path, body, kind in (("/upload/jobs", b"1,x", "text/csv"), ("/backup/jobs", b"", "application/json")):
            sent = {"Authorization": f"Bearer {other}", "Content-Type": kind}
            assert service.post(path, data=body, headers=sent).status_code in (200, 201)


@pytest.mark.parametrize("error", [Canceled(), OSError(errno.ENOSPC, "No space left on device")])
@pytest.mark.parametrize("after", first(1, [1, 5]))
def test_a_backup_that_breaks_off_ends_its_transaction(database, error, after):
    """Between two slices of what the server sends: after so many times that somebody was told."""
    told, ended = [], threading.Event()

    def progress(*_: object, **__: object) -> None:
        told.append(1)
        if len(told) == after:
            raise error

    def back_up() -> None:
        with pytest.raises(type(error)), connection.transaction():
            backup.dump(connection, "jobs", io.BytesIO(), progress)
        connection.execute("select")
        ended.set()

    connection = connect(database)
    connection.execute("insert into jobs (id, job) select n, 'Job ' || n from generate_series(1, 5000) as n")
    threading.Thread(target=back_up, daemon=True).start()
    assert ended.wait(20)
    connection.close()
