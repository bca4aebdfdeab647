"""What an approver is shown of one request: gathered from the store, bounded, judged by justenough/. Blocking, for a thread. Changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from console.auth.authorization import Caller, Role, answering_groups, missing_group_text
from console.presentation.request_text import POLICY_SOURCE_TEXT
from console.services.console import Console
from console.services.decide_request import has_answered, why_own_job
from justenough.domain.approvals.tiers import Tiers
from justenough.domain.catalog.models import Resource
from justenough.domain.core.errors import InvalidInput, NotFound
from justenough.domain.inbox.diff import Difference, agent_text, call_facts, differences, request_facts, run_facts, shown_facts
from justenough.domain.inbox.pending import TimeoutOutcome, missing_approvals, needs_care, shorter_ttls, timeout_outcome
from justenough.domain.jobs.spec import JobSpec, checked_spec
from justenough.domain.jobs.states import Action, RequestState
from justenough.domain.ledger.events import EventType
from justenough.domain.readmodel.views import CredentialView, DelegationView, EntryView, JobView, RequestView
from justenough.domain.tools.definitions import Tool
from justenough.services.dependencies import Deps
from justenough.services.parent_chain import NoSuchParent, ancestor_views

MAX_STEPS = 8
"""Newest ledger entries of the job that a card shows."""
MAX_EARLIER = 5
"""Earlier decisions of its kind that a card shows."""


class DecidingPolicy(NamedTuple):
    """A policy that decided, as it is in force now."""

    id: str
    text: str
    """Empty where no policy of this name is in force."""
    why: str
    place: str


class PreviousApproval(NamedTuple):
    """The last run of the same name in which the resource was approved, and what differs since."""

    request: RequestView
    differences: tuple[Difference, ...]


class RequestRights(NamedTuple):
    """What one person can do with one request now."""

    answer: bool
    why_not: str
    """Why they cannot answer it; empty where they can."""
    claimed: bool
    """They said that they look at it."""
    break_glass: bool
    take_back: bool
    review: bool


@dataclass(frozen=True, slots=True)
class RequestCard:
    """A request with all that an answer needs."""

    view: RequestView
    job: JobView
    spec: JobSpec | None
    """None where the order cannot be read."""
    facts: Mapping[str, str]
    """What is shown, by name: what the form brings back, so that a change since can be told."""
    policies: tuple[DecidingPolicy, ...]
    issue: str
    """Where in Vault the credential would come from, as the catalog has it; empty where it is not offered any more."""
    lesser: tuple[str, ...]
    """The actions that are less than what is asked for and that the same resource offers."""
    before: PreviousApproval | None
    earlier: tuple[RequestView, ...]
    steps: tuple[EntryView, ...]
    silence: TimeoutOutcome
    passed: tuple[str, ...]
    """The groups of the tier that answers now, which breaking glass would pass over."""
    absent: tuple[DelegationView, ...]
    """Of those who named this person their delegate."""
    rights: RequestRights
    tool: Tool | None
    """The tool whose call it is for, as the catalog has it now."""
    mine: str
    """Why this person's last answer did not count, where the job's newest entries tell of one."""

    @property
    def agent(self) -> str:
        """Who acts; empty for nobody in particular."""
        return agent_text(self.spec) if self.spec else ""

    @property
    def live_credentials(self) -> tuple[CredentialView, ...]:
        """What the job has alive now, or what may be."""
        return tuple(one for one in self.job.credentials if not one.state.is_dead)

    @property
    def siblings(self) -> tuple[RequestView, ...]:
        """What else the job asks for: it may hold all of it together."""
        return tuple(one for one in self.job.requests if one.id != self.view.id)

    @property
    def careful(self) -> bool:
        """Whether approving takes a typed confirmation and a fresh login."""
        return needs_care("approve", self.view.current_tier)

    @property
    def missing(self) -> int:
        """How many more people must approve."""
        return missing_approvals(self.view)

    @property
    def shorter(self) -> tuple[int, ...]:
        """Times that are less than what was asked for (seconds)."""
        return shorter_ttls(self.view.ttl)


def card_of(console: Console, caller: Caller, request: str) -> RequestCard:
    """Return a request's card for somebody who may read it. Raises NotFound for others, so that nobody learns which ids there are."""
    deps = console.deps
    view, job = _read_request(console, caller, request)
    config, (spec, bundle) = deps.config.current(), _order_spec(deps, view.job_id)
    resource, policies = config.catalog.resources.get(view.resource), policies_of(deps, view)
    named = deps.store.delegations.current_of(caller.person.id, now=deps.now())
    steps, tier = (
        deps.store.ledger.entries_newest_first(job=view.job_id, limit=MAX_STEPS).items[::-1],
        config.tiers.tiers.get(view.current_tier),
    )
    return RequestCard(
        view=view,
        job=job,
        spec=spec,
        facts=shown_facts(view, {one.id: one.text for one in policies}),
        policies=policies,
        issue=_issue_path(resource, view),
        lesser=_lesser_actions(resource, view),
        before=_previous_approval(deps, view, run_facts(spec, bundle) if spec else {}, only=caller.requester_filter),
        earlier=deps.store.inbox.earlier_decisions(view, MAX_EARLIER, requester_id=caller.requester_filter),
        steps=steps,
        silence=timeout_outcome(view, config.tiers),
        passed=tier.approvers if tier else (),
        absent=tuple(one for one in named if one.delegate_id == caller.person.id),
        rights=rights_of(deps, caller, view, job),
        tool={**config.catalog.callable, **config.catalog.listings}.get(str(view.call["tool"])) if view.call else None,
        mine=_rejection_text(steps, caller.person.id),
    )


