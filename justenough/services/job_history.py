"""What the ledger says of a job before its session: the record, where the read model is only its projection. Reads, decides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from justenough.domain.core.ids import job_of
from justenough.domain.ledger.events import EventType
from justenough.domain.readmodel.views import EntryView, Page

ENTRY_PAGE_SIZE = 1000
MAX_ENTRIES_READ = 20_000
"""A job that has not run has a handful; who floods its chain keeps it from running, and hides nothing."""
STARTED_EVENTS = frozenset({EventType.JOB_STARTED, EventType.JOB_ENDED, EventType.CREDENTIAL_ISSUED})
APPROVAL_EVENTS = (
    EventType.APPROVAL_OPENED,
    EventType.APPROVAL_ESCALATED,
    EventType.APPROVAL_DECIDED,
    EventType.APPROVAL_WITHDRAWN,
    EventType.APPROVAL_EXPIRED,
    EventType.ACCESS_WITHDRAWN,
)
"""All that tells what became of requests that people were asked about."""
SETTLING_EVENTS = {EventType.APPROVAL_EXPIRED: "expired", EventType.ACCESS_WITHDRAWN: "withdrawn"}


class ReadableLedger(Protocol):
    """A ledger; that of the store is one."""

    def entries(self, *, job: str | None, types: Iterable[EventType] = (), after: int, limit: int) -> Page[EntryView]: ...


@dataclass(frozen=True, slots=True)
class JobHistory:
    """What had been recorded of a job at one moment."""

    submitted: bool = False
    ended: bool = False
    why_over: str = ""
    """Why the job cannot run any more; empty where it still may."""
    tiers: Mapping[str, int] = field(default_factory=dict)
    """The tier that each request that ever waited has climbed to."""
    settled: Mapping[str, str] = field(default_factory=dict)
    """Requests that were denied, expired or withdrawn, each with which."""
    taken_back: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Who took back what they had said to a request, by request."""


def read_job_history(ledger: ReadableLedger, job: str) -> JobHistory:
    """Return what the ledger says of a job."""
    known = read_entries(ledger, job)
    return JobHistory(why_over="too much has been recorded of this job") if known.next else build_job_history(known.items)


def read_entries(ledger: ReadableLedger, job: str, *, types: Iterable[EventType] = ()) -> Page[EntryView]:
    """Return a job's entries (of these types; none: of all), oldest first; `next` is set where there are more than anyone reads."""
    page = ledger.entries(job=job, types=types, after=0, limit=ENTRY_PAGE_SIZE)
    entries = list(page.items)
    while page.next and len(entries) < MAX_ENTRIES_READ:
        page = ledger.entries(job=job, types=types, after=int(page.next), limit=ENTRY_PAGE_SIZE)
        entries += page.items
    return Page(items=tuple(entries), next=page.next)


def is_counted_answer(entry: EntryView, request: str) -> bool:
    """Whether an entry is an answer to this request that counted when it came."""
    return entry.type == EventType.APPROVAL_DECIDED.value and entry.data["request"] == request


def approval_withdrawers(ledger: ReadableLedger, request: str) -> tuple[str, ...]:
    """Return the login names of those who took the approval of a request back."""
    known = ledger.entries(job=job_of(request), types=(EventType.APPROVAL_WITHDRAWN,), after=0, limit=ENTRY_PAGE_SIZE)
    return tuple(data["name"] for data in (entry.data for entry in known.items) if data["request"] == request and _is_settled_by(data))


def build_job_history(entries: Iterable[EntryView]) -> JobHistory:
    """Return what these entries of one job say."""
    submitted, ended, why_over = False, False, ""
    tiers: dict[str, int] = {}
    settled: dict[str, str] = {}
    taken_back: dict[str, frozenset[str]] = {}
    for entry in entries:
        kind, data = EventType(entry.type), entry.data
        submitted = submitted or kind is EventType.JOB_SUBMITTED
        ended = ended or kind is EventType.JOB_ENDED
        if kind in STARTED_EVENTS:
            why_over = "this job ran already, or has ended; a reset runs nothing again"
        elif kind in {EventType.APPROVAL_OPENED, EventType.APPROVAL_ESCALATED}:
            tiers[data["request"]] = max(data["tier"], tiers.get(data["request"], 0))
        elif how := _settlement_of(kind, data):
            settled[data["request"]] = how
        if kind is EventType.APPROVAL_WITHDRAWN:
            taken_back[data["request"]] = taken_back.get(data["request"], frozenset()) | {data["person"]}
    return JobHistory(submitted, ended, why_over, tiers, settled, taken_back)


def _settlement_of(kind: EventType, data: Mapping[str, Any]) -> str | None:
    if kind is EventType.APPROVAL_DECIDED:
        return "denied" if data["decision"] == "deny" else None
    if kind is EventType.APPROVAL_WITHDRAWN:
        return "withdrawn" if _is_settled_by(data) else None
    return SETTLING_EVENTS.get(kind)


def _is_settled_by(withdrawal: Mapping[str, Any]) -> bool:
    """Whether a withdrawal ended its request, and did not only leave it waiting with one answer less."""
    return bool(withdrawal["verdict"] == "withdrawn")
