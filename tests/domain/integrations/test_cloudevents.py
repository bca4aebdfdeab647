"""CloudEvents 1.0 as they are read, by the rules of the specification: attributes, structured mode, binary mode."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from justenough.domain.core.errors import InvalidInput
from justenough.domain.integrations.cloudevents import MAX_ATTRIBUTE_CHARS, CloudEvent, read_event

WHOLE = {"specversion": "1.0", "id": "A234-1234", "source": "/helpdesk/1", "type": "com.example.ticket.created"}
STRUCTURED = {"content-type": "application/cloudevents+json; charset=utf-8"}


def read_structured(**changes: Any) -> CloudEvent:
    return read_event(STRUCTURED, json.dumps({**WHOLE, **changes}).encode())


def read_binary(body: bytes = b"", *, content: str = "application/json", **changes: str) -> CloudEvent:
    return read_event({"content-type": content, **{f"ce-{name}": value for name, value in {**WHOLE, **changes}.items()}}, body)


def problems(read: Any) -> list[tuple[str, str]]:
    with pytest.raises(InvalidInput) as told:
        read()
    return [(problem.path, problem.message) for problem in told.value.problems]


def test_a_structured_event_has_its_attributes_extensions_and_data() -> None:
    seen = read_structured(
        subject="s", time="2026-01-31T09:30:00.5+01:00", jeparent="j", comexample=3, flag=True, data={"id": 1}, dataschema=None
    )
    assert (seen.id, seen.source, seen.type, seen.subject) == ("A234-1234", "/helpdesk/1", "com.example.ticket.created", "s")
    assert (seen.extensions, seen.parent, seen.data, seen.structured) == (
        {"jeparent": "j", "comexample": "3", "flag": "true"},
        "j",
        {"id": 1},
        True,
    )


def test_a_binary_event_has_its_attributes_in_percent_encoded_headers() -> None:
    seen = read_binary(b'{"id": 1}', subject="Euro%20%E2%82%AC", comexample="x")
    assert (seen.subject, seen.extensions, seen.data, seen.structured) == ("Euro \u20ac", {"comexample": "x"}, {"id": 1}, False)


@pytest.mark.parametrize("content", ["application/json", "application/vnd.shop+json; v=1", "text/json", ""])
def test_data_of_a_json_type_is_read(content: str) -> None:
    assert read_binary(b"[1]", content=content).data == [1]


@pytest.mark.parametrize("content", ["text/plain", "application/xml", "application/jsonish"])
def test_data_of_a_type_other_than_json_is_not_read(content: str) -> None:
    assert read_binary(b"<a/>", content=content).data is None


@pytest.mark.parametrize(
    "changes, path, message",
    [
        ({"id": None}, "id", "required"),
        ({"source": None}, "source", "required"),
        ({"type": None}, "type", "required"),
        ({"specversion": None}, "specversion", "required"),
        ({"specversion": "0.3"}, "specversion", "must be 1.0"),
        ({"id": ""}, "id", "printable text"),
        ({"id": " "}, "id", "printable text"),
        ({"id": "a\nb"}, "id", "printable text"),
        ({"id": "x" * (MAX_ATTRIBUTE_CHARS + 1)}, "id", "printable text"),
        ({"id": 5}, "id", "must be text"),
        ({"source": {"a": 1}}, "source", "must be text"),
        ({"time": "yesterday"}, "time", "must be a time"),
        ({"time": "2026-01-31T09:30:00"}, "time", "must be a time"),
        ({"je_parent": "x"}, "je_parent", "lower-case"),
        ({"JeParent": "x"}, "JeParent", "lower-case"),
        ({"comexample": [1]}, "comexample", "must be text"),
        ({"data": 1, "data_base64": "AA=="}, "data_base64", "mutually exclusive"),
    ],
)
def test_each_violation_of_the_cloudevents_specification_is_named(changes: dict[str, Any], path: str, message: str) -> None:
    (found,) = problems(lambda: read_structured(**changes))
    assert (found[0], message in found[1]) == (path, True), found


def test_every_problem_is_reported_at_once() -> None:
    assert [path for path, _ in problems(lambda: read_structured(id=None, type=None, time="now"))] == ["id", "type", "time"]


@pytest.mark.parametrize(
    "headers, body, message",
    [
        ({"content-type": "application/cloudevents-batch+json"}, b"[]", "send one event"),
        ({"content-type": "application/cloudevents+xml"}, b"<a/>", "send one event"),
        ({"content-type": "application/json"}, b"{}", "is not a CloudEvent"),
        ({}, b"", "is not a CloudEvent"),
        (STRUCTURED, b"[]", "JSON object"),
        (STRUCTURED, b"", "not valid JSON"),
        (STRUCTURED, b"\xff", "not valid JSON"),
        (STRUCTURED, b"[" * 100_000, "not valid JSON"),
        (STRUCTURED, b'{"id": NaN}', "must be a finite number"),
    ],
)
def test_the_error_for_a_request_that_is_not_an_event_says_how_to_send_one(headers: dict[str, str], body: bytes, message: str) -> None:
    assert message in problems(lambda: read_event(headers, body))[0][1]


@given(
    st.dictionaries(st.sampled_from(["content-type", "ce-id", "ce-specversion", "ce-x"]), st.text()),
    st.binary() | st.text().map(str.encode),
)
def test_any_input_is_read_as_an_event_or_rejected_as_invalid(headers: dict[str, str], body: bytes) -> None:
    with contextlib.suppress(InvalidInput):
        read_event(headers, body)
    with contextlib.suppress(InvalidInput):
        read_event(STRUCTURED, body)
