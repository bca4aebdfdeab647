"""Policy decisions in words, for the command line and the pages. Pure. The input is the JSON of `justenough.domain.policy.explain`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from justenough.domain.jobs.states import BEYOND_TEXTS

Json = Mapping[str, Any]

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
FACT_LABELS: Mapping[tuple[str, str], str] = {
    ("principal", "name"): "the job's name",
    ("principal", "task"): "the task",
    ("principal", "agent"): "the agent",
    ("principal", "environment"): "the environment",
    ("principal", "requester"): "the launcher",
    ("principal", "requester_groups"): "the launcher's groups",
    ("principal", "labels"): "the labels",
    ("principal", "data_scope"): "the data scope",
    ("context", "phase"): "the phase",
    ("context", "ttl_seconds"): "the requested duration",
    ("context", "reason"): "the reason",
    ("context", "held"): "the job's active access",
    ("context", "held_actions"): "the job's active access",
    ("context", "issued_count"): "the number of credentials issued",
    ("context", "touched"): "the sensitivity of data it has touched",
    ("context", "touched_resources"): "the resources it has touched",
    ("context", "touched_external"): "whether it touched a resource outside the organisation",
    ("context", "hour"): "the hour",
    ("context", "weekday"): "the day of the week",
    ("context", "break_glass"): "break-glass",
}
"""Labels of the attributes that policies can read, apart from those of the resource and the tier."""

POLICY_SOURCE_TEXT: Mapping[str, str] = {
    "default-deny": "No policy allows it.",
    "no-policies": "No policies are in force, so every request is denied.",
    "beyond-order": "The signed order does not name this access, so policy alone cannot allow it.",
    "double-lock": "The catalog puts this action behind a Vault control group and sets the lowest tier that can authorize it.",
}
"""Explanations of the decision sources that are not policies."""


def denial_text(policies: Iterable[str], reasons: Mapping[str, str]) -> str:
    """Return why policy denied an access: the sentence of each deciding policy, then its id. `reasons`: known sentences, by id."""
    sentences = ((name, reasons.get(name) or POLICY_SOURCE_TEXT.get(name, "")) for name in policies)
    return "; ".join(f"{sentence.rstrip('.')} ({name})" if sentence else name for name, sentence in sentences)


def outcome(one: Json) -> str:
    """Return an outcome as a label: `allowed`, `tier 2`, `denied`."""
    return f"tier {one['tier']}" if one["outcome"] == "needs_approval" else str(one["outcome"])


def circumstances(explanation: Json) -> str:
    """Return the assumed launcher and time as one line."""
    groups = ", ".join(explanation["requester_groups"])
    launcher = f"a member of {groups}" if groups else "somebody without a group"
    when = f"at {explanation['hour']:02}:00 UTC on a {WEEKDAYS[explanation['weekday'] - 1]}"
    return f"{explanation['name']} in {explanation['environment']}, launched {when} by {launcher}"


def other_access(explanation: Json) -> str:
    """Return what happens to access that the order does not name."""
    return f"Access that the order does not name: {BEYOND_TEXTS[explanation['beyond']]}"


def tiers(request: Json) -> Iterator[str]:
    """Yield a line that names the sufficient approval. If a lower tier is sufficient and a higher one is not, also yield one line per tier."""
    known, allowing = request["tiers"], [tier for tier in request["tiers"] if tier["allows"]]
    needed = next((tier for tier in known if request["outcome"] == "needs_approval" and tier["tier"] == request["tier"]), None)
    if needed:
        yield f"{who(needed)} is enough"
    if allowing and list(known[len(known) - len(allowing) :]) != allowing:
        for tier in known:
            allows = "allowed" if tier["allows"] else "not allowed"
            yield f"with {who(tier)}: {allows} ({', '.join(tier['policies']) or 'no policy'})"
    elif request["outcome"] == "denied" and known:
        yield "no tier is enough"


def who(tier: Json) -> str:
    """Return a tier with its name, quorum and approvers."""
    if not tier["tier"]:
        return "no approval"
    return f"tier {tier['tier']}, {tier['name']} ({tier['quorum']} of {', '.join(tier['approvers'])})"


def change_text(change: Json) -> str:
    """Return a counterfactual change as text."""
    return change["value"] if change["fact"] in {"policy", "order"} else f"{change['fact']} {change['value']}"


def dependency_labels(mentioned: Iterable[tuple[str, str]]) -> Sequence[str]:
    """Return labels of the attributes, other than resource and tier, that a decision may depend on."""
    # Every value of approved_tier is tried to find the tier, so a decision does not depend on it.
    attributes = [one for one in mentioned if one[0] != "resource" and one[1] != "approved_tier"]
    if any(name == "*" for _, name in attributes):
        return ("any attribute of the job",)
    order = list(FACT_LABELS)
    attributes.sort(key=lambda one: order.index(one) if one in FACT_LABELS else len(order))
    return tuple(dict.fromkeys(FACT_LABELS.get(one, one[1]) for one in attributes))
