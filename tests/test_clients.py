"""The clients of docs/: whatever breaks, their model is what the tables hold once nobody writes."""

import itertools
import json
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import module_from_spec, spec_from_file_location

import psycopg
import pytest
import requests

from tests.conftest import ROOT, first, make_token, serve, wait_for
from tests.test_failover import MILESTONE, pair
from tests.test_places import FEWER, busy

__all__ = ["pair"]

FORMS = ("socket", "events", "polls")

LAST = "That is all."
"""What the project is called once nobody writes any more."""

spec = spec_from_file_location("client", ROOT / "docs/client.py")
assert spec and spec.loader
client = module_from_spec(spec)
spec.loader.exec_module(client)


ONE = "(select id from {} order by random() limit 1 for update skip locked)"

M, S, T, C = (ONE.format(table) for table in ("milestones", "userstories", "tasks", "comments"))

STORY = f"userstories where id = {S}"

DEEDS = [
    f"insert into milestones (project_id, name, starts_on) select id, 'm', current_date from projects where {FEWER}",
    "insert into userstories (project_id, subject, tags, points) select id, 's', '{a,b}', 2.5 from projects",
    *[f"insert into tasks (project_id, userstory_id, subject) select project_id, id, 't' from {STORY}"] * 2,
    *[f"insert into comments (project_id, userstory_id, text) select project_id, id, 'c' from {STORY}"] * 2,
    f"update milestones set name = name || '.', ends_on = '2030-01-01' where id = {M} and length(name) < 30",
    f"update userstories set points = points + 0.25, tags = tags || '{{c}}'::text[] where id = {S} and points < 9",
    f"update userstories set milestone_id = {M} where id = {S}",
    f"update tasks set status = status || '.' where id = {T} and length(status) < 20",
    f"update comments set text = text || '.' where id = {C}",
    "update projects set description = 'It is ' || clock_timestamp()",
    f"delete from milestones where id = {M}",
    f"delete from userstories where id = {S}",
    "select pg_sleep(0.3)",
]  # fmt: skip
"""What writers do: of each object, to the ends of what can be told of it, and a transaction that is held open."""


class Proxy:
    """Stands between clients and a service, and cuts connections on which something was asked.

    Node's fetch waits for good where one was cut before; the client's own deadline ends that, too late for a test.
    """

    def __init__(self, url):
        self.target = ("127.0.0.1", int(url.rpartition(":")[2]))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.pairs = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                both = near, socket.create_connection(self.target)
                for one, other in (both, both[::-1]):
                    threading.Thread(target=self.pass_on, args=(one, other, both), daemon=True).start()

    def pass_on(self, one, other, both):
        with suppress(OSError):
            while some := one.recv(2**16):
                other.sendall(some)
                if one is both[0] and both not in self.pairs:
                    self.pairs.append(both)
        self.end(both)

    def end(self, both):
        with suppress(ValueError):
            self.pairs.remove(both)
        for each in both:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def cut(self, chance):
        """End one of the connections; false where there is none."""
        found = [*self.pairs]
        if found:
            self.end(chance.choice(found))
        return bool(found)

    def close(self):
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        while self.cut(random):
            pass


class Follower(threading.Thread):
    """The client in Python, until the project has its last name."""

    def __init__(self, url, project, form, token):
        super().__init__(daemon=True)
        self.model, self.form, self.given_up = client.Model(url, project, token), form, False
        self.start()

    def run(self):
        of_project = ("project", self.model.project)
        for _ in self.model.follow(getattr(client, self.form)):
            if self.given_up or self.model.objects[of_project]["name"] == LAST:
                return

    def objects(self):
        self.join(60)
        assert not self.is_alive(), self.form
        return {f"{kind} {id}": members for (kind, id), members in self.model.objects.items()}

    def close(self):
        self.given_up = True


SCRIPT = """
import * as client from "./docs/client.js"
const [url, project, form, last, token] = process.argv.slice(1)
const model = new client.Model(url, project, token)
for await (const _ of model.follow(client[form])) if (model.objects.get(`project ${project}`).name === last) break
process.stdout.write(JSON.stringify(Object.fromEntries(model.objects)), () => process.exit())
"""


class ScriptFollower:
    """The client in JavaScript, the same."""

    def __init__(self, url, project, form, token):
        command = [
            "node",
            "--experimental-websocket",
            "--input-type=module",
            "-e",
            SCRIPT,
            url,
            str(project),
            form,
            LAST,
            token or "",
        ]
        self.form = form
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def objects(self):
        said, errors = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, errors.decode()
        return json.loads(said)

    def close(self):
        self.process.kill()
        self.process.communicate()


KINDS = [Follower, *[ScriptFollower] * bool(shutil.which("node"))]


@contextmanager
def following(url, project, count, token=None):
    """Clients of every kind over every transport, some of each."""
    with ExitStack() as ends:
        proxy = Proxy(url)
        ends.callback(proxy.close)
        found = []
        for kind in KINDS * count:
            for form in FORMS:
                found.append(kind(proxy.url, project, form, token))
                ends.callback(found[-1].close)
        yield proxy, found


