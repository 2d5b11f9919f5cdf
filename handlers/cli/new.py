"""flask new: the four files of a resource, which are whoever asks for them's from then on."""

import re
import sys
from pathlib import Path
from string import Template
from typing import NamedTuple

import click
from flask import current_app

from handlers.cli.common import commands
from handlers.cli.names import ROOT, UNSURE, refusals

TEMPLATES = Path(__file__).parent / "templates"
PAGE = ROOT / "handlers/static/page.js"

CHOSEN = re.compile(r"^(!?)(projects|userstories|none): (.*\n)", re.MULTILINE)
"""A line of a template for what stands below this alone, or below anything else (!)."""


class Type(NamedTuple):
    """How a kind of member is written down: in the table, in the schema, in a test, and as what it is changed to."""

    column: str
    check: str
    said: str
    field: str
    example: str
    other: str


TYPES = {
    "text": Type(
        "text        not null",
        "char_length({0}) <= 200 and is_not_blank({0})",
        "Must be 1 to 200 characters, not blank.",
        'Text(200, required=True, metadata={{"example": "A {0}"}})',
        '"A {0}"',
        '"Another {0}"',
    ),
    "color": Type(
        "text        not null",
        "{0} ~ '^#[0-9a-f]{{6}}$'",
        "Must be #rrggbb.",
        "Text(\n        7,\n        required=True,\n"
        '        validate=[validate.Regexp(r"#[0-9a-f]{{6}}\\Z", error="Must be #rrggbb.")],\n'
        '        metadata={{"example": "#00ff00", "pattern": "^#[0-9a-f]{{6}}$"}},\n    )',
        '"#00ff00"',
        '"#0000ff"',
    ),
    "integer": Type(
        "integer     not null",
        "{0} >= 0",
        "Must be 0 or more.",
        'StrictInteger(0, INTEGER, required=True, metadata={{"example": 1}})',
        "1",
        "2",
    ),
    "boolean": Type("boolean     not null default false", "", "", "StrictBoolean(load_default=False)", "False", "True"),
    "date": Type(
        "date        not null",
        "{0} between '0001-01-01' and '9999-12-31'",
        "Must lie in the years 1 to 9999.",
        'Date(required=True, metadata={{"example": "2021-11-07"}})',
        '"2021-11-07"',
        '"2021-11-08"',
    ),
}
"""What a member may be."""


@commands.cli.command("new")
@click.argument("noun")
@click.argument("members", nargs=-1, required=True, metavar="NAME:TYPE...")
@click.option(
    "--under", type=click.Choice(["projects", "userstories", "none"]), required=True, help="What it stands below."
)
@click.option("--one", help="What one of it is called. [default: NOUN without its last s]")
def new(noun: str, members: tuple[str, ...], under: str, one: str | None) -> None:
    """Write the four files of a resource: flask new labels name:text color:color --under projects

    Its table, its statements, its routes and its test. A TYPE is text, color, integer, boolean or date. The files are
    yours: change what they say before you start the service.
    """
    if not one and UNSURE.fullmatch(noun):
        raise click.BadParameter(f"What is one of {noun} called? Say so with --one.")
    one = one or noun.removesuffix("s")
    named = [tuple(member.partition(":")[::2]) for member in members]
    paths = {word for rule in current_app.url_map.iter_rules() for word in rule.rule.split("/")}
    for refusal in refusals(noun, one, [name for name, _ in named], paths):
        raise click.BadParameter(refusal)
    for name, kind in named:
        if kind not in TYPES:
            raise click.BadParameter(f"{name} is of no type that there is: {', '.join(TYPES)}.")
    values = filled(noun, one, under, [(name, TYPES[kind]) for name, kind in named])
    files = {
        f"sql/schema/45_{noun}.sql": "schema.sql",
        f"sql/queries/{noun}.sql": "queries.sql",
        f"handlers/{noun}.py": "handler.txt",
        f"tests/test_{noun}.py": "test.txt",
    }
    if taken := [path for path in files if (ROOT / path).exists()]:
        sys.exit(f"There is {', '.join(taken)} already.")
    for path, template in files.items():
        text = CHOSEN.sub(
            lambda line: line[3] if (line[2] == under) != bool(line[1]) else "", (TEMPLATES / template).read_text()
        )
        (ROOT / path).write_text(Template(text).substitute(values))
        click.echo(path)
    if noun != f"{one}s":
        PAGE.write_text(PAGE.read_text().replace("IRREGULAR = { ", f'IRREGULAR = {{ {one}: "{noun}", '))
        click.echo(f"{PAGE.relative_to(ROOT)} knows what one of {noun} is called.")


def filled(noun: str, one: str, under: str, members: list[tuple[str, Type]]) -> dict[str, str]:
    """What stands in the templates' places."""
    checked = [(name, kind) for name, kind in members if kind.check]
    imported = sorted({kind.field.partition("(")[0] for _, kind in members} | {"IntegerParam"})
    imported += ["INTEGER"] if "StrictInteger" in imported else []
    used = ["fields"] if under != "none" else []
    used += ["validate"] if any("validate.Regexp" in kind.field for _, kind in members) else []

    def lines(text: str, *of: tuple[str, Type]) -> str:
        return "\n".join(text.format(name, kind, noun=noun) for name, kind in of)

    return {
        "noun": noun,
        "one": one,
        "under": under,
        "parent": {"projects": "project_id", "userstories": "userstory_id"}.get(under, ""),
        "One": "".join(word.capitalize() for word in one.split("_")),
        "Noun": noun.replace("_", " ").capitalize(),
        "a_one": f"{'an' if one[0] in 'aeiou' else 'a'} {one}",
        "A_one": f"{'An' if one[0] in 'aeiou' else 'A'} {one}",
        "columns": "\n".join(f"    {name:<10} {kind.column}," for name, kind in members),
        "checks": "".join(
            f",\n    constraint {noun}_{name}_check check ({kind.check.format(name)})" for name, kind in checked
        ),
        "comments": lines("comment on column {noun}.{0} is 'Its {0}.';", *members),
        "said": "\n".join(
            f"comment on constraint {noun}_{name}_check on {noun} is '{kind.said}';" for name, kind in checked
        ),
        "item": "\n".join(f"    {name:<10} {kind.column.split()[0]}," for name, kind in members),
        "json": "\n".join(f"        r.{name}," for name, _ in members),
        "names": ", ".join(name for name, _ in members),
        "new": ",\n".join(f"    n.{name}" for name, _ in members),
        "changed": ",\n".join(f"        n.{name}" for name, _ in members),
        "marshmallow": f"from marshmallow import {', '.join(used)}\n" if used else "",
        "imports": ", ".join(sorted(imported, key=lambda name: (name != name.upper(), name))),
        "fields": "\n".join(f"    {name} = {kind.field.format(name)}" for name, kind in members),
        "body": ", ".join(f'"{name}": {kind.example.format(name)}' for name, kind in members),
        "change": f'"{members[0][0]}": {members[0][1].other.format(members[0][0])}',
    }
