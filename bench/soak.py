"""Reads through the shared connection while it is killed: no answer goes to another request.

make bench-soak, or: python -m bench.soak
"""

import random

import psycopg

from bench.servers import database

SOAK = 3_000_000
"""Answers of a soak."""

KILL = """
    select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = 'rowhouse reads'
"""


def soak() -> None:
    """Read through the shared connection while it is killed again and again: no answer goes to another request."""
    import gevent

    from db.pipelines import FallBackToPool
    from db.queries import STATEMENTS
    from db.read_pipeline import Multiplexer

    with database(users=10_000, projects=0, userstories=0) as url:
        shared, over, counts = Multiplexer(url), [], {"right": 0, "left to the pool": 0}
        statements = [STATEMENTS["users.get"], STATEMENTS["users.by_email"]]

        def read() -> None:
            while not over:
                id = random.randint(1, 10_000)
                by_id = random.random() < 0.5
                statement = statements[not by_id]
                given = {"id": id, "email": f"user{id}.1@example.com"}
                try:
                    body = shared.read(statement, statement.values(given)).body
                except FallBackToPool:
                    counts["left to the pool"] += 1
                    gevent.sleep(0.001)
                    continue
                assert (b'"id":%d,' % id if by_id else b'"user%d.1@example.com"' % id) in body, (id, body)
                counts["right"] += 1

        readers = [gevent.spawn(read) for _ in range(50)]
        kills = 0
        while counts["right"] < SOAK:
            gevent.sleep(random.uniform(0.05, 1.5))
            with psycopg.connect(url, autocommit=True) as connection:
                kills += connection.execute(KILL).fetchone()[0]
        over.append(True)
        gevent.joinall(readers, raise_error=True)
        right, left = counts.values()
        print(f"{right:,} right answers, none wrong; {left:,} left to the pool, in {kills} kills")


if __name__ == "__main__":
    soak()
