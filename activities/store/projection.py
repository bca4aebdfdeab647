"""The read model as a projection of the ledger: one small function for each type of event, effects on tables only. Decides nothing.

A late or repeated fact never turns a later one back: a job that has ended stays as it ended, a credential that was shown to be dead
stays dead, an answered request stays answered, and a proof covers what was issued before it and nothing that came after.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, case, exists, or_, select, update

from activities.store.engine import insert_new
from activities.store.tables import APPROVALS, CREDENTIALS, JOBS, ORDERS, REQUESTS
from justenough.access import CredentialState, JobState, RequestState, RevocationState
from justenough.events import EventType
from justenough.ledger import Entry

ENDED = tuple(state.value for state in JobState if state.ended)
WAITING = (JobState.PENDING.value, JobState.AWAITING_APPROVAL.value)
GRANTABLE = (RequestState.PENDING.value, RequestState.ALLOWED.value, RequestState.APPROVED.value)
FIRST_DECISION = ("start", "runtime")
"""Phases that settle a request; at issue and renewal policy only looks again."""


class Fact:
    """One entry, read: what an effect needs of it."""

    __slots__ = ("at", "data", "id", "job")

    def __init__(self, entry: Entry) -> None:
        self.id = entry.id
        self.job = entry.job
        self.at = moment(entry.at)
        self.data: dict[str, Any] = json.loads(entry.data)


Effect = Callable[[Connection, Fact], None]


def apply(connection: Connection, entry: Entry) -> None:
    """Apply one entry to the read model; a type without an effect stands in the ledger alone."""
    effect = EFFECTS.get(EventType(entry.type))
    if effect is not None:
        effect(connection, Fact(entry))


def moment(text: str) -> datetime:
    """Return the moment that a text names; UTC where it names no zone."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def job_submitted(connection: Connection, fact: Fact) -> None:
    """Open the job and keep its order."""
    data = fact.data
    same = {name: data[name] for name in ("name", "task", "environment", "agent", "data_scope", "labels", "params", "bundle")}
    who = {"requester": data["requester_name"], "requester_id": data["requester"], "order_reason": data["reason"]}
    clean = {"revocation_state": RevocationState.NONE.value, "revocation_failures": []}
    insert_new(connection, JOBS, {"id": fact.job, "state": JobState.PENDING.value, "created_at": fact.at, **same, **who, **clean})
    signed = {"spec": data["spec"], "params": data["params"], "bundle": data["bundle"], "signed": data["order"]}
    insert_new(connection, ORDERS, {"job": fact.job, **signed})


def job_started(connection: Connection, fact: Fact) -> None:
    """The process is about to run."""
    state = case((JOBS.c.state.in_(WAITING), JobState.RUNNING.value), else_=JOBS.c.state)
    first = JOBS.c.started_at.is_(None)
    _change_job(connection, fact, first, {"state": state, "started_at": fact.at, "sandbox": fact.data["sandbox"]})


def job_ended(connection: Connection, fact: Fact) -> None:
    """The first ending wins. What was issued and not shown to be dead keeps the job's revocation open."""
    ended = {"state": JobState(fact.data["state"]).value, "ended_at": fact.at}
    told = {"exit_code": fact.data["exit_code"], "reason": fact.data["reason"]}
    if _change_job(connection, fact, JOBS.c.state.not_in(ENDED), {**ended, **told}):
        _change_job(connection, fact, and_(_settled(), _uncovered()), REOPENED)
        # Nobody can answer for it any more.
        pending = (REQUESTS.c.job_id == fact.job) & (REQUESTS.c.state == RequestState.PENDING.value)
        connection.execute(update(REQUESTS).where(pending).values(state=RequestState.WITHDRAWN.value))


def access_requested(connection: Connection, fact: Fact) -> None:
    """Open the request."""
    data = fact.data
    requester: str = connection.execute(select(JOBS.c.requester_id).where(JOBS.c.id == fact.job)).scalar() or ""
    same = {name: data[name] for name in ("number", "resource", "action", "ttl", "reason", "optional", "title", "sensitivity", "revocable")}
    open_ = {"state": RequestState.PENDING.value, "created_at": fact.at, "tier": 0, "current_tier": 0, "quorum": 0}
    undecided = {"policies": [], "policy_digest": "", "digest": ""}
    ids = {"id": data["request"], "job_id": fact.job, "requester_id": requester}
    insert_new(connection, REQUESTS, {**ids, **same, **open_, **undecided})


