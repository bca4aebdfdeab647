"""The folded policies give the same decisions as Cedar gives for the written ones, at every tier, for random policies and requests."""

from __future__ import annotations

import json

import cedarpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from justenough.domain.jobs.credentials import HeldAccess
from justenough.domain.jobs.states import Action, Sensitivity
from justenough.domain.policy.cedar_request import DEFAULT_CLOCK
from justenough.domain.policy.engine import PolicySet
from tests.support.domain_samples import JOB, SCHEMA, access_context, job, resource

ATOMS = [
    *(f"context.approved_tier {op} {number}" for op in (">=", "<", "==", "!=") for number in (0, 1, 2, 3)),
    *(f"resource.sensitivity {op} {number}" for op in ("<=", "==") for number in (1, 2, 3)),
    "resource.external",
    "!resource.external",
    'resource.environment == "prod"',
    "principal.environment == resource.environment",
    'principal.labels.contains("team=support")',
    'resource == Resource::"orders-db"',
    'action == Action::"write"',
    "context.touched >= 2",
    "context.hour < 12",
    "context.issued_count >= 1",
    'context.held_actions.contains("read")',
    'context.held.contains("orders-db:read")',
    "context.break_glass",
    "context has break_glass",
    "principal has agent",
    "context.ttl_seconds - context.approved_tier > 599",
    # Known values within other expressions.
    "[context.approved_tier].contains(2)",
    "[0, context.approved_tier].containsAny([1, 2])",
    "[[context.approved_tier]].contains([3])",
    "-context.approved_tier < -1",
    "{tier: context.approved_tier}.tier >= 2",
    "{tier: [context.approved_tier]}.tier.contains(1)",
    "{tier: context.approved_tier} has tier",
    'resource.environment like "p*"',
    "resource is Resource",
    "[resource.sensitivity, context.approved_tier].contains(context.touched)",
    "true",
    "false",
    # These err, the second at some tiers only.
    "9223372036854775807 + context.ttl_seconds > 0",
    "9223372036854775806 + context.approved_tier > 0",
    'Job::"other".environment == "prod"',
]


def _join(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pair = st.tuples(inner, st.sampled_from(["&&", "||"]), inner).map(lambda parts: f"({' '.join(parts)})")
    choice = st.tuples(inner, inner, inner).map(lambda parts: f"(if {parts[0]} then {parts[1]} else {parts[2]})")
    return pair | choice | inner.map(lambda text: f"!({text})")


conditions = st.recursive(st.sampled_from(ATOMS), _join, max_leaves=5)
actions = st.sampled_from(
    [
        "action",
        'action == Action::"read"',
        'action == Action::"write"',
        'action in [Action::"read", Action::"admin"]',
        'action in Action::"write"',
    ]
)
resources = st.sampled_from(["resource", 'resource == Resource::"orders-db"', 'resource == Resource::"other"', "resource is Resource"])
clauses = st.lists(st.tuples(st.sampled_from(["when", "unless"]), conditions).map(lambda pair: f"{pair[0]} {{ {pair[1]} }}"), max_size=2)
policies = st.tuples(st.sampled_from(["permit", "forbid"]), actions, resources, clauses).map(
    lambda parts: f"{parts[0]}(principal, {parts[1]}, {parts[2]}) {' '.join(parts[3])};"
)
texts = st.lists(policies, min_size=1, max_size=6).map(
    lambda found: "\n".join(f'@id("p{number}") {policy}' for number, policy in enumerate(found))
)


def _cedar_answers(
    text: str, sensitivity: Sensitivity, action: Action, *, external: bool, touched: int, glass: bool
) -> list[cedarpy.AuthzResult]:
    """Ask Cedar itself about the written policies, once for each tier."""
    entities = [
        {
            "uid": {"type": "Job", "id": JOB},
            "attrs": {
                "environment": "prod",
                "labels": ["team=support"],
                "agent": {"name": "", "version": "", "model": "", "owner": ""},
            },
            "parents": [],
        },
        {
            "uid": {"type": "Resource", "id": "orders-db"},
            "attrs": {"environment": "prod", "sensitivity": int(sensitivity), "external": external},
            "parents": [],
        },
    ]
    requests = [
        {
            "principal": f'Job::"{JOB}"',
            "action": f'Action::"{action.value}"',
            "resource": 'Resource::"orders-db"',
            "context": {
                "approved_tier": tier,
                "ttl_seconds": 600,
                "held": ["orders-db:read"],
                "touched": touched,
                "break_glass": glass,
                "held_actions": ["read"],
                "issued_count": 1,
                "hour": DEFAULT_CLOCK.hour,
                "weekday": DEFAULT_CLOCK.weekday,
            },
        }
        for tier in range(4)
    ]
    return cedarpy.is_authorized_batch(requests, text, json.dumps(entities))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    text=texts,
    sensitivity=st.sampled_from(Sensitivity),
    action=st.sampled_from(Action),
    external=st.booleans(),
    touched=st.integers(0, 3),
    glass=st.booleans(),
    top=st.integers(0, 3),
)
def test_the_decision_equals_evaluating_cedar_at_every_tier(
    text: str, sensitivity: Sensitivity, action: Action, external: bool, touched: int, glass: bool, top: int
) -> None:
    loaded = PolicySet.load({"only.cedar": text}, SCHEMA)
    held = HeldAccess(held=frozenset({"orders-db:read"}), touched=Sensitivity(touched), issued_count=1)
    context = access_context(held=held, break_glass=glass)
    decision = loaded.decide(
        job(labels={"team": "support"}), "orders-db", resource(sensitivity, external=external), action, context=context, top=top
    )

    answers = _cedar_answers(text, sensitivity, action, external=external, touched=touched, glass=glass)
    errs = any(answer.diagnostics.errors for answer in answers)
    enough = [tier for tier in range(top + 1) if all(answer.allowed for answer in answers[tier : top + 1])]
    named = [set(answer.diagnostics.id_annotations_by_reason.values()) for answer in answers]

    assert bool(decision.errors) == errs
    if errs or not enough:
        assert decision.outcome == "denied"
        assert errs or set(decision.policies) == (named[top] or {"default-deny"})
        return
    needed = min(enough)
    assert (decision.outcome, decision.tier) == ("needs_approval" if needed else "allowed", needed)
    below = set().union(*(named[tier] for tier in range(needed) if not answers[tier].allowed))
    assert set(decision.policies) == named[needed] | below
