"""What the environment says, read here alone: each setting, what it may be, and one line where it is something else."""

import errno
import os
import re
import sys
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import logs
from handlers.http.hosts import LAST_PORT, PORTS, is_local, named

SHOWN = 100
"""Characters of a wrong value that are shown."""

TEXT_LIMIT = 250
"""Bytes of a text: a queue's name may have 255, `.dead` at its end among them."""

MANY, BYTES = 10**6, 10**12
"""The most that a number of things or seconds may be, and a number of bytes."""


class Setting(NamedTuple):
    """What makes a value of a text: it raises ValueError, saying what the setting must be. And what stands for none."""

    read: Callable[[str], Any]
    default: int | str = ""
    none: Any = ""
    secret: bool = False
    """Whether a password may be in it: it is not shown."""


def number(least: int, most: int = MANY) -> Callable[[str], int]:
    def read(value: str) -> int:
        if not (value.isascii() and value.isdigit() and len(value) <= 20 and least <= int(value) <= most):
            raise ValueError(f"be a whole number from {least} to {most}")
        return int(value)

    return read


def one_of(*values: str) -> Callable[[str], str]:
    known = {value.lower(): value for value in values}

    def read(value: str) -> str:
        if value.lower() not in known:
            raise ValueError(f"be {', '.join(values[:-1])} or {values[-1]}")
        return known[value.lower()]

    return read


def plain(value: str) -> str:
    if logs.UNSAFE.search(value):
        raise ValueError("be text without control characters")
    return value


def text(value: str) -> str:
    if plain(value) != value.strip() or len(value.encode()) > TEXT_LIMIT:
        raise ValueError(f"be a text of at most {TEXT_LIMIT} bytes, without spaces around it")
    return value


def queue(value: str) -> str:
    if value.startswith("amq."):
        raise ValueError("not begin with amq., as the broker's own queues do")
    return text(value)


def claim(value: str) -> str:
    if not all(text(value).split(".")):
        raise ValueError("be a claim's name, or the names on the way to it with dots between, as realm_access.roles")
    return value


def delays(value: str) -> tuple[float, ...]:
    parts = value.split(",")
    if not all(re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", part) and float(part) <= MANY for part in parts):
        raise ValueError(f"be seconds from 0 to {MANY} with commas between, as 0.5,2,10,60")
    return tuple(map(float, parts))


def host(name: str) -> str | None:
    """A name or address as it is in a Host; None where it has a port, or is a number that some take for an address."""
    if ":" in name.rpartition("]")[2]:
        return None
    if re.fullmatch("[0-9]+|0x[0-9a-f]*", name.rstrip(".").rpartition(".")[2]):
        try:
            ip_address(name)
        except ValueError:
            return None
    return named(name)


def address(value: str) -> str:
    try:
        return str(ip_address(value))
    except ValueError:
        if "[" in value or not host(value):
            raise ValueError("be an address, as 127.0.0.1 or ::1, or the name of one") from None
        return value.lower()


def hosts(value: str) -> list[str]:
    found = [host(name) for name in value.lower().split()]
    if not found or None in found:
        raise ValueError("be names or addresses without a port, as api.example 10.0.0.7 [fe80::1]")
    return [name for name in found if name]


def origins(value: str) -> list[str]:
    found = value.lower().split()
    # A browser writes an origin in one way only: what is written in another would never be met.
    for origin in found or [""]:
        parts = re.fullmatch(r"(https?)://(.+?)(?::([1-9][0-9]{0,4}))?", origin)
        if not parts or host(parts[2]) != parts[2] or int(parts[3] or 0) > LAST_PORT or parts[3] == PORTS[parts[1]]:
            raise ValueError("be origins as browsers write them, as https://a.example https://b.example:8443")
    return found


def is_url(value: str, *schemes: str) -> bool:
    """Whether it is an address of one of these schemes, and leads somewhere."""
    try:
        parts = urlsplit(plain(value))
        port = parts.port
    except ValueError:
        return False
    place = parts.netloc.rpartition("@")[2]
    name = place if port is None else place.removesuffix(f":{port}")
    return bool(parts.scheme in schemes and host(name) and port != 0 and not re.search(r"[\s#]", value))


def webhook(value: str) -> str:
    # What speaks HTTP here would take a password for a part of the host: the start would be good, and each event fail.
    if not is_url(value, "http", "https") or "@" in urlsplit(value).netloc:
        raise ValueError("be an address as https://host/path, without a name or password")
    return value


def issuer(value: str) -> str:
    # Its keys must not be tampered with on the way.
    here = is_url(value, "http") and is_local(urlsplit(value).hostname or "")
    if not (here or is_url(value, "https")) or "@" in value or "?" in value:
        raise ValueError("be an https URL, without a query")
    return value


def broker(value: str) -> str:
    # Only where there is one: who has none need not load what speaks to it.
    from handlers.messages.rabbitmq import parameters

    try:
        if not is_url(value, "amqp", "amqps"):
            raise ValueError
        parameters(value)
    except (ValueError, TypeError, SyntaxError, AttributeError):  # whatever a parameter of its query is made to be
        raise ValueError("be an address as amqp://name:password@host:5672/") from None
    return value


def database(value: str) -> str:
    """An URL, or what else libpq takes; it says more of either when it connects."""
    found = re.fullmatch(r"postgres(?:ql)?://(?:[^/]*@)?([^/?@\s]*)(?:[/?].*)?", plain(value))
    is_pairs = "=" in value and "://" not in value.partition("=")[0]
    if not is_pairs and not (found and all(map(is_place, found[1].split(",")))):
        raise ValueError("be an address as postgresql://name:password@host:5432/database")
    return value


def is_place(place: str) -> bool:
    """Whether a host, or none, has a port that may be, or none."""
    port = place.rpartition("]")[2].partition(":")[2]
    return port == "" or bool(re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) <= LAST_PORT)


