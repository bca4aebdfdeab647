"""/report: the evidence report of a period, with downloads. Concurrent requests share one run. `justenough.domain.evidence` defines the content."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from typing import Annotated, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from console.http.dependencies import TheConsole
from console.pages.page_user import PageReader, TheForm
from console.pages.rendering import download_headers, render
from console.pages.routing import PageRoute
from console.presentation.report import figures, html, markdown
from console.services.background_reads import DEFAULT_REPORT_PERIOD, ReportDays
from console.services.console import Console
from justenough.domain.core.errors import InvalidInput, NotFound
from justenough.domain.evidence.report import Report

MAX_ROWS = 30
"""Maximum rows of a table on the page; the downloads have all of them."""
MAX_EVIDENCE = 20
"""Maximum ledger entries per metric on the page; the downloads have all of them."""

DOWNLOAD_FORMATS: Mapping[str, tuple[str, Callable[[Report], str]]] = {
    "html": ("text/html; charset=utf-8", html.render_html),
    "md": ("text/markdown; charset=utf-8", markdown.render_markdown),
    "json": ("application/json", lambda report: json.dumps(report.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"),
}

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/report")
def report(
    request: Request,
    console: TheConsole,
    _: PageReader,
    first: Annotated[str, Query(max_length=10)] = "",
    last: Annotated[str, Query(max_length=10)] = "",
    section: Annotated[str, Query(max_length=40)] = "",
) -> Response:
    """Show the report of a period or one section of it, its progress, or the form to generate it."""
    return _render_page(request, console, first, last, section=section)


@router.post("/report")
async def make(request: Request, console: TheConsole, visitor: PageReader, form: TheForm) -> Response:
    """Start generating the report of a period, or join the running one."""
    first, last = str(form.get("first", "")), str(form.get("last", ""))
    days, errors = _parse_days(console, first, last)
    if errors:
        return _render_page(request, console, first, last)
    console.background_reads.reports.start(days, by=visitor.caller.person.name)
    return RedirectResponse(f"/report?{urlencode({'first': days.first, 'last': days.last})}", status_code=303)


@router.get("/report/download")
def download(
    console: TheConsole,
    _: PageReader,
    first: Annotated[str, Query(max_length=10)],
    last: Annotated[str, Query(max_length=10)],
    form: Literal["html", "md", "json"],
) -> Response:
    """Download a generated report as a self-contained file."""
    days, errors = _parse_days(console, first, last)
    work = None if errors else console.background_reads.reports.get(days)
    if work is None or work.outcome is None:
        raise NotFound("no report for these days yet; generate it on the Compliance page first")
    media_type, render_report = DOWNLOAD_FORMATS[form]
    headers = download_headers(f"evidence-{work.outcome.installation}-{days.first}-{days.last}.{form}")
    return Response(render_report(work.outcome), media_type=media_type, headers=headers)


def _render_page(request: Request, console: Console, first: str, last: str, *, section: str = "") -> Response:
    days, errors = _parse_days(console, first, last)
    work = None if errors else console.background_reads.reports.get(days)
    error, sections = (work.error, work.outcome.sections if work.outcome else ()) if work else (None, ())
    return render(
        request,
        "report.html",
        status=422 if errors else 200,
        typed={"first": first or str(days.first), "last": last or str(days.last)},
        errors=errors,
        work=work,
        problems=error.problems if isinstance(error, InvalidInput) else (),
        others=[(other, run) for other, run in console.background_reads.reports.items() if other != days],
        section_options=[("", "Overview"), *((item.key, item.title) for item in sections)],
        chosen=[item for item in sections if item.key == section],
        figures=figures,
        max_rows=MAX_ROWS,
        max_evidence=MAX_EVIDENCE,
        refresh=2 if work and work.is_running else 0,
    )


def _parse_days(console: Console, first: str, last: str) -> tuple[ReportDays, dict[str, str]]:
    """Return the requested days (default: the last thirty), with the errors by field."""
    today, errors = console.deps.now().date(), dict[str, str]()
    end = _parse_day(last, today, "last", errors)
    begin = _parse_day(first, end - DEFAULT_REPORT_PERIOD, "first", errors)
    if not errors and begin > end:
        errors["first"] = "must not be after the last day"
    if not errors and begin > today:
        errors["first"] = "is in the future"
    return ReportDays(begin, end), errors


def _parse_day(text: str, default: date, name: str, errors: dict[str, str]) -> date:
    if not text:
        return default
    try:
        day = date.fromisoformat(text)
        # The first and last days of the calendar have no day after them, or no thirty days before them.
        day + timedelta(days=1), day - DEFAULT_REPORT_PERIOD
    except (ValueError, OverflowError):
        errors[name] = "must be a date like 2026-01-31"
        return default
    return day
