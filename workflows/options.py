"""Every timeout and retry policy of the workflows, named. No I/O."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import Priority, RetryPolicy
from temporalio.workflow import ActivityCancellationType

SECOND = timedelta(seconds=1)

HEARTBEAT_TIMEOUT = 10 * SECOND
"""Without a heartbeat for this long, the worker of a session or a revocation counts as dead. Longer than a busy machine may block."""
SESSION_MARGIN = timedelta(minutes=10)
"""How long a session may take beyond its process's timeout: issuing, ending the process, revoking."""
GUARDED_QUEUE_TIMEOUT = timedelta(hours=1)
"""How long a guarded session waits for a place and a worker. The guard's deadline includes it, so that no guard revokes a job that has yet to run."""
MAX_FAIRNESS_KEY_LENGTH = 64
"""Maximum characters of a key by which Temporal makes tasks take turns. Launchers are ASCII."""
GUARD_GRACE = timedelta(minutes=15)
"""How long a guard waits beyond its job's maximum duration before it revokes by itself."""
MAX_ANSWERS = 500
"""Maximum number of answers that one job examined under earlier releases."""
MAX_ANSWERS_PER_BATCH = 50
MAX_ANSWER_BYTES = 16 * 1024
"""Maximum bytes of one answer: several times the longest valid one; MAX_ANSWERS_PER_BATCH of them fit into a payload (2 MB)."""
MAX_REVOCATION_REQUESTS = 100
"""Maximum requests to revoke single credentials that one job accepts."""
MIN_RETRY_INTERVAL = 10 * SECOND
MAX_RETRY_INTERVAL = timedelta(minutes=10)
"""Maximum time between two attempts of a step that must succeed and was refused."""
SWEEP_INTERVAL = 10 * SECOND
SWEEP_TIMEOUT = 60 * SECOND


def endings_queue() -> str:
    """Return the task queue for everything except sessions: a worker that is full of sessions must still be able to end one."""
    return f"{workflow.info().task_queue}-endings"


LOCAL: dict[str, Any] = {
    "schedule_to_close_timeout": 4 * SECOND,
    "start_to_close_timeout": 4 * SECOND,
    "retry_policy": RetryPolicy(initial_interval=0.1 * SECOND, maximum_attempts=3),
    "cancellation_type": ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
}
"""Quick steps: tried briefly inside the workflow task; then PATIENT takes over."""

PATIENT: dict[str, Any] = {
    "start_to_close_timeout": 30 * SECOND,
    "retry_policy": RetryPolicy(initial_interval=SECOND, maximum_interval=10 * SECOND),
    # A job that is stopped meanwhile waits for the current attempt, so that nothing is recorded after its end.
    "cancellation_type": ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
}
"""The same steps while a server is unreachable: retried without limit."""

REVOKE: dict[str, Any] = {
    "start_to_close_timeout": timedelta(minutes=10),
    "heartbeat_timeout": HEARTBEAT_TIMEOUT,
    "retry_policy": RetryPolicy(initial_interval=SECOND, maximum_interval=10 * SECOND),
    "cancellation_type": ActivityCancellationType.ABANDON,
}
"""Revocation: on any worker, retried without limit; cancelling the workflow does not stop an attempt."""

CUT: dict[str, Any] = {
    "schedule_to_close_timeout": 120 * SECOND,
    "start_to_close_timeout": 60 * SECOND,
    "schedule_to_start_timeout": 30 * SECOND,
    "heartbeat_timeout": HEARTBEAT_TIMEOUT,
    "retry_policy": RetryPolicy(initial_interval=0.5 * SECOND, backoff_coefficient=1, maximum_attempts=4),
}
"""A revocation that a person requested while the job runs: it is tried often enough to find a worker that reaches Vault. A kill waits for it
before it ends the session, so all attempts share one timeout. If they fail, the credential is revoked at the job's end.
"""

LOOK: dict[str, Any] = {"start_to_close_timeout": SWEEP_TIMEOUT, "retry_policy": RetryPolicy(maximum_attempts=1)}
"""One check, not retried."""

SWEEP: dict[str, Any] = {**LOOK, "heartbeat_timeout": HEARTBEAT_TIMEOUT}
"""Without heartbeats, a sweep whose worker died would block the next one until its timeout."""


def session(timeout: int, *, launcher: str, queue_timeout: timedelta | None) -> dict[str, Any]:
    """Return the options of a session whose process may run for `timeout` seconds. It is never retried.

    Sessions that wait for a worker take turns by launcher. `queue_timeout`: how long this one may wait; None: without limit.
    """
    return {
        "priority": Priority(fairness_key=launcher[:MAX_FAIRNESS_KEY_LENGTH]),
        "schedule_to_start_timeout": queue_timeout,
        "start_to_close_timeout": timedelta(seconds=timeout) + SESSION_MARGIN,
        "heartbeat_timeout": HEARTBEAT_TIMEOUT,
        "retry_policy": RetryPolicy(maximum_attempts=1),
        "cancellation_type": ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    }


def guard_seconds(timeout: int) -> int:
    """Return the seconds after which a guard revokes even if its job is open; `timeout`: seconds that the job's process may run."""
    return timeout + int((GUARDED_QUEUE_TIMEOUT + SESSION_MARGIN + GUARD_GRACE).total_seconds())
