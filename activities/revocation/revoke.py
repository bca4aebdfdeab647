"""The one revocation function, used by session, compensation, guard and sweep: ends all that a job holds, then looks whether it is dead.

Every step runs even if an earlier one failed; it waits for no ledger, and needs no memory of what was issued. Doing it again is fine.
It never sleeps: where an issue may still be in flight, it says when a second look is due and the caller calls again.

Over 400 lines: the effect, its alarm when it hangs, and the mapping from what was observed to ledger events.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import structlog

from activities.revocation.in_doubt import doubted_event, find_unconfirmed_issues
from activities.revocation.proof import (
    VALUE_STAYS,
    Inspection,
    accesses_of,
    credential_of,
    inspect,
    is_certificate_valid,
    prove,
    unprovable_reasons,
)
from justenough.adapters.store import StoredWrappingToken, StoreUnavailable
from justenough.adapters.targets.postgres import RequestedActions
from justenough.adapters.vault.control_groups import revoke_wrapping_token
from justenough.domain.core.base_model import Message
from justenough.domain.core.errors import JustEnoughError, NotFound
from justenough.domain.jobs.credentials import CredentialHandle
from justenough.domain.jobs.states import CredentialState, Revocable
from justenough.domain.ledger.events import Event, EventType, build_event
from justenough.domain.ledger.overdue import REVOCATION_GRACE, is_revocation_overdue, is_worth_recording
from justenough.domain.readmodel.views import CredentialView, JobView
from justenough.services.dependencies import Deps

__all__ = ["RevocationResult", "end_one", "live_credential_ids", "prove", "record_lapsed", "revoke", "revoke_one"]


STORE_TIMEOUT_S = 2.0
"""What the store may take from a revocation before it goes on without."""


MAX_CONCURRENT_LEASES = 32
"""A job has at most this many leases; each that hangs must not keep the others."""


DEAD_STATES = frozenset({CredentialState.CONFIRMED, CredentialState.EXPIRED})


T = TypeVar("T")


class RevocationResult(Message):
    """What one call came to. `confirmed`: everything that can be seen was looked at and found dead."""

    confirmed: bool
    second_look_in: timedelta | None = None
    """It looks clean, but what was in flight may still land: call again after this."""
    failures: tuple[str, ...] = ()
    events: tuple[Event, ...] = ()
    """What the ledger could not take; whoever called carries it until it is written."""


@dataclass(frozen=True, slots=True)
class _JobMemory:
    """What is known of a job: its credentials, and which targets it may have users or a space in (None: any)."""

    credentials: tuple[CredentialHandle, ...] = ()
    doubts: tuple[CredentialHandle, ...] = ()
    """Those of them that nobody had told of until now."""
    accesses: RequestedActions | None = None
    closed: bool = False
    """Whether the claim is closed: no session can issue any more."""
    unclaimed: bool = False
    """Whether no session ever had the right to issue: then nothing can be in flight."""
    locks: tuple[StoredWrappingToken, ...] = ()
    """What waited in Vault for people, and is kept no longer."""


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One call of `revoke`: of which course of attempts, whose, when it was over, since when it looked, how long it took."""

    course: str
    by: str
    at: datetime
    seen_from: datetime
    """When it began to look: a proof that is newer than this is not in doubt by what it saw."""
    took: timedelta


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
    """End everything of a job and look whether it is dead. Raises nothing: what failed is in the result.

    `settled`: nothing can be in flight (the session's own exit, after every issue was answered). `known`: all that the caller knows was
    issued and is not dead; a settled caller's word spares reading the store, and it is what is left where the store cannot be read.
    `spaces`: what of that, dead or alive, gave the job a space, which outlives it. `before`: events to record ahead of its own, in the same step.
    """
    started, began, steps = deps.now(), deps.ticks(), _Steps()
    # One revocation is one course of attempts: trying again records nothing twice, a later one has entries of its own.
    course = f"{by}-{deps.revocation_tracker.start_time(job, now=started):%Y%m%dT%H%M%S%f}"
    facts = [*before, build_event(EventType.REVOCATION_STARTED, job, at=started, about=course, by=by, why=why)]
    with alarm_if_slow(deps, job, facts, steps.failures, by=by, started=started):
        memory = steps.attempt(
            "the store", lambda: _close_claim_and_recall(deps, job, known, spaces, settled=settled, now=started), _JobMemory(known or ())
        )
        role_gone = steps.attempt("the job's token role", lambda: _returns_true(deps.vault.close_prefix, job), otherwise=False)
        _end_leases(deps, steps, memory.credentials)
        steps.attempt("the job's tokens", lambda: _returns_true(deps.vault.revoke_prefix, job), otherwise=False)
        _end_locks(deps, steps, memory.locks)
        seen_from = deps.now()
        looked = _end_in_targets(deps, job, memory, steps)

    at, settled = deps.now(), settled or memory.unclaimed
    unseen = tuple(unprovable_reasons(deps, memory.credentials, now=at))
    clean = role_gone and (memory.closed or settled) and not (looked.alive or looked.failures or unseen)
    wait = None if settled or not clean else deps.revocation_tracker.record_clean_check(job, started=began, ended=deps.ticks(), now=started)
    failures = () if clean else tuple(dict.fromkeys((*steps.failures, *looked.alive, *looked.failures, *unseen)))
    facts += [doubted_event(job, credential, at=at) for credential in memory.doubts]
    for credential in memory.credentials:
        facts += _credential_events(deps, job, credential, looked, by=by, at=at, landed=clean and wait is None)
    attempt = _Attempt(course, by, at, seen_from, took=timedelta(seconds=deps.ticks() - began))
    facts += _verdict_events(deps, job, attempt, looked=looked, failures=failures, confirmed=clean and wait is None)
    return RevocationResult(confirmed=clean and wait is None, second_look_in=wait, failures=failures, events=_try_record(deps, facts))


