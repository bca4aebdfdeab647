"""The read model as a projection of the ledger: how each type of event changes the tables. Decides nothing.

A late or repeated event never undoes a later one: an ended job keeps its first end, a credential that was confirmed dead stays dead, an
answered request stays answered, and a confirmed revocation covers only what was issued before it.

Over 400 lines: the effects of all types of events are here, because each must be correct in any order with the others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Table, Update, bindparam, case, delete, exists, or_, select, update

from justenough.adapters.store.engine import insert_new
from justenough.adapters.store.tables import (
    ACKNOWLEDGEMENTS,
    APPROVALS,
    CREDENTIALS,
    DELEGATIONS,
    ENDED_JOBS,
    JOBS,
    LOCKS,
    ORDERS,
    PLACES,
    POSITIVE_CONTROLS,
    REQUESTS,
    REVIEWS,
    UtcDateTime,
)
from justenough.domain.jobs.states import CredentialState, JobState, RequestState, Revocable, RevocationState
from justenough.domain.ledger.events import LAPSED, EventType, parse_entry_time, time_done
from justenough.domain.ledger.hash_chain import LedgerEntry
from justenough.domain.ledger.overdue import failures_concerning

FIRST_DECISION_PHASES = ("start", "runtime")
"""Phases whose decision settles a pending request. At issue and renewal, policy is only checked again."""
SETTLING_PHASES = ("issue", "granted")
"""Phases in which a denial ends a grant."""


class LedgerFact(NamedTuple):
    """One parsed entry, and the connection on which it is applied."""

    connection: Connection
    id: str
    job: str
    at: datetime
    data: dict[str, Any]

    def insert(self, table: Table, row: Mapping[str, Any]) -> bool:
        """Insert a row unless one with its key exists. Return whether it is new."""
        return insert_new(self.connection, table, row)

    def update_job(self, statement: Update, values: Mapping[str, Any]) -> bool:
        """Run a statement for the event's job; return whether it changed the job."""
        return self.connection.execute(statement, {"row_id": self.job, **values}).rowcount == 1

    def update_request(self, statement: Update, values: Mapping[str, Any]) -> None:
        """Run a statement for the event's request."""
        self.connection.execute(statement, {"row_id": self.data["request"], "row_job": self.job, **values})

    def update_credential(self, statement: Update, values: Mapping[str, Any]) -> None:
        """Run a statement for the event's credential."""
        self.connection.execute(statement, {"row_id": self.data["credential"], "row_job": self.job, **values})


def apply_entry(connection: Connection, entry: LedgerEntry) -> None:
    """Apply one entry to the read model. A type without an effect changes nothing."""
    effect = EFFECTS.get(EventType(entry.type))
    if effect is not None:
        effect(LedgerFact(connection, entry.id, entry.job, parse_entry_time(entry.at), json.loads(entry.data)))


# Statements are built once. Every parameter other than those of `bindparam` sets the column of its name.
_ENDED = JOBS.c.ended_at.is_not(None)
_WAITING = or_(JOBS.c.state == JobState.PENDING.value, JOBS.c.state == JobState.AWAITING_APPROVAL.value)
_PROVEN = JOBS.c.revocation_state.in_([state.value for state in RevocationState if state.is_proven])
_SETTLED = JOBS.c.revocation_state.in_([state.value for state in RevocationState if state.is_settled])
"""The job's revocation is confirmed, or was never needed."""
_UNCOVERED = exists().where(
    CREDENTIALS.c.job_id == JOBS.c.id,
    CREDENTIALS.c.live,
    or_(JOBS.c.revocation_confirmed_at.is_(None), CREDENTIALS.c.issued_at > JOBS.c.revocation_confirmed_at),
)
"""The job has a live credential that no confirmed revocation covers."""
_SINCE = case((_SETTLED, bindparam("fact_at", type_=UtcDateTime)), else_=JOBS.c.revocation_since)
"""When the open revocation began; the event's time if none was open."""
_OVERDUE = JOBS.c.revocation_state == RevocationState.OVERDUE.value
_NOT_PROVED_AFTER = or_(JOBS.c.revocation_confirmed_at.is_(None), JOBS.c.revocation_confirmed_at <= bindparam("fact_at", type_=UtcDateTime))
"""The event is not older than the last confirmed revocation."""

