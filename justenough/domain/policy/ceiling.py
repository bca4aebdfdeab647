"""The signed order as a ceiling: which access it names, what happens to any other, and how much a job that it launches may request: access,
time, data, bounds on tools, limits. No I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from justenough.domain.approvals.tiers import MAX_TIER
from justenough.domain.catalog.gateway_validation import model_access
from justenough.domain.catalog.models import Catalog
from justenough.domain.core.errors import Problem
from justenough.domain.core.units import duration_text, size_text
from justenough.domain.jobs.spec import Access, JobSpec
from justenough.domain.jobs.states import BEYOND_ORDER, Beyond
from justenough.domain.policy.tier_result import TierResult
from justenough.domain.tools.call import call_of

LEAST_TIERS = {"policy": 0, "ask": 1, "none": MAX_TIER + 1}
"""By value of `beyond`, the lowest tier at which access that the order does not name can be allowed. No tier is above MAX_TIER."""
BYTE_LIMITS = frozenset({"memory", "file_size"})


def beyond_of(spec: JobSpec, access: Access, catalog: Catalog) -> Beyond | None:
    """Return what an order allows for an access that it does not name; None if it names the access."""
    return None if is_model_key(spec, access, catalog) or any(_names(item, access) for item in spec.access) else spec.beyond


def is_model_key(spec: JobSpec, access: Access, catalog: Catalog) -> bool:
    """Whether an access is to the key of the spec's model, which only the model gateway uses."""
    key = model_access(spec.model, catalog) if spec.model and call_of(access) is None else None
    return key is not None and (key.resource, key.action) == (access.resource, access.action)


def with_ceiling(result: TierResult, beyond: Beyond | None) -> TierResult:
    """Return a result in which the order forbids every tier that is too low for access that it does not name."""
    return result.with_least_tier(LEAST_TIERS[beyond] if beyond else 0, BEYOND_ORDER)


def attenuation_problems(spec: JobSpec, parent: JobSpec) -> Iterator[Problem]:
    """Yield each problem of a spec that requests more than its parent's spec, by YAML path. `parent.access`: only what approvers granted."""
    if spec.environment != parent.environment:
        yield Problem("environment", f"the parent job is in {parent.environment!r}")
    for key, value in parent.data_scope.items():
        if spec.data_scope.get(key) != value:
            yield Problem(f"data_scope.{key}", f"the parent job is bound to {value!r}")
    if spec.run.timeout > parent.run.timeout:
        yield Problem("run.timeout", f"longer than the parent job's {duration_text(parent.run.timeout)}")
    if spec.run.network == "host" and parent.run.network == "none":
        yield Problem("run.network", "the parent job has no network")
    if LEAST_TIERS[spec.beyond] < LEAST_TIERS[parent.beyond]:
        yield Problem("beyond", f"`{spec.beyond}` allows more than the parent job's `{parent.beyond}`; write `beyond: {parent.beyond}`")
    yield from _limit_problems(spec, parent)
    for index, item in enumerate(spec.access):
        yield from access_attenuation_problems(item, parent.access, path=f"access[{index}]")


def access_attenuation_problems(access: Access, items: Iterable[Access], *, path: str = "access") -> Iterator[Problem]:
    """Yield the problems of an access that no item of the parent covers, compared with the closest item."""
    items = [item for item in items if item.resource == access.resource]
    if not items:
        yield Problem(f"{path}.resource", f"the parent job has no access to {access.resource}")
        return
    matching = [item for item in items if item.action is access.action]
    if not matching:
        actions = ", ".join(sorted({item.action.value for item in items}))
        yield Problem(f"{path}.action", f"the parent job has {actions} on {access.resource}, but not {access.action}")
        return
    yield from min((tuple(_item_problems(access, item, path)) for item in matching), key=len)


def _names(item: Access, access: Access) -> bool:
    """Whether an item of an order names an access: the same action, at least the same ttl, and only the item's tools if it has any."""
    if (item.resource, item.action) != (access.resource, access.action):
        return False
    if call := call_of(access):
        # The credential of a call is revoked after the call, so its ttl does not matter. Bounds are checked apart.
        return item.tools is None or call.tool in item.tools
    return access.ttl <= item.ttl and (item.tools is None or (access.tools is not None and access.tools.keys() <= item.tools.keys()))


def _limit_problems(spec: JobSpec, parent: JobSpec) -> Iterator[Problem]:
    """Yield the resource limits, and the model's budgets, that are above the parent's."""
    for name, limit in parent.run.limits:
        if getattr(spec.run.limits, name) > limit:
            text = size_text(limit) if name in BYTE_LIMITS else duration_text(limit) if name == "cpu" else str(limit)
            yield Problem(f"run.limits.{name}", f"more than the parent job's {text}")
    if spec.model is None:
        return
    if parent.model is None or parent.model.name != spec.model.name:
        yield Problem("model.name", f"the parent job {f'uses {parent.model.name}' if parent.model else 'has no model'}")
        return
    for name in ("requests", "tokens"):
        budget = getattr(parent.model, name)
        if getattr(spec.model, name) > budget:
            yield Problem(f"model.{name}", f"more than the parent job's {budget:,}")


def _item_problems(access: Access, parent: Access, path: str) -> Iterator[Problem]:
    call = call_of(access)
    # The credential of a call is revoked after the call, so its ttl does not matter.
    if call is None and access.ttl > parent.ttl:
        yield Problem(f"{path}.ttl", f"longer than the parent job's {duration_text(parent.ttl)}")
    if parent.tools is None:
        return
    if call is None and access.tools is None:
        yield Problem(f"{path}.tools", f"the parent job has access only through tools: {', '.join(sorted(parent.tools))}")
    elif call is None:
        for name, bounds in (access.tools or {}).items():
            if name not in parent.tools:
                yield Problem(f"{path}.tools.{name}", "the parent job may not use this tool")
                continue
            for bound, why in bounds.excess_over(parent.tools[name]):
                yield Problem(f"{path}.tools.{name}.{bound}", f"{why}: the parent job has a bound here")
    elif call.tool not in parent.tools:
        yield Problem(f"{path}.call", f"the parent job may not use {call.tool}")
    else:
        # Calls are counted when they are made. Here, only the arguments are checked, and whether the tool may be called at all.
        bounds = parent.tools[call.tool]
        bounds = bounds.model_copy(update={"calls": 0 if bounds.calls == 0 else None})
        for why in bounds.problems(call.arguments, calls_made=0, by="the parent job"):
            yield Problem(f"{path}.call", why)
