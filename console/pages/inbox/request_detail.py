"""Everything that a request's page shows, read from the store and limited in size. Blocking: call it in a thread. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from console.auth.authorization import Caller, Role
from console.presentation.policy_text import POLICY_SOURCE_TEXT
from console.services.console import Console
from console.services.decide_request import has_answered, why_approval_refused, why_cannot_answer, why_no_delegate_of, why_own_job
from console.services.deciders import GroupMembers, barred_people, deciders_from
from console.services.visibility import job_for, visible_request
from justenough.domain.approvals.ladder import GrantTerms
from justenough.domain.core.errors import InvalidInput, RetryLater
from justenough.domain.core.rejection import Rejection
from justenough.domain.inbox.diff import Difference, agent_text, call_facts, differences, model_text, request_facts, run_facts, shown_facts
from justenough.domain.inbox.pending import TimeoutOutcome, timeout_outcome
from justenough.domain.jobs.spec import JobSpec
from justenough.domain.jobs.states import Action, RequestState
from justenough.domain.ledger.events import EventType
from justenough.domain.readmodel.views import DelegationView, EntryView, JobView, RequestView
from justenough.domain.tools.definitions import Tool
from justenough.services.dependencies import Deps
from justenough.services.order_spec import read_order_spec
from justenough.services.parent_chain import ancestor_views

MAX_STEPS = 8
"""Number of the job's newest ledger entries on the page."""
MAX_EARLIER = 5
"""Number of previous decisions of the same kind on the page."""
COMPARED_FACTS = frozenset({"action", "ttl", "tools", "tier", "policies", "revocable", "sensitivity"})
"""Facts of a request, apart from those of its run and its tool call, that are compared with the previous approval."""


class DecidingPolicy(NamedTuple):
    """A policy behind a decision, with its current text."""

    id: str
    text: str
    """Empty if no policy with this name is in force."""
    why: str
    place: str


class PreviousApproval(NamedTuple):
    """The last approved request of the same job name and resource, and what changed since."""

    request: RequestView
    differences: tuple[Difference, ...]


class RequestRights(NamedTuple):
    """The actions that a person can take on a request now."""

    answer: bool
    why_not: str
    """Why the person cannot decide the request, and who can; empty if they can."""
    why_no_approval: str
    """Why an approval as requested would be refused, although the person may decide; empty if it would not."""
    lesser: tuple[str, ...]
    """Actions of the same resource, less than the requested one, that an approval can grant instead."""
    claimed: bool
    """Whether the person has claimed the request."""
    break_glass: bool
    why_no_break_glass: str
    """Why break-glass would be refused, although the person may use it; empty otherwise."""
    withdraw: bool
    review: bool

    @property
    def approve(self) -> bool:
        """Whether they can approve the request, unchanged or with a lesser action."""
        return self.answer and (not self.why_no_approval or bool(self.lesser))


class AbsentPerson(NamedTuple):
    """Somebody who has delegated to this person, and why that does not help here; empty if it does."""

    delegation: DelegationView
    why_not: str


@dataclass(frozen=True, slots=True)
class RequestCard:
    """A request with everything that its approver needs."""

    view: RequestView
    job: JobView
    spec: JobSpec | None
    """None if this version cannot read the order."""
    facts: Mapping[str, str]
    """The facts that the page shows, by name. The form sends them back, so that the console can list later changes."""
    policies: tuple[DecidingPolicy, ...]
    issue: str
    """The Vault path in the catalog that issues the credential; empty if the catalog no longer has it."""
    before: PreviousApproval | None
    earlier: tuple[RequestView, ...]
    steps: tuple[EntryView, ...]
    silence: TimeoutOutcome
    approvers: tuple[str, ...]
    """The approver groups of the current tier."""
    deciders: tuple[GroupMembers, ...]
    """Who else can decide the request now."""
    withdrawals: tuple[EntryView, ...]
    """The ledger entries of its withdrawn approvals, newest first, with who withdrew them and why."""
    absent: tuple[AbsentPerson, ...]
    rights: RequestRights
    tool: Tool | None
    """The catalog's definition of the tool in a tool call; None if there is none."""
    mine: str
    """Why this person's last decision was rejected; empty if it was not rejected recently."""

    @property
    def agent(self) -> str:
        return agent_text(self.spec) if self.spec else ""

    @property
    def model(self) -> str:
        """The job's language model and its budget; empty for none."""
        return model_text(self.spec) if self.spec else ""


