"""Audios: what a session measured: fifteen ticks, the one that was chosen, and how many steps it took."""

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response
from marshmallow import Schema

from handlers.http.auth import requires_role
from handlers.http.contract import gives, takes
from handlers.http.crud import add_crud_routes
from handlers.http.fields import IntegerParam, Many, Number, StrictInteger
from handlers.http.responses import page
from handlers.http.schemas import Item, instant, page_query

audios = Blueprint("audios", __name__)


class Audio(Item):
    """What a session measured."""

    session_id = StrictInteger(
        required=True, metadata={"description": "Whose it is; one audio a session.", "example": 3448}
    )
    ticks = Many(
        Number(-100, -10),
        15,
        15,
        required=True,
        metadata={"description": "Fifteen levels, each from -100 to -10.", "example": [-96.33] * 15},
    )
    selected_tick = StrictInteger(0, 14, required=True, metadata={"example": 5})
    step_count = StrictInteger(0, 9, required=True, metadata={"example": 1})


class AudioSearch(Schema):
    """What to find audios by."""

    session_id = StrictInteger(metadata={"description": "Exactly this session."})


ORDERS: dict[str, Callable[[str], object]] = {"id": str, "session_id": int, "created_at": instant}

AudioSearchQuery = page_query(Audio, ORDERS)
AudioPageQuery = page_query(
    Audio,
    ORDERS,
    id=IntegerParam(metadata={"description": "Exactly this id."}),
    session_id=IntegerParam(metadata={"description": "Exactly this session."}),
)


@audios.post("/audios/search")
@requires_role("reader")
@takes(AudioSearch, query=AudioSearchQuery)
@gives(Audio, many=True)
def search(body: dict[str, Any], query: dict[str, Any]) -> Response:
    """Audios that fit what the body says; the same as `GET /audios` with it as parameters."""
    return page("audios.list", query | body)


add_crud_routes(
    audios,
    noun="audios",
    one="an audio",
    schema=Audio,
    query=AudioPageQuery,
)
