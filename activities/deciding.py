"""The quick steps of a job's workflow: decide its requests, examine answers, climb, close. Each records before it returns.

Every one may run twice: what it records carries ids made from what happened, so that the second time changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError
from temporalio import activity

from activities import revocation
from activities.asking import NotTheirs, refused, theirs
from activities.deps import Deps
from activities.entries import counted_event, decided_event, is_well_formed, ordered, rejected
from activities.past import past_of
from activities.verification import Refused, VerifiedOrder, verify_decision, verify_order
from justenough.access import Decision, Held, RequestState
from justenough.approval import Ladder
from justenough.catalog import problems_of, resolved_issue
from justenough.errors import NotFound
from justenough.events import Event, EventType, event
from justenough.facts import AccessContext, Facts, JobFacts, Phase
from justenough.ids import job_of, request_id
from justenough.messages import (
    AnswersInput,
    AnswersResult,
    ClimbInput,
    ClimbResult,
    Closed,
    CloseInput,
    Decided,
    DecidedRequest,
    JobInput,
    WithdrawInput,
)
from justenough.spec import Access
from justenough.statements import MAX_SKEW, Signed, request_digest

TRIES = frozenset({EventType.REVOCATION_STARTED, EventType.REVOCATION_OVERDUE, EventType.CREDENTIAL_REVOKED})
PROOFS = frozenset(
    {EventType.CREDENTIAL_ISSUED, EventType.REVOCATION_CONFIRMED, EventType.CREDENTIAL_CONFIRMED, EventType.CREDENTIAL_EXPIRED}
)
"""What a revocation may have had to leave unrecorded: that it was tried, and what was issued and seen to have worked."""


class Deciding:
    """What the workflow asks between two waits."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    @activity.defn
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

    @activity.defn
    def take_answers(self, received: AnswersInput) -> AnswersResult:
        """Examine signals in order; each is one ledger entry, whether it counts or not."""
        theirs(self._deps, received.job)
        ladders, verdicts, events = dict(received.ladders), dict.fromkeys(received.ladders, "pending"), []
        for offset, raw in enumerate(received.received):
            waiting = {request: ladder for request, ladder in ladders.items() if verdicts[request] == "pending"}
            counted = self._examined(received, waiting, raw)
            if isinstance(counted, Refused):
                events.append(self._rejected(received.job, raw, counted.why, about=f"signal-{received.number + offset}"))
                continue
            ladder = ladders[counted.request] = counted
            verdicts[ladder.request] = ladder.verdict(self._deps.config.current().tiers)
            events.append(counted_event(received.job, ladder, ladder.answers[-1], verdict=verdicts[ladder.request], at=self._deps.now()))
        self._deps.store.record(events)
        return AnswersResult(ladders=ladders, verdicts=verdicts)

    @activity.defn
    def climb(self, asked: ClimbInput) -> ClimbResult:
        """Move an unanswered request to the next tier; past the top it has expired."""
        now, tiers = self._deps.now(), self._deps.config.current().tiers
        before, job = asked.ladder, asked.job
        theirs(self._deps, job)
        after = before.climbed(tiers, now=now)
        if self._has_climbed(before):
            return ClimbResult(ladder=after)
        why = self._why_unknown(job, before) or self._why_too_early(before)
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

    @activity.defn
    def withdraw(self, asked: WithdrawInput) -> None:
        """Record that requests are no longer wanted."""
        theirs(self._deps, asked.job)
        now = self._deps.now()
        self._deps.store.record(
            event(EventType.ACCESS_WITHDRAWN, asked.job, at=now, about=request, request=request, why=asked.why)
            for request in asked.requests
            if job_of(request) == asked.job
        )

    @activity.defn
    def close(self, closing: CloseInput) -> Closed:
        """Record how a job ended, with what the ledger could not take before. The first ending recorded stands and is returned."""
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
        held = Held()
        for number, access in enumerate(verified.spec.access, start=1):
            decision, facts = answered(self._deps, order.job, verified, access, held=held, phase="start")
            resource = self._deps.config.current().catalog.resources[access.resource]
            if decision.outcome != "denied":
                # What comes later in the spec is decided as if this one had been issued: chaining rules hold in any order.
                held = held.issued(access.resource, access.action, resource.sensitivity)
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
            )
            yield request, facts

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
        )

    def _facts(self, order: JobInput, verified: VerifiedOrder, decided: tuple[tuple[DecidedRequest, Facts], ...]) -> Iterator[Event]:
        now, current = self._deps.now(), self._deps.config.current()
        yield from ordered(self._deps, order, verified)
        for request, facts in decided:
            yield decided_event(order.job, request.id, request.decision, request.digest, facts=facts, phase="start", at=now)
            if request.ladder:
                yield event(
                    EventType.APPROVAL_OPENED,
                    order.job,
                    at=now,
                    about=request.id,
                    request=request.id,
                    tier=request.ladder.current,
                    respond_by=request.ladder.respond_by.isoformat(),
                    quorum=current.tiers.tiers[request.ladder.current].quorum,
                )

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
            return revocation.prove(self._deps, job).dead
        except NotFound:
            return False

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

    def _why_unknown(self, job: str, ladder: Ladder) -> str | None:
        """Return why a ladder is not what the ledger says of a request: it came by way of Temporal too."""
        request, order = self._deps.store.request(ladder.request), self._deps.store.order(job)
        if request is None or order is None or request.job_id != job:
            return "no such request of this job has been recorded"
        _, _, _, signed = order
        recorded = {(item.approver_id, item.decision) for item in request.approvals}
        known = (request.digest, request.tier, request.current_tier, request.ttl, signed.statement.get("person"))
        claimed = (ladder.digest, ladder.needed, ladder.current, ladder.ttl, ladder.requester)
        if known != claimed or not {(item.person, item.decision) for item in ladder.answers} <= recorded:
            return "what it is an answer to is not what has been recorded of the request"
        return None

    def _examined(self, received: AnswersInput, waiting: dict[str, Ladder], raw: Any) -> Ladder | Refused:
        """Return the ladder that an answer moved, its last answer being this one, or why it moved none."""
        try:
            signed = Signed.model_validate(raw)
        except ValidationError:
            return Refused("not a {statement, signature}")
        request = signed.statement.get("request")
        ladder = waiting.get(request) if isinstance(request, str) else None
        if ladder is None:
            return Refused("it names no request of this job that waits for an answer")
        if why := self._why_unknown(received.job, received.ladders[ladder.request]):
            return Refused(why)
        answer = verify_decision(self._deps, received.job, ladder, signed, now=self._deps.now())
        if isinstance(answer, Refused):
            return answer
        moved = ladder.answered(answer)
        return Refused(moved) if isinstance(moved, str) else moved

    def _rejected(self, job: str, raw: Any, why: str, about: str) -> Event:
        statement = raw.get("statement") if isinstance(raw, dict) else None
        named = statement if isinstance(statement, dict) else {}
        return rejected(job, why, at=self._deps.now(), about=about, raw=raw, request=named.get("request"), person=named.get("person"))


