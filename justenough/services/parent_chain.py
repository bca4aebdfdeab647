"""A job's ancestors: the resources that they have touched, which count as touched by their descendants, and the limits that they set.

A job is limited to the access that every one of its ancestors still has: the access in its order, minus what its approvers removed. A job
that the configuration launches (by a trigger whose event names a parent) is not limited by that parent.

Nothing is cached, because ancestors that still run may touch more, and an approval may be withdrawn or narrowed at any time. Records nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from justenough.domain.approvals.statements import OrderStatement, why_signature_invalid
from justenough.domain.approvals.tiers import Person
from justenough.domain.approvals.verification import UNREADABLE_ERRORS, read_statement
from justenough.domain.contracts.workflow_messages import JobInput
from justenough.domain.core.canonical_json import digest_of
from justenough.domain.core.errors import GiveUp, InvalidInput, Problem
from justenough.domain.core.ids import installation_of, request_id
from justenough.domain.core.rejection import Rejection
from justenough.domain.jobs.credentials import HeldAccess
from justenough.domain.jobs.spec import Access, JobSpec, checked_spec
from justenough.domain.jobs.states import Action, RequestState, Sensitivity
from justenough.domain.jobs.tool_bounds import intersect_all
from justenough.domain.ledger.events import EventType
from justenough.domain.policy.attenuation import access_attenuation_problems, attenuation_problems
from justenough.domain.readmodel import views
from justenough.domain.readmodel.views import RequestView
from justenough.domain.tools.call import let_tool_through, tool_only_items
from justenough.services.dependencies import Deps

MAX_ANCESTORS = 10
"""Maximum number of ancestors of a job. A longer chain is most likely a loop."""
TOUCHING_EVENTS = (EventType.ACCESS_REQUESTED, EventType.CREDENTIAL_ISSUED, EventType.CREDENTIAL_DOUBTED)
LOST_STATES = frozenset({RequestState.DENIED, RequestState.EXPIRED, RequestState.WITHDRAWN})


class NoSuchParent(GiveUp):
    """The named parent is unknown, or its chain of ancestors is too long."""


def read_submissions(deps: Deps, parent: str | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each ancestor's id, nearest first, with the data of the entry that submitted it. Raises NoSuchParent.

    Unlike reading what the ancestors have touched, this takes no longer for those that were issued many credentials.
    """
    for _ in range(MAX_ANCESTORS):
        if parent is None:
            return
        ours = installation_of(parent) == deps.settings.installation
        entry = deps.store.ledger.entry(f"{parent}/{EventType.JOB_SUBMITTED}") if ours else None
        if entry is None:
            raise NoSuchParent(_unknown_job_text(parent))
        yield parent, entry.data
        parent = entry.data["order"]["statement"].get("parent")
    if parent is not None:
        raise NoSuchParent(f"the job would have more than {MAX_ANCESTORS} ancestors; {MAX_ANCESTORS} is the maximum")


def why_no_parent(deps: Deps, parent: str, person: Person) -> Rejection | None:
    """Return why a person may not launch a job from within this one, or None if it exists and they may read it."""
    try:
        (_, nearest), *_ = read_submissions(deps, parent)
    except NoSuchParent as error:
        return Rejection("parent_unknown", str(error))
    reads_all = person.groups & deps.config.current().tiers.reading_groups
    # Use the same message as for an unknown job, so that nobody learns which ids exist.
    return None if reads_all or nearest["requester"] == person.id else Rejection("parent_unknown", _unknown_job_text(parent))


def ancestor_launchers(deps: Deps, parent: str | None, *, asked_by: str | None) -> frozenset[str]:
    """Return the entity ids of people who launched a job's ancestors or had the console order one, and `asked_by`. Raises NoSuchParent."""
    people = [asked_by]
    for _, submitted in read_submissions(deps, parent):
        people += [submitted["requester"], submitted["order"]["statement"].get("asked_by")]
    return frozenset(person for person in people if person is not None)


def console_requester_of(deps: Deps, job: str) -> str | None:
    """Return the entity id of the person for whom the console ordered this job, or None."""
    record = deps.store.jobs.order(job)
    return record.signed.statement.get("asked_by") if record else None


def why_no_chain(deps: Deps, parent: str) -> Rejection | None:
    """Return why this job cannot be a parent, whoever the caller is, or None if it can."""
    try:
        list(read_submissions(deps, parent))
    except NoSuchParent as error:
        return Rejection("parent_unknown", str(error))
    return None


def inherit_touched(deps: Deps, parent: str | None, held: HeldAccess) -> HeldAccess:
    """Return a job's held access, with the resources that its ancestors have touched so far added as touched. Raises NoSuchParent."""
    for job, _ in read_submissions(deps, parent):
        held = held.with_inherited(_read_touched(deps, job))
    return held


def ancestor_views(deps: Deps, parent: str | None) -> tuple[views.Ancestor, ...]:
    """Return the views of a job's ancestors, nearest first; empty if one is unknown."""
    found: list[views.Ancestor] = []
    try:
        for job, submitted in read_submissions(deps, parent):
            touched = _read_touched(deps, job)
            view = views.Ancestor(
                job=job,
                name=submitted["name"],
                task=submitted["task"],
                requester=submitted["requester_name"],
                touched=tuple(sorted(touched.touched_resources)),
                sensitivity=touched.touched.name.lower(),
            )
            found.append(view)
    except NoSuchParent:
        return ()
    return tuple(found)


def _read_touched(deps: Deps, job: str) -> HeldAccess:
    at_request: dict[str, Sensitivity] = {}
    touched = HeldAccess()
    ledger = deps.store.ledger
    # A job may have been issued very many credentials. Those of one request are for the same resource, so that one is enough.
    newest: dict[tuple[str, str], str] = {}
    for entry_id in ledger.ids(job, TOUCHING_EVENTS):
        _, kind, about = entry_id.split("/", 2)
        newest[kind, about.partition(".")[0]] = entry_id
    for entry in ledger.with_ids(newest.values()):
        data = entry.data
        if entry.type == EventType.ACCESS_REQUESTED:
            at_request[data["request"]] = Sensitivity[data["sensitivity"].upper()]
        else:
            # Use the higher of the recorded and the current sensitivity; restricted if neither is known.
            resource = deps.config.current().catalog.resources.get(data["resource"])
            sensitivities = (at_request.get(data["request"]), resource.sensitivity if resource else None)
            sensitivity = max((value for value in sensitivities if value is not None), default=Sensitivity.RESTRICTED)
            touched = touched.with_issued(data["resource"], Action(data["action"]), sensitivity)
    return touched


def _unknown_job_text(job: str) -> str:
    return f"there is no job {job}"


def read_order_spec(deps: Deps, order: JobInput) -> JobSpec:
    """Return an order's spec with its params filled in. Raises InvalidInput.

    An order from before `beyond` existed keeps the meaning that it had when it was signed. It is recognized because neither the order nor
    the ledger entry of its submission contains `beyond`; later entries always do.
    """
    submitted = None if "beyond" in order.spec else deps.store.ledger.entry(f"{order.job}/{EventType.JOB_SUBMITTED}")
    return checked_spec(order.spec, order.params, before_ceiling=submitted is not None and "beyond" not in submitted.data)


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
        if problem := next(access_attenuation_problems(access, ancestor.access), None):
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
    record = deps.store.jobs.order(job)
    if record is None:
        return Rejection("job_unknown", f"there is no job {job}")
    order = JobInput.of(job, record)
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
