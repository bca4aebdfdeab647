"""The history of a job before its session, from the ledger itself rather than the read model. Reads only; decides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from justenough.adapters.store.ledger_repository import LedgerRepository
from justenough.adapters.store.paging import MAX_PAGE_SIZE
from justenough.domain.core.ids import job_of
from justenough.domain.jobs.states import JobState
from justenough.domain.ledger.events import EventType
from justenough.domain.readmodel.views import EntryView, Page

MAX_ENTRIES_READ = 20_000
"""A job that has not run has few entries. If somebody floods its chain, the job does not run, but nothing is hidden."""
STARTED_EVENTS = frozenset({EventType.JOB_STARTED, EventType.JOB_ENDED, EventType.CREDENTIAL_ISSUED})
APPROVAL_EVENTS = (
    EventType.APPROVAL_OPENED,
    EventType.APPROVAL_ESCALATED,
    EventType.APPROVAL_DECIDED,
    EventType.APPROVAL_WITHDRAWN,
    EventType.APPROVAL_EXPIRED,
    EventType.ACCESS_WITHDRAWN,
)
"""Events about the outcome of requests that need approval."""
SETTLING_EVENTS = {EventType.APPROVAL_EXPIRED: "expired", EventType.ACCESS_WITHDRAWN: "withdrawn"}

ALREADY_RAN = "this job has already run or ended; a workflow reset does not run it again"


class ReadableLedger(Protocol):
    def entries(self, *, job: str | None, types: Iterable[EventType] = (), after: int, limit: int) -> Page[EntryView]: ...


@dataclass(frozen=True, slots=True)
class JobHistory:
    """The recorded history of a job at one moment."""

    submitted: bool = False
    ended: bool = False
    why_over: str = ""
    """Why the job can no longer run; empty if it can."""
    tiers: Mapping[str, int] = field(default_factory=dict)
    """The highest tier that each request has reached."""
    first_tiers: Mapping[str, int] = field(default_factory=dict)
    """The tier that policy needed when the job made each request."""
    settled: Mapping[str, str] = field(default_factory=dict)
    """`denied`, `expired` or `withdrawn`, by request."""
    withdrawers: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """By request, the entity ids of people who withdrew their answer."""
    stop: JobState | None = None
    """The state in which the job ends if it obeys what people asked: killed or cancelled; None if nobody asked it to end."""

    def signed_tier(self, request: str, *, needed: int) -> int:
        """Return the needed tier in the digest that approvers must have signed. `needed`: the tier that policy needs now.

        It is the one that policy needed when the job asked, unless policy needs more by now than the request has reached.
        """
        return self.first_tiers.get(request, needed) if needed <= self.tiers.get(request, 0) else needed

    def is_counted_answer(self, entry: EntryView, request: str) -> bool:
        """Whether an entry is an answer to this request that counts: not withdrawn, nor discarded because the request escalated."""
        if entry.type != EventType.APPROVAL_DECIDED.value or entry.data["request"] != request:
            return False
        reaches = entry.data["decision"] == "break_glass" or entry.data["tier"] >= self.tiers.get(request, 0)
        return reaches and entry.data["person"] not in self.withdrawers.get(request, frozenset())


def read_job_history(ledger: ReadableLedger, job: str) -> JobHistory:
    entries = read_entries(ledger, job)
    return JobHistory(why_over="the ledger has too many entries of this job") if entries.next else build_job_history(entries.items)


def read_entries(ledger: ReadableLedger, job: str, *, types: Iterable[EventType] = ()) -> Page[EntryView]:
    """Return a job's entries (of these types, or of all), oldest first. `next` is set if there are more than MAX_ENTRIES_READ."""
    page = ledger.entries(job=job, types=types, after=0, limit=MAX_PAGE_SIZE)
    entries = list(page.items)
    while page.next and len(entries) < MAX_ENTRIES_READ:
        page = ledger.entries(job=job, types=types, after=int(page.next), limit=MAX_PAGE_SIZE)
        entries += page.items
    return Page(items=tuple(entries), next=page.next)


def requested_stop(ledger: ReadableLedger, job: str) -> JobState | None:
    """Return the state in which a job ends if it obeys what people asked: killed or cancelled; None if nobody asked it to end."""
    return build_job_history(read_entries(ledger, job, types=(EventType.STOP_REQUESTED,)).items).stop


def approval_withdrawers(ledger: LedgerRepository, request: str) -> tuple[str, ...]:
    """Return the login names of the people who withdrew their approval of a request."""
    entries = ledger.entries_about(job_of(request), (EventType.APPROVAL_WITHDRAWN,), request)
    # With another verdict, the request stays pending with one answer fewer.
    return tuple(entry.data["name"] for entry in entries if entry.data["verdict"] == "withdrawn")


def build_job_history(entries: Iterable[EntryView]) -> JobHistory:
    submitted, ended, why_over = False, False, ""
    tiers: dict[str, int] = {}
    first_tiers: dict[str, int] = {}
    settled: dict[str, str] = {}
    withdrawers: dict[str, frozenset[str]] = {}
    stop: JobState | None = None
    for entry in entries:
        kind, data = EventType(entry.type), entry.data
        submitted = submitted or kind is EventType.JOB_SUBMITTED
        ended = ended or kind is EventType.JOB_ENDED
        if kind in STARTED_EVENTS:
            why_over = ALREADY_RAN
        elif kind in {EventType.APPROVAL_OPENED, EventType.APPROVAL_ESCALATED}:
            tiers[data["request"]] = max(data["tier"], tiers.get(data["request"], 0))
            first_tiers.setdefault(data["request"], data["tier"])
        elif kind in SETTLING_EVENTS:
            settled[data["request"]] = SETTLING_EVENTS[kind]
        elif kind is EventType.APPROVAL_DECIDED and data["decision"] == "deny":
            settled[data["request"]] = "denied"
        elif kind is EventType.APPROVAL_WITHDRAWN:
            withdrawers[data["request"]] = withdrawers.get(data["request"], frozenset()) | {data["person"]}
            if data["verdict"] == "withdrawn":
                settled[data["request"]] = "withdrawn"
        elif kind is EventType.STOP_REQUESTED and stop is not JobState.KILLED:
            # A cancel does not override a kill.
            stop = JobState.KILLED if data.get("how") == "kill" else JobState.CANCELLED
    return JobHistory(submitted, ended, why_over, tiers, first_tiers, settled, withdrawers, stop)
