"""The file of a request: the part named `file`, or the body itself."""

import shutil
import tempfile
from typing import BinaryIO

from flask import abort, g, request

from handlers.contract import CSV

UPLOAD_LIMIT = 2**30
"""Bytes of an uploaded file as sent."""

SPOOL = 2**20
"""Bytes of an upload kept in memory before it goes to a temporary file."""


def sent_file() -> BinaryIO:
    """The file that was sent, at its beginning; on disk if large, so that no connection waits for a slow sender.

    413 for one too large, 415 for another content type, 422 where the part is missing.
    """
    if "file" not in g:
        g.file = received_file()
    g.file.seek(0)
    file: BinaryIO = g.file
    return file


def received_file() -> BinaryIO:
    request.max_content_length = UPLOAD_LIMIT
    if request.mimetype == "multipart/form-data":
        if "file" not in request.files:
            abort(422, "There is no part named file.")
        return request.files["file"].stream  # type: ignore[return-value]
    if request.mimetype not in (CSV, "application/gzip"):
        abort(415, f"The body must be {CSV}, or multipart/form-data with a part named file.")
    spool = tempfile.SpooledTemporaryFile(SPOOL)  # noqa: SIM115  # closed with the request, by whoever holds it last
    shutil.copyfileobj(request.stream, spool)
    return spool  # type: ignore[return-value]
