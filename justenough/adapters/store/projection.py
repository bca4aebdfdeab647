"""The read model as a projection of the ledger: one small function for each type of event, effects on tables only. Decides nothing.

A late or repeated fact never turns a later one back: a job that has ended stays as it ended, a credential that was shown to be dead
stays dead, an answered request stays answered, and a proof covers what was issued before it and nothing that came after.

Over 400 lines: one small function for each type of event, read side by side.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Update, bindparam, case, delete, exists, or_, select, update

from justenough.adapters.store.engine import insert_new
from justenough.adapters.store.tables import (
    APPROVALS,
    CREDENTIALS,
    DELEGATIONS,
    ENDED_JOBS,
    JOBS,
    LOCKS,
    ORDERS,
    REQUESTS,
    REVIEWS,
    UtcDateTime,
)
from justenough.domain.jobs.states import CredentialState, JobState, RequestState, RevocationState
from justenough.domain.ledger.events import EventType
from justenough.domain.ledger.hash_chain import LedgerEntry

FIRST_DECISION_PHASES = ("start", "runtime")
"""Phases that decide a request first. At issue and renewal, policy is only checked again."""
SETTLING_PHASES = ("issue", "granted")
"""Phases in which a denial ends what was granted."""
SINGLE_CREDENTIAL_FAILURE = re.compile(r"(lease|token|certificate) \S|c-\S+: ")
"""How a failure begins that concerns one credential alone."""


class LedgerFact:
    """One entry, read: what an effect needs of it."""

    __slots__ = ("at", "data", "id", "job")

    def __init__(self, entry: LedgerEntry) -> None:
        self.id = entry.id
        self.job = entry.job
        self.at = parse_moment(entry.at)
        self.data: dict[str, Any] = json.loads(entry.data)


Effect = Callable[[Connection, LedgerFact], None]


def apply_entry(connection: Connection, entry: LedgerEntry) -> None:
    """Apply one entry to the read model; a type without an effect stands in the ledger alone."""
    effect = EFFECTS.get(EventType(entry.type))
    if effect is not None:
        effect(connection, LedgerFact(entry))


def parse_moment(text: str) -> datetime:
    """Return the moment that a text names; UTC where it names no zone."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


# Statements are built once. What their parameters name besides `which` and `theirs` is set as it is given.
_ENDED = JOBS.c.ended_at.is_not(None)
_WAITING = or_(JOBS.c.state == JobState.PENDING.value, JOBS.c.state == JobState.AWAITING_APPROVAL.value)
_SETTLED = or_(JOBS.c.revocation_state == RevocationState.NONE.value, JOBS.c.revocation_state == RevocationState.CONFIRMED.value)
"""The job's revocation looks done, or never needed."""
_UNCOVERED = exists().where(
    CREDENTIALS.c.job_id == JOBS.c.id,
    CREDENTIALS.c.live,
    or_(JOBS.c.revocation_confirmed_at.is_(None), CREDENTIALS.c.issued_at > JOBS.c.revocation_confirmed_at),
)
"""Something lives that no proof covers."""
_SINCE = case((_SETTLED, bindparam("fact_at", type_=UtcDateTime)), else_=JOBS.c.revocation_since)
"""When the revoking that is open began: now, where none was."""
_OVERDUE = JOBS.c.revocation_state == RevocationState.OVERDUE.value
_NOT_PROVED_AFTER = or_(JOBS.c.revocation_confirmed_at.is_(None), JOBS.c.revocation_confirmed_at <= bindparam("fact_at", type_=UtcDateTime))
"""The fact is not older than the proof that stands."""

