"""Events: the form in which facts about jobs are recorded, shown and sent. No I/O, no clock.

Each event has a deterministic id, so that recording it again changes nothing. docs/reference/ledger.md describes every type and field.
Names are CloudEvents types without prefix and version: `credential.issued` is `dev.justenough.credential.issued.v1`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from justenough.domain.core.base_model import Message
from justenough.domain.core.errors import reject_if
from justenough.domain.core.ids import installation_of

UNATTRIBUTED_CHAIN = "-"
"""The chain of events that do not name a job of this installation."""


class EventType(StrEnum):
    JOB_SUBMITTED = "job.submitted"
    JOB_REFUSED = "job.refused"
    JOB_STARTED = "job.started"
    JOB_ENDED = "job.ended"
    ACCESS_REQUESTED = "access.requested"
    ACCESS_DECIDED = "access.decided"
    ACCESS_WITHDRAWN = "access.withdrawn"
    ACCESS_REFUSED = "access.refused"
    LOCK_OPENED = "lock.opened"
    APPROVAL_OPENED = "approval.opened"
    APPROVAL_ESCALATED = "approval.escalated"
    APPROVAL_DECIDED = "approval.decided"
    APPROVAL_REJECTED = "approval.rejected"
    APPROVAL_EXPIRED = "approval.expired"
    APPROVAL_WITHDRAWN = "approval.withdrawn"
    APPROVAL_CLAIMED = "approval.claimed"
    REVIEW_OPENED = "review.opened"
    REVIEW_ANSWERED = "review.answered"
    DELEGATION_MADE = "delegation.made"
    DELEGATION_ENDED = "delegation.ended"
    ATTENTION_ACKNOWLEDGED = "attention.acknowledged"
    STOP_REQUESTED = "stop.requested"
    CREDENTIAL_ISSUED = "credential.issued"
    CREDENTIAL_REFUSED = "credential.refused"
    CREDENTIAL_DOUBTED = "credential.doubted"
    CREDENTIAL_FOUND = "credential.found"
    CREDENTIAL_RENEWED = "credential.renewed"
    CREDENTIAL_USED = "credential.used"
    TOOL_CALLED = "tool.called"
    UPSTREAM_REFUSED = "upstream.refused"
    CREDENTIAL_REVOKED = "credential.revoked"
    CREDENTIAL_CONFIRMED = "credential.confirmed"
    CREDENTIAL_RESIDUAL = "credential.residual"
    CREDENTIAL_EXPIRED = "credential.expired"
    CREDENTIAL_OVERDUE = "credential.overdue"
    IDENTITY_ISSUED = "identity.issued"
    MODEL_USED = "model.used"
    REVOCATION_REQUESTED = "revocation.requested"
    WITHDRAWAL_REQUESTED = "withdrawal.requested"
    REVOCATION_STARTED = "revocation.started"
    REVOCATION_OVERDUE = "revocation.overdue"
    REVOCATION_CONFIRMED = "revocation.confirmed"
    SCHEDULE_SKIPPED = "schedule.skipped"
    SCHEDULE_PAUSED = "schedule.paused"
    SCHEDULE_UNPAUSED = "schedule.unpaused"
    SWEEP_REPORTED = "sweep.reported"
    LEDGER_CHECKPOINTED = "ledger.checkpointed"


def _fields(names: str) -> tuple[str, ...]:
    return tuple(names.split())


EVENT_FIELDS: dict[EventType, tuple[str, ...]] = {
    EventType.JOB_SUBMITTED: _fields(
        "spec name task environment agent data_scope labels params bundle reason requester requester_name parent order beyond"
    ),
    EventType.JOB_REFUSED: _fields("why workflow run"),
    EventType.JOB_STARTED: _fields("worker sandbox run times_out_at"),
    EventType.JOB_ENDED: _fields("state exit_code reason"),
    EventType.ACCESS_REQUESTED: _fields(
        "request number resource action ttl reason reason_by signed_reason optional title sensitivity revocable call tools"
    ),
    EventType.ACCESS_DECIDED: _fields("request phase outcome tier policies policy_digest digest errors facts"),
    EventType.ACCESS_WITHDRAWN: _fields("request why"),
    EventType.ACCESS_REFUSED: _fields("asked why"),
    EventType.LOCK_OPENED: _fields("request accessor expires_at groups approvals"),
    EventType.APPROVAL_OPENED: _fields("request tier respond_by quorum"),
    EventType.APPROVAL_ESCALATED: _fields("request tier respond_by quorum verdict granted_ttl granted_action granted_tools"),
    EventType.APPROVAL_DECIDED: _fields(
        "request person name tier decision reason ttl action on_behalf_of on_behalf_of_name signed verdict granted_ttl granted_action tools granted_tools current_tier"
    ),
    EventType.APPROVAL_REJECTED: _fields("request why person received"),
    EventType.APPROVAL_EXPIRED: _fields("request tier"),
    EventType.APPROVAL_WITHDRAWN: _fields("request person name reason signed verdict"),
    EventType.APPROVAL_CLAIMED: _fields("request person name until"),
    EventType.REVIEW_OPENED: _fields("request person name tiers tier_names groups reason"),
    EventType.REVIEW_ANSWERED: _fields("request person name verdict reason signed"),
    EventType.DELEGATION_MADE: _fields("delegation person name delegate delegate_name until reason signed"),
    EventType.DELEGATION_ENDED: _fields("delegation person name"),
    EventType.ATTENTION_ACKNOWLEDGED: _fields("item person name note"),
    EventType.STOP_REQUESTED: _fields("how person name reason"),
    EventType.CREDENTIAL_ISSUED: _fields(
        "credential request resource action lease_id accessor issued_at expires_at revocable certificate held_by_job user target_digest search_digest"
    ),
    EventType.CREDENTIAL_REFUSED: _fields("request why"),
    EventType.CREDENTIAL_DOUBTED: _fields("credential request resource action asked_at expires_at revocable"),
    EventType.CREDENTIAL_FOUND: _fields("credential user target target_digest search_digest place_digest"),
    EventType.CREDENTIAL_RENEWED: _fields("credential expires_at"),
    EventType.CREDENTIAL_USED: _fields("credential what"),
    EventType.TOOL_CALLED: _fields("tool arguments action outcome request credential duration_ms answer_bytes"),
    EventType.UPSTREAM_REFUSED: _fields("upstream reviewed shown why changes"),
    EventType.CREDENTIAL_REVOKED: _fields("credential by why done_at"),
    EventType.CREDENTIAL_CONFIRMED: _fields("credential how done_at"),
    EventType.CREDENTIAL_RESIDUAL: _fields("credential until why"),
    EventType.CREDENTIAL_EXPIRED: _fields("credential why revocable"),
    EventType.CREDENTIAL_OVERDUE: _fields("credential by failures attempt"),
    EventType.IDENTITY_ISSUED: _fields("audience expires_at jti"),
    EventType.MODEL_USED: _fields("name model credential calls prompt_tokens completion_tokens estimated outcome"),
    EventType.REVOCATION_REQUESTED: _fields("credential person name"),
    EventType.WITHDRAWAL_REQUESTED: _fields("request person name signed"),
    EventType.REVOCATION_STARTED: _fields("by why"),
    EventType.REVOCATION_OVERDUE: _fields("by failures attempt seen_from"),
    EventType.REVOCATION_CONFIRMED: _fields("by proof"),
    EventType.SCHEDULE_SKIPPED: _fields("schedule occasion"),
    EventType.SCHEDULE_PAUSED: _fields("schedule person name reason"),
    EventType.SCHEDULE_UNPAUSED: _fields("schedule person name"),
    EventType.SWEEP_REPORTED: _fields("unknown"),
    EventType.LEDGER_CHECKPOINTED: _fields("entries root frontier checkpoint"),
}
"""The fields of each type's data, in the order of docs/reference/ledger.md, which describes them."""


