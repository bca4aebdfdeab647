"""The quick steps of a job's workflow: decide its requests, examine answers, climb, close. Each records before it returns.

Every one may run twice: what it records carries ids made from what happened, so that the second time changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from temporalio import activity

from activities.revocation import revoke
from activities.support.caller_check import NotTheirs, refused, theirs
from justenough.domain.approvals.ladder import Ladder
from justenough.domain.approvals.statements import MAX_SKEW
from justenough.domain.approvals.verification import Refused
from justenough.domain.catalog.loader import problems_of
from justenough.domain.contracts.workflow_messages import (
    AnswersInput,
    AnswersResult,
    ClimbInput,
    ClimbResult,
    Closed,
    CloseInput,
    Decided,
    DecidedRequest,
    JobInput,
    Opened,
    OpenInput,
    WithdrawInput,
)
from justenough.domain.core.errors import NotFound, RetryLater
from justenough.domain.core.ids import job_of, request_id
from justenough.domain.jobs.credentials import Decision
from justenough.domain.jobs.spec import Access
from justenough.domain.jobs.states import Action, RequestState
from justenough.domain.ledger.events import Event, EventType, event
from justenough.domain.policy.cedar_request import Facts
from justenough.services.count_answers import Counting, recorded_of
from justenough.services.dependencies import Deps
from justenough.services.evaluate_request import digest_for, in_turn
from justenough.services.job_history import past_of
from justenough.services.ledger_events import decided_event, is_well_formed, opened_event, ordered
from justenough.services.verify_order import VerifiedOrder, verify_order

TRIES = frozenset({EventType.REVOCATION_STARTED, EventType.REVOCATION_OVERDUE, EventType.CREDENTIAL_REVOKED})
PROOFS = frozenset(
    {EventType.CREDENTIAL_ISSUED, EventType.REVOCATION_CONFIRMED, EventType.CREDENTIAL_CONFIRMED, EventType.CREDENTIAL_EXPIRED}
)
"""What a revocation may have had to leave unrecorded: that it was tried, and what was issued and seen to have worked."""


class NotLookedAt(RetryLater):
    """What would have to answer for a proof to be believed is away."""


class Deciding:
    """What the workflow asks between two waits."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    @activity.defn(name="decide_requests")
    def decide_requests(self, order: JobInput) -> Decided:
        """Verify the order and decide each of its start requests; nothing is issued here."""
        deps, now = self._deps, self._deps.now()
        theirs(deps, order.job)
        current = deps.config.current()
        verified = verify_order(deps, order, now=now)
        if isinstance(verified, VerifiedOrder):
            past = past_of(deps.store, order.job)
            why = past.why_over if past.ended else "; ".join(map(str, problems_of(verified.spec, current.catalog)))
        else:
            why = verified.why
        if isinstance(verified, Refused) or why:
            deps.store.record([refused(order.job, why, at=now)])
            return Decided(refused=why)
        decided = tuple(self._decided(order, verified))
        deps.store.record(self._facts(order, verified, decided))
        return Decided(
            requester=verified.person.id,
            timeout=verified.spec.run.timeout,
            environment=verified.spec.environment,
            requests=tuple(request for request, _ in decided),
        )

    @activity.defn(name="take_answers")
    def take_answers(self, received: AnswersInput) -> AnswersResult:
        """Examine signals in order; each is one ledger entry, whether it counts or not."""
        theirs(self._deps, received.job)
        counting = Counting(self._deps, received)
        for offset, raw in enumerate(received.received):
            counting.take(raw, number=received.number + offset)
        self._deps.store.record(counting.events)
        return counting.result()

    @activity.defn(name="climb")
    def climb(self, asked: ClimbInput) -> ClimbResult:
        """Move an unanswered request to the next tier; past the top it has expired."""
        now, tiers = self._deps.now(), self._deps.config.current().tiers
        before, job = asked.ladder, asked.job
        theirs(self._deps, job)
        after = before.climbed(tiers, now=now)
        if self._has_climbed(before):
            return ClimbResult(ladder=after)
        recorded = recorded_of(self._deps, job, before)
        why = recorded.why if isinstance(recorded, Refused) else self._why_too_early(before)
        if why:
            self._deps.store.record([refused(job, why, at=now)])
            raise NotTheirs(why)
        if after is None:
            fact = event(EventType.APPROVAL_EXPIRED, job, at=now, about=before.request, request=before.request, tier=before.current)
        else:
            fact = event(
                EventType.APPROVAL_ESCALATED,
                job,
                at=now,
                about=f"{before.request}/{after.current}",
                request=before.request,
                tier=after.current,
                respond_by=after.respond_by.isoformat(),
                quorum=tiers.tiers[after.current].quorum,
            )
        self._deps.store.record([fact])
        return ClimbResult(ladder=after)

    @activity.defn(name="open_request")
    def open_request(self, asked: OpenInput) -> Opened:
        """Open the approval of a request that the job made while it runs; what it is, its session has recorded and will check again."""
        deps, job, now = self._deps, asked.job, self._deps.now()
        theirs(deps, job)
        view, order = deps.store.request(asked.request), deps.store.order(job)
        if view is None or order is None or view.job_id != job or view.state is not RequestState.PENDING or not view.tier:
            return Opened()
        _, _, _, signed = order
        tiers = deps.config.current().tiers
        ladder = Ladder(
            request=view.id,
            digest=view.digest,
            action=Action(view.action),
            requester=str(signed.statement.get("person")),
            needed=view.tier,
            current=max(view.tier, view.current_tier),
            # Opened already where the answer to an earlier attempt got lost.
            respond_by=view.expires_at or tiers.respond_by(view.tier, now=now),
            ttl=view.ttl,
            tools=view.tools,
        )
        deps.store.record([opened_event(job, ladder, tiers, at=now)])
        return Opened(ladder=ladder)

    @activity.defn(name="withdraw")
    def withdraw(self, asked: WithdrawInput) -> None:
        """Record that requests are no longer wanted."""
        theirs(self._deps, asked.job)
        now = self._deps.now()
        self._deps.store.record(
            event(EventType.ACCESS_WITHDRAWN, asked.job, at=now, about=request, request=request, why=asked.why)
            for request in asked.requests
            if job_of(request) == asked.job
        )

    @activity.defn(name="close")
    def close(self, closing: CloseInput) -> Closed:
        """Record how a job ended, with what the ledger could not take before. The first ending recorded stands and is returned.

        Raises NotLookedAt where such a proof cannot be looked at anew: a job that has ended shows its proof.
        """
        store = self._deps.store
        theirs(self._deps, closing.job, guard=True)
        self._end_claim(closing.job)
        ended = event(
            EventType.JOB_ENDED,
            closing.job,
            at=self._deps.now(),
            state=closing.state.value,
            exit_code=closing.exit_code,
            reason=closing.reason,
        )
        new = store.record([*self._believed(closing), ended])
        # Only where another ending was there already is there anything to read.
        job = None if any(entry.id == ended.id for entry in new) else store.job(closing.job)
        if job is None or not job.state.ended:
            return Closed(state=closing.state, exit_code=closing.exit_code, reason=closing.reason)
        return Closed(state=job.state, exit_code=job.exit_code, reason=job.reason)

    def _decided(self, order: JobInput, verified: VerifiedOrder) -> Iterator[tuple[DecidedRequest, Facts]]:
        for number, access, _, (decision, facts) in in_turn(self._deps, order.job, verified):
            request = DecidedRequest(
                id=request_id(order.job, number),
                number=number,
                resource=access.resource,
                action=access.action,
                ttl=access.ttl,
                optional=access.optional,
                decision=decision,
                digest=(digest := digest_for(self._deps, verified, access, bundle=order.bundle, tier=decision.tier)),
                ladder=self._ladder(order.job, number, access, decision, digest, requester=verified.person.id),
                locked=decision.outcome == "needs_approval" and self._is_locked(access),
            )
            yield request, facts

    def _is_locked(self, access: Access) -> bool:
        action = self._deps.config.current().catalog.action(access.resource, access.action)
        return action is not None and action.locked

    def _ladder(self, job: str, number: int, access: Access, decision: Decision, digest: str, *, requester: str) -> Ladder | None:
        if decision.outcome != "needs_approval":
            return None
        return Ladder(
            request=request_id(job, number),
            digest=digest,
            action=access.action,
            requester=requester,
            needed=decision.tier,
            current=decision.tier,
            respond_by=self._deps.config.current().tiers.respond_by(decision.tier, now=self._deps.now()),
            ttl=access.ttl,
            tools=access.tools,
        )

    def _facts(self, order: JobInput, verified: VerifiedOrder, decided: tuple[tuple[DecidedRequest, Facts], ...]) -> Iterator[Event]:
        now, current = self._deps.now(), self._deps.config.current()
        yield from ordered(self._deps, order, verified)
        for request, facts in decided:
            yield decided_event(order.job, request.id, request.decision, request.digest, facts=facts, phase="start", at=now)
            if request.ladder and not request.locked:
                yield opened_event(order.job, request.ladder, current.tiers, at=now)

    def _end_claim(self, job: str) -> None:
        """Whatever ended the job, nothing is issued under its id any more: a reset, or whoever has its order, comes too late."""
        claim = self._deps.store.claim_of(job)
        if claim is None or claim.open:
            self._deps.store.close_claim(job, self._deps.now())

    def _believed(self, closing: CloseInput) -> Iterator[Event]:
        """Yield what the ledger may take of events that came by way of Temporal: nothing but a revocation's, its proof after a fresh look."""
        carried = [item for item in closing.unrecorded if item.type in TRIES | PROOFS and is_well_formed(item, closing.job)]
        proven = any(item.type in PROOFS for item in carried) and self._is_dead(closing.job)
        yield from (item for item in carried if item.type in TRIES or proven)

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
        recorded = self._deps.store.request(ladder.request)
        if recorded is None:
            return False
        return recorded.state is RequestState.EXPIRED or recorded.current_tier == ladder.current + 1 > recorded.tier

    def _why_too_early(self, ladder: Ladder) -> str | None:
        recorded = self._deps.store.request(ladder.request)
        early = recorded is None or recorded.expires_at is None or recorded.expires_at > self._deps.now() + MAX_SKEW
        return "its tier still has time to answer" if early else None