_JOB = update(JOBS).where(JOBS.c.id == bindparam("which"))
_START = _JOB.where(JOBS.c.started_at.is_(None)).values(state=case((_WAITING, JobState.RUNNING.value), else_=JOBS.c.state))
_AWAIT = _JOB.where(_WAITING).values(state=JobState.AWAITING_APPROVAL.value)
_END = _JOB.where(~_ENDED)
_REOPEN = _JOB.where(or_(_ENDED, JOBS.c.revocation_state == RevocationState.CONFIRMED.value), _SETTLED, _UNCOVERED).values(
    revocation_state=RevocationState.PENDING.value, revocation_confirmed_at=None, revocation_since=_SINCE
)
"""A job that has ended, or was shown to be clean, and of which something lives, is not clean."""
_REVOKE = _JOB.where(_NOT_PROVED_AFTER).values(
    state=case((_ENDED, JOBS.c.state), else_=JobState.REVOKING.value),
    revocation_state=case((_OVERDUE, RevocationState.OVERDUE.value), else_=RevocationState.PENDING.value),
    revocation_confirmed_at=None,
    revocation_since=_SINCE,
)
_FAIL = _JOB.where(_NOT_PROVED_AFTER).values(
    revocation_state=RevocationState.OVERDUE.value, revocation_confirmed_at=None, revocation_since=_SINCE
)
_PROVE = _JOB.where(_NOT_PROVED_AFTER).values(
    revocation_state=RevocationState.CONFIRMED.value, revocation_failures=[], revocation_since=None
)
_UNPROVEN = JOBS.c.revocation_state != RevocationState.CONFIRMED.value
_CUT, _CUT_FAILS = _REVOKE.where(_UNPROVEN), _FAIL.where(_UNPROVEN)
"""What `_REVOKE` and `_FAIL` say, by who cuts a job's access because they want it to end. They did not begin because anything lives: what is proven stays so."""
ACCESS_CUTTERS = frozenset({"person", "stranger"})

_ONE_MORE = update(ENDED_JOBS).where(ENDED_JOBS.c.state == bindparam("which")).values(jobs=ENDED_JOBS.c.jobs + 1)

_REQUEST = update(REQUESTS).where(REQUESTS.c.id == bindparam("which"), REQUESTS.c.job_id == bindparam("theirs"))
_PENDING = _REQUEST.where(REQUESTS.c.state == RequestState.PENDING.value)
_OPEN = _REQUEST.where(REQUESTS.c.state.in_([state.value for state in RequestState if state.granted] + [RequestState.PENDING.value]))
_DECIDE = _PENDING.values(
    current_tier=case((REQUESTS.c.current_tier > bindparam("needed"), REQUESTS.c.current_tier), else_=bindparam("needed"))
)
_TAKE_BACK = _REQUEST.where(REQUESTS.c.state == RequestState.APPROVED.value).values(state=RequestState.WITHDRAWN.value)
_ANSWER = update(APPROVALS).where(APPROVALS.c.request_id == bindparam("which"), APPROVALS.c.approver_id == bindparam("whose"))
_REVIEW = update(REVIEWS).where(REVIEWS.c.request_id == bindparam("which"), REVIEWS.c.job_id == bindparam("theirs"), REVIEWS.c.open)
_DELEGATION = update(DELEGATIONS).where(
    DELEGATIONS.c.id == bindparam("which"), DELEGATIONS.c.person_id == bindparam("whose"), DELEGATIONS.c.ended_at.is_(None)
)
_WITHDRAW_ALL = (
    update(REQUESTS)
    .where(REQUESTS.c.job_id == bindparam("theirs"), REQUESTS.c.state == RequestState.PENDING.value)
    .values(state=RequestState.WITHDRAWN.value)
)

_CREDENTIAL = update(CREDENTIALS).where(CREDENTIALS.c.id == bindparam("which"), CREDENTIALS.c.job_id == bindparam("theirs"))
_ALIVE = _CREDENTIAL.where(CREDENTIALS.c.live)
_LEARN = _CREDENTIAL.where(CREDENTIALS.c.accessor.is_(None))
_MARK_REVOKED = _CREDENTIAL.where(CREDENTIALS.c.revoked_at.is_(None)).values(
    state=case((CREDENTIALS.c.live, CredentialState.REVOKED.value), else_=CREDENTIALS.c.state)
)
_ALL = update(CREDENTIALS).where(CREDENTIALS.c.job_id == bindparam("theirs"))
_REVOKE_ALL = _ALL.where(CREDENTIALS.c.state == CredentialState.ISSUED.value).values(state=CredentialState.REVOKING.value)
_ALL_ALIVE = select(CREDENTIALS.c.id, CREDENTIALS.c.lease_id, CREDENTIALS.c.accessor, CREDENTIALS.c.certificate).where(
    CREDENTIALS.c.job_id == bindparam("theirs"), CREDENTIALS.c.live
)