def directory(value: str) -> Path:
    return Path(plain(value)).absolute()


SETTINGS = {
    "HOST": Setting(address, "127.0.0.1"),
    "PORT": Setting(number(1, LAST_PORT), 8000),
    # One process keeps one core busy; the database wants some of it as well.
    "WORKERS": Setting(number(1, 1000), min(4, os.cpu_count() or 1)),
    "DATA_DIR": Setting(directory, ".data"),
    "BACKUP_DIR": Setting(directory),
    "DATABASE_URL": Setting(database, secret=True),
    "OIDC_ISSUER": Setting(issuer),
    "OIDC_AUDIENCE": Setting(text),
    "OIDC_ROLE_CLAIM": Setting(claim, "role"),
    "OIDC_PROJECT_CLAIM": Setting(claim, "project"),
    "ALLOWED_HOSTS": Setting(hosts, none=()),
    "CORS_ORIGINS": Setting(origins, none=()),
    "AMQP_URL": Setting(broker, secret=True),
    "AMQP_QUEUE": Setting(queue, "rowhouse.events"),
    "NOTIFY_URL": Setting(webhook, secret=True),
    "NOTIFY_DELAYS": Setting(delays, "0.5,2,10,60"),
    "NOTIFIER": Setting(one_of("yes", "no"), "yes"),
    "LOG_LEVEL": Setting(one_of("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"), "INFO"),
    "PGSERVER_POSTGRES_VERSION": Setting(one_of("18", "16"), "18"),
    "BODY_LIMIT": Setting(number(1, BYTES), 2**20),
    "BODY_TIMEOUT": Setting(number(1), 30),
    "UPLOAD_LIMIT": Setting(number(1, BYTES), 2**30),
    "UPLOAD_TIMEOUT": Setting(number(1), 3600),
    "SPOOL_LIMIT": Setting(number(1, BYTES), 2**31),
    "REJECTS_LIMIT": Setting(number(0, BYTES), 100_000),
    "RATE_LIMIT": Setting(number(0, BYTES), 60_000),
    "ANSWERS_LIMIT": Setting(number(1, BYTES), 100_000),
    "ANSWERS_BYTES_LIMIT": Setting(number(1, BYTES), 2**26),
    "SOCKETS_PER_TOKEN": Setting(number(0), 100),
    "SOCKETS_LIMIT": Setting(number(0), 4500),
    "CONNECTIONS_LIMIT": Setting(number(1), 5000),
    "HEADERS_LIMIT": Setting(number(1, 32768), 100),
    "HEADER_LIMIT": Setting(number(1), 8190),
    "IDLE_TIMEOUT": Setting(number(1), 65),
    "SEND_TIMEOUT": Setting(number(1), 30),
    "STATEMENT_TIMEOUT": Setting(number(1), 5),
    "POOL_SIZE": Setting(number(1, 1000), 10),
}
"""Each is told to operators (docs/operators.md)."""


def read() -> dict[str, Any]:
    """All of them. Ends the program where one cannot be, with one line that names it. An empty one is as none."""
    found = {name: value(name, setting) for name, setting in SETTINGS.items()}
    found["BACKUP_DIR"] = found["BACKUP_DIR"] or found["DATA_DIR"] / "backups"
    if found["OIDC_ISSUER"] and not found["OIDC_AUDIENCE"]:
        sys.exit("OIDC_AUDIENCE must say for whom the tokens of OIDC_ISSUER are: those for others would be let in.")
    return found


def value(name: str, setting: Setting) -> Any:
    if os.environ.get(name) == "":
        del os.environ[name]  # so that it is none also for libraries that read it
    given = os.environ.get(name, str(setting.default))
    try:
        return setting.read(given) if given else setting.none
    except ValueError as error:
        sys.exit(f"{name}{'' if setting.secret else f'={shown(given)}'} must {error}.")


def shown(given: str) -> str:
    return logs.escape(given[:SHOWN]) + "…" * (len(given) > SHOWN)


def check_directories(found: dict[str, Any]) -> None:
    """Ends the program where one of them cannot be made or written. A command that needs none asks for none."""
    for name in ("DATA_DIR", "BACKUP_DIR"):
        if number := fault(found[name]):
            sys.exit(f"{name} {shown(str(found[name]))} cannot be written: {os.strerror(number)}.")


def fault(path: Path) -> int:
    """Why a directory cannot be made or written, by the number of an error; 0 where it can."""
    for place in (path, *path.parents):
        try:
            place.lstat()
            if not place.is_dir():
                return errno.ENOTDIR
            return 0 if os.access(place, os.R_OK | os.W_OK | os.X_OK, effective_ids=True) else errno.EACCES
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            return error.errno or errno.EIO
    return errno.ENOENT
