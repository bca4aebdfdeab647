"""Builds the statements that people sign: their order for a job, their answer to a request, a review, a delegation. Signs nothing; the key is Vault's."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

from justenough.access import Action
from justenough.statements import DecisionStatement, DelegationStatement, OrderStatement, ReviewStatement, digest_of

LIFE = timedelta(hours=24)
"""Longer than the tiers take to answer: order and answers are verified again right before each issue."""

Decision = Literal["approve", "deny", "withdraw", "break_glass"]
Json = dict[str, Any]


def order(
    job: str,
    spec: Json,
    *,
    bundle: str | None,
    params: Mapping[str, str],
    reason: str,
    person: str,
    now: datetime,
    parent: str | None = None,
) -> OrderStatement:
    """Return the order for a job."""
    now = now.replace(microsecond=0)
    return OrderStatement(
        job=job,
        spec_digest=digest_of(spec),
        bundle=bundle,
        params=params,
        reason=reason,
        person=person,
        parent=parent,
        issued_at=now,
        expires_at=now + LIFE,
    )


def answer(
    request: Json,
    decision: Decision,
    *,
    ttl: int | None = None,
    action: Action | None = None,
    reason: str,
    person: str,
    absent: str | None = None,
    now: datetime,
) -> DecisionStatement:
    """Return the answer to a request as the API shows it. `ttl` (seconds), `action`: None for what was asked; `absent`: for whom."""
    now = now.replace(microsecond=0)
    return DecisionStatement(
        job=request["job_id"],
        request=request["id"],
        digest=request["digest"],
        decision=decision,
        ttl=request["ttl"] if ttl is None else ttl,
        action=action or Action(request["action"]),
        reason=reason,
        person=person,
        on_behalf_of=absent,
        issued_at=now,
        expires_at=now + LIFE,
    )


def review(request: Json, verdict: Literal["justified", "unjustified"], *, reason: str, person: str, now: datetime) -> ReviewStatement:
    """Return what somebody thinks of a tier that was passed by breaking glass."""
    now = now.replace(microsecond=0)
    return ReviewStatement(
        job=request["job_id"],
        request=request["id"],
        digest=request["digest"],
        verdict=verdict,
        reason=reason,
        person=person,
        issued_at=now,
        expires_at=now + LIFE,
    )


def delegation(delegate: str, *, until: datetime, reason: str, person: str, now: datetime) -> DelegationStatement:
    """Return who answers for a person until when."""
    now = now.replace(microsecond=0)
    return DelegationStatement(delegate=delegate, reason=reason, person=person, issued_at=now, expires_at=until)
