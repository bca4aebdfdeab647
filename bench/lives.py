"""The ledger events of jobs of many kinds: the patterns that a large store is made from. Writes nothing."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from justenough.domain.ledger.events import Event, EventType, build_event

BEGAN = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
"""When each pattern begins. A copy of a pattern begins at another time."""
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

ENDED_KINDS = {"auto": 70, "approved": 11, "denied": 4, "bare": 14, "expired": 1}
"""Kinds of ended jobs, with their weights."""
END_STATES = {"succeeded": 880, "failed": 80, "cancelled": 20, "timed_out": 15, "killed": 4, "lost": 1}
OPEN_KINDS = {"running": 60, "waiting": 30, "waiting_second": 8, "pending": 5, "revoking": 3, "overdue": 2, "unreviewed": 2}
"""The same for jobs that have not ended or that need attention."""


class Traits(NamedTuple):
    """The values in which jobs differ."""

    job: str
    name: str
    environment: str
    requester: tuple[str, str]
    """Entity id and login name."""
    resource: str
    action: str
    ended: str
    uses: int
    """How many uses of the credential were observed."""


def random_traits(job: str, dice: random.Random, *, uses: int = 0) -> Traits:
    """Return random traits; some values are frequent and some are rare."""
    name = NAMES[min(int(dice.expovariate(0.25)), len(NAMES) - 1)]
    # Most jobs of one name run in the same environment.
    usual = ENVIRONMENTS[len(name) % len(ENVIRONMENTS)]
    person = PEOPLE[min(int(dice.expovariate(0.03)), len(PEOPLE) - 1)]
    requester = ("e-console", dice.choice(TRIGGERS)) if dice.random() < 0.1 else (f"e-{person}", person)
    resource = RESOURCES[min(int(dice.expovariate(0.2)), len(RESOURCES) - 1)]
    action = dice.choices(("read", "write", "admin"), (70, 28, 2))[0]
    ended = dice.choices(list(END_STATES), list(END_STATES.values()))[0]
    return Traits(job, name, usual if dice.random() < 0.95 else dice.choice(ENVIRONMENTS), requester, resource, action, ended, uses)


def job_events(kind: str, traits: Traits) -> Iterator[Event]:
    """Yield the events of a job whose kind is in ENDED_KINDS or OPEN_KINDS, in order."""
    request, credential = f"r{traits.job[1:]}-1", f"c{traits.job[1:]}-1"
    seconds = iter(range(1, 1000))

    def then(kind: EventType, about: str = "", **data: Any) -> Event:
        at = BEGAN + timedelta(seconds=next(seconds))
        values = _field_values(traits, request, credential, at) | data
        return build_event(kind, traits.job, at=at, about=about, **{name: values.get(name, "x") for name in kind.required_fields})

    yield then(EventType.JOB_SUBMITTED, name=traits.name)
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
        yield then(EventType.APPROVAL_DECIDED, f"{request}/e-lead", decision="break_glass" if kind == "unreviewed" else "approve")
        if kind == "unreviewed":
            yield then(EventType.REVIEW_OPENED, request)
    yield then(EventType.CREDENTIAL_ISSUED, credential)
    yield then(EventType.JOB_STARTED)
    for number in range(traits.uses):
        yield then(EventType.CREDENTIAL_USED, f"{credential}/{number}")
    if kind != "running":
        yield from _end_events(kind, credential, then)


def _end_events(kind: str, credential: str, then: Callable[..., Event]) -> Iterator[Event]:
    by_session = kind in {"approved", "unreviewed", "revoking", "overdue"}
    if by_session:
        yield then(EventType.REVOCATION_STARTED, "session")
        if kind == "revoking":
            return
        if kind == "overdue":
            yield then(EventType.JOB_ENDED)
            yield then(EventType.REVOCATION_OVERDUE, "1")
            return
        yield then(EventType.CREDENTIAL_REVOKED, credential)
    yield then(EventType.CREDENTIAL_EXPIRED if kind == "expired" else EventType.CREDENTIAL_CONFIRMED, credential)
    if by_session:
        yield then(EventType.REVOCATION_CONFIRMED, "session")
    yield then(EventType.JOB_ENDED)


def _field_values(traits: Traits, request: str, credential: str, at: datetime) -> dict[str, Any]:
    entity, login = traits.requester
    return {
        "spec": {
            "name": traits.name,
            "run": {"command": ["python", "job.py"]},
            "access": [{"resource": traits.resource, "action": traits.action}],
        },
        "name": "lead",
        "task": f"{traits.name} for the order {traits.job[-26:]} of a customer",
        "environment": traits.environment,
        "agent": {"name": f"{traits.name}-agent", "version": "1.4", "model": "scripted", "owner": "support"},
        "data_scope": {"tenant": "acme"},
        "labels": {"team": "support"},
        "params": {"ticket": "4711"},
        "bundle": None,
        "requester": entity,
        "requester_name": login,
        "parent": None,
        "order": {"statement": {"type": "order", "person": entity}, "signature": "vault:v1:" + "c2ln" * 16},
        "sandbox": "bubblewrap",
        "times_out_at": (at + timedelta(hours=1)).isoformat(),
        "state": traits.ended,
        "exit_code": 0 if traits.ended == "succeeded" else 1,
        "reason": "because the customer waits for it",
        "reason_by": "order",
        "signed_reason": "because the customer waits for it",
        "request": request,
        "credential": credential,
        "number": 1,
        "resource": traits.resource,
        "title": traits.resource,
        "action": traits.action,
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
        "granted_action": traits.action,
        "on_behalf_of": None,
        "on_behalf_of_name": None,
        "tiers": [1],
        "groups": ["support-leads"],
        "lease_id": f"database/creds/{traits.resource}/{traits.job[-26:]}",
        "accessor": f"accessor-{traits.job[-12:]}",
        "certificate": None,
        "held_by_job": True,
        "user": f"XX0bDqLP-token-{traits.job}-{traits.resource}-acm",
        "target_digest": None,
        "search_digest": None,
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