_JOB = update(JOBS).where(JOBS.c.id == bindparam("row_id"))
_START = _JOB.where(JOBS.c.started_at.is_(None)).values(state=case((_WAITING, JobState.RUNNING.value), else_=JOBS.c.state))
_AWAIT = _JOB.where(_WAITING).values(state=JobState.AWAITING_APPROVAL.value)
_END = _JOB.where(~_ENDED)
_REOPEN = _JOB.where(or_(_ENDED, _PROVEN), _SETTLED, _UNCOVERED).values(
    revocation_state=RevocationState.PENDING.value, revocation_confirmed_at=None, revocation_since=_SINCE, revocation_residual_until=None
)
"""Reopens the revocation of a job that has ended, or whose revocation was confirmed, if it has a live credential."""
_REVOKE = _JOB.where(_NOT_PROVED_AFTER).values(
    state=case((_ENDED, JOBS.c.state), else_=JobState.REVOKING.value),
    revocation_state=case((_OVERDUE, RevocationState.OVERDUE.value), else_=RevocationState.PENDING.value),
    revocation_confirmed_at=None,
    revocation_since=_SINCE,
    revocation_residual_until=None,
)
_FAIL = _JOB.where(_NOT_PROVED_AFTER).values(
    revocation_state=RevocationState.OVERDUE.value, revocation_confirmed_at=None, revocation_since=_SINCE, revocation_residual_until=None
)
_PROVE = _JOB.where(_NOT_PROVED_AFTER).values(
    revocation_state=RevocationState.CONFIRMED.value, revocation_failures=[], revocation_since=None, revocation_residual_until=None
)
_SET_RESIDUE = _JOB.where(_PROVEN)
_CUT, _CUT_FAILS = _REVOKE.where(~_PROVEN), _FAIL.where(~_PROVEN)
"""The variants of `_REVOKE` and `_FAIL` if a person cuts a job's access.

That is not evidence of a live credential, so a confirmed revocation stays confirmed.
"""
ACCESS_CUTTERS = frozenset({"person", "stranger"})

_ONE_MORE = update(ENDED_JOBS).where(ENDED_JOBS.c.state == bindparam("row_id")).values(jobs=ENDED_JOBS.c.jobs + 1)

_REQUEST = update(REQUESTS).where(REQUESTS.c.id == bindparam("row_id"), REQUESTS.c.job_id == bindparam("row_job"))
_PENDING = _REQUEST.where(REQUESTS.c.state == RequestState.PENDING.value)
_OPEN = _REQUEST.where(REQUESTS.c.state.in_([state.value for state in RequestState if state.granted] + [RequestState.PENDING.value]))
_DECIDE = _PENDING.values(
    current_tier=case((REQUESTS.c.current_tier > bindparam("needed"), REQUESTS.c.current_tier), else_=bindparam("needed"))
)
_UNCLAIM = _REQUEST.where(REQUESTS.c.claimed_by_id == bindparam("row_person")).values(
    claimed_by=None, claimed_by_id=None, claimed_until=None
)
_TAKE_BACK = _REQUEST.where(REQUESTS.c.state == RequestState.APPROVED.value).values(state=RequestState.WITHDRAWN.value)
_ANSWER = update(APPROVALS).where(APPROVALS.c.request_id == bindparam("row_id"), APPROVALS.c.approver_id == bindparam("row_person"))
_VERIFIED = update(APPROVALS).where(APPROVALS.c.request_id == bindparam("row_id")).values(lapsed=None)
_REVIEW = update(REVIEWS).where(REVIEWS.c.request_id == bindparam("row_id"), REVIEWS.c.job_id == bindparam("row_job"), REVIEWS.c.open)
_DELEGATION = update(DELEGATIONS).where(
    DELEGATIONS.c.id == bindparam("row_id"), DELEGATIONS.c.person_id == bindparam("row_person"), DELEGATIONS.c.ended_at.is_(None)
)
_ACKNOWLEDGEMENT = update(ACKNOWLEDGEMENTS).where(
    ACKNOWLEDGEMENTS.c.item == bindparam("row_id"), ACKNOWLEDGEMENTS.c.at < bindparam("fact_at", type_=UtcDateTime)
)
_WITHDRAW_ALL = (
    update(REQUESTS)
    .where(REQUESTS.c.job_id == bindparam("row_job"), REQUESTS.c.state == RequestState.PENDING.value)
    .values(state=RequestState.WITHDRAWN.value)
)

