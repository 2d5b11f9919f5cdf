"""The pages of sql/queries and sql/seed/bulk.sql: named blocks, their psql variables made $1, $2 … at import."""

import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

SQL = Path(__file__).parent.parent / "sql"

PAGES = [*sorted((SQL / "queries").glob("*.sql")), SQL / "seed" / "bulk.sql"]

BLOCK = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
VARIABLE = re.compile(r"(?<!:):'(\w+)'")


LISTS = (".list", ".errors", ".failures")
"""How the names of statements end that hold all orders and filters of a list."""

PLACE = re.compile(rb"\$(\d+)( = '')?")

PAGE = {"sort", "limit", "cursor"}
"""What a page of a list is asked for by, where nothing is filtered."""

SIZES = ("", "20", "50", "100")
"""The limits of pages that have a plan of their own."""


class Statement(NamedTuple):
    """A named statement: `sql` for the server, and the names of its parameters in the order of $1, $2 ….

    `kept` tells that one plan serves whatever the values are; else it is planned for those at hand.
    """

    name: str
    sql: bytes
    parameters: tuple[str, ...]
    kept: bool = True

    def values(self, given: dict[str, Any]) -> list[Any]:
        """Its parameters in their order; one that is not given is empty."""
        return [given.get(parameter, "") for parameter in self.parameters]


def parse(page: str, text: str) -> dict[str, Statement]:
    """The statements of a page, by their full name: {"users.get": Statement(…)}."""
    _, *blocks = BLOCK.split(text)
    statements = [statement(f"{page}.{name}", body) for name, body in zip(blocks[::2], blocks[1::2], strict=True)]
    return {each.name: each for each in statements}


def statement(name: str, body: str) -> Statement:
    parameters = tuple(dict.fromkeys(VARIABLE.findall(body)))
    sql = VARIABLE.sub(lambda variable: f"${parameters.index(variable[1]) + 1}", body)
    # The name stays in the text, so that pg_stat_activity and pg_stat_statements speak the project's words.
    return Statement(name, f"/* {name} */\n{sql.strip()}".encode(), parameters, not name.endswith(LISTS))


STATEMENTS = {name: each for page in PAGES for name, each in parse(page.stem, page.read_text()).items()}


def chosen(name: str, given: dict[str, Any]) -> Statement:
    """A statement for these parameters: of a list its page, where that is all they ask for."""
    statement = STATEMENTS[name]
    if statement.kept or any(given[parameter] != "" for parameter in given.keys() - PAGE):
        return statement
    sort, limit = given.get("sort", ""), str(given.get("limit", ""))
    if limit not in SIZES or not re.fullmatch("-?[a-z_]*", sort):
        return statement
    return page_of(statement, sort, limit, given.get("cursor", "") != "")


@cache
def page_of(statement: Statement, sort: str, limit: str, further: bool) -> Statement:
    """The pages of a list in this order and of this size, the first or a further one.

    Order and size are constants in it and all filters empty, so that nothing is left to plan for: to plan a list anew
    takes three times as long as to walk 50 rows.
    """
    constants = {"sort": sort, "limit": limit}

    def constant(place: re.Match[bytes]) -> bytes:
        parameter = statement.parameters[int(place[1]) - 1]
        if further and parameter == "cursor":
            return b"false" if place[2] else b"$1"
        return b"'%s'%s" % (constants.get(parameter, "").encode(), place[2] or b"")

    name = f"{statement.name} sort={sort} limit={limit}{' cursor' * further}"
    return Statement(name, PLACE.sub(constant, statement.sql), ("cursor",) if further else ())
