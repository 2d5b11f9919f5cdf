"""How many may come in, and what the master does before and after them: the database made ready, the first words."""

import ctypes
import errno
import gc
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from ipaddress import ip_address
from typing import Any
from uuid import uuid4

import gunicorn.app.base
from gunicorn import util
from gunicorn.workers.base import Worker

import logs
import settings
import supervisor
from supervisor import Beside, Master

logs.open_missing()


def end(*_: object) -> None:
    """Ctrl-C while all this starts; later the master sees to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit("Rowhouse stops.")


signal.signal(signal.SIGINT, end)


SETTINGS = settings.read()
HOST, PORT, DATA_DIR = SETTINGS["HOST"], SETTINGS["PORT"], SETTINGS["DATA_DIR"]
METRICS = DATA_DIR / f"metrics-{PORT}"

FAMILY = socket.AF_INET6 if ":" in HOST else socket.AF_INET

wsgi_app = "app:serve()"
bind = f"[{HOST}]:{PORT}" if ":" in HOST else f"{HOST}:{PORT}"

workers = SETTINGS["WORKERS"]

# Plain synchronous handlers, each in a greenlet: a slow client or an open socket takes no request's place. It is
# gunicorn's gevent worker, in which llhttp reads HTTP: bare Flask answers twice as many so.
worker_class = "worker.Worker"

# Requests and sockets that a process holds at once: idle ones make room for more, which else wait in the backlog.
worker_connections = SETTINGS["CONNECTIONS_LIMIT"]
backlog = 1024

# A worker whose loop stood still this long is replaced; no handler computes for more than a moment.
timeout = 30

# After SIGTERM requests may finish this long; the database stops afterwards, all within the 10 s that are promised.
graceful_timeout = 5

# Seconds a client may keep an idle connection; more than the 60 that proxies commonly use.
keepalive = SETTINGS["IDLE_TIMEOUT"]

# A header SCRIPT_NAME would say which route is asked for, also from a proxy.
forwarder_headers = ""

# A cursor may be 5,500 characters long: the key it holds is as long as a column may be.
limit_request_line = 8190

# How many headers a request may have, and bytes of one.
limit_request_fields = SETTINGS["HEADERS_LIMIT"]
limit_request_field_size = SETTINGS["HEADER_LIMIT"]

# Seconds in which the notifier and then the private PostgreSQL must have stopped.
NOTIFIER_WITHIN, DATABASE_WITHIN = 1.5, 5

# Seconds in which workers of a master that was killed leave its port.
PORT_WITHIN = 3

# Seconds in which a client must take what it is sent, before the system cuts it off.
SEND_TIMEOUT = SETTINGS["SEND_TIMEOUT"]

# Bytes from which on memory is a mapping of its own, which goes back to the system when it is freed. Left to itself
# glibc raises its bound with the first large body, and keeps what the next ones leave.
M_MMAP_THRESHOLD, MMAP_THRESHOLD = -3, 128 * 1024

# The default one is shared between instances on a machine.
control_socket_disable = True

# The application writes its own line a request, with its id; gunicorn's costs a quarter of the throughput.
accesslog = None


def write_problem(client: socket.socket, status: int, reason: str, detail: str) -> None:
    """Answer what gunicorn itself refuses (a request that is none) as a problem too, where it would send HTML."""
    from handlers.http import problem_kinds

    members = problem_kinds.members(status) | {"detail": detail, "request_id": uuid4().hex}
    body = json.dumps(members).encode() + b"\n"
    head = (
        f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: application/problem+json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    util.write_nonblock(client, head.encode() + body)


util.write_error = write_problem

gunicorn.app.base.Arbiter = Master

logconfig_dict = logs.config(SETTINGS["LOG_LEVEL"])

database: Beside | None = None
notifier: Beside | None = None


def on_starting(server: object) -> None:
    """Before anything else: make sure that it can work, or end with one line that says why not."""
    settings.check_directories(SETTINGS)
    check_address()
    if SETTINGS["DATABASE_URL"]:
        if aside("db.migrate"):
            sys.exit(1)
    else:
        start_private_database()
    check_tokens()
    prepare_metrics()


def aside(*module: str) -> int:
    """How a module of ours ends that is run beside; out of Ctrl-C's reach, but not of this process's end."""
    command = [sys.executable, "-m", *module]
    return subprocess.run(command, stdout=subprocess.DEVNULL, start_new_session=True).returncode


def check_tokens() -> None:
    """On an address that others reach, there must be an issuer of tokens, or one must have been made."""
    if SETTINGS["OIDC_ISSUER"]:
        return
    # A name may have several addresses, of which any may be taken.
    addresses = {found[4][0] for found in socket.getaddrinfo(HOST, PORT, FAMILY, socket.SOCK_STREAM)}
    if all(ip_address(found).is_loopback for found in addresses):
        return
    if aside("flask", "--app", "handlers.cli.tokens", "token", "exist"):
        sys.exit(f"HOST={HOST} is reachable from elsewhere: without tokens Rowhouse answers on loopback only.")


def check_address() -> None:
    """The port must be free; workers whose master was killed have it for a second more."""
    deadline = time.monotonic() + PORT_WITHIN
    while True:
        with socket.socket(FAMILY) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, PORT))
                return
            except OSError as error:
                if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
                    sys.exit(f"HOST={HOST} is no address of this machine: {error.strerror}.")
                if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                    sys.exit(f"Cannot listen on {bind}: {error.strerror}. PORT= chooses another port.")
        time.sleep(0.1)


def prepare_metrics() -> None:
    """An empty directory, where the processes keep their counters together."""
    try:
        shutil.rmtree(METRICS, ignore_errors=True)
        METRICS.mkdir(parents=True)
    except OSError as error:
        sys.exit(f"DATA_DIR {DATA_DIR} cannot be written: {error.strerror}.")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(METRICS)


def start_private_database() -> None:
    """Start PostgreSQL under a supervisor of its own, which stops it once this process is gone, however it went."""
    global database
    # Not imported: psycopg must first be seen by the workers, after gevent has patched what it waits with.
    command = [sys.executable, "-m", "db.private_postgres", str(DATA_DIR)]
    database = Beside("The supervisor of the private PostgreSQL", *command, stdout=subprocess.PIPE)
    database.start()
    Master.beside.append(database)
    assert database.process.stdout
    answer = json.loads(database.process.stdout.readline() or b'{"error": "The private PostgreSQL did not start."}')
    if "error" in answer:
        sys.exit(answer["error"])
    os.environ["DATABASE_URL"] = answer["url"]


def when_ready(server: Any) -> None:
    """Start the notifier; say what was started and what to try."""
    for listener in server.LISTENERS:
        # Connections have it from the socket that they came by; other systems than Linux do without.
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            listener.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SEND_TIMEOUT * 1000)
    if SETTINGS["NOTIFIER"] == "yes":
        start_notifier()
    url = f"http://{bind}"
    lines = [
        f"Rowhouse serves on {url}: {workers} processes over {'a private' if database else 'your'} PostgreSQL.",
        f"  try   curl {url}/users/1",
        f"  read  {url}/docs",
    ]
    if database:
        lines.append(f'  look  psql "{os.environ["DATABASE_URL"]}"')
    supervisor.output.write("\n".join([*lines, "  stop  Ctrl-C\n"]))


def start_notifier() -> None:
    """Send events from a process of its own: it is stopped last, but is gone with this one."""
    global notifier
    command = [sys.executable, "-m", "flask", "--app", "handlers.cli.messages", "notifier", "--until-eof"]
    notifier = Beside("The notifier", *command)
    notifier.start()
    Master.beside.append(notifier)


def pre_fork(server: object, worker: Worker) -> None:
    supervisor.announce(worker)


def post_fork(server: object, worker: Worker) -> None:
    """Until a worker serves, it ends when it is told to; the master's own handlers would only take note of it."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, supervisor.end_at_once)