def why_barred(deps: Deps, caller: Caller, view: RequestView, *, requester_id: str) -> str | None:
    """Return why somebody does not answer for a job at all; None where nothing of that kind stands against it."""
    try:
        own_job = why_own_job(deps, caller, view, requester_id=requester_id)
    except NoSuchParent as error:
        return str(error)
    return own_job.message if own_job else None


def why_cannot_answer(deps: Deps, caller: Caller, view: RequestView, *, requester_id: str, tiers: Tiers) -> str:
    """Return why somebody cannot answer a request now; empty where they can."""
    if own := why_barred(deps, caller, view, requester_id=requester_id):
        return f"You do not answer this one: {own}."
    if has_answered(view, caller.person.id):
        return "You have answered it."
    if view.state is not RequestState.PENDING:
        return f"It waits for nobody any more: it is {view.state.value}."
    if caller.tier < max(view.current_tier, 1):
        return f"You read it and do not answer it: that {missing_group_text(answering_groups(view.current_tier, tiers))}."
    return ""


def policies_of(deps: Deps, view: RequestView) -> tuple[DecidingPolicy, ...]:
    """Return the policies that a request's decision names, as they are in force now."""
    known = {rule.id: rule for rule in deps.config.current().policies.rules}
    return tuple(
        DecidingPolicy(name, known[name].text, known[name].why, known[name].place)
        if name in known
        else DecidingPolicy(name, "", POLICY_SOURCE_TEXT.get(name, ""), "")
        for name in view.policies
    )


def rights_of(deps: Deps, caller: Caller, view: RequestView, job: JobView) -> RequestRights:
    """Return what somebody can do with a request."""
    tiers, me, pending = caller.tiers, caller.person.id, view.state is RequestState.PENDING
    own = why_barred(deps, caller, view, requester_id=job.requester_id) is not None
    because = why_cannot_answer(deps, caller, view, requester_id=job.requester_id, tiers=tiers)
    glass = Role.BREAK_GLASS in caller.roles and pending and not own and not has_answered(view, me)
    return RequestRights(
        answer=not because,
        why_not=because,
        claimed=bool(view.claim and view.claim.by_id == me and view.claim.until > deps.now()),
        break_glass=glass,
        take_back=_can_take_back(caller, view, job),
        review=bool(view.review and view.review.open and not own and view.review.person_id != me and caller.tier >= max(view.review.tiers)),
    )


def _can_take_back(caller: Caller, view: RequestView, job: JobView) -> bool:
    mine = any(item.approver_id == caller.person.id for item in view.counting_approvals)
    waits = view.state is RequestState.APPROVED or (view.state is RequestState.PENDING and mine)
    return waits and not job.state.ended and bool(caller.roles & {Role.APPROVE, Role.LAUNCH})


def _read_request(console: Console, caller: Caller, request: str) -> tuple[RequestView, JobView]:
    store = console.deps.store
    view = store.requests.get(request)
    job = store.jobs.get(view.job_id) if view and console.job_owners.can_read(caller, view.job_id) else None
    if view is None or job is None:
        raise NotFound(f"there is no request {request}")
    return view.model_copy(update={"chain": ancestor_views(console.deps, view.parent)}), job


def _order_spec(deps: Deps, job: str) -> tuple[JobSpec | None, str | None]:
    """Return a job's spec with its params filled in, and its files' digest."""
    order = deps.store.jobs.order(job)
    if order is None:
        return None, None
    try:
        return checked_spec(order.spec, order.params), order.bundle
    except InvalidInput:
        return None, order.bundle


def _issue_path(resource: Resource | None, view: RequestView) -> str:
    definition = resource.actions.get(Action(view.action)) if resource else None
    return definition.issue.path if definition else ""


def _lesser_actions(resource: Resource | None, view: RequestView) -> tuple[str, ...]:
    return tuple(name.value for name in resource.actions if name.rank < Action(view.action).rank) if resource else ()


def _previous_approval(deps: Deps, view: RequestView, current_facts: Mapping[str, str], *, only: str | None) -> PreviousApproval | None:
    earlier = deps.store.inbox.last_approved(view, requester_id=only)
    if earlier is None:
        return None
    spec, bundle = _order_spec(deps, earlier.job_id)
    then = {**(run_facts(spec, bundle) if spec else {}), **_comparable_facts(earlier), "launched by": earlier.requester}
    return PreviousApproval(earlier, differences(then, {**current_facts, **_comparable_facts(view), "launched by": view.requester}))


def _comparable_facts(view: RequestView) -> Mapping[str, str]:
    told = {
        name: value
        for name, value in request_facts(view).items()
        if name in {"action", "ttl", "tier", "policies", "revocable", "sensitivity"}
    }
    return {**told, **call_facts(view)}


def _rejection_text(steps: tuple[EntryView, ...], person: str) -> str:
    mine = [
        one for one in steps if one.type in {EventType.APPROVAL_REJECTED, EventType.APPROVAL_DECIDED} and one.data.get("person") == person
    ]
    last = mine[-1] if mine else None
    return str(last.data.get("why", "")) if last and last.type == EventType.APPROVAL_REJECTED else ""
