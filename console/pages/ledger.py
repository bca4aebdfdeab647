"""GET /ledger, /ledger/entry and /ledger/export: entries as sentences, newest first; search by id; one entry in full; JSONL export.

GET and POST /ledger/verify: verify every chain. One verification runs at a time and all requests share its result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import partial
from typing import Annotated, NamedTuple
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse
from pydantic import Field

from console.http.dependencies import TheConsole
from console.pages import live_stream
from console.pages.file_export import export_headers
from console.pages.page_user import PageMember, PageReader, PageUser, TheForm
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.pages.search import place_url
from console.presentation.time_text import parse_moment
from console.services.background_reads import WHOLE_LEDGER
from console.services.checkpoints import newest_checkpoint
from console.services.console import Console
from console.services.search import find_by_id
from console.services.visibility import first_visible_page, parse_position
from justenough.domain.core.base_model import Message
from justenough.domain.core.errors import InvalidInput, NotFound, Problem, raise_problems
from justenough.domain.ledger.events import EventType
from justenough.domain.ledger.export import to_export_line
from justenough.domain.readmodel.views import EntryView, Page

PAGE_SIZE = 30
MAX_PAGES_READ = 6
"""Maximum number of store pages that are read to find entries that a launcher may read."""
EXPORT_PAGE_SIZE = 1000
TYPE_GROUPS: Mapping[str, str] = {
    "job": "Jobs",
    "access": "Requests",
    "approval": "Approvals",
    "credential": "Credentials",
    "revocation": "Revocations",
    "stop": "Stops",
    "review": "Break-glass reviews",
    "delegation": "Delegations",
    "lock": "Vault control groups",
    "identity": "Jobs' identities",
    "sweep": "Sweeps",
    "ledger": "The ledger itself",
}
"""Labels by the first word of a type, in the order of the filter; unlisted ones come last."""
TYPES_BY_GROUP = [
    (group, TYPE_GROUPS.get(group, group), types)
    for group in dict.fromkeys([*TYPE_GROUPS, *(one.value.partition(".")[0] for one in EventType)])
    if (types := [one.value for one in EventType if one.value.startswith(f"{group}.")])
]
"""Each group of types: first word, label, types."""
MAX_PROBLEMS = 100
"""Maximum problems of a verification on the page; `justenough ledger verify` lists up to a thousand."""

router = APIRouter(route_class=PageRoute, include_in_schema=False)


class LedgerQuery(NamedTuple):
    """The filters as a store query."""

    job: str | None
    types: tuple[EventType, ...]
    since: datetime | None
    until: datetime | None


class LedgerFilters(Message):
    """The filters in the page's address, as entered; an empty filter matches everything."""

    q: str = Field("", max_length=400)
    job: str = Field("", max_length=64)
    type: str = Field("", max_length=64)
    """A type, or the first word of several."""
    since: str = Field("", max_length=32)
    until: str = Field("", max_length=32)
    cursor: str | None = Field(None, max_length=200)

    @property
    def query_values(self) -> dict[str, str]:
        """The filters that narrow the list."""
        return {name: getattr(self, name) for name in ("job", "type", "since", "until")}

    def to_query(self, *, now: datetime) -> LedgerQuery:
        """Return the filters as a store query. Raises InvalidInput with every wrong field."""
        problems: list[Problem] = []
        types = tuple(one for one in EventType if self.type in {one.value, one.value.partition(".")[0]})
        if self.type and not types:
            problems.append(Problem("type", f"unknown type {self.type!r}"))
        times: dict[str, datetime | None] = {}
        for name in ("since", "until"):
            try:
                times[name] = parse_moment(getattr(self, name), now=now)
            except ValueError as error:
                problems.append(Problem(name, str(error)))
        raise_problems("filter", problems)
        return LedgerQuery(self.job.strip() or None, types, **times)