OPTIONAL_FIELDS: dict[EventType, frozenset[str]] = {
    EventType.ACCESS_REQUESTED: frozenset({"call", "tools"}),
    EventType.APPROVAL_ESCALATED: frozenset({"verdict", "granted_ttl", "granted_action", "granted_tools"}),
    EventType.APPROVAL_DECIDED: frozenset({"tools", "granted_tools", "current_tier"}),
    EventType.REVIEW_OPENED: frozenset({"tier_names"}),
    EventType.STOP_REQUESTED: frozenset({"reason"}),
    EventType.CREDENTIAL_REVOKED: frozenset({"done_at"}),
    EventType.CREDENTIAL_CONFIRMED: frozenset({"done_at"}),
    # Older versions left it out.
    EventType.CREDENTIAL_EXPIRED: frozenset({"revocable"}),
}
"""Fields that are left out if they do not apply."""


class Event(Message):
    """One fact. `id` is unique and derived from what happened; `data` is plain JSON with the fields of EVENT_FIELDS[type]."""

    id: str
    job: str
    type: EventType
    at: datetime
    data: dict[str, Any]


def required_fields(kind: EventType) -> frozenset[str]:
    """Return the fields that every event of a type has."""
    return frozenset(EVENT_FIELDS[kind]) - OPTIONAL_FIELDS.get(kind, frozenset())


def build_event(kind: EventType, job: str, *, at: datetime, about: str = "", **data: Any) -> Event:
    """Build an event with the id `<job>/<type>` or `<job>/<type>/<about>`; raise ValueError for unknown or missing fields.

    `about` distinguishes events of one type in a job: a request id, a credential id, an attempt.
    """
    unknown = data.keys() - set(EVENT_FIELDS[kind])
    missing = required_fields(kind) - data.keys()
    reject_if(unknown or missing, f"{kind}: unknown fields {sorted(unknown)}, missing fields {sorted(missing)}")
    return Event(id="/".join(part for part in (job, kind.value, about) if part), job=job, type=kind, at=at, data=data)


def chain_for_job(job: str) -> str:
    """Return the chain of events about a job: the job's own, or UNATTRIBUTED_CHAIN if the id is not a job id."""
    return job if installation_of(job) else UNATTRIBUTED_CHAIN


def parse_entry_time(text: str) -> datetime:
    """Return an ISO 8601 time of an entry; UTC if it has no offset."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def time_done(data: Mapping[str, Any], at: datetime) -> datetime:
    """Return the time of the recorded action: earlier than the entry's time if it could not be recorded at once."""
    return parse_entry_time(data["done_at"]) if "done_at" in data else at


def is_about(data: Mapping[str, Any], *, person: str | None = None, resource: str | None = None) -> bool:
    """Whether an entry's data names a person (by login name) and a resource; None for any."""
    # Only beside `person` is `name` a login name.
    people = {
        data.get("requester_name"),
        data.get("on_behalf_of_name"),
        data.get("delegate_name"),
        data.get("name") if "person" in data else None,
    }
    return (person is None or person in people) and resource in {None, data.get("resource")}
