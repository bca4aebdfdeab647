"""The quick steps of a job's workflow: decide its requests, open locks, examine answers, escalate, close. Each records before it returns.

Each may run twice: event ids are derived from what happened, so that the second run changes nothing. None is interrupted when it is
cancelled or takes too long (`no_thread_cancel_exception`): its thread may be writing for other jobs, too (`group_commit`).

Over 400 lines: all quick steps of one workflow are here, because each must accept what the others have recorded.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from temporalio import activity

from activities.revocation.proof import prove
from activities.support.caller_check import refused_event, require_job_workflow
from justenough.adapters.store import StoredWrappingToken
from justenough.adapters.vault import VaultDenied, VaultRefused, control_groups
from justenough.domain.approvals.ladder import Ladder
from justenough.domain.approvals.statements import MAX_CLOCK_SKEW
from justenough.domain.catalog.control_groups import control_group_of
from justenough.domain.catalog.loader import problems_in_spec, resolve_issue, scope_alias
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
    ProofReport,
    StartDecisions,
    WithdrawInput,
)
from justenough.domain.core.errors import GiveUp, NotFound, RetryLater
from justenough.domain.core.ids import job_of, request_id
from justenough.domain.core.rejection import Rejection
from justenough.domain.jobs.spec import Access
from justenough.domain.jobs.states import RequestState, RevocationState
from justenough.domain.ledger.events import Event, EventType, build_event
from justenough.services.approval_ladder import ladder_for_recorded_request, ladder_for_request
from justenough.services.control_group_votes import build_control_group_verifier
from justenough.services.count_answers import AnswerCounter, find_recorded_request, lapsed_answer_events
from justenough.services.dependencies import Deps
from justenough.services.evaluate_request import EvaluatedRequest, compute_request_digest, evaluate_in_order
from justenough.services.job_history import read_job_history
from justenough.services.ledger_events import (
    access_decided_event,
    approval_escalated_event,
    approval_opened_event,
    is_well_formed,
    order_events,
)
from justenough.services.verify_order import VerifiedOrder, verify_order

ATTEMPT_EVENTS = frozenset({EventType.REVOCATION_STARTED, EventType.REVOCATION_OVERDUE, EventType.CREDENTIAL_REVOKED})
PROOF_EVENTS = frozenset(
    {
        EventType.CREDENTIAL_ISSUED,
        EventType.REVOCATION_CONFIRMED,
        EventType.CREDENTIAL_CONFIRMED,
        EventType.CREDENTIAL_RESIDUAL,
        EventType.CREDENTIAL_EXPIRED,
    }
)
"""With ATTEMPT_EVENTS, all events that a revocation passes on if the ledger could not record them."""


class ProofNotChecked(RetryLater):
    """A proof cannot be checked because a server is unreachable."""


class NotOpened(GiveUp):
    """A locked request cannot be opened; the message gives the reason."""


class RequestLost(GiveUp):
    """The store has no request like the one that the workflow waits for."""


class NoPlaceLeft(RetryLater):
    """One person, trigger or schedule already has as many running jobs as allowed."""


class JobActivities:
    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    @activity.defn(name="decide_requests", no_thread_cancel_exception=True)
    def decide_requests(self, order: JobInput) -> StartDecisions:
        """Verify the order and decide each of its start requests; nothing is issued here."""
        deps, now = self._deps, self._deps.now()
        require_job_workflow(deps, order.job)
        verified, current = verify_order(deps, order, now=now), deps.config.current()
        if isinstance(verified, VerifiedOrder):
            past = read_job_history(deps.store.ledger, order.job)
            why = past.why_over if past.ended else "; ".join(map(str, problems_in_spec(verified.spec, current.catalog)))
        else:
            why = verified.message
        if isinstance(verified, Rejection) or why:
            deps.store.ledger.append([refused_event(order.job, why, at=now)])
            return StartDecisions(refused=why)
        events, requests = list(order_events(deps, order, verified)), list[DecidedRequest]()
        for evaluated in evaluate_in_order(deps, order.job, verified):
            request = self._decided_request(order, verified, evaluated)
            requests.append(request)
            events.append(
                access_decided_event(
                    order.job, request.id, request.decision, request.digest, facts=evaluated.facts, phase="start", at=self._deps.now()
                )
            )
            if request.ladder and not request.locked:
                events.append(approval_opened_event(order.job, request.ladder, current.tiers, at=self._deps.now()))
        new = {entry.id for entry in deps.store.ledger.append(events)}
        again = {event.id: event.data for event in events if event.type is EventType.ACCESS_DECIDED and event.id not in new}
        recorded = deps.store.ledger.with_ids(again) if again else ()
        if any(entry.data[field] != again[entry.id][field] for entry in recorded for field in ("outcome", "digest")):
            # Policy or the configuration changed since an earlier attempt, whose result got lost. People see what that one recorded.
            why = "another attempt to decide its requests, a moment ago, decided otherwise; launch the job again"
            deps.store.ledger.append([refused_event(order.job, why, at=now)])
            return StartDecisions(refused=why)
        person, launcher, spec = verified.person.id, verified.launcher, verified.spec
        return StartDecisions(
            requester=person, account=launcher, timeout=spec.run.timeout, environment=spec.environment, requests=tuple(requests)
        )

    @activity.defn(name="open_locks", no_thread_cancel_exception=True)
    def open_locks(self, locks_input: ControlGroupsInput) -> ControlGroupsResult:
        """Request each locked access in Vault, and only then open its approval. It then waits there for a control group's authorization.

        The wrapping token is stored encrypted, for the session only. A second attempt finds the token of the first. If an attempt died before
        it stored its token, that token is still under the job's prefix: it grants nothing without authorization, and is revoked with the job.
        """
        job = locks_input.order.job
        require_job_workflow(self._deps, job)
        verified = verify_order(self._deps, locks_input.order, now=self._deps.now())
        try:
            if isinstance(verified, Rejection):
                raise NotOpened(verified.message)
            for number, access in enumerate(verified.spec.access, start=1):
                ladder = locks_input.ladders.get(request_id(job, number))
                if ladder and not self._deps.store.wrapped_tokens.get(ladder.request):
                    self._open_lock(job, verified, access, ladder)
        except (NotOpened, VaultDenied, VaultRefused) as error:
            self._deps.store.ledger.append([refused_event(job, str(error), at=self._deps.now())])
            return ControlGroupsResult(refused=str(error))
        return ControlGroupsResult()

    @activity.defn(name="take_place", no_thread_cancel_exception=True)
    def take_place(self, order: JobInput) -> None:
        """Take a place for a job among the running jobs of its launcher. Raises NoPlaceLeft until one is free."""
        require_job_workflow(self._deps, order.job)
        verified, places = verify_order(self._deps, order, now=self._deps.now()), self._deps.settings.places
        if isinstance(verified, Rejection):
            # The session will refuse an order that is not valid any more.
            return
        claims, launcher = self._deps.store.claims, verified.launcher
        if self._deps.store.jobs.requesters([order.job]):
            has_place = claims.take_place(order.job, launcher=launcher, places=places)
        else:
            # A job that is not recorded never ends, and would keep its place. Its session records it, and then takes a place.
            has_place = claims.may_take_place(order.job, launcher=launcher, places=places)
        if not has_place:
            raise NoPlaceLeft(f"{places} jobs of this launcher are already running; the job starts once one of them has ended")

    @activity.defn(name="take_answers", no_thread_cancel_exception=True)
    def take_answers(self, answers_input: AnswersInput) -> AnswersResult:
        """Examine signals in order; each becomes one ledger entry, whether it counts or not."""
        require_job_workflow(self._deps, answers_input.job)
        counting = AnswerCounter(self._deps, answers_input)
        for offset, raw in enumerate(answers_input.received):
            counting.count_signal(raw, number=answers_input.number + offset)
        self._deps.store.ledger.append(counting.events)
        return counting.result()

    @activity.defn(name="climb", no_thread_cancel_exception=True)
    def climb(self, climb_input: ClimbInput) -> ClimbResult:
        """Escalate an unanswered request to the next tier; past the top tier it expires. If it is not due yet, return it with the time left."""
        now, tiers, store = self._deps.now(), self._deps.config.current().tiers, self._deps.store
        before, job = climb_input.ladder, climb_input.job
        require_job_workflow(self._deps, job)
        after = before.to_next_tier(tiers, now=now)
        view = store.requests.get(before.request)
        # An earlier attempt may have recorded this step; its result got lost, and the workflow called again.
        if view and view.state is RequestState.EXPIRED:
            return ClimbResult(ladder=None)
        if view and view.current_tier == before.current + 1 > view.tier:
            kept = after and after.model_copy(update={"respond_by": view.expires_at or after.respond_by})
            return ClimbResult(ladder=kept, approved=view.state is RequestState.APPROVED)
        if view is None and not before.answers and (again := self._record_again(job, before, now=now)):
            return ClimbResult(ladder=again)
        recorded = find_recorded_request(self._deps, job, before)
        if isinstance(recorded, Rejection) or recorded.expires_at is None:
            why = recorded.message if isinstance(recorded, Rejection) else "nobody has been asked to decide the request"
            store.ledger.append([refused_event(job, why, at=now)])
            raise RequestLost(why)
        if (left := recorded.expires_at - self._deps.now()) > MAX_CLOCK_SKEW:
            # Either this is a stranger's workflow, or Temporal's clock is ahead. Meanwhile the workflow goes on counting answers.
            why = "the time that its tier has to decide has not passed yet by this worker's clock"
            store.ledger.append([refused_event(job, why, at=now)])
            return ClimbResult(ladder=before.model_copy(update={"respond_by": before.respond_by + left}))
        if after is None:
            expired = build_event(
                EventType.APPROVAL_EXPIRED, job, at=now, about=before.request, request=before.request, tier=before.current
            )
            store.ledger.append([expired])
            return ClimbResult(ladder=None)
        # The workflow does not learn of a withdrawal without a signature.
        after = counting = after.with_barred(forebears=after.forebears, taken_back=recorded.withdrawers)
        facts: list[Event] = []
        if after.verdict(tiers) == "approved":
            lapsed = build_control_group_verifier(self._deps, now=now).lapsed_answers(job, after)
            counting, facts = after.without(answer for answer, _ in lapsed), [*lapsed_answer_events(job, after, lapsed, at=now)]
        # The escalation comes first: an entry that approves the request marks all of its approvals as counting.
        store.ledger.append([approval_escalated_event(job, counting, tiers, at=now), *facts])
        is_approved = counting.verdict(tiers) == "approved"
        # If the request is not approved, keep the lapsed answers: they count again if their people get their right back.
        return ClimbResult(ladder=counting if is_approved else after, approved=is_approved)

    @activity.defn(name="open_request", no_thread_cancel_exception=True)
    def open_request(self, open_input: OpenInput) -> OpenResult:
        """Open the approval of a request that the running job made. Its session has recorded the request and will verify it again."""
        deps, job, now = self._deps, open_input.job, self._deps.now()
        require_job_workflow(deps, job)
        view, order = deps.store.requests.get(open_input.request), deps.store.jobs.order(job)
        if view is None or order is None or view.job_id != job or view.state is not RequestState.PENDING or not view.tier:
            return OpenResult()
        tiers = deps.config.current().tiers
        if view.tier not in tiers.tiers:
            # It has left the configuration since the session decided. Like a request past the top tier, this one expires.
            expired = build_event(EventType.APPROVAL_EXPIRED, job, at=now, about=view.id, request=view.id, tier=view.tier)
            deps.store.ledger.append([expired])
            return OpenResult()
        ladder = ladder_for_recorded_request(
            view,
            requester=str(order.order.statement.get("person")),
            # The request has a deadline already if the result of an earlier attempt got lost.
            respond_by=view.expires_at or tiers.respond_by(view.tier, now=now),
        )
        deps.store.ledger.append([approval_opened_event(job, ladder, tiers, at=now)])
        return OpenResult(ladder=ladder)

    @activity.defn(name="withdraw", no_thread_cancel_exception=True)
    def withdraw_requests(self, withdraw_input: WithdrawInput) -> None:
        """Record that a job has withdrawn requests that waited for people. Withdrawals of approvals are answers: see `take_answers`."""
        require_job_workflow(self._deps, withdraw_input.job)
        now = self._deps.now()
        self._deps.store.ledger.append(
            build_event(EventType.ACCESS_WITHDRAWN, withdraw_input.job, at=now, about=request, request=request, why=withdraw_input.why)
            for request in withdraw_input.requests
            if job_of(request) == withdraw_input.job
        )

    @activity.defn(name="close", no_thread_cancel_exception=True)
    def close(self, close_input: CloseInput) -> JobResult:
        """Record how a job ended, with the events that the ledger could not record before. Return the first ending that was recorded.

        If no worker has revoked the job's access, the sweep will. Raises ProofNotChecked if such events contain a proof that cannot be checked
        now.
        """
        store = self._deps.store
        require_job_workflow(self._deps, close_input.job, guard=True)
        claim = store.claims.get(close_input.job)
        if claim is None or claim.open:
            # However the job ended, no more credentials may be issued under its id, even after a reset or to somebody who has its order.
            store.claims.close(close_input.job, self._deps.now())
        ended = build_event(
            EventType.JOB_ENDED,
            close_input.job,
            at=self._deps.now(),
            state=close_input.state.value,
            exit_code=close_input.exit_code,
            reason=close_input.reason,
        )
        new = store.ledger.append([*self._believable_events(close_input), ended])
        if claim and claim.owner and claim.attempted_at is None:
            # A session could issue, and no worker has begun to revoke. The process that took the task may have answered, falsely, that all is dead.
            unrevoked = store.jobs.get(close_input.job)
            if unrevoked and unrevoked.revocation.state is RevocationState.NONE:
                why = "the job ended, and no worker has revoked its access"
                event = build_event(EventType.REVOCATION_STARTED, close_input.job, at=self._deps.now(), about="close", by="close", why=why)
                store.ledger.append([event])
        # If this ending is not among the new entries, another ending was recorded before.
        job = None if any(entry.id == ended.id for entry in new) else store.jobs.get(close_input.job)
        if job is None or not job.state.ended:
            return JobResult(state=close_input.state, exit_code=close_input.exit_code, reason=close_input.reason)
        return JobResult(state=job.state, exit_code=job.exit_code, reason=job.reason)

    def _decided_request(self, order: JobInput, verified: VerifiedOrder, evaluated: EvaluatedRequest) -> DecidedRequest:
        """Return a decided request, with its ladder if people must approve it."""
        access, decision, current = evaluated.access, evaluated.decision, self._deps.config.current()
        request, definition = request_id(order.job, evaluated.number), current.catalog.action(access.resource, access.action)
        digest = compute_request_digest(self._deps, verified, access, bundle=order.bundle, tier=decision.tier)
        ladder: Ladder | None = None
        if decision.outcome == "needs_approval":
            ladder = ladder_for_request(
                request,
                access,
                digest=digest,
                requester=verified.person.id,
                needed=decision.tier,
                current=decision.tier,
                respond_by=current.tiers.respond_by(decision.tier, now=self._deps.now()),
            )
        return DecidedRequest(
            id=request,
            number=evaluated.number,
            resource=access.resource,
            action=access.action,
            ttl=access.ttl,
            optional=access.optional,
            decision=decision,
            digest=digest,
            ladder=ladder,
            locked=ladder is not None and definition is not None and definition.locked,
        )

    def _record_again(self, job: str, lost: Ladder, *, now: datetime) -> Ladder | None:
        """Record a waiting job's request that a failover of the store lost, under the same id. Return its ladder; None if that is not possible.

        Its tier gets its whole time again. Answers that were lost with it would keep others from counting, so only call this if there were none.
        """
        order, waiting = self._deps.store.jobs.order(job), self._deps.store.jobs.get(job)
        if order is None or waiting is None or waiting.started_at:
            return None
        decided = (item for item in self.decide_requests(order).requests if item.id == lost.request and not item.locked)
        again = next((item.ladder for item in decided if item.digest == lost.digest), None)
        if again is None:
            return None
        # At the same tier, the workflow measures the new time from its own deadline, which has passed.
        late = now - lost.respond_by if again.current == lost.current else timedelta()
        return again.model_copy(update={"respond_by": again.respond_by - late, "taken_back": lost.taken_back})

    def _open_lock(self, job: str, verified: VerifiedOrder, access: Access, ladder: Ladder) -> None:
        deps, current = self._deps, self._deps.config.current()
        action = current.catalog.action(access.resource, access.action)
        if action is None:
            raise NotOpened(f"the catalog no longer offers {access.action} on {access.resource}; launch the job again")
        lock, scope = control_group_of(action, current.tiers), verified.spec.data_scope
        # The ladder came through Temporal: it must match the request in the ledger.
        view = deps.store.requests.get(ladder.request)
        recorded = view and (view.job_id, view.digest, view.tier, view.current_tier, view.action)
        if lock is None or recorded != (job, ladder.digest, ladder.needed, ladder.current, ladder.action):
            raise NotOpened(f"{access.action} on {access.resource}: the request differs from the recorded one; launch the job again")
        if ladder.current not in current.tiers.tiers:
            raise NotOpened(
                f"{access.action} on {access.resource}: approvals.yaml has no tier {ladder.current} any more; launch the job again"
            )
        ttl = lock.token_ttl(action)
        deps.vault.open_prefix(job, ttl)
        token = deps.vault.create_token(job, policy=action.policy, alias=scope_alias(action, scope), ttl=ttl)
        wrapped = control_groups.request_issue(deps.vault, token, resolve_issue(action, scope))
        kept = StoredWrappingToken(
            request=ladder.request,
            job=job,
            accessor=wrapped.accessor,
            token_accessor=token.accessor,
            ciphertext=control_groups.encrypt(deps.vault, wrapped.secret, about=ladder.request),
        )
        now = deps.now()
        locked = build_event(
            EventType.LOCK_OPENED,
            job,
            at=now,
            about=ladder.request,
            request=ladder.request,
            accessor=wrapped.accessor,
            expires_at=wrapped.expires.isoformat(),
            groups=list(lock.groups),
            approvals=lock.approvals,
        )
        latest = min(ladder.respond_by, current.tiers.respond_by(ladder.current, now=now))
        opened = approval_opened_event(job, ladder.model_copy(update={"respond_by": latest}), current.tiers, at=now)
        if not deps.store.wrapped_tokens.keep(kept, (locked, opened)):
            # Another attempt was faster, or the job is over.
            for secret in (wrapped.secret, token.secret):
                control_groups.revoke_token(deps.vault, secret)

    def _believable_events(self, close_input: CloseInput) -> list[Event]:
        """Return those events that came through Temporal and may be recorded: events of a revocation; a proof only if a new check agrees
        with it.

        Anybody who can write to Temporal may have written them, so their evidence is replaced by this check's evidence.
        """
        allowed = ATTEMPT_EVENTS | PROOF_EVENTS
        carried = [item for item in close_input.unrecorded if item.type in allowed and is_well_formed(item, close_input.job)]
        attempts = [item for item in carried if item.type in ATTEMPT_EVENTS]
        if len(attempts) == len(carried):
            return attempts
        try:
            report = prove(self._deps, close_input.job)
        except NotFound:
            return attempts
        if report.failures and not any(finding.alive and not finding.residual for finding in report.findings):
            raise ProofNotChecked(f"the proof that the job's access has ended cannot be checked now: {'; '.join(report.failures)}")
        return [_with_evidence_of(report, item) for item in carried] if report.revoked else attempts


def _with_evidence_of(report: ProofReport, event: Event) -> Event:
    """Return the event; if it has evidence, replace that by the evidence of a new check."""
    dead = {finding.what: finding for finding in report.findings if not finding.alive}
    match event.type:
        case EventType.REVOCATION_CONFIRMED:
            evidence: dict[str, Any] = {"proof": {what: finding.detail for what, finding in dead.items()}}
        case EventType.CREDENTIAL_CONFIRMED:
            its = (finding for finding in dead.values() if finding.credential in {None, event.data["credential"]})
            evidence = {"how": "; ".join(f"{finding.what}: {finding.detail}" for finding in its)}
        case _:
            return event
    return event.model_copy(update={"data": event.data | evidence})
