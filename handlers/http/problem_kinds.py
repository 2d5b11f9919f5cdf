"""The kinds of problems: what the type of each means, and what a client does about it. The only table of them."""

from typing import Any, NamedTuple

PREFIX = "/problems/"


class Kind(NamedTuple):
    status: int
    title: str
    explanation: str


KINDS = {
    "malformed": Kind(400, "Bad request",
        "The request breaks a rule of HTTP, or a header of it one of ours. The detail says which: send it otherwise."),
    "wrong-parameters": Kind(400, "Wrong parameters",
        "A parameter of the query is unknown, missing or given twice. Send those that the documentation names, each"
        " once."),
    "not-json": Kind(400, "Not JSON",
        "The body is not JSON in UTF-8, is nested too deeply, or names a member of an object twice. The detail says"
        " where it ceases to be, or which member: mend it there."),
    "cut-body": Kind(400, "Broken body",
        "The body ended early, or its chunks cannot be told apart. Nothing was done: send it again, whole."),
    "client-left": Kind(400, "Client left",
        "The client closed its side of the connection while it waited for long work, which was broken off, and nothing"
        " was done. Close it after the answer, or ask with Prefer: respond-async."),
    "unauthenticated": Kind(401, "No good token",
        "A token is needed, or the one that was sent is not good, or no longer. Send a good one in Authorization:"
        " Bearer …"),
    "forbidden": Kind(403, "Forbidden",
        "Whoever asks has not the role that this needs. Ask with a token of that role."),
    "project-token": Kind(403, "Token of one project",
        "The token reaches one project only, and this is outside of it. Ask within the project, or with another"
        " token."),
    "foreign-origin": Kind(403, "Foreign origin",
        "A page of another origin asks for what its browser must not do. Whoever runs the service may list the origin"
        " in CORS_ORIGINS."),
    "forwarded": Kind(403, "Forwarded without tokens",
        "A proxy forwarded the request, and the service has no tokens by which to tell who asks. Whoever runs it"
        " makes one first."),
    "not-found": Kind(404, "Not found",
        "There is nothing under this path, or not for this caller. Look for it in the collection: it may have been"
        " deleted."),
    "no-parent": Kind(404, "No parent",
        "What the new object would belong to is not there. The field in errors names it: choose another, or make it"
        " first."),
    "wrong-method": Kind(405, "Wrong method",
        "The path is there, but does not take this method. The header Allow names those that it takes."),
    "not-acceptable": Kind(406, "Not acceptable",
        "The answer is in none of the media types that Accept names. The detail says which there are."),
    "slow-body": Kind(408, "Body too slow",
        "The body did not come in time, and nothing was done. Send it again, without a pause."),
    "conflict": Kind(409, "Conflict",
        "Somebody else changed the same members since the version that was named. Decide by conflicts and current,"
        " and send the change over the current version."),
    "changed-since": Kind(409, "Changed since",
        "What would be undone was changed by others since, or refers to what is gone. The conflicts say what, object by"
        " object: undo the rest with conflicts: keep theirs, or bring back first what is gone."),
    "taken": Kind(409, "Taken",
        "Another object has a value that only one may have. The field in errors names it: choose another value."),
    "in-use": Kind(409, "In use",
        "Other objects refer to this one, so that it cannot go. Delete or change them first."),
    "wrong-state": Kind(409, "Wrong state",
        "The object is not in a state in which this can be done. Read it again: the detail says which state is"
        " needed."),
    "key-in-progress": Kind(409, "Still running",
        "The first request with this Idempotency-Key has not ended. Wait and send the same again: it gets the first"
        " one's answer."),
    "stale-version": Kind(412, "Stale version",
        "The version in If-Match is no longer the current one. Read the object again, and decide anew."),
    "too-large": Kind(413, "Too large",
        "The body or the file is larger than its limit. Send less, or in several parts."),
    "long-target": Kind(414, "URL too long",
        "The line with the path and the query is longer than its limit. Ask with fewer parameters, or by POST where"
        " there is a search."),
    "unsupported-type": Kind(415, "Unsupported type",
        "The body is of a media type or an encoding that is not taken here. The detail says which are: send one of"
        " them, with its Content-Type."),
    "wrong-range": Kind(416, "Wrong range",
        "Range asks for bytes that the file does not have. Ask for others, or for the whole."),
    "expectation-failed": Kind(417, "Expectation failed",
        "The header Expect asks for something other than 100-continue. Send the request without it."),
    "misdirected": Kind(421, "Misdirected",
        "The service does not answer to the name in Host. Whoever runs it may list the name in ALLOWED_HOSTS."),
    "invalid": Kind(422, "Invalid values",
        "Some values are not valid. Read in errors what each field must be: mend these and send it again."),
    "broken-rule": Kind(422, "Broken rule",
        "The values are well-formed but break a rule of the data. The field in errors says which: mend it and send it"
        " again."),
    "no-reference": Kind(422, "No such reference",
        "A field refers to an object that is not there. The field in errors says which: refer to another, or to none."),
    "out-of-range": Kind(422, "Out of range",
        "A value is outside of what the database can hold. Send a smaller or a simpler one."),
    "too-full": Kind(422, "Too many values",
        "The body has more values than any object could take. Send fewer at once."),
    "unreadable-file": Kind(422, "Unreadable file",
        "The file is not what it should be, or not in the one part of its form. The detail says where: mend the file"
        " and send it again."),
    "too-many-rejects": Kind(422, "Too many rejects",
        "More rows break a rule than may, and nothing was kept. Mend those in rejects, or ask for the mode partial."),
    "key-reused": Kind(422, "Key used before",
        "The Idempotency-Key was used for a request with another content. Make a new key for each new request."),
    "upgrade-required": Kind(426, "Upgrade required",
        "The WebSocket is of another version than the service speaks. Open it with the one in Sec-WebSocket-Version."),
    "precondition-required": Kind(428, "Precondition required",
        "A change must name the version that it starts from. Read the object, and send its ETag in If-Match or its"
        " version."),
    "rate-limited": Kind(429, "Too many requests",
        "Too many requests came with the token in this minute. The header RateLimit tells when there are more: wait so"
        " long."),
    "too-many-at-once": Kind(429, "Too many at once",
        "The caller holds as many sockets, streams or operations as it may. Close one, read one to its end, or wait for"
        " one, then ask again."),
    "large-headers": Kind(431, "Headers too large",
        "The headers are too many, or one is too long. Send fewer and shorter ones."),
    "internal": Kind(500, "Internal error",
        "Something went wrong here that is nobody's request. Tell whoever runs the service the request_id: the log"
        " has it all."),
    "operation-died": Kind(500, "Died",
        "The process that carried out an operation has died, and all of it was taken back. Ask for it again."),
    "not-implemented": Kind(501, "Not implemented",
        "The request is in a transfer coding that is not known here. Send its body in chunks, or with its length."),
    "busy": Kind(503, "Busy",
        "As much is going on as can be at once. Try again after Retry-After seconds; nothing was done."),
    "database-away": Kind(503, "Database away",
        "The database cannot be reached, or takes no changes just now. Try again after Retry-After seconds; nothing"
        " was done."),
    "overtaken": Kind(503, "Overtaken",
        "The change of somebody else came in between, or holds what this needs. Try again after Retry-After seconds;"
        " nothing was done."),
    "not-migrated": Kind(503, "Not up to date",
        "The schema of the database is older than the service. Whoever runs it migrates the database."),
    "issuer-away": Kind(503, "Issuer away",
        "The issuer of the tokens cannot be asked for its keys. Try again after Retry-After seconds."),
    "timeout": Kind(504, "Time limit",
        "The statement took longer than it may, and was taken back. Ask for less, or with Prefer: respond-async where"
        " that is offered."),
    "disk-full": Kind(507, "Disk full",
        "A disk of the service or its database takes no more, and nothing was kept. Whoever runs it makes room; then"
        " try again."),
}  # fmt: skip
"""By the last part of their path."""

GENERAL = {kind.status: name for name, kind in reversed(KINDS.items())}
"""The kind of a status where nothing finer is said: the first that has it."""


def members(told: int | str) -> dict[str, Any]:
    """What tells the kind of a problem, of a status or a finer kind; a status that nobody thought of is its class's."""
    name = told if isinstance(told, str) else GENERAL.get(told) or GENERAL[400 if told < 500 else 500]
    status = KINDS[name].status if isinstance(told, str) else told
    return {"type": f"{PREFIX}{name}", "title": KINDS[name].title, "status": status}
