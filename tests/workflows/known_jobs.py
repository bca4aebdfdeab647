"""One job as the fakes know it: what happens to it in the test, what is alive of it, and what its ledger says."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from temporalio.exceptions import ApplicationError

from justenough.domain.contracts.workflow_messages import JobResult, SessionResult
from justenough.domain.core.ids import request_id


@dataclass(frozen=True)
class Need:
    """One start request, and what policy says of it: the tier it needs (0: none), or None for denied."""

    tier: int | None = 0
    optional: bool = False
    locked: bool = False
    """Whether Vault wants people's authorization too."""


@dataclass
class Known:
    """One job: what it was set up to meet, and what became of it."""

    job: str
    needs: tuple[Need, ...] = (Need(),)
    session: Callable[[Known], Awaitable[SessionResult]] | None = None
    """How its session goes; None: it works."""
    lacks_place: bool = False
    """Whether as many jobs of its account run as may run, until it takes a place."""
    asked: dict[int, int] = field(default_factory=dict)
    """What its session has recorded that the running job asks for, by number: the tier it needs."""
    late: bool = False
    """Whether the time of whoever is asked is over at once."""
    ahead: timedelta = timedelta(0)
    """How far Temporal's clock is ahead of the workers'."""
    deadlines: dict[str, datetime] = field(default_factory=dict)
    """Until when each request's tier may decide, by the workers' clock."""
    refused: str | None = None
    unopened: str | None = None
    """Why its locks cannot be opened."""
    timeout: int = 900
    down: set[str] = field(default_factory=set)
    """Activities that cannot be done now, each named."""
    failing: Counter[str] = field(default_factory=Counter)
    """How often activities fail before they can be done; each failure is an entry."""
    refusing: set[str] = field(default_factory=set)
    """Activities that refuse for good, or answer only once they are asked again."""
    refusal: str = "Refused"
    """What a refusal is called."""
    unrecordable: bool = False
    """Whether the ledger takes nothing from revocations: their events must travel with the workflow."""
    ledger: list[str] = field(default_factory=list)
    tried: Counter[str] = field(default_factory=Counter)
    alive: set[str] = field(default_factory=set)
    """Credentials that work now."""
    claim: Literal["none", "open", "closed"] = "none"
    carried: list[str] = field(default_factory=list)
    """Ids of the events that were recorded with the end."""
    signals: list[int] = field(default_factory=list)
    """Numbers of the answers that were examined."""
    closed: JobResult | None = None
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def request(self, number: int = 1) -> str:
        """Return the id of one of its requests."""
        return request_id(self.job, number)

    def answer(self, person: str, decision: str = "approve", number: int = 1) -> dict[str, Any]:
        """Return a signed answer as it travels."""
        return {"statement": {"request": self.request(number), "person": person, "decision": decision}, "signature": f"of {person}"}

    async def note(self, *entries: str) -> None:
        """Write to the ledger, and wake whoever waits for something to change."""
        async with self.changed:
            self.ledger += entries
            self.changed.notify_all()

    async def until(self, condition: Callable[[Known], bool]) -> None:
        """Return once something holds of this job."""
        async with self.changed:
            await self.changed.wait_for(lambda: condition(self))

    async def attempt(self, name: str) -> None:
        """Count one try of an activity; raise where it cannot be done now."""
        self.tried[name] += 1
        await self.note()
        if self.tried[name] <= self.failing[name]:
            await self.note(f"failed {name}")
            raise ApplicationError("does not answer", type="VaultUnavailable")
        if name in self.refusing:
            raise ApplicationError("refused", type=self.refusal, non_retryable=True)
        if name in self.down:
            raise ApplicationError("does not answer", type="VaultUnavailable")