def job_submitted(connection: Connection, fact: LedgerFact) -> None:
    """Open the job and keep its order."""
    data = fact.data
    same = {name: data[name] for name in ("name", "task", "environment", "agent", "data_scope", "labels", "params", "bundle", "parent")}
    who = {"requester": data["requester_name"], "requester_id": data["requester"], "order_reason": data["reason"]}
    clean = {"revocation_state": RevocationState.NONE.value, "revocation_failures": []}
    insert_new(connection, JOBS, {"id": fact.job, "state": JobState.PENDING.value, "created_at": fact.at, **same, **who, **clean})
    signed = {"spec": data["spec"], "params": data["params"], "bundle": data["bundle"], "signed": data["order"]}
    insert_new(connection, ORDERS, {"job": fact.job, **signed})


def job_started(connection: Connection, fact: LedgerFact) -> None:
    """The process is about to run."""
    _update_job(connection, _START, fact, {"started_at": fact.at, "sandbox": fact.data["sandbox"]})


def job_ended(connection: Connection, fact: LedgerFact) -> None:
    """The first ending wins. What was issued and not shown to be dead keeps the job's revocation open."""
    state = JobState(fact.data["state"]).value
    told = {"exit_code": fact.data["exit_code"], "reason": fact.data["reason"]}
    if _update_job(connection, _END, fact, {"state": state, "ended_at": fact.at, **told}):
        _reopen(connection, fact)
        _count_ended(connection, state)
        # Nobody can answer for it any more.
        connection.execute(_WITHDRAW_ALL, {"theirs": fact.job})
        # Whoever revoked has dropped them already, unless the store was away just then.
        connection.execute(delete(LOCKS).where(LOCKS.c.job == fact.job))


def access_requested(connection: Connection, fact: LedgerFact) -> None:
    """Open the request."""
    data = fact.data
    requester: str = connection.execute(select(JOBS.c.requester_id).where(JOBS.c.id == fact.job)).scalar() or ""
    same = {name: data[name] for name in ("number", "resource", "action", "ttl", "reason", "optional", "title", "sensitivity", "revocable")}
    open_ = {"state": RequestState.PENDING.value, "created_at": fact.at, "tier": 0, "current_tier": 0, "quorum": 0}
    undecided = {"policies": [], "policy_digest": "", "digest": ""}
    ids = {"id": data["request"], "job_id": fact.job, "requester_id": requester}
    insert_new(connection, REQUESTS, {**ids, **same, **open_, **undecided, "call": data.get("call"), "tools": data.get("tools")})


def access_decided(connection: Connection, fact: LedgerFact) -> None:
    """Settle a pending request; a denial at issue ends a granted one too."""
    data = fact.data
    state = {"allowed": RequestState.ALLOWED, "needs_approval": RequestState.PENDING, "denied": RequestState.DENIED}[data["outcome"]]
    if data["phase"] in FIRST_DECISION_PHASES:
        why = {name: data[name] for name in ("tier", "policies", "policy_digest", "digest")}
        _update_request(connection, _DECIDE, fact, {"state": state.value, "needed": data["tier"], **why})
    elif data["phase"] in SETTLING_PHASES and state is RequestState.DENIED:
        _update_request(connection, _OPEN, fact, {"state": state.value, "policies": data["policies"]})


def access_withdrawn(connection: Connection, fact: LedgerFact) -> None:
    """The job no longer asks for it."""
    _update_request(connection, _OPEN, fact, {"state": RequestState.WITHDRAWN.value})


