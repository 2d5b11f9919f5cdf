"""Another server in the place of the one that was: whoever follows the feed is told to read anew."""

import json
import os
import pwd
import signal
import subprocess
import tempfile
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import psutil
import psycopg
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.conftest import first, serve, stopped, tool, wait_for
from tests.flask_command import flask
from tests.test_changes import EVENTS, LINES, SOME, changes, told

# PostgreSQL does not run as root.
AS = {"user": "pgserver", "group": "pgserver", "extra_groups": []} if os.getuid() == 0 else {}


COPY = ("-U", "postgres", "-R", "-c", "fast")


class Pair:
    """A server and its standby; `url` names both, and means the one that can be written to."""

    def __init__(self, server: str, synchronous: bool) -> None:
        self.directory = tempfile.TemporaryDirectory(prefix="rowhouse-")
        self.root, self.server = Path(self.directory.name), server
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        for directory in (self.root, self.root / "at-one", self.root / "at-two"):
            directory.mkdir(exist_ok=True)
            if AS:
                os.chown(directory, pwd.getpwnam("pgserver").pw_uid, -1)
        self.run("initdb", "-D", self.root / "one", "-U", "postgres", "-A", "trust", "-N")
        self.start("one")
        self.run("pg_basebackup", *COPY, "-h", self.root / "at-one", "-D", self.root / "two")
        self.start("two")
        with psycopg.connect(self.at("one", "postgres"), autocommit=True) as connection:
            connection.execute("create database rowhouse template template0 encoding utf8 locale 'C'")
            if synchronous:
                connection.execute("alter system set synchronous_standby_names = '*'")
                connection.execute("select pg_reload_conf()")
        self.url = (
            f"host={self.root}/at-one,{self.root}/at-two dbname=rowhouse user=postgres target_session_attrs=read-write"
        )

    def at(self, name: str, database: str = "rowhouse") -> str:
        return f"host={self.root}/at-{name} dbname={database} user=postgres"

    def run(self, name: str, *arguments: object) -> None:
        command = [tool(name, self.server), *map(str, arguments)]
        subprocess.run(command, cwd=self.root, capture_output=True, check=True, timeout=120, **AS)

    def start(self, name: str) -> None:
        data = self.root / name
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": self.root / f"at-{name}",
            "fsync": "off",
            "max_wal_size": "256MB",
        }
        options = [f"-c{key}={value}" for key, value in settings.items()]
        command = [tool("postgres", self.server), "-D", str(data), *options]
        with (self.root / f"{name}.log").open("w") as log:
            self.processes[name] = subprocess.Popen(command, cwd=self.root, stdout=log, stderr=log, **AS)
        wait_for(lambda: self.answers(name), 60)

    def answers(self, name: str, database: str = "postgres") -> bool:
        try:
            psycopg.connect(self.at(name, database)).close()
        except psycopg.OperationalError:
            return False
        return True

    def send(self, name: str, number: int) -> None:
        for process in stopped(self.processes[name].pid):
            with suppress(psutil.NoSuchProcess):  # one that goes with its first
                process.send_signal(number)

    def fail_over(self, number: int = signal.SIGKILL) -> None:
        """The first is gone at once, or says nothing any more (SIGSTOP); the second takes its place."""
        self.send("one", number)
        self.run("pg_ctl", "promote", "-D", self.root / "two", "-t", "60")

    def close(self) -> None:
        for name in self.processes:
            with suppress(psutil.NoSuchProcess):
                self.send(name, signal.SIGKILL)
            self.processes[name].wait(30)
        self.directory.cleanup()


@pytest.fixture(params=first(1, [True, False]), ids=["synchronous", "asynchronous"])
def pair(request, server):
    with ExitStack() as ends:
        made = Pair(server, request.param)
        ends.callback(made.close)
        yield made


def resumed(service, media, cursor):
    """The first change that is told from a cursor on, or that there is none to be told."""
    with closing(told(service, media, since=cursor)) as frames:
        return next(frame for frame in frames if frame and ("id" in frame or frame.get("type") == "reset"))


NO_FEED = "The database is a standby, which has no feed."

MILESTONE = "insert into milestones (project_id, name) select id, %s from projects"


