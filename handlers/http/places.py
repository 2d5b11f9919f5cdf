"""Places: how much long work goes on in a process at once, from before its file comes."""

from flask import abort, g

from handlers.http.metrics import Gauge
from handlers.http.problems import ProblemException

LIMIT, OF_ONE = 4, 3
"""Operations that a process carries out at once, and those of one token: there is a place for others."""

TAKEN = Gauge(
    "rowhouse_operations", f"Places for long work that are taken, of {LIMIT} a process.", multiprocess_mode="livesum"
)


class Place:
    """One of the places for long work that a process has; whoever is done with it leaves it."""

    taken: "set[Place]" = set()

    def __init__(self) -> None:
        self.token = g.get("token")
        if len(self.taken) >= LIMIT:
            abort(503, f"{LIMIT} operations are going on.")
        if self.token and sum(place.token == self.token for place in self.taken) >= OF_ONE:
            raise ProblemException("too-many-at-once", f"{OF_ONE} operations of yours are going on.")
        self.taken.add(self)
        TAKEN.set(len(self.taken))

    def leave(self) -> None:
        self.taken.discard(self)
        TAKEN.set(len(self.taken))


def leave_place(_: BaseException | None) -> None:
    """After a request: its place is free again, unless an operation has it."""
    if place := g.pop("place", None):
        place.leave()