def lock_opened(connection: Connection, fact: LedgerFact) -> None:
    """Something waits in Vault until people authorize it."""
    _update_request(
        connection, _PENDING, fact, {"lock_accessor": fact.data["accessor"], "lock_expires_at": parse_moment(fact.data["expires_at"])}
    )


def approval_opened(connection: Connection, fact: LedgerFact) -> None:
    """A tier answers now: opened, or climbed to."""
    data = fact.data
    until = parse_moment(data["respond_by"]) if data["respond_by"] else None
    _update_request(connection, _PENDING, fact, {"current_tier": data["tier"], "quorum": data["quorum"], "expires_at": until})
    _update_job(connection, _AWAIT, fact)


def approval_decided(connection: Connection, fact: LedgerFact) -> None:
    """One answer counted; where it settles the request, settle it."""
    data = fact.data
    answer = {"approver": data["name"], "approver_id": data["person"], "at": fact.at}
    same = {name: data[name] for name in ("tier", "decision", "reason", "ttl")}
    # Entries that were written before anyone could allow less, or answer for another, do not say so.
    later = {"action": data.get("action"), "on_behalf_of": data.get("on_behalf_of_name"), "tools": data.get("tools")}
    insert_new(connection, APPROVALS, {"id": fact.id, "request_id": data["request"], **answer, **same, **later})
    if data["verdict"] == "approved":
        granted = {"granted_ttl": data["granted_ttl"], "granted_action": data.get("granted_action")}
        granted["granted_tools"] = data.get("granted_tools")
        _update_request(connection, _PENDING, fact, {"state": RequestState.APPROVED.value, **granted})
    elif data["verdict"] == "denied":
        _update_request(connection, _PENDING, fact, {"state": RequestState.DENIED.value})


def approval_expired(connection: Connection, fact: LedgerFact) -> None:
    """Nobody answered up to the top tier."""
    _update_request(connection, _PENDING, fact, {"state": RequestState.EXPIRED.value})


def approval_withdrawn(connection: Connection, fact: LedgerFact) -> None:
    """An answer was taken back, and with it the approval that it had led to."""
    data = fact.data
    connection.execute(_ANSWER, {"which": data["request"], "whose": data["person"], "withdrawn_at": fact.at})
    if data["verdict"] == RequestState.WITHDRAWN:
        _update_request(connection, _TAKE_BACK, fact, {})


def approval_claimed(connection: Connection, fact: LedgerFact) -> None:
    """Somebody looks at it, or does no longer."""
    data, until = fact.data, parse_moment(fact.data["until"]) if fact.data["until"] else None
    by = {"claimed_by": data["name"], "claimed_by_id": data["person"]} if until else {"claimed_by": None, "claimed_by_id": None}
    _update_request(connection, _PENDING, fact, {**by, "claimed_until": until})


def review_opened(connection: Connection, fact: LedgerFact) -> None:
    """A tier was passed; what is thought of it is open."""
    same = {name: fact.data[name] for name in ("tiers", "groups", "reason")}
    ids = {"request_id": fact.data["request"], "job_id": fact.job, "person": fact.data["name"], "person_id": fact.data["person"]}
    insert_new(connection, REVIEWS, {**ids, **same, "opened_at": fact.at, "open": True})


def review_answered(connection: Connection, fact: LedgerFact) -> None:
    """The first answer stands."""
    said = {"verdict": fact.data["verdict"], "reviewer": fact.data["name"], "review_reason": fact.data["reason"]}
    _update_request(connection, _REVIEW, fact, {"open": False, **said, "reviewed_at": fact.at})


def delegation_made(connection: Connection, fact: LedgerFact) -> None:
    """Somebody answers for somebody else."""
    data = fact.data
    who = {"person": data["name"], "person_id": data["person"], "delegate": data["delegate_name"], "delegate_id": data["delegate"]}
    same = {"reason": data["reason"], "signed": data["signed"], "made_at": fact.at, "until": parse_moment(data["until"])}
    insert_new(connection, DELEGATIONS, {"id": data["delegation"], **who, **same})


