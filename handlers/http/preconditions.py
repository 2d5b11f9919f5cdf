"""Preconditions: what a request is done only if it holds, by RFC 9110; and the version that a change starts from."""

import re
from functools import cache
from typing import Any, NamedTuple

from flask import abort, request
from marshmallow import Schema, ValidationError

from handlers.http.fields import INTEGER, StrictInteger
from handlers.http.problems import ProblemException

TAG = r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"'
"""An entity tag, by RFC 9110, 8.8.3."""

TAGS = re.compile(rf"[ \t,]*({TAG}[ \t]*(,[ \t,]*|$))+")


class Tags(NamedTuple):
    """What If-Match or If-None-Match names: any version at all, or these, each with whether its tag is a weak one."""

    star: bool
    named: list[tuple[str, str]]

    def strong(self) -> list[str]:
        return [version for weak, version in self.named if not weak]

    def match(self, version: int) -> bool:
        """Whether this version is named by a strong tag."""
        return self.star or str(version) in self.strong()

    def match_weakly(self, version: int | str) -> bool:
        return self.star or str(version) in (named for _, named in self.named)


def tags(header: str) -> Tags:
    """What If-Match or If-None-Match names. 400 for what is neither * nor entity tags; one may lack its quotes."""
    if header.isascii() and header.isdigit():
        return Tags(False, [("", header)])
    if header.strip(" \t") == "*":
        return Tags(True, [])
    if not TAGS.fullmatch(header):
        abort(400, 'If-Match and If-None-Match are *, or entity tags such as "1", with commas between.')
    return Tags(False, re.findall(TAG, header))


def is_known(environ: dict[str, Any], version: int) -> bool:
    """Whether the client of a GET has this version; 412 where it wants another: in the order of RFC 9110 13.2.2."""
    if "HTTP_IF_MATCH" in environ and not tags(environ["HTTP_IF_MATCH"]).match(version):
        abort(412, f"The object is at version {version}.")
    return "HTTP_IF_NONE_MATCH" in environ and tags(environ["HTTP_IF_NONE_MATCH"]).match_weakly(version)


def known_pages(environ: dict[str, Any]) -> Tags:
    """The pages that the client of a GET has. Their tags are weak ones, and If-Match takes none of those: 412."""
    if "HTTP_IF_MATCH" in environ and not tags(environ["HTTP_IF_MATCH"]).star:
        abort(412, "A page has a weak ETag, which If-Match takes for none: ask by If-None-Match.")
    return tags(environ["HTTP_IF_NONE_MATCH"]) if "HTTP_IF_NONE_MATCH" in environ else Tags(False, [])


class Expected(NamedTuple):
    """The versions that a change may start from ("3", "3,4" or "*"), the one it names, and whether by If-Match."""

    versions: str
    base: int | None
    strict: bool
    unwanted: Tags | None = None
    """The versions that it may not start from."""
    given: dict[str, Any] = {}
    """Members that are not the client's to change, as it read them."""


def precondition(payload: Any, query: dict[str, Any], *, any_version: bool = False) -> Expected:
    """The version that a change starts from; takes it out of the body. 428 where none is named and not any will do."""
    named = isinstance(payload, dict) and "version" in payload
    base = whole(payload.pop("version")) if named else query.get("version")
    expected = starting(base, any_version)
    if "If-None-Match" in request.headers:
        expected = expected._replace(unwanted=tags(request.headers["If-None-Match"]))
    return expected


def starting(base: int | None, any_version: bool) -> Expected:
    if "If-Match" in request.headers:
        return if_match(tags(request.headers["If-Match"]))
    expected = Expected(str(base or "*"), base, strict=False)
    if not any_version:
        require_version(expected)
    return expected


def require_version(expected: Expected) -> None:
    """428 where a change does not name the version that it starts from."""
    if expected.base is None and not expected.strict:
        raise ProblemException(428, "Name the version you start from: in If-Match, or as version.")


def read_only(payload: Any, body: Schema | None, answer: Schema | None) -> dict[str, Any]:
    """The members that stand in the body of a change only because they were read; takes them out of it."""
    if not body or not answer or not isinstance(payload, dict):
        return {}
    settled, lacking = not_to_change(body, answer)
    names = payload.keys() & settled
    if lacking:
        names |= {name for name in lacking if payload.get(name, "") is None}
    return {name: payload.pop(name) for name in names}


@cache
def not_to_change(body: Schema, answer: Schema) -> tuple[frozenset[str], frozenset[str]]:
    """The members that only the service sets, and those that an object may lack but nobody can take away."""
    settled = {name for name, field in body.fields.items() if field.dump_only}
    kept = {name for name, field in answer.fields.items() if field.allow_none}
    return frozenset(settled), frozenset(name for name in kept & body.fields.keys() if not body.fields[name].allow_none)


def whole(named: Any) -> int:
    """A version in a body."""
    try:
        return StrictInteger(most=INTEGER).deserialize(named)
    except ValidationError as error:
        raise ValidationError({"version": error.messages}) from None


def if_match(asked: Tags) -> Expected:
    if asked.star:
        return Expected("*", None, strict=True)
    versions = [version for version in asked.strong() if re.fullmatch("[1-9][0-9]{0,9}", version)]
    return Expected(",".join(versions), int(versions[0]) if len(versions) == 1 else None, strict=True)
