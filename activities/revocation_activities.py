"""Endings from outside the session: revoke a job from any worker, end one credential, look whether anything is alive."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from temporalio import activity

from activities.revocation import revoke
from activities.revocation.proof import proven
from activities.support.async_tools import beating, to_its_end
from activities.support.caller_check import why_not_theirs
from justenough.domain.contracts.workflow_messages import ProofReport, RevokeCredentialInput, RevokeInput, RevokeResult
from justenough.domain.core.errors import GiveUp, RetryLater
from justenough.domain.core.ids import REQUEST_ID, installation_of
from justenough.services.dependencies import Deps

PATIENCE = 540.0
"""Seconds that one attempt of the activity goes on trying; then the workflow's retry takes over, on whichever worker is there."""
PAUSE = 1.0
LONGEST_PAUSE = 10.0
REVOKING = 16
REVOKERS = ThreadPoolExecutor(REVOKING, thread_name_prefix="revoking")
"""Threads for what asks Vault and targets: what waits for its next attempt holds none, so a dead worker's many jobs do not wait for each other."""

T = TypeVar("T")


class NotConfirmed(RetryLater):
    """Something of a job may still be alive; its revocation goes on."""


class NotOurs(GiveUp):
    """What is to be revoked is no job of this installation."""


class Ending:
    """Needs no memory of what was issued: the job's prefix in Vault and its name in the targets tell."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    @activity.defn(name="revoke_job")
    async def revoke_job(self, wanted: RevokeInput) -> RevokeResult:
        """Revoke everything of a job until it is seen dead, or for as many attempts as were asked for."""
        self._check(wanted.job)
        return await _uninterrupted(self._until_dead(wanted))

    async def _until_dead(self, wanted: RevokeInput) -> RevokeResult:
        started, attempt, pause, by = time.monotonic(), 0, PAUSE, _by(wanted.job, wanted.by)
        while True:
            attempt += 1
            result = await _in_turn(self._attempt, wanted, by)
            if result.confirmed or attempt == wanted.attempts:
                return RevokeResult(confirmed=result.confirmed, failures=result.failures, unrecorded=result.events)
            due = result.second_look_in
            # A worker that stops leaves the rest to another.
            if await _stops_within(pause if due is None else min(pause, due.total_seconds())) or time.monotonic() - started > PATIENCE:
                raise NotConfirmed("; ".join(result.failures) or "the second look is still to come")
            pause = min(2 * pause, LONGEST_PAUSE)

    def _attempt(self, wanted: RevokeInput, by: str) -> revoke.RevocationResult:
        # Where the session, or whoever revokes beside this, has its proof, trying again would make the job doubtful anew.
        # Not where a person cuts the access of a job that runs: whatever is said of it, it is issued nothing more.
        if wanted.by != "person" and proven(self._deps, wanted.job):
            return revoke.RevocationResult(confirmed=True)
        # Only a session knows that nothing is in flight; an argument that says so may be a stranger's.
        return revoke.revoke(self._deps, wanted.job, by=by, why=wanted.why, settled=False)

    @activity.defn(name="revoke_credential")
    async def revoke_credential(self, wanted: RevokeCredentialInput) -> RevokeResult:
        """End one credential of a job now, or what was issued for one of its requests; the job goes on."""
        self._check(wanted.job)
        return await _uninterrupted(_in_turn(self._taken_away, wanted, _by(wanted.job, "person")))

    def _taken_away(self, wanted: RevokeCredentialInput, by: str) -> RevokeResult:
        ended = [
            revoke.revoke_one(self._deps, wanted.job, credential, by=by, why="it was taken away") for credential in self._meant(wanted)
        ]
        return RevokeResult(
            confirmed=all(one.confirmed for one in ended),
            failures=tuple(failure for one in ended for failure in one.failures),
            unrecorded=tuple(event for one in ended for event in one.events),
        )

    def _meant(self, wanted: RevokeCredentialInput) -> tuple[str, ...]:
        if not REQUEST_ID.fullmatch(wanted.credential):
            return (wanted.credential,)
        view = self._deps.store.job(wanted.job)
        return revoke.alive_of(view, wanted.credential) if view else ()

    def _check(self, job: str) -> None:
        """Raise NotOurs for what is no job of this installation: anyone may ask to revoke, and nobody may litter."""
        if installation_of(job) != self._deps.settings.installation:
            message = "that is no job of this installation"
            raise NotOurs(message)

    @activity.defn(name="prove_job")
    async def prove_job(self, job: str) -> ProofReport:
        """Look at everything that the job held, and at what carries its name; change nothing."""
        return await _in_turn(revoke.prove, self._deps, job)


def _by(job: str, said: str) -> str:
    """Return who revokes: as the job's own workflows say, or the stranger who asks; ending access needs no right, but the record is true."""
    return said if why_not_theirs(job, guard=True) is None else "stranger"


async def _uninterrupted(work: Awaitable[T]) -> T:
    """Return what it comes to. A workflow that is gone hurries nothing on: what breaks off between two steps would end nothing sooner."""
    async with beating():
        return await to_its_end(work, cancelled=lambda: None)


async def _in_turn(act: Callable[..., T], *arguments: Any) -> T:
    """Act in one of REVOKERS' threads."""
    return await asyncio.get_running_loop().run_in_executor(REVOKERS, act, *arguments)


async def _stops_within(seconds: float) -> bool:
    """Wait; return whether this worker is to stop, as soon as it is."""
    try:
        await asyncio.wait_for(activity.wait_for_worker_shutdown(), seconds)
    except TimeoutError:
        return False
    return True
