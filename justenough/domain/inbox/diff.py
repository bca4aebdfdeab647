"""Compares the facts of two runs of a job, or facts as shown and as they are now. Facts are text by name. No I/O, no clock."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import NamedTuple

from justenough.domain.core.units import duration_text
from justenough.domain.jobs.spec import JobSpec, ResourceLimits
from justenough.domain.jobs.tool_bounds_syntax import format_tool_lines
from justenough.domain.readmodel.views import RequestView

NamedFacts = Mapping[str, str]
"""Text by name; absent facts have no key."""


MAX_FACT_CHARS = 600
"""Characters kept of a policy's text as shown, and of each side of a displayed difference."""
CONTEXT_CHARS = 60
"""Characters shown before the first difference."""


class Difference(NamedTuple):
    """One fact that changed. An absent fact is empty text."""

    what: str
    before: str
    now: str


def differences(before: NamedFacts, now: NamedFacts) -> tuple[Difference, ...]:
    """Return the facts that changed: first in the order of `now`, then those that are gone."""
    names = (*now, *(name for name in before if name not in now))
    found = (Difference(name, before.get(name, ""), now.get(name, "")) for name in names)
    return tuple(one for one in found if one.before != one.now)


def to_excerpt(difference: Difference, max_chars: int = MAX_FACT_CHARS) -> Difference:
    """Cut a long difference to `max_chars` on each side, starting shortly before the first character that differs."""
    begin = 0
    if max(len(difference.before), len(difference.now)) > max_chars:
        begin = max(0, _common_prefix_length(difference.before, difference.now) - CONTEXT_CHARS)
    return difference._replace(before=_excerpt(difference.before, begin, max_chars), now=_excerpt(difference.now, begin, max_chars))


def run_facts(spec: JobSpec, bundle: str | None) -> NamedFacts:
    """Return what an approver needs to know of a run: who acts, on whose data, what is executed and how."""
    run, agent = spec.run, agent_text(spec)
    return {
        "task": spec.task,
        "environment": spec.environment,
        **({"agent": agent} if agent else {}),
        **({"data": ", ".join(f"{key}={value}" for key, value in spec.data_scope.items())} if spec.data_scope else {}),
        "command": shlex.join(run.command),
        **({"files": bundle} if bundle else {}),
        **{f"env {name}": value for name, value in run.env.items()},
        "network": run.network,
        **({"interpreter": run.python} if run.python else {}),
        "job's timeout": duration_text(run.timeout),
        **limit_facts(run.limits),
        # What the run could do with all of its access together is what an approver weighs.
        **{
            f"{item.action.value} on {item.resource}": f"asked for {duration_text(item.ttl)}{', optional' if item.optional else ''}"
            for item in spec.access
        },
    }


def limit_facts(limits: ResourceLimits) -> NamedFacts:
    """Return the resource limits of a job."""
    return {f"limit of {name.replace('_', ' ')}": str(value) for name, value in limits.model_dump(mode="json").items()}


def request_facts(view: RequestView) -> NamedFacts:
    """Return what a request is for, and how it is guarded."""
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
    """Return the tool call that a request is for, each argument as JSON; empty if it is for none."""
    if view.call is None:
        return {}
    given = view.call.get("arguments", {})
    return {"tool": str(view.call.get("tool", "")), **{f"argument {name}": json.dumps(given[name], ensure_ascii=False) for name in given}}


def shown_facts(view: RequestView, policy_texts: Mapping[str, str]) -> NamedFacts:
    """Return what an approver was shown that can still change; the signed order fixes the rest."""
    texts = {f"policy {name}": policy_texts.get(name, "")[:MAX_FACT_CHARS] for name in view.policies}
    climbed = {"tier that answers": str(view.current_tier), "quorum": str(view.quorum), "needs Vault's lock": "yes" if view.lock else "no"}
    return {**request_facts(view), **climbed, "policy set": view.policy_digest, **texts, "digest": view.digest}


def agent_text(spec: JobSpec) -> str:
    """Return the agent as text: `refund-agent 1.4 (some-model)`; empty if the spec names none."""
    if spec.agent is None:
        return ""
    model = f"({spec.agent.model})" if spec.agent.model else ""
    return " ".join(part for part in (spec.agent.name, spec.agent.version, model) if part)


def _common_prefix_length(one: str, other: str) -> int:
    """Return how many characters two texts begin with together."""
    # Where one ends first, that is the first difference.
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _excerpt(text: str, begin: int, most: int) -> str:
    left = len(text) - begin - most
    return ("… " if begin else "") + text[begin : begin + most] + (f" … and {left:,} more characters" if left > 0 else "")
