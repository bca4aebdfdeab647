"""The ledger: its entries, its newest entry, its verification, and the evidence report of a period as JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response

from console.api.dependencies import AuthenticatedRoute, Member, Reader
from console.http.dependencies import After, Limit, Moment, PositionCursor, TheConsole
from console.http.problems import problem_responses
from console.services.background_reads import DEFAULT_REPORT_PERIOD, WHOLE_LEDGER
from console.services.checkpoints import (
    ConsistencyProof,
    InclusionProof,
    ledger_keys,
    newest_checkpoint,
    prove_consistency,
    prove_inclusion,
)
from console.services.visibility import first_visible_page, parse_position
from justenough.adapters.store import LedgerHead
from justenough.domain.evidence.aggregator import ReportPeriod
from justenough.domain.evidence.report import Report
from justenough.domain.ledger.events import EventType, is_about
from justenough.domain.ledger.hash_chain import LedgerReport
from justenough.domain.ledger.public_keys import LedgerKeys
from justenough.domain.readmodel.views import EntryView, Page

router = APIRouter(route_class=AuthenticatedRoute)


@router.get("/ledger", tags=["ledger"], operation_id="list_ledger")
def list_entries(
    *,
    console: TheConsole,
    caller: Member,
    response: Response,
    job: Annotated[str | None, Query(max_length=64, description="Only entries of this job")] = None,
    types: Annotated[list[EventType], Query(alias="type", max_length=len(EventType), description="Only entries of these types")] = [],  # noqa: B006 - FastAPI copies a default
    person: Annotated[str | None, Query(max_length=200, description="Only entries that name this person, by login name")] = None,
    resource: Annotated[str | None, Query(max_length=63, description="Only entries about this resource")] = None,
    since: Annotated[Moment | None, Query(description="Only entries at this time or later (RFC 3339 with a time zone)")] = None,
    until: Annotated[Moment | None, Query(description="Only entries before this time (RFC 3339 with a time zone)")] = None,
    after: After = 0,
    limit: Limit = 100,
    cursor: PositionCursor = None,
) -> Page[EntryView]:
    """List entries after a position, oldest first. A launcher sees only those of their own jobs. `cursor` is also a position.

    On the last page the header `Last-Event-ID` is the position up to which the list is complete. Continue there with an event stream or `after`.
    """
    newest = console.deps.store.ledger.head().position
    page = first_visible_page(
        lambda position: console.deps.store.ledger.entries(
            job=job, types=types, since=since, until=until, after=after if position is None else parse_position(position), limit=limit
        ),
        lambda entries: console.job_owners.readable(
            caller, (entry for entry in entries if is_about(entry.data, person=person, resource=resource)), lambda entry: entry.job
        ),
        cursor=cursor,
    )
    if page.next is None:
        # The page may include entries that are newer than `newest`.
        response.headers["Last-Event-ID"] = str(max([newest, *(entry.position for entry in page.items)]))
    return page


@router.get("/ledger/checkpoint", tags=["ledger"], operation_id="show_checkpoint")
def checkpoint(console: TheConsole, _: Reader) -> LedgerHead:
    """Show the newest entry's position and hash, and the newest signed checkpoint, to keep elsewhere and compare with later."""
    checkpoint = newest_checkpoint(console.deps)
    return console.deps.store.ledger.head().model_copy(update={"checkpoint": checkpoint.note if checkpoint else None})


@router.get("/ledger/keys", tags=["ledger"], operation_id="list_ledger_keys")
def keys(console: TheConsole, _: Reader) -> LedgerKeys:
    """List the public keys that verify the ledger's checkpoints and the signatures of people."""
    return ledger_keys(console.deps)


@router.get("/ledger/inclusion", tags=["ledger"], operation_id="prove_inclusion", responses=problem_responses(404))
async def inclusion(
    console: TheConsole, _: Reader, entry: Annotated[str, Query(max_length=400, description="An entry's id")]
) -> InclusionProof:
    """Prove that the newest checkpoint commits to an entry (RFC 6962 audit path)."""
    return await console.background_reads.run_alone(lambda: prove_inclusion(console.deps, entry))


@router.get("/ledger/consistency", tags=["ledger"], operation_id="prove_consistency", responses=problem_responses(404))
async def consistency(
    console: TheConsole, _: Reader, size: Annotated[int, Query(ge=1, le=2**53, description="Entries of the earlier checkpoint")]
) -> ConsistencyProof:
    """Prove that the newest checkpoint continues an earlier one (RFC 6962 consistency proof)."""
    return await console.background_reads.run_alone(lambda: prove_consistency(console.deps, size))


@router.post("/ledger/verify", tags=["ledger"], operation_id="verify_ledger")
async def verify(console: TheConsole, caller: Reader) -> LedgerReport:
    """Verify every hash chain. Concurrent requests share one run. The ledger is sound if `problems` is empty; `unseen` lists what this check cannot detect."""
    return await console.background_reads.verification.result(WHOLE_LEDGER, by=caller.person.name)


@router.get("/report", tags=["report"])
async def report(
    console: TheConsole,
    _: Reader,
    since: Annotated[
        Moment | None, Query(description="Start of the period (RFC 3339 with a time zone); default: 30 days before `until`")
    ] = None,
    until: Annotated[
        Moment | None, Query(description="End of the period, not included (RFC 3339 with a time zone); default and maximum: now")
    ] = None,
) -> Report:
    """Build the evidence report of a period from the ledger. Takes about ten seconds for a million entries."""
    now: datetime = console.deps.now()
    end = min(until or now, now)
    begin = since or end - min(DEFAULT_REPORT_PERIOD, end - datetime.min.replace(tzinfo=UTC))
    return await console.background_reads.report(ReportPeriod(begin, end), now=now)
