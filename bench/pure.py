"""What needs no server: policy decisions and the verification of a ledger. Each returns its figure."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from activities.store import Store
from bench.figures import Figure, p50
from justenough.access import Action, Sensitivity
from justenough.catalog import Resource
from justenough.events import Event, EventType, event
from justenough.policy import AccessContext, JobFacts, PolicySet
from justenough.spec import checked_spec

SHOP = Path(__file__).resolve().parent.parent / "examples" / "shop"
RESOURCES = 40
MOMENT = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
JOB = "j-dev-01kg9b4zv0e8r2m6x3c5n7p9qa"

# Five for each resource: what a team writes once it has its own rules.
POLICIES = """
@id("{name}-read") permit (principal, action == Action::"read", resource == Resource::"{name}")
when {{ resource.sensitivity <= 2 || context.approved_tier >= 2 }};
@id("{name}-write") permit (principal, action == Action::"write", resource == Resource::"{name}")
when {{ context.approved_tier >= 1 && principal.requester_groups.contains("ops") }};
@id("{name}-admin") permit (principal, action == Action::"admin", resource == Resource::"{name}")
when {{ context.approved_tier >= 2 && context.ttl_seconds <= 900 }};
@id("{name}-env") forbid (principal, action, resource == Resource::"{name}")
unless {{ principal.environment == resource.environment }};
@id("{name}-chain") forbid (principal, action in [Action::"write", Action::"admin"], resource == Resource::"{name}")
when {{ context.touched >= 3 && !principal.labels.contains("team=security") }};
"""


def deciding(*, quick: bool) -> Figure:
    """Time decisions, tier search included, on a set of 200 policies."""
    names = [f"resource-{number}" for number in range(RESOURCES)]
    schema = (SHOP / "policies" / "schema.cedarschema").read_text()
    policies = PolicySet.load({"all.cedar": "".join(POLICIES.format(name=name) for name in names)}, schema)
    run, labels = {"command": ["true"]}, {"team": "support"}
    spec = checked_spec({"name": "bench", "task": "Nothing", "environment": "prod", "run": run, "labels": labels, "access": []}, {})
    job = JobFacts(id=JOB, spec=spec, requester="someone", requester_groups=frozenset({"ops"}))
    context = AccessContext(phase="start", ttl_seconds=600, reason="It is measured")
    asked = [(name, action) for name in names for action in Action]
    resource = _resource()

    def decide(name: str, action: Action) -> float:
        began = time.perf_counter()
        decision = policies.decide(job, name, resource, action, context=context)
        took = time.perf_counter() - began
        assert decision.tier == {Action.READ: 0, Action.WRITE: 1, Action.ADMIN: 2}[action], decision
        return took

    first = [decide(*each) for each in asked]
    again = [decide(*each) for _ in range(2 if quick else 25) for each in asked]
    count, note = len(policies.ids), f"the first question about an action and resource: {p50(first) * 1e6:,.0f} µs"
    return Figure(
        "policy_decision_p50", f"policy decision, tier found, {count} policies, p50", p50(again) * 1e6, "µs", at_most=250, note=note
    )


def verifying(*, quick: bool) -> Figure:
    """Time the look at every chain of a ledger."""
    count = 2_000 if quick else 50_000
    with tempfile.TemporaryDirectory(prefix="je-bench-") as folder, closing(Store(f"sqlite:///{folder}/ledger.db")) as store:
        store.migrate()
        events = list(_events(count))
        for start in range(0, count, 1000):
            store.record(events[start : start + 1000])
        seconds = []
        for _ in range(5):
            began = time.perf_counter()
            report = store.verify()
            seconds.append(time.perf_counter() - began)
            assert report.sound, report
            assert report.entries == count, report
    return Figure(
        "ledger_verification",
        f"ledger verification, {count:,} entries, SQLite, best of five",
        count / min(seconds),
        "entries/s",
        at_least=100_000,
    )


def _resource() -> Resource:
    offered = {action.value: {"issue": {"path": "kv/data/bench"}, "policy": "je-grant-bench", "max_ttl": "30m"} for action in Action}
    shape = {"title": "Somewhere", "environment": "prod", "sensitivity": Sensitivity.CONFIDENTIAL.name.lower(), "owner": "bench"}
    return Resource.model_validate({**shape, "actions": offered})


def _events(count: int) -> Iterator[Event]:
    """Yield entries as long as a job's usually are, ten to a job."""
    for number in range(count):
        job = f"j-dev-{number // 10:026d}"
        what = f"statement {number}: " + "select … from orders " * 12
        yield event(EventType.CREDENTIAL_USED, job, at=MOMENT, about=str(number), credential=f"c{job[1:]}-1", what=what)
