"""Settings: each that operators are told of says in one line what is wrong with it, before anything is started."""

import os
import re
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

import settings
from tests.conftest import ROOT, free_port
from tests.test_running import refusal

TOLD = {
    name: line
    for line in (ROOT / "docs/operators.md").read_text().splitlines()
    for cell in line.split("|")[1:4:2][{4: slice(1), 5: slice(1, 2)}.get(line.count("|"), slice(0))]
    if line.startswith("|")
    for name in re.findall(r"`([A-Z][A-Z0-9_]+)`", cell)
}
"""The settings that operators are told of, each with its line: the first cell of theirs, of limits the third."""

WORDS = ["many", "x y", "a\nb", "\x1b[31m", "ü\udcff", "  ", " 1", "1 "]
NUMBERS = [
    "ten",
    "-1",
    "1.5",
    "1e3",
    "0x10",
    "²",
    "٣",
    "+1",
    "1,000",
    "1_000",
    "9" * 12 + "9" * 8,
    "9" * 5000,
    "1;",
    "None",
]
URLS = [
    "x",
    "http",
    "http://",
    "https://",
    "//a.example",
    "a.example",
    "https:/a.example",
    "https://a b",
    "https://[",
    "https://]",
]
URLS += [
    "https://[::g]",
    "https://[127.0.0.1]",
    "https://a..b",
    "https://a.example:x",
    "https://a.example:99999",
    "https://:1",
]
URLS += [
    "https://a.example:0",
    "ftp://a.example",
    "javascript:alert(1)",
    "https://a.example/#x",
    "https://a.example/ x",
    "https://1.2.3",
]

NONSENSE = {
    "number": [*WORDS, *NUMBERS],
    "address": [
        *WORDS[1:],
        *(
            "0",
            "1",
            "127.1",
            "0x7f.0.0.1",
            "2130706433",
            "256.0.0.1",
            "1.2.3",
            "::g",
            "[::1]",
            "127.0.0.1:80",
            "a..b",
            ".a",
        ),
        *(
            "http://127.0.0.1",
            "127.0.0.1/8",
            "*",
            "a" * 64,
            "a." * 200,
            "9" * 5000,
            "ünï.example",
            "::1::",
            "a b.example",
        ),
    ],
    "hosts": [
        *["\x1b[31m", "ü\udcff", "  ", " \t\n"],
        *(
            "*",
            "*.example",
            "https://a.example",
            "a.example:80",
            "a.example,b.example",
            "::1",
            "fe80::1",
            "[::1]:80",
            "[127.0.0.1]",
        ),
        *("a..b", ".a", "10.0.0.256", "10.0.0", "a.example/", "a@b", "a.example ü", "a" * 300, "0", "127.1"),
    ],
    "origins": [
        *WORDS,
        *URLS,
        "*",
        "null",
        "https://a.example/",
        "https://a.example,https://b.example",
        "https://a.example:443",
        "http://a.example:80",
        "https://u@a.example",
        "https://a.example:08443",
        "https://a.example:",
        "https://[0::1]",
        "htps://a",
    ],
    "https": [
        *WORDS,
        *URLS,
        "http://a.example",
        "https://u:p@a.example",
        "https://a.example?x=1",
        "http://localhost.example",
        "-1",
    ],
    "webhook": [
        *WORDS,
        *URLS,
        "amqp://a.example",
        "-1",
        "9" * 5000,
        *("https://u:p@a.example/", "https://u@a.example/", "https://@a.example/", "http://u:p@127.0.0.1:1/x?y=z"),
    ],
    "broker": [
        *WORDS,
        *URLS,
        "https://a.example",
        "amqp://",
        "amqp:///",
        "amqp://a.example:x/",
        "amqp://a.example?heartbeat=x",
        "-1",
        "amqp://a.example/?socket_timeout=x",
        "amqp://a.example/?ssl_options=x",
        "amqp://a.example/?channel_max=-",
    ],
    "database": [
        *WORDS,
        *URLS,
        "postgresq://x",
        "postgresql:/x",
        "postgresql://a b/c",
        "postgresql://a:99999/b",
        "postgresql://a:x/b",
        "mysql://a/b",
        "-1",
        "9" * 5000,
        "postgresql://a:1,b:x/c",
    ],
    "delays": [
        *WORDS,
        *NUMBERS[1:2],
        "ten",
        "1;2",
        "1,,2",
        ",",
        "1,",
        "-1,2",
        "nan",
        "inf",
        "1e9",
        "1,x",
        "9" * 5000,
        "1 2",
        "²",
        "9999999",
    ],
    "choice": [*WORDS, "-1", "0", "true", "17", "9" * 5000, "loud", "maybe"],
    "text": [" ", "  a", "a ", "a\nb", "\x1b[31m", "ü\udcff", "a" * 251, "ü" * 126],
    "queue": [" ", " a", "a\nb", "a" * 251, "amq.direct", "ü\udcff"],
    "claim": [" ", " a", "a\nb", "a" * 251, ".", "a..b", ".a", "a.", "ü\udcff"],
    "directory": [
        "file",
        "file/below",
        "unreadable",
        "unreadable/below",
        "locked",
        "loop",
        "dangling",
        "a" * 300,
        "a/" * 3000,
        "a\nb",
        "\x1b[31m",
        "ü\udcff",
    ],
}
"""By what a setting is, what it cannot be: words for numbers, negative and huge ones, bad addresses, no directories."""

