"""Examines an approver's answer before it is handed on: who may answer, what it must be about. Blocking, for a thread. Counts nothing; the worker does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from anyio import fail_after, sleep, to_thread

from console.auth.authorization import Caller, Role, answering_groups, groups_with_role, missing_group_text
from console.services.console import Console
from console.services.inputs import SignedBody
from console.services.signed_statements import parse_own_statement, require_checks
from console.temporal.client import WorkflowGone
from justenough.domain.approvals.ladder import GrantTerms, Ladder
from justenough.domain.approvals.statements import DecisionStatement, why_not_valid_now
from justenough.domain.approvals.verification import needs_reason, why_bounds_invalid
from justenough.domain.core.errors import Conflict, Forbidden, InvalidInput, NotFound, PreconditionRequired, Problem, Stale
from justenough.domain.core.ids import request_number_of
from justenough.domain.core.rejection import Rejection
from justenough.domain.jobs.states import Action, RequestState
from justenough.domain.jobs.tool_bounds import BoundedTools, intersect_all
from justenough.domain.readmodel.views import JobView, RequestView
from justenough.services.approval_ladder import ladder_for_request
from justenough.services.dependencies import Deps
from justenough.services.evaluate_request import evaluate_grant, why_policy_denies_grant
from justenough.services.ledger_events import approval_rejected_event
from justenough.services.parent_chain import ancestor_launchers, console_requester_of
from justenough.services.verify_order import build_approval_verifier

COUNT_TIMEOUT_S = 5.0
"""Seconds to wait for the worker to count an answer."""


FIRST_POLL_DELAY_S = 0.01


MAX_POLL_INTERVAL_S = 0.2
"""The first pause between two looks, and the longest: many who wait for a busy worker must not keep it busy."""


async def submit_decision(
    console: Console,
    caller: Caller,
    request: str,
    body: SignedBody,
    *,
    if_match: str | None,
    before_submit: Callable[[], Awaitable[object]] | None = None,
) -> tuple[RequestView, bool]:
    """Hand a signed answer to the job; return the request as it is then, and whether a worker has counted the answer yet.

    `before_submit`: what must be done first once the answer is found good. Raises what `validate_decision` and `before_submit` do, Conflict where the job no longer
    runs, TemporalUnavailable.
    """
    view = await to_thread.run_sync(lambda: validate_decision(console.deps, caller, request, body, if_match=if_match))
    if before_submit is not None:
        await before_submit()
    try:
        await console.gateway.decide(view.job_id, body.to_signed())
    except WorkflowGone as error:
        raise Conflict("the job no longer runs") from error
    takes_back = body.statement.get("decision") == WITHDRAW
    done = partial(is_withdrawn, before=view) if takes_back else has_answered
    return await _wait_until_counted(console, view, caller.person.id, is_done=done)


async def _wait_until_counted(
    console: Console, view: RequestView, person: str, *, is_done: Callable[[RequestView, str], bool]
) -> tuple[RequestView, bool]:
    try:
        with fail_after(COUNT_TIMEOUT_S):
            pause = FIRST_POLL_DELAY_S
            while not is_done(view, person):
                await sleep(pause)
                pause = min(2 * pause, MAX_POLL_INTERVAL_S)
                found = await to_thread.run_sync(console.deps.store.requests.get, view.id)
                view = view if found is None else found
    except TimeoutError:
        return view, False
    return view, True


WITHDRAW, BREAK_GLASS = "withdraw", "break_glass"


def validate_decision(deps: Deps, caller: Caller, request_id: str, body: SignedBody, *, if_match: str | None) -> RequestView:
    """Return the request that a good answer is for.

    Raises NotFound, Forbidden, Conflict, Stale, PreconditionRequired, InvalidInput: in this order, so that nobody learns of a
    request's state who may not answer it.
    """
    view = deps.store.requests.get(request_id)
    job = deps.store.jobs.get(view.job_id) if view else None
    if view is None or job is None:
        raise NotFound(f"there is no request {request_id}")
    try:
        _check_decision(deps, caller, view, job, body, if_match=if_match)
    except (Forbidden, Conflict, Stale, InvalidInput) as refusal:
        # Every attempt is in the ledger, also one that goes no further than here; the same one again is the same entry.
        raw, person = body.to_signed().model_dump(mode="json"), caller.person.id
        why = f"{type(refusal).__name__}: {refusal}"[:500]
        deps.store.ledger.append(
            [approval_rejected_event(view.job_id, why, at=deps.now(), about=f"api/{person}", raw=raw, request=view.id, person=person)]
        )
        raise
    return view


def can_answer(deps: Deps, caller: Caller, view: RequestView, *, requester_id: str) -> bool:
    """Whether the caller can answer this request now."""
    return (
        view.state is RequestState.PENDING
        and caller.tier >= max(view.current_tier, 1)
        and not has_answered(view, caller.person.id)
        and why_own_job(deps, caller, view, requester_id=requester_id) is None
    )


def why_own_job(deps: Deps, caller: Caller, view: RequestView, *, requester_id: str) -> Rejection | None:
    """Return why the request is of the caller's own job, or of one that came of one of theirs; None where it is not."""
    return ladder_of(deps, view, requester_id=requester_id).why_own_job(caller.person.id)


