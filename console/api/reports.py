"""The evidence report of a period, as JSON; how it is shown is for clients."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from typing import Annotated

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Query

from activities import reporting
from console.api.context import AuthenticatedRoute, Reader, TheConsole
from console.api.lists import Moment
from justenough.evidence.fold import Period
from justenough.evidence.report import Report

DEFAULT = timedelta(days=30)

router = APIRouter(route_class=AuthenticatedRoute, tags=["report"])
# Each keeps a processor busy as long as it is made: the next one waits for its turn, here and in no thread.
_turn = CapacityLimiter(1)


@router.get("/report")
async def report(
    console: TheConsole,
    caller: Reader,
    since: Annotated[Moment | None, Query(description="From when on, with its zone; default: 30 days before `until`")] = None,
    until: Annotated[Moment | None, Query(description="Before when, with its zone; default, and at the latest: now")] = None,
) -> Report:
    """Fold the ledger of a period into figures with their evidence. Takes about ten seconds for a million entries."""
    del caller
    now: datetime = console.deps.now()
    end = min(until or now, now)
    period = Period(since or end - DEFAULT, end)
    made = partial(reporting.report, console.deps.store, period, installation=console.deps.settings.installation, now=now)
    return await to_thread.run_sync(made, limiter=_turn)
