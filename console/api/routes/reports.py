"""The evidence report of a period, as JSON; how it is shown is for clients."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query

from console.api.dependencies import AuthenticatedRoute, Reader
from console.http.dependencies import TheConsole
from console.http.pagination import Moment
from console.services.background_reads import DEFAULT_REPORT_PERIOD
from justenough.domain.evidence.aggregator import ReportPeriod
from justenough.domain.evidence.report import Report

router = APIRouter(route_class=AuthenticatedRoute, tags=["report"])


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
    return await console.background_reads.report(ReportPeriod(since or end - DEFAULT_REPORT_PERIOD, end), now=now)
