"""What is recorded of jobs of many kinds, as events: the patterns that a large store is made from. Writes nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from justenough.domain.ledger.events import Event, EventType, build_event, required_fields

BEGAN = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
"""When each pattern begins. A copy of one begins elsewhere."""
DIGEST = "sha256:" + "d" * 64
NAMES = [
    f"{what}-{thing}" for what in ("refund", "nightly", "export", "triage", "audit") for thing in ("orders", "tickets", "invoices", "users")
]
PEOPLE = [f"person{number:03d}" for number in range(200)]
TRIGGERS = [f"trigger:{name}" for name in ("ticket-created", "invoice-paid", "alert-raised")]
RESOURCES = [f"{name}-db" for name in ("orders", "refunds", "customers", "payouts", "tickets")] + [
    f"service-{number}-api" for number in range(25)
]
ENVIRONMENTS = ("prod", "prod", "prod", "staging", "test")

OVER = {"auto": 70, "approved": 11, "denied": 4, "bare": 14, "expired": 1}
"""How often each kind is among a hundred jobs that are over."""
ENDED = {"succeeded": 880, "failed": 80, "cancelled": 20, "timed_out": 15, "killed": 4, "lost": 1}
OPEN = {"running": 60, "waiting": 30, "waiting_second": 8, "pending": 5, "revoking": 3, "overdue": 2, "unreviewed": 2}
"""The same of jobs that are not over, or of which something is open."""


class Look(NamedTuple):
    """What tells one job from another."""

    job: str
    name: str
    environment: str
    requester: tuple[str, str]
    """Entity id and login name."""
    resource: str
    action: str
    ended: str
    uses: int
    """How often the credential was seen to be used."""


def look(job: str, dice: random.Random, *, uses: int = 0) -> Look:
    """Return one, some of everything frequent and some rare."""
    name = NAMES[min(int(dice.expovariate(0.25)), len(NAMES) - 1)]
    # A name mostly belongs to one environment.
    usual = ENVIRONMENTS[len(name) % len(ENVIRONMENTS)]
    person = PEOPLE[min(int(dice.expovariate(0.03)), len(PEOPLE) - 1)]
    requester = ("e-console", dice.choice(TRIGGERS)) if dice.random() < 0.1 else (f"e-{person}", person)
    resource = RESOURCES[min(int(dice.expovariate(0.2)), len(RESOURCES) - 1)]
    action = dice.choices(("read", "write", "admin"), (70, 28, 2))[0]
    ended = dice.choices(list(ENDED), list(ENDED.values()))[0]
    return Look(job, name, usual if dice.random() < 0.95 else dice.choice(ENVIRONMENTS), requester, resource, action, ended, uses)


def life(kind: str, one: Look) -> Iterator[Event]:
    """Yield what is recorded of a job of a kind of OVER or OPEN, in order."""
    request, credential = f"r{one.job[1:]}-1", f"c{one.job[1:]}-1"
    seconds = iter(range(1, 1000))

    def then(kind: EventType, about: str = "", **data: Any) -> Event:
        at = BEGAN + timedelta(seconds=next(seconds))
        known = _known(one, request, credential, at) | data
        return build_event(kind, one.job, at=at, about=about, **{name: known.get(name, "x") for name in required_fields(kind)})

    yield then(EventType.JOB_SUBMITTED, name=one.name)
    if kind == "bare":
        yield then(EventType.JOB_STARTED)
        yield then(EventType.JOB_ENDED)
    if kind in {"bare", "pending"}:
        return
    approved, denied = kind in {"approved", "waiting", "waiting_second", "unreviewed"}, kind == "denied"
    tier = 2 if kind == "waiting_second" else 1
    yield then(EventType.ACCESS_REQUESTED, request)
    outcome = "denied" if denied else "needs_approval" if approved else "allowed"
    yield then(EventType.ACCESS_DECIDED, f"{request}/start", outcome=outcome, tier=tier if approved else 0)
    if denied:
        yield then(EventType.JOB_ENDED, state="denied", exit_code=None, reason="policy denied a request")
        return
    if approved:
        yield then(EventType.APPROVAL_OPENED, f"{request}/{tier}", tier=tier)
        if kind.startswith("waiting"):
            return
        broken = kind == "unreviewed"
        yield then(EventType.APPROVAL_DECIDED, f"{request}/e-lead", decision="break_glass" if broken else "approve")
        if broken:
            yield then(EventType.REVIEW_OPENED, request)
    yield then(EventType.CREDENTIAL_ISSUED, credential)
    yield then(EventType.JOB_STARTED)
    for number in range(one.uses):
        yield then(EventType.CREDENTIAL_USED, f"{credential}/{number}")
    if kind != "running":
        yield from _ending(kind, credential, then)


def _ending(kind: str, credential: str, then: Any) -> Iterator[Event]:
    whole = kind in {"approved", "unreviewed", "revoking", "overdue"}
    if whole:
        yield then(EventType.REVOCATION_STARTED, "session")
        if kind == "revoking":
            return
        if kind == "overdue":
            yield then(EventType.JOB_ENDED)
            yield then(EventType.REVOCATION_OVERDUE, "1")
            return
        yield then(EventType.CREDENTIAL_REVOKED, credential)
    yield then(EventType.CREDENTIAL_EXPIRED if kind == "expired" else EventType.CREDENTIAL_CONFIRMED, credential)
    if whole:
        yield then(EventType.REVOCATION_CONFIRMED, "session")
    yield then(EventType.JOB_ENDED)


def _known(one: Look, request: str, credential: str, at: datetime) -> dict[str, Any]:
    entity, login = one.requester
    return {
        "spec": {"name": one.name, "run": {"command": ["python", "job.py"]}, "access": [{"resource": one.resource, "action": one.action}]},
        "name": "lead",
        "task": f"{one.name} for one of the customers",
        "environment": one.environment,
        "agent": {"name": f"{one.name}-agent", "version": "1.4", "model": "scripted", "owner": "support"},
        "data_scope": {"tenant": "acme"},
        "labels": {"team": "support"},
        "params": {"ticket": "4711"},
        "bundle": None,
        "requester": entity,
        "requester_name": login,
        "parent": None,
        "order": {"statement": {"type": "order", "person": entity}, "signature": "vault:v1:" + "c2ln" * 16},
        "sandbox": "bubblewrap",
        "state": one.ended,
        "exit_code": 0 if one.ended == "succeeded" else 1,
        "reason": "because the customer waits for it",
        "request": request,
        "credential": credential,
        "number": 1,
        "resource": one.resource,
        "title": one.resource,
        "action": one.action,
        "seen_from": at.isoformat(),
        "ttl": 600,
        "optional": False,
        "sensitivity": "confidential",
        "revocable": "now",
        "phase": "start",
        "policies": ["reads-are-allowed"],
        "policy_digest": DIGEST,
        "digest": DIGEST,
        "errors": [],
        "facts": {"held": [], "touched": 0, "requester_groups": ["ops"]},
        "tier": 1,
        "respond_by": (at + timedelta(minutes=15)).isoformat(),
        "quorum": 1,
        "person": "e-lead",
        "decision": "approve",
        "signed": {"statement": {"type": "decision"}, "signature": "vault:v1:" + "c2ln" * 16},
        "verdict": "approved",
        "granted_ttl": 600,
        "granted_action": one.action,
        "on_behalf_of": None,
        "on_behalf_of_name": None,
        "tiers": [1],
        "groups": ["support-leads"],
        "lease_id": f"database/creds/{one.resource}/{one.job[-12:]}",
        "accessor": f"accessor-{one.job[-12:]}",
        "certificate": None,
        "issued_at": at.isoformat(),
        "expires_at": (at + timedelta(minutes=10)).isoformat(),
        "by": "session",
        "why": None,
        "how": "its lease is gone, its login is gone",
        "failures": ["leases: the target does not answer"],
        "attempt": 1,
        "proof": {"prefix": "empty"},
        "run": "run-1",
        "worker": "w1",
    }
