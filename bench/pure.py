"""What needs no server: policy decisions, the replay of past ones, and the verification of a ledger. Each returns its figure."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.figures import Figure, p50
from justenough.adapters.store import Store
from justenough.domain.catalog.models import Catalog, Resource
from justenough.domain.core.ids import request_id
from justenough.domain.jobs.spec import checked_spec
from justenough.domain.jobs.states import Action, Sensitivity
from justenough.domain.ledger.events import Event, EventType, build_event
from justenough.domain.policy.cedar_request import Clock, DecisionFacts
from justenough.domain.policy.engine import AccessContext, JobFacts, PolicySet
from justenough.domain.policy.replay import REPLAY_EVENTS, PolicyReplay, replay_entries
from justenough.services.ledger_events import access_decided_event

SHOP = Path(__file__).resolve().parent.parent / "examples" / "shop"
RESOURCES = 40
NAMES = [f"resource-{number}" for number in range(RESOURCES)]
SPEC = {"name": "bench", "task": "Nothing", "environment": "prod", "run": {"command": ["true"]}, "labels": {"team": "support"}}
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
    policies = _policies()
    job = JobFacts(id=JOB, spec=checked_spec(SPEC, {}), requester="someone", requester_groups=frozenset({"ops"}))
    context = AccessContext(phase="start", ttl_seconds=600, reason="It is measured", clock=Clock.at(MOMENT))
    asked = [(name, action) for name in NAMES for action in Action]
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


def replaying(*, quick: bool) -> Figure:
    """Time deciding again what a ledger holds: from its pages as JSON, as the API tells them, one decision for each request of many jobs."""
    jobs, policies, resource = 50 if quick else 1_500, _policies(), _resource()
    catalog = Catalog.model_construct(resources=dict.fromkeys(NAMES, resource), scopes=(), provision=())
    with tempfile.TemporaryDirectory(prefix="je-bench-") as folder, closing(Store(f"sqlite:///{folder}/ledger.db")) as store:
        store.migrate()
        for number in range(jobs):
            store.ledger.append(_decided(f"j-dev-{number:026d}", policies, resource))
        pages = list(_pages(store))
    count, took = jobs * len(Action), []
    for _ in range(5):
        began = time.perf_counter()
        entries = (entry for page in pages for entry in json.loads(page)["items"])
        report = replay_entries(entries, PolicyReplay(policies, catalog), since="", digest=policies.digest)
        took.append(time.perf_counter() - began)
        assert report.decisions == report.same == count, report
    what = f"replay of {count:,} recorded decisions, {len(policies.ids)} policies, best of five"
    return Figure("policy_replay", what, count / min(took), "decisions/s", at_least=2_000)


def verifying(*, quick: bool) -> Figure:
    """Time the look at every chain of a ledger."""
    count = 2_000 if quick else 50_000
    with tempfile.TemporaryDirectory(prefix="je-bench-") as folder, closing(Store(f"sqlite:///{folder}/ledger.db")) as store:
        store.migrate()
        events = list(_events(count))
        for start in range(0, count, 1000):
            store.ledger.append(events[start : start + 1000])
        seconds = []
        for _ in range(5):
            began = time.perf_counter()
            report = store.ledger.verify()
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


def _policies() -> PolicySet:
    schema = (SHOP / "policies" / "schema.cedarschema").read_text()
    return PolicySet.load({"all.cedar": "".join(POLICIES.format(name=name) for name in NAMES)}, schema)


def _decided(job: str, policies: PolicySet, resource: Resource) -> Iterator[Event]:
    """Yield what is recorded of a job up to its decisions, one of each action."""
    name = NAMES[int(job[-6:]) % RESOURCES]
    # No two jobs ask for the same time, which the policies for admin look at: a third of the questions is new each time.
    ttl = 1 + int(job[-6:])
    access = [{"resource": name, "action": action.value, "ttl": ttl, "reason": "It is measured"} for action in Action]
    spec = {**SPEC, "access": access}
    facts = JobFacts(id=job, spec=checked_spec(spec, {}), requester="someone", requester_groups=frozenset({"ops"}))
    signed = {"statement": {"type": "order", "job": job, "person": "someone"}, "signature": "vault:v1:" + "c2ln" * 22}
    order: dict[str, Any] = {
        "spec": spec,
        "params": {},
        "name": "bench",
        "task": "Nothing",
        "environment": "prod",
        "agent": None,
        "data_scope": {},
    }
    order |= {"labels": {}, "bundle": None, "reason": "", "requester": "someone", "requester_name": "ops", "parent": None, "order": signed}
    yield build_event(EventType.JOB_SUBMITTED, job, at=MOMENT, **order)
    for number, action in enumerate(Action, start=1):
        request = request_id(job, number)
        about: dict[str, Any] = {
            "number": number,
            "resource": name,
            "action": action.value,
            "ttl": ttl,
            "reason": "It is measured",
            "optional": False,
        }
        about |= {"title": "Somewhere", "sensitivity": "confidential", "revocable": "now"}
        yield build_event(EventType.ACCESS_REQUESTED, job, at=MOMENT, about=request, request=request, **about)
        context = AccessContext(phase="start", ttl_seconds=ttl, reason="It is measured", clock=Clock.at(MOMENT))
        decision = policies.decide(facts, name, resource, action, context=context)
        asked = DecisionFacts.of(facts, name, resource, action, context)
        yield access_decided_event(job, request, decision, "sha256:" + "0" * 64, facts=asked, phase="start", at=MOMENT)


def _pages(store: Store) -> Iterator[str]:
    after: str | None = "0"
    while after:
        page = store.ledger.entries(types=REPLAY_EVENTS, after=int(after), limit=1000)
        yield page.model_dump_json()
        after = page.next


def _resource() -> Resource:
    offered = {action.value: {"issue": {"path": "kv/data/bench"}, "policy": "je-grant-bench", "max_ttl": "30m"} for action in Action}
    shape = {"title": "Somewhere", "environment": "prod", "sensitivity": Sensitivity.CONFIDENTIAL.name.lower(), "owner": "bench"}
    return Resource.model_validate({**shape, "actions": offered})


def _events(count: int) -> Iterator[Event]:
    """Yield entries as long as a job's usually are, ten to a job."""
    for number in range(count):
        job = f"j-dev-{number // 10:026d}"
        what = f"statement {number}: " + "select … from orders " * 12
        yield build_event(EventType.CREDENTIAL_USED, job, at=MOMENT, about=str(number), credential=f"c{job[1:]}-1", what=what)
