"""What a job that another launched may have at most: what that one's order says, less what its approvers took from it, and so on up the chain.

Read anew at each look, for an approval of the launching job may be taken back, or allow less. Records nothing.

What the configuration launches (a trigger whose event names a job) is measured by nobody: what it may have is what the configuration says.
"""

from __future__ import annotations

from collections.abc import Iterator

from justenough.domain.approvals.statements import OrderStatement, why_signature_invalid
from justenough.domain.approvals.verification import UNREADABLE_ERRORS, Rejection, read_statement
from justenough.domain.contracts.workflow_messages import JobInput
from justenough.domain.core.canonical_json import digest_of
from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.core.ids import request_id
from justenough.domain.jobs.spec import Access, JobSpec, checked_spec
from justenough.domain.jobs.states import Action, RequestState
from justenough.domain.jobs.tool_bounds import intersect_all
from justenough.domain.policy.attenuation import access_attenuation_problems, attenuation_problems
from justenough.domain.readmodel.views import RequestView
from justenough.domain.tools.call import tool_only_items
from justenough.services.dependencies import Deps
from justenough.services.parent_chain import MAX_ANCESTORS

LOST_STATES = frozenset({RequestState.DENIED, RequestState.EXPIRED, RequestState.WITHDRAWN})


def inherited_limit_problems(deps: Deps, spec: JobSpec, statement: OrderStatement) -> tuple[Problem, ...]:
    """Return where a spec asks for more than the jobs that it came of have, by YAML path; nothing for a job that came of none."""
    return tuple(dict.fromkeys(problem for launching in _ancestor_specs(deps, statement) for problem in _problems_against(launching, spec)))


def parent_limit_problems(deps: Deps, spec: JobSpec, parent: str) -> tuple[Problem, ...]:
    """Return where a spec that nobody has signed yet asks for more than that job, and those that it came of, have."""
    return tuple(dict.fromkeys(problem for launching in _specs_from(deps, parent) for problem in _problems_against(launching, spec)))


def why_exceeds_ancestors(deps: Deps, access: Access, statement: OrderStatement) -> str | None:
    """Return why a running job may not have what it wants for the sake of those that it came of; None where it may."""
    for launching in _ancestor_specs(deps, statement):
        if isinstance(launching, Rejection):
            return launching.why
        if found := next(access_attenuation_problems(access, launching.access), None):
            return found.message
    return None


def can_use_tool(deps: Deps, tool: str, resource: str, action: Action, statement: OrderStatement) -> bool:
    """Whether every job that this one came of may use a tool, with some arguments at least."""
    return all(
        not isinstance(launching, Rejection) and _allows_tool(launching, tool, resource, action)
        for launching in _ancestor_specs(deps, statement)
    )


def ancestor_access_items(deps: Deps, resource: str, action: Action, statement: OrderStatement) -> tuple[tuple[Access, ...], ...]:
    """Return, for each job that this one came of, its items on an action that it has through tools alone."""
    specs = (launching for launching in _ancestor_specs(deps, statement) if isinstance(launching, JobSpec))
    return tuple(items for spec in specs if (items := tool_only_items(spec, resource, action)))


def _allows_tool(spec: JobSpec, tool: str, resource: str, action: Action) -> bool:
    items = (item for item in spec.access if (item.resource, item.action) == (resource, action))
    return any(item.tools is None or tool in item.tools for item in items)


def _problems_against(launching: JobSpec | Rejection, spec: JobSpec) -> Iterator[Problem]:
    if isinstance(launching, Rejection):
        yield Problem("parent", launching.why)
    else:
        yield from attenuation_problems(spec, launching)


def _ancestor_specs(deps: Deps, statement: OrderStatement) -> Iterator[JobSpec | Rejection]:
    """Yield the orders of the jobs that one came of, each with what is left of its access, up to what the configuration launched."""
    if statement.parent is not None and statement.origin is None:
        yield from _specs_from(deps, statement.parent)


def _specs_from(deps: Deps, job: str | None) -> Iterator[JobSpec | Rejection]:
    for _ in range(MAX_ANCESTORS):
        if job is None:
            return
        found = _read_signed_order(deps, job)
        if isinstance(found, Rejection):
            yield found
            return
        spec, statement = found
        yield spec.model_copy(update={"access": tuple(_remaining_access(deps, statement.job, spec))})
        job = statement.parent if statement.origin is None else None


def _read_signed_order(deps: Deps, job: str) -> tuple[JobSpec, OrderStatement] | Rejection:
    """Return a job's order as it was signed: what is kept of it is held against its signature, for the child's access hangs on it."""
    found = deps.store.jobs.order(job)
    if found is None:
        return Rejection(f"there is no job {job}")
    order = JobInput.of(job, *found)
    statement = read_statement(OrderStatement, order.order)
    if isinstance(statement, Rejection):
        return Rejection(f"the order of {job}: {statement.why}")
    try:
        said = (job, digest_of(order.spec), dict(order.params))
        spec = checked_spec(order.spec, order.params)
    except (InvalidInput, *UNREADABLE_ERRORS):
        return Rejection(f"the order of {job} is not readable")
    if said != (statement.job, statement.spec_digest, dict(statement.params)):
        return Rejection(f"what is kept of {job} is not what was ordered")
    why = why_signature_invalid(order.order, deps.vault.public_keys(statement.person))
    return Rejection(f"the order of {job}: {why}") if why else (spec, statement)


def _remaining_access(deps: Deps, job: str, spec: JobSpec) -> Iterator[Access]:
    """Yield what is left of each item of a job's order after people answered; what nobody has asked for yet is as it was ordered."""
    for number, item in enumerate(spec.access, start=1):
        view = deps.store.requests.get(request_id(job, number))
        if view is None:
            yield item
        elif view.state not in LOST_STATES:
            yield _to_granted_access(item, view)


def _to_granted_access(item: Access, view: RequestView) -> Access:
    """Return an item as far as it was granted; no more than its order says, whatever is kept of that."""
    ttl = item.ttl if view.granted_ttl is None else min(item.ttl, view.granted_ttl)
    action = min(item.action, Action(view.granted_action or item.action), key=lambda each: each.rank)
    tools = intersect_all(item.tools, view.granted_tools) if item.tools is not None and view.granted_tools is not None else item.tools
    return item.model_copy(update={"ttl": ttl, "action": action, "tools": tools})
