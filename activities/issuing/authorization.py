"""Decides whether a request may be issued now, and whether a credential may be kept, by policy, signatures, groups and quorum, evaluated again each time.

Before each issue, everything is verified at the current time. Before each renewal, signed statements only need to have been valid when they
were counted, because a job may run longer than its order's hour; people, their groups and the policies are evaluated again. Issues and ends
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from activities.issuing.results import EndReason, IssueBasis, NotPermitted
from justenough.domain.approvals.ladder import ApprovalAnswer, Ladder
from justenough.domain.contracts.workflow_messages import GrantedRequest, JobInput
from justenough.domain.core.canonical_json import digest_of
from justenough.domain.core.ids import request_id
from justenough.domain.core.rejection import Rejection
from justenough.domain.jobs.credentials import CredentialHandle, Decision, HeldAccess
from justenough.domain.jobs.spec import Access
from justenough.domain.ledger.events import Event
from justenough.domain.policy.cedar_request import Phase
from justenough.domain.tools.call import call_of
from justenough.services.approval_ladder import ladder_for_request
from justenough.services.control_group_votes import build_control_group_verifier
from justenough.services.dependencies import Deps
from justenough.services.evaluate_request import (
    apply_grant,
    compute_request_digest,
    evaluate_request,
    why_not_issuable,
    why_not_offered,
    why_policy_denies_grant,
)
from justenough.services.inherited_limits import why_exceeds_ancestors
from justenough.services.job_history import JobHistory, approval_withdrawers
from justenough.services.ledger_events import (
    access_decided_event,
    approval_decided_event,
    approval_rejected_event,
    issue_decision_about,
    review_opened_event,
)
from justenough.services.parent_chain import ancestor_launchers
from justenough.services.verify_order import VerifiedOrder, build_approval_verifier, verify_order

MAX_ANSWERS_EXAMINED = 20
"""Answers that are examined for one request: no request has more approvers than that."""
MAX_REASONS = 3
"""Reasons why answers do not count that a refusal repeats. The ledger has all of them."""


@dataclass(frozen=True, slots=True)
class IssueContext:
    """One job's order, as it was sent and as it was verified."""

    deps: Deps
    order: JobInput
    verified: VerifiedOrder


@dataclass(frozen=True, slots=True)
class RecordedDecision:
    """The last decision about a credential in the ledger, and how many changes of that decision were recorded after the issue."""

    decision: Decision
    changes: int = 0


