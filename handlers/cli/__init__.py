"""What `flask --app app` can do besides serving: migrate, seed, move tables, make tokens, explain, and more."""

from handlers.cli import database, history, messages, new, tables, tokens
from handlers.cli.common import commands

__all__ = ["commands", "database", "history", "messages", "new", "tables", "tokens"]
