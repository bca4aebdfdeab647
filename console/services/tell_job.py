"""Passes a person's request to a job: by a signal to its workflow, and by a ledger entry that the session of a running job reads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from anyio import to_thread

from console.temporal.client import TemporalUnavailable, WorkflowGone


async def tell_job(
    signal: Awaitable[None], record: Callable[[], object], *, needs_workflow: bool
) -> TemporalUnavailable | WorkflowGone | None:
    """Send a signal and record the request at the same time; return why the workflow was not reached, or None if it was.

    `record` is blocking. `needs_workflow`: no session could act on the ledger entry, so nothing is recorded until the signal is sent; if it
    cannot be sent, raise TemporalUnavailable.
    """

    async def send() -> TemporalUnavailable | WorkflowGone | None:
        try:
            await signal
        except (WorkflowGone, TemporalUnavailable) as error:
            if needs_workflow and isinstance(error, TemporalUnavailable):
                raise
            return error
        return None

    if needs_workflow:
        failure = await send()
        await to_thread.run_sync(record)
        return failure
    # A slow store must not delay the signal, nor a slow Temporal the entry.
    failure, _ = await asyncio.gather(send(), to_thread.run_sync(record))
    return failure