def live_credential_ids(view: JobView, request: str) -> tuple[str, ...]:
    """Return the ids of what was issued for one request of a job and is not known to be dead."""
    return tuple(item.id for item in view.credentials if item.request_id == request and item.state not in DEAD_STATES)


def revoke_one(deps: Deps, job: str, credential: str, *, by: str, why: str, before: tuple[Event, ...] = ()) -> RevocationResult:
    """End one credential while its job goes on. Raises NotFound, or RetryLater where the store cannot be read."""
    view = deps.store.credentials.get(credential)
    if view is None or view.job_id != job:
        message = f"no credential {credential} in job {job}"
        raise NotFound(message)
    others = tuple(credential_of(item) for item in deps.store.credentials.live_of(job) if item.id != credential)
    return end_one(deps, job, credential_of(view), others, by=by, why=why, before=before)


def end_one(
    deps: Deps, job: str, handle: CredentialHandle, others: Iterable[CredentialHandle], *, by: str, why: str, before: tuple[Event, ...] = ()
) -> RevocationResult:
    """End one credential whose handle is known, while its job goes on; `others` are those that its job holds beside it.

    Its token stays until the job ends: only the session ever had it.
    """
    now, began, credential = deps.now(), deps.ticks(), handle.id
    failures, how = _end_and_check(deps, job, handle, tuple(others))
    if failures:
        took = timedelta(seconds=deps.ticks() - began)
        late = list(before) + list(_overdue_events(deps, job, credential, by=by, took=took, failures=failures))
        return RevocationResult(confirmed=False, failures=failures, events=_try_record(deps, late))
    deps.revocation_tracker.forget(credential)
    # What has no lease cannot be revoked: saying so would be untrue.
    revoked = build_event(EventType.CREDENTIAL_REVOKED, job, at=now, about=credential, credential=credential, by=by, why=why)
    facts = [*before, *([revoked] if handle.lease_id is not None else ())]
    facts += _final_events(handle, job, at=deps.now(), how=how, searchable=False)
    return RevocationResult(confirmed=True, events=_try_record(deps, facts))


