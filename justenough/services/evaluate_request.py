"""What policy says of one request of a verified order, and whether what its approvers left of it may be had. Records nothing, issues nothing."""

from __future__ import annotations

from collections.abc import Iterator

from justenough.domain.approvals.ladder import Grant
from justenough.domain.approvals.statements import request_digest
from justenough.domain.approvals.verification import Refused
from justenough.domain.catalog.loader import problems_of, resolved_issue
from justenough.domain.contracts.workflow_messages import JobInput
from justenough.domain.core.ids import request_id
from justenough.domain.core.units import duration_text
from justenough.domain.jobs.credentials import Decision, Held
from justenough.domain.jobs.spec import Access, at_start
from justenough.domain.jobs.states import Action
from justenough.domain.ledger.events import EventType
from justenough.domain.policy.cedar_request import AccessContext, Clock, Facts, JobFacts, Phase
from justenough.domain.readmodel.views import RequestView
from justenough.domain.tools.call import Call, call_of, for_call
from justenough.services.dependencies import Deps
from justenough.services.parent_chain import inherited
from justenough.services.verify_order import VerifiedOrder, verify_order

Judged = tuple[Decision, Facts]
DECISIONS = 10_000
"""Entries of decisions of one job that are read, at most."""


def answered(
    deps: Deps, job: str, verified: VerifiedOrder, access: Access, *, held: Held, phase: Phase, break_glass: bool = False
) -> Judged:
    """Return what policy says of one request now, and what it was asked; what the job's ancestors have touched counts as touched."""
    current = deps.config.current()
    held = inherited(deps, verified.statement.parent, held)
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
    return decision, Facts.of(facts, access.resource, resource, access.action, context)


def digest_for(deps: Deps, verified: VerifiedOrder, access: Access, *, bundle: str | None, tier: int) -> str:
    """Return the digest of exactly what will run and be issued for one request."""
    action = deps.config.current().catalog.resources[access.resource].actions[access.action]
    issue = resolved_issue(action, verified.spec.data_scope)
    call = call_of(access)
    told = call.model_dump(mode="json") if call else None
    return request_digest(verified.spec, access, bundle=bundle, issue_path=issue.path, issue_data=issue.data, tier=tier, call=told)


def as_granted(deps: Deps, job: str, number: int, grant: Grant) -> Judged | Refused:
    """Return what policy says of what a job's `number`-th request has become, asked as at its start; or why there is no such thing."""
    kept = deps.store.order(job)
    if kept is None:
        return Refused("no order of this job has been recorded")
    verified = verify_order(deps, JobInput.of(job, *kept), now=deps.now())
    if isinstance(verified, Refused):
        return verified
    found = _at_its_start(deps, job, verified, number) or _while_it_runs(deps, job, number)
    if found is None:
        return Refused("no such request of this job has been recorded")
    asked, held, phase = found
    access = narrowed(asked, grant)
    if why := why_not_possible(deps, verified, access):
        return Refused(why)
    return answered(deps, job, verified, access, held=held, phase=phase, break_glass=grant.break_glass)


def in_turn(deps: Deps, job: str, verified: VerifiedOrder) -> Iterator[tuple[int, Access, Held, Judged]]:
    """Yield each request of a job at its start: its number, what it is decided with, and what policy says.

    What comes later in the spec is decided as if what comes before had been issued: chaining rules hold in any order. What is marked
    `at: request` is none yet.
    """
    held = Held()
    for number, access in at_start(verified.spec):
        judged = answered(deps, job, verified, access, held=held, phase="start")
        yield number, access, held, judged
        if judged[0].outcome != "denied":
            held = held.issued(access.resource, access.action, deps.config.current().catalog.resources[access.resource].sensitivity)


def asked_access(view: RequestView) -> Access:
    """Return what a request that a running job made asks for, as it was recorded."""
    access = Access(resource=view.resource, action=Action(view.action), ttl=view.ttl, reason=view.reason, at="request", tools=view.tools)
    return for_call(access, Call.model_validate(view.call)) if view.call else access


def _at_its_start(deps: Deps, job: str, verified: VerifiedOrder, number: int) -> tuple[Access, Held, Phase] | None:
    return next(((access, held, "start") for at, access, held, _ in in_turn(deps, job, verified) if at == number), None)


def _while_it_runs(deps: Deps, job: str, number: int) -> tuple[Access, Held, Phase] | None:
    """Return what a running job asked for, with what it held then, as the ledger has it."""
    request = request_id(job, number)
    view = deps.store.request(request)
    decided = deps.store.ledger(job=job, types=(EventType.ACCESS_DECIDED,), after=0, limit=DECISIONS)
    facts = next((entry.data["facts"] for entry in decided.items if entry.data["request"] == request), None)
    if view is None or facts is None:
        return None
    return asked_access(view), Facts.model_validate(facts).context(view.reason).held, "runtime"


def narrowed(access: Access, grant: Grant) -> Access:
    """Return what is left of a request."""
    return access.model_copy(update={"action": grant.action, "ttl": grant.ttl, "tools": access.tools and grant.tools})


def why_not_possible(deps: Deps, verified: VerifiedOrder, access: Access) -> str | None:
    """Return what stands against a request that was narrowed, whatever policy says; None where nothing does."""
    if access.tools is not None and not access.tools:
        return "no call is left that all who answered allow"
    found = problems_of(verified.spec.model_copy(update={"access": (access,)}), deps.config.current().catalog)
    return f"{access.action} on {access.resource} cannot be had instead: {found[0].message}" if found else None


def why_not_as_granted(grant: Grant, decision: Decision, *, tier: int) -> str | None:
    """Return why policy does not allow what the answers left of a request; None where it does. `tier` is where the request is."""
    how = " by breaking glass" if grant.break_glass else ""
    what = f"{grant.action} for {duration_text(grant.ttl)}{how}"
    if decision.outcome == "denied":
        return f"policy denies {what} ({', '.join(decision.policies)})"
    if decision.tier > tier:
        return f"{what} needs tier {decision.tier}, and the request is at tier {tier}"
    return None
