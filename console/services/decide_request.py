"""Validates a signed decision, or the withdrawal of one, and sends it to the job. Counts no votes; the worker does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from anyio import to_thread

from console.auth.authorization import Caller, Role
from console.concurrency.loops import poll_until
from console.services.console import Console
from console.services.inputs import SignedBody
from console.services.signed_statements import parse_own_statement, require_checks
from console.services.tell_job import tell_job
from console.temporal.client import WorkflowGone
from justenough.adapters.vault import control_groups
from justenough.domain.approvals.ladder import GrantTerms, Ladder
from justenough.domain.approvals.statements import DecisionStatement, why_not_valid_now
from justenough.domain.approvals.verification import Withdrawal, needs_reason, why_bounds_invalid
from justenough.domain.catalog.control_groups import control_group_of, why_not_narrowable
from justenough.domain.core.canonical_json import digest_of
from justenough.domain.core.errors import Conflict, Forbidden, InvalidInput, JustEnoughError, NotFound, PreconditionRequired, Problem, Stale
from justenough.domain.core.ids import request_number_of
from justenough.domain.core.rejection import Rejection
from justenough.domain.jobs.states import Action, JobState, RequestState
from justenough.domain.ledger.events import EventType
from justenough.domain.readmodel.views import EntryView, JobView, RequestView
from justenough.services.approval_ladder import ladder_for_recorded_request
from justenough.services.dependencies import Deps
from justenough.services.evaluate_request import evaluate_grant, why_not_offered, why_policy_denies_grant
from justenough.services.ledger_events import approval_rejected_event, approval_withdrawn_event, withdrawal_requested_event
from justenough.services.parent_chain import NoSuchParent, ancestor_launchers, console_requester_of
from justenough.services.verify_order import build_approval_verifier

COUNT_TIMEOUT_S = 5.0
FIRST_POLL_DELAY_S = 0.01
MAX_POLL_INTERVAL_S = 0.2
"""Pauses grow up to this, so that many waiting callers do not overload a busy worker."""
RESPONSE_TYPES = (EventType.APPROVAL_DECIDED, EventType.APPROVAL_WITHDRAWN, EventType.APPROVAL_REJECTED)
"""The entries by which a worker counts or rejects a decision that somebody signed."""
WITHDRAW, BREAK_GLASS = "withdraw", "break_glass"
ANSWERED_TEXT = "you have answered this request already, or a delegate has for you"


async def submit_decision(
    console: Console,
    caller: Caller,
    request: str,
    body: SignedBody,
    *,
    if_match: str | None,
    before_submit: Callable[[], Awaitable[object]] | None = None,
) -> tuple[RequestView, bool]:
    """Send a signed decision to the job; return the request's state afterwards, and whether a worker has counted the decision yet.

    `before_submit` runs after validation and before sending. Raises its errors and those of `validate_decision`, Conflict if the job is no
    longer running, Conflict or Forbidden if the worker rejects the decision, TemporalUnavailable.
    """
    view = await to_thread.run_sync(lambda: validate_decision(console.deps, caller, request, body, if_match=if_match))
    if before_submit is not None:
        await before_submit()
    is_withdrawal = body.statement.get("decision") == WITHDRAW
    signed, job = body.to_signed(), await to_thread.run_sync(console.deps.store.jobs.get, view.job_id)
    sent = signed.model_dump(mode="json")
    received, read_to = digest_of(sent), (await to_thread.run_sync(console.deps.store.ledger.head)).position
    # A session revokes what an approval gave as soon as it reads that the approval is withdrawn. Only the workflow counts everything else.
    has_session = is_withdrawal and view.state is RequestState.APPROVED and job is not None and job.state is JobState.RUNNING
    requested = [withdrawal_requested_event(view, caller.person, signed, at=console.deps.now())] if has_session else []
    signal = console.gateway.decide(view.job_id, signed)
    failure = await tell_job(signal, lambda: console.deps.store.ledger.append(requested), needs_workflow=not has_session)
    if isinstance(failure, WorkflowGone):
        raise Conflict("the job is no longer running")

    def read_responses() -> list[EntryView]:
        """Return the entries by which the worker has counted or rejected this decision since it was sent."""
        nonlocal read_to
        entries = console.deps.store.ledger.entries(job=view.job_id, types=RESPONSE_TYPES, after=read_to).items
        # Strangers may have filled the first pages with decisions that were rejected.
        read_to = entries[-1].position if entries else read_to
        return [entry for entry in entries if entry.data.get("signed") == sent or entry.data.get("received") == received]

    responses = await poll_until(
        list[EntryView](),
        lambda: to_thread.run_sync(read_responses),
        until=bool,
        every_s=FIRST_POLL_DELAY_S,
        max_every_s=MAX_POLL_INTERVAL_S,
        timeout_s=COUNT_TIMEOUT_S,
    )
    newest = await to_thread.run_sync(console.deps.store.requests.get, view.id) or view
    # Whoever withdraws an approval at the same moment as somebody else has what they want, too.
    is_withdrawn = is_withdrawal and newest.state is RequestState.WITHDRAWN
    is_counted = is_withdrawn or any(entry.type != EventType.APPROVAL_REJECTED for entry in responses)
    if is_counted or not responses:
        return newest, is_counted
    if newest.state is not RequestState.PENDING:
        raise Conflict(not_pending_text(newest))
    raise Forbidden(f"the decision is not valid: {responses[0].data['why']}")


def withdraw_unsigned(console: Console, caller: Caller, request: str, reason: str) -> RequestView:
    """Record that the caller withdraws an approval, and return the request after that. Blocking, for a thread.

    Used while Vault does not answer, when nobody can sign and no worker can verify. It can only reduce access. Raises NotFound, Forbidden,
    Conflict.
    """
    view, job = find_visible_request(console.deps, caller, request)
    _require_withdrawable(caller, view, job)
    store, now, person = console.deps.store, console.deps.now(), caller.person
    withdrawal = Withdrawal(person=person.id, name=person.name, reason=reason, signed=None)

    def record(seen: RequestView) -> RequestView:
        is_approved = seen.state is RequestState.APPROVED
        verdict = RequestState.WITHDRAWN if is_approved else RequestState.PENDING
        withdrawn = approval_withdrawn_event(seen.job_id, seen.id, withdrawal, verdict=verdict.value, at=now)
        # Only what was approved can have credentials that a session must revoke.
        requested = [withdrawal_requested_event(seen, person, None, at=now)] if is_approved else []
        store.ledger.append([withdrawn, *requested])
        return store.requests.get(seen.id) or seen

    newest = record(view)
    # Somebody else's approval, with which the quorum was reached, may have been counted since the request was read.
    return record(newest) if newest.state is RequestState.APPROVED else newest


def find_visible_request(deps: Deps, caller: Caller, request_id: str) -> tuple[RequestView, JobView]:
    """Return a request that the caller may read, and its job. Raises NotFound for any other. Blocking, for a thread."""
    view, job = find_request(deps, request_id)
    if not caller.can_read_jobs_of(job.requester_id):
        raise NotFound(f"there is no request {request_id}")
    return view, job


def find_request(deps: Deps, request_id: str) -> tuple[RequestView, JobView]:
    """Return a request and its job. Raises NotFound. Blocking, for a thread."""
    view = deps.store.requests.get(request_id)
    job = deps.store.jobs.get(view.job_id) if view else None
    if view is None or job is None:
        raise NotFound(f"there is no request {request_id}")
    return view, job


# Rejections are recorded, and justenough.domain.evidence.single_events groups them by words in these messages.


def validate_decision(deps: Deps, caller: Caller, request_id: str, body: SignedBody, *, if_match: str | None) -> RequestView:
    """Return the request that a decision is for, if the decision is valid; record an invalid decision as rejected. Blocking, for a thread.

    Raises NotFound, Forbidden, Conflict, Stale, PreconditionRequired, InvalidInput: checked in this order, so that only a person who may decide
    the request learns its state.
    """
    view, job = find_visible_request(deps, caller, request_id)
    try:
        _check_decision(deps, caller, view, job, body, if_match=if_match)
    except (Forbidden, Conflict, Stale, InvalidInput) as refusal:
        # The ledger records every attempt, including those that never reach the worker. A repeated attempt is recorded once.
        raw, person = body.to_signed().model_dump(mode="json"), caller.person.id
        why = f"{type(refusal).__name__}: {refusal}"[:500]
        deps.store.ledger.append(
            [approval_rejected_event(view.job_id, why, at=deps.now(), about=f"api/{person}", raw=raw, request=view.id, person=person)]
        )
        raise
    return view


def not_pending_text(view: RequestView) -> str:
    """Say that a request is not pending, and who decided it if people did."""
    last = max(view.deciding_answers, key=lambda item: item.at, default=None)
    decided_by = f": {last.approver} decided it at {last.at:%Y-%m-%d %H:%M:%S} UTC" if last else ""
    return f"the request is {view.state.value}, not pending{decided_by}"


def why_cannot_answer(deps: Deps, caller: Caller, view: RequestView, *, requester_id: str) -> str:
    """Return why the caller cannot decide this request now; empty if they can."""
    if view.state is not RequestState.PENDING:
        return f"Already {view.state.value}."
    if barred := why_own_job(deps, caller, view, requester_id=requester_id):
        return f"You cannot decide this request: {barred}."
    if has_answered(view, caller.person.id):
        return "You already decided this request, or a delegate did for you."
    if caller.tier < max(view.current_tier, 1):
        return "You can decide this by break-glass only, in an emergency." if Role.BREAK_GLASS in caller.roles else "View only."
    return ""


def why_own_job(deps: Deps, caller: Caller, view: RequestView, *, requester_id: str) -> Rejection | None:
    """Return a rejection if the caller launched the request's job or an ancestor of it, or if the ancestors cannot be read, else None."""
    try:
        return ladder_of(deps, view, requester_id=requester_id).why_own_job(caller.person.id)
    except NoSuchParent as error:
        return Rejection("parent_unknown", str(error))