_CREDENTIAL = update(CREDENTIALS).where(CREDENTIALS.c.id == bindparam("row_id"), CREDENTIALS.c.job_id == bindparam("row_job"))
_ALIVE = _CREDENTIAL.where(CREDENTIALS.c.live)
_CONFIRM = _ALIVE.values(state=CredentialState.CONFIRMED.value, live=False, why=None)
_EXPIRE = _ALIVE.values(state=CredentialState.EXPIRED.value, live=False)
# The end of a credential that only its owner can change will never be known.
_LEAVE = _ALIVE.values(state=CredentialState.RESIDUAL.value, live=CREDENTIALS.c.revocable != Revocable.NEVER.value)
_RESIDUE = select(CREDENTIALS.c.revocable, CREDENTIALS.c.expires_at).where(
    CREDENTIALS.c.job_id == bindparam("row_job"), CREDENTIALS.c.state == CredentialState.RESIDUAL.value
)
_MARK_OVERDUE = _ALIVE.values(state=CredentialState.OVERDUE.value)
_LEARN = _CREDENTIAL.where(CREDENTIALS.c.accessor.is_(None))
_MARK_REVOKED = _CREDENTIAL.where(CREDENTIALS.c.revoked_at.is_(None)).values(
    state=case((CREDENTIALS.c.live, CredentialState.REVOKED.value), else_=CREDENTIALS.c.state)
)
_ALL = update(CREDENTIALS).where(CREDENTIALS.c.job_id == bindparam("row_job"))
_REVOKE_ALL = _ALL.where(CREDENTIALS.c.state == CredentialState.ISSUED.value).values(state=CredentialState.REVOKING.value)
_ALL_ALIVE = select(CREDENTIALS.c.id, CREDENTIALS.c.lease_id, CREDENTIALS.c.accessor, CREDENTIALS.c.certificate).where(
    CREDENTIALS.c.job_id == bindparam("row_job"), CREDENTIALS.c.live, CREDENTIALS.c.state != CredentialState.RESIDUAL.value
)


def job_submitted(fact: LedgerFact) -> None:
    data = fact.data
    copied = {name: data[name] for name in ("name", "task", "environment", "agent", "data_scope", "labels", "params", "bundle", "parent")}
    who = {"requester": data["requester_name"], "requester_id": data["requester"], "order_reason": data["reason"]}
    clean = {"revocation_state": RevocationState.NONE.value, "revocation_failures": []}
    fact.insert(JOBS, {"id": fact.job, "state": JobState.PENDING.value, "created_at": fact.at, **copied, **who, **clean})
    signed = {"spec": data["spec"], "params": data["params"], "bundle": data["bundle"], "signed": data["order"]}
    fact.insert(ORDERS, {"job": fact.job, **signed})


def job_started(fact: LedgerFact) -> None:
    """Mark the job as running. Older entries do not contain when it times out."""
    ends = parse_entry_time(fact.data["times_out_at"]) if "times_out_at" in fact.data else None
    fact.update_job(_START, {"started_at": fact.at, "sandbox": fact.data["sandbox"], "times_out_at": ends})


def job_ended(fact: LedgerFact) -> None:
    """End the job unless it has ended already. A live credential keeps its revocation open."""
    state = JobState(fact.data["state"]).value
    how = {"exit_code": fact.data["exit_code"], "reason": fact.data["reason"]}
    if fact.update_job(_END, {"state": state, "ended_at": fact.at, **how}):
        fact.update_job(_REOPEN, {"fact_at": fact.at})
        # A job ends once, so that each is counted once.
        if fact.connection.execute(_ONE_MORE, {"row_id": state}).rowcount == 0:
            fact.insert(ENDED_JOBS, {"state": state, "jobs": 1})
        # The job's pending requests can no longer be answered.
        fact.connection.execute(_WITHDRAW_ALL, {"row_job": fact.job})
        # The revocation has deleted these already, unless the store was unavailable then or nothing was to be revoked.
        for table in (LOCKS, PLACES):
            fact.connection.execute(delete(table).where(table.c.job == fact.job))


def access_requested(fact: LedgerFact) -> None:
    """Insert the request. Nobody can answer a request of a job that has ended."""
    data = fact.data
    job = fact.connection.execute(select(JOBS.c.requester_id, JOBS.c.ended_at).where(JOBS.c.id == fact.job)).first()
    requester, has_ended = (job.requester_id, job.ended_at is not None) if job else ("", False)
    state = RequestState.WITHDRAWN if has_ended else RequestState.PENDING
    copied = {
        name: data[name] for name in ("number", "resource", "action", "ttl", "reason", "optional", "title", "sensitivity", "revocable")
    }
    open_ = {"state": state.value, "created_at": fact.at, "tier": 0, "current_tier": 0, "quorum": 0}
    undecided = {"policies": [], "policy_digest": "", "digest": ""}
    ids = {"id": data["request"], "job_id": fact.job, "requester_id": requester}
    # Older entries lack these, and others leave them out.
    later = {name: data.get(name) for name in ("reason_by", "signed_reason", "call", "tools")}
    fact.insert(REQUESTS, {**ids, **copied, **open_, **undecided, **later})