def has_answered(view: RequestView, person: str) -> bool:
    """Whether a person's answer is recorded."""
    return any(approval.approver_id == person for approval in view.approvals)


def is_withdrawn(view: RequestView, person: str, *, before: RequestView) -> bool:
    """Whether an approval has been taken back since `before`: the whole request's, or this person's part of it."""
    return view.state is RequestState.WITHDRAWN or (_has_withdrawn(view, person) and not _has_withdrawn(before, person))


def _has_withdrawn(view: RequestView, person: str) -> bool:
    return any(item.withdrawn_at for item in view.approvals if item.approver_id == person)


def ladder_of(deps: Deps, view: RequestView, *, requester_id: str) -> Ladder:
    """Return what an answer must be about. Without the answers so far: the worker has them, with their signatures."""
    ladder = ladder_for_request(
        view.id,
        view,
        digest=view.digest,
        requester=requester_id,
        needed=view.tier,
        current=max(view.current_tier, 1),
        respond_by=view.expires_at or deps.now(),
    )
    return ladder.with_barred(forebears=ancestor_launchers(deps, view.parent, asked_by=console_requester_of(deps, view.job_id)))


def _check_decision(deps: Deps, caller: Caller, view: RequestView, job: JobView, body: SignedBody, *, if_match: str | None) -> None:
    _require_entitlement(deps, caller, view, job, body.statement.get("decision"))
    _require_digest(view, if_match, body)
    statement = parse_own_statement(DecisionStatement, body, caller)
    _require_within_request(view, statement)
    expired = why_not_valid_now(statement, now=deps.now())
    if expired:
        raise InvalidInput("decision", (Problem("statement.expires_at", expired.message),))
    asked, signed, looked = (
        ladder_of(deps, view, requester_id=job.requester_id),
        body.to_signed(),
        build_approval_verifier(deps, now=deps.now()),
    )
    withdraws = statement.decision == WITHDRAW
    verified = looked.verify_withdrawal(view.job_id, asked, signed) if withdraws else looked.verify_answer(view.job_id, asked, signed)
    if isinstance(verified, Rejection):
        raise Forbidden(f"the decision does not hold: {verified}")
    _require_policy(deps, view, asked, statement)


def _require_entitlement(deps: Deps, caller: Caller, view: RequestView, job: JobView, decision: Any) -> None:
    if decision == WITHDRAW:
        _require_withdrawable(caller, view, job)
        return
    if why := why_own_job(deps, caller, view, requester_id=job.requester_id):
        raise Forbidden(str(why))
    wanted = (
        groups_with_role(Role.BREAK_GLASS, caller.tiers) if decision == BREAK_GLASS else answering_groups(view.current_tier, caller.tiers)
    )
    if (Role.BREAK_GLASS if decision == BREAK_GLASS else Role.APPROVE) not in caller.roles:
        raise Forbidden(missing_group_text(wanted))
    if has_answered(view, caller.person.id):
        raise Conflict("you have answered this request already")
    if view.state is not RequestState.PENDING:
        raise Conflict(f"the request is {view.state.value}, not pending{_last_answer_text(view)}")
    if decision != BREAK_GLASS and caller.tier < view.current_tier:
        raise Forbidden(missing_group_text(wanted))