def has_answered(view: RequestView, person: str) -> bool:
    """Whether this person (entity id) can no longer decide: they withdrew a decision, or theirs or their delegate's counts at this tier."""
    return any(
        item.approver_id == person or (item.on_behalf_of_id == person and item.withdrawn_at is None) for item in view.lasting_answers
    )


def ladder_of(deps: Deps, view: RequestView, *, requester_id: str) -> Ladder:
    """Build the request's approval state for validation, without earlier votes, whose signatures only the worker has."""
    ladder = ladder_for_recorded_request(view, requester=requester_id, respond_by=view.expires_at or deps.now())
    return ladder.with_barred(forebears=ancestor_launchers(deps, view.parent, asked_by=console_requester_of(deps, view.job_id)))


def _check_decision(deps: Deps, caller: Caller, view: RequestView, job: JobView, body: SignedBody, *, if_match: str | None) -> None:
    require_entitlement(deps, caller, view, job, body.statement.get("decision"))
    if not if_match:
        raise PreconditionRequired("If-Match is required: send the digest of the request that you decide")
    if if_match.removeprefix("W/").strip('"') != view.digest:
        raise Stale("the request has changed since you read it: If-Match is not its digest; read it again")
    if isinstance(body.statement.get("digest"), str) and body.statement["digest"] != view.digest:
        raise Stale("the statement's digest is not the request's; read the request again")
    statement = parse_own_statement(DecisionStatement, body, caller)
    _require_within_request(view, statement)
    if expired := why_not_valid_now(statement, now=deps.now()):
        raise InvalidInput("decision", (Problem("statement.expires_at", str(expired)),))
    ladder, verifier = ladder_of(deps, view, requester_id=job.requester_id), build_approval_verifier(deps, now=deps.now())
    verify = verifier.verify_withdrawal if statement.decision == WITHDRAW else verifier.verify_answer
    verified = verify(view.job_id, ladder, body.to_signed())
    if isinstance(verified, Rejection):
        raise Forbidden(f"the decision is not valid: {verified}")
    absent = statement.on_behalf_of if statement.decision != WITHDRAW else None
    if absent and (answered := why_no_delegate_of(deps, view, absent, requester_id=job.requester_id)):
        raise Conflict(answered)
    _require_grantable(deps, caller, view, statement)


