"""What a job that another launched may have at most: what that one's order says, less what its approvers took from it, and so on up the chain.

Read anew at each look, for an approval of the launching job may be taken back, or allow less. Records nothing.

What the configuration launches (a trigger whose event names a job) is measured by nobody: what it may have is what the configuration says.
"""

from __future__ import annotations

from collections.abc import Iterator

from justenough.domain.approvals.statements import OrderStatement, why_not_signed
from justenough.domain.approvals.verification import UNREADABLE, Refused, read
from justenough.domain.contracts.workflow_messages import JobInput
from justenough.domain.core.canonical_json import digest_of
from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.core.ids import request_id
from justenough.domain.jobs.spec import Access, JobSpec, checked_spec
from justenough.domain.jobs.states import Action, RequestState
from justenough.domain.jobs.tool_bounds import all_of
from justenough.domain.policy.attenuation import access_beyond, beyond
from justenough.domain.readmodel.views import RequestView
from justenough.domain.tools.call import bounded
from justenough.services.dependencies import Deps
from justenough.services.parent_chain import DEEPEST

LOST = frozenset({RequestState.DENIED, RequestState.EXPIRED, RequestState.WITHDRAWN})


def problems_beyond(deps: Deps, spec: JobSpec, statement: OrderStatement) -> tuple[Problem, ...]:
    """Return where a spec asks for more than the jobs that it came of have, by YAML path; nothing for a job that came of none."""
    return tuple(dict.fromkeys(problem for launching in _launching(deps, statement) for problem in _said(launching, spec)))


def problems_above(deps: Deps, spec: JobSpec, parent: str) -> tuple[Problem, ...]:
    """Return where a spec that nobody has signed yet asks for more than that job, and those that it came of, have."""
    return tuple(dict.fromkeys(problem for launching in _from(deps, parent) for problem in _said(launching, spec)))


def why_beyond(deps: Deps, wanted: Access, statement: OrderStatement) -> str | None:
    """Return why a running job may not have what it wants for the sake of those that it came of; None where it may."""
    for launching in _launching(deps, statement):
        if isinstance(launching, Refused):
            return launching.why
        if found := next(access_beyond(wanted, launching.access), None):
            return found.message
    return None


def may_use(deps: Deps, tool: str, resource: str, action: Action, statement: OrderStatement) -> bool:
    """Whether every job that this one came of may use a tool, with some arguments at least."""
    return all(not isinstance(launching, Refused) and _has(launching, tool, resource, action) for launching in _launching(deps, statement))


def bounds_above(deps: Deps, resource: str, action: Action, statement: OrderStatement) -> tuple[tuple[Access, ...], ...]:
    """Return, for each job that this one came of, its items on an action that it has through tools alone."""
    specs = (launching for launching in _launching(deps, statement) if isinstance(launching, JobSpec))
    return tuple(items for spec in specs if (items := bounded(spec, resource, action)))


def _has(spec: JobSpec, tool: str, resource: str, action: Action) -> bool:
    items = (item for item in spec.access if (item.resource, item.action) == (resource, action))
    return any(item.tools is None or tool in item.tools for item in items)


def _said(launching: JobSpec | Refused, spec: JobSpec) -> Iterator[Problem]:
    if isinstance(launching, Refused):
        yield Problem("parent", launching.why)
    else:
        yield from beyond(spec, launching)


def _launching(deps: Deps, statement: OrderStatement) -> Iterator[JobSpec | Refused]:
    """Yield the orders of the jobs that one came of, each with what is left of its access, up to what the configuration launched."""
    if statement.parent is not None and statement.origin is None:
        yield from _from(deps, statement.parent)


def _from(deps: Deps, job: str | None) -> Iterator[JobSpec | Refused]:
    for _ in range(DEEPEST):
        if job is None:
            return
        found = _order(deps, job)
        if isinstance(found, Refused):
            yield found
            return
        spec, statement = found
        yield spec.model_copy(update={"access": tuple(_left(deps, statement.job, spec))})
        job = statement.parent if statement.origin is None else None


def _order(deps: Deps, job: str) -> tuple[JobSpec, OrderStatement] | Refused:
    """Return a job's order as it was signed: what is kept of it is held against its signature, for the child's access hangs on it."""
    found = deps.store.order(job)
    if found is None:
        return Refused(f"there is no job {job}")
    order = JobInput.of(job, *found)
    statement = read(OrderStatement, order.order)
    if isinstance(statement, Refused):
        return Refused(f"the order of {job}: {statement.why}")
    try:
        said = (job, digest_of(order.spec), dict(order.params))
        spec = checked_spec(order.spec, order.params)
    except (InvalidInput, *UNREADABLE):
        return Refused(f"the order of {job} is not readable")
    if said != (statement.job, statement.spec_digest, dict(statement.params)):
        return Refused(f"what is kept of {job} is not what was ordered")
    why = why_not_signed(order.order, deps.vault.public_keys(statement.person))
    return Refused(f"the order of {job}: {why}") if why else (spec, statement)


def _left(deps: Deps, job: str, spec: JobSpec) -> Iterator[Access]:
    """Yield what is left of each item of a job's order after people answered; what nobody has asked for yet is as it was ordered."""
    for number, item in enumerate(spec.access, start=1):
        view = deps.store.request(request_id(job, number))
        if view is None:
            yield item
        elif view.state not in LOST:
            yield _granted(item, view)


def _granted(item: Access, view: RequestView) -> Access:
    """Return an item as far as it was granted; no more than its order says, whatever is kept of that."""
    ttl = item.ttl if view.granted_ttl is None else min(item.ttl, view.granted_ttl)
    action = min(item.action, Action(view.granted_action or item.action), key=lambda each: each.rank)
    tools = all_of(item.tools, view.granted_tools) if item.tools is not None and view.granted_tools is not None else item.tools
    return item.model_copy(update={"ttl": ttl, "action": action, "tools": tools})
