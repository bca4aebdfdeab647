"""The one revocation function, used by session, compensation, guard and sweep: revokes everything that a job holds, then checks that it is dead.

Every step runs even if an earlier one failed. It does not wait for the ledger, and needs no memory of what was issued. Revoking twice is fine.
It never sleeps: if an issue may still be in flight, it returns when a second check is due, and the caller calls again.
`outcome` maps its observations to ledger events.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import structlog

from activities.revocation.in_doubt import doubted_event
from activities.revocation.job_memory import LONG_AGO, JobMemory, close_claim_and_read, with_doubts
from activities.revocation.outcome import (
    RevocationAttempt,
    TargetTraits,
    confirmed_event,
    credential_events,
    credential_overdue_events,
    describe_certificate,
    expired_event,
    overdue_event,
    overdue_events,
    single_credential_events,
)
from activities.revocation.proof import (
    Inspection,
    credential_of,
    doubts_about,
    inspect,
    is_certificate_valid,
    standing_doubts,
    why_unprovable,
    with_latest_ends,
)
from activities.revocation.steps import LATE_ANSWER_TIMEOUT_S, FailureCollector, StoreAnswer, map_at_once, try_record, with_store_timeout
from justenough.adapters.targets.inspector import RequestedActions
from justenough.adapters.vault.control_groups import revoke_wrapping_token
from justenough.domain.core.base_model import Message
from justenough.domain.core.errors import JustEnoughError, NotFound
from justenough.domain.jobs.credentials import CredentialHandle
from justenough.domain.jobs.states import Revocable
from justenough.domain.ledger.events import Event, EventType, build_event
from justenough.domain.ledger.overdue import REVOCATION_GRACE
from justenough.services.dependencies import Deps

log = structlog.get_logger()


class RevocationResult(Message):
    """Result of one call. `confirmed`: everything that can be checked was found dead."""

    confirmed: bool
    second_check_in: timedelta | None = None
    """Nothing is active now, but an issue may still be in flight: call again after this time."""
    failures: tuple[str, ...] = ()
    events: tuple[Event, ...] = ()
    """Events that the ledger could not record; the caller keeps them until they are recorded."""


@dataclass(frozen=True, slots=True)
class _Observation:
    """What an attempt found after it had revoked everything."""

    role_gone: bool
    """Whether the job's token role is gone, so that Vault creates no more tokens for the job."""
    inspection: Inspection
    seen_from: datetime
    """When the inspection began, but never before the newest proof that was read: what is alive now is newer than that, even if the clock of
    that proof's worker was ahead.
    """

    @property
    def is_dead(self) -> bool:
        """Whether nothing was found alive and each check had an answer. An issue may still be in flight."""
        return self.role_gone and not (self.inspection.alive or self.inspection.failures)


