"""Every timeout and retry of the workflows, named. No I/O."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, TypedDict

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.workflow import ActivityCancellationType

SECOND = timedelta(seconds=1)

HEARTBEAT_TIMEOUT = 10 * SECOND
"""After this long without a word the worker of a session, or of a revocation, counts as dead. A blocked machine must not look like a death."""
SESSION_MARGIN = timedelta(minutes=10)
"""What a session may take beyond its process's time: issuing, ending the process, revoking."""
GUARDED_QUEUE_TIMEOUT = timedelta(hours=1)
"""What a guarded session waits for a worker that has room. Its guard's deadline covers it, so that no guard revokes a job still to run."""
GUARD_GRACE = timedelta(minutes=15)
"""What a guard waits beyond its job's own time before it revokes on its own account."""
MAX_ANSWERS = 500
"""Signals that one job examines; further ones are ignored, so that a flood cannot end the workflow by its history's size."""
MAX_ANSWERS_PER_BATCH = 50
MAX_ANSWER_BYTES = 16 * 1024
"""Of one answer: several times the longest valid one, and ANSWERS_AT_ONCE of them fit a payload (2 MB)."""
MAX_REVOCATION_REQUESTS = 100
"""Wishes to end single credentials that one job obeys."""
MIN_RETRY_INTERVAL = 10 * SECOND
MAX_RETRY_INTERVAL = timedelta(minutes=10)
"""Between two askings where a step that must succeed is refused."""
SWEEP_INTERVAL = 10 * SECOND
SWEEP_TIMEOUT = 60 * SECOND


def endings_queue() -> str:
    """Return the task queue for everything but sessions: a worker whose sessions take every place must still be able to end one."""
    return f"{workflow.info().task_queue}-endings"


class LocalOptions(TypedDict):
    schedule_to_close_timeout: timedelta
    start_to_close_timeout: timedelta
    retry_policy: RetryPolicy
    cancellation_type: ActivityCancellationType


class PatientOptions(TypedDict):
    start_to_close_timeout: timedelta
    retry_policy: RetryPolicy
    cancellation_type: ActivityCancellationType


LOCAL: LocalOptions = {
    "schedule_to_close_timeout": 4 * SECOND,
    "start_to_close_timeout": 4 * SECOND,
    "retry_policy": RetryPolicy(initial_interval=0.1 * SECOND, maximum_attempts=3),
    "cancellation_type": ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
}
"""Quick steps: tried briefly inside the workflow task; then PATIENT takes over."""

PATIENT: PatientOptions = {
    "start_to_close_timeout": 30 * SECOND,
    "retry_policy": RetryPolicy(initial_interval=SECOND, maximum_interval=10 * SECOND),
    # A job that is stopped meanwhile waits for the attempt that runs, so that nothing is recorded after its end.
    "cancellation_type": ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
}
"""The same steps while a server they need is away: retried without limit."""

REVOKE: dict[str, Any] = {
    "start_to_close_timeout": timedelta(minutes=10),
    "heartbeat_timeout": HEARTBEAT_TIMEOUT,
    "retry_policy": RetryPolicy(initial_interval=SECOND, maximum_interval=10 * SECOND),
    "cancellation_type": ActivityCancellationType.ABANDON,
}
"""Revocation: from any worker, without limit; nothing that happens to the workflow stops one that runs."""

CUT: dict[str, Any] = {
    "start_to_close_timeout": 60 * SECOND,
    "schedule_to_start_timeout": 30 * SECOND,
    "heartbeat_timeout": HEARTBEAT_TIMEOUT,
    "retry_policy": RetryPolicy(initial_interval=SECOND, maximum_attempts=2),
}
"""A revocation that a person asked for while the job runs: what it cannot do, the job's ending does."""

LOOK: dict[str, Any] = {"start_to_close_timeout": SWEEP_TIMEOUT, "retry_policy": RetryPolicy(maximum_attempts=1)}
"""One look; whoever wants another asks again."""

SWEEP: dict[str, Any] = {**LOOK, "heartbeat_timeout": HEARTBEAT_TIMEOUT}
"""A sweep whose worker died would keep the next one from starting for as long as it is thought to run."""


def session(timeout: int, *, guarded: bool) -> dict[str, Any]:
    """Return the options of a session whose process may run for `timeout` seconds. It is never tried twice."""
    return {
        "schedule_to_start_timeout": GUARDED_QUEUE_TIMEOUT if guarded else None,
        "start_to_close_timeout": timedelta(seconds=timeout) + SESSION_MARGIN,
        "heartbeat_timeout": HEARTBEAT_TIMEOUT,
        "retry_policy": RetryPolicy(maximum_attempts=1),
        "cancellation_type": ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    }


def guard_seconds(timeout: int) -> int:
    """Return after how many seconds a guard revokes even if its job still stands; the job's process may run for `timeout`."""
    return timeout + int((GUARDED_QUEUE_TIMEOUT + SESSION_MARGIN + GUARD_GRACE).total_seconds())
