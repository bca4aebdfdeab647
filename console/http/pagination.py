"""Query parameters that lists share: limits, cursors, positions, times."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import Query
from pydantic import AwareDatetime, BeforeValidator

RFC3339_START = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]")


POSITION_PATTERN = "^[0-9]{1,16}$"
"""The form of a ledger position. For OpenAPI only: `parse_position` reports a wrong one in words."""


Limit = Annotated[int, Query(ge=1, le=1000, description="How many at most")]


Cursor = Annotated[str | None, Query(max_length=200, description="`next` of the previous page")]


PositionCursor = Annotated[
    str | None, Query(max_length=200, description="`next` of the previous page", json_schema_extra={"pattern": POSITION_PATTERN})
]
"""The cursor of a list in ledger order."""


After = Annotated[int, Query(ge=0, le=2**53, description="The last position seen")]


def _require_rfc3339(value: Any) -> Any:
    if isinstance(value, str) and not RFC3339_START.match(value):
        message = "must be an RFC 3339 time with a time zone, such as 2026-11-25T09:30:00Z"
        raise ValueError(message)
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_require_rfc3339)]
"""A time parameter. A bare number is refused, because seconds and milliseconds look alike."""