def _end_and_check(deps: Deps, job: str, handle: CredentialHandle, others: tuple[CredentialHandle, ...]) -> tuple[tuple[str, ...], str]:
    """End one credential by its lease; return why it is not shown to be dead, and else how it was seen."""
    if handle.lease_id is None:
        why = "it has no lease of its own: it ends with its job"
        return ((why,) if handle.revocable is Revocable.NOW else ()), ""
    lease, steps = handle.lease_id, _Steps()
    _end_leases(deps, steps, (handle,))
    if steps.attempt("its lease", lambda: deps.vault.is_lease_alive(lease), otherwise=True):
        return tuple(steps.failures) or ("its lease is still alive",), ""
    if steps.attempt("its certificate", lambda: is_certificate_valid(deps, handle), otherwise=True):
        return tuple(steps.failures) or ("its lease is gone, and its certificate is not in the CRL that Vault serves",), ""
    # A lease that was forced is unknown to Vault while its user lives on. Its job's space is to live on.
    looked = deps.targets.inspect(job, {(handle.resource, handle.action.value)})
    explained = sum(deps.targets.is_same_target(handle, other) for other in others)
    if looked.failures or len(looked.users) > explained:
        return looked.failures or (f"its lease is gone, and a user of the job is left in {', '.join(looked.inspected)}",), ""
    seen = f"; no user is left in {', '.join(looked.inspected)} that another credential does not explain" if looked.inspected else ""
    space = "; the job's space is there until the job ends" if deps.targets.gives_space(handle.resource, handle.action) else ""
    return (), f"its lease is unknown to Vault{_certificate_seen(handle, at=deps.now())}{seen}{space}"


def _overdue_events(deps: Deps, job: str, credential: str, *, by: str, took: timedelta, failures: tuple[str, ...]) -> Iterator[Event]:
    """Yield that one credential could not be ended: at once where a person waits for it, else as for a whole job."""
    now = deps.now()
    course, attempt = (
        deps.revocation_tracker.start_time(credential, now=now),
        deps.revocation_tracker.record_failed_attempt(credential, now=now),
    )
    if (by != "session" or is_revocation_overdue(failed=attempt, took=took)) and is_worth_recording(failed=attempt):
        about = f"{credential}/{course:%Y%m%dT%H%M%S%f}-{attempt}"
        told = {"credential": credential, "by": by, "failures": list(failures), "attempt": attempt}
        yield build_event(EventType.CREDENTIAL_OVERDUE, job, at=now, about=about, **told)


def record_lapsed(deps: Deps) -> tuple[Event, ...]:
    """Record the end of credentials that only time could end, and return what the ledger could not take."""
    now = deps.now()
    lapsed = [
        _expired_event(credential_of(view), view.job_id, at=now)
        for view in _live_credentials(deps)
        if view.revocable == Revocable.ON_EXPIRY and view.expires_at <= now
    ]
    return _try_record(deps, lapsed)


def _live_credentials(deps: Deps) -> Iterator[CredentialView]:
    page = deps.store.credentials.list(live=True)
    yield from page.items
    while page.next:
        page = deps.store.credentials.list(live=True, cursor=page.next)
        yield from page.items


class _Steps:
    """Runs each step whatever became of the others, and keeps one sentence for each that failed."""

    def __init__(self) -> None:
        self.failures: list[str] = []

    def attempt(self, what: str, call: Callable[[], T], otherwise: T) -> T:
        try:
            return call()
        except JustEnoughError as error:
            self.failures.append(f"{what}: {error}")
        except Exception as error:  # noqa: BLE001 - no failure of one step, of whatever kind, may keep the next one from running
            self.failures.append(f"{what}: {type(error).__name__}")
        return otherwise


