"""Whether what was granted may be issued now: policy, signatures, groups and quorum, all asked anew right before each issue. Issues nothing."""

from __future__ import annotations

from collections.abc import Iterable

from activities.issuing.renewal_check import IssueBasis
from activities.issuing.results import NotPermitted
from justenough.domain.approvals.ladder import ApprovalAnswer, Ladder
from justenough.domain.contracts.workflow_messages import GrantedRequest, JobInput
from justenough.domain.core.ids import request_id
from justenough.domain.jobs.credentials import Decision, HeldAccess
from justenough.domain.jobs.spec import Access
from justenough.domain.ledger.events import Event
from justenough.domain.policy.cedar_request import DecisionFacts, Phase
from justenough.domain.tools.call import call_of
from justenough.services.control_group_votes import build_control_group_verifier
from justenough.services.dependencies import Deps
from justenough.services.evaluate_request import (
    apply_grant,
    compute_request_digest,
    evaluate_request,
    why_not_issuable,
    why_policy_denies_grant,
)
from justenough.services.inherited_limits import why_exceeds_ancestors
from justenough.services.job_history import JobHistory
from justenough.services.ledger_events import access_decided_event, approval_decided_event, approval_rejected_event, review_opened_event
from justenough.services.parent_chain import ancestor_launchers
from justenough.services.verify_order import VerifiedOrder

MAX_ANSWERS_EXAMINED = 20
"""Answers that one request may come with; nobody has more approvers than that."""


class IssueAuthorizer:
    """Verifies and decides one job's grants. Each decision is in the ledger before anything is issued on it."""

    def __init__(self, deps: Deps, order: JobInput, verified: VerifiedOrder) -> None:
        self._deps = deps
        self._order = order
        self._verified = verified

    def authorize(
        self, granted: GrantedRequest, access: Access, *, held: HeldAccess, phase: Phase, history: JobHistory
    ) -> tuple[Access, IssueBasis]:
        """Return what this request may be issued as now, and on what; the decision is in the ledger before this returns."""
        job, now = self._order.job, self._deps.now()
        request = request_id(job, granted.number)
        decision, asked = evaluate_request(self._deps, job, self._verified, access, held=held, phase=phase)
        digest = compute_request_digest(self._deps, self._verified, access, bundle=self._order.bundle, tier=decision.tier)
        # It is there already, unless somebody reached this session past the workflow that decides.
        facts = [access_decided_event(job, request, decision, digest, facts=asked, phase=phase, at=now)]
        why, ladder = "", None
        if decision.outcome == "denied":
            why = f"policy denies it now ({', '.join(decision.policies)})"
        elif decision.outcome == "needs_approval":
            ladder, attempts = self._count_answers(granted.answers, self._build_ladder(request, access, decision, digest, history=history))
            facts += attempts
            why = self._why_not_approved(ladder, history=history)
            if not why:
                # They are there already too. Nothing is issued before enough valid approvals are in the ledger.
                facts += self._counted_events(ladder)
                access = apply_grant(access, ladder.grant)
                decision, asked, why = self._evaluate_as_granted(access, ladder, decision, asked, held=held, phase=phase)
        # People may have been asked for an hour, and what a job that it came of has lost meanwhile is lost.
        why = why or why_exceeds_ancestors(self._deps, access, self._verified.statement) or ""
        # Where nothing is issued yet, nobody is to look for what may have been.
        last = "granted" if access.tools is not None and call_of(access) is None else "issue"
        facts.append(access_decided_event(job, request, decision, digest, facts=asked, phase=last, at=now))
        self._deps.store.ledger.append(facts)
        if why:
            raise NotPermitted(f"{access.action} on {access.resource}: {why}")
        return access, IssueBasis(decision, digest, now, ladder)

    def _evaluate_as_granted(
        self, access: Access, ladder: Ladder, decision: Decision, facts: DecisionFacts, *, held: HeldAccess, phase: Phase
    ) -> tuple[Decision, DecisionFacts, str]:
        """Return what policy says of what the answers left of a request, and why that may not be issued."""
        if not (ladder.is_narrowed or ladder.broke_glass):
            return decision, facts, ""
        if why := why_not_issuable(self._deps, self._verified, access):
            return decision, facts, why
        again, facts = evaluate_request(
            self._deps, self._order.job, self._verified, access, held=held, phase=phase, break_glass=ladder.broke_glass
        )
        return again, facts, why_policy_denies_grant(ladder.grant, again, tier=ladder.current) or ""

    def _build_ladder(self, request: str, access: Access, decision: Decision, digest: str, *, history: JobHistory) -> Ladder:
        return Ladder(
            request=request,
            digest=digest,
            action=access.action,
            requester=self._verified.person.id,
            forebears=ancestor_launchers(self._deps, self._verified.statement.parent, asked_by=self._verified.statement.asked_by),
            needed=decision.tier,
            # A request that climbed is no longer for the lower tier, whoever brings its approval now.
            current=max(decision.tier, history.tiers.get(request, 0)),
            respond_by=self._deps.now(),
            ttl=access.ttl,
            tools=None if call_of(access) else access.tools,
            taken_back=history.taken_back.get(request, frozenset()),
        )

    def _count_answers(self, given_answers: Iterable[ApprovalAnswer], ladder: Ladder) -> tuple[Ladder, list[Event]]:
        """Return the ladder with those of the given answers that hold now, and an event for each that does not."""
        now, job, answers = self._deps.now(), self._order.job, tuple(given_answers)[:MAX_ANSWERS_EXAMINED]
        moved, refusals = build_control_group_verifier(self._deps, now=now).recount_answers(
            job, ladder, (answer.signed for answer in answers)
        )
        return moved, [self._rejected_event(ladder.request, number, answers[number - 1], refusal.why) for number, refusal in refusals]

    def _rejected_event(self, request: str, number: int, answer: ApprovalAnswer, why: str) -> Event:
        raw, about = answer.signed.model_dump(mode="json"), f"{request}/issue-{number}"
        return approval_rejected_event(
            self._order.job, why, at=self._deps.now(), about=about, raw=raw, request=request, person=answer.person
        )

    def _why_not_approved(self, ladder: Ladder, *, history: JobHistory) -> str:
        if ladder.verdict(self._deps.config.current().tiers) != "approved":
            return f"it needs tier {ladder.current} and its valid approvals make no quorum"
        settled = history.settled.get(ladder.request)
        return f"the request is {settled}" if settled else ""

    def _counted_events(self, ladder: Ladder) -> list[Event]:
        job, now, last = self._order.job, self._deps.now(), ladder.answers[-1]
        facts = [
            approval_decided_event(job, ladder, each, verdict="approved" if each is last else "pending", at=now) for each in ladder.answers
        ]
        tiers = self._deps.config.current().tiers
        return facts + [review_opened_event(job, ladder, each, tiers, at=now) for each in ladder.answers if each.decision == "break_glass"]