def access_decided(connection: Connection, fact: Fact) -> None:
    """Settle a pending request; a denial at issue ends a granted one too."""
    data = fact.data
    state = {"allowed": RequestState.ALLOWED, "needs_approval": RequestState.PENDING, "denied": RequestState.DENIED}[data["outcome"]]
    if data["phase"] in FIRST_DECISION:
        current = case((REQUESTS.c.current_tier > data["tier"], REQUESTS.c.current_tier), else_=data["tier"])
        why = {name: data[name] for name in ("tier", "policies", "policy_digest", "digest")}
        _change_request(connection, fact, {"state": state.value, "current_tier": current, **why})
    elif data["phase"] == "issue" and state is RequestState.DENIED:
        _change_request(connection, fact, {"state": state.value, "policies": data["policies"]}, among=GRANTABLE)


def access_withdrawn(connection: Connection, fact: Fact) -> None:
    """The job no longer asks for it."""
    _change_request(connection, fact, {"state": RequestState.WITHDRAWN.value}, among=GRANTABLE)


def approval_opened(connection: Connection, fact: Fact) -> None:
    """A tier answers now: opened, or climbed to."""
    data = fact.data
    until = moment(data["respond_by"]) if data["respond_by"] else None
    _change_request(connection, fact, {"current_tier": data["tier"], "quorum": data["quorum"], "expires_at": until})
    _change_job(connection, fact, JOBS.c.state.in_(WAITING), {"state": JobState.AWAITING_APPROVAL.value})


def approval_decided(connection: Connection, fact: Fact) -> None:
    """One answer counted; where it settles the request, settle it."""
    data = fact.data
    answer = {"approver": data["name"], "approver_id": data["person"], "at": fact.at}
    same = {name: data[name] for name in ("tier", "decision", "reason", "ttl")}
    insert_new(connection, APPROVALS, {"id": fact.id, "request_id": data["request"], **answer, **same})
    if data["verdict"] == "approved":
        _change_request(connection, fact, {"state": RequestState.APPROVED.value, "granted_ttl": data["granted_ttl"]})
    elif data["verdict"] == "denied":
        _change_request(connection, fact, {"state": RequestState.DENIED.value})


def approval_expired(connection: Connection, fact: Fact) -> None:
    """Nobody answered up to the top tier."""
    _change_request(connection, fact, {"state": RequestState.EXPIRED.value})


def credential_issued(connection: Connection, fact: Fact) -> None:
    """Keep the handle. A job that has ended, or was shown to be clean before this issue, is not clean."""
    data = fact.data
    same = {name: data[name] for name in ("resource", "action", "lease_id", "accessor", "revocable")}
    ids = {"id": data["credential"], "job_id": fact.job, "request_id": data["request"]}
    times = {"issued_at": moment(data["issued_at"]), "expires_at": moment(data["expires_at"])}
    insert_new(connection, CREDENTIALS, {**ids, **same, **times, "state": CredentialState.ISSUED.value, "live": True})
    over = or_(JOBS.c.state.in_(ENDED), JOBS.c.revocation_state == RevocationState.CONFIRMED.value)
    _change_job(connection, fact, and_(over, _settled(), _uncovered()), REOPENED)


def credential_renewed(connection: Connection, fact: Fact) -> None:
    """It ends later."""
    _change_credential(connection, fact, CREDENTIALS.c.live, {"expires_at": moment(fact.data["expires_at"])})


def credential_revoked(connection: Connection, fact: Fact) -> None:
    """Vault was told; whether it is dead is another event."""
    state = case((CREDENTIALS.c.live, CredentialState.REVOKED.value), else_=CREDENTIALS.c.state)
    _change_credential(connection, fact, CREDENTIALS.c.revoked_at.is_(None), {"state": state, "revoked_at": fact.at})


def credential_confirmed(connection: Connection, fact: Fact) -> None:
    """It was looked at and found dead."""
    dead = {"state": CredentialState.CONFIRMED.value, "live": False, "confirmed_at": fact.at, "confirmed_how": fact.data["how"]}
    _change_credential(connection, fact, CREDENTIALS.c.live, dead)


def credential_expired(connection: Connection, fact: Fact) -> None:
    """Its time ran out, and nobody could look."""
    _change_credential(connection, fact, CREDENTIALS.c.live, {"state": CredentialState.EXPIRED.value, "live": False})


def revocation_started(connection: Connection, fact: Fact) -> None:
    """Revoking goes on until its own proof; overdue stays overdue until then."""
    state = case((JOBS.c.state.in_(ENDED), JOBS.c.state), else_=JobState.REVOKING.value)
    overdue = JOBS.c.revocation_state == RevocationState.OVERDUE.value
    open_ = case((overdue, RevocationState.OVERDUE.value), else_=RevocationState.PENDING.value)
    if _change_job(connection, fact, _not_proved_after(fact), {"state": state, "revocation_state": open_, "revocation_confirmed_at": None}):
        issued = and_(CREDENTIALS.c.job_id == fact.job, CREDENTIALS.c.state == CredentialState.ISSUED.value)
        connection.execute(update(CREDENTIALS).where(issued).values(state=CredentialState.REVOKING.value))