def access_decided(fact: LedgerFact) -> None:
    """Settle a pending request. A denial at issue also ends a granted request."""
    data = fact.data
    state = {"allowed": RequestState.ALLOWED, "needs_approval": RequestState.PENDING, "denied": RequestState.DENIED}[data["outcome"]]
    if data["phase"] in FIRST_DECISION_PHASES:
        why = {name: data[name] for name in ("tier", "policies", "policy_digest", "digest")}
        fact.update_request(_DECIDE, {"state": state.value, "needed": data["tier"], **why})
    elif data["phase"] in SETTLING_PHASES and state is RequestState.DENIED:
        fact.update_request(_OPEN, {"state": state.value, **{name: data[name] for name in ("policies", "policy_digest")}})


def approval_opened(fact: LedgerFact) -> None:
    """Make a tier the current one, when the request opens and each time it escalates; earlier answers may be enough for it."""
    data = fact.data
    until = parse_entry_time(data["respond_by"]) if data["respond_by"] else None
    fact.update_request(_PENDING, {"current_tier": data["tier"], "quorum": data["quorum"], "expires_at": until})
    fact.update_job(_AWAIT, {})
    _approve(fact)


def approval_decided(fact: LedgerFact) -> None:
    """Insert an answer that counted, end its person's claim, and settle the request if the answer settles it."""
    data = fact.data
    answer = {"approver": data["name"], "approver_id": data["person"], "at": fact.at}
    copied = {name: data[name] for name in ("tier", "decision", "reason", "ttl")}
    # Entries from before approvals could be narrowed or delegated lack these fields.
    absent = {"on_behalf_of": data.get("on_behalf_of_name"), "on_behalf_of_id": data.get("on_behalf_of")}
    later = {"action": data.get("action"), **absent, "tools": data.get("tools")}
    fact.insert(APPROVALS, {"id": fact.id, "request_id": data["request"], **answer, **copied, **later})
    fact.update_request(_UNCLAIM, {"row_person": data["person"]})
    _approve(fact)
    if data["verdict"] == "denied":
        fact.update_request(_PENDING, {"state": RequestState.DENIED.value})


def _approve(fact: LedgerFact) -> None:
    """Approve the request if the entry says so, on the terms that it names. Entries about the answers that no longer count follow it."""
    if fact.data.get("verdict") == "approved":
        fact.connection.execute(_VERIFIED, {"row_id": fact.data["request"]})
        granted = {name: fact.data.get(name) for name in ("granted_ttl", "granted_action", "granted_tools")}
        fact.update_request(_PENDING, {"state": RequestState.APPROVED.value, **granted})


def approval_rejected(fact: LedgerFact) -> None:
    """Mark an answer that was counted and no longer counts. Other entries of this type are about answers that were never counted."""
    data = fact.data
    if fact.id.startswith(f"{fact.job}/{EventType.APPROVAL_REJECTED}/{data['request']}/{LAPSED}"):
        fact.connection.execute(_ANSWER, {"row_id": data["request"], "row_person": data["person"], "lapsed": data["why"]})


def approval_withdrawn(fact: LedgerFact) -> None:
    """Mark an answer as withdrawn, and the request too if it was approved only with that answer."""
    data = fact.data
    fact.connection.execute(_ANSWER, {"row_id": data["request"], "row_person": data["person"], "withdrawn_at": fact.at})
    if data["verdict"] == RequestState.WITHDRAWN:
        fact.update_request(_TAKE_BACK, {})


def approval_claimed(fact: LedgerFact) -> None:
    data, until = fact.data, parse_entry_time(fact.data["until"]) if fact.data["until"] else None
    by = {"claimed_by": data["name"], "claimed_by_id": data["person"]} if until else {"claimed_by": None, "claimed_by_id": None}
    fact.update_request(_PENDING, {**by, "claimed_until": until})