def require_entitlement(deps: Deps, caller: Caller, view: RequestView, job: JobView, decision: Any) -> None:
    """Raise Forbidden or Conflict if the caller cannot make this decision on the request now, whatever it says."""
    if decision == WITHDRAW:
        _require_withdrawable(caller, view, job)
        return
    if why := why_own_job(deps, caller, view, requester_id=job.requester_id):
        raise Forbidden(why)
    breaks_glass = decision == BREAK_GLASS
    # A person who cannot decide the request does not learn its state.
    if breaks_glass:
        caller.require(Role.BREAK_GLASS)
    elif Role.APPROVE not in caller.roles:
        caller.require_tier(view.current_tier)
    if has_answered(view, caller.person.id):
        raise Conflict(ANSWERED_TEXT)
    if view.state is not RequestState.PENDING:
        raise Conflict(not_pending_text(view))
    if not breaks_glass:
        caller.require_tier(view.current_tier)


def _require_withdrawable(caller: Caller, view: RequestView, job: JobView) -> None:
    caller.require_right_to_stop(job.requester_id)
    mine = any(item.approver_id == caller.person.id for item in view.standing_approvals)
    if job.state.ended:
        raise Conflict(f"the job has ended ({job.state.value}), so there is nothing left to withdraw")
    if view.state is not RequestState.APPROVED and not (view.state is RequestState.PENDING and mine):
        of_yours = " of yours" if view.state is RequestState.PENDING else ""
        raise Conflict(f"the request is {view.state.value} and has no approval{of_yours} to withdraw")


