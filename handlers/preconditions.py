"""Preconditions: the version that a change starts from, in If-Match or in the body."""

import re
from typing import Any, NamedTuple

from flask import request
from marshmallow import ValidationError
from werkzeug.datastructures import ETags
from werkzeug.http import parse_etags

from handlers.fields import INTEGER, Whole
from handlers.problems import Problem


class Expected(NamedTuple):
    """The versions that a change may start from ("3", "3,4" or "*"), the one it names, and whether by If-Match."""

    versions: str
    base: int | None
    strict: bool


def precondition(payload: Any, query: dict[str, Any], *, any_version: bool = False) -> Expected:
    """The version that a change starts from; takes it out of the body. 428 where none is named and not any will do."""
    named = isinstance(payload, dict) and "version" in payload
    base = whole(payload.pop("version")) if named else query.get("version")
    if "If-Match" in request.headers:
        return if_match(parse_etags(request.headers["If-Match"]))
    if base is None and any_version:
        return Expected("*", None, strict=False)
    if base is None:
        raise Problem(428, "Name the version you start from: in If-Match, or as version.")
    return Expected(str(base), base, strict=False)


def whole(named: Any) -> int:
    """A version in a body."""
    try:
        return Whole(most=INTEGER).deserialize(named)
    except ValidationError as error:
        raise ValidationError({"version": error.messages}) from None


def if_match(etags: ETags) -> Expected:
    if etags.star_tag:
        return Expected("*", None, strict=True)
    versions = [tag for tag in etags.as_set() if tag and re.fullmatch("[1-9][0-9]{0,9}", tag)]
    return Expected(",".join(versions), int(versions[0]) if len(versions) == 1 else None, strict=True)