def review_opened(fact: LedgerFact) -> None:
    copied = {name: fact.data[name] for name in ("tiers", "groups", "reason")}
    ids = {"request_id": fact.data["request"], "job_id": fact.job, "person": fact.data["name"], "person_id": fact.data["person"]}
    fact.insert(REVIEWS, {**ids, **copied, "opened_at": fact.at, "open": True})


def review_answered(fact: LedgerFact) -> None:
    """Close the review unless it has been answered already."""
    answer = {"verdict": fact.data["verdict"], "reviewer": fact.data["name"], "review_reason": fact.data["reason"]}
    fact.update_request(_REVIEW, {"open": False, **answer, "reviewed_at": fact.at})


def attention_acknowledged(fact: LedgerFact) -> None:
    """Set who takes care of an item, unless a later acknowledgement is recorded."""
    data = fact.data
    said = {"person": data["name"], "person_id": data["person"], "note": data["note"], "at": fact.at}
    if not fact.insert(ACKNOWLEDGEMENTS, {"item": data["item"], **said}):
        fact.connection.execute(_ACKNOWLEDGEMENT, {"row_id": data["item"], "fact_at": fact.at, **said})


def delegation_made(fact: LedgerFact) -> None:
    data = fact.data
    who = {"person": data["name"], "person_id": data["person"], "delegate": data["delegate_name"], "delegate_id": data["delegate"]}
    copied = {"reason": data["reason"], "signed": data["signed"], "made_at": fact.at, "until": parse_entry_time(data["until"])}
    fact.insert(DELEGATIONS, {"id": data["delegation"], **who, **copied})


def delegation_ended(fact: LedgerFact) -> None:
    fact.connection.execute(_DELEGATION, {"row_id": fact.data["delegation"], "row_person": fact.data["person"], "ended_at": fact.at})


def credential_issued(fact: LedgerFact) -> None:
    """Insert a credential, known or in doubt, and reopen the revocation of a job that has ended or whose revocation was confirmed.

    A credential in doubt may have been issued, but nobody knows its handles: it counts as live until its latest end.
    """
    data, is_known = fact.data, "issued_at" in fact.data
    # Older entries lack some of these.
    held = {"held_by_job": data.get("held_by_job", True)}
    handles = {name: data.get(name) for name in ("lease_id", "accessor", "certificate", "user", "target_digest", "search_digest")}
    times = {
        "issued_at": parse_entry_time(data["issued_at" if is_known else "asked_at"]),
        "expires_at": parse_entry_time(data["expires_at"]),
    }
    ids = {"id": data["credential"], "job_id": fact.job, "request_id": data["request"]}
    copied = {name: data[name] for name in ("resource", "action", "revocable")}
    state = (CredentialState.ISSUED if is_known else CredentialState.REVOKING).value
    if not fact.insert(CREDENTIALS, {**ids, **copied, **held, **handles, **times, "state": state, "live": True}) and is_known:
        # The credential was in doubt before.
        fact.update_credential(_LEARN, {**held, **handles, **times})
    fact.update_job(_REOPEN, {"fact_at": fact.at})


def credential_found(fact: LedgerFact) -> None:
    """Remember that the credential's user was found alive, and when the first user was found under these digests."""
    for digest in filter(None, (fact.data["search_digest"], fact.data["place_digest"])):
        fact.insert(POSITIVE_CONTROLS, {"digest": digest, "credential_id": fact.data["credential"], "found_at": fact.at})
    fact.update_credential(_CREDENTIAL, {"target_digest": fact.data["target_digest"]})


def revocation_started(fact: LedgerFact) -> None:
    """Mark job and credentials as being revoked. An overdue revocation stays overdue until it is confirmed."""
    if fact.update_job(_CUT if fact.data["by"] in ACCESS_CUTTERS else _REVOKE, {"fact_at": fact.at}):
        fact.connection.execute(_REVOKE_ALL, {"row_job": fact.job})


def revocation_overdue(fact: LedgerFact) -> None:
    """Mark the revocation as overdue, with its failures, unless a check that began later has confirmed it."""
    failures = fact.data["failures"]
    # Older entries do not record when their check began.
    seen_from = parse_entry_time(fact.data["seen_from"]) if "seen_from" in fact.data else fact.at
    fails = _CUT_FAILS if fact.data["by"] in ACCESS_CUTTERS else _FAIL
    if fact.update_job(fails, {"fact_at": seen_from, "revocation_failures": failures}):
        for name, *handles in fact.connection.execute(_ALL_ALIVE, {"row_job": fact.job}).all():
            why = "; ".join(failures_concerning(failures, {name, *handles}))
            fact.connection.execute(_MARK_OVERDUE, {"row_id": name, "row_job": fact.job, "why": why or None})


