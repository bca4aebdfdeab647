"""Signals as they come, until they are examined. Their content is a stranger's: anything may be in it. Deterministic, no I/O."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from typing import Any

from temporalio import workflow
from temporalio.common import RawValue

from workflows import options


class Inbox:
    """The answers that a job was sent, numbered from 1 as they came; one leaves only once it has been examined."""

    def __init__(self) -> None:
        self._waiting: deque[Any] = deque()
        self._examined = 0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def put(self, args: Sequence[RawValue]) -> None:
        """Keep what one signal carried; past what a job examines, ignore it."""
        if self._examined + len(self._waiting) < options.ANSWERS_RECORDED:
            self._waiting.append(carried(args))

    def first(self) -> tuple[int, tuple[Any, ...]]:
        """Return the number of the first answer that waits, and what some of them carried, that one first."""
        count = min(len(self._waiting), options.ANSWERS_AT_ONCE)
        return self._examined + 1, tuple(self._waiting[place] for place in range(count))

    def drop(self, count: int) -> None:
        """Let the first ones go: they have been examined."""
        for _ in range(count):
            self._waiting.popleft()
        self._examined += count


def carried(args: Sequence[RawValue]) -> Any:
    """Return the one JSON value that a signal carried, or {"unreadable": why}: what no activity could be handed must never reach one."""
    if len(args) != 1:
        return {"unreadable": f"{len(args)} arguments"}
    data = args[0].payload.data
    if len(data) > options.ANSWER_BYTES:
        return {"unreadable": f"{len(data)} bytes"}
    try:
        return _as_handed_on(json.loads(data))
    except Exception:  # noqa: BLE001 - depth, lone surrogates, huge numbers: whatever does not survive the journey is not readable
        return {"unreadable": "not JSON that travels"}


def _as_handed_on(value: Any) -> Any:
    """Return a value as an activity will get it; raise where it would get none, or one so large that a batch may not fit a payload."""
    converter = workflow.payload_converter()
    payload = converter.to_payload(value)
    if len(payload.data) > options.ANSWER_BYTES:
        return {"unreadable": f"{len(payload.data)} bytes"}
    return converter.from_payload(payload)
