"""Evaluates requests of a verified order against policy, as requested and as narrowed by approvers. Records and issues nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from justenough.domain.approvals.ladder import GrantTerms
from justenough.domain.approvals.statements import request_digest
from justenough.domain.catalog.loader import problems_in_spec, resolve_issue
from justenough.domain.core.ids import request_id
from justenough.domain.core.rejection import Rejection
from justenough.domain.core.units import duration_text
from justenough.domain.jobs.credentials import Decision, HeldAccess
from justenough.domain.jobs.spec import Access, at_start
from justenough.domain.jobs.states import Action
from justenough.domain.ledger.events import EventType
from justenough.domain.policy.cedar_request import AccessContext, Clock, DecisionFacts, JobFacts, Phase
from justenough.domain.policy.ceiling import beyond_of
from justenough.domain.readmodel.views import RequestView
from justenough.domain.tools.call import ToolCall, access_for_call, call_of
from justenough.services.dependencies import Deps
from justenough.services.inherited_limits import why_exceeds_ancestors
from justenough.services.parent_chain import inherit_touched
from justenough.services.verify_order import VerifiedOrder, verify_order

Evaluation = tuple[Decision, DecisionFacts]
REQUEST_UNKNOWN = Rejection("request_unknown", "no such request of this job has been recorded")


@dataclass(frozen=True, slots=True)
class EvaluatedRequest:
    """One start request with its policy decision."""

    number: int
    """Its place in the spec, from 1."""
    access: Access
    held: HeldAccess
    """The access that the job would hold at the time of this request."""
    decision: Decision
    facts: DecisionFacts


def evaluate_request(
    deps: Deps,
    job: str,
    verified: VerifiedOrder,
    access: Access,
    *,
    held: HeldAccess,
    phase: Phase,
    break_glass: bool = False,
    requested: Access | None = None,
) -> Evaluation:
    """Return the decision on one request now, by policy and the order's `beyond`, and its facts. What the job's ancestors touched counts as touched.

    `requested`: what the job requested, if approvers narrowed it to `access`; the order is compared with this.
    """
    current = deps.config.current()
    held = inherit_touched(deps, verified.statement.parent, held)
    facts = JobFacts(id=job, spec=verified.spec, requester=verified.person.id, requester_groups=verified.person.groups)
    clock = Clock.at(deps.now())
    context = AccessContext(
        phase=phase,
        ttl_seconds=access.ttl,
        reason=access.reason,
        clock=clock,
        held=held,
        break_glass=break_glass,
        tool=call.tool if (call := call_of(access)) else "",
        arguments=call.pairs if call else frozenset(),
        numbers=call.numbers if call else frozenset(),
        beyond=beyond_of(verified.spec, requested or access, current.catalog),
    )
    resource = current.catalog.resources[access.resource]
    return current.rules.decide(facts, access, context), DecisionFacts.of(facts, access.resource, resource, access.action, context)


def compute_request_digest(deps: Deps, verified: VerifiedOrder, access: Access, *, bundle: str | None, tier: int) -> str:
    """Return the digest of exactly what will run and be issued for one request."""
    action = deps.config.current().catalog.resources[access.resource].actions[access.action]
    issue = resolve_issue(action, verified.spec.data_scope)
    call = call_of(access)
    content = call.model_dump(mode="json") if call else None
    return request_digest(verified.spec, access, bundle=bundle, issue_path=issue.path, issue_data=issue.data, tier=tier, call=content)


def evaluate_grant(deps: Deps, job: str, number: int, grant: GrantTerms) -> Evaluation | Rejection:
    """Evaluate a job's request as its approvers narrowed it, with the facts of the original request; or return why that is not possible.

    Approvals sign what would have been issued when the job asked. If that has changed, they do not count.
    """
    order, running, view = deps.store.jobs.order(job), deps.store.jobs.get(job), deps.store.requests.get(request_id(job, number))
    if order is None or running is None:
        return Rejection("order_unknown", "no order of this job has been recorded")
    # A job may outlive its order if it started while the order was valid. Its session verified the order then, and keeps to that.
    verified = verify_order(deps, order, now=running.started_at or deps.now())
    if isinstance(verified, Rejection):
        return Rejection(verified.code, f"the job's order is no longer valid: {verified}")
    if view is None:
        return REQUEST_UNKNOWN
    found = _find_original(deps, verified, view, number=number)
    if isinstance(found, Rejection):
        return found
    original, held, phase = found
    access = apply_grant(original, grant)
    # That the order is within its ancestors' limits says nothing about a lesser action: each action is checked separately.
    rejection = why_not_issuable(deps, verified, access) or why_exceeds_ancestors(deps, access, verified.statement)
    if not rejection and compute_request_digest(deps, verified, original, bundle=order.bundle, tier=view.tier) != view.digest:
        next_step = "launch the job again" if phase == "start" else "the job must ask again"
        changed = f"the catalog issues something else for {original.action} on {original.resource} than when the job asked"
        rejection = Rejection("request_changed", f"{changed}, so no approval counts; {next_step}")
    return rejection or evaluate_request(
        deps, job, verified, access, held=held, phase=phase, break_glass=grant.break_glass, requested=original
    )


def evaluate_in_order(deps: Deps, job: str, verified: VerifiedOrder) -> Iterator[EvaluatedRequest]:
    """Evaluate each start request of a job, in the order of the spec. Access marked `at: request` is left out.

    Each is evaluated as if those before it had been issued, so that chaining rules hold in any order.
    """
    held = HeldAccess()
    for number, access in at_start(verified.spec):
        decision, facts = evaluate_request(deps, job, verified, access, held=held, phase="start")
        yield EvaluatedRequest(number, access, held, decision, facts)
        if decision.outcome != "denied":
            held = held.with_issued(access.resource, access.action, deps.config.current().catalog.resources[access.resource].sensitivity)


def _find_original(deps: Deps, verified: VerifiedOrder, view: RequestView, *, number: int) -> tuple[Access, HeldAccess, Phase] | Rejection:
    """Return what the job requested, the access that it held at that time, and the phase.

    Returns a rejection if the ledger has no decision on the request, or if the catalog no longer offers what the job requested.
    """
    at_starts = dict(at_start(verified.spec))
    if number in at_starts:
        if gone := why_not_offered(deps, *((access.resource, access.action) for access in at_starts.values())):
            return gone
        start = next(request for request in evaluate_in_order(deps, view.job_id, verified) if request.number == number)
        return start.access, start.held, "start"
    decided = deps.store.ledger.entry(f"{view.job_id}/{EventType.ACCESS_DECIDED}/{view.id}/runtime")
    if decided is None:
        return REQUEST_UNKNOWN
    access = Access(resource=view.resource, action=Action(view.action), ttl=view.ttl, reason=view.reason, at="request", tools=view.tools)
    access = access_for_call(access, ToolCall.model_validate(view.call)) if view.call else access
    held = DecisionFacts.model_validate(decided.data["facts"]).to_context(view.reason).held
    return why_not_offered(deps, (access.resource, access.action)) or (access, held, "runtime")


def apply_grant(access: Access, grant: GrantTerms) -> Access:
    """Return a request reduced to the terms that its approvers granted."""
    return access.model_copy(update={"action": grant.action, "ttl": grant.ttl, "tools": access.tools and grant.tools})


def why_not_offered(deps: Deps, *actions: tuple[str, Action]) -> Rejection | None:
    """Return which action on which resource the catalog no longer offers, or None if it offers all. It may have changed since the job's launch."""
    catalog = deps.config.current().catalog
    gone = next((item for item in actions if catalog.action(*item) is None), None)
    return Rejection("not_offered", f"the catalog no longer offers {gone[1]} on {gone[0]}") if gone else None


def why_not_issuable(deps: Deps, verified: VerifiedOrder, access: Access) -> Rejection | None:
    """Return why the catalog cannot issue a request, as narrowed or because it has changed, or None if it can. Does not ask policy."""
    if access.tools is not None and not access.tools:
        return Rejection("no_call_left", "the approvers' tool bounds have no call in common")
    problems = problems_in_spec(verified.spec.model_copy(update={"access": (access,), "model": None}), deps.config.current().catalog)
    message = f"{access.action} on {access.resource} cannot be issued: {problems[0].message}" if problems else ""
    return Rejection("not_issuable", message) if problems else None


def why_policy_denies_grant(grant: GrantTerms, decision: Decision, *, tier: int) -> Rejection | None:
    """Return why policy does not allow a request as narrowed by its approvers, or None if it does. `tier`: the current tier."""
    how = " by break-glass" if grant.break_glass else ""
    what = f"{grant.action} for {duration_text(grant.ttl)}{how}"
    if decision.outcome == "denied":
        return Rejection("policy_denies", f"policy denies {what} ({', '.join(decision.policies)})")
    if decision.tier > tier:
        return Rejection("needs_higher_tier", f"{what} needs tier {decision.tier}, but the request is at tier {tier} until it escalates")
    return None
