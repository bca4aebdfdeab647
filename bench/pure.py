"""Benchmarks without servers: policy decisions, their replay, the verification of a ledger. Each returns its figure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

from bench.figures import Figure, best_of_five, p50, seconds_of
from bench.scratch import SHOP, scratch_store
from justenough.domain.catalog.models import Catalog, Resource
from justenough.domain.core.ids import request_id
from justenough.domain.jobs.spec import checked_spec
from justenough.domain.jobs.states import Action, Sensitivity
from justenough.domain.ledger.events import Event, EventType, build_event
from justenough.domain.policy.cedar_request import AccessContext, Clock, DecisionFacts, JobFacts
from justenough.domain.policy.dry_run import PolicyEvaluator
from justenough.domain.policy.engine import PolicySet
from justenough.domain.policy.replay import REPLAY_EVENTS, PolicyReplay, ReplayTally
from justenough.services.ledger_events import access_decided_event

RESOURCES = 40
NAMES = [f"resource-{number}" for number in range(RESOURCES)]
SPEC = {"name": "bench", "task": "Nothing", "environment": "prod", "run": {"command": ["true"]}, "labels": {"team": "support"}}
MOMENT = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
JOB = "j-dev-01kg9b4zv0e8r2m6x3c5n7p9qa"

# Five policies per resource, as a team with its own rules might write them.
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


def measure_decisions(*, quick: bool) -> Figure:
    """Measure decisions with 200 policies, including the search for the tier."""
    policies = _policies()
    job = JobFacts(id=JOB, spec=checked_spec(SPEC, {}), requester="someone", requester_groups=frozenset({"ops"}))
    context = AccessContext(phase="start", ttl_seconds=600, reason="It is measured", clock=Clock.at(MOMENT))
    requests, resource = [(name, action) for name in NAMES for action in Action], _resource()

    def decide(name: str, action: Action) -> None:
        decision = policies.decide(job, name, resource, action, context=context)
        assert decision.tier == {Action.READ: 0, Action.WRITE: 1, Action.ADMIN: 2}[action], decision

    first = [seconds_of(partial(decide, *request)) for request in requests]
    again = [seconds_of(partial(decide, *request)) for _ in range(2 if quick else 25) for request in requests]
    what = f"policy decision, tier found, {len(policies.ids)} policies, p50"
    note = f"the first decision about an action and resource: {p50(first) * 1e6:,.0f} µs"
    return Figure("policy_decision_p50", what, p50(again) * 1e6, "µs", at_most=250, note=note)


def measure_replay(*, quick: bool) -> Figure:
    """Measure the replay of a ledger's decisions, one for each request of many jobs, from JSON pages as the API returns them."""
    jobs, policies, resource = 50 if quick else 1_500, _policies(), _resource()
    catalog = Catalog.model_construct(resources=dict.fromkeys(NAMES, resource), scopes=(), provision=())
    pages, after = [], "0"
    with scratch_store() as store:
        for number in range(jobs):
            store.ledger.append(_decision_events(f"j-dev-{number:026d}", policies, resource))
        while after:
            page = store.ledger.entries(types=REPLAY_EVENTS, after=int(after), limit=1000)
            pages.append(page.model_dump_json())
            after = page.next or ""
    count = jobs * len(Action)

    def replay() -> None:
        replayer, tally = PolicyReplay(PolicyEvaluator(policies, catalog)), ReplayTally(since="", digest=policies.digest)
        for entry in (entry for page in pages for entry in json.loads(page)["items"]):
            if replayed := replayer.replay_entry(entry):
                tally.add(replayed)
        report = tally.report()
        assert report.decisions == report.same == count, report

    what, seconds = f"replay of {count:,} recorded decisions, {len(policies.ids)} policies, best of five", best_of_five(replay)
    return Figure("policy_replay", what, count / seconds, "decisions/s", at_least=2_000)


def measure_verification(*, quick: bool) -> Figure:
    """Measure the verification of every chain of a ledger, ten entries of usual length to a job."""
    count, sample = 2_000 if quick else 50_000, "select … from orders " * 12
    with scratch_store() as store:
        for start in range(0, count, 1000):
            events = []
            for number in range(start, min(start + 1000, count)):
                job = f"j-dev-{number // 10:026d}"
                data = {"credential": f"c{job[1:]}-1", "what": f"statement {number}: {sample}"}
                events.append(build_event(EventType.CREDENTIAL_USED, job, at=MOMENT, about=str(number), **data))
            store.ledger.append(events)

        def verify() -> None:
            report = store.ledger.verify()
            assert report.sound, report
            assert report.entries == count, report

        seconds = best_of_five(verify)
    what = f"ledger verification, {count:,} entries, SQLite, best of five"
    return Figure("ledger_verification", what, count / seconds, "entries/s", at_least=100_000)


def _policies() -> PolicySet:
    schema = (SHOP / "policies" / "schema.cedarschema").read_text()
    return PolicySet.load({"all.cedar": "".join(POLICIES.format(name=name) for name in NAMES)}, schema)


def _decision_events(job: str, policies: PolicySet, resource: Resource) -> Iterator[Event]:
    """Yield the events of a job up to its decisions, one of each action."""
    name = NAMES[int(job[-6:]) % RESOURCES]
    # Each job has another TTL, which the policies for admin use, so that a third of the decisions is never cached.
    ttl = 1 + int(job[-6:])
    access = [{"resource": name, "action": action.value, "ttl": ttl, "reason": "It is measured"} for action in Action]
    spec = {**SPEC, "access": access}
    facts = JobFacts(id=job, spec=checked_spec(spec, {}), requester="someone", requester_groups=frozenset({"ops"}))
    signed = {"statement": {"type": "order", "job": job, "person": "someone"}, "signature": "vault:v1:" + "c2ln" * 22}
    order: dict[str, Any] = {"spec": spec, "params": {}, "name": "bench", "task": "Nothing", "environment": "prod", "agent": None}
    order |= {
        "data_scope": {},
        "labels": {},
        "bundle": None,
        "reason": "",
        "requester": "someone",
        "requester_name": "ops",
        "parent": None,
        "beyond": "ask",
        "order": signed,
    }
    yield build_event(EventType.JOB_SUBMITTED, job, at=MOMENT, **order)
    for number, action in enumerate(Action, start=1):
        request = request_id(job, number)
        about: dict[str, Any] = {"number": number, "resource": name, "action": action.value, "ttl": ttl, "reason": "It is measured"}
        about |= {
            "reason_by": "order",
            "signed_reason": "It is measured",
            "optional": False,
            "title": "Somewhere",
            "sensitivity": "confidential",
            "revocable": "now",
        }
        yield build_event(EventType.ACCESS_REQUESTED, job, at=MOMENT, about=request, request=request, **about)
        context = AccessContext(phase="start", ttl_seconds=ttl, reason="It is measured", clock=Clock.at(MOMENT))
        decision = policies.decide(facts, name, resource, action, context=context)
        decision_facts = DecisionFacts.of(facts, name, resource, action, context)
        yield access_decided_event(job, request, decision, "sha256:" + "0" * 64, facts=decision_facts, phase="start", at=MOMENT)


def _resource() -> Resource:
    actions = {action.value: {"issue": {"path": "kv/data/bench"}, "policy": "je-grant-bench", "max_ttl": "30m"} for action in Action}
    resource = {"title": "Somewhere", "environment": "prod", "sensitivity": Sensitivity.CONFIDENTIAL.name.lower(), "owner": "bench"}
    return Resource.model_validate({**resource, "actions": actions})
