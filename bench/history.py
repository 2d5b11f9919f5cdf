"""What history and the feed cost writers: UPDATE and INSERT at 8 clients, on a tracked table beside an untracked one.

.venv/bin/python -m bench.history, with pgbench on the PATH or in /usr/lib/postgresql
"""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from statistics import median

import psycopg
from websockets.sync.client import connect

from bench.servers import database, free_port, rowhouse

ROUNDS, SECONDS, CLIENTS = 5, 5, 8

TABLES = """
    create table untracked (like userstories including all);
    create trigger untracked_10_count_version before update on untracked
        for each row execute function count_version();
    create table tracked (like userstories including all);
    create trigger tracked_10_count_version before update on tracked
        for each row execute function count_version();
    insert into untracked (project_id, ref, subject, description)
    select i, 1, 'A story', repeat('Some words of it. ', 10) from generate_series(1, 20000) as i;
    insert into tracked (project_id, ref, subject, description)
    select i + 20000, 1, 'A story', repeat('Some words of it. ', 10) from generate_series(1, 20000) as i;
    select history.track('tracked', 'tracked', 'project_id');
    vacuum analyze;
"""

WORK = {
    "UPDATE": r"""
        \set id random(1, 20000)
        update {table} set status = 's' || (random() * 1000000)::integer where id = :id;
    """,
    "INSERT": r"""
        \set project random(100000, 100000000)
        \set ref random(1, 1000000)
        insert into {table} (project_id, ref, subject, description)
        values (:project, :ref, 'A story', repeat('Some words of it. ', 10));
    """,
}


def pgbench() -> str:
    found = shutil.which("pgbench") or next(map(str, Path("/usr/lib/postgresql").glob("*/bin/pgbench")), None)
    assert found, "there is no pgbench: apt install postgresql-contrib"
    return found


def rate(url: str, work: str, table: str) -> float:
    """Transactions a second."""
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(WORK[work].format(table=table))
        script.flush()
        command = [
            pgbench(),
            "-n",
            "-M",
            "prepared",
            "-c",
            str(CLIENTS),
            "-j",
            "2",
            "-T",
            str(SECONDS),
            "-f",
            script.name,
        ]
        said = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    return float(re.search(r"tps = ([\d.]+)", said)[1])


def main() -> None:
    with database(users=1000, projects=0, userstories=0) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in TABLES.split(";\n"):
                connection.execute(statement)
        port = free_port()
        with rowhouse(url, port), connect(f"ws://127.0.0.1:{port}/ws/events?obj_type=task"):
            print(f"{CLIENTS} clients, {ROUNDS} rounds of {SECONDS} s each, one feed reading\n")
            print("| | untracked, /s | tracked, /s | ratio (least to most) |")
            print("| --- | --- | --- | --- |")
            for work in WORK:
                rates = [(rate(url, work, "untracked"), rate(url, work, "tracked")) for _ in range(ROUNDS)]
                ratios = [tracked / untracked for untracked, tracked in rates]
                spread = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
                plain, kept = (median(column) for column in zip(*rates, strict=True))
                print(f"| {work} | {plain:.0f} | {kept:.0f} | {spread} |")


if __name__ == "__main__":
    main()
