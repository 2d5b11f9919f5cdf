"""Whether the service lives, whether it can work, and its numbers: for load balancers, orchestrators and Prometheus."""

import glob
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime

import psycopg
from flask import Blueprint, Response, current_app
from marshmallow import Schema, fields

from db import read
from db.schema import expected
from handlers.http import subscribers
from handlers.http.auth import requires_role
from handlers.http.contract import gives
from handlers.http.metrics import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    GaugeMetricFamily,
    generate_latest,
    multiprocess,
)
from handlers.http.problems import ProblemException
from handlers.http.responses import answer

health = Blueprint("health", __name__)

EXPECTED = expected()

BROKER_WITHIN = 30
"""Seconds in which a relay must have said that the broker is up."""


stops: Callable[[], bool] = bool
"""Whether the service is about to stop; gunicorn.conf.py has a worker ask its master."""


LOOK_EVERY, COUNTED = 1.0, 1_000_000
"""Seconds between two looks at what waits, whoever asks for the metrics; and how many events are counted then."""


class Waiting:
    """What waits in the outbox, asked of the database: a notifier that is away could not say."""

    def __init__(self) -> None:
        self.turn, self.at, self.row = threading.Lock(), float("-inf"), None

    def collect(self) -> Iterator[GaugeMetricFamily]:
        with self.turn:
            if time.monotonic() - self.at > LOOK_EVERY:
                self.row = None
                # Where it is away, or was never opened, the other numbers are told all the same.
                with suppress(psycopg.Error, RuntimeError):
                    self.row = read("outbox.waiting", most=COUNTED)
                self.at = time.monotonic()
            row = self.row
        if row:
            yield GaugeMetricFamily("rowhouse_events_waiting", f"Events in the outbox, up to {COUNTED}.", row.events)
            yield GaugeMetricFamily(
                "rowhouse_events_oldest_seconds", "How long the oldest event in the outbox waits.", row.seconds
            )


WAITING = Waiting()


class Health(Schema):
    status = fields.String(metadata={"example": "ready"})
    reasons = fields.List(fields.String(), metadata={"description": "What is away, where the status is degraded."})
    feed_seconds = fields.Float(
        metadata={"description": "How long ago the process last looked for changes, if somebody listens there."}
    )


class Pong(Schema):
    now = fields.DateTime(metadata={"example": "2021-11-07T02:48:42Z"})


@health.get("/health/live")
@requires_role("anyone", any_host=True)
@gives(Health)
def live() -> Response:
    """Whether the process answers at all."""
    return answer('{"status":"live"}')


@health.get("/health/ready")
@requires_role("anyone", any_host=True)
@gives(Health)
def ready() -> Response:
    """Whether the database can be reached and is up to date; degraded where events wait because the broker is away."""
    if stops():
        raise ProblemException(503, "The service stops.", reasons=["stopping"])
    try:
        row = read("health.migrations")
    except psycopg.OperationalError:
        raise ProblemException("database-away", "The database is not reachable.", reasons=["database"]) from None
    except psycopg.errors.UndefinedTable:
        row = None
    if row is None or not EXPECTED.items() <= dict(row.checksums).items():
        raise ProblemException(
            "not-migrated", "The database is not up to date: run `flask --app app migrate`.", reasons=["migrations"]
        )
    if current_app.config["AMQP_URL"]:
        broker = read("outbox.broker", name=current_app.config["AMQP_QUEUE"], seconds=BROKER_WITHIN)
        if broker is None or not broker.up:
            return answer('{"status":"degraded","reasons":["broker"]}')
    age = subscribers.feed.age()
    return answer('{"status":"ready"%s}' % ("" if age is None else f',"feed_seconds":{age:.3f}'))


@health.get("/ping")
@requires_role("anyone")
@gives(Pong)
def ping() -> Response:
    """The time here, in UTC."""
    return answer(f'{{"now":"{datetime.now(UTC).isoformat().replace("+00:00", "Z")}"}}')


@health.get("/metrics")
@requires_role("anyone")
@gives(media=("text/plain",))
def metrics() -> Response:
    """Counters and histograms of all processes, in Prometheus's text format."""
    registry = CollectorRegistry()
    registry.register(WAITING)
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        collector = multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        collector._path = glob.escape(collector._path)  # which it takes for a pattern
    else:
        registry.register(REGISTRY)
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
