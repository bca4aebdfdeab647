"""Everything behind the activities, in memory: what each job was set up to meet, what is alive of it, what its ledger says.

They keep state and judge by it (a session that lost its claim is cut, the first ending stands, an answer counts once), so that tests
ask what became of a job, not what was called.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from pydantic import ValidationError
from temporalio import activity
from temporalio.exceptions import ApplicationError

from justenough.access import Action, Decision, JobState
from justenough.approval import Answer, Ladder, Tier, Tiers
from justenough.events import Event, EventType, event
from justenough.ids import credential_id, request_id
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
    ProofReport,
    RevokeCredentialInput,
    RevokeInput,
    RevokeResult,
    SessionInput,
    SessionResult,
    SweepReport,
    WithdrawInput,
)
from justenough.statements import Signed

TIERS = Tiers(
    tiers={
        1: Tier(name="owner", approvers=("support-leads",), respond_within=15 * 60),
        2: Tier(name="security", approvers=("security",), respond_within=3600),
        3: Tier(name="chief", approvers=("chiefs",), quorum=2, respond_within=4 * 3600),
    }
)
"""The shop's own tiers and times."""
PEOPLE = {"lead": 1, "security": 2, "chief": 3, "chief2": 3}
"""The highest tier that each answers for."""
BEAT = 0.02


@dataclass(frozen=True)
class Need:
    """One start request, and what policy says of it: the tier it needs (0: none), or None for denied."""

    tier: int | None = 0
    optional: bool = False


@dataclass
class Known:
    """One job: what it was set up to meet, and what became of it."""

    job: str
    needs: tuple[Need, ...] = (Need(),)
    session: Callable[[Known], Awaitable[SessionResult]] = field(default=lambda known: works(known))
    refused: str | None = None
    timeout: int = 900
    down: set[str] = field(default_factory=set)
    """Activities that cannot be done now, each named."""
    refusing: set[str] = field(default_factory=set)
    """Activities that refuse for good, or answer only once they are asked again."""
    unrecordable: bool = False
    """Whether the ledger takes nothing from revocations: their events must travel with the workflow."""
    ledger: list[str] = field(default_factory=list)
    tried: Counter[str] = field(default_factory=Counter)
    alive: set[str] = field(default_factory=set)
    """Credentials that work now."""
    claim: Literal["none", "open", "closed"] = "none"
    carried: list[str] = field(default_factory=list)
    """Ids of the events that were recorded with the end."""
    signals: list[int] = field(default_factory=list)
    """Numbers of the answers that were examined."""
    closed: Closed | None = None
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def request(self, number: int = 1) -> str:
        """Return the id of one of its requests."""
        return request_id(self.job, number)

    def answer(self, person: str, decision: str = "approve", number: int = 1) -> dict[str, Any]:
        """Return a signed answer as it travels."""
        return {"statement": {"request": self.request(number), "person": person, "decision": decision}, "signature": f"of {person}"}

    async def note(self, *entries: str) -> None:
        """Write to the ledger, and wake whoever waits for something to change."""
        async with self.changed:
            self.ledger += entries
            self.changed.notify_all()

    async def until(self, holds: Callable[[Known], bool]) -> None:
        """Return once something holds of this job."""
        async with self.changed:
            await self.changed.wait_for(lambda: holds(self))

    async def meets(self, name: str) -> None:
        """Count one try of an activity; raise where it cannot be done now."""
        self.tried[name] += 1
        await self.note()
        if name in self.refusing:
            raise ApplicationError("refused", type="Refused", non_retryable=True)
        if name in self.down:
            raise ApplicationError("does not answer", type="VaultUnavailable")


async def works(known: Known) -> SessionResult:
    """Issue, run, revoke, prove."""
    known.alive.add(credential_id(known.job, 1))
    await known.note("issued")
    known.alive.clear()
    await known.note("proven by session")
    return SessionResult(outcome=JobState.SUCCEEDED, exit_code=0, clean=True)