@router.get("/ledger")
def ledger(request: Request, console: TheConsole, visitor: PageMember, filters: Annotated[LedgerFilters, Query()]) -> Response:
    """Show entries, newest first. `q` searches by id; a single hit is opened."""
    errors: dict[str, str] = {}
    try:
        query = filters.to_query(now=console.deps.now())
    except InvalidInput as error:
        query, errors = None, {problem.path: problem.message for problem in error.problems}
    hits = find_by_id(console, visitor.caller, filters.q)
    if len(hits) == 1:
        return RedirectResponse(place_url(hits[0]), status_code=303)
    stream = live_stream.stream_url(console)
    page = _readable_page(console, visitor, query, cursor=filters.cursor) if query else Page(items=())
    export_query = urlencode({name: value for name, value in filters.query_values.items() if value})
    return render(
        request,
        "ledger.html",
        status=422 if errors else 200,
        page=page,
        jobs=console.deps.store.jobs.captions({entry.job for entry in page.items}),
        q=filters.q,
        hits=hits,
        place_url=place_url,
        typed=filters.query_values,
        errors=errors,
        groups=TYPES_BY_GROUP,
        export_url="" if errors else "/ledger/export" + (f"?{export_query}" if export_query else ""),
        head=console.deps.store.ledger.head() if visitor.caller.can_read_all else None,
        verification=console.background_reads.verification.get(WHOLE_LEDGER),
        stream="" if filters.cursor or filters.q else stream,
    )


@router.get("/ledger/entry")
def entry(request: Request, console: TheConsole, visitor: PageMember, name: Annotated[str, Query(alias="id", max_length=400)]) -> Response:
    """Show one entry with its neighbours in its job's chain."""
    store = console.deps.store
    view = store.ledger.entry(name)
    if view is None or not console.job_owners.can_read(visitor.caller, view.job):
        raise NotFound(f"there is no ledger entry {name}")
    before = store.ledger.entries_newest_first(job=view.job, before=view.position, limit=1).items
    after = store.ledger.entries(job=view.job, after=view.position, limit=1).items
    return render(request, "entry.html", entry=view, job=store.jobs.captions({view.job}).get(view.job), before=before, after=after)


@router.get("/ledger/export")
def export(console: TheConsole, _: PageReader, filters: Annotated[LedgerFilters, Query()]) -> Response:
    """Download entries, oldest first, one JSON object per line, as `justenough ledger export` writes them.

    Ends at the newest entry at the start of the download.
    """
    query, last = filters.to_query(now=console.deps.now()), console.deps.store.ledger.head().position
    headers = export_headers(console, "ledger", "jsonl")
    return StreamingResponse(_export_lines(console, query, last), media_type="application/x-ndjson", headers=headers)


@router.get("/ledger/verify")
def verification(request: Request, console: TheConsole, _: PageReader) -> Response:
    work, head = console.background_reads.verification.get(WHOLE_LEDGER), console.deps.store.ledger.head()
    return render(
        request,
        "verification.html",
        work=work,
        head=head,
        checkpoint=newest_checkpoint(console.deps),
        max_problems=MAX_PROBLEMS,
        refresh=2 if work and work.is_running else 0,
    )


@router.post("/ledger/verify")
async def verify(console: TheConsole, visitor: PageReader, _: TheForm) -> Response:
    """Start a verification, or join the running one."""
    console.background_reads.verification.start(WHOLE_LEDGER, by=visitor.caller.person.name)
    return RedirectResponse("/ledger/verify", status_code=303)


def _readable_page(console: Console, visitor: PageUser, query: LedgerQuery, *, cursor: str | None) -> Page[EntryView]:
    read = partial(console.deps.store.ledger.entries_newest_first, **query._asdict(), limit=PAGE_SIZE)
    return first_visible_page(
        lambda after: read(before=parse_position(after) if after else None),
        lambda entries: console.job_owners.readable(visitor.caller, entries, lambda entry: entry.job),
        cursor=cursor,
        max_pages=MAX_PAGES_READ,
    )


def _export_lines(console: Console, query: LedgerQuery, last: int) -> Iterator[str]:
    """Yield lines a page at a time. Each page is a separate transaction, which is safe because entries never change."""
    after = 0
    while True:
        page = console.deps.store.ledger.entries(**query._asdict(), after=after, limit=EXPORT_PAGE_SIZE)
        yield "".join(to_export_line(entry.model_dump(mode="json")) for entry in page.items if entry.position <= last)
        if page.next is None or int(page.next) >= last:
            return
        after = int(page.next)
