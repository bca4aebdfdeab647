"""What an approver is shown of one request: gathered from the store, bounded, judged by justenough/. Blocking, for a thread. Changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from console.auth.authorization import Caller, Role, answering_groups, needs
from console.presentation.request_text import SOURCES
from console.services.console import Console
from console.services.decide_request import has_answered, why_theirs
from justenough.domain.approvals.tiers import Tiers
from justenough.domain.catalog.models import Resource
from justenough.domain.core.errors import InvalidInput, NotFound
from justenough.domain.inbox.diff import Difference, agent_text, asked_facts, call_facts, differences, run_facts, shown_facts
from justenough.domain.inbox.pending import Silence, missing, needs_care, shorter, silence
from justenough.domain.jobs.spec import JobSpec, checked_spec
from justenough.domain.jobs.states import Action, CredentialState, RequestState
from justenough.domain.ledger.events import EventType
from justenough.domain.readmodel.views import CredentialView, DelegationView, EntryView, JobView, RequestView
from justenough.domain.tools.definitions import Tool
from justenough.services.dependencies import Deps
from justenough.services.parent_chain import NoSuchParent, chain

STEPS = 8
"""Newest ledger entries of the job that a card shows."""
EARLIER = 5
"""Earlier decisions of its kind that a card shows."""
GONE = frozenset({CredentialState.CONFIRMED, CredentialState.EXPIRED})


class Policy(NamedTuple):
    """A policy that decided, as it is in force now."""

    id: str
    text: str
    """Empty where no policy of this name is in force."""
    why: str
    place: str


class Before(NamedTuple):
    """The last run of the same name in which the resource was approved, and what differs since."""

    request: RequestView
    differences: tuple[Difference, ...]


class Rights(NamedTuple):
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
class Card:
    """A request with all that an answer needs."""

    view: RequestView
    job: JobView
    spec: JobSpec | None
    """None where the order cannot be read."""
    facts: Mapping[str, str]
    """What is shown, by name: what the form brings back, so that a change since can be told."""
    policies: tuple[Policy, ...]
    issue: str
    """Where in Vault the credential would come from, as the catalog has it; empty where it is not offered any more."""
    lesser: tuple[str, ...]
    """The actions that are less than what is asked for and that the same resource offers."""
    before: Before | None
    earlier: tuple[RequestView, ...]
    steps: tuple[EntryView, ...]
    silence: Silence
    passed: tuple[str, ...]
    """The groups of the tier that answers now, which breaking glass would pass over."""
    absent: tuple[DelegationView, ...]
    """Of those who named this person their delegate."""
    rights: Rights
    tool: Tool | None
    """The tool whose call it is for, as the catalog has it now."""
    mine: str
    """Why this person's last answer did not count, where the job's newest entries tell of one."""

    @property
    def agent(self) -> str:
        """Who acts; empty for nobody in particular."""
        return agent_text(self.spec) if self.spec else ""

    @property
    def held(self) -> tuple[CredentialView, ...]:
        """What the job has alive now, or what may be."""
        return tuple(one for one in self.job.credentials if one.state not in GONE)

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
        return missing(self.view)

    @property
    def shorter(self) -> tuple[int, ...]:
        """Times that are less than what was asked for (seconds)."""
        return shorter(self.view.ttl)


def card_of(console: Console, caller: Caller, request: str) -> Card:
    """Return a request's card for somebody who may read it. Raises NotFound for others, so that nobody learns which ids there are."""
    deps = console.deps
    view, job = _read(console, caller, request)
    config, (spec, bundle) = deps.config.current(), _ordered(deps, view.job_id)
    resource, policies = config.catalog.resources.get(view.resource), policies_of(deps, view)
    named = deps.store.delegations_of(caller.person.id, now=deps.now())
    steps, tier = deps.store.ledger_back(job=view.job_id, limit=STEPS).items[::-1], config.tiers.tiers.get(view.current_tier)
    return Card(
        view=view,
        job=job,
        spec=spec,
        facts=shown_facts(view, {one.id: one.text for one in policies}),
        policies=policies,
        issue=_issue(resource, view),
        lesser=_lesser(resource, view),
        before=_before(deps, view, run_facts(spec, bundle) if spec else {}, only=caller.only),
        earlier=deps.store.decided_before(view, EARLIER, only=caller.only),
        steps=steps,
        silence=silence(view, config.tiers),
        passed=tier.approvers if tier else (),
        absent=tuple(one for one in named if one.delegate_id == caller.person.id),
        rights=rights_of(deps, caller, view, job),
        tool={**config.catalog.callable, **config.catalog.listings}.get(str(view.call["tool"])) if view.call else None,
        mine=_not_counted(steps, caller.person.id),
    )


