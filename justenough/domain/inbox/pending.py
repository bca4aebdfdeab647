"""Missing approvals of pending requests, the effect of a timeout, and requests that can be decided together. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Generic, NamedTuple, TypeVar

from justenough.domain.approvals.tiers import Tiers
from justenough.domain.readmodel.views import ClaimView, RequestView

T = TypeVar("T")

CAREFUL_TIER = 3
"""From this tier up, an approval needs a typed confirmation and a fresh login, and requests are decided one at a time."""
ROUND_TTLS_S = (12 * 3600, 6 * 3600, 3600, 1800, 900, 600, 300, 120, 60, 30)


class TimeoutOutcome(NamedTuple):
    """The consequence if nobody decides in time."""

    at: datetime | None
    """When; None if there is no deadline."""
    climbs_to: int | None
    """The next tier; None if the request expires instead."""
    groups: tuple[str, ...] = ()
    """The groups that approve at the next tier."""
    ends_with_job: bool = False
    """Whether the request ends because its job times out."""


class BatchKey(NamedTuple):
    """The properties that all requests of a batch share."""

    job_name: str
    resource: str
    action: str
    tier: int
    """The current tier."""

    @property
    def form_value(self) -> str:
        """The kind as a form sends it back: `refund-triage refunds-db write 1`."""
        return " ".join(map(str, self))


class RequestBatch(NamedTuple, Generic[T]):
    """Requests of one kind, in their original order; or whatever else belongs to each of them."""

    kind: BatchKey
    requests: tuple[T, ...]

    @property
    def together(self) -> bool:
        """Whether one click may decide them all: there are several, and their tier is below CAREFUL_TIER."""
        return len(self.requests) > 1 and self.kind.tier < CAREFUL_TIER


def timeout_outcome(view: RequestView, tiers: Tiers) -> TimeoutOutcome:
    if view.ends_with_job:
        return TimeoutOutcome(view.decide_by, None, ends_with_job=True)
    following = tiers.tiers.get(view.current_tier + 1)
    return (
        TimeoutOutcome(view.expires_at, view.current_tier + 1, following.approvers) if following else TimeoutOutcome(view.expires_at, None)
    )


def missing_approvals(view: RequestView) -> int:
    """Return how many more people must approve a pending request at the current tier: at least one, because earlier approvals lapse if their
    people leave the group.
    """
    return max(1, view.quorum - len({item.approver_id for item in view.counting_approvals}))


def claim_by_other(view: RequestView, person: str, *, now: datetime) -> ClaimView | None:
    """Return the current claim on a request if somebody other than this person (entity id) holds it; None otherwise."""
    claim = view.claim
    return claim if claim and claim.by_id != person and claim.until > now else None


def needs_care(decision: str, tier: int) -> bool:
    """Whether a decision needs a typed confirmation and a fresh login: an approval from CAREFUL_TIER up, and every break-glass."""
    return decision == "break_glass" or (decision == "approve" and tier >= CAREFUL_TIER)


def batch_key_of(view: RequestView) -> BatchKey:
    """Return a request's batch properties; requests with equal properties can be decided together."""
    return BatchKey(view.job_name, view.resource, view.action, view.current_tier)


def group_into_batches(items: Iterable[T], view_of: Callable[[T], RequestView]) -> tuple[RequestBatch[T], ...]:
    """Return the items of requests grouped by the requests' kind, in the order of each kind's first request."""
    kinds: dict[BatchKey, list[T]] = {}
    for item in items:
        kinds.setdefault(batch_key_of(view_of(item)), []).append(item)
    return tuple(RequestBatch(kind, tuple(requests)) for kind, requests in kinds.items())


def shorter_ttls(ttl: int) -> tuple[int, ...]:
    """Return the round ttls in seconds that are shorter than the requested one, the longest first."""
    return tuple(seconds for seconds in ROUND_TTLS_S if seconds < ttl)
