"""Examines an approver's answer before it is handed on: who may answer, what it must be about. Blocking, for a thread. Counts nothing; the worker does."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from activities.deps import Deps
from activities.entries import rejected
from activities.verification import Refused, verify_decision
from console.api.bodies import SignedAnswer
from console.api.launching import statement_problems
from console.api.rights import Caller, Role, answering_groups, needs
from console.problems import PreconditionRequired
from justenough.access import Action, RequestState
from justenough.errors import Conflict, Forbidden, InvalidInput, NotFound, Problem, Stale
from justenough.statements import DecisionStatement, why_not_current
from justenough.views import JobView, RequestView


@dataclass(frozen=True, slots=True)
class Asked:
    """What the decision must be about."""

    request: str
    digest: str
    requester: str
    ttl: int
    action: Action


def examined(deps: Deps, caller: Caller, request_id: str, body: SignedAnswer, *, if_match: str | None) -> RequestView:
    """Return the request that a good answer is for.

    Raises NotFound, Forbidden, Conflict, Stale, PreconditionRequired, InvalidInput: in this order, so that nobody learns of a
    request's state who may not answer it.
    """
    view = deps.store.request(request_id)
    job = deps.store.job(view.job_id) if view else None
    if view is None or job is None:
        raise NotFound(f"there is no request {request_id}")
    try:
        _examine(deps, caller, view, job, body, if_match=if_match)
    except (Forbidden, Conflict, Stale, InvalidInput) as refusal:
        # Every attempt is in the ledger, also one that goes no further than here; the same one again is the same entry.
        raw, person = body.signed().model_dump(mode="json"), caller.person.id
        why = f"{type(refusal).__name__}: {refusal}"[:500]
        deps.store.record([rejected(view.job_id, why, at=deps.now(), about=f"api/{person}", raw=raw, request=view.id, person=person)])
        raise
    return view


def _examine(deps: Deps, caller: Caller, view: RequestView, job: JobView, body: SignedAnswer, *, if_match: str | None) -> None:
    _must_be_entitled(caller, view, requester_id=job.requester_id)
    _must_match(view, if_match, body)
    statement = _statement(body)
    if statement.person != caller.person.id:
        raise Forbidden("the decision's statement is another person's than the token's")
    _must_fit(view, statement)
    expired = why_not_current(statement, now=deps.now())
    if expired:
        raise InvalidInput("decision", (Problem("statement.expires_at", expired),))
    asked = Asked(request=view.id, digest=view.digest, requester=job.requester_id, ttl=view.ttl, action=Action(view.action))
    verified = verify_decision(deps, view.job_id, asked, body.signed(), now=deps.now())
    if isinstance(verified, Refused):
        raise Forbidden(f"the decision does not hold: {verified.why}")


def answerable(caller: Caller, view: RequestView, *, requester_id: str) -> bool:
    """Whether the caller can answer this request now."""
    return (
        view.state is RequestState.PENDING
        and requester_id != caller.person.id
        and caller.tier >= max(view.current_tier, 1)
        and not has_answered(view, caller.person.id)
    )


def has_answered(view: RequestView, person: str) -> bool:
    """Whether a person's answer is recorded."""
    return any(approval.approver_id == person for approval in view.approvals)


def _must_be_entitled(caller: Caller, view: RequestView, *, requester_id: str) -> None:
    if requester_id == caller.person.id:
        raise Forbidden("no one answers for a job that they launched")
    if Role.APPROVE not in caller.roles:
        raise Forbidden(needs(answering_groups(view.current_tier, caller.tiers)))
    if has_answered(view, caller.person.id):
        raise Conflict("you have answered this request already")
    if view.state is not RequestState.PENDING:
        raise Conflict(f"the request is {view.state.value}, not pending")
    if caller.tier < view.current_tier:
        raise Forbidden(needs(answering_groups(view.current_tier, caller.tiers)))


def _must_match(view: RequestView, if_match: str | None, body: SignedAnswer) -> None:
    if not if_match:
        raise PreconditionRequired("say in If-Match which digest you answer")
    if if_match.removeprefix("W/").strip('"') != view.digest:
        raise Stale("the request is not what you answered any more: its digest has changed")
    if isinstance(body.statement.get("digest"), str) and body.statement["digest"] != view.digest:
        raise Stale("the statement is for another digest than the request's")


def _statement(body: SignedAnswer) -> DecisionStatement:
    try:
        return DecisionStatement.model_validate(body.statement)
    except ValidationError as error:
        raise InvalidInput("decision", statement_problems(error)) from error


def _must_fit(view: RequestView, statement: DecisionStatement) -> None:
    wrong = {
        "job": (statement.job != view.job_id, "is another job's"),
        "request": (statement.request != view.id, "is another request's"),
        "action": (statement.action.value != view.action, f"the request is for {view.action}"),
        "ttl": (not 0 < statement.ttl <= view.ttl, f"must be between 1 and {view.ttl} seconds, as requested"),
        "reason": (not statement.reason.strip(), "a reason is required"),
    }
    problems = tuple(Problem(f"statement.{name}", message) for name, (is_wrong, message) in wrong.items() if is_wrong)
    if problems:
        raise InvalidInput("decision", problems)