def revocation_confirmed(fact: LedgerFact) -> None:
    """Confirm the job's revocation, unless a credential was issued since."""
    if fact.update_job(_PROVE, {"fact_at": fact.at, "revocation_confirmed_at": fact.at}):
        _update_residue(fact)
        fact.update_job(_REOPEN, {"fact_at": fact.at})


def credential_left_to_time(fact: LedgerFact) -> None:
    """Mark a credential that cannot be revoked as still valid or as expired, and its job accordingly."""
    fact.update_credential(_LEAVE if "until" in fact.data else _EXPIRE, {"why": fact.data["why"]})
    _update_residue(fact)


def _update_residue(fact: LedgerFact) -> None:
    """Show a proven revocation as residual while the job has valid credentials that cannot be revoked, and as confirmed after that."""
    left = fact.connection.execute(_RESIDUE, {"row_job": fact.job}).all()
    is_endless = any(revocable == Revocable.NEVER for revocable, _ in left)
    until = None if is_endless else max((expires_at for _, expires_at in left), default=None)
    state = RevocationState.RESIDUAL if left else RevocationState.CONFIRMED
    fact.update_job(_SET_RESIDUE, {"revocation_state": state.value, "revocation_residual_until": until})


EFFECTS: dict[EventType, Callable[[LedgerFact], object]] = {
    EventType.JOB_SUBMITTED: job_submitted,
    EventType.JOB_STARTED: job_started,
    EventType.JOB_ENDED: job_ended,
    EventType.ACCESS_REQUESTED: access_requested,
    EventType.ACCESS_DECIDED: access_decided,
    EventType.ACCESS_WITHDRAWN: lambda fact: fact.update_request(_OPEN, {"state": RequestState.WITHDRAWN.value}),
    EventType.LOCK_OPENED: lambda fact: fact.update_request(
        _PENDING, {"lock_accessor": fact.data["accessor"], "lock_expires_at": parse_entry_time(fact.data["expires_at"])}
    ),
    EventType.APPROVAL_OPENED: approval_opened,
    EventType.APPROVAL_ESCALATED: approval_opened,
    EventType.APPROVAL_DECIDED: approval_decided,
    EventType.APPROVAL_EXPIRED: lambda fact: fact.update_request(_PENDING, {"state": RequestState.EXPIRED.value}),
    EventType.APPROVAL_REJECTED: approval_rejected,
    EventType.APPROVAL_WITHDRAWN: approval_withdrawn,
    EventType.APPROVAL_CLAIMED: approval_claimed,
    EventType.REVIEW_OPENED: review_opened,
    EventType.REVIEW_ANSWERED: review_answered,
    EventType.ATTENTION_ACKNOWLEDGED: attention_acknowledged,
    EventType.DELEGATION_MADE: delegation_made,
    EventType.DELEGATION_ENDED: delegation_ended,
    EventType.CREDENTIAL_ISSUED: credential_issued,
    EventType.CREDENTIAL_DOUBTED: credential_issued,
    EventType.CREDENTIAL_FOUND: credential_found,
    EventType.CREDENTIAL_RENEWED: lambda fact: fact.update_credential(_ALIVE, {"expires_at": parse_entry_time(fact.data["expires_at"])}),
    EventType.CREDENTIAL_REVOKED: lambda fact: fact.update_credential(
        _MARK_REVOKED, {"revoked_at": time_done(fact.data, fact.at), "revoked_why": fact.data["why"]}
    ),
    EventType.CREDENTIAL_CONFIRMED: lambda fact: fact.update_credential(
        _CONFIRM, {"confirmed_at": time_done(fact.data, fact.at), "confirmed_how": fact.data["how"]}
    ),
    EventType.CREDENTIAL_RESIDUAL: credential_left_to_time,
    EventType.CREDENTIAL_EXPIRED: credential_left_to_time,
    EventType.CREDENTIAL_OVERDUE: lambda fact: fact.update_credential(_MARK_OVERDUE, {"why": "; ".join(fact.data["failures"])}),
    EventType.REVOCATION_STARTED: revocation_started,
    EventType.REVOCATION_OVERDUE: revocation_overdue,
    EventType.REVOCATION_CONFIRMED: revocation_confirmed,
}
"""The effect of each type. A type that is not here changes only the ledger."""
