"""Limits a job to the access that every one of its ancestors still has: the access in its order, minus what its approvers removed.

Nothing is cached, because an ancestor's approval may be withdrawn or narrowed at any time. Records nothing. A job that the configuration
launches (by a trigger whose event names a parent) is not limited by that parent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from justenough.domain.approvals.statements import OrderStatement, why_signature_invalid
from justenough.domain.approvals.verification import UNREADABLE_ERRORS, read_statement
from justenough.domain.core.canonical_json import digest_of
from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.core.ids import request_id
from justenough.domain.core.rejection import Rejection
from justenough.domain.jobs.spec import Access, JobSpec
from justenough.domain.jobs.states import Action, RequestState
from justenough.domain.jobs.tool_bounds import intersect_all
from justenough.domain.policy.ceiling import access_attenuation_problems, attenuation_problems, is_model_key
from justenough.domain.readmodel.views import RequestView
from justenough.domain.tools.call import let_tool_through, tool_only_items
from justenough.services.dependencies import Deps
from justenough.services.order_spec import read_order_spec
from justenough.services.parent_chain import MAX_ANCESTORS

LOST_STATES = frozenset({RequestState.DENIED, RequestState.EXPIRED, RequestState.WITHDRAWN})


def inherited_limit_problems(deps: Deps, spec: JobSpec, statement: OrderStatement) -> tuple[Problem, ...]:
    """Return the problems of a spec that requests more than the job's ancestors have, by YAML path; none for a job without a parent."""
    return _limit_problems(_ancestor_specs(deps, statement), spec)


def parent_limit_problems(deps: Deps, spec: JobSpec, parent: str) -> tuple[Problem, ...]:
    """Return the problems of an unsigned spec that requests more than `parent` and its ancestors have, by YAML path."""
    return _limit_problems(_specs_from(deps, parent), spec)


def why_exceeds_ancestors(deps: Deps, access: Access, statement: OrderStatement) -> Rejection | None:
    """Return why some access exceeds the access of the job's ancestors, or None if it does not."""
    for ancestor in _ancestor_specs(deps, statement):
        if isinstance(ancestor, Rejection):
            return ancestor
        problem = next(access_attenuation_problems(access, ancestor.access), None)
        if problem and not is_model_key(ancestor, access, deps.config.current().catalog):
            return Rejection("exceeds_ancestors", problem.message)
    return None


def can_use_tool(deps: Deps, tool: str, resource: str, action: Action, statement: OrderStatement) -> bool:
    """Whether every ancestor of the job may use a tool, with at least some arguments."""
    return all(
        not isinstance(spec, Rejection)
        and any(
            (item.resource, item.action) == (resource, action) and let_tool_through((item,) if item.tools is not None else (), tool)
            for item in spec.access
        )
        for spec in _ancestor_specs(deps, statement)
    )


def ancestor_access_items(deps: Deps, resource: str, action: Action, statement: OrderStatement) -> tuple[tuple[Access, ...], ...]:
    """For each ancestor that has an action only through tools, return its access items for that action."""
    specs = (ancestor for ancestor in _ancestor_specs(deps, statement) if isinstance(ancestor, JobSpec))
    return tuple(items for spec in specs if (items := tool_only_items(spec, resource, action)))


def _limit_problems(ancestors: Iterable[JobSpec | Rejection], spec: JobSpec) -> tuple[Problem, ...]:
    problems: dict[Problem, None] = {}
    for ancestor in ancestors:
        problems |= dict.fromkeys(
            attenuation_problems(spec, ancestor) if isinstance(ancestor, JobSpec) else [Problem("parent", ancestor.message)]
        )
    return tuple(problems)


def _ancestor_specs(deps: Deps, statement: OrderStatement) -> Iterator[JobSpec | Rejection]:
    """Yield each ancestor's spec with its remaining access, up to a job that the configuration launched."""
    if statement.parent is not None and statement.origin is None:
        yield from _specs_from(deps, statement.parent)


def _specs_from(deps: Deps, job: str | None) -> Iterator[JobSpec | Rejection]:
    for _ in range(MAX_ANCESTORS):
        if job is None:
            return
        order = _read_signed_order(deps, job)
        if isinstance(order, Rejection):
            yield order
            return
        spec, statement = order
        remaining: list[Access] = []
        for number, item in enumerate(spec.access, start=1):
            view = deps.store.requests.get(request_id(statement.job, number))
            if view is None:
                # The access was not requested yet.
                remaining.append(item)
            elif view.state not in LOST_STATES:
                remaining.append(_to_granted_access(item, view))
        yield spec.model_copy(update={"access": tuple(remaining)})
        job = statement.parent if statement.origin is None else None


def _read_signed_order(deps: Deps, job: str) -> tuple[JobSpec, OrderStatement] | Rejection:
    """Return a job's signed spec and statement. Its signature is checked, because the child's access depends on it."""
    order = deps.store.jobs.order(job)
    if order is None:
        return Rejection("job_unknown", f"there is no job {job}")
    statement = read_statement(OrderStatement, order.order)
    if isinstance(statement, Rejection):
        return Rejection(statement.code, f"the order of {job}: {statement}")
    try:
        stored = (job, digest_of(order.spec), dict(order.params))
        spec = read_order_spec(deps, order)
    except (InvalidInput, *UNREADABLE_ERRORS):
        return Rejection("order_unreadable", f"the order of {job} cannot be parsed")
    if stored != (statement.job, statement.spec_digest, dict(statement.params)):
        return Rejection("order_changed", f"the stored order of {job} differs from the signed order")
    if invalid := why_signature_invalid(order.order, deps.vault.public_keys(statement.person)):
        return Rejection(invalid.code, f"the order of {job}: {invalid}")
    return spec, statement


def _to_granted_access(item: Access, view: RequestView) -> Access:
    """Return an item as granted, but never more than its order requests, even if the store records more."""
    # A running job may have requested less than its order says. That is not what approvers removed.
    shortened = view.granted_ttl if view.granted_ttl is not None and view.granted_ttl < view.ttl else item.ttl
    ttl = min(item.ttl, shortened)
    action = min(item.action, Action(view.granted_action or item.action), key=lambda each: each.rank)
    tools = intersect_all(item.tools, view.granted_tools) if item.tools is not None and view.granted_tools is not None else item.tools
    return item.model_copy(update={"ttl": ttl, "action": action, "tools": tools})