async def stays(known: Known) -> SessionResult:
    """Issue and run until told to stop or cut off; then revoke and prove."""
    known.alive.add(credential_id(known.job, 1))
    await known.note("issued")
    try:
        while known.claim == "open":
            activity.heartbeat()
            await asyncio.sleep(BEAT)
        outcome, why = JobState.FAILED, "access_cut"
    except asyncio.CancelledError:
        outcome, why = JobState.CANCELLED, "cancelled"
    known.alive.clear()
    await known.note("proven by session")
    return SessionResult(outcome=outcome, exit_code=143, reason=why, stopped=True, clean=True)


async def lingers(known: Known) -> SessionResult:
    """Hear of a cancel and let the process take its time, until its access is cut."""
    known.alive.add(credential_id(known.job, 1))
    await known.note("issued")
    while known.claim == "open":
        activity.heartbeat()
        try:
            await asyncio.sleep(BEAT)
        except asyncio.CancelledError:
            await known.note("asked to end")
    await known.note("proven by session")
    return SessionResult(outcome=JobState.CANCELLED, exit_code=137, stopped=True, clean=True)


async def vanishes(known: Known) -> SessionResult:
    """Issue, and die with the worker: no heartbeat, no answer, nothing revoked."""
    known.alive.add(credential_id(known.job, 1))
    await known.note("issued")
    await asyncio.Event().wait()
    raise AssertionError


async def breaks(known: Known) -> SessionResult:
    """Issue, and fail in a way that nobody thought of."""
    known.alive.add(credential_id(known.job, 1))
    await known.note("issued")
    raise ZeroDivisionError


async def refuses(known: Known) -> SessionResult:
    """Find that the order does not hold; issue nothing."""
    await known.note("session refused")
    return SessionResult(outcome=JobState.FAILED, reason="refused: the order has expired", clean=True)


async def leaves_something(known: Known) -> SessionResult:
    """End by itself, without having seen everything dead."""
    known.alive.add(credential_id(known.job, 1))
    await known.note("issued")
    return SessionResult(outcome=JobState.SUCCEEDED, exit_code=0, clean=False)


