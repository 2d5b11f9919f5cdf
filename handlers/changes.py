"""Changes by plain HTTP: what the channel sends, as server-sent events, as lines, or some at a time."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from contextvars import Context, copy_context
from functools import partial
from itertools import chain, islice
from typing import Any

from flask import Blueprint, abort, g, request
from marshmallow import Schema, fields

from db.feed import Cursor, Subscription
from handlers.http import subscribers
from handlers.http.asides import ASIDE
from handlers.http.auth import requires_role
from handlers.http.contract import NDJSON, gives, takes
from handlers.http.event_stream import EVENTS, FORMS, QUIET, Form, event, joined, line, packed_as
from handlers.http.fields import IntegerParam
from handlers.http.flask_app import Response
from handlers.http.open_sockets import Stream, counted, is_still_good
from handlers.http.request_body import JSON
from handlers.http.responses import answer
from handlers.http.streaming import ahead
from handlers.http.subscribers import (
    SENT,
    ChangesQuery,
    check_room,
    cursor_in,
    hand_over,
    last_seen,
    missed,
    present,
    subscription_to,
    why_lost,
)
from handlers.http.websocket import text_of

changes = Blueprint("changes", __name__)

MOST, WAIT_LIMIT = 1000, 60
"""Changes of one JSON answer, and seconds that it waits for one."""

HEARTBEAT = 15
"""Seconds without a change after which a stream says that it is there."""

RETRY = b"retry: 1000\n"
"""Milliseconds after which a browser connects again."""


class FollowQuery(ChangesQuery):
    """What to be told of, from where on, and how long to wait for it."""

    wait = IntegerParam(
        least=0,
        most=WAIT_LIMIT,
        metadata={"description": "Seconds to wait for a change, as JSON; streams go on anyway."},
    )


class Changes(Schema):
    """Some changes, in the order of each object."""

    items = fields.List(fields.Raw(), metadata={"description": f"Frames as the channel sends them, at most {MOST}."})
    cursor = fields.String(metadata={"description": "Where to go on, as `since`."})


@changes.get("/changes")
@requires_role("reader", of_project=True)
@takes(query=FollowQuery)
@gives(Changes, media=(JSON, EVENTS, NDJSON))
def follow(query: dict[str, Any]) -> Response:
    """Every change after its commit, once, in the order of each object: some as JSON, or a stream of all that come."""
    check_room()
    since, wait = last_seen(query.pop("since", None)), int(query.pop("wait", None) or 0)
    wait *= ASIDE not in request.environ  # what the socket sends meanwhile would wait, too
    with ExitStack() as ends:
        stream = Stream(request.environ.get("gunicorn.socket"))
        ends.enter_context(counted(stream))
        form = FORMS.get(g.media)
        subscription = subscription_to(query, partial(hand_over, stream, packed_as(form)))
        ends.callback(subscribers.feed.leave, subscription)
        reason = why_lost(since) if since else None
        if not form:
            return page([reset(reason)]) if reason else some(stream, subscription, since, wait)
        blocks = iter([form(reset(reason))]) if reason else told(stream, subscription, since, form, ends)
        response = Response(blocks, mimetype=g.media, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        response.call_on_close(ends.pop_all().close)
    return response


def reset(reason: str) -> bytes:
    """Instead of what cannot be resumed; with the place to go on from once all was read anew."""
    return f'{{"type":"reset","reason":{json.dumps(reason)},"cursor":"{present()}"}}'.encode()


# Some -----------------------------------------------------------------------------------------------------------------


def page(texts: list[bytes], cursor: str = "") -> Response:
    """Frames, and where to go on: behind the last of them unless told otherwise."""
    return answer(b'{"items":[%b],"cursor":"%b"}' % (b",".join(texts), (cursor or cursor_in(texts[-1])).encode()))


def some(stream: Stream, subscription: Subscription, since: Cursor | None, wait: int) -> Response:
    """What was missed; where that is nothing, what comes first within `wait` seconds, with all that came with it."""
    deadline = time.monotonic() + wait
    now = present()
    texts, cursor = stretch(subscription, since or now, now)
    if not texts and wait:
        join(subscription)
        texts, cursor = stretch(subscription, now, subscription.place)
    if not texts and wait:
        stream.event.wait(max(0.0, deadline - time.monotonic()))
        texts = [*map(text_of, subscription.frames[:MOST])]
        SENT.inc(len(texts))
        cursor = "" if texts else cursor
    return page(texts, cursor)


def stretch(subscription: Subscription, since: Cursor, until: Cursor) -> tuple[list[bytes], str]:
    """What came between two places, and where to go on; only the first of it, and nowhere, where it is too much."""
    texts: list[bytes] = []
    if since != until:
        with closing(ahead(missed(subscription, since, until, line), at_once=1)) as blocks:
            for block in blocks:
                texts += block.splitlines()
                if len(texts) > MOST:
                    return texts[:MOST], ""
    return texts, str(until)


# Streams --------------------------------------------------------------------------------------------------------------


def told(
    stream: Stream, subscription: Subscription, since: Cursor | None, form: Form, ends: ExitStack
) -> Iterator[bytes]:
    """What was missed, and what comes. What cannot be begun is a problem; what ends midway is resumed by its client."""
    now = since and present()
    if not now:
        join(subscription)
    opening = f'{{"type":"subscribed","cursor":"{since or subscription.place}"}}'.encode()
    blocks: Iterator[bytes] = iter(())
    if since and now and since != now:
        # First the long stretch, without joining: what is committed meanwhile shall not pile up in the queue.
        behind = ahead(missed(subscription, since, now, form), at_once=1)
        ends.callback(behind.close)
        blocks = chain([*islice(behind, 1)], behind)
    return chain(
        [RETRY * (form is event) + form(opening)],
        blocks,
        live(stream, subscription, now, form, copy_context(), g.token),
    )


def live(
    stream: Stream, subscription: Subscription, now: Cursor | None, form: Form, context: Context, token: str | None
) -> Iterator[bytes]:
    """What came since the feed was at `now`, if it was not joined yet, and what comes, until somebody ends it."""
    if now:
        if not subscribers.feed.join(subscription):
            return
        if now != subscription.place:
            yield from context.run(ahead, missed(subscription, now, subscription.place, form), 1)
    while stream.connected and not subscription.ended:
        if not stream.sock.wait(stream.event, HEARTBEAT):
            yield QUIET[form]
            continue
        stream.event.clear()
        frames, subscription.frames = subscription.frames, ()
        if frames and not context.run(is_still_good, token):
            return
        if frames:
            SENT.inc(len(frames))
            yield joined(form, frames)


def join(subscription: Subscription) -> None:
    subscribers.feed.join(subscription) or abort(503, subscription.ended or "The feed is away.")
