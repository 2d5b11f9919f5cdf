"""The file of a request: the part named `file`, or the body itself."""

import tempfile
from typing import IO, BinaryIO

from flask import abort, current_app, g, request

from db.cooperate import next_turn
from handlers.http.auth import current_view
from handlers.http.contract import GZIP, MULTIPART
from handlers.http.problems import ProblemException
from handlers.http.request_body import arriving, check_encoding
from handlers.http.respond_async import prefers_async

BLOCK = 2**18
"""Bytes of an upload that are taken at once."""

PLAIN, PACKED = ("identity",), ("gzip", "x-gzip", "identity")
"""Encodings of a body: what takes gzip unpacks it whatever it is said to be."""

PARTS_TOLD = 10
"""Parts of a form that are named where there is more than the file."""

SPOOL = 2**20
"""Bytes of an upload kept in memory before it goes to a temporary file."""


def sent_file() -> BinaryIO:
    """The file that was sent, at its beginning; on disk if large, so that no connection waits for a slow sender.

    408 for one too slow, 413 for one too large, 415 for another content type, 422 where the part is missing.
    """
    if "file" not in g:
        with arriving(current_app.config["UPLOAD_TIMEOUT"]):
            g.file = received_file()
    g.file.seek(0)
    file: BinaryIO = g.file
    return file


def received_file() -> BinaryIO:
    request.max_content_length = current_app.config["UPLOAD_LIMIT"]
    accepted = current_view().contract.files
    check_encoding(*(PACKED if GZIP in accepted and request.mimetype != MULTIPART else PLAIN))
    if request.mimetype == MULTIPART:
        parts = [name for sent in (request.files, request.form) for name, _ in sent.items(multi=True)]
        if parts != ["file"] or "file" not in request.files:
            told = ", ".join((name or "a part without a name")[:50] for name in parts[:PARTS_TOLD])
            raise ProblemException(
                "unreadable-file",
                f"Expected one part, a file named file; found: {told or 'none'}. Options go into the query.",
            )
        part = request.files["file"].stream
        return spooled(part) if prefers_async() else part  # type: ignore[return-value]  # it is closed with the request
    if request.mimetype not in accepted:
        abort(415, f"The body must be {', '.join(accepted)}, or {MULTIPART} with a part named file.")
    return spooled(request.stream)


def spooled(stream: IO[bytes]) -> BinaryIO:
    spool = tempfile.SpooledTemporaryFile(SPOOL)  # noqa: SIM115  # closed by whoever holds it last
    while block := stream.read(BLOCK):
        spool.write(block)
        next_turn()
    return spool  # type: ignore[return-value]
