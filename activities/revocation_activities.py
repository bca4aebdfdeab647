"""Endings from outside the session: revoke a job from any worker, end one credential, look whether anything is alive."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from temporalio import activity

from activities.revocation import revoke
from activities.revocation.proof import has_standing_proof
from activities.support.async_tools import run_despite_cancel, send_heartbeats
from activities.support.caller_check import why_not_job_workflow
from justenough.domain.contracts.workflow_messages import ProofReport, RevokeCredentialInput, RevokeInput, RevokeResult
from justenough.domain.core.errors import GiveUp, RetryLater
from justenough.domain.core.ids import REQUEST_ID, installation_of
from justenough.services.dependencies import Deps

ATTEMPT_TIMEOUT_S = 540.0
"""Seconds that one attempt of the activity goes on trying; then the workflow's retry takes over, on whichever worker is there."""
RETRY_INTERVAL_S = 1.0
MAX_RETRY_INTERVAL_S = 10.0
MAX_CONCURRENT_REVOCATIONS = 16
REVOCATION_POOL = ThreadPoolExecutor(MAX_CONCURRENT_REVOCATIONS, thread_name_prefix="revoking")
"""Threads for what asks Vault and targets: what waits for its next attempt holds none, so a dead worker's many jobs do not wait for each other."""

T = TypeVar("T")


class NotConfirmed(RetryLater):
    """Something of a job may still be alive; its revocation goes on."""


class NotOurs(GiveUp):
    """What is to be revoked is no job of this installation."""


class RevocationActivities:
    """Needs no memory of what was issued: the job's prefix in Vault and its name in the targets tell."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    @activity.defn(name="revoke_job")
    async def revoke_job(self, revoke_input: RevokeInput) -> RevokeResult:
        """Revoke everything of a job until it is seen dead, or for as many attempts as were asked for."""
        self._require_own_job(revoke_input.job)
        return await _run_uninterrupted(self._revoke_until_dead(revoke_input))

    async def _revoke_until_dead(self, revoke_input: RevokeInput) -> RevokeResult:
        started, attempt, pause, by = time.monotonic(), 0, RETRY_INTERVAL_S, _revoker(revoke_input.job, revoke_input.by)
        while True:
            attempt += 1
            result = await _run_in_pool(self._attempt, revoke_input, by)
            if result.confirmed or attempt == revoke_input.attempts:
                return RevokeResult(confirmed=result.confirmed, failures=result.failures, unrecorded=result.events)
            due = result.second_look_in
            # A worker that stops leaves the rest to another.
            if (
                await _is_stopping_within(pause if due is None else min(pause, due.total_seconds()))
                or time.monotonic() - started > ATTEMPT_TIMEOUT_S
            ):
                raise NotConfirmed("; ".join(result.failures) or "the second look is still to come")
            pause = min(2 * pause, MAX_RETRY_INTERVAL_S)

    def _attempt(self, revoke_input: RevokeInput, by: str) -> revoke.RevocationResult:
        # Where the session, or whoever revokes beside this, has its proof, trying again would make the job doubtful anew.
        # Not where a person cuts the access of a job that runs: whatever is said of it, it is issued nothing more.
        if revoke_input.by != "person" and has_standing_proof(self._deps, revoke_input.job):
            return revoke.RevocationResult(confirmed=True)
        # Only a session knows that nothing is in flight; an argument that says so may be a stranger's.
        return revoke.revoke(self._deps, revoke_input.job, by=by, why=revoke_input.why, settled=False)

    @activity.defn(name="revoke_credential")
    async def revoke_credential(self, revoke_input: RevokeCredentialInput) -> RevokeResult:
        """End one credential of a job now, or what was issued for one of its requests; the job goes on."""
        self._require_own_job(revoke_input.job)
        return await _run_uninterrupted(_run_in_pool(self._revoke_meant, revoke_input, _revoker(revoke_input.job, "person")))

    def _revoke_meant(self, revoke_input: RevokeCredentialInput, by: str) -> RevokeResult:
        ended = [
            revoke.revoke_one(self._deps, revoke_input.job, credential, by=by, why="it was taken away")
            for credential in self._credentials_meant(revoke_input)
        ]
        return RevokeResult(
            confirmed=all(one.confirmed for one in ended),
            failures=tuple(failure for one in ended for failure in one.failures),
            unrecorded=tuple(event for one in ended for event in one.events),
        )

    def _credentials_meant(self, revoke_input: RevokeCredentialInput) -> tuple[str, ...]:
        if not REQUEST_ID.fullmatch(revoke_input.credential):
            return (revoke_input.credential,)
        view = self._deps.store.jobs.get(revoke_input.job)
        return revoke.live_credential_ids(view, revoke_input.credential) if view else ()

    def _require_own_job(self, job: str) -> None:
        """Raise NotOurs for what is no job of this installation: anyone may ask to revoke, and nobody may litter."""
        if installation_of(job) != self._deps.settings.installation:
            message = "that is no job of this installation"
            raise NotOurs(message)

    @activity.defn(name="prove_job")
    async def prove_job(self, job: str) -> ProofReport:
        """Look at everything that the job held, and at what carries its name; change nothing."""
        return await _run_in_pool(revoke.prove, self._deps, job)


def _revoker(job: str, claimed: str) -> str:
    """Return who revokes: as the job's own workflows say, or the stranger who asks; ending access needs no right, but the record is true."""
    return claimed if why_not_job_workflow(job, guard=True) is None else "stranger"


async def _run_uninterrupted(work: Awaitable[T]) -> T:
    """Return what it comes to. A workflow that is gone hurries nothing on: what breaks off between two steps would end nothing sooner."""
    async with send_heartbeats():
        return await run_despite_cancel(work, on_cancel=lambda: None)


async def _run_in_pool(act: Callable[..., T], *arguments: Any) -> T:
    """Act in one of REVOKERS' threads."""
    return await asyncio.get_running_loop().run_in_executor(REVOCATION_POOL, act, *arguments)


async def _is_stopping_within(seconds: float) -> bool:
    """Wait; return whether this worker is to stop, as soon as it is."""
    try:
        await asyncio.wait_for(activity.wait_for_worker_shutdown(), seconds)
    except TimeoutError:
        return False
    return True
