"""Streams: read from the database at its pace, sent at their clients', so that no connection waits for a client.

A thread reads ahead. What was read and not yet sent lies in a spool: in memory at first, then in temporary files.
"""

import tempfile
import threading
from collections import deque
from collections.abc import Generator
from contextlib import closing
from contextvars import copy_context

from db.cooperate import next_turn
from handlers.http.shares import Share, caller, readers

Blocks = Generator[bytes, None, None]

MEMORY, PART = 2**18, 2**24
"""Bytes of a spool in memory before it goes to disk, and of a file before there is another: what was sent is freed."""


class Part:
    """A temporary file of blocks: written at its end, read from its beginning."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile()  # noqa: SIM115  # closed once it was sent
        self.sizes: deque[int] = deque()
        self.written = self.read = 0

    def put(self, block: bytes) -> None:
        self.file.seek(self.written)
        self.file.write(block)
        self.written += len(block)
        self.sizes.append(len(block))

    def take(self) -> bytes:
        self.file.seek(self.read)
        block = self.file.read(self.sizes.popleft())
        self.read += len(block)
        return block


class Spool:
    """Blocks that were read and not sent yet. They come out as they went in."""

    def __init__(self, caller: str) -> None:
        self.share = Share(caller)
        self.blocks: deque[bytes] = deque()
        self.parts: deque[Part] = deque()
        self.lock, self.ready = threading.Lock(), threading.Event()
        self.over = self.left = False
        self.error: BaseException | None = None

    def fill(self, blocks: Blocks, at_once: int) -> None:
        """Read blocks for as long as somebody wants them; what fails is for whoever takes them."""
        try:
            with readers.taken(self.share.caller, at_once), closing(blocks):
                for block in blocks:
                    if not self.put(block):
                        return
                    next_turn()
        except BaseException as error:  # raised again in `taken`
            self.error = error
        finally:
            self.over = True
            self.ready.set()

    def put(self, block: bytes) -> bool:
        """Add a block. False where nobody waits for it any more."""
        with self.lock:
            if self.left:
                return False
            if not self.parts and self.share.size < MEMORY:
                self.blocks.append(block)
            else:
                self.put_on_disk(block)
            self.share.grow(len(block))
        self.ready.set()
        return True

    def put_on_disk(self, block: bytes) -> None:
        if not self.parts or self.parts[-1].written > PART:
            self.parts.append(Part())
        self.parts[-1].put(block)

    def take(self) -> bytes | None:
        """The next block, if it is here."""
        with self.lock:
            if self.blocks:
                block = self.blocks.popleft()
            elif self.parts:
                block = self.take_from_disk()
            else:
                return None
            self.share.grow(-len(block))
        return block

    def take_from_disk(self) -> bytes:
        block = self.parts[0].take()
        if not self.parts[0].sizes:
            self.parts.popleft().file.close()
        return block

    def taken(self) -> Blocks:
        """The blocks, as they come. Raises what broke the reading off, behind those that were read."""
        try:
            over = False
            while not over:
                self.ready.wait()
                self.ready.clear()
                over = self.over  # before the last are taken
                while block := self.take():
                    yield block
            if self.error:
                raise self.error
        finally:
            self.close()

    def close(self) -> None:
        with self.lock:
            self.left = True
            for part in self.parts:
                part.file.close()
            self.share.release()


def ahead(blocks: Blocks, at_once: int = 0) -> Blocks:
    """The same blocks, none of them empty, read ahead by a thread; at most `at_once` of one caller at a time.

    503 where no place is free, 503 or 429 where too much waits; what fails comes out in its place.
    """
    spool = Spool(caller())
    threading.Thread(target=copy_context().run, args=(spool.fill, blocks, at_once), daemon=True).start()
    return spool.taken()
