"""Long work ends, whatever ends it: its state is final, its place is free, its transactions and files are gone."""

import json
import socket
import subprocess
import time
from contextlib import contextmanager
from http.client import HTTPResponse
from itertools import count, product

import psycopg
import pytest

from tests.conftest import first, serve, wait_for

CSV = {"Content-Type": "text/csv"}

ROWS = 60_000
"""More than one slice of any stage."""

STORIES = "insert into userstories (project_id, subject) select %s, 's' || i from generate_series(1, %s) as i"

BACKUP_SPACE = "64k"
"""Less than a backup of them takes."""


def people(first: int) -> bytes:
    return "".join(f"{n},Ann {n},2021-01-01T00:00:00Z,1,1\n" for n in range(first, first + ROWS)).encode()


@pytest.fixture(scope="module")
def house(module_database, tmp_path_factory):
    """A service with employees to move, with `csv` and `avro` of them."""
    disk = tmp_path_factory.mktemp("disk")
    with serve(module_database, BACKUP_DIR=str(disk / "backups"), REJECTS_LIMIT="1000") as service:
        with psycopg.connect(module_database, autocommit=True) as owner:
            owner.execute(
                "insert into departments (id, department) values (1, 'D'); insert into jobs (id, job) values (1, 'J')"
            )
        service.csv, service.other = people(1), people(1_000_000)
        assert service.post("/upload/employees", data=service.csv, headers=CSV).json()["accepted"] == ROWS
        service.avro = service.get("/backup/employees").content
        assert service.post("/backup/all").status_code == 201
        service.disk = disk
        yield service


def large(house, stories: int) -> int:
    """A new project with so many stories."""
    made = house.post("/projects", json={"name": "Large"}).json()["id"]
    with psycopg.connect(house.database, autocommit=True) as owner:
        owner.execute(STORIES, [made, stories])
    return made


def trashed(house, stories: int) -> str:
    """The path that brings back a project with so many stories that was deleted."""
    path = f"/projects/{large(house, stories)}"
    assert house.delete(f"{path}?version=1").status_code == 204
    return f"{path}/revert?with=children"


JOBS = b"".join(b"%d,Job\n" % n for n in range(2, ROWS))

WORK = {
    "upload": lambda house: ("POST", "/upload/employees", house.other, "text/csv"),
    "atomic upload": lambda house: ("POST", "/upload/employees?mode=atomic", house.other, "text/csv"),
    "trial of an upload": lambda house: ("POST", "/upload/employees?mode=dry-run", house.other, "text/csv"),
    "upload into jobs": lambda house: ("POST", "/upload/jobs", JOBS, "text/csv"),
    "backup": lambda house: ("POST", "/backup/employees", b"", "text/plain"),
    "backup of all": lambda house: ("POST", "/backup/all", b"", "text/plain"),
    "restore of a file": lambda house: ("POST", "/restore/employees", house.avro, "application/avro"),
    "restore of all": lambda house: ("POST", "/restore/all", b'{"dry_run": true}', "application/json"),
    "delete": lambda house: ("DELETE", f"/projects/{large(house, 3000)}?version=1", b"", "text/plain"),
    "revert": lambda house: ("POST", trashed(house, 3000), b'{"to": 1}', "application/json"),
}  # fmt: skip

WAITED_FOR = [work for work in WORK if work != "delete"]

DELAYS = (0.0, 0.15, 0.6)
"""Seconds after which somebody ends the work."""


def taken(house) -> float:
    """How many places for long work are taken."""
    lines = house.get("/metrics").text.splitlines()
    return sum(
        float(line.split()[-1]) for line in lines if line.startswith(("rowhouse_operations{", "rowhouse_operations "))
    )


def open_transactions(connection) -> int:
    """Transactions of the service that somebody left open, but for what ends within a moment."""
    return connection.execute("""
        select count(*) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid() and xact_start < now() - interval '2 seconds'
    """).fetchone()[0]


