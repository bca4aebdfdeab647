"""The evidence report of a period, as JSON. Clients format it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query

from console.api.dependencies import AuthenticatedRoute, Reader
from console.http.dependencies import Moment, TheConsole
from console.services.background_reads import DEFAULT_REPORT_PERIOD
from justenough.domain.evidence.aggregator import ReportPeriod
from justenough.domain.evidence.report import Report

router = APIRouter(route_class=AuthenticatedRoute, tags=["report"])


@router.get("/report")
async def report(
    console: TheConsole,
    _: Reader,
    since: Annotated[
        Moment | None, Query(description="Begin of the period (RFC 3339 with a time zone); default: 30 days before `until`")
    ] = None,
    until: Annotated[
        Moment | None, Query(description="End of the period, not included (RFC 3339 with a time zone); default and maximum: now")
    ] = None,
) -> Report:
    """Build the evidence report of a period from the ledger. Takes about ten seconds for a million entries."""
    now: datetime = console.deps.now()
    end = min(until or now, now)
    return await console.background_reads.report(ReportPeriod(since or end - DEFAULT_REPORT_PERIOD, end), now=now)