def revoke(
    deps: Deps,
    job: str,
    *,
    by: str,
    settled: bool,
    why: str,
    known: tuple[CredentialHandle, ...] | None = None,
    spaces: RequestedActions = frozenset(),
    before: tuple[Event, ...] = (),
) -> RevocationResult:
    """Revoke everything of a job, check whether it is dead, and return the result. Raises nothing: failures are in the result.

    `settled`: no issue can be in flight (a session's own exit, after every issue was answered). `known`: every credential that the caller knows
    and that is not dead; it replaces reading the store if the caller is settled, or if the store cannot be read.
    `spaces`: resource and action of every credential, dead or alive, that gave the job a space, because a space outlives its credential.
    `before`: events to record ahead of its own, in the same step.
    """
    started, began, steps, tracker = deps.now(), deps.ticks(), FailureCollector(), deps.revocation_tracker

    begin = partial(_begin, deps, job, by=by, why=why, now=started)
    *_, start = begin()
    with alarm_if_slow(deps, job, [*before, start], steps.failures, by=by, started=started):
        close_and_read = partial(close_claim_and_read, deps, job, known, spaces, settled=settled, now=started)
        memory, seen = _revoke_with_store(deps, job, close_and_read, without=JobMemory(known or ()), steps=steps)
    # A proof does not cover what came after its inspection.
    at, settled = deps.now(), settled or memory.unclaimed
    # Doubts have no handles by which to revoke them. Vault may hang, so they come last.
    memory = with_doubts(deps, memory)

    # If another worker has proven the job since this one's last attempt, this is a later revocation.
    tracker.record_proof(job, memory.proven_at, now=started)
    first_began, series, start = begin()
    dead_since = tracker.record_inspection(job, dead=seen.is_dead, now=at)
    doubts = doubts_about(deps, memory.credentials)
    unprovable = (*memory.unknown, *standing_doubts(doubts, now=at))
    clean = seen.is_dead and (memory.closed or settled) and not unprovable
    wait = None if settled or not clean else tracker.record_clean_check(job, started=began, ended=deps.ticks(), now=started)
    confirmed = clean and wait is None
    failures = () if clean else tuple(dict.fromkeys((*steps.failures, *seen.inspection.alive, *seen.inspection.failures, *unprovable)))
    attempt = RevocationAttempt(series, by, at, seen.seen_from, took=timedelta(seconds=deps.ticks() - began))
    facts = [*before, start, *(doubted_event(job, credential, at=at) for credential in memory.doubts)]
    for credential in with_latest_ends(memory.credentials, doubts):
        # Without the store, earlier attempts knew only the job's id; they looked for users with it in their names. A user that an issue in
        # flight created may have appeared after their check.
        was_seen = credential.user is not None and job in credential.user and credential.issued_at < first_began
        traits = TargetTraits(
            in_target=deps.targets.has_target(credential.resource, credential.action),
            gives_space=deps.targets.gives_space(credential.resource, credential.action),
            unprovable=credential.id in doubts,
            dead_since=dead_since if was_seen else None,
        )
        facts += credential_events(job, credential, seen.inspection, traits, by=by, at=at)
    if confirmed:
        tracker.forget(job)
        facts.append(confirmed_event(job, attempt, seen.inspection))
    elif failures:
        facts += overdue_events(job, attempt, failures=failures, failed=tracker.record_failed_attempt(job, now=at))
    unrecorded = _record_attempt(deps, job, facts, may_be_doubted=bool(memory.doubts) or (confirmed and memory.contested))
    return RevocationResult(confirmed=confirmed, second_check_in=wait, failures=failures, events=unrecorded)


def _begin(deps: Deps, job: str, *, by: str, why: str, now: datetime) -> tuple[datetime, str, Event]:
    """Return when a revocation's first attempt began, recorded or not; the name of its series of attempts, so that a retry records nothing
    twice; and its first event.
    """
    first_began = deps.revocation_tracker.start_time(job, now=now)
    series = f"{by}-{first_began:%Y%m%dT%H%M%S%f}"
    return first_began, series, build_event(EventType.REVOCATION_STARTED, job, at=first_began, about=series, by=by, why=why)


def _revoke_with_store(
    deps: Deps, job: str, read: Callable[[], JobMemory], *, without: JobMemory, steps: FailureCollector
) -> tuple[JobMemory, _Observation]:
    """Revoke with the store's knowledge of a job, then check. If the store does not answer in time, revoke with `without` instead, and again
    with the answer if that still comes: a slow store must neither delay a revocation nor keep it unconfirmed.
    """
    answer = StoreAnswer(read)
    memory = steps.attempt("the store", answer.get, without)
    seen = _revoke_and_inspect(deps, job, memory, steps)
    if memory is without:
        memory = FailureCollector().attempt("the store", lambda: answer.get(LATE_ANSWER_TIMEOUT_S), without)
        if memory is not without:
            steps.failures.clear()
            seen = _revoke_and_inspect(deps, job, memory, steps)
    return memory, seen


def _revoke_and_inspect(deps: Deps, job: str, memory: JobMemory, steps: FailureCollector) -> _Observation:
    """Revoke everything of a job in Vault and in its targets, then check whether it is dead."""
    role_gone = steps.succeeds("the job's token role", lambda: deps.vault.close_prefix(job))
    _revoke_leases(deps, steps, memory.credentials)
    steps.attempt("the job's tokens", lambda: deps.vault.revoke_prefix(job), otherwise=None)
    for lock in memory.locks:
        # The job's tokens are gone, so the wrapping token grants nothing any more. If revoking it fails, it expires.
        steps.attempt(f"lock {lock.accessor}", partial(revoke_wrapping_token, deps.vault, lock.ciphertext, about=lock.request), None)
    seen_from, inspection = max(deps.now(), memory.proven_at or LONG_AGO), inspect(deps, job, memory.credentials, memory.accesses)
    if inspection.users or inspection.empty_roles or inspection.spaces or inspection.target_failures:
        inspection = _end_remains(deps, job, memory, steps)
    return _Observation(role_gone, inspection, seen_from)


