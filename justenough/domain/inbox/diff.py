"""What differs between two runs of a job, or between what was shown and what is there now. Facts are text by name. No I/O, no clock."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from justenough.domain.core.units import duration_text
from justenough.domain.jobs.spec import JobSpec, ResourceLimits
from justenough.domain.jobs.tool_bounds_syntax import format_tool_lines
from justenough.domain.readmodel.views import RequestView

NamedFacts = Mapping[str, str]
"""What matters about a request, by what it is called; what is not said is not there."""


MAX_FACT_CHARS = 600
"""Characters of a policy's text that are remembered of what was shown, and of a fact that is shown beside another."""
CONTEXT_CHARS = 60
"""Characters that are shown before the first that differs."""


class Difference(NamedTuple):
    """One fact that is another now; empty for what was not, or is no more."""

    what: str
    before: str
    now: str


def differences(before: NamedFacts, now: NamedFacts) -> tuple[Difference, ...]:
    """Return what differs, in the order of `now`, and then what is no more. Nothing where nothing does."""
    names = (*now, *(name for name in before if name not in now))
    found = (Difference(name, before.get(name, ""), now.get(name, "")) for name in names)
    return tuple(one for one in found if one.before != one.now)


def to_excerpt(difference: Difference, max_chars: int = MAX_FACT_CHARS) -> Difference:
    """Return a difference with what is long cut to so many characters, beginning a little before the first that differs: no likeness hides it."""
    begin = 0
    if max(len(difference.before), len(difference.now)) > max_chars:
        begin = max(0, _common_prefix_length(difference.before, difference.now) - CONTEXT_CHARS)
    return difference._replace(before=_excerpt(difference.before, begin, max_chars), now=_excerpt(difference.now, begin, max_chars))


def run_facts(spec: JobSpec, bundle: str | None) -> NamedFacts:
    """Return what a run does, as an approver needs it: who acts, on whose data, what is executed and how."""
    run, agent = spec.run, agent_text(spec)
    return {
        "task": spec.task,
        "environment": spec.environment,
        **({"agent": agent} if agent else {}),
        **({"data": _pairs(spec.data_scope)} if spec.data_scope else {}),
        "command": shlex.join(run.command),
        **({"files": bundle} if bundle else {}),
        **{f"env {name}": value for name, value in run.env.items()},
        "network": run.network,
        **({"interpreter": run.python} if run.python else {}),
        "job's timeout": duration_text(run.timeout),
        **limit_facts(run.limits),
        **dict(_access_facts(spec)),
    }


def limit_facts(limits: ResourceLimits) -> NamedFacts:
    """Return what a job may take of its machine."""
    return {f"limit of {name.replace('_', ' ')}": str(value) for name, value in limits.model_dump(mode="json").items()}


def request_facts(view: RequestView) -> NamedFacts:
    """Return what a request asks for, and how it is guarded."""
    return {
        "action": view.action,
        "resource": view.resource,
        "ttl": duration_text(view.ttl),
        **({"tools": ", ".join(format_tool_lines(view.tools))} if view.tools else {}),
        "tier": str(view.tier),
        "sensitivity": view.sensitivity,
        "revocable": view.revocable,
        "policies": ", ".join(view.policies),
    }


def call_facts(view: RequestView) -> NamedFacts:
    """Return the call that a request is for: the tool, and each argument as JSON; nothing where it is for none."""
    if view.call is None:
        return {}
    given = view.call.get("arguments", {})
    return {"tool": str(view.call.get("tool", "")), **{f"argument {name}": json.dumps(given[name], ensure_ascii=False) for name in given}}


def shown_facts(view: RequestView, policy_texts: Mapping[str, str]) -> NamedFacts:
    """Return what somebody who answers has been shown, beside what a job's signed order fixes for good."""
    texts = {f"policy {name}": policy_texts.get(name, "")[:MAX_FACT_CHARS] for name in view.policies}
    climbed = {"tier that answers": str(view.current_tier), "quorum": str(view.quorum), "needs Vault's lock": "yes" if view.lock else "no"}
    return {**request_facts(view), **climbed, "policy set": view.policy_digest, **texts, "digest": view.digest}


def agent_text(spec: JobSpec) -> str:
    """Return who acts: `refund-agent 1.4 (some-model)`; empty for nobody in particular."""
    if spec.agent is None:
        return ""
    model = f"({spec.agent.model})" if spec.agent.model else ""
    return " ".join(part for part in (spec.agent.name, spec.agent.version, model) if part)


def _access_facts(spec: JobSpec) -> Iterator[tuple[str, str]]:
    """Yield the other things that a run asks for: what it could do with all of them together is what an approver weighs."""
    for item in spec.access:
        yield f"{item.action.value} on {item.resource}", f"asked for {duration_text(item.ttl)}{', optional' if item.optional else ''}"


def _common_prefix_length(one: str, other: str) -> int:
    """Return how many characters two texts begin with together."""
    # Where one ends first, that is the first difference.
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _excerpt(text: str, begin: int, most: int) -> str:
    left = len(text) - begin - most
    return ("… " if begin else "") + text[begin : begin + most] + (f" … and {left:,} more characters" if left > 0 else "")


def _pairs(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())
