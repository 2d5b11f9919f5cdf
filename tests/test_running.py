"""Starting, stopping, and what happens when the ground gives way: the service as a process among others."""

import itertools
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import psutil
import psycopg
import pytest
import requests

import supervisor
from db import private_postgres
from tests.conftest import ROOT, START_WITHIN, Service, answers, comes_up, first, free_port, serve, wait_for

OLD_SERVER = os.environ.get("OLD_DATABASE_URL", "postgresql://postgres@127.0.0.1:5432/postgres")


@contextmanager
def start(directory: Path, **settings: str) -> Iterator[subprocess.Popen]:
    """Gunicorn as `make run` starts it, with a private PostgreSQL in this directory; at the block's end it is over."""
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    environment |= {"DATA_DIR": str(directory), "WORKERS": "1", **settings}
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=15)


def refusal(directory: Path, **settings: str) -> list[str]:
    """What a service says that does not start."""
    with start(directory, **settings) as process:
        said, _ = process.communicate(timeout=30)
        assert process.returncode != 0
        return said.splitlines()


@pytest.fixture
def directory():
    # Not pytest's own, whose path is longer than a socket's may be and closed to PostgreSQL's user.
    with tempfile.TemporaryDirectory(prefix="rowhouse-") as found:
        yield Path(found)


@pytest.mark.parametrize("ending", first(1, [signal.SIGTERM, signal.SIGINT]))
def test_a_fresh_start_serves_the_demonstration_and_leaves_no_process(directory, ending):
    port = str(free_port())
    with start(directory, PORT=port) as process:
        comes_up(f"http://127.0.0.1:{port}")
        assert requests.get(f"http://127.0.0.1:{port}/users/1", timeout=5).json()["email"] == "ann@example.com"
        family = psutil.Process(process.pid).children(recursive=True)
        private = psutil.Process(int(postmaster(directory)))

        began = time.monotonic()
        process.send_signal(ending)
        process.communicate(timeout=15)

        assert time.monotonic() - began < 10
        assert not any(each.is_running() and each.status() != "zombie" for each in [*family, private])


def test_a_private_server_stops_when_its_owner_is_killed(directory):
    port = str(free_port())
    with start(directory, PORT=port) as process:
        comes_up(f"http://127.0.0.1:{port}")
        pid_file = directory / "postgres/postmaster.pid"
        assert pid_file.exists()
        process.kill()
        wait_for(lambda: not pid_file.exists())
        process.communicate(timeout=15)


@pytest.mark.thorough
def test_two_copies_run_side_by_side(directory):
    ports = [str(free_port()), str(free_port())]
    with ExitStack() as running:
        for port in ports:
            running.enter_context(start(directory / port, PORT=port))
        for port in ports:
            comes_up(f"http://127.0.0.1:{port}")


@pytest.mark.thorough
@pytest.mark.parametrize("signals", ["\x03", "\x03\x03\x03"])
@pytest.mark.parametrize("seconds", [None, *[number / 4 for number in range(8)]])
def test_ctrl_c_in_a_terminal_says_one_line(database, directory, seconds, signals):
    """At any moment from when it has begun to look at its database: before, the interpreter itself still starts."""
    port = str(free_port())
    environment = os.environ | {"DATABASE_URL": database, "DATA_DIR": str(directory), "PORT": port, "WORKERS": "1"}
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(ROOT)
        os.execve(sys.executable, [sys.executable, "-m", "gunicorn"], environment)
    if seconds is None:
        comes_up(f"http://127.0.0.1:{port}")
    else:
        wait_for(psutil.Process(pid).children, within=START_WITHIN)
        time.sleep(seconds)  # any moment
    os.write(terminal, signals.encode())
    said = b""
    with suppress(OSError):
        while some := os.read(terminal, 4096):
            said += some
    os.waitpid(pid, 0)
    lines = [line for line in said.decode().replace("^C", "").splitlines() if line and " INFO " not in line]
    assert lines[-1] == "Rowhouse stops."
    assert all(line.startswith(("Rowhouse serves", "  ")) for line in lines[:-1]), lines


def test_a_busy_port_is_named(directory):
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        said = refusal(directory, PORT=str(port))
    assert said == [f"Cannot listen on 127.0.0.1:{port}: Address already in use. PORT= chooses another port."]


