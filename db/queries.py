"""The pages of sql/queries and sql/seed/bulk.sql: named blocks, their psql variables made $1, $2 … at import."""

import re
from pathlib import Path
from typing import NamedTuple

SQL = Path(__file__).parent.parent / "sql"

PAGES = [*sorted((SQL / "queries").glob("*.sql")), SQL / "seed" / "bulk.sql"]

BLOCK = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
VARIABLE = re.compile(r"(?<!:):'(\w+)'")


class Statement(NamedTuple):
    """A named statement: `sql` for the server, and the names of its parameters in the order of $1, $2 …."""

    name: str
    sql: bytes
    parameters: tuple[str, ...]


def parse(page: str, text: str) -> dict[str, Statement]:
    """The statements of a page, by their full name: {"users.get": Statement(…)}."""
    _, *blocks = BLOCK.split(text)
    statements = [statement(f"{page}.{name}", body) for name, body in zip(blocks[::2], blocks[1::2], strict=True)]
    return {each.name: each for each in statements}


def statement(name: str, body: str) -> Statement:
    parameters = tuple(dict.fromkeys(VARIABLE.findall(body)))
    sql = VARIABLE.sub(lambda variable: f"${parameters.index(variable[1]) + 1}", body)
    # The name stays in the text, so that pg_stat_activity and pg_stat_statements speak the project's words.
    return Statement(name, f"/* {name} */\n{sql.strip()}".encode(), parameters)


STATEMENTS = {name: each for page in PAGES for name, each in parse(page.stem, page.read_text()).items()}
