"""Checks that a job requests no more than its parent has: access, time, data, bounds on tools, limits. No I/O, no clock.

Compares the two orders; the parent's `access` is reduced to the access that its approvers granted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from justenough.domain.core.errors import Problem
from justenough.domain.core.units import duration_text, size_text
from justenough.domain.jobs.spec import Access, JobSpec
from justenough.domain.policy.ceiling import is_looser
from justenough.domain.tools.call import call_of

BYTE_LIMITS = frozenset({"memory", "file_size"})


def attenuation_problems(spec: JobSpec, parent: JobSpec) -> Iterator[Problem]:
    """Yield each problem of a spec that requests more than its parent's spec, by YAML path."""
    if spec.environment != parent.environment:
        yield Problem("environment", f"the parent job is in {parent.environment!r}")
    for key, value in parent.data_scope.items():
        if spec.data_scope.get(key) != value:
            yield Problem(f"data_scope.{key}", f"the parent job is bound to {value!r}")
    if spec.run.timeout > parent.run.timeout:
        yield Problem("run.timeout", f"longer than the parent job's {duration_text(parent.run.timeout)}")
    if spec.run.network == "host" and parent.run.network == "none":
        yield Problem("run.network", "the parent job has no network")
    if is_looser(spec.beyond, parent.beyond):
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


def _limit_problems(spec: JobSpec, parent: JobSpec) -> Iterator[Problem]:
    """Yield the resource limits, and the model's budgets, that are above the parent's."""
    for name, limit in parent.run.limits:
        if getattr(spec.run.limits, name) > limit:
            text = size_text(limit) if name in BYTE_LIMITS else duration_text(limit) if name == "cpu" else str(limit)
            yield Problem(f"run.limits.{name}", f"more than the parent job's {text}")
    if spec.model is None:
        return
    if parent.model is None or parent.model.name != spec.model.name:
        yield Problem("model.name", f"the parent job has {parent.model.name if parent.model else 'no model'}")
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
        for why in bounds.problems(call.arguments, made=0, by="the parent job"):
            yield Problem(f"{path}.call", why)
