"""The crowd: a wrong status or a wrong body is a failure, whatever it was that came back in time.

    make load                                            against a running service, report in load.html
    make load HOST=http://127.0.0.1:8001 USERS=200 TIME=5m READERS=10 EDITORS=0
    make load OPEN=1 READERS=0 SEARCHERS=0 EDITORS=0 BOARDS=0 RATE=500

READERS, SEARCHERS, EDITORS, BOARDS and OPEN weigh the kinds against each other. The service needs people, and a project
of 1,000 stories: make seed ARGS="--users 100000 --projects 1 --userstories 1000"
"""

import json
import os
import random
import time
from itertools import count
from typing import Any
from urllib.request import urlopen

from locust import FastHttpUser, constant, events, task
from locust.env import Environment


def weight(name: str, default: int) -> int:
    return int(os.environ.get(name) or default)


RATE = float(os.environ.get("RATE") or 100)
"""Requests a second of all the open readers together."""

STORIES = 1000
"""On a board."""

WORDS = ("maple", "oak street", "mill lane", "bergen", "harbour")

editors, known = count(), {}
"""The editors so far; what the service has, found once: people (ids), the board's project, and stories to edit."""


@events.test_start.add_listener
def look(environment: Environment, **_: Any) -> None:
    """Learn what there is to ask for."""

    def get(path: str) -> Any:
        with urlopen(f"{environment.host}{path}", timeout=30) as answer:
            return json.load(answer)["items"]

    known["people"] = [row["id"] for sort in ("id", "-id") for row in get(f"/users?fields=id&limit=1000&sort={sort}")]
    for project in get("/projects?fields=id&limit=100&sort=-id"):
        stories = get(f"/projects/{project['id']}/userstories?fields=id&limit={STORIES}")
        if len(stories) == STORIES:
            known["project"], known["stories"] = project["id"], [row["id"] for row in stories]
            return
    raise SystemExit(
        f"No project has {STORIES} stories: make seed ARGS='--users 100000 --projects 1 --userstories 1000'"
    )


class Client(FastHttpUser):
    """Who asks again as soon as they were answered."""

    abstract = True
    wait_time = constant(0)

    def ask(self, name: str, path: str, check: Any, method: str = "GET", status: int = 200, **options: Any) -> Any:
        """Send a request; `check` says whether body and answer are right. Returns the body, None if they are not."""
        with self.client.request(method, path, name=name, catch_response=True, **options) as answer:
            if answer.status_code != status:
                answer.failure(f"{answer.status_code}, not {status}: {answer.text[:200]}")
                return None
            body = answer.json() if answer.text else None
            if not check(body, answer):
                answer.failure(f"not the right body: {answer.text[:200]}")
                return None
            return body


def is_person(id: int) -> Any:
    return lambda body, answer: body["id"] == id and answer.headers["ETag"] == f'"{body["version"]}"'


class Reader(Client):
    """Reads people by id, now and then whether somebody changed."""

    weight = weight("READERS", 10)

    @task(9)
    def read(self) -> None:
        id = random.choice(known["people"])
        self.ask("GET /users/{id}", f"/users/{id}", is_person(id))

    @task(1)
    def read_again(self) -> None:
        id = random.choice(known["people"])
        if body := self.ask("GET /users/{id}", f"/users/{id}", is_person(id)):
            headers = {"If-None-Match": f'"{body["version"]}"'}
            path = f"/users/{id}"
            self.ask("GET /users/{id} unchanged", path, lambda body, _: body is None, status=304, headers=headers)


class Searcher(Client):
    """Finds people by a part of their address."""

    weight = weight("SEARCHERS", 2)

    @task
    def search(self) -> None:
        word = random.choice(WORDS)
        path = f"/users?address={word.replace(' ', '%20')}&limit=20"
        self.ask(
            "GET /users?address=",
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
        self.seen = self.ask("GET /userstories/{id}", f"/userstories/{self.story}", lambda *_: True)

    @task
    def change(self) -> None:
        text = f"{self.member} {random.random()}"
        seen = self.seen
        changed = self.ask(
            "PATCH /userstories/{id}",
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
        self.ask("GET /projects/{id}/userstories", path, lambda body, _: len(body["items"]) == STORIES)


class OpenReader(Client):
    """Reads people at a constant rate, however long the answers take, and counts from when each request was due.

    Who waits for an answer before asking again does not notice how many others would have waited meanwhile.
    """

    weight = weight("OPEN", 0)

    def on_start(self) -> None:
        time.sleep(random.random() * self.every())
        self.due = time.perf_counter()

    def every(self) -> float:
        """Seconds between two requests of each."""
        return self.environment.runner.target_user_classes_count[type(self).__name__] / RATE

    def wait_time(self) -> float:
        return max(0.0, self.due - time.perf_counter())

    @task
    def read(self) -> None:
        id, due = random.choice(known["people"]), self.due
        self.due += self.every()
        right = self.ask("GET /users/{id}", f"/users/{id}", is_person(id))
        late = (time.perf_counter() - due) * 1000
        self.environment.events.request.fire(
            request_type="GET",
            name="GET /users/{id} since it was due",
            response_time=late,
            response_length=0,
            exception=None if right else RuntimeError("it failed"),
            context={},
        )