def _require_within_request(view: RequestView, statement: DecisionStatement) -> None:
    wider = statement.action.rank > Action(view.action).rank
    other = statement.action.value != view.action and statement.decision not in {"approve", BREAK_GLASS}
    # The call stays the same: with a lesser credential, it would only fail.
    changes_call = statement.action.value != view.action and view.call is not None
    less = f"the request is for {view.action}; an approval can allow less, never more"
    why_action = f"the call needs {view.action}: allow that, or deny it" if changes_call else less
    silent = needs_reason(statement.decision, view.current_tier) and not statement.reason.strip()
    checks = {
        "job": (statement.job != view.job_id, "is another job's"),
        "request": (statement.request != view.id, "is another request's"),
        "action": (wider or other or changes_call, why_action),
        "ttl": (not 0 < statement.ttl <= view.ttl, f"must be between 1 and {view.ttl} seconds: an approval can allow less, never more"),
        "tools": ((rejection := why_bounds_invalid(statement, view.tools)) is not None, str(rejection)),
        "reason": (silent, "a reason is required"),
    }
    require_checks("decision", checks)


def _require_grantable(deps: Deps, caller: Caller, view: RequestView, statement: DecisionStatement) -> None:
    """Raise Forbidden for an approval if the catalog no longer offers the access, if Vault's control group would not count the approval, or if
    policy now denies what it grants, narrowed or not.
    """
    if statement.decision not in {"approve", BREAK_GLASS}:
        return
    terms = GrantTerms(action=statement.action, ttl=statement.ttl, tools=statement.tools, break_glass=statement.decision == BREAK_GLASS)
    if why := why_not_offered(deps, (view.resource, Action(view.action))) or why_approval_refused(deps, caller, view, terms):
        raise Forbidden(f"the decision is not valid: {why}")


def why_approval_refused(deps: Deps, caller: Caller, view: RequestView, terms: GrantTerms) -> Rejection | None:
    """Return why policy, Vault's control group or the job's order would refuse an approval by the caller on these terms now; None if none would.

    Raises RetryLater if that cannot be checked now. Blocking, for a thread.
    """
    if rejection := _why_lock_refuses(deps, caller, view, action=terms.action, break_glass=terms.break_glass):
        return rejection
    requested = GrantTerms(action=Action(view.action), ttl=view.ttl, break_glass=terms.break_glass, tools=view.tools)
    earlier = (GrantTerms(action=Action(item.action or view.action), ttl=item.ttl, tools=item.tools) for item in view.counting_approvals)
    # The strictest of all approvals counts.
    grant = requested.narrowed_by((terms, *earlier))
    evaluated = evaluate_grant(deps, view.job_id, request_number_of(view.id), grant)
    tier = max(view.tier, view.current_tier, 1)
    return evaluated if isinstance(evaluated, Rejection) else why_policy_denies_grant(grant, evaluated[0], tier=tier)


def _why_lock_refuses(deps: Deps, caller: Caller, view: RequestView, *, action: Action, break_glass: bool) -> Rejection | None:
    config, requested = deps.config.current(), Action(view.action)
    if rejection := why_not_narrowable(config.catalog, view.resource, requested, action):
        return rejection
    definition = config.catalog.action(view.resource, requested)
    rule = control_group_of(definition, config.tiers) if definition else None
    if rule and not caller.person.groups & set(rule.groups):
        text = f"Vault's control group counts only authorizations by members of {', '.join(rule.groups)}"
        return Rejection("control_group_unauthorized", text)
    if rule is None or not break_glass or rule.approvals == 1:
        return None
    try:
        state = control_groups.read_state(deps.vault, view.lock.accessor) if view.lock else None
    except JustEnoughError:
        # The worker asks Vault, too, and in an emergency nobody must wait because the console lacks this right.
        return None
    if rule.approvals <= len({caller.person.id, *(state.authorized if state else ())}):
        return None
    text = f"Vault's control group requires {rule.approvals} people of {', '.join(rule.groups)}, which break-glass cannot replace"
    return Rejection("control_group_waiting", text)


def why_no_delegate_of(deps: Deps, view: RequestView, absent: str, *, requester_id: str) -> Rejection | None:
    """Return why nobody can decide a request on behalf of this absent person; None if their delegate can. Raises RetryLater."""
    if rejection := ladder_of(deps, view, requester_id=requester_id).why_own_job(absent):
        return rejection
    person = deps.vault.person(absent, deps.settings.people_mounts)
    if has_answered(view, absent):
        return Rejection("already_answered", "the absent person has answered this request already, or a delegate has for them")
    if person is None or deps.config.current().tiers.tier_of(person.groups) < view.current_tier:
        return Rejection("tier_too_low", f"this person may not decide at tier {view.current_tier}")
    return None
