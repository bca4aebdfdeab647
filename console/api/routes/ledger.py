"""The ledger: its entries, its newest one, and a look at every chain."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from console.api.dependencies import AuthenticatedRoute, Member, Reader
from console.http.dependencies import TheConsole
from console.http.pagination import After, Limit, Moment, PositionCursor
from console.services.background_reads import WHOLE_LEDGER
from console.services.visibility import first_visible_page, parse_position
from justenough.adapters.store import LedgerHead
from justenough.domain.ledger.events import EventType
from justenough.domain.ledger.hash_chain import LedgerReport
from justenough.domain.readmodel.views import EntryView, Page

router = APIRouter(route_class=AuthenticatedRoute, tags=["ledger"])


@router.get("/ledger", operation_id="list_ledger")
def list_entries(
    *,
    console: TheConsole,
    caller: Member,
    response: Response,
    job: Annotated[str | None, Query(max_length=64, description="Only this job's")] = None,
    types: Annotated[list[EventType], Query(alias="type", max_length=len(EventType), description="Only of these types")] = [],  # noqa: B006 - FastAPI copies a default
    since: Annotated[Moment | None, Query(description="Only what happened then or later; with its zone")] = None,
    until: Annotated[Moment | None, Query(description="Only what happened before; with its zone")] = None,
    after: After = 0,
    limit: Limit = 100,
    cursor: PositionCursor = None,
) -> Page[EntryView]:
    """Return entries after a position, oldest first; a launcher sees those of their own jobs. `cursor` is a position too.

    `Last-Event-ID` tells up to which position they are all, where no more follow: from there an event stream goes on, and so does `after`.
    """
    newest = console.deps.store.ledger.head().position
    page = first_visible_page(
        lambda seen: console.deps.store.ledger.entries(
            job=job, types=types, since=since, until=until, after=after if seen is None else parse_position(seen), limit=limit
        ),
        lambda entry: console.job_owners.can_read(caller, entry.job),
        cursor=cursor,
    )
    if page.next is None:
        # What came since then may be among the entries already.
        response.headers["Last-Event-ID"] = str(max([newest, *(entry.position for entry in page.items)]))
    return page


@router.get("/ledger/checkpoint", operation_id="show_checkpoint")
def checkpoint(console: TheConsole, caller: Reader) -> LedgerHead:
    """Return the ledger's newest entry, to hold against a later copy."""
    del caller
    return console.deps.store.ledger.head()


@router.post("/ledger/verify", operation_id="verify_ledger")
async def verify(console: TheConsole, caller: Reader) -> LedgerReport:
    """Look at every chain; who asks meanwhile is told the same. Sound where `problems` is empty; `unseen` says what such a look cannot find."""
    return await console.background_reads.verification.result(WHOLE_LEDGER, by=caller.person.name)
