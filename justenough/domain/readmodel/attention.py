"""Items that need a person now: failed jobs, late requests, denials, dead deliveries, missed schedules, silent workers. No I/O, no clock.

An item stays until its cause is gone, somebody acknowledges it, or it is older than ATTENTION_PERIOD.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum

from justenough.domain.core.base_model import Message
from justenough.domain.jobs.states import JobState

ATTENTION_PERIOD = timedelta(hours=24)
"""How long something that has ended, such as a failure, needs attention."""


class AttentionKind(StrEnum):
    OVERDUE = "overdue"
    """A system for which revocations wait."""
    FAILED = "failed"
    """A job that failed, timed out or was lost, and no later job of its name has succeeded."""
    ESCALATED = "escalated"
    """A pending request that a tier did not answer in time."""
    WAITING = "waiting"
    """A pending request with less than half of its time left."""
    DENIED = "denied"
    """A job whose requests policy denied."""
    WEBHOOK = "webhook"
    """A subscription whose deliveries fail, or that cannot send any."""
    SCHEDULE = "schedule"
    """A schedule that skipped a run."""
    WORKER = "worker"
    """A worker that has stopped reporting and did not shut down cleanly."""


class Acknowledgement(Message):
    """A person's statement that they take care of an item."""

    item: str
    person: str
    """Login name."""
    person_id: str
    note: str
    at: datetime


class AttentionItem(Message):
    """One thing that needs a person."""

    key: str
    """Kind and subject: `failed/j-…`. The same for as long as the cause is the same."""
    kind: AttentionKind
    subject: str
    """The name of the job, subscription, schedule, worker or system."""
    job: str = ""
    """The id of the job that it is about; empty if it is about the installation."""
    requester_id: str = ""
    """Entity id of the job's launcher."""
    state: JobState | None = None
    """How a job failed; None if it is about something else."""
    request: str = ""
    """The id of the request that it is about."""
    detail: str = ""
    """What went wrong, or what is requested."""
    since: datetime
    until: datetime | None = None
    """When a pending request escalates or expires, or its job times out."""
    tier: int = 0
    """The tier that can decide a pending request."""
    acknowledged: Acknowledgement | None = None


def is_half_gone(begin: datetime, end: datetime | None, *, now: datetime) -> bool:
    """Whether more than half of the time between two moments has passed."""
    return end is not None and now - begin > (end - begin) / 2


def with_acknowledgements(items: Iterable[AttentionItem], found: Mapping[str, Acknowledgement]) -> tuple[AttentionItem, ...]:
    """Return the items with their acknowledgements, ordered by kind as in AttentionKind, then newest first.

    An item that began again after its acknowledgement needs attention again.
    """
    order = tuple(AttentionKind)
    marked = (
        item.model_copy(update={"acknowledged": answer}) if (answer := found.get(item.key)) and answer.at >= item.since else item
        for item in items
    )
    return tuple(sorted(marked, key=lambda item: (order.index(item.kind), -item.since.timestamp())))
