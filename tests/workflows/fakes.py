"""Everything behind the activities, in memory: what happens to each job in the test, what is alive of it, what its ledger says.

The fakes keep state and act on it (a session that lost its claim is cut, the first ending stands, an answer counts once), so that tests
ask what became of a job, not what was called.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import ValidationError
from temporalio import activity
from temporalio.exceptions import ApplicationError

from justenough.domain.approvals.ladder import ApprovalAnswer, Ladder
from justenough.domain.approvals.statements import MAX_CLOCK_SKEW, SignedStatement
from justenough.domain.approvals.tiers import Tier, Tiers
from justenough.domain.contracts.workflow_messages import (
    AnswersInput,
    AnswersResult,
    ClimbInput,
    ClimbResult,
    CloseInput,
    ControlGroupsInput,
    ControlGroupsResult,
    DecidedRequest,
    JobInput,
    JobResult,
    OpenInput,
    OpenResult,
    RevokeCredentialInput,
    RevokeInput,
    RevokeResult,
    ScheduleOccasion,
    SessionInput,
    SessionResult,
    SignedProofReport,
    SignedSweepReport,
    StartDecisions,
    WithdrawInput,
)
from justenough.domain.core.ids import request_number_of
from justenough.domain.core.rejection import Rejection
from justenough.domain.jobs.credentials import Decision
from justenough.domain.jobs.states import Action, JobState
from justenough.domain.ledger.events import Event, EventType, build_event
from tests.workflows.known_jobs import Known, Need
from tests.workflows.session_scripts import works

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


class Fakes:
    """The activities of every job that a test makes known."""

    def __init__(self, now: Callable[[], Awaitable[datetime]], tiers: Tiers = TIERS) -> None:
        self._now = now
        self.tiers = tiers
        self._known: dict[str, Known] = {}

    def know(self, known: Known) -> Known:
        """Answer for a job from now on."""
        self._known[known.job] = known
        return known

    def known_job(self, job: str) -> Known:
        """Return what is known of a job."""
        return self._known[job]

    @property
    def activities(self) -> Sequence[Callable[..., Any]]:
        """All of them, under the names of the real ones."""
        return [
            self.decide_requests,
            self.open_locks,
            self.take_answers,
            self.open_request,
            self.climb,
            self.withdraw,
            self.close,
            self.take_place,
            self.run_session,
            self.revoke_job,
            self.revoke_credential,
            self.prove_job,
            self.sweep,
            self.take_occasion,
        ]

    @activity.defn
    async def take_occasion(self, occasion: ScheduleOccasion) -> str:
        """Fail at first, as a console without its store does; of a schedule that nobody knows, for good."""
        if occasion.schedule == "unknown":
            raise ApplicationError("there is no such schedule", non_retryable=True)
        if activity.info().attempt == 1:
            raise ApplicationError("the store is away")
        return f"{occasion.schedule} at {occasion.at.isoformat()}"

    @activity.defn
    async def decide_requests(self, order: JobInput) -> StartDecisions:
        known = self.known_job(order.job)
        await known.attempt("decide_requests")
        if known.refused:
            await known.note("refused")
            return StartDecisions(refused=known.refused)
        decided = tuple([await self._decide(known, number, need) for number, need in enumerate(known.needs, start=1)])
        await known.note(*(f"{item.decision.outcome} {item.number}" for item in decided))
        return StartDecisions(requester="requester", timeout=known.timeout, environment="prod", requests=decided)

    async def _decide(self, known: Known, number: int, need: Need) -> DecidedRequest:
        outcome: Literal["allowed", "needs_approval", "denied"] = (
            "needs_approval" if need.tier else "denied" if need.tier is None else "allowed"
        )
        ladder = await self._ladder(known, number, need.tier) if need.tier else None
        return DecidedRequest(
            id=known.request(number),
            number=number,
            resource="orders-db",
            action=Action.WRITE if need.tier else Action.READ,
            ttl=300,
            optional=need.optional,
            decision=Decision(outcome=outcome, tier=need.tier or 0),
            digest=_digest(number),
            ladder=ladder,
            locked=need.locked,
        )

    async def _ladder(self, known: Known, number: int, tier: int) -> Ladder:
        now, request = await self._now() - known.ahead, known.request(number)
        known.deadlines[request] = now if known.late else self.tiers.respond_by(tier, now=now)
        return Ladder(
            request=request,
            digest=_digest(number),
            requester="requester",
            needed=tier,
            current=tier,
            respond_by=known.deadlines[request],
            ttl=300,
        )

    @activity.defn
    async def open_locks(self, locks_input: ControlGroupsInput) -> ControlGroupsResult:
        known = self.known_job(locks_input.order.job)
        await known.attempt("open_locks")
        numbers = ", ".join(request.rpartition("-")[2] for request in locks_input.ladders)
        await known.note(f"locks not opened: {known.unopened}" if known.unopened else f"locks opened {numbers}")
        return ControlGroupsResult(refused=known.unopened)

    @activity.defn
    async def open_request(self, open_input: OpenInput) -> OpenResult:
        known = self.known_job(open_input.job)
        await known.attempt("open_request")
        number = request_number_of(open_input.request)
        if number not in known.asked:
            return OpenResult()
        await known.note(f"opened {number}")
        return OpenResult(ladder=await self._ladder(known, number, known.asked[number]))

    @activity.defn
    async def take_answers(self, received: AnswersInput) -> AnswersResult:
        known = self.known_job(received.job)
        await known.attempt("take_answers")
        if any(isinstance(raw, dict) and raw.get("poison") for raw in received.received):
            raise ApplicationError("nobody thought of this", type="Refused", non_retryable=True)
        ladders, verdicts = dict(received.ladders), dict.fromkeys(received.ladders, "pending")
        for number, raw in enumerate(received.received, start=received.number):
            known.signals.append(number)
            if back := self._request_taken_back(raw, {**received.approved, **ladders}, verdicts):
                ladders[back], verdicts[back] = received.approved[back], "withdrawn"
                await known.note("taken back")
                continue
            moved = await self._examine(known, {name: ladders[name] for name in ladders if verdicts[name] == "pending"}, raw)
            if moved is None:
                await known.note("rejected")
                continue
            ladders[moved.request], verdicts[moved.request] = moved, moved.verdict(self.tiers)
            await known.note(f"{moved.answers[-1].decision} by {moved.answers[-1].name}")
        return AnswersResult(ladders=ladders, verdicts=verdicts)

    def _request_taken_back(self, raw: Any, ladders: dict[str, Ladder], verdicts: dict[str, str]) -> str | None:
        """Return the approved request that this takes back."""
        statement = raw.get("statement", {}) if isinstance(raw, dict) else {}
        request = statement.get("request") if isinstance(statement, dict) and statement.get("decision") == "withdraw" else None
        return request if request in ladders and request not in verdicts else None

    async def _examine(self, known: Known, waiting: dict[str, Ladder], raw: Any) -> Ladder | None:
        try:
            signed = SignedStatement.model_validate(raw)
            person, ladder = signed.statement["person"], waiting[signed.statement["request"]]
            assert signed.signature == f"of {person}"
            answer = ApprovalAnswer(
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
        moved = ladder.with_answer(answer)
        return None if isinstance(moved, Rejection) else moved

    @activity.defn
    async def climb(self, climb_input: ClimbInput) -> ClimbResult:
        known, before = self.known_job(climb_input.job), climb_input.ladder
        await known.attempt("climb")
        now = await self._now() - known.ahead
        if (left := known.deadlines[before.request] - now) > MAX_CLOCK_SKEW:
            await known.note("not due")
            return ClimbResult(ladder=before.model_copy(update={"respond_by": before.respond_by + left}))
        after = before.to_next_tier(self.tiers, now=now)
        if after:
            known.deadlines[before.request] = after.respond_by
        await known.note(f"climbed to {after.current}" if after else "expired")
        return ClimbResult(ladder=after, approved=after is not None and after.verdict(self.tiers) == "approved")

    @activity.defn
    async def withdraw(self, withdraw_input: WithdrawInput) -> None:
        known = self.known_job(withdraw_input.job)
        await known.attempt("withdraw")
        await known.note(*(f"withdrawn {request.rpartition('-')[2]}" for request in withdraw_input.requests))

    @activity.defn
    async def close(self, closing: CloseInput) -> JobResult:
        known = self.known_job(closing.job)
        await known.attempt("close")
        known.carried += [item.id for item in closing.unrecorded]
        if known.closed is None:
            known.closed = JobResult(state=closing.state, exit_code=closing.exit_code, reason=closing.reason)
            await known.note(f"closed {closing.state.value}")
        return known.closed

    @activity.defn
    async def take_place(self, order: JobInput) -> None:
        known = self.known_job(order.job)
        await known.attempt("take_place")
        known.lacks_place = False

    @activity.defn
    async def run_session(self, order: SessionInput) -> SessionResult:
        known = self.known_job(order.order.job)
        await known.attempt("run_session")
        if known.lacks_place:
            return SessionResult(outcome=JobState.FAILED, reason="no_place", no_place=True, clean=True)
        if known.claim != "none":
            return SessionResult(
                outcome=JobState.FAILED, reason="this job has already run or ended; a workflow reset does not run it again", clean=False
            )
        known.claim = "open"
        granted = ", ".join(str(item.number) for item in order.granted)
        await known.note(f"session with {granted or 'nothing'}")
        return await (known.session or works)(known)

    @activity.defn
    async def revoke_job(self, revoke_input: RevokeInput) -> RevokeResult:
        known = self.known_job(revoke_input.job)
        if revoke_input.by == "guard" and known.claim != "none" and not known.alive and known.closed:
            return RevokeResult(confirmed=True)
        # Whatever fails, no session may issue from here on.
        known.claim = "closed"
        await known.attempt("revoke_job")
        known.alive.clear()
        await known.note(f"revoked by {revoke_input.by}")
        return RevokeResult(
            confirmed=True, unrecorded=(await self._revocation_event(known, revoke_input.by),) if known.unrecordable else ()
        )

    @activity.defn
    async def revoke_credential(self, revoke_input: RevokeCredentialInput) -> RevokeResult:
        known = self.known_job(revoke_input.job)
        await known.attempt("revoke_credential")
        known.alive.discard(revoke_input.credential)
        await known.note(f"revoked {revoke_input.credential.rpartition('-')[2]}")
        return RevokeResult(confirmed=True, unrecorded=(await self._revocation_event(known, "credential"),) if known.unrecordable else ())

    async def _revocation_event(self, known: Known, by: str) -> Event:
        return build_event(EventType.REVOCATION_STARTED, known.job, at=await self._now(), about=by, by=by, why="a test")

    @activity.defn
    async def prove_job(self, job: str, nonce: str = "") -> SignedProofReport:
        del nonce
        return SignedProofReport(job=job, dead=not self.known_job(job).alive)

    @activity.defn
    async def sweep(self, nonce: str = "") -> SignedSweepReport:
        del nonce
        return SignedSweepReport(looked_at=len(self._known))


def _digest(number: int) -> str:
    return f"sha256:{number:064}"
