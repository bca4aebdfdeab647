"""GET /jobs and /jobs/export: the list with filters and columns in the address, and its download as a file.

Shows only what the user may read.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from console.http.dependencies import TheConsole
from console.pages import live_stream
from console.pages.file_export import ExportFormat, export_response
from console.pages.page_user import PageMember, PageUser
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.presentation.status_badges import status_badge
from console.presentation.time_text import parse_moment
from console.services.background_reads import RevocationFilter
from console.services.console import Console
from console.services.job_list import JobOrder, JobTraits, job_page, parse_labels
from justenough.adapters.store.paging import MAX_PAGE_SIZE, iterate_pages
from justenough.domain.core.base_model import Message
from justenough.domain.core.errors import InvalidInput, Problem, raise_problems
from justenough.domain.core.ids import first_job_id
from justenough.domain.jobs.states import JobState, RevocationState
from justenough.domain.readmodel.views import JobFilters, JobSummary, Page

PAGE_SIZE = 50
MAX_TEXT_LENGTH = 200
MAX_COUNTED = 10_000
"""The page counts matching jobs up to this number."""
COLUMNS: Mapping[str, str] = {
    "access": "Access",
    "environment": "Environment",
    "requester": "Launched by",
    "agent": "Agent",
    "launched": "Launched",
    "duration": "Duration",
}
"""Columns that can be left out, in display order. Job and state are always shown."""
DEFAULT_COLUMNS = ("access", "environment", "requester", "launched", "duration")

router = APIRouter(route_class=PageRoute, include_in_schema=False)


class JobListFilters(Message):
    """The filters in the page's address, as entered; an empty filter matches everything."""

    state: Literal[""] | JobState = ""
    revocation: Literal[""] | RevocationFilter = ""
    name: str = Field("", max_length=MAX_TEXT_LENGTH)
    requester: str = Field("", max_length=MAX_TEXT_LENGTH)
    environment: str = Field("", max_length=MAX_TEXT_LENGTH)
    parent: str = Field("", max_length=MAX_TEXT_LENGTH)
    agent: str = Field("", max_length=MAX_TEXT_LENGTH)
    label: str = Field("", max_length=MAX_TEXT_LENGTH)
    resource: str = Field("", max_length=63)
    since: str = Field("", max_length=32)
    order: JobOrder = "newest"

    @property
    def chosen(self) -> dict[str, str]:
        """The filters that narrow the list."""
        return {name: str(value).strip() for name, value in self if name != "order" and str(value).strip()}

    def to_filters(self, *, requester_id: str | None, installation: str, now: datetime) -> tuple[JobFilters, JobTraits]:
        """Return the store's filters, and the other values to compare. Raises InvalidInput with every wrong field."""
        problems, labels, since = list[Problem](), dict[str, str](), None
        try:
            labels = parse_labels([self.label.strip()] if self.label.strip() else [])
        except InvalidInput as error:
            problems += [Problem("label", problem.message) for problem in error.problems]
        try:
            since = parse_moment(self.since, now=now)
        except ValueError as error:
            problems.append(Problem("since", str(error)))
        raise_problems("filter", problems)
        filters = JobFilters(
            state=self.state or None,
            revocation=RevocationState(self.revocation) if self.revocation else None,
            name=self.name.strip() or None,
            requester=self.requester.strip() or None,
            environment=self.environment.strip() or None,
            parent=self.parent.strip() or None,
            requester_id=requester_id,
            first=first_job_id(installation, since=since) if since else None,
        )
        return filters, JobTraits(self.agent.strip() or None, labels, self.resource.strip() or None)


class JobListView(JobListFilters):
    """The filters, and how the page shows the matching jobs."""

    columns: str = Field("", max_length=MAX_TEXT_LENGTH)
    """Names of COLUMNS, separated by commas; empty for the default."""
    column: list[str] = Field([], max_length=len(COLUMNS))
    """The same columns, as sent by a form."""
    cursor: str | None = Field(None, max_length=200)

    @property
    def shown_columns(self) -> tuple[str, ...]:
        """The columns to show, in display order. Unknown columns are left out."""
        asked = {*self.columns.split(","), *self.column} - {""}
        return tuple(name for name in COLUMNS if name in (asked or DEFAULT_COLUMNS))


class JobExport(JobListFilters):
    format: ExportFormat = "csv"


@router.get("/jobs")
def jobs(request: Request, console: TheConsole, visitor: PageMember, view: Annotated[JobListView, Query()]) -> Response:
    stream = live_stream.stream_url(console, topics="job,approval,revocation,credential")
    store, errors = console.deps.store, dict[str, str]()
    page, total = Page[JobSummary](items=()), None
    try:
        filters, traits = _to_filters(console, visitor, view)
    except InvalidInput as error:
        errors = {problem.path: problem.message for problem in error.problems}
    else:
        page = job_page(store, filters, traits, order=view.order, limit=PAGE_SIZE, cursor=view.cursor or None)
        total = store.jobs.count(filters, up_to=MAX_COUNTED + 1) if traits == JobTraits() else None
    current, open_jobs = console.deps.config.current(), [job.id for job in page.items if not job.state.ended]
    return render(
        request,
        "jobs.html",
        page=page,
        active=store.credentials.count_active(open_jobs),
        total=total,
        max_counted=MAX_COUNTED,
        errors=errors,
        columns=COLUMNS,
        shown=view.shown_columns,
        states=(("", "Any state"), *((one.value, status_badge("job", one).word) for one in JobState)),
        environments=sorted({resource.environment for resource in current.catalog.resources.values()} | ({view.environment} - {""})),
        resources=sorted({*current.catalog.resources, view.resource} - {""}),
        filters={name: value for name, value in view.chosen.items() if name in JobListFilters.model_fields},
        order=view.order,
        stream=stream,
        refresh=30,
    )


@router.get("/jobs/export")
def export(console: TheConsole, visitor: PageMember, query: Annotated[JobExport, Query()]) -> Response:
    """Return the matching jobs as CSV or JSON, in the order of the page."""
    store, (filters, traits) = console.deps.store, _to_filters(console, visitor, query)
    views = iterate_pages(lambda cursor: job_page(store, filters, traits, order=query.order, limit=MAX_PAGE_SIZE, cursor=cursor))
    return export_response(console, "jobs", views, JobSummary, query.format)


def _to_filters(console: Console, visitor: PageUser, view: JobListFilters) -> tuple[JobFilters, JobTraits]:
    return view.to_filters(
        requester_id=visitor.caller.requester_filter, installation=console.deps.settings.installation, now=console.deps.now()
    )
