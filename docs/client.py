"""Keeps the objects of a project as the database has them, whatever breaks (docs/in_step.md).

pip install requests websockets; python docs/client.py http://127.0.0.1:8000 13 [TOKEN]
"""

import json
import random
import sys
import time
from urllib.parse import urlencode

import requests
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

KINDS = {"milestones": "milestone", "userstories": "userstory", "tasks": "task", "comments": "comment"}
UNTOLD = {"users", "project_id"}  # whom the tree names beside, and what is one and the same for all
QUIET = 45  # seconds without a word after which a connection counts as gone: the service says one every 15


def socket(url, query, headers):
    with connect(f"ws{url[4:]}/ws/events?{urlencode(query)}", additional_headers=headers, max_size=None) as messages:
        yield from map(json.loads, messages)


def events(url, query, headers):
    with get(f"{url}/changes", query, headers | {"Accept": "text/event-stream"}, stream=True) as answer:
        yield from (json.loads(line[5:]) for line in answer.iter_lines() if line.startswith(b"data:"))


def polls(url, query, headers):
    while True:
        page = get(f"{url}/changes", query | {"wait": 30}, headers).json()
        yield from [*page["items"], {}]
        query = query | {"since": page["cursor"]}


def get(url, query, headers, **options):
    answer = requests.get(url, query, headers=headers, timeout=QUIET, **options)
    answer.raise_for_status()
    return answer


class Model:
    def __init__(self, url, project, token=None):
        self.url, self.project, self.cursor, self.objects = url, project, None, {}
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def read(self):
        answer = get(f"{self.url}/projects/{self.project}/tree", {}, self.headers)
        tree, self.objects = answer.json(), {}
        self.put("project", tree)
        self.cursor = answer.headers.get("Feed-Cursor")  # none on a standby

    def put(self, kind, members):
        for name, below in KINDS.items():
            for each in members.pop(name, ()):
                self.put(below, each)
        told = {name: value for name, value in members.items() if value is not None and name not in UNTOLD}
        self.objects[kind, told["id"]] = told

    def take(self, frame):
        self.cursor = None if frame.get("type") == "reset" else frame.get("cursor", self.cursor)
        kind, id, action = (frame.get("object", {}).get(name) for name in ("obj_type", "obj_id", "action"))
        if kind != "project" and kind not in KINDS.values():
            return
        known = self.objects.get((kind, id), {})
        if action == "truncate":
            self.objects = {key: members for key, members in self.objects.items() if key[0] != kind}
        elif action != "create" and known.get("version") != frame["version"] - (action == "update"):
            self.cursor = None  # written behind history: read anew
        elif action == "delete":
            del self.objects[kind, id]
        else:
            new = {name: value for name, (_, value) in frame["diff"].items()}
            if "created_at" in new:
                new["created_at"] = new["created_at"].replace("+00:00", "Z")
            new |= {"version": frame["version"], "updated_at": frame["operation_date"]}
            self.put(kind, known | new)

    def follow(self, frames=socket):
        """Yields whenever the objects may be newer. Raises HTTPError where they may not be read, or are no more."""
        while True:
            try:
                if not self.cursor:
                    self.read()
                    yield
                query = {"project": self.project, "since": self.cursor}
                for frame in frames(self.url, query, self.headers) if self.cursor else ():
                    self.take(frame)
                    yield
                    if not self.cursor:
                        break
            except (OSError, ValueError, WebSocketException) as error:
                if isinstance(error, requests.HTTPError) and error.response.status_code in (401, 403, 404):
                    raise
            time.sleep(random.uniform(0.1, 2))


if __name__ == "__main__":
    model = Model(*sys.argv[1:])
    for _ in model.follow():
        print(len(model.objects), "objects at", model.cursor)
