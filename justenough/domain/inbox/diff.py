"""What differs between two runs of a job, or between what was shown and what is there now. Facts are text by name. No I/O, no clock."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from justenough.domain.core.units import duration_text
from justenough.domain.jobs.spec import JobSpec, Limits
from justenough.domain.jobs.tool_bounds_syntax import lines_of
from justenough.domain.readmodel.views import RequestView

Facts = Mapping[str, str]
"""What matters about a request, by what it is called; what is not said is not there."""


LONGEST = 600
"""Characters of a policy's text that are remembered of what was shown, and of a fact that is shown beside another."""
AROUND = 60
"""Characters that are shown before the first that differs."""


class Difference(NamedTuple):
    """One fact that is another now; empty for what was not, or is no more."""

    what: str
    before: str
    now: str


def differences(before: Facts, now: Facts) -> tuple[Difference, ...]:
    """Return what differs, in the order of `now`, and then what is no more. Nothing where nothing does."""
    names = (*now, *(name for name in before if name not in now))
    found = (Difference(name, before.get(name, ""), now.get(name, "")) for name in names)
    return tuple(one for one in found if one.before != one.now)


def telling(one: Difference, most: int = LONGEST) -> Difference:
    """Return a difference with what is long cut to so many characters, beginning a little before the first that differs: no likeness hides it."""
    begin = 0
    if max(len(one.before), len(one.now)) > most:
        begin = max(0, _alike(one.before, one.now) - AROUND)
    return one._replace(before=_part(one.before, begin, most), now=_part(one.now, begin, most))


def run_facts(spec: JobSpec, bundle: str | None) -> Facts:
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
        **dict(_access(spec)),
    }


def limit_facts(limits: Limits) -> Facts:
    """Return what a job may take of its machine."""
    return {f"limit of {name.replace('_', ' ')}": str(value) for name, value in limits.model_dump(mode="json").items()}


def asked_facts(view: RequestView) -> Facts:
    """Return what a request asks for, and how it is guarded."""
    return {
        "action": view.action,
        "resource": view.resource,
        "ttl": duration_text(view.ttl),
        **({"tools": ", ".join(lines_of(view.tools))} if view.tools else {}),
        "tier": str(view.tier),
        "sensitivity": view.sensitivity,
        "revocable": view.revocable,
        "policies": ", ".join(view.policies),
    }


def call_facts(view: RequestView) -> Facts:
    """Return the call that a request is for: the tool, and each argument as JSON; nothing where it is for none."""
    if view.call is None:
        return {}
    given = view.call.get("arguments", {})
    return {"tool": str(view.call.get("tool", "")), **{f"argument {name}": json.dumps(given[name], ensure_ascii=False) for name in given}}


def shown_facts(view: RequestView, policy_texts: Mapping[str, str]) -> Facts:
    """Return what somebody who answers has been shown, beside what a job's signed order fixes for good."""
    texts = {f"policy {name}": policy_texts.get(name, "")[:LONGEST] for name in view.policies}
    climbed = {"tier that answers": str(view.current_tier), "quorum": str(view.quorum), "needs Vault's lock": "yes" if view.lock else "no"}
    return {**asked_facts(view), **climbed, "policy set": view.policy_digest, **texts, "digest": view.digest}


def agent_text(spec: JobSpec) -> str:
    """Return who acts: `refund-agent 1.4 (some-model)`; empty for nobody in particular."""
    if spec.agent is None:
        return ""
    model = f"({spec.agent.model})" if spec.agent.model else ""
    return " ".join(part for part in (spec.agent.name, spec.agent.version, model) if part)


def _access(spec: JobSpec) -> Iterator[tuple[str, str]]:
    """Yield the other things that a run asks for: what it could do with all of them together is what an approver weighs."""
    for item in spec.access:
        yield f"{item.action.value} on {item.resource}", f"asked for {duration_text(item.ttl)}{', optional' if item.optional else ''}"


def _alike(one: str, other: str) -> int:
    """Return how many characters two texts begin with together."""
    # Where one ends first, that is the first difference.
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _part(text: str, begin: int, most: int) -> str:
    left = len(text) - begin - most
    return ("… " if begin else "") + text[begin : begin + most] + (f" … and {left:,} more characters" if left > 0 else "")


def _pairs(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())
