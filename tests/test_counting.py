"""What a body holds is counted before anybody looks in: no shape of it keeps a process busy, or is told at length."""

import json
import time

import pytest
from flask import g
from marshmallow import ValidationError, fields

from handlers.http.auth import Anonymous
from handlers.http.fields import Many, Text
from handlers.http.problems import FAULTS_LIMIT, NAME_LIMIT, of
from handlers.http.request_body import BRACKET_LIMIT, COMMA_LIMIT, MEMBER_LIMIT, json_body
from tests.test_refusals import APP, BODIES, CONTRACTS, JSON

SIZE = 2**20 - 100
"""Bytes of the largest body there may be."""

MOST = COMMA_LIMIT
"""Elements of the longest list that is read."""

BUSY = 0.25
"""Seconds of CPU, generous: a list of the largest size took 4.5. On a machine of one's own none takes 0.05."""


def values():
    """The largest values of each hostile shape, within what is counted and beyond."""
    for count in (MOST, SIZE):
        yield "numbers", "[" + ",".join("1" * min(count + 1, SIZE // 2)) + "]"
        yield "texts", "[" + ",".join(['""'] * min(count, SIZE // 3)) + "]"
        yield "lists", "[" + ",".join(["[]"] * min(count, SIZE // 3)) + "]"
        yield "objects", "[" + ",".join(['{"a":0}'] * min(count // 2, SIZE // 8)) + "]"
    yield "members", "{" + ",".join(f'"a{n}":0' for n in range(MOST)) + "}"
    yield "text", '"' + "a" * SIZE + '"'
    yield "blanks", '"' + " " * SIZE + '"'
    yield "escapes", '"' + "\\u00e9" * (SIZE // 6) + '"'
    yield "surrogates", '"' + "\\ud800" * (SIZE // 6) + '"'
    yield "ats", '"' + "a@" * (SIZE // 2) + '"'
    yield "number", "9" * SIZE
    yield "fraction", "0." + "9" * SIZE
    yield "deep", "[" * 900 + "]" * 900
    yield "deeper", "[" * (SIZE // 2) + "]" * (SIZE // 2)


def bodies(members):
    """The values as the body, as each member of it, as one that nobody knows; and members without end."""
    for shape, value in values():
        yield shape, value
        for name in (*members, "nonsense"):
            yield f"{name}: {shape}", f'{{"version":1,{json.dumps(name)}:{value}}}'
    yield "unknown members", "{" + ",".join(f'"a{n}":0' for n in range(MOST)) + "}"
    yield "unknown members beyond", "{" + ",".join(f'"a{n}":0' for n in range(SIZE // 11)) + "}"
    yield "the same member", "{" + ",".join(['"a":0'] * MOST) + "}"
    yield "a long name", f'{{"{"a" * SIZE}":0}}'
    yield "long names", "{" + ",".join(f'"{"a" * 1000}{n}":0' for n in range(1000)) + "}"


def loaded(schema, body):
    """What a schema says to a body, as a client is answered: the answer, and the CPU it took."""
    with APP.test_request_context("/", method="POST", data=body.encode(), headers=JSON):
        g.caller = Anonymous()
        start = time.process_time()
        try:
            schema.load(json_body())
            answer = None
        except Exception as error:
            answer = of(error)
        return answer, time.process_time() - start


@pytest.mark.parametrize("method, path", BODIES)
def test_the_usual_shapes_of_a_body_keep_no_process_busy(method, path):
    schema = CONTRACTS[method, path].body
    lists = [name for name, field in schema.load_fields.items() if isinstance(field, Many)]
    for name in {next(iter(schema.load_fields)), *lists}:
        for value in (f"[{'1,' * MOST}1]", f"[{'1,' * (SIZE // 2)}1]", '"' + " " * SIZE + '"'):
            check_shape(schema, f"{name}: {value[:9]}", f"{{{json.dumps(name)}:{value}}}")
    check_shape(schema, "unknown members", "{" + ",".join(f'"a{n}":0' for n in range(MOST)) + "}")


@pytest.mark.thorough
@pytest.mark.parametrize("method, path", BODIES)
def test_no_shape_of_any_member_keeps_a_process_busy(method, path):
    schema = CONTRACTS[method, path].body
    for shape, body in bodies(schema.load_fields):
        check_shape(schema, shape, body)


def check_shape(schema, shape, body):
    answer, took = loaded(schema, body)
    if took > BUSY:  # once more: another process may have had the caches
        answer, took = loaded(schema, body)
    assert took <= BUSY, shape
    if answer:
        assert answer.status_code in (400, 422), (shape, answer.get_data()[:200])
        assert len(answer.get_data()) < 2 * FAULTS_LIMIT * NAME_LIMIT, shape
        told = answer.get_json()
        messages = sum(map(len, told.get("errors", {}).values()))
        assert messages <= FAULTS_LIMIT
        assert messages + told.get("more", 0) <= MEMBER_LIMIT + 10, f"{shape}: looked into before it was counted"


def test_every_list_of_a_body_is_counted():
    for route in BODIES:
        for name, field in CONTRACTS[route].body.load_fields.items():
            assert not isinstance(field, fields.List) or isinstance(field, Many), (route, name)


def texts(field):
    """The texts in a field, at any depth."""
    if isinstance(field, Text):
        yield field
    elif isinstance(field, fields.List):
        yield from texts(field.inner)
    elif isinstance(field, fields.Nested):
        for inner in field.schema.load_fields.values():
            yield from texts(inner)


def test_every_text_of_a_body_is_counted_before_anybody_looks_into_it():
    found = {each for route in BODIES for field in CONTRACTS[route].body.load_fields.values() for each in texts(field)}
    assert len(found) > 20
    for field in found:
        with pytest.raises(ValidationError, match="Longer than"):
            field.deserialize("\0" * (field.length.max + 1))


def test_how_many_faults_are_not_told_is_told(service):
    body = {f"a{n}": 0 for n in range(FAULTS_LIMIT + 50)}
    told = service.post("/users/search", json=body).json()
    assert len(told["errors"]) == FAULTS_LIMIT
    assert told["more"] == 50
    assert "more" not in service.post("/users/search", json={"a": 0}).json()


def test_no_message_comes_twice():
    with APP.test_request_context():
        answer = of(ValidationError({"a": ["Wrong.", "Wrong.", "Bad."]})).get_json()
    assert answer["errors"] == {"a": ["Wrong.", "Bad."]}


def test_a_batch_tells_few_of_the_names_it_does_not_know(service):
    row = {f"a{n}{'x' * 1000}": 0 for n in range(900)}
    answer = service.post("/batch", json={"departments": [row]})
    assert answer.status_code == 200, answer.text
    assert len(answer.content) < 10_000


def test_as_many_commas_as_there_may_be_are_read(service):
    text = "," * COMMA_LIMIT
    assert service.post("/users/search", json={"name": text}).json()["errors"]
    assert service.post("/users/search", json={"name": f"{text},"}).json()["detail"].endswith("commas.")


NESTED = ("[]", "{}", '{"a":[1]}', "[" * 30 + "]" * 30, '{"a":' * 200 + "1" + "}" * 200)


@pytest.mark.parametrize("unit", NESTED, ids=["lists", "objects", "both", "deep lists", "deep objects"])
def test_as_many_brackets_as_there_may_be_are_read(service, unit):
    opening = unit.count("[") + unit.count("{")
    most = (BRACKET_LIMIT - 2) // opening
    detail = f"The body is nested too deeply: more than {BRACKET_LIMIT} brackets open."
    for number, status in ((most, 422), (most + 1, 400)):
        answer = service.post("/audios", json=json.loads(f'{{"ticks": [{",".join([unit] * number)}]}}'))
        assert answer.status_code == status
        assert (answer.json()["detail"] == detail) == (status == 400), answer.text[:200]
