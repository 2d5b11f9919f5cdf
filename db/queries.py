"""The pages of sql/queries and sql/seed/bulk.sql: named blocks, their psql variables made $1, $2 … at import.

Nothing else looks at the text of a statement: values are its parameters, and of what is ordered in several ways each
order is a block.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

SQL = Path(__file__).parent.parent / "sql"

PAGES = [*sorted((SQL / "queries").glob("*.sql")), SQL / "seed" / "bulk.sql"]

BLOCK = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
TWIN = re.compile(r"^-- for: (.+)\n", re.MULTILINE)
VARIABLE = re.compile(r"(?<!:):'(\w+)'")

FILTERS = re.compile(r"(?:\n +and .* -- filter$)+", re.MULTILINE)
"""The conditions that a list can do without where nothing is filtered: the page says which they are."""


class Statement(NamedTuple):
    """A named statement: `sql` for the server, and the names of its parameters in the order of $1, $2 ….

    Its plan is kept. Where it is a list, `filtered` is the same with the conditions of its `filters`, planned for the
    values at hand.
    """

    name: str
    sql: bytes
    parameters: tuple[str, ...]
    filters: tuple[str, ...] = ()
    filtered: "Statement | None" = None
    kept: bool = True

    def fit(self, given: dict[str, Any]) -> "Statement":
        """What answers for these parameters: the filtered one, where there is anything to filter by."""
        return self.filtered if self.filtered and any(given.get(name, "") != "" for name in self.filters) else self

    def values(self, given: dict[str, Any]) -> list[Any]:
        """Its parameters in their order; one that is not given is empty."""
        return [given.get(parameter, "") for parameter in self.parameters]


def pages(path: Path) -> Iterator[tuple[str, str]]:
    """The pages of a file, by name: itself, or one for each of its lines `-- for: table=jobs column=job …`."""
    text = path.read_text()
    twins = [dict(pair.split("=") for pair in line.split()) for line in TWIN.findall(text)]
    yield from ((names["table"], twin(text, names)) for names in twins)
    if not twins:
        yield path.stem, text


def twin(text: str, names: dict[str, str]) -> str:
    """A page with psql's variables of these names in their places: an identifier, a text, or as it is after `_by_`."""
    for name, value in names.items():
        text = text.replace(f':"{name}"', f'"{value}"').replace(f":'{name}'", f"'{value}'")
        text = text.replace(f"_by_:{name}", f"_by_{value}")
    return text


def parse(page: str, text: str) -> dict[str, Statement]:
    """The statements of a page, by their full name: {"users.get": Statement(…)}."""
    _, *blocks = BLOCK.split(text)
    statements = [statement(f"{page}.{name}", body) for name, body in zip(blocks[::2], blocks[1::2], strict=True)]
    return {each.name: each for each in statements}


def statement(name: str, body: str) -> Statement:
    conditions = FILTERS.search(body)
    if conditions is None:
        return prepared(name, body)
    filters = tuple(dict.fromkeys(VARIABLE.findall(conditions[0])))
    filtered = prepared(name, body)._replace(kept=False)
    return prepared(name, FILTERS.sub("", body))._replace(filters=filters, filtered=filtered)


def prepared(name: str, body: str) -> Statement:
    parameters = tuple(dict.fromkeys(VARIABLE.findall(body)))
    sql = VARIABLE.sub(lambda variable: f"${parameters.index(variable[1]) + 1}", body)
    # The name stays in the text, so that pg_stat_activity and pg_stat_statements speak the project's words.
    return Statement(name, f"/* {name} */\n{sql.strip()}".encode(), parameters)


STATEMENTS: Mapping[str, Statement] = MappingProxyType(
    {name: each for path in PAGES for page, text in pages(path) for name, each in parse(page, text).items()}
)
