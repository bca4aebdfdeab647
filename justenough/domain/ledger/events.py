"""Events: the form in which facts about jobs are recorded, shown and sent. No I/O, no clock.

Each event has a deterministic id, so that recording it again changes nothing. docs/reference/ledger.md describes every type and field.
Names are CloudEvents types without prefix and version: `credential.issued` is `dev.justenough.credential.issued.v1`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

from justenough.domain.core.base_model import Message
from justenough.domain.core.errors import reject_if
from justenough.domain.core.ids import installation_of

UNATTRIBUTED_CHAIN = "-"
"""The chain of events that do not name a job of this installation."""
LAPSED = "lapsed"
"""Follows the request in the id of an `approval.rejected` if the answer was counted before. Without it, the answer was never counted."""


class EventType(StrEnum):
    # Each type has the fields of its data, in the order of docs/reference/ledger.md, which describes them.
    # A field that is left out if it does not apply ends in `?`.
    fields: tuple[str, ...]
    required_fields: frozenset[str]

    def __new__(cls, name: str, fields: str = "") -> Self:
        kind = str.__new__(cls, name)
        kind._value_ = name
        kind.fields = tuple(field.removesuffix("?") for field in fields.split())
        kind.required_fields = frozenset(field for field in fields.split() if not field.endswith("?"))
        return kind

    JOB_SUBMITTED = (
        "job.submitted",
        "spec name task environment agent data_scope labels params bundle reason requester requester_name parent order beyond",
    )
    JOB_REFUSED = "job.refused", "why workflow run"
    JOB_STARTED = "job.started", "worker sandbox run times_out_at"
    JOB_ENDED = "job.ended", "state exit_code reason"
    ACCESS_REQUESTED = (
        "access.requested",
        "request number resource action ttl reason reason_by signed_reason optional title sensitivity revocable call? tools?",
    )
    ACCESS_DECIDED = "access.decided", "request phase outcome tier policies policy_digest digest errors facts"
    ACCESS_WITHDRAWN = "access.withdrawn", "request why"
    ACCESS_REFUSED = "access.refused", "asked why"
    LOCK_OPENED = "lock.opened", "request accessor expires_at groups approvals"
    APPROVAL_OPENED = "approval.opened", "request tier respond_by quorum"
    APPROVAL_ESCALATED = "approval.escalated", "request tier respond_by quorum verdict? granted_ttl? granted_action? granted_tools?"
    APPROVAL_DECIDED = (
        "approval.decided",
        "request person name tier decision reason ttl action on_behalf_of on_behalf_of_name signed verdict granted_ttl granted_action tools? granted_tools? current_tier?",
    )
    APPROVAL_REJECTED = "approval.rejected", "request why person received"
    APPROVAL_EXPIRED = "approval.expired", "request tier"
    APPROVAL_WITHDRAWN = "approval.withdrawn", "request person name reason signed verdict"
    APPROVAL_CLAIMED = "approval.claimed", "request person name until"
    REVIEW_OPENED = "review.opened", "request person name tiers tier_names? groups reason"
    REVIEW_ANSWERED = "review.answered", "request person name verdict reason signed"
    DELEGATION_MADE = "delegation.made", "delegation person name delegate delegate_name until reason signed"
    DELEGATION_ENDED = "delegation.ended", "delegation person name"
    ATTENTION_ACKNOWLEDGED = "attention.acknowledged", "item person name note"
    STOP_REQUESTED = "stop.requested", "how person name reason?"
    CREDENTIAL_ISSUED = (
        "credential.issued",
        "credential request resource action lease_id accessor issued_at expires_at revocable certificate held_by_job user target_digest search_digest",
    )
    CREDENTIAL_REFUSED = "credential.refused", "request why"
    CREDENTIAL_DOUBTED = "credential.doubted", "credential request resource action asked_at expires_at revocable"
    CREDENTIAL_FOUND = "credential.found", "credential user target target_digest search_digest place_digest"
    CREDENTIAL_RENEWED = "credential.renewed", "credential expires_at"
    CREDENTIAL_USED = "credential.used", "credential what"
    TOOL_CALLED = "tool.called", "tool arguments action outcome request credential duration_ms answer_bytes"
    UPSTREAM_REFUSED = "upstream.refused", "upstream reviewed shown why changes"
    CREDENTIAL_REVOKED = "credential.revoked", "credential by why done_at?"
    CREDENTIAL_CONFIRMED = "credential.confirmed", "credential how done_at?"
    CREDENTIAL_RESIDUAL = "credential.residual", "credential until why"
    # Older versions left out `revocable`.
    CREDENTIAL_EXPIRED = "credential.expired", "credential why revocable?"
    CREDENTIAL_OVERDUE = "credential.overdue", "credential by failures attempt"
    IDENTITY_ISSUED = "identity.issued", "audience expires_at jti"
    MODEL_USED = "model.used", "name model credential calls prompt_tokens completion_tokens estimated outcome"
    REVOCATION_REQUESTED = "revocation.requested", "credential person name"
    WITHDRAWAL_REQUESTED = "withdrawal.requested", "request person name signed"
    REVOCATION_STARTED = "revocation.started", "by why"
    REVOCATION_OVERDUE = "revocation.overdue", "by failures attempt seen_from"
    REVOCATION_CONFIRMED = "revocation.confirmed", "by proof"
    SCHEDULE_SKIPPED = "schedule.skipped", "schedule occasion"
    SCHEDULE_PAUSED = "schedule.paused", "schedule person name reason"
    SCHEDULE_UNPAUSED = "schedule.unpaused", "schedule person name"
    SWEEP_REPORTED = "sweep.reported", "unknown"
    LEDGER_CHECKPOINTED = "ledger.checkpointed", "entries root frontier checkpoint"


class Event(Message):
    """One fact. `id` is unique and derived from what happened; `data` is plain JSON with the fields of its type."""

    id: str
    job: str
    type: EventType
    at: datetime
    data: dict[str, Any]


def build_event(kind: EventType, job: str, *, at: datetime, about: str = "", **data: Any) -> Event:
    """Build an event with the id `<job>/<type>` or `<job>/<type>/<about>`; raise ValueError for unknown or missing fields.

    `about` distinguishes events of one type in a job: a request id, a credential id, an attempt.
    """
    unknown = data.keys() - set(kind.fields)
    missing = kind.required_fields - data.keys()
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