def revocation_overdue(connection: Connection, fact: Fact) -> None:
    """It was tried and failed; shown until proof."""
    failed = {"revocation_state": RevocationState.OVERDUE.value, "revocation_failures": fact.data["failures"]}
    if _change_job(connection, fact, _not_proved_after(fact), {**failed, "revocation_confirmed_at": None}):
        alive = and_(CREDENTIALS.c.job_id == fact.job, CREDENTIALS.c.live)
        connection.execute(update(CREDENTIALS).where(alive).values(state=CredentialState.OVERDUE.value))


def revocation_confirmed(connection: Connection, fact: Fact) -> None:
    """The job was shown to be clean, unless something was issued since."""
    proved = {"revocation_state": RevocationState.CONFIRMED.value, "revocation_confirmed_at": fact.at, "revocation_failures": []}
    _change_job(connection, fact, _not_proved_after(fact), proved)
    _change_job(connection, fact, and_(_settled(), _uncovered()), REOPENED)


EFFECTS: dict[EventType, Effect] = {
    EventType.JOB_SUBMITTED: job_submitted,
    EventType.JOB_STARTED: job_started,
    EventType.JOB_ENDED: job_ended,
    EventType.ACCESS_REQUESTED: access_requested,
    EventType.ACCESS_DECIDED: access_decided,
    EventType.ACCESS_WITHDRAWN: access_withdrawn,
    EventType.APPROVAL_OPENED: approval_opened,
    EventType.APPROVAL_ESCALATED: approval_opened,
    EventType.APPROVAL_DECIDED: approval_decided,
    EventType.APPROVAL_EXPIRED: approval_expired,
    EventType.CREDENTIAL_ISSUED: credential_issued,
    EventType.CREDENTIAL_RENEWED: credential_renewed,
    EventType.CREDENTIAL_REVOKED: credential_revoked,
    EventType.CREDENTIAL_CONFIRMED: credential_confirmed,
    EventType.CREDENTIAL_EXPIRED: credential_expired,
    EventType.REVOCATION_STARTED: revocation_started,
    EventType.REVOCATION_OVERDUE: revocation_overdue,
    EventType.REVOCATION_CONFIRMED: revocation_confirmed,
}
"""What each type does; the types that are not here stand in the ledger alone."""

REOPENED: Mapping[str, Any] = {"revocation_state": RevocationState.PENDING.value, "revocation_confirmed_at": None}


def _settled() -> ColumnElement[bool]:
    """The job's revocation looks done, or never needed."""
    return JOBS.c.revocation_state.in_((RevocationState.NONE.value, RevocationState.CONFIRMED.value))


def _uncovered() -> ColumnElement[bool]:
    """Something lives that no proof covers."""
    after = or_(JOBS.c.revocation_confirmed_at.is_(None), CREDENTIALS.c.issued_at > JOBS.c.revocation_confirmed_at)
    return exists().where(CREDENTIALS.c.job_id == JOBS.c.id, CREDENTIALS.c.live, after)


def _not_proved_after(fact: Fact) -> ColumnElement[bool]:
    """The fact is not older than the proof that stands."""
    return or_(JOBS.c.revocation_confirmed_at.is_(None), JOBS.c.revocation_confirmed_at <= fact.at)


def _change_job(connection: Connection, fact: Fact, where: ColumnElement[bool], values: Mapping[str, Any]) -> bool:
    return connection.execute(update(JOBS).where(JOBS.c.id == fact.job, where).values(values)).rowcount == 1


def _change_request(
    connection: Connection, fact: Fact, values: Mapping[str, Any], *, among: tuple[str, ...] = (RequestState.PENDING.value,)
) -> None:
    theirs = and_(REQUESTS.c.id == fact.data["request"], REQUESTS.c.job_id == fact.job, REQUESTS.c.state.in_(among))
    connection.execute(update(REQUESTS).where(theirs).values(values))


def _change_credential(connection: Connection, fact: Fact, where: ColumnElement[bool], values: Mapping[str, Any]) -> None:
    theirs = and_(CREDENTIALS.c.id == fact.data["credential"], CREDENTIALS.c.job_id == fact.job, where)
    connection.execute(update(CREDENTIALS).where(theirs).values(values))
