"""How a workflow takes a quick step: locally first, patiently if that fails. Deterministic, no I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

from workflows import options

Argument = TypeVar("Argument")
Result = TypeVar("Result")


async def step(activity: Callable[[Any, Argument], Result], argument: Argument) -> Result:
    """Return what an activity says. Only a refusal that asking again cannot change comes back as ActivityError."""
    try:
        return await workflow.execute_local_activity_method(activity, argument, **options.LOCAL)
    except ActivityError as error:
        if isinstance(error.cause, ApplicationError) and error.cause.non_retryable:
            raise
    return await workflow.execute_activity_method(activity, argument, **options.PATIENT)
