"""GET /ledger, /ledger/entry and /ledger/export: entries as sentences, newest first; search by id; one entry in full; JSONL export."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, NamedTuple
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse
from pydantic import Field

from console.auth.authorization import Role
from console.http.dependencies import TheConsole
from console.pages import live_stream
from console.pages.page_user import PageUser, ThePageUser
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.services.background_reads import WHOLE_LEDGER
from console.services.console import Console
from console.services.visibility import first_visible_page, parse_position
from justenough.domain.core.base_model import Message
from justenough.domain.core.errors import InvalidInput, NotFound, Problem
from justenough.domain.ledger.events import EventType
from justenough.domain.ledger.export import to_export_line
from justenough.domain.readmodel.dashboard import SearchHit
from justenough.domain.readmodel.views import EntryView, Page

PAGE_SIZE = 30
MAX_PAGES_READ = 6
"""Store pages that are searched for entries a launcher may read, at most."""
EXPORT_PAGE_SIZE = 1000
READER_ROLES = (Role.APPROVE, Role.READ, Role.BREAK_GLASS)
"""Roles that may read everything, as in the API."""
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

router = APIRouter(route_class=PageRoute, include_in_schema=False)


class LedgerQuery(NamedTuple):
    """The filters as a store query."""

    job: str | None
    types: tuple[EventType, ...]
    since: datetime | None
    until: datetime | None


class LedgerFilters(Message):
    """The filters in the address as entered; empty for any."""

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

    def to_query(self) -> LedgerQuery:
        """Return the filters as a store query. Raises InvalidInput with every wrong field."""
        problems: list[Problem] = []
        types = tuple(one for one in EventType if self.type in {one.value, one.value.partition(".")[0]})
        if self.type and not types:
            problems.append(Problem("type", f"unknown type {self.type!r}"))
        since, until = _parse_moment("since", self.since, problems), _parse_moment("until", self.until, problems)
        if problems:
            raise InvalidInput("filter", tuple(problems))
        return LedgerQuery(self.job.strip() or None, types, since, until)


ANY_ENTRY = LedgerQuery(None, (), None, None)


@router.get("/ledger")
def ledger(request: Request, console: TheConsole, visitor: ThePageUser, filters: Annotated[LedgerFilters, Query()]) -> Response:
    """Show entries, newest first. `q` searches by id; a single hit is opened."""
    visitor.caller.require(*Role)
    wrong: dict[str, str] = {}
    which = ANY_ENTRY
    try:
        which = filters.to_query()
    except InvalidInput as error:
        wrong = {problem.path: problem.message for problem in error.problems}
    found = _find_readable(console, visitor, filters.q)
    if len(found) == 1:
        return RedirectResponse(place_url(found[0]), status_code=303)
    stream = live_stream.stream_url(console)
    page = Page[EntryView](items=()) if wrong else _readable_page(console, visitor, which, cursor=filters.cursor)
    reads_all = visitor.caller.can_read_all
    return render(
        request,
        "ledger.html",
        status=422 if wrong else 200,
        page=page,
        jobs=console.deps.store.jobs.captions({entry.job for entry in page.items}),
        q=filters.q,
        found=found,
        place_of=place_url,
        typed=filters.query_values,
        wrong=wrong,
        groups=_type_groups(),
        copies=_export_url(filters) if reads_all and not wrong else "",
        head=console.deps.store.ledger.head() if reads_all else None,
        verification=console.background_reads.verification.get(WHOLE_LEDGER) if reads_all else None,
        stream="" if filters.cursor or filters.q else stream,
    )


@router.get("/ledger/entry")
def entry(request: Request, console: TheConsole, visitor: ThePageUser, name: Annotated[str, Query(alias="id", max_length=400)]) -> Response:
    """Show one entry with its neighbours in its job's chain."""
    visitor.caller.require(*Role)
    found = console.deps.store.ledger.entry(name)
    if found is None or not console.job_owners.can_read(visitor.caller, found.job):
        raise NotFound(f"there is no ledger entry {name}")
    before = console.deps.store.ledger.entries_newest_first(job=found.job, before=found.position, limit=1).items
    after = console.deps.store.ledger.entries(job=found.job, after=found.position, limit=1).items
    known = console.deps.store.jobs.captions({found.job})
    return render(request, "entry.html", entry=found, job=known.get(found.job), before=before, after=after)