@contextmanager
def nothing_left(house):
    """Afterwards no place is taken, no transaction open, no part of a file there, and other work is done at once.

    Work whose client has left at once may begin only while this looks.
    """
    yield
    wait_for(lambda: taken(house) == 0, within=30)
    with psycopg.connect(house.database, autocommit=True) as connection:
        wait_for(lambda: open_transactions(connection) == 0, within=30)
    answer = house.post("/upload/departments", data=b"1,D\n", headers=CSV)
    assert answer.status_code == 200, answer.text
    assert house.post("/backup/departments").status_code == 201
    wait_for(lambda: not [*(house.disk / "backups").glob("*.part")], within=30)


def begin(house, work):
    method, path, body, kind = WORK[work](house)
    answer = house.request(method, path, data=body, headers={"Content-Type": kind, "Prefer": "respond-async"})
    assert answer.status_code == 202, answer.text
    return answer.headers["Location"]


def ended(house, location):
    wait_for(lambda: house.get(location).json()["state"] != "running", within=60)
    return house.get(location).json()


jobs = count(2_000_000, 1000)

SOME = {("backup", 0.15), ("upload", 0.0), ("delete", 0.0)}
WALK = [pytest.param(*each, marks=[] if each in SOME else pytest.mark.thorough) for each in product(WORK, DELAYS)]


@pytest.mark.parametrize(("work", "delay"), WALK)
def test_work_that_is_canceled_ends(house, work, delay):
    with nothing_left(house):
        location = begin(house, work)
        time.sleep(delay)  # any moment
        canceled = house.delete(location).status_code
        found = ended(house, location)
        assert found["state"] == {204: "canceled", 409: "succeeded"}[canceled], json.dumps(found)


SHORT = {
    "upload": ("POST", "/upload/jobs", "text/csv"),
    "trial of an upload": ("POST", "/upload/jobs?mode=dry-run", "text/csv"),
    "backup": ("POST", "/backup/departments", "text/plain"),
    "restore": ("POST", "/restore/departments", "application/json"),
    "delete": ("DELETE", "/projects/{}?version=1", "text/plain"),
}
"""Work that is done within moments: whoever wants it broken off is often too late."""


def kept(house, work, path, before, found) -> bool:
    """Whether something was kept of such work."""
    if work == "backup":
        return {*(house.disk / "backups").iterdir()} != before
    if work == "delete":
        return house.get(path.partition("?")[0]).status_code == 404
    return work == "upload" and house.get(f"/jobs/{next(iter(found))}").status_code == 200


