"""A headless Chromium, driven through its DevTools protocol: open a page, look, click."""

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import requests
from websockets.sync.client import connect

from tests.conftest import wait_for

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--remote-debugging-port=0",
)


class Tab:
    """A tab: `evaluate` runs JavaScript in it, `errors` are what its console and its network complained of."""

    def __init__(self, ws) -> None:
        self.ws, self.number, self.errors = ws, 0, []
        for domain in ("Runtime", "Page", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: object) -> dict:
        self.number += 1
        self.ws.send(json.dumps({"id": self.number, "method": method, "params": params}))
        while True:
            message = json.loads(self.ws.recv(20))
            if message.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.errors.append(message["params"])
            if message.get("id") == self.number:
                return message

    def evaluate(self, script: str) -> object:
        """What a script gives; None while one page is left for the next."""
        answer = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "error" in answer:
            return None
        assert "exceptionDetails" not in answer["result"], answer["result"]["exceptionDetails"]
        return answer["result"]["result"].get("value")

    def open(self, url: str) -> None:
        self.send("Page.navigate", url=url)
        wait_for(lambda: self.evaluate("document.readyState") == "complete")

    def shows(self, text: str) -> bool:
        return text in str(self.evaluate("document.body.innerText"))


@contextmanager
def tab(*options: str) -> Iterator[Tab]:
    """A new browser's only tab."""
    with tempfile.TemporaryDirectory(prefix="rowhouse-", ignore_cleanup_errors=True) as directory:
        command = [CHROMIUM, *OPTIONS, *options, f"--user-data-dir={directory}", "about:blank"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        try:
            said = (re.search(r"DevTools listening on ws://[^:]+:(\d+)", line) for line in process.stderr)
            port = next(found[1] for found in said if found)
            pages = requests.get(f"http://127.0.0.1:{port}/json", timeout=10).json()
            url = next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page")
            with connect(url, max_size=None) as ws:
                yield Tab(ws)
        finally:
            process.kill()
            process.wait()
            process.stderr.close()