def _record_attempt(deps: Deps, job: str, facts: list[Event], *, may_be_doubted: bool) -> tuple[Event, ...]:
    """Record the events of an attempt, then the end of each doubt that a proof covers. Return the events that could not be recorded.

    A doubt begins while an issue is in flight. If Vault then refuses it, the session's exit proves that nothing is alive, and nobody would
    look at the doubt again. Whichever of the two is recorded last finds the other.
    """
    unrecorded = try_record(deps, facts)
    if not may_be_doubted:
        return unrecorded
    ended = FailureCollector().attempt("doubts", lambda: with_store_timeout(partial(_ends_of_doubts, deps, job)), list[Event]())
    return unrecorded + (try_record(deps, ended) if ended else ())


def _ends_of_doubts(deps: Deps, job: str) -> list[Event]:
    """Return the end of each doubt that is older than the proof of the job's revocation; none if there is no proof."""
    summary = next(iter(deps.store.jobs.by_ids([job])), None)
    proven_at = summary.revocation.confirmed_at if summary and summary.revocation.state.is_proven else None
    how = "Vault answered each request of its session, and issued no such credential"
    return [
        build_event(EventType.CREDENTIAL_CONFIRMED, job, at=deps.now(), about=item.id, credential=item.id, how=how)
        for item in (deps.store.credentials.live_of(job) if proven_at else ())
        if item.accessor is None and item.lease_id is None and proven_at and item.issued_at <= proven_at
    ]


def revoke_one(deps: Deps, job: str, credential: str, *, by: str, why: str) -> RevocationResult:
    """Revoke one credential while its job continues. Raises NotFound, or RetryLater if the store cannot be read."""
    view = with_store_timeout(lambda: deps.store.credentials.get(credential))
    if view is None or view.job_id != job:
        raise NotFound(f"no credential {credential} in job {job}")
    live = with_store_timeout(lambda: deps.store.credentials.live_of(job))
    others = tuple(credential_of(item) for item in live if item.id != credential)
    return revoke_by_handle(deps, job, credential_of(view), others, by=by, why=why)


def revoke_by_handle(
    deps: Deps, job: str, handle: CredentialHandle, others: Iterable[CredentialHandle], *, by: str, why: str, before: tuple[Event, ...] = ()
) -> RevocationResult:
    """Revoke one credential whose handle is known, while its job continues; `others`: the other credentials of the job.

    Its token lives until the job ends: only the session ever had it.
    """
    started, began, tracker = deps.now(), deps.ticks(), deps.revocation_tracker
    failures, how = _end_and_check(deps, job, handle, tuple(others))
    now = deps.now()
    if not failures:
        tracker.forget(handle.id)
        facts = [*before, *single_credential_events(job, handle, by=by, why=why, began=started, at=now, how=how)]
        return RevocationResult(confirmed=True, events=try_record(deps, facts))
    if handle.lease_id is not None and handle.user is not None:
        failures += deps.targets.find_locks([handle.user], {(handle.resource, handle.action.value)})
    overdue = credential_overdue_events(
        job,
        handle.id,
        by=by,
        at=now,
        started=tracker.start_time(handle.id, now=now),
        took=timedelta(seconds=deps.ticks() - began),
        failures=failures,
        failed=tracker.record_failed_attempt(handle.id, now=now),
    )
    return RevocationResult(confirmed=False, failures=failures, events=try_record(deps, [*before, *overdue]))


