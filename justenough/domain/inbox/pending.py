"""What a request that waits still needs, what silence does to it, and what may be answered together. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from justenough.domain.approvals.tiers import Tiers
from justenough.domain.readmodel.views import RequestView

CAREFUL_TIER = 3
"""From this tier up an approval takes a typed confirmation and a fresh login, and is given one at a time."""


class TimeoutOutcome(NamedTuple):
    """What happens where nobody answers in time."""

    at: datetime | None
    """When; None where no clock runs."""
    climbs_to: int | None
    """The next tier; None where the request is denied then."""
    groups: tuple[str, ...] = ()
    """Who answers there."""


class BatchKey(NamedTuple):
    """What a batch has in common."""

    job_name: str
    resource: str
    action: str
    tier: int
    """The one that answers now."""


class RequestBatch(NamedTuple):
    """Requests of one kind, in the order given."""

    kind: BatchKey
    requests: tuple[RequestView, ...]

    @property
    def together(self) -> bool:
        """Whether they may be answered with one press: several, and at no tier that asks for care."""
        return len(self.requests) > 1 and self.kind.tier < CAREFUL_TIER


def timeout_outcome(view: RequestView, tiers: Tiers) -> TimeoutOutcome:
    """Return what happens to a waiting request where nobody answers."""
    following = tiers.tiers.get(view.current_tier + 1)
    if following is None:
        return TimeoutOutcome(view.expires_at, None)
    return TimeoutOutcome(view.expires_at, view.current_tier + 1, following.approvers)


def missing_approvals(view: RequestView) -> int:
    """Return how many more people must approve at the tier that answers now."""
    approved = {item.approver_id for item in view.counting_approvals}
    return max(0, view.quorum - len(approved))


def needs_care(decision: str, tier: int) -> bool:
    """Whether an answer takes a typed confirmation and a fresh login: what gives access away at a high tier, and every broken glass."""
    return decision == "break_glass" or (decision == "approve" and tier >= CAREFUL_TIER)


def batch_key_of(view: RequestView) -> BatchKey:
    """Return what a request must share with others to be answered with them."""
    return BatchKey(view.job_name, view.resource, view.action, view.current_tier)


def group_into_batches(views: Iterable[RequestView]) -> tuple[RequestBatch, ...]:
    """Return requests by kind, each kind where its first one stands."""
    kinds: dict[BatchKey, list[RequestView]] = {}
    for view in views:
        kinds.setdefault(batch_key_of(view), []).append(view)
    return tuple(RequestBatch(kind, tuple(found)) for kind, found in kinds.items())


def shorter_ttls(ttl: int) -> tuple[int, ...]:
    """Return round times that are less than what was asked for (seconds), the longest first."""
    return tuple(seconds for seconds in ROUND_TTLS_S if seconds < ttl)


ROUND_TTLS_S = (12 * 3600, 6 * 3600, 3600, 1800, 900, 600, 300, 120, 60, 30)
