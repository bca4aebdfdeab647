"""Whether what was granted may be issued now: policy, signatures, groups and quorum, all asked anew right before each issue. Issues nothing."""

from __future__ import annotations

from collections.abc import Iterable

from activities.issuing.renewal_check import Basis
from activities.issuing.results import NotPermitted
from justenough.domain.approvals.ladder import Answer, Ladder
from justenough.domain.contracts.workflow_messages import Granted, JobInput
from justenough.domain.core.ids import request_id
from justenough.domain.jobs.credentials import Decision, Held
from justenough.domain.jobs.spec import Access
from justenough.domain.ledger.events import Event
from justenough.domain.policy.cedar_request import Facts, Phase
from justenough.domain.tools.call import call_of
from justenough.services.control_group_votes import whole_table
from justenough.services.dependencies import Deps
from justenough.services.evaluate_request import answered, digest_for, narrowed, why_not_as_granted, why_not_possible
from justenough.services.inherited_limits import why_beyond
from justenough.services.job_history import Past
from justenough.services.ledger_events import counted_event, decided_event, rejected, review_opened
from justenough.services.parent_chain import forebears
from justenough.services.verify_order import VerifiedOrder

ANSWERS_EXAMINED = 20
"""Answers that one request may come with; nobody has more approvers than that."""


class Permits:
    """Verifies and decides one job's grants. Each decision is in the ledger before anything is issued on it."""

    def __init__(self, deps: Deps, order: JobInput, verified: VerifiedOrder) -> None:
        self._deps = deps
        self._order = order
        self._verified = verified

    def permitted(self, granted: Granted, access: Access, *, held: Held, phase: Phase, past: Past) -> tuple[Access, Basis]:
        """Return what this request may be issued as now, and on what; the decision is in the ledger before this returns."""
        job, now = self._order.job, self._deps.now()
        request = request_id(job, granted.number)
        decision, asked = answered(self._deps, job, self._verified, access, held=held, phase=phase)
        digest = digest_for(self._deps, self._verified, access, bundle=self._order.bundle, tier=decision.tier)
        # It is there already, unless somebody reached this session past the workflow that decides.
        facts = [decided_event(job, request, decision, digest, facts=asked, phase=phase, at=now)]
        why, ladder = "", None
        if decision.outcome == "denied":
            why = f"policy denies it now ({', '.join(decision.policies)})"
        elif decision.outcome == "needs_approval":
            ladder, attempts = self._answers(granted.answers, self._ladder(request, access, decision, digest, past=past))
            facts += attempts
            why = self._why_not_approved(ladder, past=past)
            if not why:
                # They are there already too. Nothing is issued before enough valid approvals are in the ledger.
                facts += self._counted(ladder)
                access = narrowed(access, ladder.grant)
                decision, asked, why = self._as_granted(access, ladder, decision, asked, held=held, phase=phase)
        # People may have been asked for an hour, and what a job that it came of has lost meanwhile is lost.
        why = why or why_beyond(self._deps, access, self._verified.statement) or ""
        # Where nothing is issued yet, nobody is to look for what may have been.
        last = "granted" if access.tools is not None and call_of(access) is None else "issue"
        facts.append(decided_event(job, request, decision, digest, facts=asked, phase=last, at=now))
        self._deps.store.record(facts)
        if why:
            raise NotPermitted(f"{access.action} on {access.resource}: {why}")
        return access, Basis(decision, digest, now, ladder)

    def _as_granted(
        self, access: Access, ladder: Ladder, decision: Decision, asked: Facts, *, held: Held, phase: Phase
    ) -> tuple[Decision, Facts, str]:
        """Return what policy says of what the answers left of a request, and why that may not be issued."""
        if not (ladder.is_narrowed or ladder.broke_glass):
            return decision, asked, ""
        if why := why_not_possible(self._deps, self._verified, access):
            return decision, asked, why
        again, asked = answered(self._deps, self._order.job, self._verified, access, held=held, phase=phase, break_glass=ladder.broke_glass)
        return again, asked, why_not_as_granted(ladder.grant, again, tier=ladder.current) or ""

    def _ladder(self, request: str, access: Access, decision: Decision, digest: str, *, past: Past) -> Ladder:
        return Ladder(
            request=request,
            digest=digest,
            action=access.action,
            requester=self._verified.person.id,
            forebears=forebears(self._deps, self._verified.statement.parent, asked_by=self._verified.statement.asked_by),
            needed=decision.tier,
            # A request that climbed is no longer for the lower tier, whoever brings its approval now.
            current=max(decision.tier, past.tiers.get(request, 0)),
            respond_by=self._deps.now(),
            ttl=access.ttl,
            tools=None if call_of(access) else access.tools,
            taken_back=past.taken_back.get(request, frozenset()),
        )

    def _answers(self, given: Iterable[Answer], ladder: Ladder) -> tuple[Ladder, list[Event]]:
        """Return the ladder with those of the given answers that hold now, and an event for each that does not."""
        now, job, answers = self._deps.now(), self._order.job, tuple(given)[:ANSWERS_EXAMINED]
        moved, refusals = whole_table(self._deps, now=now).recounted(job, ladder, (answer.signed for answer in answers))
        return moved, [self._attempt(ladder.request, number, answers[number - 1], refusal.why) for number, refusal in refusals]

    def _attempt(self, request: str, number: int, answer: Answer, why: str) -> Event:
        raw, about = answer.signed.model_dump(mode="json"), f"{request}/issue-{number}"
        return rejected(self._order.job, why, at=self._deps.now(), about=about, raw=raw, request=request, person=answer.person)

    def _why_not_approved(self, ladder: Ladder, *, past: Past) -> str:
        if ladder.verdict(self._deps.config.current().tiers) != "approved":
            return f"it needs tier {ladder.current} and its valid approvals make no quorum"
        settled = past.settled.get(ladder.request)
        return f"the request is {settled}" if settled else ""

    def _counted(self, ladder: Ladder) -> list[Event]:
        job, now, last = self._order.job, self._deps.now(), ladder.answers[-1]
        facts = [counted_event(job, ladder, each, verdict="approved" if each is last else "pending", at=now) for each in ladder.answers]
        tiers = self._deps.config.current().tiers
        return facts + [review_opened(job, ladder, each, tiers, at=now) for each in ladder.answers if each.decision == "break_glass"]