class Fakes:
    """The activities of every job that a test makes known."""

    def __init__(self, now: Callable[[], Awaitable[datetime]]) -> None:
        self._now = now
        self._known: dict[str, Known] = {}

    def know(self, known: Known) -> Known:
        """Answer for a job from now on."""
        self._known[known.job] = known
        return known

    def of(self, job: str) -> Known:
        """Return what is known of a job."""
        return self._known[job]

    @property
    def activities(self) -> Sequence[Callable[..., Any]]:
        """All of them, under the names of the real ones."""
        return [
            self.decide_requests,
            self.take_answers,
            self.climb,
            self.withdraw,
            self.close,
            self.run_session,
            self.revoke_job,
            self.revoke_credential,
            self.prove_job,
            self.sweep,
        ]

    @activity.defn
    async def decide_requests(self, order: JobInput) -> Decided:
        known = self.of(order.job)
        await known.meets("decide_requests")
        if known.refused:
            await known.note("refused")
            return Decided(refused=known.refused)
        decided = tuple([await self._decided(known, number, need) for number, need in enumerate(known.needs, start=1)])
        await known.note(*(f"{item.decision.outcome} {item.number}" for item in decided))
        return Decided(requester="requester", timeout=known.timeout, environment="prod", requests=decided)

    async def _decided(self, known: Known, number: int, need: Need) -> DecidedRequest:
        outcome: Literal["allowed", "needs_approval", "denied"] = "needs_approval" if need.tier else "denied" if need.tier is None else "allowed"
        digest, ladder = f"sha256:{number:064}", None
        if need.tier:
            respond_by = TIERS.respond_by(need.tier, now=await self._now())
            ladder = Ladder(
                request=known.request(number),
                digest=digest,
                requester="requester",
                needed=need.tier,
                current=need.tier,
                respond_by=respond_by,
                ttl=300,
            )
        return DecidedRequest(
            id=known.request(number),
            number=number,
            resource="orders-db",
            action=Action.WRITE if need.tier else Action.READ,
            ttl=300,
            optional=need.optional,
            decision=Decision(outcome=outcome, tier=need.tier or 0),
            digest=digest,
            ladder=ladder,
        )

    @activity.defn
    async def take_answers(self, received: AnswersInput) -> AnswersResult:
        known = self.of(received.job)
        await known.meets("take_answers")
        if any(isinstance(raw, dict) and raw.get("poison") for raw in received.received):
            raise ApplicationError("nobody thought of this", type="Refused", non_retryable=True)
        ladders, verdicts = dict(received.ladders), dict.fromkeys(received.ladders, "pending")
        for number, raw in enumerate(received.received, start=received.number):
            known.signals.append(number)
            moved = await self._examined(known, {name: ladders[name] for name in ladders if verdicts[name] == "pending"}, raw)
            if moved is None:
                await known.note("rejected")
                continue
            ladders[moved.request], verdicts[moved.request] = moved, moved.verdict(TIERS)
            await known.note(f"{moved.answers[-1].decision} by {moved.answers[-1].name}")
        return AnswersResult(ladders=ladders, verdicts=verdicts)

    async def _examined(self, known: Known, waiting: dict[str, Ladder], raw: Any) -> Ladder | None:
        try:
            signed = Signed.model_validate(raw)
            person, ladder = signed.statement["person"], waiting[signed.statement["request"]]
            assert signed.signature == f"of {person}"
            answer = Answer(
                person=person,
                name=person,
                tier=PEOPLE[person],
                decision=signed.statement["decision"],
                ttl=300,
                reason="a test",
                at=await self._now(),
                signed=signed,
            )
        except (ValidationError, KeyError, TypeError, AssertionError):
            return None
        moved = ladder.answered(answer)
        return None if isinstance(moved, str) else moved

    @activity.defn
    async def climb(self, asked: ClimbInput) -> ClimbResult:
        known = self.of(asked.job)
        await known.meets("climb")
        after = asked.ladder.climbed(TIERS, now=await self._now())
        await known.note(f"climbed to {after.current}" if after else "expired")
        return ClimbResult(ladder=after)

    @activity.defn
    async def withdraw(self, asked: WithdrawInput) -> None:
        known = self.of(asked.job)
        await known.meets("withdraw")
        await known.note(*(f"withdrawn {request.rpartition('-')[2]}" for request in asked.requests))

    @activity.defn
    async def close(self, closing: CloseInput) -> Closed:
        known = self.of(closing.job)
        await known.meets("close")
        known.carried += [item.id for item in closing.unrecorded]
        if known.closed is None:
            known.closed = Closed(state=closing.state, exit_code=closing.exit_code, reason=closing.reason)
            await known.note(f"closed {closing.state.value}")
        return known.closed

    @activity.defn
    async def run_session(self, order: SessionInput) -> SessionResult:
        known = self.of(order.order.job)
        await known.meets("run_session")
        if known.claim != "none":
            return SessionResult(outcome=JobState.FAILED, reason="this job ran already; a reset runs nothing again", clean=False)
        known.claim = "open"
        granted = ", ".join(str(item.number) for item in order.granted)
        await known.note(f"session with {granted or 'nothing'}")
        return await known.session(known)

    @activity.defn
    async def revoke_job(self, wanted: RevokeInput) -> RevokeResult:
        known = self.of(wanted.job)
        if wanted.by == "guard" and known.claim != "none" and not known.alive and known.closed:
            return RevokeResult(confirmed=True)
        # Whatever fails, no session may issue from here on.
        known.claim = "closed"
        await known.meets("revoke_job")
        known.alive.clear()
        await known.note(f"revoked by {wanted.by}")
        return RevokeResult(confirmed=True, unrecorded=(await self._unrecorded(known, wanted.by),) if known.unrecordable else ())

    @activity.defn
    async def revoke_credential(self, wanted: RevokeCredentialInput) -> RevokeResult:
        known = self.of(wanted.job)
        await known.meets("revoke_credential")
        known.alive.discard(wanted.credential)
        await known.note(f"revoked {wanted.credential.rpartition('-')[2]}")
        return RevokeResult(confirmed=True, unrecorded=(await self._unrecorded(known, "credential"),) if known.unrecordable else ())

    async def _unrecorded(self, known: Known, by: str) -> Event:
        return event(EventType.REVOCATION_STARTED, known.job, at=await self._now(), about=by, by=by, why="a test")

    @activity.defn
    async def prove_job(self, job: str) -> ProofReport:
        return ProofReport(job=job, dead=not self.of(job).alive)

    @activity.defn
    async def sweep(self) -> SweepReport:
        return SweepReport(looked_at=len(self._known))
