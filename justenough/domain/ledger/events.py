"""What happens to a job, as events: the one form in which facts are recorded, shown and sent out. No I/O, no clock.

Each has a deterministic id, so that recording it again changes nothing. docs/reference/ledger.md tables every type and its fields.
Names are CloudEvents types without prefix and version: `credential.issued` is `dev.justenough.credential.issued.v1`.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from justenough.domain.core.base_model import Message
from justenough.domain.core.ids import installation_of

UNATTRIBUTED_CHAIN = "-"
"""The chain for what names no job of this installation."""


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
    STOP_REQUESTED = "stop.requested"
    CREDENTIAL_ISSUED = "credential.issued"
    CREDENTIAL_REFUSED = "credential.refused"
    CREDENTIAL_DOUBTED = "credential.doubted"
    CREDENTIAL_RENEWED = "credential.renewed"
    CREDENTIAL_USED = "credential.used"
    TOOL_CALLED = "tool.called"
    UPSTREAM_REFUSED = "upstream.refused"
    CREDENTIAL_REVOKED = "credential.revoked"
    CREDENTIAL_CONFIRMED = "credential.confirmed"
    CREDENTIAL_EXPIRED = "credential.expired"
    CREDENTIAL_OVERDUE = "credential.overdue"
    IDENTITY_ISSUED = "identity.issued"
    MODEL_USED = "model.used"
    REVOCATION_REQUESTED = "revocation.requested"
    REVOCATION_STARTED = "revocation.started"
    REVOCATION_OVERDUE = "revocation.overdue"
    REVOCATION_CONFIRMED = "revocation.confirmed"
    SCHEDULE_SKIPPED = "schedule.skipped"
    SCHEDULE_PAUSED = "schedule.paused"
    SCHEDULE_UNPAUSED = "schedule.unpaused"
    SWEEP_REPORTED = "sweep.reported"
    LEDGER_CHECKPOINTED = "ledger.checkpointed"


EVENT_FIELDS: dict[EventType, dict[str, str]] = {
    EventType.JOB_SUBMITTED: {
        "spec": "the raw spec that was signed",
        "name": "job name",
        "task": "task with its params filled in",
        "environment": "environment",
        "agent": "agent {name, version, model, owner} or null",
        "data_scope": "data scope",
        "labels": "labels",
        "params": "params given with the order",
        "bundle": "content digest of the workdir, or null",
        "reason": "why it was launched",
        "requester": "entity id of the person, or of the console for a trigger or a schedule",
        "requester_name": "their login name, or `trigger:<name>` or `schedule:<name>`",
        "parent": "the job that launched it, or null",
        "order": "the signed order {statement, signature}",
    },
    EventType.JOB_REFUSED: {"why": "what did not verify", "workflow": "id of the workflow that asked", "run": "its run id"},
    EventType.JOB_STARTED: {"worker": "which worker", "sandbox": "bubblewrap | namespaces | off", "run": "Temporal run id"},
    EventType.JOB_ENDED: {"state": "how it ended", "exit_code": "of the process, or null", "reason": "one sentence, or null"},
    EventType.ACCESS_REQUESTED: {
        "request": "request id",
        "number": "its number in the job, from 1",
        "resource": "resource",
        "action": "read | write | admin",
        "ttl": "seconds",
        "reason": "the requester's reason",
        "optional": "whether the job runs without it",
        "title": "the resource's title",
        "sensitivity": "public | internal | confidential | restricted",
        "revocable": "now | on_expiry | never",
        "call": "{tool, arguments}: the call of a tool that it is for; not there where it is for none",
        "tools": "tool → bounds: what it is had through, where it is for all calls of these; not there otherwise",
    },
    EventType.ACCESS_DECIDED: {
        "request": "request id",
        "phase": "start | narrowed | issue | granted | runtime | renewal",
        "outcome": "allowed | needs_approval | denied",
        "tier": "needed tier, 0 for none",
        "policies": "ids of the policies that decided",
        "policy_digest": "digest of the policy set",
        "digest": "the request's digest, which approvers sign",
        "errors": "evaluation errors",
        "facts": "what was asked of policy, beside the order: see below",
    },
    EventType.ACCESS_WITHDRAWN: {"request": "request id", "why": "why it was withdrawn"},
    EventType.ACCESS_REFUSED: {
        "asked": "what the running job asked for: a resource and an action, a tool, or its identity",
        "why": "why it was no request",
    },
    EventType.LOCK_OPENED: {
        "request": "request id",
        "accessor": "accessor of what waits in Vault; people authorize by it, and it opens nothing",
        "expires_at": "until when it waits",
        "groups": "whose authorizations Vault counts",
        "approvals": "how many people",
    },
    EventType.APPROVAL_OPENED: {"request": "request id", "tier": "tier", "respond_by": "until when", "quorum": "how many people"},
    EventType.APPROVAL_ESCALATED: {"request": "request id", "tier": "new tier", "respond_by": "until when", "quorum": "how many people"},
    EventType.APPROVAL_DECIDED: {
        "request": "request id",
        "person": "entity id of the approver",
        "name": "their login name",
        "tier": "the highest tier they answer for",
        "decision": "approve | deny | break_glass",
        "reason": "their reason",
        "ttl": "seconds they allow",
        "action": "read | write | admin: what they allow",
        "on_behalf_of": "entity id of who named them a delegate, where they answer for them, or null",
        "on_behalf_of_name": "their login name, or null",
        "signed": "{statement, signature}",
        "verdict": "what the request stands at now: pending | approved | denied",
        "granted_ttl": "seconds granted, where approved",
        "granted_action": "read | write | admin: what was granted, where approved",
        "tools": "tool → bounds that they allow no more than; not there where they bind nothing",
        "granted_tools": "tool → bounds that were granted, where approved for access through tools; not there otherwise",
    },
    EventType.APPROVAL_REJECTED: {
        "request": "request id it names, or null",
        "why": "why it does not count",
        "person": "entity id it names, or null",
        "received": "digest of what was received",
    },
    EventType.APPROVAL_EXPIRED: {"request": "request id", "tier": "the tier that did not answer"},
    EventType.APPROVAL_WITHDRAWN: {
        "request": "request id",
        "person": "entity id of who takes it back",
        "name": "their login name",
        "reason": "their reason",
        "signed": "{statement, signature}",
        "verdict": "what the request stands at now: pending | withdrawn",
    },
    EventType.APPROVAL_CLAIMED: {
        "request": "request id",
        "person": "entity id of who looks at it",
        "name": "their login name",
        "until": "until when, or null where they no longer do",
    },
    EventType.REVIEW_OPENED: {
        "request": "request id",
        "person": "entity id of who broke glass",
        "name": "their login name",
        "tiers": "the tiers that were passed",
        "groups": "the groups that answer there, and may review",
        "reason": "their reason",
    },
    EventType.REVIEW_ANSWERED: {
        "request": "request id",
        "person": "entity id of the reviewer",
        "name": "their login name",
        "verdict": "justified | unjustified",
        "reason": "their reason",
        "signed": "{statement, signature}",
    },
    EventType.DELEGATION_MADE: {
        "delegation": "its id",
        "person": "entity id of who is away",
        "name": "their login name",
        "delegate": "entity id of who answers for them",
        "delegate_name": "their login name",
        "until": "until when",
        "reason": "their reason",
        "signed": "{statement, signature}",
    },
    EventType.DELEGATION_ENDED: {"delegation": "its id", "person": "entity id of who ended it", "name": "their login name"},
    EventType.STOP_REQUESTED: {"how": "cancel | kill", "person": "entity id of who asked", "name": "their login name"},
    EventType.CREDENTIAL_ISSUED: {
        "credential": "credential id",
        "request": "request id",
        "resource": "resource",
        "action": "read | write | admin",
        "lease_id": "Vault lease id, or null where the engine gives none",
        "accessor": "accessor of the token it was issued with",
        "issued_at": "when",
        "expires_at": "hard end",
        "revocable": "now | on_expiry | never",
        "certificate": "where in Vault its certificate is, whose revocation is looked at; null for all else",
    },
    EventType.CREDENTIAL_REFUSED: {"request": "request id", "why": "which rule, signature or server stood against its issue"},
    EventType.CREDENTIAL_DOUBTED: {
        "credential": "credential id",
        "request": "request id",
        "resource": "resource",
        "action": "read | write | admin",
        "asked_at": "when it was to be issued; nobody recorded an answer",
        "expires_at": "when it has ended at the latest, if it was issued",
        "revocable": "now | on_expiry",
    },
    EventType.CREDENTIAL_RENEWED: {"credential": "credential id", "expires_at": "new end"},
    EventType.CREDENTIAL_USED: {"credential": "credential id", "what": "what was seen of its use"},
    EventType.TOOL_CALLED: {
        "tool": "the tool's name",
        "arguments": "digest of the arguments; what people approve is whole in access.requested",
        "action": "resource:action that it needed",
        "outcome": "done | failed | denied | pending | refused (an upstream shows other tools than those that were reviewed)",
        "request": "request id, or null where there is none",
        "credential": "credential id it was done with, which is ended; or null",
        "duration_ms": "milliseconds from the call to its answer",
        "answer_bytes": "bytes of the answer that the job got",
    },
    EventType.UPSTREAM_REFUSED: {
        "upstream": "the MCP server, as the catalog's tools name it",
        "reviewed": "digest of its tools in the catalog, or null where there is none",
        "shown": "digest of the tools that it showed, or null where it was not asked",
        "why": "why nothing of it is passed on",
        "changes": "tool by tool, how what it showed differs from what was reviewed: at most 20",
    },
    EventType.CREDENTIAL_REVOKED: {
        "credential": "credential id",
        "by": "session | compensation | guard | sweep | person | stranger",
        "why": "why it was ended alone: the rule or person that changed; null where its whole job was revoked",
    },
    EventType.CREDENTIAL_CONFIRMED: {"credential": "credential id", "how": "what was looked at and found dead"},
    EventType.CREDENTIAL_EXPIRED: {"credential": "credential id", "why": "why its death could not be seen"},
    EventType.CREDENTIAL_OVERDUE: {
        "credential": "credential id",
        "by": "who tried to end it while its job goes on",
        "failures": "each step that failed, as text",
        "attempt": "which attempt",
    },
    EventType.IDENTITY_ISSUED: {
        "audience": "whom the token is for",
        "expires_at": "until when it holds",
        "jti": "its id, which its receiver sees too; the token itself is kept nowhere",
    },
    EventType.MODEL_USED: {
        "name": "the model as the catalog names it",
        "model": "which of its models the job named, or `-` for what is no name",
        "credential": "id of the credential whose key was used last, or null where none was",
        "calls": "how many calls this entry stands for",
        "prompt_tokens": "tokens of their questions",
        "completion_tokens": "tokens of their answers",
        "estimated": "of how many calls the tokens were counted by the length of the text, because the upstream did not tell",
        "outcome": "answered | refused | failed | cut | not_allowed | over_budget | denied",
    },
    EventType.REVOCATION_REQUESTED: {"credential": "credential id", "person": "entity id of who asked", "name": "their login name"},
    EventType.REVOCATION_STARTED: {"by": "session | compensation | guard | sweep | person | stranger", "why": "why"},
    EventType.REVOCATION_OVERDUE: {
        "by": "who tried",
        "failures": "each step that failed, as text",
        "attempt": "which attempt",
        "seen_from": "since when it looked; a proof that is newer stands",
    },
    EventType.REVOCATION_CONFIRMED: {"by": "who confirmed", "proof": "what was looked at: prefix, leases, accessors, targets"},
    EventType.SCHEDULE_SKIPPED: {
        "schedule": "its name",
        "occasion": "when its job would have been launched; this job, which it launched last, had not ended",
    },
    EventType.SCHEDULE_PAUSED: {
        "schedule": "its name",
        "person": "entity id of who paused it",
        "name": "their login name",
        "reason": "their reason",
    },
    EventType.SCHEDULE_UNPAUSED: {"schedule": "its name", "person": "entity id of who let it go on", "name": "their login name"},
    EventType.SWEEP_REPORTED: {
        "unknown": "id that something alive in Vault or in a target carries, of no known job; one entry for each, once"
    },
    EventType.LEDGER_CHECKPOINTED: {"entries": "how many", "root": "Merkle root"},
}
"""What each type's data holds. Tested against docs/reference/ledger.md and against every event that tests record."""


