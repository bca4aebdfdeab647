"""The quick steps of a job's workflow: decide its requests, examine answers, climb, close. Each records before it returns.

Every one may run twice: what it records carries ids made from what happened, so that the second time changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError
from temporalio import activity

from activities.deps import Deps
from activities.verification import Refused, VerifiedOrder, verify_decision, verify_order
from justenough.access import Decision, Held
from justenough.approval import Ladder
from justenough.catalog import problems_of, resolved_issue
from justenough.events import UNATTRIBUTED, Event, EventType, event
from justenough.ids import installation_of, request_id
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
from justenough.facts import AccessContext, JobFacts, Phase
from justenough.spec import Access
from justenough.statements import Signed, digest_of, request_digest


class Deciding:
    """What the workflow asks between two waits."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    @activity.defn
    def decide_requests(self, order: JobInput) -> Decided:
        """Verify the order and decide each of its start requests; nothing is issued here."""
        deps, now = self._deps, self._deps.now()
        current = deps.config.current()
        verified = verify_order(deps, order, now=now)
        if isinstance(verified, VerifiedOrder):
            problems = problems_of(verified.spec, current.catalog)
            why = "; ".join(map(str, problems))
        else:
            why = verified.why
        if isinstance(verified, Refused) or why:
            deps.store.record([refused_order(order.job, why, at=now, workflow=order.job, run="")])
            return Decided(refused=why)
        decided = tuple(self._decided(order, verified))
        deps.store.record(self._facts(order, verified, decided))
        return Decided(
            requester=verified.person.id, timeout=verified.spec.run.timeout, environment=verified.spec.environment, requests=decided
        )

    @activity.defn
    def take_answers(self, received: AnswersInput) -> AnswersResult:
        """Examine signals in order; each is one ledger entry, whether it counts or not."""
        ladders, verdicts, events = dict(received.ladders), dict.fromkeys(received.ladders, "pending"), []
        for offset, raw in enumerate(received.received):
            waiting = {request: ladder for request, ladder in ladders.items() if verdicts[request] == "pending"}
            counted = self._examined(received.job, waiting, raw)
            if isinstance(counted, Refused):
                events.append(self._rejected(received.job, raw, counted.why, about=f"signal-{received.number + offset}"))
                continue
            ladder = ladders[counted.request] = counted
            verdicts[ladder.request] = ladder.verdict(self._deps.config.current().tiers)
            events.append(self._counted(received.job, ladder, verdict=verdicts[ladder.request]))
        self._deps.store.record(events)
        return AnswersResult(ladders=ladders, verdicts=verdicts)

    @activity.defn
    def climb(self, asked: ClimbInput) -> ClimbResult:
        """Move an unanswered request to the next tier; past the top it has expired."""
        now, tiers = self._deps.now(), self._deps.config.current().tiers
        before, job = asked.ladder, asked.job
        after = before.climbed(tiers, now=now)
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
        now = self._deps.now()
        self._deps.store.record(
            event(EventType.ACCESS_WITHDRAWN, asked.job, at=now, about=request, request=request, why=asked.why)
            for request in asked.requests
        )

    @activity.defn
    def close(self, closing: CloseInput) -> Closed:
        """Record how a job ended, with what the ledger could not take before. The first ending recorded stands and is returned."""
        store = self._deps.store
        ended = event(
            EventType.JOB_ENDED,
            closing.job,
            at=self._deps.now(),
            state=closing.state.value,
            exit_code=closing.exit_code,
            reason=closing.reason,
        )
        store.record([*closing.unrecorded, ended])
        job = store.job(closing.job)
        if job is None or not job.state.ended:
            return Closed(state=closing.state, exit_code=closing.exit_code, reason=closing.reason)
        return Closed(state=job.state, exit_code=job.exit_code, reason=job.reason)

    def _decided(self, order: JobInput, verified: VerifiedOrder) -> Iterator[DecidedRequest]:
        held = Held()
        for number, access in enumerate(verified.spec.access, start=1):
            decision = decide(self._deps, order.job, verified, access, held=held, phase="start")
            resource = self._deps.config.current().catalog.resources[access.resource]
            if decision.outcome != "denied":
                # What comes later in the spec is decided as if this one had been issued: chaining rules hold in any order.
                held = held.issued(access.resource, access.action, resource.sensitivity)
            yield DecidedRequest(
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

    def _facts(self, order: JobInput, verified: VerifiedOrder, decided: tuple[DecidedRequest, ...]) -> Iterator[Event]:
        now, current = self._deps.now(), self._deps.config.current()
        yield submitted(order, verified, at=verified.statement.issued_at)
        for request, access in zip(decided, verified.spec.access, strict=True):
            resource = current.catalog.resources[access.resource]
            yield event(
                EventType.ACCESS_REQUESTED,
                order.job,
                at=now,
                about=request.id,
                request=request.id,
                number=request.number,
                resource=access.resource,
                action=access.action.value,
                ttl=access.ttl,
                reason=access.reason,
                optional=access.optional,
                title=resource.title,
                sensitivity=resource.sensitivity.name.lower(),
                revocable=resource.actions[access.action].revocable.value,
            )
            yield decided_event(order.job, request.id, request.decision, request.digest, phase="start", at=now)
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

    def _examined(self, job: str, waiting: dict[str, Ladder], raw: Any) -> Ladder | Refused:
        """Return the ladder that an answer moved, its last answer being this one, or why it moved none."""
        try:
            signed = Signed.model_validate(raw)
        except ValidationError:
            return Refused("not a {statement, signature}")
        request = signed.statement.get("request")
        ladder = waiting.get(request) if isinstance(request, str) else None
        if ladder is None:
            return Refused("it names no request of this job that waits for an answer")
        answer = verify_decision(self._deps, job, ladder, signed, now=self._deps.now())
        if isinstance(answer, Refused):
            return answer
        moved = ladder.answered(answer)
        return Refused(moved) if isinstance(moved, str) else moved

    def _counted(self, job: str, ladder: Ladder, *, verdict: str) -> Event:
        answer = ladder.answers[-1]
        return event(
            EventType.APPROVAL_DECIDED,
            job,
            at=self._deps.now(),
            about=f"{ladder.request}/{answer.person}",
            request=ladder.request,
            person=answer.person,
            name=answer.name,
            tier=answer.tier,
            decision=answer.decision,
            reason=answer.reason,
            ttl=answer.ttl,
            signed=answer.signed.model_dump(mode="json"),
            verdict=verdict,
            granted_ttl=ladder.granted_ttl if verdict == "approved" else None,
        )

    def _rejected(self, job: str, raw: Any, why: str, about: str) -> Event:
        statement = raw.get("statement") if isinstance(raw, dict) else None
        named = statement if isinstance(statement, dict) else {}
        return rejected(job, why, at=self._deps.now(), about=about, raw=raw, request=named.get("request"), person=named.get("person"))


def decide(deps: Deps, job: str, verified: VerifiedOrder, access: Access, *, held: Held, phase: Phase) -> Decision:
    """Return what policy says of one request now."""
    current = deps.config.current()
    facts = JobFacts(id=job, spec=verified.spec, requester=verified.person.id, requester_groups=verified.person.groups)
    context = AccessContext(phase=phase, ttl_seconds=access.ttl, reason=access.reason, held=held)
    return current.policies.decide(
        facts, access.resource, current.catalog.resources[access.resource], access.action, context=context, top=current.tiers.top
    )


def digest_for(deps: Deps, verified: VerifiedOrder, access: Access, *, bundle: str | None, tier: int) -> str:
    """Return the digest of exactly what will run and be issued for one request."""
    action = deps.config.current().catalog.resources[access.resource].actions[access.action]
    issue = resolved_issue(action, verified.spec.data_scope)
    return request_digest(verified.spec, access, bundle=bundle, issue_path=issue.path, issue_data=issue.data, tier=tier)


def submitted(order: JobInput, verified: VerifiedOrder, *, at: Any) -> Event:
    """Return the event of an order that was taken; console and worker make the same one, so that it is recorded once."""
    spec = verified.spec
    return event(
        EventType.JOB_SUBMITTED,
        order.job,
        at=at,
        spec=order.spec,
        name=spec.name,
        task=spec.task,
        environment=spec.environment,
        agent=spec.agent.model_dump(mode="json") if spec.agent else None,
        data_scope=dict(spec.data_scope),
        labels=dict(spec.labels),
        params=order.params,
        bundle=order.bundle,
        reason=verified.statement.reason,
        requester=verified.person.id,
        requester_name=verified.person.name,
        order=order.order.model_dump(mode="json"),
    )


def decided_event(job: str, request: str, decision: Decision, digest: str, *, phase: str, at: Any) -> Event:
    """Return the event of one decision with its reasons."""
    return event(
        EventType.ACCESS_DECIDED,
        job,
        at=at,
        about=f"{request}/{phase}",
        request=request,
        phase=phase,
        outcome=decision.outcome,
        tier=decision.tier,
        policies=list(decision.policies),
        policy_digest=decision.policy_digest,
        digest=digest,
        errors=list(decision.errors),
    )


def rejected(job: str, why: str, *, at: Any, about: str, raw: Any, request: Any = None, person: Any = None) -> Event:
    """Return the event of an answer that does not count. What was received is kept as a digest: it is a stranger's text."""
    try:
        received = digest_of(raw)
    except (ValueError, RecursionError):
        received = None
    return event(
        EventType.APPROVAL_REJECTED,
        chain_of(job),
        at=at,
        about=about,
        request=request if isinstance(request, str) else None,
        why=why,
        person=person if isinstance(person, str) else None,
        received=received,
    )


def refused_order(job: str, why: str, *, at: Any, workflow: str, run: str) -> Event:
    """Return the event of a job that was refused: its order does not hold, or whoever asks is not its workflow."""
    return event(EventType.JOB_REFUSED, chain_of(job), at=at, about=run, why=why, workflow=workflow, run=run)


def chain_of(job: str) -> str:
    """Return the chain that an event about a job belongs to: its own, or the one for what names no job."""
    return job if installation_of(job) else UNATTRIBUTED