@pytest.mark.parametrize("rounds", [8, pytest.param(60, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("work", SHORT)
def test_who_is_told_that_work_is_broken_off_is_told_the_truth(house, work, rounds):
    """Asked at any moment: 204, and nothing of it is kept; or 409, and it is done."""
    seen = set()
    with nothing_left(house):
        for turn in range(rounds):
            method, path, kind = SHORT[work]
            first = next(jobs)
            body = "".join(f"{number},Job\n" for number in range(first, first + 1000)) if kind == "text/csv" else ""
            if work == "delete":
                path = path.format(large(house, 300))
            before = {*(house.disk / "backups").iterdir()}
            headers = {"Content-Type": kind, "Prefer": "respond-async"}
            body = body if work != "restore" else "{}"
            answer = house.request(method, path, data=body, headers=headers)
            assert answer.status_code == 202, answer.text
            time.sleep(turn % 8 * 0.012)  # any moment
            canceled = house.delete(answer.headers["Location"]).status_code
            found = ended(house, answer.headers["Location"])
            assert found["state"] == {204: "canceled", 409: "succeeded"}[canceled], json.dumps(found)
            if work in ("upload", "backup", "delete"):
                assert kept(house, work, path, before, [first]) == (canceled == 409)
            seen.add(canceled)
    assert seen <= {204, 409}


@pytest.mark.thorough
@pytest.mark.parametrize("whose", ["the work's", "its watcher's"])
@pytest.mark.parametrize("work", WORK)
def test_work_whose_connection_is_killed_ends(house, work, whose):
    name = "= 'operation'" if whose == "its watcher's" else "<> 'operation' and state <> 'idle'"
    with nothing_left(house), psycopg.connect(house.database, autocommit=True) as owner:
        location = begin(house, work)
        owner.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()"
            f" and pid <> pg_backend_pid() and backend_type = 'client backend' and application_name {name}"
        )
        assert ended(house, location)["state"] in ("failed", "canceled", "succeeded")


def head(method, path, kind, length) -> bytes:
    lines = f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Type: {kind}", f"Content-Length: {length}"
    return "\r\n".join([*lines, "", ""]).encode()


def send_and_leave(house, work, delay):
    """Ask for work as a client who waits for it, and leave."""
    method, path, body, kind = WORK[work](house)
    with house.raw() as client:
        client.sendall(head(method, path, kind, len(body)) + body)
        time.sleep(delay)  # any moment


@pytest.mark.parametrize(
    ("work", "delay"),
    [
        ("upload", 0.0),
        *(
            pytest.param(work, delay, marks=pytest.mark.thorough)
            for work in WORK
            if work != "delete"
            for delay in DELAYS
        ),
    ],
)
def test_work_whose_client_leaves_ends(house, work, delay):
    with nothing_left(house):
        send_and_leave(house, work, delay)


def broken_off(house) -> float:
    """How many uploads were answered as one whose client has gone: 400."""
    lines = house.get("/metrics").text.splitlines()
    found = [line for line in lines if line.startswith("rowhouse_requests_total{") and "/upload/" in line]
    return sum(float(line.split()[-1]) for line in found if 'status="400"' in line)


def test_an_upload_whose_client_has_left_changes_nothing(house):
    """A lock holds the load up until its client is gone; it is not that wait which ends it."""
    before = broken_off(house)
    with nothing_left(house), psycopg.connect(house.database) as holder:
        holder.execute("lock table jobs in access exclusive mode")
        with house.raw() as client:
            client.sendall(head("POST", "/upload/jobs", "text/csv", 11) + b"70001,Left\n")
            wait_for(lambda: taken(house) == 1)
        wait_for(lambda: taken(house) == 0)
        holder.rollback()
        wait_for(lambda: broken_off(house) == before + 1)
        assert house.get("/jobs/70001").status_code == 404


def answer_to_half_closed(house, work) -> tuple[int, dict]:
    """What a client is told that closes its side behind a whole request, while locks hold the work up."""
    method, path, body, kind = WORK[work](house)
    with house.raw() as client:
        client.sendall(head(method, path, kind, len(body)) + body)
        client.shutdown(socket.SHUT_WR)
        answer = HTTPResponse(client)
        answer.begin()
        return answer.status, json.loads(answer.read())


@pytest.mark.parametrize("work", first(3, WAITED_FOR))
def test_a_client_that_closes_its_side_behind_a_whole_body_is_told_that_and_nothing_is_done(house, work):
    tables = ("employees", "departments", "jobs")
    with psycopg.connect(house.database, autocommit=True) as connection, nothing_left(house):
        asked = f"select {', '.join(f'(select count(*) from {table})' for table in (*tables, 'uploads'))}"
        before, files = connection.execute(asked).fetchone(), {*(house.disk / "backups").iterdir()}
        with psycopg.connect(house.database) as holder:
            holder.execute(f"lock table {', '.join(tables)} in access exclusive mode")
            status, told = answer_to_half_closed(house, work)
            holder.rollback()
        assert (status, told["type"]) == (400, "/problems/client-left"), told
        assert "closed its side of the connection before the answer" in told["detail"]
        assert connection.execute(asked).fetchone() == before
        assert {*(house.disk / "backups").iterdir()} == files


def test_a_client_that_closes_its_side_is_answered_where_the_work_is_soon_done_or_goes_on_without_it(house):
    with house.raw() as client:
        client.sendall(head("POST", "/upload/jobs?mode=dry-run", "text/csv", 12) + b"70002,Soon\n\n")
        client.shutdown(socket.SHUT_WR)
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
    with house.raw() as client:
        request = head("POST", "/backup/all", "text/plain", 0).replace(
            b"\r\n\r\n", b"\r\nPrefer: respond-async\r\n\r\n"
        )
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        answer = HTTPResponse(client)
        answer.begin()
        assert answer.status == 202
        assert ended(house, answer.headers["Location"])["state"] == "succeeded"


@pytest.mark.parametrize("work", ["backup", "backup of all"])
def test_a_backup_that_fills_its_disk_ends_and_says_so(house, work):
    backups = house.disk / "backups"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={BACKUP_SPACE}", "tmpfs", backups]).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        location = begin(house, work)
        found = ended(house, location)
        assert (found["state"], found["status"], found["result"]["status"]) == ("failed", 507, 507)
        method, path, *_ = WORK[work](house)
        assert house.request(method, path).status_code == 507
        assert [*backups.iterdir()] == []
        wait_for(lambda: taken(house) == 0)
    finally:
        subprocess.run(["umount", "-l", backups], check=True)
    with nothing_left(house):
        pass


def test_only_so_many_files_are_taken_in_at_once(house):
    """Those beyond are told at once, and nothing of theirs is read."""
    held = []
    try:
        for _ in range(4):
            client = house.raw()
            held.append(client)
            client.sendall(head("POST", "/upload/jobs", "text/csv", 10_000_000) + b"1,A\n")
        wait_for(lambda: taken(house) == 4)
        with house.raw() as client:
            client.sendall(head("POST", "/upload/jobs", "text/csv", 10_000_000))
            assert client.recv(65536).startswith(b"HTTP/1.1 503 ")
    finally:
        for client in held:
            client.close()
    with nothing_left(house):
        pass


@pytest.mark.parametrize("table", ["departments", "jobs", "employees"])
@pytest.mark.parametrize("mode", ["partial", "atomic", "dry-run"])
@pytest.mark.parametrize(
    "row", [b"--\r\n", b"x,y,z,1,1,1,1\n", b"x,Sales\n", b"0,A,2021-01-01T00:00:00Z,1,1\n", b'"a"b\n'], ids=range(5)
)
def test_more_rejects_than_may_be_are_refused_and_none_is_kept(house, table, mode, row):
    with psycopg.connect(house.database, autocommit=True) as connection:
        counts = [f"(select count(*) from {each})" for each in (f"{table}_errors", "uploads", table)]
        asked = f"select {', '.join(counts)}"
        before = connection.execute(asked).fetchone()
        path = f"/upload/{table}?mode={mode}&header=no"
        answer = house.post(path, data=row * 1001, headers=CSV)
        assert answer.status_code == 422 and "More than 1000 rows" in answer.json()["detail"], answer.text
        assert connection.execute(asked).fetchone() == before


def test_a_file_of_blank_rows_has_a_bound(house):
    for lines in (b"\n" * 1_000_002, b"1,D\n" + b",\n" * 1_000_002):
        answer = house.post("/upload/departments", data=lines, headers=CSV)
        assert answer.status_code == 422 and "blank" in answer.json()["detail"], answer.text


# Long deletes ---------------------------------------------------------------------------------------------------------


def test_a_delete_that_is_not_waited_for_is_an_operation(house):
    made = house.post("/projects", json={"name": "Going"}).json()
    answer = house.delete(f"/projects/{made['id']}?version=1", headers={"Prefer": "respond-async"})
    assert answer.status_code == 202 and answer.headers["Preference-Applied"] == "respond-async"
    found = ended(house, answer.headers["Location"])
    assert (found["kind"], found["table"], found["state"], found["status"]) == ("delete", "projects", "succeeded", 204)
    assert house.get(f"/projects/{made['id']}").status_code == 404


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [("?version=7", {}, 409), ("", {"If-Match": '"7"'}, 412)],
)
def test_a_delete_from_another_version_fails_as_it_would_have_answered(house, path, headers, status):
    made = house.post("/projects", json={"name": "Staying"}).json()
    answer = house.delete(f"/projects/{made['id']}{path}", headers=headers | {"Prefer": "respond-async"})
    found = ended(house, answer.headers["Location"])
    assert (found["state"], found["status"], found["result"]["current"]["id"]) == ("failed", status, made["id"])
    assert house.get(f"/projects/{made['id']}").status_code == 200
    assert house.delete(f"/projects/{made['id']}", headers={"Prefer": "respond-async"}).status_code == 428


@pytest.mark.thorough
def test_what_much_hangs_on_is_deleted_at_length(database):
    with serve(database, STATEMENT_TIMEOUT="1") as service:
        made = large(service, 30_000)
        path = f"/projects/{made}?version=1"
        answer = service.delete(path)
        assert answer.status_code == 504 and "respond-async" in answer.json()["detail"], answer.text
        found = ended(service, service.delete(path, headers={"Prefer": "respond-async"}).headers["Location"])
        assert found["state"] == "succeeded", found
        assert service.get(f"/projects/{made}").status_code == 404


# Long reverts ---------------------------------------------------------------------------------------------------------


@contextmanager
def held_up(house, path):
    """Whoever brings back what was deleted waits for as long as the block lasts."""
    with psycopg.connect(house.database) as holder:
        name = f"undo of project {path.split('/')[2]}"
        holder.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [name])
        yield


