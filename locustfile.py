"""The crowd: a wrong status or a wrong body is a failure, whatever it was that came back in time.

    make load                                            against a running service, report in load/
    make load HOST=http://127.0.0.1:8001 TOKEN=rh_… USERS=200 TIME=5m READERS=10 EDITORS=0
    make load RATE=500 READERS=0 SEARCHERS=0 EDITORS=0 BOARDS=0 WRITERS=0 UPLOADERS=0 NOTIFIERS=0 LISTENERS=0
    make load MAX_P95=200 MAX_FAILURES=0.1               exit status 1 where a kind of request is slower, or more fail
    make load-ui                                         the same, steered in a browser

READERS, SEARCHERS, EDITORS, BOARDS, WRITERS, UPLOADERS, NOTIFIERS, LISTENERS and OPEN weigh the kinds against each
other. The service needs people, and a project of 1,000 stories:

    make seed ARGS="--users 100000 --projects 1 --userstories 1000"

What the crowd makes it takes back, but for the events, which have happened, and the history of it all.
"""

import csv
import json
import os
import random
import time
from http.client import HTTPException
from itertools import count
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from uuid import uuid4

from gevent.pool import Pool
from locust import FastHttpUser, constant, events, task
from locust.env import Environment
from locust.stats import PERCENTILES_TO_REPORT, StatsCSV
from websocket import WebSocketException, create_connection


def setting(name: str, default: float) -> float:
    """A number from the environment. Ends with a line for what is none."""
    try:
        return float(os.environ.get(name) or default)
    except ValueError:
        raise SystemExit(f"{name}={os.environ[name]} must be a number.") from None


def weight(name: str, default: int) -> int:
    return int(setting(name, default))


TOKEN = os.environ.get("TOKEN")

HEADERS = {"Authorization": f"Bearer {TOKEN}"} if TOKEN else {}

REPORT = os.environ.get("REPORT")
"""The directory in which the figures are kept as CSV."""

RATE, IN_FLIGHT = setting("RATE", 20), 1000
"""Requests a second of all the open readers together, and how many of each may wait for an answer."""

MAX_P95, MAX_FAILURES = setting("MAX_P95", float("inf")), setting("MAX_FAILURES", 0)
"""Milliseconds within which 95 % of each kind of request are answered, and per cent of all that may fail."""

STORIES = 1000
"""On a board."""

ROWS = 100
"""Of an upload."""

TOLD_WITHIN, PROCESSED_WITHIN, LOOK_EVERY = 10, 60, 0.1
"""Seconds until a listener has a change and an event is Processed, and between two looks whether it is."""

WORDS = ("maple", "oak street", "mill lane", "bergen", "harbour")

SEED = 'make seed ARGS="--users 100000 --projects 1 --userstories 1000"'

editors, listeners, known = count(), count(1), {}
"""Those so far; and what the service has: ids of the first and last person, of a board and its stories."""


# Before and after -----------------------------------------------------------------------------------------------------


def ask(host: str, path: str, body: bytes | None = None) -> Any:
    """The body of an answer. Ends with a line where there is none that a crowd could go on from."""
    headers = HEADERS | {"Content-Type": "application/json"}
    try:
        with urlopen(Request(host + path, body, headers), timeout=30) as answer:
            return json.load(answer)
    except HTTPError as error:
        wanted = {
            401: f"{host} wants a {'good ' * bool(TOKEN)}token: make load TOKEN=…, made by flask token create",
            403: f"TOKEN may not do that: the crowd needs one with the role writer, of no project ({path}).",
        }
        raise SystemExit(wanted.get(error.code, f"{host}{path} answers {error.code}.")) from None
    except (OSError, HTTPException) as error:
        raise SystemExit(f"Nothing answers at {host}: {getattr(error, 'reason', error)}. Start it: make run") from None
    except ValueError:
        raise SystemExit(f"What is at {host} is not this service.") from None


@events.init.add_listener
def look(environment: Environment, **_: Any) -> None:
    """Learn what there is to ask for before anybody asks; of the host that is chosen in a browser, at each start."""
    if environment.web_ui:
        events.test_start.add_listener(learn)
    else:
        learn(environment)
    if REPORT:
        Path(REPORT).mkdir(parents=True)


def learn(environment: Environment, **_: Any) -> None:
    host = environment.host or ""
    for name, sort in (("first", "id"), ("last", "-id")):
        if not (people := ask(host, f"/users?fields=id&limit=1&sort={sort}")["items"]):
            raise SystemExit(f"There are no people: {SEED}")
        known[name] = people[0]["id"]
    for project in ask(host, "/projects?fields=id&limit=100&sort=-id")["items"]:
        stories = ask(host, f"/projects/{project['id']}/userstories?fields=id&limit={STORIES}")["items"]
        if len(stories) == STORIES:
            known["project"], known["stories"] = project["id"], [row["id"] for row in stories]
            break
    else:
        raise SystemExit(f"No project has {STORIES} stories: {SEED}")
    if any(kind.weight for kind in (Editor, Writer, Uploader, Notifier, Listener)):
        event = json.dumps({"user_id": "crowd", "description": "The crowd comes."}).encode()
        ask(host, "/events", event)


