"""Calls activities from a workflow: locally first, with long retries, until accepted, or until it is stopped. Deterministic, no I/O."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, FailureError

from workflows import options

with workflow.unsafe.imports_passed_through():
    from activities.revocation_activities import RevocationActivities
    from activities.support.caller_check import NotTheirs
    from justenough.domain.contracts.workflow_messages import RevokeInput, RevokeResult
    from justenough.domain.ledger.events import Event

Argument = TypeVar("Argument")
Result = TypeVar("Result")


async def call_activity(activity: Callable[[Any, Argument], Result], argument: Argument) -> Result:
    """Call an activity and return its result. Raises FailureError if it refuses for good or the step was cancelled."""
    try:
        return await workflow.execute_local_activity_method(activity, argument, **options.LOCAL)
    except FailureError as error:
        # Catch more than ActivityError: a local activity's own error is raised, not wrapped in one.
        if is_refusal(error) or is_cancelling():
            raise
    return await workflow.execute_activity_method(activity, argument, task_queue=options.endings_queue(), **options.PATIENT)


async def retry_until_accepted(attempt: Callable[[], Awaitable[Result]]) -> Result:
    """Repeat an attempt until it is accepted, and return its result: for steps that must succeed before a job may close.

    Raises FailureError if this workflow is not the job's: a stranger's workflow may end without it.
    """
    pause = options.MIN_RETRY_INTERVAL
    while True:
        try:
            return await attempt()
        except FailureError as error:
            if is_cancelling() or error_type(error) == NotTheirs.__name__:
                raise
            workflow.logger.warning("refused, will be retried", extra={"cause": error_type(error)})
        await workflow.sleep(pause)
        pause = min(2 * pause, options.MAX_RETRY_INTERVAL)


async def revoke_until_confirmed(revoke_input: RevokeInput) -> RevokeResult:
    """Revoke everything of a job until it is confirmed dead; return the result, with the events that the ledger could not record."""
    unrecorded: tuple[Event, ...] = ()
    while True:
        result: RevokeResult = await retry_until_accepted(
            lambda: workflow.execute_activity_method(
                RevocationActivities.revoke_job, revoke_input, task_queue=options.endings_queue(), **options.REVOKE
            )
        )
        unrecorded += result.unrecorded
        if result.confirmed:
            return result.model_copy(update={"unrecorded": unrecorded})
        await workflow.sleep(options.MIN_RETRY_INTERVAL)


async def run_unless(stopped: Callable[[], bool], work: Coroutine[Any, Any, Result]) -> Result | None:
    """Await work and return its result. If `stopped` becomes true first, cancel the work, await its end and return None."""
    task = asyncio.create_task(work)
    await workflow.wait_condition(lambda: task.done() or stopped())
    if not task.done():
        task.cancel()
        await workflow.wait_condition(task.done)
    if task.cancelled() or (stopped() and isinstance(task.exception(), FailureError)):
        return None
    return task.result()


async def run_shielded(task: asyncio.Task[Result], *, on_cancel: Callable[[], None]) -> Result:
    """Await a task to its end and return its result. Cancelling the workflow only calls `on_cancel`: nothing interrupts the task."""
    while True:
        try:
            await workflow.wait_condition(task.done)
        except asyncio.CancelledError:
            # An eviction from the worker's cache also cancels the task, but without a reason. Raise it again.
            if workflow.cancellation_reason() is None:
                raise
            on_cancel()
        if task.done():
            return task.result()


def error_type(error: FailureError) -> str:
    """Return the type name of an activity's error. Its message may contain anything."""
    cause = _cause(error)
    return cause.type or "ApplicationError" if isinstance(cause, ApplicationError) else type(cause).__name__


def is_refusal(error: FailureError) -> bool:
    """Whether an activity refused for good."""
    cause = _cause(error)
    return isinstance(cause, ApplicationError) and cause.non_retryable


def is_cancelling() -> bool:
    """Whether the current task is being cancelled: by `run_unless`, or by eviction."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _cause(error: FailureError) -> BaseException | None:
    return error.cause if isinstance(error, ActivityError) else error
