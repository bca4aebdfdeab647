"""A worker of the tests' own: nets switched off, to see what each of the others does alone; bugs in workflow Job. Nothing of it is in the product."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import timedelta
from typing import Any

from activities import sweep_activity
from activities.revocation import revoke as revocation
from justenough.domain.core.errors import RetryLater
from justenough.services.dependencies import Deps
from worker.main import main
from workflows import job, signals
from workflows.job import Job

OWN = "JUSTENOUGH_TEST_"
NETS_OFF = "JUSTENOUGH_TEST_NETS_OFF"
"""Names who does not revoke in this worker, with commas: session, compensation, guard, sweep; person: what a kill cuts first."""
BUGS = "JUSTENOUGH_TEST_BUGS"
"""Names methods of workflow Job, with commas: each has a bug that shows in jobs named after it (`_close`: "bug-close")."""
STUCK = '"bug"'
"""What a wish carries over which this worker's workflows stumble, where BUGS names `receive`."""
LEASE = "JUSTENOUGH_TEST_LEASE"
"""Seconds after which this worker's sweep takes a session that renews nothing for gone; a test waits less than users would."""

LABEL = "nets-off"
"""A job's own label, which names with dots who does not revoke it."""


class SwitchedOff(RetryLater):
    """A test has switched this net off."""


def switch_off(nets: frozenset[str]) -> None:
    """Have the two functions that revoke refuse these callers, and for each job those that its label names."""
    revoke_job, revoke_one = revocation.revoke, revocation.revoke_one

    def refuse(deps: Deps, job: str, by: str) -> None:
        if by in nets or by in _labelled(deps, job):
            message = f"the net {by} is switched off by a test"
            raise SwitchedOff(message)

    def revoke(deps: Deps, job: str, *, by: str, **more: Any) -> revocation.RevocationResult:
        refuse(deps, job, by)
        return revoke_job(deps, job, by=by, **more)

    def revoke_alone(deps: Deps, job: str, credential: str, *, by: str, **more: Any) -> revocation.RevocationResult:
        refuse(deps, job, by)
        return revoke_one(deps, job, credential, by=by, **more)

    revocation.revoke, revocation.revoke_one = revoke, revoke_alone


def _labelled(deps: Deps, job: str) -> frozenset[str]:
    # While the store is away nobody's label can be read; what switches a whole worker's nets off needs no store.
    with suppress(RetryLater):
        if order := deps.store.jobs.order(job):
            return frozenset(str((order.spec.get("labels") or {}).get(LABEL, "")).split("."))
    return frozenset()


def break_method(name: str) -> None:
    """Put a bug into one method of workflow Job: a plain exception, which fails the workflow's task."""
    real = getattr(Job, name)

    def broken(self: Job, *args: Any) -> Any:
        if self._order.spec["name"] == f"bug-{name.strip('_')}":
            message = f"a bug in {name}"
            raise RuntimeError(message)
        return real(self, *args)

    setattr(Job, name, broken)


def break_receiving() -> None:
    """Put a bug into what workflow Job does with a wish that carries STUCK."""
    real = signals.decode_signal

    def carried(args: Any) -> Any:
        if args[0].payload.data == STUCK.encode():
            message = "a bug in receive"
            raise RuntimeError(message)
        return real(args)

    # As the job's module knows it.
    vars(job)["decode_signal"] = carried


def _names(variable: str) -> frozenset[str]:
    return frozenset(os.environ.get(variable, "").split(",")) - {""}


def run() -> None:
    """Run a worker as its environment says."""
    switch_off(_names(NETS_OFF))
    for bug in _names(BUGS):
        if bug == "receive":
            break_receiving()
        else:
            break_method(bug)
    if LEASE in os.environ:
        sweep_activity.CLAIM_LEASE = timedelta(seconds=float(os.environ[LEASE]))
    main()


if __name__ == "__main__":
    run()