def decide(deps: Deps, job: str, verified: VerifiedOrder, access: Access, *, held: Held, phase: Phase) -> Decision:
    """Return what policy says of one request now."""
    return answered(deps, job, verified, access, held=held, phase=phase)[0]


def answered(deps: Deps, job: str, verified: VerifiedOrder, access: Access, *, held: Held, phase: Phase) -> tuple[Decision, Facts]:
    """Return what policy says of one request now, and what it was asked."""
    current = deps.config.current()
    facts = JobFacts(id=job, spec=verified.spec, requester=verified.person.id, requester_groups=verified.person.groups)
    context = AccessContext(phase=phase, ttl_seconds=access.ttl, reason=access.reason, held=held)
    resource = current.catalog.resources[access.resource]
    decision = current.policies.decide(facts, access.resource, resource, access.action, context=context, top=current.tiers.top)
    return decision, Facts.of(facts, access.resource, resource, access.action, context)


def digest_for(deps: Deps, verified: VerifiedOrder, access: Access, *, bundle: str | None, tier: int) -> str:
    """Return the digest of exactly what will run and be issued for one request."""
    action = deps.config.current().catalog.resources[access.resource].actions[access.action]
    issue = resolved_issue(action, verified.spec.data_scope)
    return request_digest(verified.spec, access, bundle=bundle, issue_path=issue.path, issue_data=issue.data, tier=tier)
