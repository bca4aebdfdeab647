"""Waiting for something that does not report by itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from anyio import move_on_after, sleep

T = TypeVar("T")


async def poll_until(
    first: T,
    read: Callable[[], Awaitable[T]],
    *,
    until: Callable[[T], bool],
    every_s: float,
    timeout_s: float,
    max_every_s: float | None = None,
) -> T:
    """Return the first value that satisfies `until`, beginning with `first`; after `timeout_s`, return the last one read.

    With `max_every_s` the pause doubles after each read up to that, so that many callers do not keep a busy system busy.
    """
    value, pause = first, every_s
    with move_on_after(timeout_s):
        while not until(value):
            await sleep(pause)
            pause = min(2 * pause, max_every_s or every_s)
            value = await read()
    return value
