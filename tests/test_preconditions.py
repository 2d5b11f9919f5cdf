"""If-Match and If-None-Match on every object by every method, as RFC 9110 has them; and what was read, sent back."""

from itertools import product

import pytest

from tests.conftest import first, serve
from tests.resources import ABOVE, NEW, created
from tests.test_refusals import CONTRACTS

RULES = sorted(rule for method, rule in CONTRACTS if method == "PUT")
"""The paths of single objects, as /users/<id:id>."""

TAGS = ("*", '"{now}"', 'W/"{now}"', '"99"', '"99", "{now}"', 'W/"99" ,\t"{now}",', '"99,{now}"', '""', "{now}")
BROKEN = ('"{now}', "now", '*, "{now}"', '"99" "{now}"', 'w/"{now}"', "", ",")


def named(tags: str) -> list[str]:
    """The entity tags of a header that is whole, "*" among them."""
    return [tag.strip() for tag in tags.replace('"99,', '"99-').split(",") if tag.strip()]


def wanted(method: str, now: int, match: str | None, none_match: str | None) -> int:
    """What RFC 9110, 13.2.2 makes of a request for an object whose version is `now`."""
    if match is not None and not {"*", f'"{now}"', f"{now}"} & {*named(match)}:
        return 412
    if none_match is not None and {"*", f'"{now}"', f'W/"{now}"', f"{now}"} & {*named(none_match)}:
        return 304 if method in ("GET", "HEAD") else 412
    return 204 if method == "DELETE" else 200


class Objects:
    """One object of each noun, made again where it was deleted."""

    def __init__(self, service):
        self.service = service
        self.numbers = iter(range(20_000, 90_000))
        self.made = {}
        for table in ("departments", "jobs"):
            created(service, f"/{table}", NEW[f"/{table}"](1))

    def one(self, noun):
        """Its path, and the object as it is read now."""
        if noun in self.made:
            answer = self.service.get(self.made[noun])
            if answer.status_code == 200:
                return self.made[noun], answer.json()
        rule = f"/{ABOVE[noun]}/<id:id>/{noun}" if noun in ABOVE else f"/{noun}"
        path = f"{self.one(ABOVE[noun])[0]}/{noun}" if noun in ABOVE else rule
        self.made[noun] = f"/{noun}/{created(self.service, path, NEW[rule](next(self.numbers)))['id']}"
        return self.one(noun)


@pytest.fixture(scope="module")
def objects(module_database):
    with serve(module_database) as service:
        yield Objects(service)


def send(objects, method, noun, headers):
    """The answer, and the version that was current before."""
    path, found = objects.one(noun)
    now = found["version"]
    headers = {name: tags.format(now=now) for name, tags in headers.items() if tags is not None}
    options = {"headers": headers}
    if method == "DELETE" and "If-Match" not in headers:
        options["params"] = {"version": now}
    if method in ("PUT", "PATCH"):
        options["json"] = found if method == "PUT" else {"version": now}
    if method == "PATCH" and "If-Match" in headers:
        options["json"] = {}
    answer = objects.service.request(method, path, **options)
    return answer, now, headers


@pytest.mark.parametrize("rule", first(1, RULES))
def test_each_method_heeds_both(objects, rule):
    noun, asked = rule.split("/")[1], 0
    for method, match, none_match in product(("GET", "HEAD", "PUT", "PATCH", "DELETE"), (None, *TAGS), (None, *TAGS)):
        answer, now, sent = send(objects, method, noun, {"If-Match": match, "If-None-Match": none_match})
        right = wanted(method, now, sent.get("If-Match"), sent.get("If-None-Match"))
        assert answer.status_code == right, (method, sent, now, answer.text)
        if right == 412 and method in ("PUT", "PATCH", "DELETE"):
            assert answer.json()["current"]["version"] == now
        asked += 1
    assert asked == 500


