"""Inputs that routes of the API and the pages take from a request: the console, and the query parameters of lists."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, Header, Query, Request
from pydantic import AfterValidator, AwareDatetime, BeforeValidator

from console.services.console import Console
from justenough.domain.core.errors import Problem, raise_problems

RFC3339_START = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]")
POSITION_PATTERN = "^[0-9]{1,16}$"
"""The form of a ledger position. For OpenAPI only: `parse_position` reports positions of another form in words."""
Limit = Annotated[int, Query(ge=1, le=1000, description="How many at most")]
Cursor = Annotated[str | None, Query(max_length=200, description="`next` of the previous page")]
PositionCursor = Annotated[
    str | None, Query(max_length=200, description="`next` of the previous page", json_schema_extra={"pattern": POSITION_PATTERN})
]
"""The cursor of a list in ledger order."""
After = Annotated[int, Query(ge=0, le=2**53, description="The last position seen")]
IdempotencyKey = Annotated[
    str | None, Header(pattern=r"^[\x21-\x7e]{1,200}$", description="A retry with the same key launches no second job")
]


def _require_rfc3339(value: Any) -> Any:
    if isinstance(value, str) and not RFC3339_START.match(value):
        message = "must be an RFC 3339 time with a time zone, such as 2026-11-25T09:30:00Z"
        raise ValueError(message)
    return value


def to_utc(moment: datetime) -> datetime:
    """Return the moment in UTC. Raises ValueError if it lies outside of the years 1 to 9999 there."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be a time in the years 1 to 9999 in UTC") from None


Moment = Annotated[AwareDatetime, BeforeValidator(_require_rfc3339), AfterValidator(to_utc)]
"""A time parameter. A bare number is refused, because seconds and milliseconds look alike."""


IdBeginning = Annotated[str | None, Query(alias="id", max_length=64, description="Only items whose id begins like this")]
"""A person may copy only the beginning of an id."""


def reject_nul(request: Request) -> None:
    """Raise InvalidInput if the URL contains a NUL character: PostgreSQL cannot store one, so no query with it can match."""
    texts = [(f"path.{name}", text) for name, text in request.path_params.items()]
    texts += [(f"query.{name}", name + text) for name, text in request.query_params.multi_items()]
    wrong = (where.replace("\0", "") for where, text in texts if "\0" in text)
    raise_problems("request", (Problem(where, "must not contain a NUL character") for where in wrong))


async def _get_console(request: Request) -> Console:
    console: Console = request.app.state.console
    return console


TheConsole = Annotated[Console, Depends(_get_console)]