def theirs(deps: Deps, caller: Caller, view: RequestView, *, requester_id: str) -> str | None:
    """Return why somebody does not answer for a job at all; None where nothing of that kind stands against it."""
    try:
        return why_theirs(deps, caller, view, requester_id=requester_id)
    except NoSuchParent as error:
        return str(error)


def why_not(deps: Deps, caller: Caller, view: RequestView, *, requester_id: str, tiers: Tiers) -> str:
    """Return why somebody cannot answer a request now; empty where they can."""
    if own := theirs(deps, caller, view, requester_id=requester_id):
        return f"You do not answer this one: {own}."
    if has_answered(view, caller.person.id):
        return "You have answered it."
    if view.state is not RequestState.PENDING:
        return f"It waits for nobody any more: it is {view.state.value}."
    if caller.tier < max(view.current_tier, 1):
        return f"You read it and do not answer it: that {needs(answering_groups(view.current_tier, tiers))}."
    return ""


def policies_of(deps: Deps, view: RequestView) -> tuple[Policy, ...]:
    """Return the policies that a request's decision names, as they are in force now."""
    known = {rule.id: rule for rule in deps.config.current().policies.rules}
    return tuple(
        Policy(name, known[name].text, known[name].why, known[name].place) if name in known else Policy(name, "", SOURCES.get(name, ""), "")
        for name in view.policies
    )


def rights_of(deps: Deps, caller: Caller, view: RequestView, job: JobView) -> Rights:
    """Return what somebody can do with a request."""
    tiers, me, pending = caller.tiers, caller.person.id, view.state is RequestState.PENDING
    own = theirs(deps, caller, view, requester_id=job.requester_id) is not None
    because = why_not(deps, caller, view, requester_id=job.requester_id, tiers=tiers)
    glass = Role.BREAK_GLASS in caller.roles and pending and not own and not has_answered(view, me)
    return Rights(
        answer=not because,
        why_not=because,
        claimed=bool(view.claim and view.claim.by_id == me and view.claim.until > deps.now()),
        break_glass=glass,
        take_back=_can_take_back(caller, view, job),
        review=bool(view.review and view.review.open and not own and view.review.person_id != me and caller.tier >= max(view.review.tiers)),
    )


def _can_take_back(caller: Caller, view: RequestView, job: JobView) -> bool:
    mine = any(item.approver_id == caller.person.id for item in view.standing)
    waits = view.state is RequestState.APPROVED or (view.state is RequestState.PENDING and mine)
    return waits and not job.state.ended and bool(caller.roles & {Role.APPROVE, Role.LAUNCH})


def _read(console: Console, caller: Caller, request: str) -> tuple[RequestView, JobView]:
    store = console.deps.store
    view = store.request(request)
    job = store.job(view.job_id) if view and console.owners.readable(caller, view.job_id) else None
    if view is None or job is None:
        raise NotFound(f"there is no request {request}")
    return view.model_copy(update={"chain": chain(console.deps, view.parent)}), job


def _ordered(deps: Deps, job: str) -> tuple[JobSpec | None, str | None]:
    """Return a job's spec with its params filled in, and its files' digest."""
    order = deps.store.order(job)
    if order is None:
        return None, None
    spec, params, bundle, _ = order
    try:
        return checked_spec(spec, params), bundle
    except InvalidInput:
        return None, bundle


def _issue(resource: Resource | None, view: RequestView) -> str:
    definition = resource.actions.get(Action(view.action)) if resource else None
    return definition.issue.path if definition else ""


def _lesser(resource: Resource | None, view: RequestView) -> tuple[str, ...]:
    return tuple(name.value for name in resource.actions if name.rank < Action(view.action).rank) if resource else ()


def _before(deps: Deps, view: RequestView, now: Mapping[str, str], *, only: str | None) -> Before | None:
    earlier = deps.store.approved_before(view, only=only)
    if earlier is None:
        return None
    spec, bundle = _ordered(deps, earlier.job_id)
    then = {**(run_facts(spec, bundle) if spec else {}), **_compared(earlier), "launched by": earlier.requester}
    return Before(earlier, differences(then, {**now, **_compared(view), "launched by": view.requester}))


def _compared(view: RequestView) -> Mapping[str, str]:
    told = {
        name: value
        for name, value in asked_facts(view).items()
        if name in {"action", "ttl", "tier", "policies", "revocable", "sensitivity"}
    }
    return {**told, **call_facts(view)}


def _not_counted(steps: tuple[EntryView, ...], person: str) -> str:
    mine = [
        one for one in steps if one.type in {EventType.APPROVAL_REJECTED, EventType.APPROVAL_DECIDED} and one.data.get("person") == person
    ]
    last = mine[-1] if mine else None
    return str(last.data.get("why", "")) if last and last.type == EventType.APPROVAL_REJECTED else ""