OPTIONAL_FIELDS: dict[EventType, frozenset[str]] = {
    EventType.ACCESS_REQUESTED: frozenset({"call", "tools"}),
    EventType.APPROVAL_DECIDED: frozenset({"tools", "granted_tools"}),
}
"""Fields that are left out where there is nothing to say."""


class Event(Message):
    """One fact. `id` is unique and made from what happened; `data` is plain JSON with the fields of FIELDS[type]."""

    id: str
    job: str
    type: EventType
    at: datetime
    data: dict[str, Any]


def required_fields(kind: EventType) -> frozenset[str]:
    """Return the fields that every event of a type has."""
    return frozenset(EVENT_FIELDS[kind]) - OPTIONAL_FIELDS.get(kind, frozenset())


def build_event(kind: EventType, job: str, *, at: datetime, about: str = "", **data: Any) -> Event:
    """Return an event whose id is `<job>/<type>` or `<job>/<type>/<about>`; raise ValueError on fields that FIELDS does not name.

    `about` tells apart what may happen more than once in a job: a request id, a credential id, an attempt.
    """
    unknown = data.keys() - EVENT_FIELDS[kind].keys()
    missing = required_fields(kind) - data.keys()
    if unknown or missing:
        message = f"{kind}: unknown fields {sorted(unknown)}, missing fields {sorted(missing)}"
        raise ValueError(message)
    return Event(id="/".join(part for part in (job, kind.value, about) if part), job=job, type=kind, at=at, data=data)


def chain_for_job(job: str) -> str:
    """Return the chain that an event about a job belongs to: its own, or the one for what names no job."""
    return job if installation_of(job) else UNATTRIBUTED_CHAIN
