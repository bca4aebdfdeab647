"""Which errors of activities Temporal hears."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput

from justenough.domain.core.errors import Conflict, RetryLater
from worker.temporal_worker import ErrorInterceptor


class Failing(ActivityInboundInterceptor):
    """Raises instead of running an activity."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002 - the SDK's name
        raise self._error


@pytest.mark.parametrize(
    "error, kind, message, is_final",
    [
        (RetryLater("the target is away"), "RetryLater", "the target is away", False),
        (Conflict("it has ended"), "Conflict", "it has ended", True),
        (ValueError("postgresql://user:hunter2@host"), "ValueError", "unexpected error; the worker's log has the details", False),
        (ApplicationError("as it is", type="Own", non_retryable=True), "Own", "as it is", True),
    ],
)
async def test_temporal_hears_of_an_unexpected_error_only_its_type_and_of_ours_whether_to_retry(
    error: Exception, kind: str, message: str, *, is_final: bool
) -> None:
    given = ExecuteActivityInput(fn=asyncio.sleep, args=(), executor=None, headers={})
    with pytest.raises(ApplicationError) as raised:
        await ErrorInterceptor().intercept_activity(Failing(error)).execute_activity(given)
    found = raised.value
    assert (found.type, found.message, found.non_retryable, found.details) == (kind, message, is_final, ())
    # Temporal would store a cause, with its message, too.
    assert (found.__cause__, found.__suppress_context__) == (None, found is not error)
