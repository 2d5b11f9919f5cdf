"""What a new resource, one of it and its members may not be called: each reason is one line."""

import keyword
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

NAME = re.compile("[a-z][a-z0-9_]{1,39}")

RESERVED = """
all analyse analyze and any array as asc asymmetric authorization binary both case cast check collate collation
column concurrently constraint create cross current_catalog current_date current_role current_schema current_time
current_timestamp current_user default deferrable desc distinct do else end except false fetch for foreign freeze
from full grant group having ilike in initially inner intersect into is isnull join lateral leading left like limit
localtime localtimestamp natural not notnull null offset on only or order outer overlaps placing primary references
returning right select session_user similar some symmetric system_user table tablesample then to trailing true
union unique user using variadic verbose when where window with
"""
"""The words that PostgreSQL keeps to itself; a test asks it."""

TYPES = {"time", "timestamp", "interval", "values", "row", "position", "precision", "int", "char", "setof"}

KEPT = {"id", "version", "project_id", "userstory_id", "created_at", "updated_at"}
"""The columns that resources have anyway."""

UNSURE = re.compile(r".*(?:[^s]|ss|us|is|(?:i|s|x|z|o|v|ch|sh)es)")
"""Plurals of which the last s alone may not be what makes them one."""

IDENTIFIER = 63
"""The bytes that PostgreSQL keeps of an identifier."""


def written(pattern: str, path: str) -> set[str]:
    """What a pattern finds in the files of the tree."""
    return {found for file in ROOT.glob(path) for found in re.findall(pattern, file.read_text(), re.MULTILINE)}


def refusals(noun: str, one: str, members: list[str], paths: set[str]) -> Iterator[str]:
    """Why a resource cannot be called so; `paths` are the words of the paths that there are."""
    for name in (noun, one, *members):
        if not NAME.fullmatch(name):
            yield f"{name!a} is no name of small letters, digits and _."
    for name in (noun, *members):
        if keyword.iskeyword(name):
            yield f"{name} is a word of Python."
        elif name in RESERVED.split():
            yield f"{name} is a word of SQL."
    if noun in TYPES:
        yield f"{noun} is a word of SQL."
    if (ROOT / "handlers" / noun).exists():
        yield f"There is handlers/{noun} already."
    if noun in paths | {"fields", "validate"}:
        yield f"There is a path or a module that is called {noun} already."
    if noun in written(r"^(?:create table if not exists |select define_type\(')(\w+)", "sql/schema/*.sql"):
        yield f"There is a table {noun} already."
    if one in written(r"history\.track\('[\w.]+', '(\w+)'", "sql/schema/*.sql"):
        yield f"There is a {one} in history already."
    if (kind := "".join(word.capitalize() for word in one.split("_"))) in written(r"^class (\w+)", "handlers/**/*.py"):
        yield f"There is a class {kind} already."
    for name in members:
        if name in KEPT:
            yield f"{name} is a column that it has anyway."
        if members.count(name) > 1:
            yield f"{name} is named twice."
        if len(f"{noun}_{name}_check") > IDENTIFIER:
            yield f"{noun}_{name}_check is longer than the {IDENTIFIER} bytes of a name."
