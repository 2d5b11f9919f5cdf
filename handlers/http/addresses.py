"""Addresses: where to write to people, and where pictures are. What is one here, is one in sql/schema/10_common.sql."""

import re
from ipaddress import ip_address
from typing import Any, NoReturn
from unicodedata import normalize

import idna
from flask import abort
from marshmallow import ValidationError

from handlers.http.fields import BLANK, Text

UNFIT = BLANK + "\ue000-\uf8ff\ufdd0-\ufdef\ufffe\uffff\U0001fffe\U0001ffff\U0002fffe\U0002ffff\U0003fffe-\U0010ffff"
"""What no address holds, as unfit() has it: characters that are not seen, are private or never will be any."""

LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
EMAIL = re.compile(
    # RFC 5321 and 6531: dots between atoms, or quoted, though without an "@"
    rf'(?:[^"(),.:;<>@\[\\\]{UNFIT}]+(?:\.[^"(),.:;<>@\[\\\]{UNFIT}]+)*|"(?:[^"\\@{UNFIT}]|\\[!-?A-~])*")'
    rf"@(?:(?:{LABEL}\.)+[A-Za-z0-9][A-Za-z0-9-]{{0,61}}[A-Za-z0-9]|[Ll][Oo][Cc][Aa][Ll][Hh][Oo][Ss][Tt]"
    r"|\[(?:25[0-5]|2[0-4][0-9]|[01]?[0-9]?[0-9])(?:\.(?:25[0-5]|2[0-4][0-9]|[01]?[0-9]?[0-9])){3}\])"
)
"""An e-mail address whose domain is in ASCII."""

HOST_LABEL = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
WEB_ADDRESS = re.compile(
    r"[Hh][Tt][Tt][Pp][Ss]?://(?:(?:[A-Za-z0-9._~!$&'()*+,;=:-]|%[0-9A-Fa-f]{2})*@)?"
    rf"(?:(?![0-9.]+(?:[:/?#]|$)){HOST_LABEL}(?:\.{HOST_LABEL})*\.?"
    r"|(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(?:\.(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])){3}"
    r"|\[(?P<ip>[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*)\])"
    "(?::0*(?:6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[0-9]{1,4}))?"
    rf'(?:[/?](?:[^"#%<>\[\\\]^`{{|}}{UNFIT}]|%[0-9A-Fa-f]{{2}})*)?(?:#(?:[^"#%<>\[\\\]^`{{|}}{UNFIT}]|%[0-9A-Fa-f]{{2}})*)?'
)
"""An http or https URL by RFC 3986, or an IRI by RFC 3987, whose host is in ASCII."""

BEFORE_HOST = re.compile(r"([A-Za-z]+://(?:[^/?#@]*@)?)([^/?#:\[\]]*)")


CHEROKEE = str.maketrans({chr(code): chr(code).upper() for code in (*range(0x13F8, 0x13FE), *range(0xAB70, 0xABC0))})
"""The only letters whose capitals IDNA takes for the small ones, as Unicode does where it folds case."""


def is_plain(value: str) -> bool:
    """Whether a domain in it is in ASCII already, and stands for no other letters."""
    return value.isascii() and "xn--" not in value.lower()


def in_ascii(domain: str) -> str:
    """A domain, whatever its case, as DNS is asked for it; empty where IDNA 2008 has no such."""
    letters = normalize("NFC", normalize("NFC", domain).lower()).translate(CHEROKEE)
    try:
        labels = [
            each if each.isascii() and not each.startswith("xn--") else idna.alabel(each).decode()
            for each in letters.split(".")
        ]
    except UnicodeError:  # which idna's are
        return ""
    whole = ".".join(labels)
    return whole if len(whole) <= 253 else ""


def is_email(value: str) -> None:
    """An e-mail address, composed or not, its domain in letters or in Punycode."""
    plain = value
    if not is_plain(value):
        local, _, domain = normalize("NFC", value).partition("@")
        plain = f"{local}@{in_ascii(domain)}"
    if not EMAIL.fullmatch(plain):
        raise ValidationError("Not a valid email address.")


def is_web_address(value: str) -> None:
    """An http or https URL, also of a host without a dot, or with "_"."""
    plain = value if is_plain(value) else BEFORE_HOST.sub(lambda found: found[1] + in_ascii(found[2]), value, count=1)
    found = WEB_ADDRESS.fullmatch(plain)
    try:
        if not found or (found["ip"] and not ip_address(found["ip"])):
            raise ValueError
    except ValueError:
        raise ValidationError("Not a valid URL.") from None


def email(**options: Any) -> Text:
    """An e-mail address."""
    metadata = {"description": "Unique whatever the case.", "example": "ann@example.com", "format": "idn-email"}
    return Text(254, required=True, metadata=metadata, **{"validate": [is_email]} | options)


def asked_email() -> Text:
    """The e-mail address of somebody who may be there from before a rule; nobody_has() says the rest."""
    return email(validate=[])


def nobody_has(email: str) -> NoReturn:
    """404, once it was found to be an e-mail address; else 422."""
    try:
        is_email(email)
    except ValidationError as error:
        raise ValidationError({"email": error.messages}) from None
    abort(404, "There is no such object.")
