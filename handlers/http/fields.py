"""Fields that all nouns share: what PostgreSQL can hold."""

import re
from datetime import UTC
from typing import Any

from marshmallow import ValidationError, fields, validate

BIGINT, INTEGER = 2**63 - 1, 2**31 - 1

BLANK = (
    r"\u0001-\u0020\u007F-\u00A0\u00AD\u034F\u0600-\u0605\u061C\u06DD\u070F\u0890\u0891\u08E2\u115F\u1160\u1680\u17B4\u17B5"
    r"\u180B-\u180F\u2000-\u200F\u2028-\u202F\u205F-\u206F\u2800\u3000\u3164\uFE00-\uFE0F\uFEFF\uFFA0\uFFF0-\uFFFB"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Characters that are not seen, as is_not_blank() in sql/schema/10_common.sql has them."""

SEEN = re.compile(f"[^{BLANK}]")

WRITTEN = re.compile(
    "[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.,][0-9]+)?)?"
    "([Zz]|[+-](0[0-9]|1[0-5])(:?[0-5][0-9])?)?)?"
)
"""A moment in ISO 8601, as datetime_fault() in sql/schema/82_loading.sql has it."""


def not_blank(value: str) -> None:
    if not SEEN.search(value):
        raise ValidationError("Must not be blank.")


class Text(fields.String):
    """A string that PostgreSQL can hold (no NUL, no lone surrogate), of at most `longest` characters, not blank."""

    def __init__(self, longest: int, *, blank: bool = False, **options: Any) -> None:
        self.length = validate.Length(max=longest)
        rules = [self.length] + ([] if blank else [not_blank])
        pattern = {} if blank else {"pattern": r"\S"}  # for /docs: nearly that, in a form that any engine knows
        metadata = pattern | options.pop("metadata", {})
        super().__init__(validate=[*rules, *options.pop("validate", [])], metadata=metadata, **options)

    def _deserialize(self, value: Any, *args: Any, **options: Any) -> Any:
        text = super()._deserialize(value, *args, **options)
        self.length(text)  # before anybody looks into it
        if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
            raise ValidationError("Must not hold NUL or a lone surrogate.")
        return text


class Names(Text):
    """Names with commas between; blanks beside those mean nothing."""

    def _deserialize(self, value: Any, *args: Any, **options: Any) -> Any:
        return ",".join(name.strip() for name in super()._deserialize(value, *args, **options).split(","))


class Many(fields.List):
    """A list whose elements are counted, `least` to `most`, before any of them is looked at."""

    def __init__(self, element: fields.Field, least: int, most: int, **options: Any) -> None:
        self.length = validate.Length(least, most) if least < most else validate.Length(equal=most)
        super().__init__(element, validate=self.length, **options)

    def _deserialize(self, value: Any, *args: Any, **options: Any) -> Any:
        if isinstance(value, list):
            self.length(value)
        return super()._deserialize(value, *args, **options)


class StrictInteger(fields.Integer):
    """A JSON integer (not true, not 1.0, not "1") within a range."""

    def __init__(self, least: int = 1, most: int = BIGINT, **options: Any) -> None:
        super().__init__(validate=validate.Range(least, most), **options)

    def _deserialize(self, value: Any, *args: Any, **options: Any) -> Any:
        if type(value) is not int:
            raise self.make_error("invalid", input=value)
        return value


class IntegerParam(StrictInteger):
    """An integer in a URL: plain ASCII digits."""

    def _deserialize(self, value: Any, *args: Any, **options: Any) -> Any:
        if not re.fullmatch(r"[0-9]{1,19}", value):
            raise self.make_error("invalid", input=value)
        return int(value)


class Number(fields.Float):
    """A JSON number (not true, not "1") within a range, with at most `places` decimals."""

    def __init__(self, least: float, most: float, *, places: int | None = None, **options: Any) -> None:
        super().__init__(validate=validate.Range(least, most), **options)
        self.places = places

    def _deserialize(self, value: Any, *args: Any, **options: Any) -> Any:
        if type(value) not in (int, float):
            raise self.make_error("invalid", input=value)
        if self.places is not None and round(value, self.places) != value:
            raise ValidationError(f"Must have at most {self.places} decimals.")
        return value


class StrictBoolean(fields.Boolean):
    """true or false, and nothing that Python takes for them (1 == True)."""

    def _deserialize(self, value: Any, *args: Any, **options: Any) -> Any:
        if type(value) is not bool:
            raise self.make_error("invalid", input=value)
        return value


class Date(fields.Date):
    """A date in ISO 8601; loaded as text, as the service answers it."""

    def _deserialize(self, value: Any, *args: Any, **options: Any) -> Any:
        if isinstance(value, str) and not re.fullmatch(r"[0-9W\-]+", value):
            raise self.make_error("invalid", input=value, obj_type="date")
        return super()._deserialize(value, *args, **options).isoformat()


class Timestamp(fields.AwareDateTime):
    """A moment in ISO 8601, in UTC where it names no zone; loaded as text in UTC, as the service answers it.

    What is finer than a microsecond is cut off, not rounded.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("iso", default_timezone=UTC, **options)

    def _deserialize(self, value: Any, *args: Any, **options: Any) -> Any:
        # What Python reads may hold any separator, and end with NUL and anything.
        if isinstance(value, str) and not WRITTEN.fullmatch(value):
            raise self.make_error("invalid", input=value, obj_type="datetime")
        written = value.upper() if isinstance(value, str) else value  # Python reads no small t and z
        try:
            moment = super()._deserialize(written, *args, **options).astimezone(UTC)
        except OverflowError:
            raise self.make_error("invalid", input=value, obj_type="datetime") from None
        return moment.isoformat().replace("+00:00", "Z")


def as_of_time() -> Timestamp:
    """The moment that a list or a tree is asked as of."""
    return Timestamp(metadata={"description": "All as it was at this time.", "example": "2021-11-07T02:48:42Z"})


class VersionOrTimestamp(fields.String):
    """A version, or a moment in ISO 8601; loaded as text."""

    TIMESTAMP = Timestamp(error_messages={"invalid": "Not a version, nor a time in ISO 8601."})

    def __init__(self, **options: Any) -> None:
        either = {"anyOf": [{"pattern": "^[0-9]+$"}, {"format": "date-time"}]}
        super().__init__(metadata=either | options.pop("metadata", {}), **options)

    def _deserialize(self, value: Any, *args: Any, **options: Any) -> Any:
        if re.fullmatch("[0-9]+", value):
            return str(IntegerParam(most=INTEGER).deserialize(value))
        return self.TIMESTAMP.deserialize(value)
