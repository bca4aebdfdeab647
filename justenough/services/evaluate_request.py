"""What policy says of one request of a verified order, and whether what its approvers left of it may be had. Records nothing, issues nothing."""

from __future__ import annotations

from collections.abc import Iterator

from justenough.domain.approvals.ladder import GrantTerms
from justenough.domain.approvals.statements import request_digest
from justenough.domain.approvals.verification import Rejection
from justenough.domain.catalog.loader import problems_in_spec, resolve_issue
from justenough.domain.contracts.workflow_messages import JobInput
from justenough.domain.core.ids import request_id
from justenough.domain.core.units import duration_text
from justenough.domain.jobs.credentials import Decision, HeldAccess
from justenough.domain.jobs.spec import Access, at_start
from justenough.domain.jobs.states import Action
from justenough.domain.ledger.events import EventType
from justenough.domain.policy.cedar_request import AccessContext, Clock, DecisionFacts, JobFacts, Phase
from justenough.domain.readmodel.views import RequestView
from justenough.domain.tools.call import ToolCall, access_for_call, call_of
from justenough.services.dependencies import Deps
from justenough.services.parent_chain import inherit_touched
from justenough.services.verify_order import VerifiedOrder, verify_order

Evaluation = tuple[Decision, DecisionFacts]
MAX_DECISIONS_READ = 10_000
"""Entries of decisions of one job that are read, at most."""


def evaluate_request(
    deps: Deps, job: str, verified: VerifiedOrder, access: Access, *, held: HeldAccess, phase: Phase, break_glass: bool = False
) -> Evaluation:
    """Return what policy says of one request now, and what it was asked; what the job's ancestors have touched counts as touched."""
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
    )
    resource = current.catalog.resources[access.resource]
    decision = current.policies.decide(facts, access.resource, resource, access.action, context=context, top=current.tiers.top)
    return decision, DecisionFacts.of(facts, access.resource, resource, access.action, context)


def compute_request_digest(deps: Deps, verified: VerifiedOrder, access: Access, *, bundle: str | None, tier: int) -> str:
    """Return the digest of exactly what will run and be issued for one request."""
    action = deps.config.current().catalog.resources[access.resource].actions[access.action]
    issue = resolve_issue(action, verified.spec.data_scope)
    call = call_of(access)
    told = call.model_dump(mode="json") if call else None
    return request_digest(verified.spec, access, bundle=bundle, issue_path=issue.path, issue_data=issue.data, tier=tier, call=told)


def evaluate_grant(deps: Deps, job: str, number: int, grant: GrantTerms) -> Evaluation | Rejection:
    """Return what policy says of what a job's `number`-th request has become, asked as at its start; or why there is no such thing."""
    kept = deps.store.jobs.order(job)
    if kept is None:
        return Rejection("no order of this job has been recorded")
    verified = verify_order(deps, JobInput.of(job, *kept), now=deps.now())
    if isinstance(verified, Rejection):
        return verified
    found = _find_start_request(deps, job, verified, number) or _find_runtime_request(deps, job, number)
    if found is None:
        return Rejection("no such request of this job has been recorded")
    asked, held, phase = found
    access = apply_grant(asked, grant)
    if why := why_not_issuable(deps, verified, access):
        return Rejection(why)
    return evaluate_request(deps, job, verified, access, held=held, phase=phase, break_glass=grant.break_glass)


def evaluate_in_order(deps: Deps, job: str, verified: VerifiedOrder) -> Iterator[tuple[int, Access, HeldAccess, Evaluation]]:
    """Yield each request of a job at its start: its number, what it is decided with, and what policy says.

    What comes later in the spec is decided as if what comes before had been issued: chaining rules hold in any order. What is marked
    `at: request` is none yet.
    """
    held = HeldAccess()
    for number, access in at_start(verified.spec):
        judged = evaluate_request(deps, job, verified, access, held=held, phase="start")
        yield number, access, held, judged
        if judged[0].outcome != "denied":
            held = held.with_issued(access.resource, access.action, deps.config.current().catalog.resources[access.resource].sensitivity)


def requested_access(view: RequestView) -> Access:
    """Return what a request that a running job made asks for, as it was recorded."""
    access = Access(resource=view.resource, action=Action(view.action), ttl=view.ttl, reason=view.reason, at="request", tools=view.tools)
    return access_for_call(access, ToolCall.model_validate(view.call)) if view.call else access


def _find_start_request(deps: Deps, job: str, verified: VerifiedOrder, number: int) -> tuple[Access, HeldAccess, Phase] | None:
    return next(((access, held, "start") for at, access, held, _ in evaluate_in_order(deps, job, verified) if at == number), None)


def _find_runtime_request(deps: Deps, job: str, number: int) -> tuple[Access, HeldAccess, Phase] | None:
    """Return what a running job asked for, with what it held then, as the ledger has it."""
    request = request_id(job, number)
    view = deps.store.requests.get(request)
    decided = deps.store.ledger.entries(job=job, types=(EventType.ACCESS_DECIDED,), after=0, limit=MAX_DECISIONS_READ)
    facts = next((entry.data["facts"] for entry in decided.items if entry.data["request"] == request), None)
    if view is None or facts is None:
        return None
    return requested_access(view), DecisionFacts.model_validate(facts).to_context(view.reason).held, "runtime"


def apply_grant(access: Access, grant: GrantTerms) -> Access:
    """Return what is left of a request."""
    return access.model_copy(update={"action": grant.action, "ttl": grant.ttl, "tools": access.tools and grant.tools})


def why_not_issuable(deps: Deps, verified: VerifiedOrder, access: Access) -> str | None:
    """Return what stands against a request that was narrowed, whatever policy says; None where nothing does."""
    if access.tools is not None and not access.tools:
        return "no call is left that all who answered allow"
    found = problems_in_spec(verified.spec.model_copy(update={"access": (access,)}), deps.config.current().catalog)
    return f"{access.action} on {access.resource} cannot be had instead: {found[0].message}" if found else None


def why_policy_denies_grant(grant: GrantTerms, decision: Decision, *, tier: int) -> str | None:
    """Return why policy does not allow what the answers left of a request; None where it does. `tier` is where the request is."""
    how = " by breaking glass" if grant.break_glass else ""
    what = f"{grant.action} for {duration_text(grant.ttl)}{how}"
    if decision.outcome == "denied":
        return f"policy denies {what} ({', '.join(decision.policies)})"
    if decision.tier > tier:
        return f"{what} needs tier {decision.tier}, and the request is at tier {tier}"
    return None
