"""The forms of a list besides JSON: NDJSON, or CSV."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from flask import g

from handlers.http.auth import current_view
from handlers.http.contract import CSV

FORMULAS = ("=", "+", "-", "@", "\t", "\r")
"""What a formula begins with, for spreadsheets."""

TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"|[][{}:,]|[^][{}:,"\s]+')
"""What JSON is made of, but for the blanks between."""

Form = Callable[[Iterator[str]], Iterator[bytes]]


def form_of(query: dict[str, Any]) -> Form:
    """What makes of JSON lines what is asked for: NDJSON, or CSV of these fields."""
    if g.media != CSV:
        return lambda lines: (f"{some}\n".encode() for some in lines if some)
    columns = query["fields"].split(",") if query.get("fields") else members()
    return partial(csv_lines, columns=columns, neutral=query.get("formulas") == "neutral")


def members() -> list[str]:
    """The members of what this route answers with, in the schema's order."""
    return [field.data_key or name for name, field in current_view().contract.answer.fields.items()]


def csv_lines(lines: Iterable[str], columns: list[str], neutral: bool) -> Iterator[bytes]:
    """JSON lines as RFC 4180, with a header row; what is neither text nor number stays JSON."""
    value = neutral_value if neutral else csv_value
    for number, some in enumerate(lines):
        if number == 0:  # not before the first lines are here: there may be none to head
            yield csv_block([columns])
        rows = (members_of(line) for line in some.split("\n") if line)
        yield csv_block([value(row[column]) for column in columns] for row in rows)


def members_of(line: str) -> dict[str, Any]:
    """The members of a JSON object; where it is too deep for Python, nested ones as they are written."""
    try:
        found: dict[str, Any] = json.loads(line)
        return found
    except RecursionError:
        return {name: json.loads(text) if text[0] not in "[{" else text for name, text in members_as_written(line)}


def members_as_written(line: str) -> Iterator[tuple[str, str]]:
    """The members of a JSON object whose names have no colon, each with its value as it is written."""
    depth, begin = 0, 1
    for token in TOKEN.finditer(line):
        depth += (token[0] in "[{") - (token[0] in "]}")
        if depth == 0 or (depth == 1 and token[0] == ","):
            name, _, text = line[begin : token.start()].partition(":")
            yield json.loads(name), text.strip()
            begin = token.end()


def csv_block(rows: Iterable[list[Any]]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer).writerows(rows)
    return buffer.getvalue().encode()


def csv_value(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict | bool) else value


def neutral_value(value: Any) -> Any:
    """As csv_value; a text that a spreadsheet would take for a formula becomes one it takes for text."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULAS) else csv_value(value)
