"""The statements that people sign: how they are built, their canonical form, request digests, and signature verification. No I/O, no clock.

Nothing here signs: Vault has the keys.

Canonical form: RFC 8785 (JCS). Signature: ed25519 by the person's own Vault transit key, in Vault's form `vault:v<version>:<base64>`.
docs/reference/statements.md carries test vectors.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import Field, StringConstraints

from justenough.domain.core.base_model import Message, Model, OmittedIfNone
from justenough.domain.core.canonical_json import Digest, digest_of, to_canonical_json
from justenough.domain.core.rejection import Rejection
from justenough.domain.core.rfc3339 import Moment
from justenough.domain.jobs.spec import Access, JobSpec, ResourceLimits, ToolName
from justenough.domain.jobs.states import Action
from justenough.domain.jobs.tool_bounds import BoundedTools, Bounds, tools_to_json

MAX_STATEMENT_LIFETIME = timedelta(days=7)
"""Of all statements but delegations. Longer than all tiers together: order and answers are verified again when the job starts."""
MAX_DELEGATION_LIFETIME = timedelta(days=90)
MAX_CLOCK_SKEW = timedelta(minutes=2)
Reason = Annotated[str, StringConstraints(max_length=1000)]
DecisionKind = Literal["approve", "deny", "withdraw", "break_glass"]


class Statement(Model):
    """What every statement contains."""

    reason: Reason
    person: str
    """Vault entity id."""
    issued_at: Moment
    expires_at: Moment


class RequestStatement(Statement):
    job: str
    request: str
    digest: Digest
    """The request's digest: what will run and be issued."""


class OrderStatement(Statement):
    """The person launches this job with this content."""

    type: Literal["order"] = "order"
    job: str
    spec_digest: Digest
    """Digest of the spec's raw mapping, as sent."""
    bundle: Digest | None
    params: Mapping[str, str]
    parent: OmittedIfNone[str] = None
    """The job that launches this one."""
    origin: OmittedIfNone[str] = None
    """The trigger or schedule that launched it (`trigger:<name>`, `schedule:<name>`).

    Set in every order of the console, and in no other order.
    """
    asked_by: OmittedIfNone[str] = None
    """Entity id of the person who ran a schedule now. Set by the console; that person cannot decide the job's requests."""


class DecisionStatement(RequestStatement):
    """The person approves exactly this request or less, denies it, withdraws an approval, or uses break-glass."""

    type: Literal["decision"] = "decision"
    decision: DecisionKind
    ttl: int
    """Seconds; at most what was requested."""
    action: Action
    """At most what was requested."""
    on_behalf_of: OmittedIfNone[str] = None
    """Entity id of the absent person who named this person their delegate."""
    tools: OmittedIfNone[Annotated[Mapping[ToolName, Bounds], Field(min_length=1)]] = None
    """The allowed tools, each within these bounds and the requested ones; left out if the tools are allowed as requested."""


class DelegationStatement(Statement):
    """The person is away until this expires; the delegate, an approver of the same tier, decides on their behalf."""

    type: Literal["delegation"] = "delegation"
    delegate: str
    """Vault entity id."""


class ReviewStatement(RequestStatement):
    """The person reviewed a break-glass approval and states whether it was justified."""

    type: Literal["review"] = "review"
    verdict: Literal["justified", "unjustified"]


class SignedStatement(Message):
    """A statement with its signature, as clients send it."""

    statement: dict[str, Any]
    signature: Annotated[str, StringConstraints(max_length=512)]


def to_signable(statement: Statement) -> dict[str, Any]:
    """Return the JSON object of a statement that is signed."""
    return statement.model_dump(mode="json")


class Narrowing(NamedTuple):
    """The terms that an approver allows instead of the requested ones; None leaves a part as requested."""

    ttl: int | None = None
    """Seconds."""
    action: Action | None = None
    tools: BoundedTools | None = None


NO_NARROWING = Narrowing()