def card_of(console: Console, caller: Caller, request: str) -> RequestCard:
    """Read a request that the caller may read. Raises NotFound even if it exists but they may not, so that nobody learns which ids exist."""
    deps = console.deps
    view = visible_request(deps.store, console.job_owners, caller, request)
    view, job = view.model_copy(update={"chain": ancestor_views(deps, view.parent)}), job_for(deps.store, caller, view.job_id)
    config, (spec, bundle) = deps.config.current(), _order_spec(deps, view.job_id)
    definition, policies = config.catalog.action(view.resource, Action(view.action)), policies_of(deps, view)
    delegations = deps.store.delegations.current_of(caller.person.id, now=deps.now())
    steps, tier = (
        deps.store.ledger.entries_newest_first(job=view.job_id, limit=MAX_STEPS).items[::-1],
        config.tiers.tiers.get(view.current_tier),
    )
    withdrawn = (
        deps.store.ledger.entries_newest_first(job=view.job_id, types=(EventType.APPROVAL_WITHDRAWN,)).items
        if any(item.withdrawn_at for item in view.approvals)
        else ()
    )
    decided = {EventType.APPROVAL_REJECTED, EventType.APPROVAL_DECIDED}
    mine = (one for one in reversed(steps) if one.type in decided and one.data.get("person") == caller.person.id)
    # The person may have decided other requests of this job, too.
    last = next((one for one in mine if one.data.get("request") == view.id), None)
    return RequestCard(
        view=view,
        job=job,
        spec=spec,
        facts=shown_facts(view, {one.id: one.text for one in policies}),
        policies=policies,
        issue=definition.issue.path if definition else "",
        before=_previous_approval(deps, view, run_facts(spec, bundle) if spec else {}, only=caller.requester_filter),
        earlier=deps.store.inbox.earlier_decisions(view, MAX_EARLIER, requester_id=caller.requester_filter),
        steps=steps,
        silence=timeout_outcome(view, config.tiers),
        approvers=tier.approvers if tier else (),
        deciders=deciders_of(deps, caller, view, requester_id=job.requester_id),
        withdrawals=tuple(entry for entry in withdrawn if entry.data["request"] == view.id),
        absent=tuple(
            AbsentPerson(one, _reason(partial(why_no_delegate_of, deps, view, one.person_id, requester_id=job.requester_id)))
            for one in delegations
            if one.delegate_id == caller.person.id
        ),
        rights=rights_of(deps, caller, view, job),
        tool=config.catalog.named_tools.get(str(view.call["tool"])) if view.call else None,
        mine=str(last.data.get("why", "")) if last and last.type == EventType.APPROVAL_REJECTED else "",
    )


def deciders_of(deps: Deps, caller: Caller, view: RequestView, *, requester_id: str) -> tuple[GroupMembers, ...]:
    """Return who else can decide a request now, by group: the groups of its tier first, then those above it."""
    if view.state is not RequestState.PENDING:
        return ()
    absent = (item.on_behalf_of_id for item in view.lasting_answers if item.on_behalf_of_id and item.withdrawn_at is None)
    out = {caller.person.id, requester_id, *(item.approver_id for item in view.lasting_answers), *absent}
    out |= barred_people(deps, view.job_id, parent=view.parent)
    return deciders_from(deps, caller.tiers, view.current_tier, without=out)


def policies_of(deps: Deps, view: RequestView) -> tuple[DecidingPolicy, ...]:
    """Return the policies behind a request's decision, with their current text."""
    known = {rule.id: rule for rule in deps.config.current().policies.rules}
    return tuple(
        DecidingPolicy(name, rule.text, rule.why, rule.place)
        if (rule := known.get(name))
        else DecidingPolicy(name, "", POLICY_SOURCE_TEXT.get(name, ""), "")
        for name in view.policies
    )


def rights_of(deps: Deps, caller: Caller, view: RequestView, job: JobView) -> RequestRights:
    """Return the actions that a person can take on a request now, without those that policy, Vault or the job's order would refuse."""
    me, pending, review = caller.person.id, view.state is RequestState.PENDING, view.review
    barred = why_own_job(deps, caller, view, requester_id=job.requester_id) is not None
    why_not = why_cannot_answer(deps, caller, view, requester_id=job.requester_id)
    counts = view.state is RequestState.APPROVED or (pending and any(item.approver_id == me for item in view.standing_approvals))
    action, resource = Action(view.action), deps.config.current().catalog.resources.get(view.resource)
    may_break_glass = Role.BREAK_GLASS in caller.roles and pending and not barred and not has_answered(view, me)

    def refusal(action: Action, *, break_glass: bool = False) -> str:
        terms = GrantTerms(action=action, ttl=view.ttl, break_glass=break_glass)
        return _reason(partial(why_approval_refused, deps, caller, view, terms))

    no_glass = refusal(action, break_glass=True) if may_break_glass else ""
    less = [name for name in resource.actions if name.rank < action.rank] if resource and not (why_not or view.call) else []
    return RequestRights(
        answer=not why_not,
        why_not=why_not,
        why_no_approval="" if why_not else refusal(action),
        lesser=tuple(name.value for name in less if not refusal(name)),
        claimed=bool(view.claim and view.claim.by_id == me and view.claim.until > deps.now()),
        break_glass=may_break_glass and not no_glass,
        why_no_break_glass=no_glass,
        withdraw=counts and not job.state.ended and caller.can_stop_jobs_of(job.requester_id),
        review=bool(review and review.open and not barred and review.person_id != me and caller.review_tier >= max(review.tiers)),
    )


def _reason(ask: Callable[[], Rejection | None]) -> str:
    """Return why a check rejects an action; "" if the check accepts it, or if a server that the check needs does not answer. Submitting
    runs the check again.
    """
    try:
        rejection = ask()
    except RetryLater:
        return ""
    return rejection.message if rejection else ""


def _order_spec(deps: Deps, job: str) -> tuple[JobSpec | None, str | None]:
    """Return a job's spec with its params filled in, and the digest of its files; None for a part that is missing or unreadable."""
    order = deps.store.jobs.order(job)
    if order is None:
        return None, None
    try:
        return read_order_spec(deps, order), order.bundle
    except InvalidInput:
        return None, order.bundle


def _previous_approval(deps: Deps, view: RequestView, current_facts: Mapping[str, str], *, only: str | None) -> PreviousApproval | None:
    earlier = deps.store.inbox.last_approved(view, requester_id=only)
    if earlier is None:
        return None
    spec, bundle = _order_spec(deps, earlier.job_id)
    earlier_facts = run_facts(spec, bundle) if spec else {}
    return PreviousApproval(earlier, differences(_comparable_facts(earlier, earlier_facts), _comparable_facts(view, current_facts)))


def _comparable_facts(view: RequestView, facts_of_run: Mapping[str, str]) -> Mapping[str, str]:
    request = {name: value for name, value in request_facts(view).items() if name in COMPARED_FACTS}
    return {**facts_of_run, **request, **call_facts(view), "launched by": view.requester}