def authorize(
    context: IssueContext, granted: GrantedRequest, access: Access, *, nth: int, held: HeldAccess, phase: Phase, history: JobHistory
) -> tuple[Access, IssueBasis]:
    """Return the access that may be issued for this request now, and its basis. Raises NotPermitted.

    `nth`: the attempt to issue for this request, from 1. The decision is in the ledger before this returns. If the catalog no longer offers the
    access, policy cannot decide on it.
    """
    deps, job, verified, now, requested = context.deps, context.order.job, context.verified, context.deps.now(), access
    request = request_id(job, granted.number)
    # While people were asked, the catalog may have changed: a shorter max_ttl, for example, or one data scope fewer.
    if gone := why_not_offered(deps, (access.resource, access.action)) or why_not_issuable(deps, verified, access):
        raise NotPermitted(gone.message)
    decision, facts = evaluate_request(deps, job, verified, access, held=held, phase=phase)
    digest = compute_request_digest(
        deps, verified, access, bundle=context.order.bundle, tier=history.signed_tier(request, needed=decision.tier)
    )
    # The decision is recorded already, unless somebody started this session without the workflow that decides.
    events = [access_decided_event(job, request, decision, digest, facts=facts, phase=phase, at=now)]
    rejection: Rejection | None = None
    ladder: Ladder | None = None
    if decision.outcome == "denied":
        rejection = Rejection("policy_denies", f"policy denies it now ({', '.join(decision.policies)})")
    elif decision.outcome == "needs_approval":
        ladder, rejected = _count_answers(
            context, granted.answers[:MAX_ANSWERS_EXAMINED], request, access, decision, digest, history=history
        )
        events += rejected
        if ladder.verdict(deps.config.current().tiers) != "approved":
            rejection = Rejection(
                "no_quorum",
                f"it needs tier {ladder.current}, but its valid approvals do not reach the quorum "
                f"({'; '.join([*dict.fromkeys(event.data['why'] for event in rejected)][:MAX_REASONS]) or 'more are needed now'})",
            )
        elif settled := history.settled.get(request):
            rejection = Rejection("request_settled", f"the request is {settled}")
        else:
            # The answers are recorded already too. Nothing is issued before enough valid approvals are in the ledger.
            events += _approval_events(deps, job, ladder, at=now)
            access = apply_grant(access, ladder.grant)
            if (ladder.is_narrowed or ladder.broke_glass) and not (rejection := why_not_issuable(deps, verified, access)):
                # Policy decides again on the request as its approvers narrowed it.
                decision, facts = evaluate_request(
                    deps, job, verified, access, held=held, phase=phase, break_glass=ladder.broke_glass, requested=requested
                )
                rejection = why_policy_denies_grant(ladder.grant, decision, tier=ladder.current)
    # People may have taken an hour to answer. If an ancestor of the job has lost access meanwhile, the job has lost it too.
    rejection = rejection or why_exceeds_ancestors(deps, access, verified.statement)
    # A grant for tools issues nothing yet, so a later search must not expect a credential of this decision.
    last, about = ("granted", None) if access.tools is not None and call_of(access) is None else ("issue", issue_decision_about(nth))
    record_issue_decision(deps, *events, access_decided_event(job, request, decision, digest, facts=facts, phase=last, at=now, about=about))
    if rejection:
        raise NotPermitted(f"{access.action} on {access.resource}: {rejection}")
    return access, IssueBasis(decision, digest, now, requested, ladder)


def record_issue_decision(deps: Deps, *events: Event) -> None:
    """Record the last of these events, the decision before an attempt to issue, and those that led to it.

    An attempt that waited for a server is decided again under the same number. If the decision differs, it is recorded beside the first.
    """
    ledger, decided = deps.store.ledger, events[-1]
    if decided.id not in {entry.id for entry in ledger.append(events)}:
        (first,) = ledger.with_ids([decided.id])
        before, now = ([data[field] for field in ("outcome", "tier", "policies")] for data in (first.data, decided.data))
        if before != now:
            ledger.append([decided.model_copy(update={"id": f"{decided.id}/{digest_of(now)}"})])


def _approval_events(deps: Deps, job: str, ladder: Ladder, *, at: datetime) -> Iterator[Event]:
    """Yield the events of the answers that approved a request, then those of the reviews that they open."""
    approving, tiers = ladder.answers[-1], deps.config.current().tiers
    for answer in ladder.answers:
        yield approval_decided_event(job, ladder, answer, verdict="approved" if answer is approving else "pending", at=at)
    for answer in ladder.answers:
        if answer.decision == "break_glass":
            yield review_opened_event(job, ladder, answer, tiers, at=at)


def _count_answers(
    context: IssueContext,
    answers: Sequence[ApprovalAnswer],
    request: str,
    access: Access,
    decision: Decision,
    digest: str,
    *,
    history: JobHistory,
) -> tuple[Ladder, list[Event]]:
    """Return the request's ladder with those answers that are valid now, and an event for each answer that is not."""
    deps, job, verified, now = context.deps, context.order.job, context.verified, context.deps.now()
    ladder = ladder_for_request(
        request,
        access,
        digest=digest,
        requester=verified.person.id,
        needed=history.signed_tier(request, needed=decision.tier),
        # A request that escalated is closed to the lower tiers, even if their approval arrives now.
        current=max(decision.tier, history.tiers.get(request, 0)),
        respond_by=now,
    ).with_barred(
        forebears=ancestor_launchers(deps, verified.statement.parent, asked_by=verified.statement.asked_by),
        taken_back=history.withdrawers.get(request, frozenset()),
    )
    counted, rejections = build_control_group_verifier(deps, now=now).recount_answers(job, ladder, (answer.signed for answer in answers))
    return counted, [
        approval_rejected_event(
            job,
            rejection.message,
            at=deps.now(),
            about=f"{request}/issue-{number}",
            raw=answers[number - 1].signed.model_dump(mode="json"),
            request=request,
            person=answers[number - 1].person,
        )
        for number, rejection in rejections
    ]


