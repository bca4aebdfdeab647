"""Revocation from outside the session: revoke a job from any worker, revoke one credential, check whether anything is alive."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from temporalio import activity

from activities.revocation import revoke
from activities.revocation.proof import has_standing_proof, prove
from activities.revocation.steps import with_store_timeout
from activities.support.async_tools import run_despite_cancel, send_heartbeats
from activities.support.caller_check import why_not_job_workflow
from justenough.adapters.vault import VaultUnavailable
from justenough.domain.contracts.workflow_messages import RevokeCredentialInput, RevokeInput, RevokeResult, SignedProofReport
from justenough.domain.core.errors import GiveUp, RetryLater
from justenough.domain.core.ids import REQUEST_ID, installation_of
from justenough.services.dependencies import Deps
from justenough.services.signed_reports import sign_report

ATTEMPT_TIMEOUT_S = 540.0
"""Seconds that one attempt of the activity keeps trying; then the workflow's retry takes over, on any worker."""
HANDOVER_S = 5.0
"""The same limit while the attempt finds access alive, or gets no answer: another worker may reach what this one does not. It doubles with
each attempt of the activity, because most outages affect all workers.
"""
NO_VAULT = "this worker does not reach Vault; its log says why"
"""Without this refusal, the attempt would hang, and another worker may reach Vault."""
RETRY_INTERVAL_S = 1.0
MAX_RETRY_INTERVAL_S = 10.0
MAX_CONCURRENT_REVOCATIONS = 16
REVOCATION_POOL = ThreadPoolExecutor(MAX_CONCURRENT_REVOCATIONS, thread_name_prefix="revoking")
"""Threads for calls to Vault and targets. A revocation uses none while it waits for its next attempt, so many revocations can run at once."""

T = TypeVar("T")


class NotConfirmed(RetryLater):
    """Some access of a job may still be alive; its revocation continues."""


class ForeignJob(GiveUp):
    """The job to revoke belongs to another installation."""


