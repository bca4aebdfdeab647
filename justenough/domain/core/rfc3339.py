"""The time format of signed statements: RFC 3339, UTC, whole seconds. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

RFC3339_PATTERN = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


def to_rfc3339(moment: datetime) -> str:
    """Return a time as RFC 3339 UTC with whole seconds: `2026-01-31T09:30:00Z`."""
    return moment.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def parse_rfc3339(value: Any) -> datetime:
    """Parse RFC 3339 UTC text with whole seconds; raise ValueError for any other form."""
    if isinstance(value, str) and RFC3339_PATTERN.fullmatch(value):
        return datetime.fromisoformat(value)
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).replace(microsecond=0)
    raise ValueError("write a time like 2026-01-31T09:30:00Z (UTC, whole seconds)")


Moment = Annotated[datetime, BeforeValidator(parse_rfc3339), PlainSerializer(to_rfc3339, return_type=str)]
"""RFC 3339 UTC with whole seconds, as text."""