def reason_to_end(
    context: IssueContext,
    credential: CredentialHandle,
    access: Access,
    basis: IssueBasis,
    *,
    held: HeldAccess,
    recorded: dict[str, RecordedDecision],
) -> EndReason | None:
    """Return why a credential may not be kept. If it may, record a changed decision and return None. Raises RetryLater if a server is unreachable.

    `recorded`: the last recorded decision by credential; the caller keeps this mapping between calls.
    """
    deps, job = context.deps, context.order.job
    verified = verify_order(deps, context.order, now=context.verified.at)
    if isinstance(verified, Rejection):
        return EndReason(f"its order is no longer valid: {verified}")
    gone = (
        why_not_offered(deps, (access.resource, access.action))
        # A lowered max_ttl holds for what is issued from now on.
        or why_not_issuable(deps, verified, access.model_copy(update={"ttl": 1}))
        # An ancestor may have lost access that the order does not name, so that the order is still valid.
        or why_exceeds_ancestors(deps, access, verified.statement)
    )
    if gone:
        return EndReason(gone.message)
    decision, facts = evaluate_request(
        deps, job, verified, access, held=held, phase="renewal", break_glass=basis.broke_glass, requested=basis.requested
    )
    last = recorded.get(credential.id, RecordedDecision(basis.decision))
    changed: tuple[Event, ...] = ()
    # An unchanged decision is not worth an entry every minute.
    if not decision.is_like(last.decision):
        # One request may have several credentials, whose decisions change at different times.
        request, about, now = credential.request_id, f"renewal/{credential.id}/{last.changes + 1}", deps.now()
        changed = (access_decided_event(job, request, decision, basis.digest, facts=facts, phase="renewal", at=now, about=about),)
    policies, why = ", ".join(decision.policies), ""
    if decision.outcome == "denied":
        why = f"policy denies it now ({policies})"
    elif decision.tier > basis.tier:
        why = f"policy now requires tier {decision.tier} ({policies}), but it was issued at tier {basis.tier}"
    elif basis.ladder and (withdrawers := approval_withdrawers(deps.store.ledger, basis.ladder.request)):
        why = f"its approval was withdrawn by {', '.join(withdrawers)}"
    elif decision.tier and (rejection := why_not_approved(context, basis)):
        why = rejection.message
    if why:
        return EndReason(why, changed)
    if changed:
        deps.store.ledger.append(changed)
        recorded[credential.id] = RecordedDecision(decision, last.changes + 1)
    return None


def why_not_approved(context: IssueContext, basis: IssueBasis) -> Rejection | None:
    """Return why the approvals of a grant no longer reach the quorum; None if they still do, or if no approval was needed."""
    ladder = basis.ladder
    if ladder is None:
        return None
    unanswered, answers = ladder.model_copy(update={"answers": ()}), [answer.signed for answer in ladder.answers]
    left, rejections = build_approval_verifier(context.deps, now=basis.at).recount_answers(context.order.job, unanswered, answers)
    if left.verdict(context.deps.config.current().tiers) == "approved":
        return None
    lost = "; ".join(f"{ladder.answers[number - 1].name}: {rejection}" for number, rejection in rejections)
    message = f"its valid approvals no longer reach the quorum of tier {ladder.current} ({lost or 'more are needed now'})"
    return Rejection("no_quorum", message)