KINDS = {
    "HOST": "address",
    "DATA_DIR": "directory",
    "BACKUP_DIR": "directory",
    "DATABASE_URL": "database",
    "OIDC_ISSUER": "https",
    "OIDC_AUDIENCE": "text",
    "OIDC_ROLE_CLAIM": "claim",
    "OIDC_PROJECT_CLAIM": "claim",
    "ALLOWED_HOSTS": "hosts",
    "CORS_ORIGINS": "origins",
    "AMQP_URL": "broker",
    "AMQP_QUEUE": "queue",
    "NOTIFY_URL": "webhook",
    "NOTIFY_DELAYS": "delays",
    "NOTIFIER": "choice",
    "LOG_LEVEL": "choice",
    "PGSERVER_POSTGRES_VERSION": "choice",
}
"""What the settings are that are no numbers."""

FIT = {
    "address": ["127.0.0.1", "::1", "0.0.0.0", "localhost", "LocalHost", "a.example", "fe80::1%lo", "my_host"],
    "hosts": ["api.example 10.0.0.7", " api.example\t[FE80:0::1] ", "API.example.", "localhost"],
    "origins": ["https://a.example", "https://A.example http://b.example:8443 http://[::1]:3000", "http://10.0.0.7"],
    "https": [
        "https://a.example",
        "https://a.example:8443/realms/x",
        "http://127.0.0.1:1",
        "http://localhost/x",
        "http://[::1]:8",
    ],
    "webhook": ["http://127.0.0.1:1/x?y=z", "https://a.example/@b?c=d@e", "https://[::1]/"],
    "broker": ["amqp://guest:guest@127.0.0.1:5672/", "amqps://a.example", "amqp://a/%2f?heartbeat=5"],
    "database": [
        *(
            "postgresql://",
            "postgres://a",
            "postgresql://u:p%20@[::1]:5432,b:1/d?x=y",
            "host=a dbname='b c'",
            "dbname=x",
        ),
        *(
            "postgresql://postgres:@/rowhouse?host=%2Ftmp%2Fa",
            "postgresql:///x?host=/tmp/a b",
            "postgresql://u:p#?w@h/d",
        ),
    ],
    "delays": ["0", "0,0,0", "0.5,2,10,60", "1000000"],
    "text": ["a", "ü" * 125, "https://a.example"],
    "queue": ["a", "rowhouse events", "a" * 250],
    "claim": ["role", "realm_access.roles", "https://a.example/role"],
    "directory": [".", "missing", "missing/below/it", "a, b", "it's", 'a "b"', "$HOME", "-x", "\u00a0ü", "there"],
    "number": ["1", "0100"],
}


def kind(name: str) -> str:
    return KINDS.get(name, "number")


@pytest.fixture
def environment(monkeypatch):
    for name in TOLD:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@contextmanager
def as_nobody():
    """Root may write anything."""
    if os.geteuid() == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if os.geteuid() != os.getuid():
            os.seteuid(os.getuid())