def held(service, project, token=None):
    """What the tables hold, as a client reads it who comes late, again where the service is busy."""
    model = client.Model(service.url, project, token)
    next(model.follow())
    return {f"{kind} {id}": members for (kind, id), members in model.objects.items()}


TABLES = {"milestone": "milestones", "userstory": "userstories", "task": "tasks", "comment": "comments"}


def ended(database):
    """Nobody writes any more: the last change; and the version of each object there is."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("update projects set name = %s", [LAST])
        return {
            f"{kind} {id}": version
            for kind, table in {"project": "projects", **TABLES}.items()
            for id, version in connection.execute(f"select id, version from {table}").fetchall()
        }


@pytest.mark.parametrize(("count", "cuts"), first(1, [(1, 30), (4, 1000)]))
def test_a_model_is_what_the_tables_hold_whatever_is_cut(database, count, cuts):
    chance = random.Random(cuts)
    with busy(database, DEEDS) as (service, project, stop), following(service.url, project, count) as (proxy, clients):
        for _ in range(cuts):
            wait_for(lambda: proxy.cut(chance))
            time.sleep(chance.random() / 10)  # any moment
        stop()
        versions = ended(database)
        now = held(service, project)
        assert {key: members["version"] for key, members in now.items()} == versions
        for each in clients:
            assert each.objects() == now, (type(each).__name__, each.form)


def test_a_model_is_kept_with_a_token_of_the_project(database):
    with serve(database) as service:
        project = service.post("/projects", json={"name": "One"}).json()["id"]
        with psycopg.connect(database, autocommit=True) as connection:
            token = make_token(connection, role="reader", project=project)
            with following(service.url, project, 1, token) as (_, clients):
                for number in range(50):
                    connection.execute(MILESTONE, [str(number)])
                ended(database)
                for each in clients:
                    assert each.objects() == held(service, project, token), (type(each).__name__, each.form)
        wait_for(lambda: service.get("/users").status_code == 401)  # it is known for a moment that there was no token
        for wrong in (None, "rh_wrong"):
            with pytest.raises(requests.HTTPError, match="401"):
                next(client.Model(service.url, project, wrong).follow())
        with pytest.raises(requests.HTTPError, match="404"):
            next(client.Model(service.url, project + 1, token).follow())


def test_a_model_is_what_the_tables_hold_though_sql_moves_what_is_there(database):
    """What goes to another project is gone, what comes is there; a table that the tree does not have is passed over."""
    with serve(database) as service:
        project, other = (service.post("/projects", json={"name": name}).json()["id"] for name in ("One", "Other"))
        with following(service.url, project, 1) as (_, clients), psycopg.connect(database, autocommit=True) as sql:
            sql.execute(
                "insert into milestones (project_id, name) values (%s, 'here'), (%s, 'there'), (%s, 'gone')",
                [project, other, project],
            )
            wait_for(lambda: all(("milestone", 1) in each.model.objects for each in clients[:3]))
            sql.execute("create table orders (id int primary key, project_id bigint)")
            sql.execute("insert into orders values (1, %s)", [project])
            sql.execute("select history.track('orders', 'order', 'project_id')")
            sql.execute("delete from orders")
            sql.execute("update milestones set project_id = %s, name = 'moved' where name = 'there'", [project])
            sql.execute("update milestones set project_id = %s where name = 'gone'", [other])
            ended(database)
            for each in clients:
                assert each.objects() == held(service, project), (type(each).__name__, each.form)


def write(service, project, over):
    """Somebody who writes all the time; each tenth POST is refused, and its transaction rolled back."""
    for number in itertools.count():
        if over.wait(0.01):
            return
        path, name = ("/projects", "Taken") if number % 10 == 9 else (f"/projects/{project}/milestones", "m")
        with suppress(requests.RequestException):
            answer = requests.post(service.url + path, json={"name": name}, timeout=30)
            assert answer.status_code in (201, 409, 503, 504), answer.text


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("how", "again"), first(1, [(how, again) for again in range(3) for how in (signal.SIGKILL, signal.SIGSTOP)])
)
def test_a_model_is_what_the_tables_hold_after_a_failover(pair, how, again):
    over = threading.Event()
    with serve(pair.url, STATEMENT_TIMEOUT="2") as service, ExitStack() as ends:
        project = service.post("/projects", json={"name": "One"}).json()["id"]
        service.post("/projects", json={"name": "Taken"})
        _, clients = ends.enter_context(following(service.url, project, 1))
        writers = ThreadPoolExecutor(4)
        ends.callback(writers.shutdown)
        ends.callback(over.set)
        writing = [writers.submit(write, service, project, over) for _ in range(4)]
        wait_for(lambda: len(clients[0].model.objects) > 50 + again * 20)
        pair.fail_over(how)
        began = time.monotonic()
        wait_for(lambda: service.get("/health/ready").status_code == 200, 60)
        print("ready after", time.monotonic() - began)
        seen = len(clients[0].model.objects)
        wait_for(lambda: len(clients[0].model.objects) > seen + 20)
        print("complete after", time.monotonic() - began)
        over.set()
        for each in writing:
            each.result(60)
        ended(pair.at("two"))
        for each in clients:
            assert each.objects() == held(service, project), (type(each).__name__, each.form)
