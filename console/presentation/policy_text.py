"""What policy says of a request, in words, for the command line and the pages alike. Pure; what is told is `justenough.domain.policy.explain`'s, as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
FACT_LABELS: Mapping[tuple[str, str], str] = {
    ("principal", "name"): "the job's name",
    ("principal", "task"): "its task",
    ("principal", "agent"): "its agent",
    ("principal", "environment"): "its environment",
    ("principal", "requester"): "who launched it",
    ("principal", "requester_groups"): "the launcher's groups",
    ("principal", "labels"): "its labels",
    ("principal", "data_scope"): "its data scope",
    ("context", "phase"): "when it asks",
    ("context", "ttl_seconds"): "how long it asks for",
    ("context", "reason"): "its reason",
    ("context", "held"): "what it holds",
    ("context", "held_actions"): "what it holds",
    ("context", "issued_count"): "how much it was issued",
    ("context", "touched"): "how sensitive the data is that it has touched",
    ("context", "touched_resources"): "what it has touched",
    ("context", "touched_external"): "whether it had a way out of the organisation",
    ("context", "hour"): "the hour",
    ("context", "weekday"): "the day of the week",
    ("context", "break_glass"): "whether somebody breaks glass",
}
"""What policies may look at beside the resource and the tier."""
SWEPT_FACTS = ("approved_tier",)
"""What a decision is worked out for, so that it does not depend on it."""


def outcome(one: Json) -> str:
    """Return an outcome as people write it: `allowed`, `tier 2`, `denied`."""
    return f"tier {one['tier']}" if one["outcome"] == "needs_approval" else str(one["outcome"])


def circumstances(explanation: Json) -> str:
    """Return who is taken to launch it, and when."""
    groups = ", ".join(explanation["requester_groups"]) or "no group"
    when = f"at {explanation['hour']} h UTC on a {WEEKDAYS[explanation['weekday'] - 1]}"
    return f"{explanation['name']} in {explanation['environment']}, launched {when} by a member of: {groups}"


def tiers(request: Json) -> Iterator[str]:
    """Yield who is enough; where tiers contradict, what each says."""
    known, allowing = request["tiers"], [tier for tier in request["tiers"] if tier["allows"]]
    needed = next((tier for tier in known if request["outcome"] == "needs_approval" and tier["tier"] == request["tier"]), None)
    if needed:
        yield f"{who(needed)} is enough"
    if allowing and list(known[len(known) - len(allowing) :]) != allowing:
        for tier in known:
            allows = "allows" if tier["allows"] else "does not"
            yield f"{who(tier)}, looked at alone: {allows} ({', '.join(tier['policies']) or 'no policy'})"
    elif request["outcome"] == "denied" and known:
        yield "no tier is enough"


def who(tier: Json) -> str:
    """Return who answers at a tier."""
    if not tier["tier"]:
        return "nobody's approval"
    return f"tier {tier['tier']}, {tier['name']} ({tier['quorum']} of {', '.join(tier['approvers'])})"


def change_text(change: Json) -> str:
    """Return what would be otherwise."""
    return change["value"] if change["fact"] in {"policy", "order"} else f"{change['fact']} {change['value']}"


def dependency_labels(mentioned: Iterable[tuple[str, str]]) -> Sequence[str]:
    """Return what an answer may depend on beside resource and tier, in words, of the attributes that policies look at there."""
    own = [one for one in mentioned if one[0] != "resource" and one[1] not in SWEPT_FACTS]
    if any(name == "*" for _, name in own):
        return ("anything about the job",)
    order = list(FACT_LABELS)
    return tuple(
        dict.fromkeys(FACT_LABELS.get(one, one[1]) for one in sorted(own, key=lambda one: order.index(one) if one in FACT_LABELS else 99))
    )
