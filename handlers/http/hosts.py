"""What a Host may be (RFC 9110, 7.2), and which names mean this machine."""

import re
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

LABEL = "[a-z0-9_-]{1,63}"

HOST = re.compile(rf"(\[[0-9a-f:.]+\]|{LABEL}(?:\.{LABEL})*\.?)(?::([0-9]{{0,5}}))?")
"""A Host in small letters: its name, and its port."""

NAME_LIMIT, LAST_PORT = 254, 65535
"""Characters of a name in the DNS, a dot at its end among them."""

PORTS = {"http": "80", "https": "443"}
"""The port that a scheme has anyway."""


SHORT = 512
"""Characters of what a client sends that is remembered with what was made of it: long ones would fill the memory."""


@lru_cache(1024)
def parsed(header: str) -> str | None:
    found = HOST.fullmatch(header.lower())
    if not found or len(found[1]) > NAME_LIMIT or int(found[2] or 0) > LAST_PORT:
        return None
    if found[1][0] != "[":
        return found[1]
    try:
        return f"[{IPv6Address(found[1][1:-1])}]"
    except ValueError:
        return None


def named(header: str) -> str | None:
    """The name or address in a Host, in small letters; None where it is none."""
    return parsed(header) if len(header) <= SHORT else None


@lru_cache(1024)
def is_local(name: str) -> bool:
    """Whether a name means this machine wherever it is asked: nobody's DNS says otherwise (RFC 6761)."""
    try:
        return ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