def build_order_statement(
    job: str,
    spec: dict[str, Any],
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
    request: dict[str, Any],
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
    request: dict[str, Any], verdict: Literal["justified", "unjustified"], *, reason: str, person: str, now: datetime
) -> ReviewStatement:
    return ReviewStatement(**_request_fields(request, reason=reason, person=person, now=now), verdict=verdict)


def _request_fields(request: dict[str, Any], *, reason: str, person: str, now: datetime) -> dict[str, Any]:
    """Return the fields that statements about a request have in common."""
    about = {"job": request["job_id"], "request": request["id"], "digest": request["digest"]}
    return {**about, "reason": reason, "person": person, "issued_at": now, "expires_at": now + MAX_STATEMENT_LIFETIME}


def request_digest(
    spec: JobSpec,
    access: Access,
    *,
    bundle: str | None,
    issue_path: str,
    issue_data: Mapping[str, Any],
    tier: int,
    call: Mapping[str, Any] | None = None,
) -> str:
    """Return the digest of exactly what will run and be issued. `spec` has its params filled in; `tier` is the needed one.

    `call`: the single tool call, `{tool, arguments}`, that the access is for, if any. Without a call, the digest covers the access's tools.
    """
    limits = {name: value for name, value in spec.run.limits if value != getattr(ResourceLimits(), name)}
    return digest_of(
        {
            **({"call": dict(call)} if call else {}),
            **({"tools": tools_to_json(access.tools)} if access.tools is not None and not call else {}),
            "agent": spec.agent.model_dump(mode="json") if spec.agent else None,
            "bundle": bundle,
            "argv": list(spec.run.command),
            "params": dict(spec.params),
            "env": dict(spec.run.env),
            "network": spec.run.network,
            # Include only limits that differ from the defaults, so that requests from before there were limits keep their digests.
            **({"limits": limits} if limits else {}),
            "python": spec.run.python,
            "timeout": spec.run.timeout,
            "environment": spec.environment,
            "deliver": access.deliver.model_dump(mode="json"),
            "resource": access.resource,
            "action": access.action.value,
            "issue": {"path": issue_path, "data": dict(issue_data)},
            "data_scope": dict(spec.data_scope),
            "ttl": access.ttl,
            "tier": tier,
            # Include a call only if there is one, so that all other requests keep their digests.
            **({"model": spec.model.model_dump(mode="json")} if spec.model else {}),
        }
    )


def why_signature_invalid(signed: SignedStatement, keys: Mapping[int, bytes]) -> Rejection | None:
    """Return why a signature is invalid, or None. `keys`: the person's raw ed25519 public keys, by version."""
    try:
        prefix, version, encoded = signed.signature.split(":")
        raw = base64.b64decode(encoded, validate=True)
        number = int(version.removeprefix("v"))
        message = to_canonical_json(signed.statement)
    except (ValueError, binascii.Error, RecursionError):
        return Rejection("signature_unreadable", "the signature or the statement cannot be parsed")
    if prefix != "vault" or number not in keys:
        return Rejection("signature_key_unknown", "the signature names a key that the person does not have")
    try:
        Ed25519PublicKey.from_public_bytes(keys[number]).verify(raw, message)
    except (InvalidSignature, ValueError):
        return Rejection("signature_mismatch", "the signature does not match the statement")
    return None


def why_not_valid_now(statement: Statement, *, now: datetime) -> Rejection | None:
    """Return why a statement is not valid at `now`, or None if it is."""
    max_lifetime = MAX_DELEGATION_LIFETIME if isinstance(statement, DelegationStatement) else MAX_STATEMENT_LIFETIME
    if statement.issued_at > now + MAX_CLOCK_SKEW:
        return Rejection("statement_from_future", "the statement is from the future: check the clock of the machine that signed it")
    if statement.expires_at <= now:
        return Rejection("statement_expired", "the statement has expired")
    if statement.expires_at - statement.issued_at > max_lifetime:
        return Rejection("statement_lives_too_long", f"the statement is valid for longer than {max_lifetime.days} days")
    return None