def _close_claim_and_recall(
    deps: Deps, job: str, known: tuple[CredentialHandle, ...] | None, spaces: RequestedActions, *, settled: bool, now: datetime
) -> _JobMemory:
    """Close the claim, then return what is known of the job."""

    def ask() -> _JobMemory:
        # Before the token role goes: a session writes the role, reads its claim, and only then asks for a token.
        waiting = deps.store.claims.end_issuing(job, now)
        if settled and known is not None:
            asked = spaces | {(item.resource, item.action.value) for item in known}
            return _JobMemory(known, accesses=asked, closed=True, locks=waiting)
        claim, view = deps.store.claims.get(job), deps.store.jobs.get(job)
        unclaimed = claim is not None and claim.owner is None
        if view is None:
            return _JobMemory(known or (), closed=True, unclaimed=unclaimed, locks=waiting)
        told = {item.id: item for item in known or ()}
        doubts = tuple(item for item in find_unconfirmed_issues(deps, job) if item.id not in told)
        recorded = [credential_of(item) for item in view.credentials if item.state not in DEAD_STATES]
        credentials = {item.id: item for item in (*doubts, *recorded)} | told
        return _JobMemory(tuple(credentials.values()), doubts, accesses_of(view), closed=True, unclaimed=unclaimed, locks=waiting)

    return _with_store_timeout(ask)


def _end_leases(deps: Deps, steps: _Steps, credentials: tuple[CredentialHandle, ...]) -> None:
    leases = [item.lease_id for item in credentials if item.lease_id is not None]

    def end(lease: str) -> None:
        steps.attempt(f"lease {lease}", lambda: deps.vault.revoke_lease(lease), otherwise=None)

    if len(leases) == 1:
        end(leases[0])
    elif leases:
        with ThreadPoolExecutor(min(MAX_CONCURRENT_LEASES, len(leases))) as pool:
            list(pool.map(end, leases))


def _end_locks(deps: Deps, steps: _Steps, locks: tuple[StoredWrappingToken, ...]) -> None:
    """End what waited. Without the job's tokens, which are gone, it opens nothing any more: where this fails it ends by its time."""
    for lock in locks:
        steps.attempt(
            f"lock {lock.accessor}", partial(revoke_wrapping_token, deps.vault, lock.ciphertext, about=lock.request), otherwise=None
        )


def _end_in_targets(deps: Deps, job: str, memory: _JobMemory, steps: _Steps) -> Inspection:
    """Look; where users or spaces of the job are left in a target, end them there and look again."""
    looked = inspect(deps, job, memory.credentials, memory.accesses)
    if not (looked.users or looked.spaces):
        return looked
    steps.failures += deps.targets.end_all_of(job, memory.accesses).failures
    return inspect(deps, job, memory.credentials, memory.accesses)


def _credential_events(
    deps: Deps, job: str, credential: CredentialHandle, looked: Inspection, *, by: str, at: datetime, landed: bool
) -> Iterator[Event]:
    """Yield what became of one credential; nothing while its handles are not seen dead."""
    if not looked.is_dead(credential):
        return
    if credential.handles:
        yield build_event(EventType.CREDENTIAL_REVOKED, job, at=at, about=credential.id, credential=credential.id, by=by, why=None)
    searchable = deps.targets.is_searchable(credential.resource, credential.action)
    roomy = deps.targets.gives_space(credential.resource, credential.action)
    if roomy and looked.spaces:
        return
    if searchable and (looked.users or looked.target_failures or (credential.lease_id is None and not landed)):
        return
    handles = "its token is unknown to Vault" if credential.lease_id is None else "its lease and token are unknown to Vault"
    nothing = "no user and no space" if roomy else "no user"
    seen = f"; {nothing} of the job in {', '.join(looked.targets)}" if searchable and looked.targets else ""
    how = handles + _certificate_seen(credential, at=at) + seen
    yield from _final_events(credential, job, at=at, how=how, searchable=searchable)


def _certificate_seen(credential: CredentialHandle, *, at: datetime) -> str:
    if credential.certificate is None:
        return ""
    over = at >= credential.expires_at
    return f"; its certificate {credential.certificate} {'has ended by its time' if over else 'is in the CRL that Vault serves'}"


def _final_events(credential: CredentialHandle, job: str, *, at: datetime, how: str, searchable: bool) -> Iterator[Event]:
    """Yield the last event of a credential whose handles are dead: confirmed, or expired where only time or its owner could end it."""
    provable = credential.revocable is Revocable.NOW and (credential.lease_id is not None or searchable)
    if provable:
        yield build_event(EventType.CREDENTIAL_CONFIRMED, job, at=at, about=credential.id, credential=credential.id, how=how)
    elif credential.revocable is Revocable.NEVER or at >= credential.expires_at:
        yield _expired_event(credential, job, at=at)


