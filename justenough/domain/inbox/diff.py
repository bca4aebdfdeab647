"""Compares the facts of two runs of a job, or the facts that an approver saw with the current ones. Facts are text by name. No I/O, no clock."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Literal, NamedTuple

from justenough.domain.core.units import duration_text
from justenough.domain.jobs.spec import Access, JobSpec
from justenough.domain.jobs.states import BEYOND_TEXTS
from justenough.domain.jobs.tool_bounds_syntax import format_tool_lines
from justenough.domain.readmodel.views import RequestView

NamedFacts = Mapping[str, str]
"""Text by name; absent facts have no key."""
MAX_FACT_CHARS = 600
"""Maximum characters kept of a displayed policy's text, and of each side of a displayed difference."""
CONTEXT_CHARS = 60
"""Characters shown before the first difference."""
MAX_SAME_CHARS = 40
"""Maximum characters kept of an unchanged part between two changed words."""
MAX_COMPARED_WORDS = 60
"""Maximum number of words, and of spaces between them, that are compared one by one: the time grows with the cube of their number."""
MIN_ALIKE = 0.4
"""Minimum similarity for a word diff.

Texts that are less similar are shown as completely replaced, because a word diff would be unreadable.
"""


class Difference(NamedTuple):
    """One fact that changed. An absent fact is empty text."""

    what: str
    before: str
    now: str


class Part(NamedTuple):
    """Part of a word diff."""

    kind: Literal["same", "removed", "added"]
    text: str


def differences(before: NamedFacts, now: NamedFacts) -> tuple[Difference, ...]:
    """Return the facts that changed: first in the order of `now`, then the removed ones."""
    names = (*now, *(name for name in before if name not in now))
    return tuple(Difference(name, before.get(name, ""), now.get(name, "")) for name in names if before.get(name, "") != now.get(name, ""))


def to_excerpt(difference: Difference, max_chars: int = MAX_FACT_CHARS) -> Difference:
    """Cut a long difference to `max_chars` on each side, starting shortly before the first character that differs."""
    before, now, begin = difference.before, difference.now, 0
    if max(len(before), len(now)) > max_chars:
        # If one text begins with the other, they differ where the shorter one ends.
        same = next((at for at, (old, new) in enumerate(zip(before, now, strict=False)) if old != new), min(len(before), len(now)))
        begin = max(0, same - CONTEXT_CHARS)

    def excerpt(text: str) -> str:
        left = len(text) - begin - max_chars
        return ("… " if begin else "") + text[begin : begin + max_chars] + (f" … and {left:,} more characters" if left > 0 else "")

    return difference._replace(before=excerpt(before), now=excerpt(now))


def word_diff(before: str, now: str) -> tuple[Part, ...]:
    """Return the removed and added words, with the unchanged text between them shortened."""
    old, new = (re.findall(r"\s+|\S+", text) for text in (before, now))
    half, shorter = MAX_SAME_CHARS // 2, min(len(old), len(new))
    head = next((at for at, (one, other) in enumerate(zip(old, new, strict=False)) if one != other), shorter)
    backwards = zip(reversed(old[head:]), reversed(new[head:]), strict=False)
    tail = next((at for at, (one, other) in enumerate(backwards) if one != other), shorter - head)
    old_end, new_end = len(old) - tail, len(new) - tail
    # Only what lies between the first and the last difference is compared word by word, if it is not too long.
    changes: Sequence[tuple[str, int, int, int, int]] = (("replace", head, old_end, head, new_end),)
    if max(old_end, new_end) - head <= MAX_COMPARED_WORDS:
        matcher = SequenceMatcher(None, old[head:old_end], new[head:new_end], autojunk=False)
        changes = [(kind, a + head, b + head, c + head, d + head) for kind, a, b, c, d in matcher.get_opcodes()]
    steps = (("equal", 0, head, 0, head), *changes, ("equal", old_end, len(old), new_end, len(new)))
    same_words = sum(old_to - old_from for kind, old_from, old_to, _, _ in steps if kind == "equal")
    if 2 * same_words < MIN_ALIKE * (len(old) + len(new)):
        whole: tuple[Part, ...] = (Part("removed", before), Part("added", now))
        return tuple(part for part in whole if part.text)
    parts: list[Part] = []
    for kind, old_from, old_to, new_from, new_to in steps:
        removed, added = "".join(old[old_from:old_to]), "".join(new[new_from:new_to])
        if kind == "equal":
            parts.append(Part("same", added if len(added) <= MAX_SAME_CHARS else f"{added[:half]} … {added[-half:]}"))
        else:
            parts += [Part("removed", removed), Part("added", added)]
    return tuple(part for part in parts if part.text)


def run_facts(spec: JobSpec, bundle: str | None) -> NamedFacts:
    """Return the facts of a run that an approver needs: who acts, on whose data, what is executed and how."""
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
        **{f"limit of {name.replace('_', ' ')}": str(value) for name, value in run.limits.model_dump(mode="json").items()},
        **({"language model": model} if (model := model_text(spec)) else {}),
        # An approver assesses what the run can do with all of its access together.
        **_access_facts(spec.access),
        "beyond the order": BEYOND_TEXTS[spec.beyond],
    }


def _access_facts(items: Iterable[Access]) -> NamedFacts:
    """Return the requested access by action and resource, of which an order may have several items."""
    texts: dict[str, list[str]] = {}
    for item in items:
        deliver = item.deliver
        names = [*deliver.env, *(way.path for way in (deliver.file, deliver.pgpass, deliver.kubeconfig) if way)]
        parts = (
            f"requested for {duration_text(item.ttl)}",
            "optional" if item.optional else "",
            f"delivered as {', '.join(names)}" if names else "",
            f"only through {', '.join(format_tool_lines(item.tools))}" if item.tools else "",
        )
        texts.setdefault(f"{item.action.value} on {item.resource}", []).append(", ".join(filter(None, parts)))
    return {name: "; ".join(found) for name, found in texts.items()}


def request_facts(view: RequestView) -> NamedFacts:
    """Return the access that a request is for, and how that access is protected."""
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
    """Return the tool call that a request is for, each argument as JSON; empty if there is none."""
    if view.call is None:
        return {}
    arguments = {f"argument {name}": json.dumps(value, ensure_ascii=False) for name, value in view.call.get("arguments", {}).items()}
    return {"tool": str(view.call.get("tool", "")), **arguments}


def shown_facts(view: RequestView, policy_texts: Mapping[str, str]) -> NamedFacts:
    """Return the facts that an approver was shown and that can still change; the signed order fixes the others."""
    texts = {f"policy {name}": policy_texts.get(name, "")[:MAX_FACT_CHARS] for name in view.policies}
    approval = {"current tier": str(view.current_tier), "quorum": str(view.quorum), "Vault control group": "yes" if view.lock else "no"}
    return {**request_facts(view), **approval, "policy set": view.policy_digest, **texts, "digest": view.digest}


def model_text(spec: JobSpec) -> str:
    """Return the language model that a spec uses, with its budget; empty if it uses none."""
    use = spec.model
    return f"{use.name}: at most {use.requests:,} requests and {use.tokens:,} tokens" if use else ""


def agent_text(spec: JobSpec) -> str:
    """Return the agent as text: `refund-agent 1.4 (some-model)`; empty if the spec names none."""
    if spec.agent is None:
        return ""
    model = f"({spec.agent.model})" if spec.agent.model else ""
    return " ".join(part for part in (spec.agent.name, spec.agent.version, model) if part)
