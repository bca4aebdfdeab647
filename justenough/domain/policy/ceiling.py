"""The signed order as a ceiling: which access it names, and what happens to any other. No I/O, no clock."""

from __future__ import annotations

from justenough.domain.approvals.tiers import MAX_TIER
from justenough.domain.catalog.gateway_validation import model_access
from justenough.domain.catalog.models import Catalog
from justenough.domain.jobs.spec import Access, JobSpec
from justenough.domain.jobs.states import BEYOND_ORDER, Beyond
from justenough.domain.policy.tier_result import TierResult
from justenough.domain.tools.call import call_of

LEAST_TIERS = {"policy": 0, "ask": 1, "none": MAX_TIER + 1}
"""By value of `beyond`, the lowest tier at which access that the order does not name can be allowed. No tier is above MAX_TIER."""


def beyond_of(spec: JobSpec, access: Access, catalog: Catalog) -> Beyond | None:
    """Return what an order allows for an access that it does not name; None if it names the access."""
    key = model_access(spec.model, catalog) if spec.model and call_of(access) is None else None
    is_model_key = key is not None and (key.resource, key.action) == (access.resource, access.action)
    return None if is_model_key or any(_names(item, access) for item in spec.access) else spec.beyond


def with_ceiling(result: TierResult, beyond: Beyond | None) -> TierResult:
    """Return a result in which the order forbids every tier that is too low for access that it does not name."""
    least = LEAST_TIERS[beyond] if beyond else 0
    return result.with_least_tier(least, BEYOND_ORDER) if least else result


def is_looser(beyond: Beyond, other: Beyond) -> bool:
    """Whether an order allows more unnamed access than another order does."""
    return LEAST_TIERS[beyond] < LEAST_TIERS[other]


def _names(item: Access, access: Access) -> bool:
    """Whether an item of an order names an access: the same action, at least the same ttl, and only the item's tools if it has any."""
    if (item.resource, item.action) != (access.resource, access.action):
        return False
    if call := call_of(access):
        # The credential of a call is revoked after the call, so its ttl does not matter. Bounds are checked apart.
        return item.tools is None or call.tool in item.tools
    return access.ttl <= item.ttl and (item.tools is None or (access.tools is not None and access.tools.keys() <= item.tools.keys()))
