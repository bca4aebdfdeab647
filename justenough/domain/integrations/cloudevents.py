"""CloudEvents 1.0: parses incoming events (HTTP, binary and structured mode) and builds outgoing ones. No I/O.

Rules: the specification's context attributes and its HTTP protocol binding. One event per request; batches are rejected.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any
from urllib.parse import unquote

from justenough.domain.core.base_model import Message
from justenough.domain.core.errors import InvalidInput, Problem, raise_problems
from justenough.domain.core.rfc3339 import to_rfc3339
from justenough.domain.core.untrusted_yaml import check_json
from justenough.domain.readmodel.views import EntryView

EVENT = "event"
STRUCTURED_TYPE = "application/cloudevents+json"
PARENT_ATTRIBUTE = "jeparent"
"""The extension attribute that names the job that sent the event."""
MAX_ATTRIBUTE_CHARS = 400
"""Maximum characters of an attribute; ids and sources are written to the ledger."""

_NAME = re.compile(r"[a-z0-9]{1,64}")
_REQUIRED = ("specversion", "id", "source", "type")
_CONTEXT_ATTRIBUTES = frozenset({*_REQUIRED, "subject", "time", "datacontenttype", "dataschema"})
_DATA = ("data", "data_base64")
_JSON = re.compile(r"[a-z0-9.+-]+/(?:[a-z0-9.-]+\+)?json")


class CloudEvent(Message):
    """One event. `data` is its JSON value; None if it has no data, or if its media type is not JSON."""

    id: str
    source: str
    type: str
    subject: str | None = None
    time: str | None = None
    extensions: Mapping[str, str] = {}
    data: Any = None
    structured: bool
    """Whether its attributes are part of the body, so that a signature of the body covers them too."""

    @property
    def parent(self) -> str | None:
        """Id of the job that sent it, according to the event; None if it names none."""
        return self.extensions.get(PARENT_ATTRIBUTE)


def read_event(headers: Mapping[str, str], body: bytes) -> CloudEvent:
    """Parse the event of a request; `headers` by lower-case name. Raises InvalidInput with every problem at once."""
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == STRUCTURED_TYPE:
        raw = _parse_json(body)
        if not isinstance(raw, dict):
            raise InvalidInput(EVENT, (Problem("", "must be a JSON object"),))
        if all(name in raw for name in _DATA):
            raise InvalidInput(EVENT, (Problem("data_base64", "`data` and `data_base64` are mutually exclusive"),))
        # A null attribute counts as missing.
        attributes = {name: value for name, value in raw.items() if name not in _DATA and value is not None}
        return _build_event(attributes, raw.get("data"), structured=True)
    if media_type.startswith("application/cloudevents"):
        message = f"{media_type} is not accepted; send one event as {STRUCTURED_TYPE}, or in binary mode"
        raise InvalidInput(EVENT, (Problem("", message),))
    attributes = {name.removeprefix("ce-"): unquote(value, errors="replace") for name, value in headers.items() if name.startswith("ce-")}
    if not attributes:
        message = f"is not a CloudEvent; send it as {STRUCTURED_TYPE}, or with headers ce-id, ce-source, …"
        raise InvalidInput(EVENT, (Problem("", message),))
    data = _parse_json(body) if body and (_JSON.fullmatch(media_type) or not media_type) else None
    return _build_event(attributes, data, structured=False)


def event_source_of(installation: str) -> str:
    """Return the `source` of an installation's events."""
    return f"/justenough/{installation}"


def event_type_of(kind: str) -> str:
    """Return the CloudEvents type of a ledger event's type: `job.ended` → `dev.justenough.job.ended.v1`."""
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


def _build_event(attributes: Mapping[str, Any], data: Any, *, structured: bool) -> CloudEvent:
    problems = [Problem(name, "required") for name in _REQUIRED if name not in attributes]
    problems += [Problem("specversion", "must be 1.0")] if attributes.get("specversion", "1.0") != "1.0" else []
    problems += [Problem(name[:64], why) for name, value in attributes.items() if (why := _why_attribute_invalid(name, value))]
    raise_problems(EVENT, problems)
    fields = {name: attributes.get(name) for name in ("id", "source", "type", "subject", "time")}
    extensions = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in attributes.items()
        if name not in _CONTEXT_ATTRIBUTES
    }
    return CloudEvent.model_validate({**fields, "extensions": extensions, "data": data, "structured": structured})


def _why_attribute_invalid(name: str, value: Any) -> str | None:
    if not _NAME.fullmatch(name):
        return "the name of an attribute may contain only lower-case letters and digits"
    if not isinstance(value, str if name in _CONTEXT_ATTRIBUTES else str | bool | int):
        return "must be text"
    if isinstance(value, str) and (not value.strip() or len(value) > MAX_ATTRIBUTE_CHARS or not value.isprintable()):
        return f"must be printable text of 1 to {MAX_ATTRIBUTE_CHARS} characters"
    if name == "time":
        with suppress(ValueError):
            return None if datetime.fromisoformat(value).tzinfo else "must be a time with a zone, like 2026-01-31T09:30:00Z"
        return "must be a time like 2026-01-31T09:30:00Z"
    return None


def _parse_json(body: bytes) -> Any:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(EVENT, (Problem("", "the body is not valid JSON"),)) from error
    check_json(EVENT, value)
    return value