def delegation_ended(connection: Connection, fact: LedgerFact) -> None:
    """They answer for themselves again."""
    connection.execute(_DELEGATION, {"which": fact.data["delegation"], "whose": fact.data["person"], "ended_at": fact.at})


def credential_issued(connection: Connection, fact: LedgerFact) -> None:
    """Keep the handle. A job that has ended, or was shown to be clean before this issue, is not clean."""
    data = fact.data
    same = {name: data[name] for name in ("resource", "action", "lease_id", "accessor", "revocable")}
    # Entries of before there were certificates do not name any.
    same["certificate"] = data.get("certificate")
    ids = {"id": data["credential"], "job_id": fact.job, "request_id": data["request"]}
    times = {"issued_at": parse_moment(data["issued_at"]), "expires_at": parse_moment(data["expires_at"])}
    if not insert_new(connection, CREDENTIALS, {**ids, **same, **times, "state": CredentialState.ISSUED.value, "live": True}):
        # It had been doubted meanwhile; now there are handles to end it by.
        handles = {name: same[name] for name in ("lease_id", "accessor", "certificate")}
        _update_credential(connection, _LEARN, fact, {**handles, **times})
    _reopen(connection, fact)


def credential_doubted(connection: Connection, fact: LedgerFact) -> None:
    """It may live, and nobody has its handles: shown, and in the way of a proof, until its latest end."""
    data = fact.data
    same = {name: data[name] for name in ("resource", "action", "revocable")}
    ids = {"id": data["credential"], "job_id": fact.job, "request_id": data["request"], "lease_id": None, "accessor": None}
    times = {"issued_at": parse_moment(data["asked_at"]), "expires_at": parse_moment(data["expires_at"])}
    insert_new(connection, CREDENTIALS, {**ids, **same, **times, "state": CredentialState.REVOKING.value, "live": True})
    _reopen(connection, fact)


def credential_renewed(connection: Connection, fact: LedgerFact) -> None:
    """It ends later."""
    _update_credential(connection, _ALIVE, fact, {"expires_at": parse_moment(fact.data["expires_at"])})


def credential_revoked(connection: Connection, fact: LedgerFact) -> None:
    """Vault was told; whether it is dead is another event."""
    _update_credential(connection, _MARK_REVOKED, fact, {"revoked_at": fact.at, "revoked_why": fact.data["why"]})


def credential_confirmed(connection: Connection, fact: LedgerFact) -> None:
    """It was looked at and found dead."""
    dead = {"state": CredentialState.CONFIRMED.value, "live": False, "why": None}
    _update_credential(connection, _ALIVE, fact, {**dead, "confirmed_at": fact.at, "confirmed_how": fact.data["how"]})


def credential_expired(connection: Connection, fact: LedgerFact) -> None:
    """Its time ran out, and nobody could look."""
    _update_credential(connection, _ALIVE, fact, {"state": CredentialState.EXPIRED.value, "live": False, "why": fact.data["why"]})


def credential_overdue(connection: Connection, fact: LedgerFact) -> None:
    """It was to end while its job goes on, and could not be."""
    late = {"state": CredentialState.OVERDUE.value, "why": "; ".join(fact.data["failures"])}
    _update_credential(connection, _ALIVE, fact, late)


def revocation_started(connection: Connection, fact: LedgerFact) -> None:
    """Revoking goes on until its own proof; overdue stays overdue until then. Our nets begin only where there is no proof, or something lives."""
    if _update_job(connection, _CUT if fact.data["by"] in ACCESS_CUTTERS else _REVOKE, fact, {"fact_at": fact.at}):
        connection.execute(_REVOKE_ALL, {"theirs": fact.job})


def revocation_overdue(connection: Connection, fact: LedgerFact) -> None:
    """It was tried and failed; shown until proof. One that hung past a proof saw nothing newer than that."""
    failures = fact.data["failures"]
    # Entries of before do not say since when they looked.
    seen_from = parse_moment(fact.data["seen_from"]) if "seen_from" in fact.data else fact.at
    fails = _CUT_FAILS if fact.data["by"] in ACCESS_CUTTERS else _FAIL
    if _update_job(connection, fails, fact, {"fact_at": seen_from, "revocation_failures": failures}):
        for name, *handles in connection.execute(_ALL_ALIVE, {"theirs": fact.job}).all():
            why = "; ".join(failures_concerning(failures, {name, *handles}))
            connection.execute(_ALIVE, {"which": name, "theirs": fact.job, "state": CredentialState.OVERDUE.value, "why": why or None})