def post_worker_init(worker: Worker) -> None:
    """Spare the collector what stays; watch for the end of a worker: its sockets are told in time."""
    import gevent

    from handlers import health
    from handlers.http.open_sockets import close_all
    from handlers.http.telemetry import DROPPED

    def close_sockets_on_stop() -> None:
        while worker.alive:
            gevent.sleep(0.2)
        close_all()

    gevent.spawn(close_sockets_on_stop)
    if hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD)
    for handler in logging.root.handlers:
        if isinstance(handler, logs.Handler):
            handler.count = DROPPED.inc
    # A full collection over 1,000 sockets held all up for 120 ms, every two seconds; what requests leave is young.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 100)
    health.stops = lambda: worker.serves[0] == supervisor.STOPS
    worker.serves[0] = 1


def worker_int(worker: Worker) -> None:
    """A worker must go at once: the same."""
    from handlers.http.open_sockets import close_all

    close_all()


def child_exit(server: object, worker: Worker) -> None:
    """After a worker: what it had open is no more; what it counted stays."""
    for path in METRICS.glob(f"gauge_live*_{worker.pid}.db"):
        path.unlink(missing_ok=True)


def on_exit(server: object) -> None:
    """After the last worker: let the notifier and the private database stop."""
    if notifier:
        notifier.stop(NOTIFIER_WITHIN)
    if database:
        database.stop(DATABASE_WITHIN)
    supervisor.output.flush()
    shutil.rmtree(METRICS, ignore_errors=True)
