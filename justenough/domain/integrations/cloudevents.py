"""CloudEvents 1.0: those that come in over HTTP, in binary and structured mode, read and checked; and ours, written. No I/O.

Rules: the specification's context attributes and its HTTP protocol binding. One event per request; batches are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import unquote

from justenough.domain.core.base_model import Message
from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.core.rfc3339 import to_rfc3339
from justenough.domain.core.untrusted_yaml import check_json
from justenough.domain.readmodel.views import EntryView

EVENT = "event"
STRUCTURED_TYPE = "application/cloudevents+json"
PARENT_ATTRIBUTE = "jeparent"
"""The extension attribute that names the job which the event comes from."""
MAX_ATTRIBUTE_CHARS = 400
"""Characters of an attribute: ids and sources go into the ledger."""

_NAME = re.compile(r"[a-z0-9]{1,64}")
_REQUIRED = ("specversion", "id", "source", "type")
_DATA = ("data", "data_base64")
_JSON = re.compile(r"[a-z0-9.+-]+/(?:[a-z0-9.-]+\+)?json")


class CloudEvent(Message):
    """One event. `data` is its JSON value, None where it has none or is of another media type."""

    id: str
    source: str
    type: str
    subject: str | None = None
    time: str | None = None
    extensions: Mapping[str, str] = {}
    data: Any = None
    structured: bool
    """Whether its attributes are part of the body, so that whoever signed the body signed them too."""

    @property
    def parent(self) -> str | None:
        """The job that it says it comes from."""
        return self.extensions.get(PARENT_ATTRIBUTE)


def read_event(headers: Mapping[str, str], body: bytes) -> CloudEvent:
    """Return the event of a request; `headers` by lower-case name. Raises InvalidInput with every problem at once."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == STRUCTURED_TYPE:
        return _read_structured(_parse_json(body))
    if kind.startswith("application/cloudevents"):
        raise InvalidInput(EVENT, (Problem("", f"{kind} is not accepted; send one event as {STRUCTURED_TYPE}, or in binary mode"),))
    attributes = {name.removeprefix("ce-"): unquote(value, errors="replace") for name, value in headers.items() if name.startswith("ce-")}
    if not attributes:
        raise InvalidInput(EVENT, (Problem("", f"is no CloudEvent: send it as {STRUCTURED_TYPE}, or with headers ce-id, ce-source, …"),))
    data = _parse_json(body) if body and (_JSON.fullmatch(kind) or not kind) else None
    return _build_event(attributes, data, structured=False)


def event_source_of(installation: str) -> str:
    """Return the `source` of an installation's events."""
    return f"/justenough/{installation}"


def event_type_of(kind: str) -> str:
    """Return the CloudEvents type of an event's name."""
    return f"dev.justenough.{kind}.v1"


def to_cloud_event(entry: EntryView, installation: str) -> dict[str, Any]:
    """Return a ledger entry as CloudEvents 1.0 JSON."""
    return {
        "specversion": "1.0",
        "id": entry.id,
        "source": event_source_of(installation),
        "type": event_type_of(entry.type),
        "subject": entry.job,
        "time": to_rfc3339(entry.at),
        "datacontenttype": "application/json",
        "data": entry.data,
    }


def _read_structured(raw: Any) -> CloudEvent:
    if not isinstance(raw, dict):
        raise InvalidInput(EVENT, (Problem("", "must be a JSON object"),))
    if all(name in raw for name in _DATA):
        raise InvalidInput(EVENT, (Problem("data_base64", "is there beside `data`; an event has one of them"),))
    # What is null is not there.
    attributes = {name: value for name, value in raw.items() if name not in _DATA and value is not None}
    return _build_event(attributes, raw.get("data"), structured=True)


def _build_event(attributes: Mapping[str, Any], data: Any, *, structured: bool) -> CloudEvent:
    problems = tuple(_attribute_problems(attributes))
    if problems:
        raise InvalidInput(EVENT, problems)
    known = {name: attributes.get(name) for name in ("id", "source", "type", "subject", "time")}
    fixed = {*known, "specversion", "datacontenttype", "dataschema"}
    extensions = {name: _to_text(value) for name, value in attributes.items() if name not in fixed}
    return CloudEvent.model_validate({**known, "extensions": extensions, "data": data, "structured": structured})


def _attribute_problems(attributes: Mapping[str, Any]) -> Iterator[Problem]:
    yield from (Problem(name, "required") for name in _REQUIRED if name not in attributes)
    if attributes.get("specversion", "1.0") != "1.0":
        yield Problem("specversion", "must be 1.0")
    for name, value in attributes.items():
        if not _NAME.fullmatch(name):
            yield Problem(name[:64], "an attribute's name is lower-case letters and digits")
        elif why := _why_no_value(name, value):
            yield Problem(name, why)


def _why_no_value(name: str, value: Any) -> str | None:
    extension = name not in {*_REQUIRED, "subject", "time", "datacontenttype", "dataschema"}
    if not isinstance(value, str | bool | int if extension else str):
        return "must be text"
    if isinstance(value, str) and (not value.strip() or len(value) > MAX_ATTRIBUTE_CHARS or not value.isprintable()):
        return f"must be printable text of 1 to {MAX_ATTRIBUTE_CHARS} characters"
    return "must be a time like 2026-01-31T09:30:00Z" if name == "time" and not _is_time(value) else None


def _is_time(value: Any) -> bool:
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def _to_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _parse_json(body: bytes) -> Any:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(EVENT, (Problem("", "the body is not readable as JSON"),)) from error
    check_json(EVENT, value)
    return value