@events.quitting.add_listener
def judge(environment: Environment, **_: Any) -> None:
    """Say what was too slow or failed too often; the exit status is 1 then."""
    stats = environment.stats
    failed = stats.total.fail_ratio * 100
    said = [
        f"{entry.method} {entry.name}: 95 % within {slow:.0f} ms, not {MAX_P95:.0f}"
        for entry in stats.entries.values()
        if (slow := entry.get_response_time_percentile(0.95)) > MAX_P95
    ]
    if failed > MAX_FAILURES:
        said.append(f"{failed:.3g} % failed, not {MAX_FAILURES:.3g} %")
    if not stats.total.num_requests:
        said.append("nothing was asked")
    print(*said, sep="\n")
    environment.process_exit_code = int(bool(said))
    if REPORT:
        with (Path(REPORT) / "requests.csv").open("w") as file:
            StatsCSV(environment, PERCENTILES_TO_REPORT).requests_csv(csv.writer(file))


# The crowd ------------------------------------------------------------------------------------------------------------


class Client(FastHttpUser):
    """Who asks again as soon as they were answered."""

    abstract = True
    wait_time = constant(0)

    def ask(self, name: str, path: str, check: Any, method: str = "GET", *statuses: int, **options: Any) -> Any:
        """Send a request; `check` says whether body and answer are right. Returns the body, None if they are not."""
        headers = HEADERS | options.pop("headers", {})
        right = statuses or (200,)
        with self.client.request(method, path, name=name, headers=headers, catch_response=True, **options) as answer:
            if answer.status_code not in right:
                answer.failure(f"{answer.status_code}, not {' or '.join(map(str, right))}: {kind(answer)}")
                return None
            body = answer.json() if answer.text else None
            if not check(body, answer):
                answer.failure("not the right body")
                return None
            answer.success()
            return body

    def tell(self, method: str, name: str, since: float, error: Exception | None = None) -> None:
        """Count what is no request, or counts from another moment, in seconds of the clock that measures."""
        self.environment.events.request.fire(
            request_type=method,
            name=name,
            response_time=(time.perf_counter() - since) * 1000,
            response_length=0,
            exception=error,
            context={},
        )

    def person(self) -> dict[str, Any] | None:
        """Read anybody out of the whole table. None for one who is gone, which is right, too, and for a failure."""
        id = random.randint(known["first"], known["last"])
        body = self.ask("/users/{id}", f"/users/{id}", is_person_or_gone(id), "GET", 200, 404)
        return body if body and "id" in body else None


def is_person_or_gone(id: int) -> Any:
    return lambda body, answer: (
        body["type"] == "/problems/not-found"
        if answer.status_code == 404
        else body["id"] == id and answer.headers["ETag"] == f'"{body["version"]}"'
    )


def kind(answer: Any) -> str:
    """What kind of problem it is: failures of one kind are counted together, whatever else each says."""
    try:
        problem = answer.json()
        return " ".join([problem["type"], *problem.get("errors", ())])
    except (ValueError, KeyError, TypeError):
        return "no problem document"


def anything(*_: Any) -> bool:
    return True


def nothing(body: Any, _: Any) -> bool:
    return body is None


class Reader(Client):
    """Reads people by id, now and then whether somebody changed."""

    weight = weight("READERS", 10)

    @task(9)
    def read(self) -> None:
        self.person()

    @task(1)
    def read_again(self) -> None:
        if body := self.person():
            headers = {"If-None-Match": f'"{body["version"]}"'}
            self.ask("/users/{id} unchanged", f"/users/{body['id']}", nothing, "GET", 304, headers=headers)


class Searcher(Client):
    """Finds people by a part of their address."""

    weight = weight("SEARCHERS", 2)

    @task
    def search(self) -> None:
        word = random.choice(WORDS)
        path = f"/users?address={word.replace(' ', '%20')}&limit=20"
        self.ask(
            "/users?address=",
            path,
            lambda body, _: body["items"] and all(word in row["address"].lower() for row in body["items"]),
        )


