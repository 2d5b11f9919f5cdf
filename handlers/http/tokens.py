"""What a token is, and whom history calls by the name of its holder."""

import hashlib
import secrets
from typing import Any

from marshmallow import ValidationError

from handlers.http.fields import Text

ANONYMOUS = "anonymous"
"""What history calls a caller without a token."""

NO_LONGER_GOOD = "The token is no longer good, or one is needed by now."
"""Why somebody who was let in before is not let in now."""


def new_secret() -> str:
    """What nobody can guess."""
    return f"rh_{secrets.token_urlsafe(32)}"


def digest(token: str) -> str:
    """What is kept of a token: its SHA-256, in hexadecimal."""
    return hashlib.sha256(token.encode()).hexdigest()


class HolderName(Text):
    """Whom history will call so: nobody that it calls so already for another reason."""

    def __init__(self, **options: Any) -> None:
        super().__init__(100, validate=[can_be_seen, is_free], **options)


def can_be_seen(name: str) -> None:
    if not name.isprintable():
        raise ValidationError("Must be characters that can be seen.")


def is_free(name: str) -> None:
    if name == ANONYMOUS or name.startswith("oidc:") or name.endswith(")"):
        raise ValidationError("History calls others so: who has no token or a JWT, or acts on the database.")