def test_who_follows_is_told_that_another_server_is_there(pair):
    with serve(pair.url, STATEMENT_TIMEOUT="10") as service, ExitStack() as ends:
        project = service.post("/projects", json={"name": "One"}).json()["id"]
        path = f"/projects/{project}/milestones"
        with psycopg.connect(pair.at("two")) as standby:
            caught_up = "select exists (select from projects)"
            wait_for(lambda: standby.execute(caught_up).fetchone()[0] or standby.rollback())
            assert standby.execute("select history.feed(), history.place()").fetchone() == (None, None)
        ws = ends.enter_context(connect(f"{service.url.replace('http', 'ws')}/ws/events"))
        last = json.loads(ws.recv(10))["cursor"]
        before = service.get(path).headers["Feed-Cursor"]
        pair.send("two", signal.SIGSTOP)
        # What the standby does not come to know of: transactions that were given numbers, which are given again.
        with psycopg.connect(pair.at("one")) as writer:
            for _ in range(200):
                writer.execute(MILESTONE, ["never"])
                writer.rollback()
        behind = service.get(path).headers["Feed-Cursor"]
        streams = [ends.enter_context(closing(told(service, media, since=behind))) for media in (EVENTS, LINES)]
        for frames in streams:
            while next(frames).get("type") != "subscribed":
                pass
        pair.send("two", signal.SIGCONT)
        pair.fail_over()
        wait_for(lambda: service.get("/health/ready").status_code == 200, 60)
        with psycopg.connect(pair.at("two"), autocommit=True) as writer:
            for number in range(300):
                writer.execute(MILESTONE, [str(number)])
        # Whoever listens is cut off, and has been sent nothing as if nothing had happened.
        with pytest.raises(ConnectionClosed):
            ws.recv(30)
        assert ws.close_code == 1013
        for frames in streams:
            assert not [*changes(frames)]
        for cursor in (last, before, behind):
            for media in (EVENTS, LINES, SOME):
                assert resumed(service, media, cursor)["type"] == "reset", media
            with connect(f"{service.url.replace('http', 'ws')}/ws/events?since={cursor}") as again:
                assert json.loads(again.recv(10))["type"] == "reset"
        # From what is read now it goes on.
        answer = service.get(path, params={"limit": 1000})
        assert len(answer.json()["items"]) == 300
        with psycopg.connect(pair.at("two"), autocommit=True) as writer:
            writer.execute(MILESTONE, ["after"])
        came = service.get("/changes", params={"since": answer.headers["Feed-Cursor"]}).json()["items"]
        assert [frame["diff"]["name"] for frame in came] == [[None, "after"]]


@pytest.mark.thorough
@pytest.mark.parametrize("pair", [False], indirect=True, ids=["asynchronous"])
def test_a_standby_that_reads_are_left_to_says_at_once_that_it_has_no_feed(pair):
    with serve(pair.url.replace("read-write", "any")) as service:
        pair.send("one", signal.SIGKILL)
        wait_for(lambda: service.get("/projects").status_code == 200)
        began = time.monotonic()
        for media in (EVENTS, LINES, SOME):
            answer = service.get("/changes", headers={"Accept": media})
            assert (answer.status_code, answer.json()["detail"]) == (503, NO_FEED)
        with connect(f"{service.url.replace('http', 'ws')}/ws/events") as ws, pytest.raises(ConnectionClosed):
            ws.recv(10)
        assert (ws.close_code, ws.close_reason) == (1013, NO_FEED)
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("pair", [False], indirect=True, ids=["asynchronous"])
def test_a_service_on_a_standby_answers_what_its_primary_has(pair):
    wait_for(lambda: pair.answers("two", "rowhouse"), 60)
    done = flask(pair.at("two"), "migrate")
    assert (done.returncode, done.stderr) == (
        1,
        "The database is a standby, and not up to date: migrate its primary first.\n",
    )
    with serve(pair.at("one")) as primary:
        made = primary.post("/projects", json={"name": "One"}).json()
        with serve(pair.at("two")) as standby:
            wait_for(lambda: standby.get("/projects/1").status_code == 200)
            assert standby.get("/projects/1").json() == made
            assert standby.get("/health/ready").json() == {"status": "ready"}
            refused = standby.post("/projects", json={"name": "Two"})
            assert (refused.status_code, refused.json()["detail"]) == (503, "The database takes no changes just now.")