def test_an_unreachable_database_is_named(directory):
    said = refusal(directory, PORT=str(free_port()), DATABASE_URL=f"postgresql://127.0.0.1:{free_port()}/nowhere")
    assert len(said) == 1
    assert said[0].startswith("The database is not reachable: ")


def test_an_old_server_is_refused(directory):
    try:
        with psycopg.connect(OLD_SERVER, connect_timeout=3) as connection:
            version = connection.info.server_version // 10000
    except psycopg.OperationalError:
        pytest.skip(f"there is no server at {OLD_SERVER}; OLD_DATABASE_URL can name one")
    if version >= 16:
        pytest.skip(f"the server at {OLD_SERVER} is not too old")
    said = refusal(directory, PORT=str(free_port()), DATABASE_URL=OLD_SERVER)
    assert said == [f"PostgreSQL {version} is too old: Rowhouse needs 16 or newer."]


def test_a_data_directory_that_cannot_be_written_is_named(directory):
    (directory / "file").touch()
    said = refusal(directory / "file" / "data", PORT=str(free_port()))
    assert said == [f"DATA_DIR {directory}/file/data cannot be written: Not a directory."]
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    command = [sys.executable, "-m", "flask", "--app", "app", "migrate"]
    ended = subprocess.run(
        command, cwd=ROOT, env=environment | {"DATA_DIR": f"{directory}/file/data"}, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr.splitlines()) == (1, said)


def test_a_data_directory_in_use_is_named(directory):
    with private_postgres.server(directory):
        said = refusal(directory, PORT=str(free_port()))
    assert said == [f"DATA_DIR {directory} is in use by another Rowhouse."]


def test_an_address_others_can_reach_is_refused(directory):
    said = refusal(directory, HOST="0.0.0.0", PORT=str(free_port()))
    assert said == ["HOST=0.0.0.0 is reachable from elsewhere: without tokens Rowhouse answers on loopback only."]


@pytest.mark.thorough
def test_a_start_that_is_refused_is_over_when_its_postgresql_is(directory):
    with start(directory, HOST="0.0.0.0", PORT=str(free_port())) as process:
        # Not by what it says: whatever has its standard error would be waited for, too.
        assert process.wait(30) != 0
        assert private_postgres.processes(directory / "postgres") == []
        process.communicate()


@pytest.mark.thorough
def test_commands_use_the_server_that_runs(directory):
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    environment |= {"DATA_DIR": str(directory)}

    def flask(*arguments: str) -> str:
        command = [sys.executable, "-m", "flask", "--app", "app", *arguments]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout

    with private_postgres.server(directory):
        assert flask("migrate") == "The database is up to date.\n"
        assert flask("seed") == "The demonstration is in.\n"
        explained = flask("explain", "users.get", "id=1").splitlines()
        assert any("Index Scan using users_pkey" in line for line in explained)
        assert re.fullmatch(r"Indexes: users_pkey\. Read whole: none\. Rows: 1\. Pages: [1-9]\.", explained[-2])
        assert explained[-1] == "Not given, and so empty: fields."


def postmaster(directory: Path) -> str:
    """The process id of the private PostgreSQL; empty for the moment in which a new one replaces its file."""
    with suppress(FileNotFoundError):
        return "".join((directory / "postgres/postmaster.pid").read_text().split()[:1])
    return ""


def test_a_killed_postgresql_comes_back_and_so_does_the_service(directory):
    port = str(free_port())
    with start(directory, PORT=port):
        url = f"http://127.0.0.1:{port}"
        comes_up(url)
        statuses: list[int] = []
        enough = threading.Event()

        def load() -> None:
            session = requests.Session()
            while not enough.is_set():
                statuses.append(session.get(f"{url}/users/1", timeout=10).status_code)

        clients = [threading.Thread(target=load) for _ in range(4)]
        for client in clients:
            client.start()
        wait_for(lambda: len(statuses) > 50)
        old = postmaster(directory)
        os.kill(int(old), signal.SIGKILL)
        try:
            wait_for(lambda: postmaster(directory) not in ("", old), within=30)
            wait_for(lambda: statuses[-20:] == [200] * 20 and answers(url), within=20)
        finally:
            enough.set()
            for client in clients:
                client.join()
    assert set(statuses) <= {200, 503}