@router.get("/ledger/export")
def export(console: TheConsole, visitor: ThePageUser, filters: Annotated[LedgerFilters, Query()]) -> Response:
    """Download entries, oldest first, one JSON object per line, as `justenough ledger export` writes them. Ends at the entry that is newest now."""
    visitor.caller.require(*READER_ROLES)
    which, last = filters.to_query(), console.deps.store.ledger.head().position
    name = f"ledger-{console.deps.settings.installation}-{console.deps.now().astimezone(UTC):%Y%m%dT%H%M%SZ}.jsonl"
    return StreamingResponse(
        _export_lines(console, which, last),
        media_type="application/x-ndjson",
        headers={"Content-Disposition": f'attachment; filename="{name}"', "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"},
    )


def place_url(found: SearchHit) -> str:
    """Return the address that shows a search hit."""
    where = {"job": "/jobs/", "request": "/inbox/", "credential": "/credentials/"}
    return f"{where[found.kind]}{quote(found.id, safe='')}" if found.kind in where else f"/ledger/entry?{urlencode({'id': found.id})}"


def _readable_page(console: Console, visitor: PageUser, query: LedgerQuery, *, cursor: str | None) -> Page[EntryView]:
    def read(after: str | None) -> Page[EntryView]:
        page = console.deps.store.ledger.entries_newest_first(
            **query._asdict(), before=parse_position(after) if after else None, limit=PAGE_SIZE
        )
        if not visitor.caller.can_read_all:
            console.job_owners.preload(entry.job for entry in page.items)
        return page

    return first_visible_page(
        read, lambda entry: console.job_owners.can_read(visitor.caller, entry.job), cursor=cursor, max_pages=MAX_PAGES_READ
    )


def _find_readable(console: Console, visitor: PageUser, text: str) -> Sequence[SearchHit]:
    if not text.strip():
        return ()
    found = console.deps.store.search.find(text, installation=console.deps.settings.installation)
    console.job_owners.preload(one.job for one in found)
    return [one for one in found if console.job_owners.can_read(visitor.caller, one.job)]


def _export_lines(console: Console, query: LedgerQuery, last: int) -> Iterator[str]:
    """Yield lines a page at a time. Each page is its own transaction, which is safe because entries never change."""
    after = 0
    while True:
        page = console.deps.store.ledger.entries(**query._asdict(), after=after, limit=EXPORT_PAGE_SIZE)
        yield "".join(to_export_line(entry.model_dump(mode="json")) for entry in page.items if entry.position <= last)
        if page.next is None or int(page.next) >= last:
            return
        after = int(page.next)


def _parse_moment(name: str, text: str, problems: list[Problem]) -> datetime | None:
    if not text.strip():
        return None
    try:
        found = datetime.fromisoformat(text.strip())
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        problems.append(Problem(name, "must be a date or time like 2026-01-31 or 2026-01-31T18:30"))
        return None


def _type_groups() -> Sequence[tuple[str, str, Sequence[str]]]:
    """Return each group of types: first word, label, types."""
    types: dict[str, list[str]] = {group: [] for group in TYPE_GROUPS}
    for one in EventType:
        types.setdefault(one.value.partition(".")[0], []).append(one.value)
    return [(group, TYPE_GROUPS.get(group, group), found) for group, found in types.items() if found]


def _export_url(filters: LedgerFilters) -> str:
    query = urlencode({name: value for name, value in filters.query_values.items() if value})
    return f"/ledger/export?{query}" if query else "/ledger/export"