class Editor(Client):
    """One of two who change one story, each another member, from the version they saw last: nothing may be lost."""

    weight = weight("EDITORS", 2)

    def on_start(self) -> None:
        number = next(editors)
        self.story = known["stories"][number // 2 % STORIES]
        self.member = ("subject", "description")[number % 2]
        self.seen = self.ask("/userstories/{id}", f"/userstories/{self.story}", anything)

    @task
    def change(self) -> None:
        text = f"{self.member} {random.random()}"
        seen = self.seen
        changed = self.ask(
            "/userstories/{id}",
            f"/userstories/{self.story}",
            lambda body, _: body[self.member] == text and body["version"] > seen["version"],
            "PATCH",
            json={"version": seen["version"], self.member: text},
        )
        self.seen = changed or seen


class Board(Client):
    """Reloads a board of 1,000 stories."""

    weight = weight("BOARDS", 1)

    @task
    def reload(self) -> None:
        path = f"/projects/{known['project']}/userstories?limit={STORIES}"
        self.ask("/projects/{id}/userstories", path, lambda body, _: len(body["items"]) == STORIES)


class Writer(Client):
    """Makes a person, changes them, and takes them away again."""

    weight = weight("WRITERS", 2)

    @task
    def write(self) -> None:
        sent = {
            "name": "Crowd",
            "email": f"{uuid4().hex}@example.org",
            "address": "1 Crowd Street",
            "image": "https://example.org/crowd.png",
        }
        made = self.ask("/users", "/users", lambda body, _: body["email"] == sent["email"], "POST", 201, json=sent)
        if not made:
            return
        path, name = f"/users/{made['id']}", "/users/{id}"
        change = {"version": 1, "name": "Changed"}
        self.ask(name, path, lambda body, _: body["version"] == 2, "PATCH", json=change)
        self.ask(name, f"{path}?version=2", nothing, "DELETE", 204)


class Uploader(Client):
    """Moves in a file of 100 departments, and takes it back."""

    weight = weight("UPLOADERS", 1)

    @task
    def upload(self) -> None:
        begin = random.randrange(10**9, 2 * 10**9)
        file = "".join(f"{begin + row},Crowd {begin + row}\n" for row in range(ROWS))
        moved = self.ask(
            "/upload/departments",
            "/upload/departments?header=no&mode=atomic",
            lambda body, _: (body["rows"], body["accepted"], body["rejected"]) == (ROWS, ROWS, 0),
            "POST",
            data=file,
            headers={"Content-Type": "text/csv"},
        )
        if moved:
            undo = {"upload_id": moved["upload_id"]}
            self.ask("/undo", "/undo", lambda body, _: len(body["undone"]) == ROWS, "POST", json=undo)


class Notifier(Client):
    """Tells of an event, and waits until it is Processed."""

    weight = weight("NOTIFIERS", 1)

    @task
    def notify(self) -> None:
        began, sent = time.perf_counter(), {"user_id": "crowd", "description": "The crowd is here."}
        made = self.ask("/events", "/events", lambda body, _: body.items() >= sent.items(), "POST", 201, json=sent)
        while made and made["status"] == "NotProcessed" and time.perf_counter() < began + PROCESSED_WITHIN:
            time.sleep(LOOK_EVERY)
            made = self.ask("/events/{id}", f"/events/{made['event_id']}", anything)
        if made:
            processed = made["status"] == "Processed"
            self.tell("POST", "/events until Processed", began, None if processed else RuntimeError(made["status"]))


class Listener(Client):
    """Changes a story and waits to be told so, on a socket that goes on where it fell off: no version is left out."""

    weight = weight("LISTENERS", 2)

    def on_start(self) -> None:
        self.story = known["stories"][-next(listeners) % STORIES]
        self.version = self.ask("/userstories/{id}", f"/userstories/{self.story}", anything)["version"]
        self.cursor, self.socket = "", None

    def on_stop(self) -> None:
        if self.socket:
            self.socket.close()

    def listen(self) -> dict[str, Any]:
        """The next frame about a change."""
        if not self.socket:
            host = (self.environment.host or "").replace("http", "ws", 1)
            url = f"{host}/ws/events?obj_type=userstory&obj_id={self.story}&since={self.cursor}"
            self.socket = create_connection(url.removesuffix("&since="), timeout=TOLD_WITHIN, header=HEADERS)
        frame = json.loads(self.socket.recv())
        self.cursor = frame["cursor"]
        return frame

    @task
    def change(self) -> None:
        error, began = None, time.perf_counter()
        try:
            if not self.socket:
                self.listen()
            began = time.perf_counter()
            text = f"told {random.random()}"
            body = {"version": self.version, "description": text}
            path = f"/userstories/{self.story}"
            changed = self.ask("/userstories/{id}", path, anything, "PATCH", json=body)
            while changed and self.version < changed["version"]:
                frame = self.listen()
                if "object" in frame and frame["version"] != self.version + 1:
                    error = RuntimeError(f"version {frame['version']} came after {self.version}")
                self.version = frame.get("version", self.version)
        except (OSError, ValueError, WebSocketException) as caught:
            error, self.socket = caught, None
        self.tell("WS", "/ws/events since the PATCH", began, error)


class OpenReader(Client):
    """Reads people at a constant rate, however long the answers take, and counts from when each request was due.

    Who waits for an answer before asking again does not notice how many others would have waited meanwhile.
    """

    weight = weight("OPEN", 1)
    concurrency = IN_FLIGHT

    def on_start(self) -> None:
        self.reading = Pool(IN_FLIGHT)
        time.sleep(random.random() * self.every())
        self.due = time.perf_counter()

    def on_stop(self) -> None:
        self.reading.join()

    def every(self) -> float:
        """Seconds between two requests of each."""
        return self.environment.runner.target_user_classes_count[type(self).__name__] / RATE

    def wait_time(self) -> float:
        return max(0.0, self.due - time.perf_counter())

    @task
    def ask_when_due(self) -> None:
        self.reading.spawn(self.read, self.due)
        self.due += self.every()

    def read(self, due: float) -> None:
        self.person()
        self.tell("GET", "/users/{id} since it was due", due)