def waiting(house) -> bool:
    with psycopg.connect(house.database) as connection:
        (found,) = connection.execute(
            "select exists (select from pg_locks where locktype = 'advisory' and not granted)"
        ).fetchone()
    return found


@pytest.mark.parametrize("with_", ["?with=children", ""])
def test_a_revert_whose_client_has_left_brings_nothing_back(house, with_):
    path = trashed(house, 10).partition("?")[0] + with_
    with nothing_left(house), held_up(house, path):
        with house.raw() as client:
            client.sendall(head("POST", path, "application/json", 9) + b'{"to": 1}')
            wait_for(lambda: waiting(house))
            assert taken(house) == (1 if with_ else 0)
        wait_for(lambda: not waiting(house), within=4)
    assert house.get(path.partition("/revert")[0]).status_code == 404


@pytest.mark.parametrize("with_", ["?with=children", ""])
def test_a_revert_that_is_not_waited_for_is_an_operation_whose_result_is_the_object(house, with_):
    path = trashed(house, 10).partition("?")[0] + with_
    answer = house.post(path, json={"to": 1}, headers={"Prefer": "respond-async"})
    assert answer.status_code == 202 and answer.headers["Preference-Applied"] == "respond-async"
    found = ended(house, answer.headers["Location"])
    assert (found["kind"], found["table"], found["state"], found["status"]) == ("undo", "projects", "succeeded", 200)
    assert found["rows_done"] == found["rows_total"] == (11 if with_ else 1)
    assert found["result"] == house.get(path.partition("/revert")[0]).json()


def test_a_revert_that_is_canceled_brings_nothing_back(house):
    path = trashed(house, 10)
    with nothing_left(house), held_up(house, path):
        answer = house.post(path, json={"to": 1}, headers={"Prefer": "respond-async"})
        wait_for(lambda: waiting(house))
        assert house.delete(answer.headers["Location"]).status_code == 204
        assert ended(house, answer.headers["Location"])["state"] == "canceled"
    assert house.get(path.partition("/revert")[0]).status_code == 404


def test_a_revert_that_cannot_be_fails_as_it_would_have_answered(house):
    path = trashed(house, 10)
    for body, status in (({"to": 7}, 422), ({"to": 1, "version": 7}, 409)):
        assert house.post(path, json=body).status_code == status
    answer = house.post(path, json={"to": 7}, headers={"Prefer": "respond-async"})
    found = ended(house, answer.headers["Location"])
    assert (found["state"], found["status"]) == ("failed", 422)
    answer = house.post(path, json={"to": 1, "version": 7}, headers={"Prefer": "respond-async"})
    assert answer.status_code == 409  # what can be refused at once is no operation
