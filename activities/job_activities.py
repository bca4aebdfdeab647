"""The quick steps of a job's workflow: decide its requests, examine answers, climb, close. Each records before it returns.

Every one may run twice: what it records carries ids made from what happened, so that the second time changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from temporalio import activity

from activities.revocation import revoke
from activities.support.caller_check import NotTheirs, refused_event, require_job_workflow
from justenough.domain.approvals.ladder import Ladder
from justenough.domain.approvals.statements import MAX_CLOCK_SKEW
from justenough.domain.catalog.loader import problems_in_spec
from justenough.domain.contracts.workflow_messages import (
    AnswersInput,
    AnswersResult,
    ClimbInput,
    ClimbResult,
    CloseInput,
    DecidedRequest,
    JobInput,
    JobResult,
    OpenInput,
    OpenResult,
    StartDecisions,
    WithdrawInput,
)
from justenough.domain.core.errors import NotFound, RetryLater
from justenough.domain.core.ids import job_of, request_id
from justenough.domain.core.rejection import Rejection
from justenough.domain.jobs.credentials import Decision
from justenough.domain.jobs.spec import Access
from justenough.domain.jobs.states import RequestState
from justenough.domain.ledger.events import Event, EventType, build_event
from justenough.domain.policy.cedar_request import DecisionFacts
from justenough.services.approval_ladder import ladder_for_request
from justenough.services.count_answers import AnswerCounter, find_recorded_request
from justenough.services.dependencies import Deps
from justenough.services.evaluate_request import compute_request_digest, evaluate_in_order
from justenough.services.job_history import read_job_history
from justenough.services.ledger_events import access_decided_event, approval_opened_event, is_well_formed, order_events
from justenough.services.verify_order import VerifiedOrder, verify_order

ATTEMPT_EVENTS = frozenset({EventType.REVOCATION_STARTED, EventType.REVOCATION_OVERDUE, EventType.CREDENTIAL_REVOKED})
PROOF_EVENTS = frozenset(
    {EventType.CREDENTIAL_ISSUED, EventType.REVOCATION_CONFIRMED, EventType.CREDENTIAL_CONFIRMED, EventType.CREDENTIAL_EXPIRED}
)
"""What a revocation may have had to leave unrecorded: that it was tried, and what was issued and seen to have worked."""


class NotLookedAt(RetryLater):
    """What would have to answer for a proof to be believed is away."""


class JobActivities:
    """What the workflow asks between two waits."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    @activity.defn(name="decide_requests")
    def decide_requests(self, order: JobInput) -> StartDecisions:
        """Verify the order and decide each of its start requests; nothing is issued here."""
        deps, now = self._deps, self._deps.now()
        require_job_workflow(deps, order.job)
        current = deps.config.current()
        verified = verify_order(deps, order, now=now)
        if isinstance(verified, VerifiedOrder):
            past = read_job_history(deps.store.ledger, order.job)
            why = past.why_over if past.ended else "; ".join(map(str, problems_in_spec(verified.spec, current.catalog)))
        else:
            why = verified.message
        if isinstance(verified, Rejection) or why:
            deps.store.ledger.append([refused_event(order.job, why, at=now)])
            return StartDecisions(refused=why)
        decided = tuple(self._decide_each(order, verified))
        deps.store.ledger.append(self._decision_events(order, verified, decided))
        return StartDecisions(
            requester=verified.person.id,
            timeout=verified.spec.run.timeout,
            environment=verified.spec.environment,
            requests=tuple(request for request, _ in decided),
        )

    @activity.defn(name="take_answers")
    def take_answers(self, answers_input: AnswersInput) -> AnswersResult:
        """Examine signals in order; each is one ledger entry, whether it counts or not."""
        require_job_workflow(self._deps, answers_input.job)
        counting = AnswerCounter(self._deps, answers_input)
        for offset, raw in enumerate(answers_input.received):
            counting.count_signal(raw, number=answers_input.number + offset)
        self._deps.store.ledger.append(counting.events)
        return counting.result()

    @activity.defn(name="climb")
    def climb(self, climb_input: ClimbInput) -> ClimbResult:
        """Move an unanswered request to the next tier; past the top it has expired."""
        now, tiers = self._deps.now(), self._deps.config.current().tiers
        before, job = climb_input.ladder, climb_input.job
        require_job_workflow(self._deps, job)
        after = before.to_next_tier(tiers, now=now)
        if self._has_climbed(before):
            return ClimbResult(ladder=after)
        recorded = find_recorded_request(self._deps, job, before)
        why = recorded.message if isinstance(recorded, Rejection) else self._why_too_early(before)
        if why:
            self._deps.store.ledger.append([refused_event(job, why, at=now)])
            raise NotTheirs(why)
        if after is None:
            fact = build_event(EventType.APPROVAL_EXPIRED, job, at=now, about=before.request, request=before.request, tier=before.current)
        else:
            fact = build_event(
                EventType.APPROVAL_ESCALATED,
                job,
                at=now,
                about=f"{before.request}/{after.current}",
                request=before.request,
                tier=after.current,
                respond_by=after.respond_by.isoformat(),
                quorum=tiers.tiers[after.current].quorum,
            )
        self._deps.store.ledger.append([fact])
        return ClimbResult(ladder=after)

    @activity.defn(name="open_request")
    def open_request(self, open_input: OpenInput) -> OpenResult:
        """Open the approval of a request that the job made while it runs; what it is, its session has recorded and will check again."""
        deps, job, now = self._deps, open_input.job, self._deps.now()
        require_job_workflow(deps, job)
        view, order = deps.store.requests.get(open_input.request), deps.store.jobs.order(job)
        if view is None or order is None or view.job_id != job or view.state is not RequestState.PENDING or not view.tier:
            return OpenResult()
        tiers = deps.config.current().tiers
        ladder = ladder_for_request(
            view.id,
            view,
            digest=view.digest,
            requester=str(order.signed.statement.get("person")),
            needed=view.tier,
            current=max(view.tier, view.current_tier),
            # Opened already where the answer to an earlier attempt got lost.
            respond_by=view.expires_at or tiers.respond_by(view.tier, now=now),
        )
        deps.store.ledger.append([approval_opened_event(job, ladder, tiers, at=now)])
        return OpenResult(ladder=ladder)

    @activity.defn(name="withdraw")
    def withdraw(self, withdraw_input: WithdrawInput) -> None:
        """Record that requests are no longer wanted."""
        require_job_workflow(self._deps, withdraw_input.job)
        now = self._deps.now()
        self._deps.store.ledger.append(
            build_event(EventType.ACCESS_WITHDRAWN, withdraw_input.job, at=now, about=request, request=request, why=withdraw_input.why)
            for request in withdraw_input.requests
            if job_of(request) == withdraw_input.job
        )

    @activity.defn(name="close")
    def close(self, close_input: CloseInput) -> JobResult:
        """Record how a job ended, with what the ledger could not take before. The first ending recorded stands and is returned.

        Raises NotLookedAt where such a proof cannot be looked at anew: a job that has ended shows its proof.
        """
        store = self._deps.store
        require_job_workflow(self._deps, close_input.job, guard=True)
        self._end_claim(close_input.job)
        ended = build_event(
            EventType.JOB_ENDED,
            close_input.job,
            at=self._deps.now(),
            state=close_input.state.value,
            exit_code=close_input.exit_code,
            reason=close_input.reason,
        )
        new = store.ledger.append([*self._believable_events(close_input), ended])
        # Only where another ending was there already is there anything to read.
        job = None if any(entry.id == ended.id for entry in new) else store.jobs.get(close_input.job)
        if job is None or not job.state.ended:
            return JobResult(state=close_input.state, exit_code=close_input.exit_code, reason=close_input.reason)
        return JobResult(state=job.state, exit_code=job.exit_code, reason=job.reason)

    def _decide_each(self, order: JobInput, verified: VerifiedOrder) -> Iterator[tuple[DecidedRequest, DecisionFacts]]:
        for each in evaluate_in_order(self._deps, order.job, verified):
            number, access, decision = each.number, each.access, each.decision
            definition = self._deps.config.current().catalog.action(access.resource, access.action)
            request = DecidedRequest(
                id=request_id(order.job, number),
                number=number,
                resource=access.resource,
                action=access.action,
                ttl=access.ttl,
                optional=access.optional,
                decision=decision,
                digest=(digest := compute_request_digest(self._deps, verified, access, bundle=order.bundle, tier=decision.tier)),
                ladder=self._build_ladder(order.job, number, access, decision, digest, requester=verified.person.id),
                locked=decision.outcome == "needs_approval" and definition is not None and definition.locked,
            )
            yield request, each.facts

    def _build_ladder(self, job: str, number: int, access: Access, decision: Decision, digest: str, *, requester: str) -> Ladder | None:
        if decision.outcome != "needs_approval":
            return None
        return ladder_for_request(
            request_id(job, number),
            access,
            digest=digest,
            requester=requester,
            needed=decision.tier,
            current=decision.tier,
            respond_by=self._deps.config.current().tiers.respond_by(decision.tier, now=self._deps.now()),
        )

    def _decision_events(
        self, order: JobInput, verified: VerifiedOrder, decided: tuple[tuple[DecidedRequest, DecisionFacts], ...]
    ) -> Iterator[Event]:
        now, current = self._deps.now(), self._deps.config.current()
        yield from order_events(self._deps, order, verified)
        for request, facts in decided:
            yield access_decided_event(order.job, request.id, request.decision, request.digest, facts=facts, phase="start", at=now)
            if request.ladder and not request.locked:
                yield approval_opened_event(order.job, request.ladder, current.tiers, at=now)

    def _end_claim(self, job: str) -> None:
        """Whatever ended the job, nothing is issued under its id any more: a reset, or whoever has its order, comes too late."""
        claim = self._deps.store.claims.get(job)
        if claim is None or claim.open:
            self._deps.store.claims.close(job, self._deps.now())

    def _believable_events(self, close_input: CloseInput) -> Iterator[Event]:
        """Yield what the ledger may take of events that came by way of Temporal: nothing but a revocation's, its proof after a fresh look."""
        carried = [
            item for item in close_input.unrecorded if item.type in ATTEMPT_EVENTS | PROOF_EVENTS and is_well_formed(item, close_input.job)
        ]
        proven = any(item.type in PROOF_EVENTS for item in carried) and self._is_dead(close_input.job)
        yield from (item for item in carried if item.type in ATTEMPT_EVENTS or proven)

    def _is_dead(self, job: str) -> bool:
        try:
            report = revoke.prove(self._deps, job)
        except NotFound:
            return False
        if report.failures and not any(finding.alive for finding in report.findings):
            message = f"the proof that the job's access has ended cannot be looked at now: {'; '.join(report.failures)}"
            raise NotLookedAt(message)
        return report.dead

    def _has_climbed(self, ladder: Ladder) -> bool:
        """Whether this very step was recorded before: its answer got lost, and it is asked again."""
        recorded = self._deps.store.requests.get(ladder.request)
        if recorded is None:
            return False
        return recorded.state is RequestState.EXPIRED or recorded.current_tier == ladder.current + 1 > recorded.tier

    def _why_too_early(self, ladder: Ladder) -> str | None:
        recorded = self._deps.store.requests.get(ladder.request)
        early = recorded is None or recorded.expires_at is None or recorded.expires_at > self._deps.now() + MAX_CLOCK_SKEW
        return "its tier still has time to answer" if early else None