def _end_and_check(deps: Deps, job: str, handle: CredentialHandle, others: tuple[CredentialHandle, ...]) -> tuple[tuple[str, ...], str]:
    """Revoke one credential by its lease. Return why the credential may be alive (empty if it is dead), and the evidence that it is dead."""
    if handle.lease_id is None:
        why = "it has no lease, so it is revoked only when its job ends"
        return ((why,) if handle.revocable is Revocable.NOW else ()), ""
    lease, steps = handle.lease_id, FailureCollector()
    _revoke_leases(deps, steps, (handle,))
    checks: tuple[tuple[str, Callable[[], bool], str], ...] = (
        ("its lease", lambda: deps.vault.is_lease_alive(lease), "its lease is still alive"),
        (
            "its certificate",
            lambda: is_certificate_valid(deps, handle),
            "its lease is gone, but its certificate is not in the CRL that Vault serves",
        ),
    )
    for what, is_alive, why in checks:
        if steps.attempt(what, is_alive, otherwise=True):
            return tuple(steps.failures) or (why,), ""
    if handle.revocable is not Revocable.NOW:
        # Revoking its lease need not end its user, so the user proves nothing.
        return (), ""
    if unprovable := why_unprovable(deps, handle):
        return (unprovable,), ""
    # If a lease was force-revoked, Vault does not know it any more, but its user may still exist. The job's space must stay.
    traces = deps.targets.inspect(job, {(handle.resource, handle.action.value)}, names=[handle.user] if handle.user else ())
    # The users of other credentials remain. If every name is known, only this one's may not.
    explained = sum(deps.targets.is_same_target(handle, other) for other in others)
    lives = handle.user in {user.name for user in traces.users} if handle.user else len(traces.users) > explained
    if traces.failures or lives:
        return traces.failures or (f"its lease is gone, but a user of the job still exists in {', '.join(traces.inspected)}",), ""
    seen = f"; no user is left in {', '.join(traces.inspected)} except those of other credentials" if traces.inspected else ""
    space = "; the job's space remains until the job ends" if deps.targets.gives_space(handle.resource, handle.action) else ""
    return (), f"its lease is unknown to Vault{describe_certificate(handle, at=deps.now())}{seen}{space}"


def record_lapsed(deps: Deps) -> tuple[Event, ...]:
    """Record the end of credentials that could only expire, and return the events that the ledger could not record."""
    now, lapsed, cursor = deps.now(), list[Event](), None
    while True:
        page = deps.store.credentials.list(live=True, cursor=cursor)
        lapsed += [
            expired_event(view.job_id, credential_of(view), at=now)
            for view in page.items
            if view.revocable == Revocable.ON_EXPIRY and view.expires_at <= now
        ]
        cursor = page.next
        if not cursor:
            return try_record(deps, lapsed)


def _end_remains(deps: Deps, job: str, memory: JobMemory, steps: FailureCollector) -> Inspection:
    """Delete the job's users and spaces in the targets, check again, and collect why some are left: failures, and who holds locks on them."""
    ended = deps.targets.end_all_of(job, memory.accesses)
    steps.failures += ended.failures
    if not ended.failures:
        # What kept Vault from ending a user may be gone now. The inspection shows what this does not revoke.
        _revoke_leases(deps, FailureCollector(), memory.credentials)
    inspection = inspect(deps, job, memory.credentials, memory.accesses)
    if left := {trace.name for trace in (*inspection.users, *inspection.spaces)}:
        steps.failures += deps.targets.find_locks(left, memory.accesses)
    return inspection


def _revoke_leases(deps: Deps, steps: FailureCollector, credentials: tuple[CredentialHandle, ...]) -> None:
    leases = [item.lease_id for item in credentials if item.lease_id is not None]

    def revoke_lease(lease: str) -> None:
        steps.attempt(f"lease {lease}", lambda: deps.vault.revoke_lease(lease), otherwise=None)

    map_at_once(revoke_lease, leases)


@contextmanager
def alarm_if_slow(deps: Deps, job: str, facts: Sequence[Event], failures: Sequence[str], *, by: str, started: datetime) -> Iterator[None]:
    """Record the start of a revocation (`facts`) and that it is overdue, if the block takes longer than its grace.

    `failures` may grow while the block runs. The block never waits for this.
    """
    begun, hanging = tuple(facts), f"no result after {REVOCATION_GRACE.total_seconds():.0f} s"

    def record_slow() -> None:
        attempt = deps.revocation_tracker.attempt_number(job, now=started)
        series = begun[-1].id.rpartition("/")[2]
        # Dated to when it became slow: the attempt's findings are newer, even if this event is recorded after them.
        slow = started + REVOCATION_GRACE
        late = overdue_event(job, f"{series}-slow", by=by, at=slow, seen_from=slow, failures=(*failures, hanging), attempt=attempt)
        try:
            deps.store.ledger.append([*begun, late])
        except JustEnoughError as error:
            # Ignore the failure: the caller keeps the attempt's own events until they are recorded. This event would only have come earlier.
            log.warning("revocation hangs", job=job, error=type(error).__name__)

    timer = threading.Timer(REVOCATION_GRACE.total_seconds(), record_slow)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