@pytest.mark.thorough
def test_a_service_waits_out_a_database_that_is_away(directory):
    with private_postgres.server(directory) as url:
        served = serve(url)
        service = served.__enter__()
    try:
        answer = service.get("/users/1")
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "1"
        assert service.get("/health/ready").json()["reasons"] == ["database"]
        assert service.get("/health/live").status_code == 200
        with private_postgres.server(directory):
            wait_for(lambda: service.get("/users/1").status_code == 200, within=5)
    finally:
        served.__exit__()


def test_a_locked_table_and_a_full_pool_are_503s(database):
    with serve(database, WORKERS="1", POOL_SIZE="1") as service, psycopg.connect(database) as other:
        other.execute("lock table users in access exclusive mode")
        found: list[requests.Response] = []

        def ask() -> None:
            found.append(requests.get(f"{service.url}/users/1", timeout=20))

        clients = [threading.Thread(target=ask) for _ in range(2)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        other.rollback()
        assert {answer.status_code for answer in found} == {503}
        assert all(answer.headers["Retry-After"] and answer.json()["request_id"] for answer in found)
        assert service.get("/users/1").status_code == 404


def test_a_statement_over_its_time_is_a_504(database):
    with psycopg.connect(database) as connection:
        connection.execute("""
            insert into users (email) values ('slow@example.com');
            create function slow() returns trigger language plpgsql as 'begin perform pg_sleep(60); return new; end';
            create trigger users_20_slow before update on users for each row execute function slow();
        """)
    with serve(database, STATEMENT_TIMEOUT="1") as service:
        answer = service.patch("/users/1", json={"name": "Slow", "version": 1})
        assert (answer.status_code, answer.json()["status"]) == (504, 504)
        assert service.get("/users/1").json()["version"] == 1


@contextmanager
def asking(url: str, clients: int = 2):
    """Clients that ask without pause, of which one opens a connection each time: [(status or error, seconds), …]."""
    found: list[tuple[object, float]] = []
    enough = threading.Event()

    def ask(kept: bool) -> None:
        session = requests.Session()
        while not enough.is_set():
            began = time.monotonic()
            try:
                status: object = session.get(f"{url}/users/1", timeout=20).status_code
            except requests.RequestException as error:
                status = error
            found.append((status, time.monotonic() - began))
            if not kept:
                session.close()

    threads = [threading.Thread(target=ask, args=(number > 0,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        enough.set()
        for thread in threads:
            thread.join()


def workers_of(master: int) -> set[int]:
    """The workers of a master: what it forked, and what did not end yet."""
    found = set()
    for child in psutil.Process(master).children():
        with suppress(psutil.Error):
            if child.cmdline() == psutil.Process(master).cmdline():
                found.add(child.pid)
    return found


@pytest.mark.parametrize("number", [1, 2, 3])
def test_no_worker_goes_before_a_younger_one_serves(number, monkeypatch):
    monkeypatch.setattr(supervisor.time, "sleep", lambda _: None)
    for serving in itertools.chain.from_iterable(itertools.product([0, 1], repeat=many) for many in range(6)):
        master, told = supervisor.Master.__new__(supervisor.Master), {}
        master.beside, master._num_workers, master.kill_worker = [], number, told.__setitem__
        master.WORKERS = {
            pid: SimpleNamespace(pid=pid, age=pid, serves=[serves], leaves=False) for pid, serves in enumerate(serving)
        }

        def spawn(master=master):
            pid = len(master.WORKERS)
            master.WORKERS[pid] = SimpleNamespace(pid=pid, age=pid, serves=[0], leaves=False)
            return pid

        master.spawn_worker = spawn
        before = sum(serving)
        for renew in (False, True, True, False):
            master.renew = renew
            master.manage_workers()
            stay = [worker for worker in master.WORKERS.values() if not worker.leaves]
            assert sum(worker.serves[0] for worker in stay) >= min(number, before)
            assert len(stay) <= number * 2, "reloads in quick succession pile up none"
            assert {worker.pid for worker in master.WORKERS.values() if worker.leaves} <= {*told}
        for worker in stay:
            worker.serves[0] = 1
        master.manage_workers()
        assert [worker.pid for worker in master.WORKERS.values() if not worker.leaves] == [
            worker.pid for worker in stay[-number:]
        ]


@pytest.mark.thorough
def test_a_reload_cuts_and_stops_nothing_and_a_stop_amid_reloads_ends_all(database):
    served = serve(database, NOTIFIER="")
    with served as service:
        master = served.process.pid
        before = workers_of(master)
        kept = {child.pid for child in psutil.Process(master).children()} - before
        with asking(service.url) as found:
            for name in ("USR2", "USR1", "WINCH", "HUP", "HUP", "TTIN"):
                served.process.send_signal(getattr(signal, f"SIG{name}"))
            wait_for(lambda: len(workers_of(master)) == 2 and not workers_of(master) & before)
            served.process.send_signal(signal.SIGTTOU)
            wait_for(lambda: len(workers_of(master)) == 1)
            # A worker that was told to go may be a moment in going.
            wait_for(lambda: kept == {child.pid for child in psutil.Process(master).children()} - workers_of(master))
        assert 'route="/users/<id:id>",status="404"' in service.get("/metrics").text
        for _ in range(3):
            served.process.send_signal(signal.SIGHUP)
            time.sleep(0.1)  # any moment
        family = psutil.Process(master).children(recursive=True)
        began = time.monotonic()
        served.process.terminate()
        served.process.wait(15)
        assert time.monotonic() - began < 10
        wait_for(lambda: not any(each.is_running() and each.status() != "zombie" for each in family), 2)
    assert {status for status, _ in found} == {404}
    assert max(seconds for _, seconds in found) < 5


@pytest.mark.thorough
def test_code_that_cannot_start_replaces_none_that_serves(database, tmp_path):
    copy = shutil.copytree(ROOT, tmp_path / "house", ignore=shutil.ignore_patterns(".*", "tests", "bench"))
    served = serve(database)
    with served.log.open("w") as log:
        served.process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn"], cwd=copy, env=served.environment, stdout=log, stderr=log
        )
    url = f"http://127.0.0.1:{served.port}"
    try:
        comes_up(url)
        before = workers_of(served.process.pid)
        app = (copy / "app.py").read_text()
        (copy / "app.py").write_text("no python")
        with asking(url) as found:
            served.process.send_signal(signal.SIGHUP)
            wait_for(lambda: "SyntaxError" in served.log.read_text())
            time.sleep(2)  # nothing may happen
            assert workers_of(served.process.pid) >= before
            (copy / "app.py").write_text(app)
            served.process.send_signal(signal.SIGHUP)
            wait_for(lambda: not workers_of(served.process.pid) & before)
        assert {status for status, _ in found} == {404}
    finally:
        served.process.terminate()
        assert served.process.wait(15) == 0
        served.directory.cleanup()


def test_each_request_leaves_a_line_with_its_id(database):
    served = serve(database)
    with served as service:
        service.get("/users/1", headers={"X-Request-Id": "find-me"})
        wait_for(lambda: "find-me" in served.log.read_text())
        lines = [line for line in served.log.read_text().splitlines() if "find-me" in line]
    assert len(lines) == 1
    assert re.search(r'"status": 404', lines[0])


def test_metrics_count_the_requests_of_all_processes(service: Service):
    before = counted(service)
    for _ in range(20):
        requests.get(f"{service.url}/ping", timeout=5)
    assert counted(service) == before + 20


def counted(service: Service) -> float:
    text = service.get("/metrics").text
    found = re.search(r'^rowhouse_requests_total\{method="GET",route="/ping",status="200"\} (\S+)$', text, re.MULTILINE)
    return float(found[1]) if found else 0


def test_a_service_that_stops_is_not_ready_first_and_answers_meanwhile(database):
    """A load balancer that asks each 50 ms learns of it while requests still go through."""
    service = serve(database, WORKERS="2")
    with service as found:
        assert found.get("/health/ready").status_code == 200
        service.process.send_signal(signal.SIGTERM)
        seen = []
        for _ in range(12):
            seen.append((found.get("/health/ready").status_code, found.get("/users").status_code))
            time.sleep(0.05)  # asks again, as a load balancer does
        assert (503, 200) in seen
        assert {users for _, users in seen} == {200}
        assert service.process.wait(10) == 0
