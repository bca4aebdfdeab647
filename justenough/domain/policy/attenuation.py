"""Checks that a job requests no more than its parent has: access, time, data, bounds on tools, limits. No I/O, no clock.

Compares the two orders; the parent's `access` is what its approvers left of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from justenough.domain.core.errors import Problem
from justenough.domain.core.units import duration_text, size_text
from justenough.domain.jobs.spec import Access, JobSpec, ResourceLimits
from justenough.domain.jobs.tool_bounds import Bounds
from justenough.domain.tools.call import call_of

BYTE_LIMITS = frozenset({"memory", "file_size"})


def attenuation_problems(spec: JobSpec, parent: JobSpec) -> Iterator[Problem]:
    """Yield where a spec requests more than its parent's spec, by YAML path."""
    if spec.environment != parent.environment:
        yield Problem("environment", f"the job that launches it is in {parent.environment!r}")
    for key, value in parent.data_scope.items():
        if spec.data_scope.get(key) != value:
            yield Problem(f"data_scope.{key}", f"the job that launches it is bound to {value!r}")
    if spec.run.timeout > parent.run.timeout:
        yield Problem("run.timeout", f"longer than {duration_text(parent.run.timeout)}, which the job that launches it has")
    if spec.run.network == "host" and parent.run.network == "none":
        yield Problem("run.network", "the job that launches it has none")
    yield from _limit_problems(spec.run.limits, parent.run.limits)
    yield from _model_problems(spec, parent)
    for index, item in enumerate(spec.access):
        yield from access_attenuation_problems(item, parent.access, where=f"access[{index}]")


def access_attenuation_problems(access: Access, items: Iterable[Access], *, where: str = "access") -> Iterator[Problem]:
    """Yield why none of the parent's items covers some access: the problems with the item that comes nearest."""
    there = [item for item in items if item.resource == access.resource]
    if not there:
        yield Problem(f"{where}.resource", f"the job that launches it has no access to {access.resource}")
        return
    same = [item for item in there if item.action is access.action]
    if not same:
        has = ", ".join(sorted({item.action.value for item in there}))
        yield Problem(f"{where}.action", f"the job that launches it has {has} on {access.resource}, and not {access.action}")
        return
    yield from min((tuple(_item_problems(access, item, where)) for item in same), key=len)


def _limit_problems(limits: ResourceLimits, parent: ResourceLimits) -> Iterator[Problem]:
    for name, most in parent:
        if getattr(limits, name) > most:
            said = size_text(most) if name in BYTE_LIMITS else duration_text(most) if name == "cpu" else str(most)
            yield Problem(f"run.limits.{name}", f"more than {said}, which the job that launches it has")


def _model_problems(spec: JobSpec, parent: JobSpec) -> Iterator[Problem]:
    if spec.model is None:
        return
    if parent.model is None or parent.model.name != spec.model.name:
        yield Problem("model.name", f"the job that launches it has {parent.model.name if parent.model else 'no model'}")
        return
    for name in ("requests", "tokens"):
        most = getattr(parent.model, name)
        if getattr(spec.model, name) > most:
            yield Problem(f"model.{name}", f"more than {most:,}, which the job that launches it has")


def _item_problems(access: Access, item: Access, where: str) -> Iterator[Problem]:
    call = call_of(access)
    # The credential of a call ends with the call, so its ttl does not matter.
    if call is None and access.ttl > item.ttl:
        yield Problem(f"{where}.ttl", f"longer than {duration_text(item.ttl)}, for which the job that launches it has it")
    if item.tools is None:
        return
    if call is not None:
        for why in _call_problems(call.tool, call.arguments, item.tools):
            yield Problem(f"{where}.call", why)
    elif access.tools is None:
        yield Problem(f"{where}.tools", f"the job that launches it has it through tools only: {', '.join(sorted(item.tools))}")
    else:
        yield from _tool_problems(access.tools, item.tools, f"{where}.tools")


def _call_problems(tool: str, arguments: Mapping[str, object], tools: Mapping[str, Bounds]) -> Iterator[str]:
    if tool not in tools:
        yield f"the job that launches it may not use {tool}"
        return
    # The number of calls is checked when they are made; only arguments are checked here.
    yield from tools[tool].model_copy(update={"calls": None}).problems(arguments, made=0, by="the job that launches it")


def _tool_problems(tools: Mapping[str, Bounds], parent: Mapping[str, Bounds], where: str) -> Iterator[Problem]:
    for name, bounds in tools.items():
        if name not in parent:
            yield Problem(f"{where}.{name}", "the job that launches it may not use this tool")
            continue
        for path, why in bounds.excess_over(parent[name]):
            yield Problem(f"{where}.{name}.{path}", f"{why}: the job that launches it is bound there")
