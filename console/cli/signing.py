"""What a person signs: their order for a job, their answer to a request. Builds the statements; the key is Vault's."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

from console.cli.session import Session
from justenough.access import Action
from justenough.statements import DecisionStatement, OrderStatement, canonical, digest_of, signable

LIFE = timedelta(hours=24)
"""Longer than the tiers take to answer: order and answers are verified again right before each issue."""

Json = dict[str, Any]


def order(
    job: str, spec: Json, *, bundle: str | None, params: Mapping[str, str], reason: str, person: str, now: datetime
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
        issued_at=now,
        expires_at=now + LIFE,
    )


def answer(
    request: Json, decision: Literal["approve", "deny"], *, ttl: int | None, reason: str, person: str, now: datetime
) -> DecisionStatement:
    """Return the answer to a request as the API shows it. `ttl`: seconds; None for what was asked."""
    now = now.replace(microsecond=0)
    return DecisionStatement(
        job=request["job_id"],
        request=request["id"],
        digest=request["digest"],
        decision=decision,
        ttl=request["ttl"] if ttl is None else ttl,
        action=Action(request["action"]),
        reason=reason,
        person=person,
        issued_at=now,
        expires_at=now + LIFE,
    )


def signed(session: Session, statement: OrderStatement | DecisionStatement) -> Json:
    """Return a statement and its signature as they travel."""
    raw = signable(statement)
    return {"statement": raw, "signature": session.sign(canonical(raw))}