class RevocationActivities:
    """Revokes access even if it was never recorded: finds it by the job's prefix in Vault and the job's id in the targets."""

    def __init__(self, deps: Deps, *, reaches_vault: Callable[[], bool]) -> None:
        """`reaches_vault`: whether this worker reached Vault in its latest check."""
        self._deps = deps
        self._reaches_vault = reaches_vault

    @activity.defn(name="revoke_job")
    async def revoke_job(self, revoke_input: RevokeInput) -> RevokeResult:
        """Revoke everything of a job until it is found dead, or for `attempts` attempts."""
        self._require_own_job(revoke_input.job)
        if not self._reaches_vault():
            # From here on no session may issue, whichever worker revokes later. A store that does not answer must not change the refusal.
            close_claim = partial(self._deps.store.claims.close, revoke_input.job, self._deps.now())
            with suppress(Exception):
                await asyncio.to_thread(with_store_timeout, close_claim)
            raise VaultUnavailable(NO_VAULT)

        async def revoke_until_dead() -> RevokeResult:
            started, attempt, pause, job = time.monotonic(), 0, RETRY_INTERVAL_S, revoke_input.job
            patience = min(HANDOVER_S * 2 ** min(activity.info().attempt - 1, 8), ATTEMPT_TIMEOUT_S)
            # Not settled: only a session knows that no issue is in flight, and anybody can send this argument.
            revoke_once = partial(revoke.revoke, self._deps, job, by=_revoker(job, revoke_input.by), why=revoke_input.why, settled=False)
            while True:
                attempt += 1
                # If the session or another revocation has recorded its proof, another attempt would put the job in doubt again.
                # A person's kill revokes in any case: the job may still run, and nothing more may be issued.
                if revoke_input.by != "person" and await _run_in_pool(has_standing_proof, self._deps, job):
                    return RevokeResult(confirmed=True)
                if activity.info().attempt > 1:
                    self._deps.revocation_tracker.record_earlier_failure(job, now=self._deps.now())
                result = await _run_in_pool(revoke_once)
                if result.confirmed or attempt == revoke_input.attempts:
                    return RevokeResult(confirmed=result.confirmed, failures=result.failures, unrecorded=result.events)
                # Stay if only this worker can make the second check, if events would be lost, or if the workflow is gone and nobody would retry.
                may_leave = result.second_check_in is None and not result.events and not activity.is_cancelled()
                limit = patience if may_leave else ATTEMPT_TIMEOUT_S
                due, stopping = result.second_check_in, asyncio.create_task(activity.wait_for_worker_shutdown())
                await asyncio.wait({stopping}, timeout=pause if due is None else min(pause, due.total_seconds()))
                stopping.cancel()
                # A worker that stops, or that cannot know where to look, leaves the rest to another.
                is_blind = self._deps.config.digest_in_force is None
                if stopping.done() or is_blind or time.monotonic() - started > limit:
                    raise NotConfirmed("; ".join(result.failures) or "the second check is pending")
                pause = min(2 * pause, MAX_RETRY_INTERVAL_S)

        return await _run_uninterrupted(revoke_until_dead())

    @activity.defn(name="revoke_credential")
    async def revoke_credential(self, revoke_input: RevokeCredentialInput) -> RevokeResult:
        """Revoke one credential of a job now, or everything that was issued for one of its requests. The job continues."""
        self._require_own_job(revoke_input.job)
        if not self._reaches_vault():
            raise VaultUnavailable(NO_VAULT)
        return await _run_uninterrupted(_run_in_pool(self._revoke_credentials, revoke_input, _revoker(revoke_input.job, "person")))

    def _revoke_credentials(self, revoke_input: RevokeCredentialInput, by: str) -> RevokeResult:
        job, request = revoke_input.job, revoke_input.request
        credentials: tuple[str, ...] = (revoke_input.credential,)
        if request is None and REQUEST_ID.fullmatch(revoke_input.credential):
            # Histories of earlier releases have the request in `credential`.
            request = revoke_input.credential
        if request is not None:
            view = with_store_timeout(lambda: self._deps.store.jobs.get(job))
            of_request = (item for item in view.credentials if item.request_id == request) if view else ()
            credentials = tuple(item.id for item in of_request if not item.state.is_settled)
        results = [revoke.revoke_one(self._deps, job, credential, by=by, why="its revocation was requested") for credential in credentials]
        return RevokeResult(
            confirmed=all(result.confirmed for result in results),
            failures=tuple(failure for result in results for failure in result.failures),
            unrecorded=tuple(event for result in results for event in result.events),
        )

    def _require_own_job(self, job: str) -> None:
        """Raise ForeignJob for a job id of another installation: anyone may request a revocation, but unknown ids must not create ledger entries."""
        if installation_of(job) != self._deps.settings.installation:
            raise ForeignJob(f"{job[:80]} is not a job of this installation")

    @activity.defn(name="prove_job")
    async def prove_job(self, job: str, nonce: str = "") -> SignedProofReport:
        """Check everything that the job held, and everything in the targets whose name contains the job's id. Changes nothing.

        With a nonce, sign the report.
        """
        report = await _run_in_pool(prove, self._deps, job)
        signed = await _run_in_pool(partial(sign_report, self._deps, report, nonce=nonce))
        return SignedProofReport(signed=signed, **dict(report))


def _revoker(job: str, claimed: str) -> str:
    """Return the name of the revoker: the name that the job's own workflows state, else "stranger".

    Anybody may revoke, but the record must be true.
    """
    return claimed if why_not_job_workflow(job, guard=True) is None else "stranger"


async def _run_uninterrupted(work: Awaitable[T]) -> T:
    """Await the work to completion, with heartbeats, even if the activity is cancelled: an interrupted revocation would end later."""
    async with send_heartbeats():
        return await run_despite_cancel(work, on_cancel=lambda: None)


async def _run_in_pool(act: Callable[..., T], *arguments: Any) -> T:
    return await asyncio.get_running_loop().run_in_executor(REVOCATION_POOL, act, *arguments)
