"""What every list has in common: its bounds, whose things it shows, and how it skips those that are not the caller's. Blocking, for a thread."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import Query
from pydantic import AwareDatetime, BeforeValidator

RFC3339_START = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]")


POSITION_PATTERN = "^[0-9]{1,16}$"
"""How a position in the ledger is written. It only tells: what is wrong with one is said in words."""


Limit = Annotated[int, Query(ge=1, le=1000, description="How many at most")]


Cursor = Annotated[str | None, Query(max_length=200, description="`next` of the page before")]


PositionCursor = Annotated[
    str | None, Query(max_length=200, description="`next` of the page before", json_schema_extra={"pattern": POSITION_PATTERN})
]
"""Of a list in the ledger's order."""


After = Annotated[int, Query(ge=0, le=2**53, description="The last position seen")]


def _require_rfc3339(value: Any) -> Any:
    if isinstance(value, str) and not RFC3339_START.match(value):
        message = "must be a time as RFC 3339 writes it, with its zone: 2026-11-25T09:30:00Z"
        raise ValueError(message)
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_require_rfc3339)]
"""A time that a caller names. A bare number is refused: seconds and milliseconds look alike."""