@pytest.mark.parametrize("rule", first(3, RULES))
def test_what_is_no_entity_tag_is_refused(objects, rule):
    noun = rule.split("/")[1]
    for method, name, tags in product(("GET", "HEAD", "PUT", "PATCH", "DELETE"), ("If-Match", "If-None-Match"), BROKEN):
        answer, _, sent = send(objects, method, noun, {name: tags})
        assert answer.status_code == 400, (method, sent, answer.text)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_what_was_read_may_be_sent_back(objects, rule, method):
    """It changes nothing; what only the service sets is refused where it is said otherwise."""
    path, found = objects.one(rule.split("/")[1])
    service, settled = objects.service, settled_members(method, rule)
    assert {"created_at", "updated_at"} <= settled
    answer = service.request(method, path, json=found)
    assert (answer.status_code, answer.json()) == (200, found), answer.text
    spelled = found | {name: found[name].replace("Z", "+00:00") for name in ("created_at", "updated_at")}
    spelled |= {name: found[name].upper() for name in settled & {"event_id"}}
    assert service.request(method, path, json=spelled).json() == found
    for name in settled:
        for other in others(found[name]):
            answer = service.request(method, path, json=found | {name: other})
            assert answer.status_code == 422, (name, other, answer.text)
            assert [*answer.json()["errors"]] == [name]
    assert service.get(path).json() == found


def settled_members(method, rule):
    """The members that only the service sets, but the version: that is what a change starts from."""
    fields = CONTRACTS[method, rule].body.fields
    return {name for name, field in fields.items() if field.dump_only} - {"version"}


def others(value):
    """What a value is not."""
    yield from (None, True, [], {}, "other", 10**30) if value is not None else (True, [], {}, "other")
    if isinstance(value, str):
        yield value.replace("2", "3", 1) if "2" in value else value + "2"
    if isinstance(value, int):
        yield from (value + 1, str(value))


def test_true_is_not_1(objects):
    found = objects.service.get("/departments/1").json()
    for method in ("PUT", "PATCH"):
        answer = objects.service.request(method, "/departments/1", json=found | {"id": True})
        assert (answer.status_code, [*answer.json()["errors"]]) == (422, ["id"])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_it_is_compared_with_what_was_read_and_not_with_what_is(objects, rule, method):
    """Somebody else saved meanwhile: a PUT conflicts and a PATCH of the same merges, whatever the service set since."""
    noun = rule.split("/")[1]
    path, found = objects.one(noun)
    name = next(
        name for name in ("name", "subject", "text", "department", "job", "description", "step_count") if name in found
    )
    other = found[name] + 1 if name == "step_count" else f"{found[name]}."
    theirs = objects.service.patch(path, json={"version": found["version"], name: other}).json()
    sent = {key: value for key, value in found.items() if method == "PUT" or key != name}
    answer = objects.service.request(method, path, json=sent)
    assert (answer.status_code, answer.json().get("current", answer.json())) == (
        409 if method == "PUT" else 200,
        theirs,
    )
    wrong = objects.service.request(method, path, json=sent | {"created_at": "1999-01-01T00:00:00Z"})
    assert [*wrong.json()["errors"]] == ["created_at"]


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_person_of_whom_only_the_mail_is_known_is_sent_back_as_read(objects, method):
    """What it lacks, it may go on lacking; what it has, nobody takes away."""
    service, mail = objects.service, f"only{method}@example.com"
    assert service.post("/user", params={"email": mail}, json={"text": "T"}).status_code == 201
    found = service.get("/user", params={"email": mail}).json()
    assert found["name"] is None
    path = f"/users/{found['id']}"
    answer = service.request(method, path, json=found)
    assert (answer.status_code, answer.json()) == (200, found), answer.text
    named = service.patch(path, json={"version": found["version"], "name": "Ann"}).json()
    answer = service.request(method, path, json=named | {"name": None})
    assert (answer.status_code, [*answer.json()["errors"]]) == (422, ["name"])


def test_none_of_what_there_was_at_any_time_is_enough_for_the_short_form(objects):
    service, mail = objects.service, "short@example.com"
    assert service.post("/user", params={"email": mail}, json={"text": "T"}).status_code == 201
    gone = {"params": {"email": mail}}
    assert service.delete("/user", **gone, headers={"If-None-Match": "*"}).status_code == 412
    assert service.delete("/user", **gone, headers={"If-None-Match": '"1"'}).status_code == 412
    assert service.delete("/user", **gone, headers={"If-None-Match": '"2"'}).status_code == 204