def _require_withdrawable(caller: Caller, view: RequestView, job: JobView) -> None:
    caller.require(Role.APPROVE, Role.LAUNCH)
    if not caller.can_read_jobs_of(job.requester_id) and Role.LAUNCH not in caller.roles:
        raise Forbidden(missing_group_text(groups_with_role(Role.APPROVE, caller.tiers)))
    mine = any(item.approver_id == caller.person.id for item in view.counting_approvals)
    if job.state.ended:
        raise Conflict(f"the job is over ({job.state.value}), and with it everything that it was issued")
    if view.state is not RequestState.APPROVED and not (view.state is RequestState.PENDING and mine):
        raise Conflict(f"the request is {view.state.value}: there is no approval to take back")


def _last_answer_text(view: RequestView) -> str:
    """Return who settled a request and when, where a person did."""
    last = view.approvals[-1] if view.approvals else None
    return f": {last.approver} answered at {last.at:%Y-%m-%d %H:%M:%S} UTC" if last else ""


def _require_digest(view: RequestView, if_match: str | None, body: SignedBody) -> None:
    if not if_match:
        raise PreconditionRequired("say in If-Match which digest you answer")
    if if_match.removeprefix("W/").strip('"') != view.digest:
        raise Stale("the request is not what you answered any more: its digest has changed")
    if isinstance(body.statement.get("digest"), str) and body.statement["digest"] != view.digest:
        raise Stale("the statement is for another digest than the request's")


def _require_within_request(view: RequestView, statement: DecisionStatement) -> None:
    wider = statement.action.rank > Action(view.action).rank
    other = statement.action.value != view.action and statement.decision not in {"approve", BREAK_GLASS}
    silent = needs_reason(statement.decision, view.current_tier) and not statement.reason.strip()
    wrong = {
        "job": (statement.job != view.job_id, "is another job's"),
        "request": (statement.request != view.id, "is another request's"),
        "action": (wider or other, f"the request is for {view.action}; an approval can allow less, never more"),
        "ttl": (not 0 < statement.ttl <= view.ttl, f"must be between 1 and {view.ttl} seconds: an approval can allow less, never more"),
        "tools": ((rejection := why_bounds_invalid(statement, view.tools)) is not None, str(rejection)),
        "reason": (silent, "a reason is required"),
    }
    require_checks("decision", wrong)


def _require_policy(deps: Deps, view: RequestView, ladder: Ladder, statement: DecisionStatement) -> None:
    """Raise Forbidden where policy does not allow what this answer and those before it leave of the request."""
    grant = _resulting_grant(view, statement)
    if statement.decision not in {"approve", BREAK_GLASS} or grant == GrantTerms(
        action=Action(view.action), ttl=view.ttl, tools=view.tools
    ):
        return
    again = evaluate_grant(deps, view.job_id, request_number_of(view.id), grant)
    rejection = again if isinstance(again, Rejection) else why_policy_denies_grant(grant, again[0], tier=ladder.current)
    if rejection:
        raise Forbidden(f"the decision does not hold: {rejection}")


def _resulting_grant(view: RequestView, statement: DecisionStatement) -> GrantTerms:
    actions = [statement.action, *(Action(item.action) for item in view.counting_approvals if item.action)]
    return GrantTerms(
        action=min(actions, key=lambda each: each.rank),
        ttl=min((statement.ttl, *(item.ttl for item in view.counting_approvals))),
        break_glass=statement.decision == BREAK_GLASS,
        tools=_resulting_tools(view, statement),
    )


def _resulting_tools(view: RequestView, statement: DecisionStatement) -> BoundedTools | None:
    bound = [one for one in (statement.tools, *(item.tools for item in view.counting_approvals)) if one is not None]
    return intersect_all(view.tools, *bound) if view.tools is not None and bound else view.tools