def _expired_event(credential: CredentialHandle, job: str, *, at: datetime) -> Event:
    reasons = {
        Revocable.NEVER: f"it cannot be revoked: its token is dead, {VALUE_STAYS}",
        Revocable.ON_EXPIRY: "it could only end by its time, which is over",
        Revocable.NOW: "its lease was never known and its target cannot be searched; its time is over",
    }
    return build_event(
        EventType.CREDENTIAL_EXPIRED, job, at=at, about=credential.id, credential=credential.id, why=reasons[credential.revocable]
    )


def _verdict_events(
    deps: Deps, job: str, attempt: _Attempt, *, looked: Inspection, failures: tuple[str, ...], confirmed: bool
) -> Iterator[Event]:
    at, by = attempt.at, attempt.by
    if confirmed:
        deps.revocation_tracker.forget(job)
        proof: dict[str, Any] = {finding.what: finding.detail for finding in looked.findings}
        yield build_event(EventType.REVOCATION_CONFIRMED, job, at=at, about=attempt.course, by=by, proof=proof)
    elif failures:
        failed = deps.revocation_tracker.record_failed_attempt(job, now=at)
        if is_revocation_overdue(failed=failed, took=attempt.took) and is_worth_recording(failed=failed):
            about = f"{attempt.course}-{failed}"
            told = {"by": by, "failures": list(failures), "attempt": failed, "seen_from": attempt.seen_from.isoformat()}
            yield build_event(EventType.REVOCATION_OVERDUE, job, at=at, about=about, **told)


def _try_record(deps: Deps, facts: list[Event]) -> tuple[Event, ...]:
    """Record; return what could not be."""
    try:
        _with_store_timeout(lambda: deps.store.ledger.append(facts))
    except Exception:  # noqa: BLE001 - revocation never waits for the ledger; the caller carries the events on
        return tuple(facts)
    return ()


def _with_store_timeout(call: Callable[[], T]) -> T:
    """Return what the store answers in time; raise StoreUnavailable where it does not."""
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread
            answer.set_exception(error)

    threading.Thread(target=run, name="revocation-store", daemon=True).start()
    try:
        return answer.result(timeout=STORE_TIMEOUT_S)
    except TimeoutError as error:
        message = f"did not answer within {STORE_TIMEOUT_S:.0f} s"
        raise StoreUnavailable(message) from error


def _returns_true(call: Callable[[str], None], job: str) -> bool:
    call(job)
    return True


log = structlog.get_logger()


@contextmanager
def alarm_if_slow(deps: Deps, job: str, facts: Sequence[Event], failures: Sequence[str], *, by: str, started: datetime) -> Iterator[None]:
    """Record the beginning of a revocation (`facts`), and that it is overdue, where the block takes too long.

    `failures`: what has failed by then; may grow meanwhile. Waits for nothing: the block ends when it ends.
    """
    begun, so_far = tuple(facts), f"it has not come back for {REVOCATION_GRACE.total_seconds():.0f} s"

    def tell() -> None:
        # As of when it became slow: whatever the block saw at its end is newer, also where this is recorded late.
        about, slow = f"{begun[-1].id.rpartition('/')[2]}-slow", started + REVOCATION_GRACE
        told = {
            "by": by,
            "failures": [*failures, so_far],
            "attempt": deps.revocation_tracker.attempt_number(job, now=started),
            "seen_from": slow.isoformat(),
        }
        late = build_event(EventType.REVOCATION_OVERDUE, job, at=slow, about=about, **told)
        try:
            deps.store.ledger.append([*begun, late])
        except JustEnoughError as error:
            # The attempt's own events are carried on until they are written; this was only to be early.
            log.warning("revocation hangs", job=job, error=type(error).__name__)

    telling = threading.Timer(REVOCATION_GRACE.total_seconds(), tell)
    telling.daemon = True
    telling.start()
    try:
        yield
    finally:
        telling.cancel()
