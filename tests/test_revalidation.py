"""A page of a list has a weak ETag: 304 as long as it is as it was, and never once it is not."""

import random
import re

import pytest

from tests.conftest import first
from tests.test_places import CSV, JSON, NDJSON, address, busy, objects
from tests.test_refusals import needed
from tests.test_streaming import LISTS

__all__ = ["objects"]

WEAK = re.compile('W/"[0-9a-f]{32}"')


def asked(service, objects, path, order, media, method="GET", **headers):
    """A page of a list."""
    query = needed("GET", path) | ({"sort": order} if order else {}) | {"limit": 5}
    if path.startswith("/requirements"):
        query.pop("limit")
    path = address(path.replace("<uuid:id>", objects["events"]["event_id"]), objects)
    return service.request(method, path, params=query, headers={"Accept": media, **headers})


@pytest.mark.parametrize("media", first(1, [JSON, NDJSON, CSV]))
def test_a_page_that_is_as_it_was_is_not_sent_again(service, objects, media):
    for path, order in LISTS:
        first = asked(service, objects, path, order, media)
        assert first.status_code == 200, first.text
        if "ETag" not in first.headers:
            assert media != JSON and path.startswith("/requirements"), path  # streamed
            continue
        tag = first.headers["ETag"]
        assert WEAK.fullmatch(tag), path
        assert asked(service, objects, path, order, media, "HEAD").headers["ETag"] == tag
        for known in (tag, tag.removeprefix("W/"), f'"1", {tag}', "*"):
            for method in ("GET", "HEAD"):
                again = asked(service, objects, path, order, media, method, **{"If-None-Match": known})
                assert (again.status_code, again.content) == (304, b""), (path, known)
                assert again.headers["ETag"] == tag and "Feed-Cursor" in again.headers
                assert "Content-Type" not in again.headers
        other = asked(service, objects, path, order, media, **{"If-None-Match": 'W/"0", "1"'})
        assert (other.status_code, other.content) == (200, first.content)


def test_if_match_takes_no_weak_tag(service):
    tag = service.get("/users").headers["ETag"]
    for asks, status in (("*", 200), (tag, 412), (tag.removeprefix("W/"), 412), ('"1"', 412), ("none", 400)):
        assert service.get("/users", headers={"If-Match": asks}).status_code == status, asks
    for path in ("/users", "/requirements/media?year=2021"):
        for media in (JSON, NDJSON, CSV):
            for malformed in ("none", "", '"a" "b"'):
                for name in ("If-Match", "If-None-Match"):
                    refused = service.get(path, headers={"Accept": media, name: malformed})
                    assert refused.status_code == 400, (path, media, name, malformed)
            assert service.get(path, headers={"Accept": media, "If-Match": '"1"'}).status_code == 412


def test_a_search_by_post_has_none(service):
    found = service.post("/users/search", json={"name": "Ann"}, headers={"If-None-Match": "*"})
    assert found.status_code == 200 and "ETag" not in found.headers


def test_another_next_page_is_another_page(service, unique):
    """Also where the rows are the same, and only the Link to what follows is new."""
    project = service.post("/projects", json={"name": unique("p")}).json()["id"]
    path, seen = f"/projects/{project}/milestones", set()
    for _ in range(3):
        service.post(path, json={"name": "m"})
        for media in (JSON, NDJSON, CSV):
            seen.add((media, service.get(path, params={"limit": 1}, headers={"Accept": media}).headers["ETag"]))
    assert len(seen) == 6


def test_304_only_where_nothing_changed_however_many_write(database):
    """A client that asks by its tag holds what one without holds, once nobody writes."""
    chance, known = random.Random(3), {}
    with busy(database) as (service, project, stop):
        path = f"/projects/{project}/milestones"
        for _ in range(100):
            query = tuple(sorted({"limit": chance.choice([1, 10, 1000]), "sort": chance.choice(["id", "-id"])}.items()))
            ask(service, path, query, known)
        stop()
        for query in [*known]:
            ask(service, path, query, known)
            assert known[query][1] == service.get(path, params=query).content
            assert ask(service, path, query, known) == 304


def ask(service, path, query, known):
    """A page as a cache asks for it."""
    tag, _ = known.get(query, (None, None))
    answer = service.get(path, params=query, headers={"If-None-Match": tag} if tag else {})
    if answer.status_code == 200:
        known[query] = answer.headers["ETag"], answer.content
    return answer.status_code
