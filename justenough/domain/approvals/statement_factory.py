"""Builds the statements that people sign: order, decision, review. It signs nothing: Vault has the keys."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, NamedTuple

from justenough.domain.approvals.statements import (
    MAX_STATEMENT_LIFETIME,
    DecisionStatement,
    OrderStatement,
    ReviewStatement,
)
from justenough.domain.core.canonical_json import digest_of
from justenough.domain.jobs.states import Action
from justenough.domain.jobs.tool_bounds import BoundedTools

DecisionKind = Literal["approve", "deny", "withdraw", "break_glass"]
Json = dict[str, Any]


class Narrowing(NamedTuple):
    """The terms that an approver allows instead of the requested ones; None leaves a part as requested."""

    ttl: int | None = None
    """Seconds."""
    action: Action | None = None
    tools: BoundedTools | None = None


NO_NARROWING = Narrowing()


def build_order_statement(
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
    return OrderStatement(
        job=job,
        spec_digest=digest_of(spec),
        bundle=bundle,
        params=params,
        reason=reason,
        person=person,
        parent=parent,
        issued_at=now,
        expires_at=now + MAX_STATEMENT_LIFETIME,
    )


def build_decision_statement(
    request: Json,
    decision: DecisionKind,
    *,
    narrowing: Narrowing = NO_NARROWING,
    reason: str,
    person: str,
    on_behalf_of: str | None = None,
    now: datetime,
) -> DecisionStatement:
    """Build the decision on a request (`request`: as returned by the API). `on_behalf_of`: entity id of the absent person, if any."""
    return DecisionStatement(
        **_request_fields(request, reason=reason, person=person, now=now),
        decision=decision,
        ttl=request["ttl"] if narrowing.ttl is None else narrowing.ttl,
        action=narrowing.action or Action(request["action"]),
        on_behalf_of=on_behalf_of,
        tools=narrowing.tools,
    )


def build_review_statement(
    request: Json, verdict: Literal["justified", "unjustified"], *, reason: str, person: str, now: datetime
) -> ReviewStatement:
    return ReviewStatement(**_request_fields(request, reason=reason, person=person, now=now), verdict=verdict)


def _request_fields(request: Json, *, reason: str, person: str, now: datetime) -> Json:
    """Return the fields that statements about a request have in common."""
    about = {"job": request["job_id"], "request": request["id"], "digest": request["digest"]}
    return {**about, "reason": reason, "person": person, "issued_at": now, "expires_at": now + MAX_STATEMENT_LIFETIME}
