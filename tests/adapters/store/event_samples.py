"""Events as the parts of the system record them, for a job of the shop; every field filled in."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from justenough.domain.ledger.events import Event, EventType, build_event

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
JOB = "j-dev-01kg9w5yz0000000000000000a"
SIGNED = {"statement": {"type": "order", "person": "e-ops"}, "signature": "vault:v1:c2ln"}


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def job_id(number: int, installation: str = "dev") -> str:
    return f"j-{installation}-{number:026d}"


def part_id(job: str, letter: str, number: int = 1) -> str:
    return f"{letter}{job[1:]}-{number}"


def submission(job: str = JOB, *, at: datetime = NOW, **changes: Any) -> Event:
    data: dict[str, Any] = {
        "spec": {"name": "refund-triage", "run": {"command": ["python"]}},
        "name": "refund-triage",
        "task": "Refund ticket 4711",
        "environment": "prod",
        "agent": {"name": "refund-agent", "version": "1.4", "model": "scripted", "owner": "support"},
        "data_scope": {"tenant": "acme"},
        "labels": {"team": "support"},
        "params": {"ticket": "4711"},
        "bundle": "sha256:" + "b" * 64,
        "reason": "The customer waits",
        "requester": "e-ops",
        "requester_name": "ops",
        "parent": None,
        "order": SIGNED,
        "beyond": "ask",
    }
    return build_event(EventType.JOB_SUBMITTED, job, at=at, **{**data, **changes})


def access_request(job: str = JOB, *, number: int = 1, at: datetime = NOW, **changes: Any) -> Event:
    request = part_id(job, "r", number)
    data: dict[str, Any] = {
        "request": request,
        "number": number,
        "resource": "orders-db",
        "action": "write",
        "ttl": 600,
        "reason": "Write the refund",
        "reason_by": "order",
        "signed_reason": "Write the refund",
        "optional": False,
        "title": "Orders database",
        "sensitivity": "confidential",
        "revocable": "now",
    }
    return build_event(EventType.ACCESS_REQUESTED, job, at=at, about=request, **{**data, **changes})


def access_decision(
    outcome: str, job: str = JOB, *, number: int = 1, tier: int = 0, phase: str = "start", at: datetime = NOW, **changes: Any
) -> Event:
    request = part_id(job, "r", number)
    data: dict[str, Any] = {
        "policies": ["writes-need-tier-1"],
        "policy_digest": "sha256:" + "d" * 64,
        "digest": "sha256:" + "e" * 64,
        "errors": [],
        "facts": {"resource": "orders-db", "action": "write", "requester_groups": ["ops"], "phase": "start", "ttl": 600},
        **changes,
    }
    kind = EventType.ACCESS_DECIDED
    return build_event(kind, job, at=at, about=f"{request}/{phase}", request=request, phase=phase, outcome=outcome, tier=tier, **data)


def approval_opening(
    job: str = JOB, *, number: int = 1, tier: int = 1, at: datetime = NOW, escalated: bool = False, **changes: Any
) -> Event:
    kind = EventType.APPROVAL_ESCALATED if escalated else EventType.APPROVAL_OPENED
    request = part_id(job, "r", number)
    data = {"respond_by": at + timedelta(minutes=15), "quorum": tier, **changes}
    return build_event(kind, job, at=at, about=f"{request}/{tier}", request=request, tier=tier, **data)


def approval_decision(
    verdict: str,
    job: str = JOB,
    *,
    number: int = 1,
    person: str = "lead",
    person_id: str | None = None,
    tier: int = 1,
    decision: str = "approve",
    at: datetime = NOW,
    ttl: int = 300,
    action: str = "write",
    absent: str | None = None,
    absent_id: str | None = None,
    signed: Mapping[str, Any] = SIGNED,
) -> Event:
    request, approved = part_id(job, "r", number), verdict == "approved"
    data: dict[str, Any] = {
        "person": person_id or f"e-{person}",
        "name": person,
        "tier": tier,
        "reason": "Looks right",
        "ttl": ttl,
        "granted_ttl": ttl if approved else None,
        "action": action,
        "granted_action": action if approved else None,
        "signed": signed,
        "on_behalf_of": absent_id or (f"e-{absent}" if absent else None),
        "on_behalf_of_name": absent,
    }
    kind, about = EventType.APPROVAL_DECIDED, f"{request}/{person}"
    return build_event(kind, job, at=at, about=about, request=request, decision=decision, verdict=verdict, **data)


def issuance(job: str = JOB, *, number: int = 1, at: datetime = NOW, **changes: Any) -> Event:
    data: dict[str, Any] = {
        "credential": part_id(job, "c", number),
        "request": part_id(job, "r", number),
        "resource": "orders-db",
        "action": "write",
        "lease_id": "database/creds/orders-write/abc",
        "accessor": "acc-1",
        "issued_at": at,
        "expires_at": at + timedelta(minutes=10),
        "revocable": "now",
        "certificate": None,
        "held_by_job": True,
        "user": None,
        "target_digest": None,
        "search_digest": None,
    }
    return build_event(EventType.CREDENTIAL_ISSUED, job, at=at, about=part_id(job, "c", number), **{**data, **changes})


def credential_event(kind: EventType, job: str = JOB, *, number: int = 1, at: datetime = NOW, **data: Any) -> Event:
    """credential.revoked, .confirmed, .expired, .renewed, .used."""
    name = part_id(job, "c", number)
    return build_event(kind, job, at=at, about=name, credential=name, **data)


def credential_confirmation(job: str = JOB, *, number: int = 1, at: datetime = NOW, **data: Any) -> Event:
    return credential_event(EventType.CREDENTIAL_CONFIRMED, job, number=number, at=at, how="its lease is gone, its login is gone", **data)


def job_start(job: str = JOB, *, at: datetime = NOW) -> Event:
    return build_event(
        EventType.JOB_STARTED, job, at=at, worker="w1", sandbox="bubblewrap", run="run-1", times_out_at=at + timedelta(hours=1)
    )


def job_end(
    state: str = "succeeded",
    job: str = JOB,
    *,
    at: datetime = NOW,
    about: str = "",
    exit_code: int | None = 0,
    reason: str | None = None,
) -> Event:
    return build_event(EventType.JOB_ENDED, job, at=at, about=about, state=state, exit_code=exit_code, reason=reason)


def revocation_start(job: str = JOB, *, at: datetime = NOW, about: str = "session", by: str = "session") -> Event:
    return build_event(EventType.REVOCATION_STARTED, job, at=at, about=about, by=by, why="the process ended")


def overdue_revocation(
    job: str = JOB, *, at: datetime = NOW, attempt: int = 1, seen_from: datetime | None = None, by: str = "compensation"
) -> Event:
    """`seen_from`: when the attempt began to look; just before it was over, where none is said."""
    told = {"by": by, "failures": ["leases: the target does not answer"], "attempt": attempt}
    return build_event(EventType.REVOCATION_OVERDUE, job, at=at, about=str(attempt), **told, seen_from=(seen_from or at).isoformat())


def revocation_proof(job: str = JOB, *, at: datetime = NOW, about: str = "session") -> Event:
    return build_event(EventType.REVOCATION_CONFIRMED, job, at=at, about=about, by="session", proof={"prefix": "empty"})


def job_refusal(why: str, *, job: str = JOB, at: datetime = NOW, about: str = "run-9") -> Event:
    return build_event(EventType.JOB_REFUSED, job, at=at, about=about, why=why, workflow="stranger", run="run-9")


def replace_data(event: Event, **data: Any) -> Event:
    """Return an event with other data; fields that this version does not have included."""
    return event.model_copy(update={"data": {**event.data, **data}})
