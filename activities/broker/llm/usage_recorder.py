"""Records a job's model use in the ledger: the first call of each kind immediately, then one entry for many. Never the content."""

from __future__ import annotations

import asyncio

import structlog

from justenough.domain.ledger.events import Event, EventType, build_event
from justenough.domain.llm.definition import MODEL_NAME
from justenough.domain.llm.metering import TokenUsage, UsageTally
from justenough.services.dependencies import Deps

MAX_CALLS_PER_ENTRY = 100
"""Maximum number of calls of one kind per ledger entry."""
FLUSH_INTERVAL_S = 30.0
"""Seconds after which the next call also records the calls counted so far, or repeats a write that failed."""
MAX_MODEL_NAMES = 50
"""Model names that are counted separately. There is a limit because a job may invent any number of names."""
WRITE_TIMEOUT_S = 2.0
"""Seconds that the end of a session waits for an entry that is being written; the revocation records the rest."""
OTHER_MODELS = "-"
log = structlog.get_logger()


class ModelUsageRecorder:
    def __init__(self, deps: Deps, job: str, name: str) -> None:
        """`name`: the model's name in the catalog."""
        self._deps = deps
        self._job = job
        self._name = name
        self._tallies: dict[tuple[str, str], UsageTally] = {}
        self._names: set[str] = set()
        self._kinds: set[tuple[str, str]] = set()
        self._credential: str | None = None
        self._entries = 0
        self._pending: tuple[Event, ...] = ()
        self._flushed_at = deps.ticks()
        self._due = False
        self._writing: asyncio.Task[None] | None = None

    def count_call(self, model: str, outcome: str, usage: TokenUsage) -> None:
        """Count one call that has ended."""
        # The job chooses this text: it is recorded only if it looks like a name and there are not too many.
        if MODEL_NAME.fullmatch(model) and (model in self._names or len(self._names) < MAX_MODEL_NAMES):
            self._names.add(model)
        else:
            model = OTHER_MODELS
        kind = model, outcome
        self._tallies[kind] = self._tallies.get(kind, UsageTally()).with_call(usage)
        self._due |= (
            kind not in self._kinds
            or self._tallies[kind].calls >= MAX_CALLS_PER_ENTRY
            or self._deps.ticks() - self._flushed_at >= FLUSH_INTERVAL_S
        )
        self._kinds.add(kind)
        self._write_due()

    def record_key_use(self, credential: str) -> None:
        """Record that a credential's key is in use from now on."""
        self._credential, now, what = credential, self._deps.now(), f"the model gateway: {self._name}"
        self._enqueue((build_event(EventType.CREDENTIAL_USED, self._job, at=now, about=credential, credential=credential, what=what),))

    async def wait_written(self) -> None:
        """Return once nothing is being written to the ledger, or after WRITE_TIMEOUT_S."""
        if self._writing:
            await asyncio.wait({self._writing}, timeout=WRITE_TIMEOUT_S)

    def unrecorded_events(self) -> tuple[Event, ...]:
        """Return the events that are not in the ledger yet. Recording an event twice changes nothing."""
        self._pending += self._take_events()
        return self._pending

    def _take_events(self) -> tuple[Event, ...]:
        tallies, self._tallies, events = self._tallies, {}, list[Event]()
        for (model, outcome), tally in tallies.items():
            self._entries += 1
            events.append(
                build_event(
                    EventType.MODEL_USED,
                    self._job,
                    at=self._deps.now(),
                    about=str(self._entries),
                    name=self._name,
                    model=model,
                    credential=self._credential,
                    calls=tally.calls,
                    prompt_tokens=tally.prompt,
                    completion_tokens=tally.completion,
                    estimated=tally.estimated,
                    outcome=outcome,
                )
            )
        return tuple(events)

    def _write_due(self) -> None:
        """Write the due entries, unless a write is under way; that write will include them. A failed write is repeated first."""
        now = self._deps.ticks()
        if self._pending:
            if now - self._flushed_at >= FLUSH_INTERVAL_S:
                self._flushed_at = now
                self._enqueue(())
        elif self._due:
            self._due, self._flushed_at = False, now
            self._enqueue(self._take_events())

    def _enqueue(self, events: tuple[Event, ...]) -> None:
        self._pending += events
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())

    async def _write(self) -> None:
        while batch := self._pending:
            try:
                await asyncio.to_thread(self._deps.store.ledger.append, list(batch))
            except Exception as error:  # noqa: BLE001 - an unreachable store must not block model calls; the session's end records it too
                log.warning("use of a model not recorded yet", job=self._job, error=type(error).__name__)
                return
            self._pending = self._pending[len(batch) :]
            self._write_due()
