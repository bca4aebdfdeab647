"""A worker for tests: with safety nets off, to measure each net alone, and with bugs in the workflow Job. The product contains none of it."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from activities import sweep_activity
from activities.process.process import JobProcess
from activities.revocation import revoke as revocation
from justenough.domain.core.errors import RetryLater
from justenough.services.dependencies import Deps
from worker.main import main
from workflows import job, signals
from workflows.job import Job

ENV_PREFIX = "JUSTENOUGH_TEST_"
NETS_OFF = "JUSTENOUGH_TEST_NETS_OFF"
"""The nets that do not revoke in this worker, separated by commas: session, compensation, guard, sweep, or person (the first step of a kill)."""
BUGS = "JUSTENOUGH_TEST_BUGS"
"""Methods of the workflow Job, separated by commas. Each has a bug in jobs named after it (`_close`: "bug-close")."""
BUG_ARGUMENT = '"bug"'
"""The signal argument that breaks this worker's workflows if BUGS contains `receive`."""
LEASE = "JUSTENOUGH_TEST_LEASE"
"""After so many seconds without a renewal this worker's sweep considers a session lost; shorter than in production, for fast tests."""

UNKILLABLE = "JUSTENOUGH_TEST_UNKILLABLE"
"""A file. Until it exists, this worker's SIGKILL ends no process of a job."""
LABEL = "nets-off"
"""A job's label with the nets that do not revoke it, separated by dots."""


class SwitchedOff(RetryLater):
    """A test has turned this net off."""


def switch_off(nets: frozenset[str]) -> None:
    """Let the two revoking functions refuse these callers, and for each job the callers in its label."""
    revoke_job, revoke_one = revocation.revoke, revocation.revoke_one

    def refuse(deps: Deps, job: str, by: str) -> None:
        if by in nets or by in _nets_in_label(deps, job):
            message = f"the net {by} is switched off by a test"
            raise SwitchedOff(message)

    def revoke(deps: Deps, job: str, *, by: str, **more: Any) -> revocation.RevocationResult:
        refuse(deps, job, by)
        return revoke_job(deps, job, by=by, **more)

    def revoke_alone(deps: Deps, job: str, credential: str, *, by: str, **more: Any) -> revocation.RevocationResult:
        refuse(deps, job, by)
        return revoke_one(deps, job, credential, by=by, **more)

    revocation.revoke, revocation.revoke_one = revoke, revoke_alone


def _nets_in_label(deps: Deps, job: str) -> frozenset[str]:
    # While the store is away, no label can be read. Switching off a whole worker's nets needs no store.
    with suppress(RetryLater):
        if order := deps.store.jobs.order(job):
            return frozenset(str((order.spec.get("labels") or {}).get(LABEL, "")).split("."))
    return frozenset()


def break_method(name: str) -> None:
    """Add a bug to one method of the workflow Job: an exception that fails the workflow task."""
    real = getattr(Job, name)

    def broken(self: Job, *args: Any) -> Any:
        if self._order.spec["name"] == f"bug-{name.strip('_')}":
            message = f"a bug in {name}"
            raise RuntimeError(message)
        return real(self, *args)

    setattr(Job, name, broken)


def break_receiving() -> None:
    """Add a bug to the handler of signals with the argument STUCK."""
    real = signals.decode_signal

    def carried(args: Any) -> Any:
        if args[0].payload.data == BUG_ARGUMENT.encode():
            message = "a bug in receive"
            raise RuntimeError(message)
        return real(args)

    # Replace it in the job's module.
    vars(job)["decode_signal"] = carried


def _names(variable: str) -> frozenset[str]:
    return frozenset(os.environ.get(variable, "").split(",")) - {""}


def let_processes_live(file: Path) -> None:
    """Let processes of jobs die only once this file exists, as if the kernel could not end them."""
    kill = JobProcess.kill

    async def kill_later(self: JobProcess) -> int:
        await asyncio.to_thread(wait_for, file)
        return await kill(self)

    setattr(JobProcess, "kill", kill_later)  # noqa: B010 - a test's fault


def wait_for(file: Path) -> None:
    """Return once a file exists."""
    while not file.exists():
        time.sleep(0.05)


def run() -> None:
    """Run a worker with the faults of its environment."""
    switch_off(_names(NETS_OFF))
    for bug in _names(BUGS):
        if bug == "receive":
            break_receiving()
        else:
            break_method(bug)
    if LEASE in os.environ:
        sweep_activity.CLAIM_LEASE = timedelta(seconds=float(os.environ[LEASE]))
    if UNKILLABLE in os.environ:
        let_processes_live(Path(os.environ[UNKILLABLE]))
    main()


if __name__ == "__main__":
    run()