def revocation_confirmed(connection: Connection, fact: LedgerFact) -> None:
    """The job was shown to be clean, unless something was issued since."""
    if _update_job(connection, _PROVE, fact, {"fact_at": fact.at, "revocation_confirmed_at": fact.at}):
        _reopen(connection, fact)


EFFECTS: dict[EventType, Effect] = {
    EventType.JOB_SUBMITTED: job_submitted,
    EventType.JOB_STARTED: job_started,
    EventType.JOB_ENDED: job_ended,
    EventType.ACCESS_REQUESTED: access_requested,
    EventType.ACCESS_DECIDED: access_decided,
    EventType.ACCESS_WITHDRAWN: access_withdrawn,
    EventType.LOCK_OPENED: lock_opened,
    EventType.APPROVAL_OPENED: approval_opened,
    EventType.APPROVAL_ESCALATED: approval_opened,
    EventType.APPROVAL_DECIDED: approval_decided,
    EventType.APPROVAL_EXPIRED: approval_expired,
    EventType.APPROVAL_WITHDRAWN: approval_withdrawn,
    EventType.APPROVAL_CLAIMED: approval_claimed,
    EventType.REVIEW_OPENED: review_opened,
    EventType.REVIEW_ANSWERED: review_answered,
    EventType.DELEGATION_MADE: delegation_made,
    EventType.DELEGATION_ENDED: delegation_ended,
    EventType.CREDENTIAL_ISSUED: credential_issued,
    EventType.CREDENTIAL_DOUBTED: credential_doubted,
    EventType.CREDENTIAL_RENEWED: credential_renewed,
    EventType.CREDENTIAL_REVOKED: credential_revoked,
    EventType.CREDENTIAL_CONFIRMED: credential_confirmed,
    EventType.CREDENTIAL_EXPIRED: credential_expired,
    EventType.CREDENTIAL_OVERDUE: credential_overdue,
    EventType.REVOCATION_STARTED: revocation_started,
    EventType.REVOCATION_OVERDUE: revocation_overdue,
    EventType.REVOCATION_CONFIRMED: revocation_confirmed,
}
"""What each type does; the types that are not here stand in the ledger alone."""


def failures_concerning(failures: Sequence[str], handles: Collection[str | None]) -> Iterator[str]:
    """Yield what of a job's failures concerns one credential: what names one of its handles, and what names nobody's."""
    for failure in failures:
        if not SINGLE_CREDENTIAL_FAILURE.match(failure) or any(handle in failure for handle in handles if handle):
            yield failure


def _reopen(connection: Connection, fact: LedgerFact) -> None:
    _update_job(connection, _REOPEN, fact, {"fact_at": fact.at})


def _count_ended(connection: Connection, state: str) -> None:
    # A job ends once, and stays as it ended.
    if connection.execute(_ONE_MORE, {"which": state}).rowcount == 0:
        insert_new(connection, ENDED_JOBS, {"state": state, "jobs": 1})


def _update_job(connection: Connection, statement: Update, fact: LedgerFact, values: Mapping[str, Any] | None = None) -> bool:
    """Change the job as the statement says; return whether it did."""
    return connection.execute(statement, {"which": fact.job, **(values or {})}).rowcount == 1


def _update_request(connection: Connection, statement: Update, fact: LedgerFact, values: Mapping[str, Any]) -> None:
    connection.execute(statement, {"which": fact.data["request"], "theirs": fact.job, **values})


def _update_credential(connection: Connection, statement: Update, fact: LedgerFact, values: Mapping[str, Any]) -> None:
    connection.execute(statement, {"which": fact.data["credential"], "theirs": fact.job, **values})