@pytest.fixture
def places():
    with tempfile.TemporaryDirectory(prefix="rowhouse-") as found:
        place = Path(found)
        (place / "file").touch()
        (place / "there").mkdir()
        (place / "unreadable").mkdir(mode=0)
        (place / "locked").mkdir()
        (place / "loop").symlink_to(place / "loop")
        (place / "dangling").symlink_to(place / "nowhere")
        place.chmod(0o777)
        (place / "there").chmod(0o777)
        (place / "locked").chmod(0o555)
        yield place
        (place / "unreadable").chmod(stat.S_IRWXU)


def checked() -> None:
    """What a start asks before it starts anything."""
    with as_nobody():
        settings.check_directories(settings.read())


def test_every_setting_that_is_read_is_told_with_its_default_and_no_other():
    assert TOLD.keys() == settings.SETTINGS.keys()
    assert {*KINDS.values(), "number"} == NONSENSE.keys() and KINDS.keys() <= TOLD.keys()
    for name, setting in settings.SETTINGS.items():
        told = re.sub(r"(?<=\d),(?=\d{3}\b)", "", TOLD[name])
        # Two defaults are of the machine and of another setting.
        own = name not in ("WORKERS", "BACKUP_DIR")
        assert not own or re.search(rf"(?<![\w.]){re.escape(str(setting.default))}(?!\w)", told), name


@pytest.mark.parametrize("name", TOLD)
def test_nonsense_is_one_line_that_names_its_setting(environment, places, name):
    environment.setenv("OIDC_AUDIENCE", "us")
    environment.setenv("DATA_DIR", str(places))
    for wrong in NONSENSE[kind(name)]:
        environment.setenv(name, str(places / wrong) if kind(name) == "directory" else wrong)
        with pytest.raises(SystemExit) as end:
            checked()
        said = end.value.code
        assert isinstance(said, str) and said.startswith(name), wrong  # and so its status is 1
        assert len(said) < 400 and said.isprintable(), said


@pytest.mark.parametrize("name", [name for name, setting in settings.SETTINGS.items() if setting.secret])
def test_no_password_is_shown(environment, name):
    for wrong in ("{}://u:s3cret@a b/", "{}://u:s3cret@a:99999/", "s3cret", "ftp://u:s3cret@a/"):
        environment.setenv(name, wrong.format({"DATABASE_URL": "postgresql", "AMQP_URL": "amqp"}.get(name, "https")))
        with pytest.raises(SystemExit, match=f"^{name} must") as end:
            settings.read()
        assert "s3cret" not in end.value.code


@pytest.mark.parametrize("name", TOLD)
def test_what_makes_sense_is_taken_and_an_empty_one_is_as_none(environment, places, name):
    environment.setenv("DATA_DIR", str(places))
    environment.setenv("OIDC_AUDIENCE", "us")
    without = settings.read()
    for fit in FIT.get(kind(name), []):
        environment.setenv(name, str(places / fit) if kind(name) == "directory" else fit)
        checked()
    if name not in ("DATA_DIR", "OIDC_AUDIENCE"):
        environment.setenv(name, "")
        assert settings.read() == without
        assert name not in os.environ


def test_an_issuer_needs_an_audience(environment):
    environment.setenv("OIDC_ISSUER", "https://a.example")
    with pytest.raises(SystemExit, match=r"^OIDC_AUDIENCE must say for whom"):
        settings.read()


STARTS = [
    *(("HOST", "0"), ("POOL_SIZE", "x"), ("OIDC_ISSUER", "https://["), ("DATABASE_URL", "host")),
    *(
        ("HOST", "nowhere.invalid"),
        ("HOST", "203.0.113.7"),
        ("BACKUP_DIR", "{}/file"),
        ("DATABASE_URL", "postgresql://u@h/d?x=1"),
    ),
    *(
        ("DATABASE_URL", "nothing=1"),
        ("CORS_ORIGINS", "a\nb"),
        ("ALLOWED_HOSTS", "*"),
        ("PGSERVER_POSTGRES_VERSION", "17"),
    ),
]


@pytest.mark.parametrize(
    ("name", "value"),
    [pytest.param(*case, marks=() if number < 2 else pytest.mark.thorough) for number, case in enumerate(STARTS)],
)
def test_a_start_with_nonsense_ends_with_one_line(places, name, value):
    said = refusal(places, **{"PORT": str(free_port()), name: value.format(places)})
    assert len(said) == 1, said
    assert said[0].startswith(name)
