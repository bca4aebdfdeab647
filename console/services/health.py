"""Whether the systems that an installation needs answer, and how fast; what is late. Looks only; repairs nothing, names no job.

Anyone may ask: looks are bounded, run at the same time, and are shared by those who ask within a second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import httpx
from anyio import to_thread

from console.temporal.client import Gateway
from justenough.adapters.store import Store
from justenough.adapters.store.metrics import Overdue
from justenough.domain.core.base_model import Message
from justenough.domain.core.errors import GiveUp, JustEnoughError
from justenough.domain.ledger.overdue import sweep_late, unpolled

TIMEOUT = 2.0
"""Seconds for each look."""
FRESH = 1.0
"""Seconds for which one answer serves everybody."""
SEALED = {
    429: "answered 429: a standby that does not serve",
    501: "is not initialised (bao operator init)",
    503: "is sealed (bao operator unseal)",
}
"""What Vault's health says by its status."""
WAITS = "jobs wait"
NOT_ENDED = "a job that is killed, or whose worker died, is not revoked"


class Check(Message):
    """What one look at one system found."""

    name: str
    ok: bool
    ms: float
    detail: str = ""


class Sweeps(Message):
    """The net below all others."""

    last_ended_at: datetime | None = None
    """When the last one ended that ran to its end; None where none is known."""
    age_seconds: int | None = None
    late: bool = False


class Looked(Message):
    """What one look at everything found."""

    checks: tuple[Check, ...]
    overdue: Overdue | None = None
    """None where the store does not tell."""
    sweep: Sweeps = Sweeps()
    at: datetime | None = None
    """When the look was done."""


class NotWell(GiveUp):
    """A system answers, and what it says is not well."""


class Health:
    """Looks at store, Temporal, Vault, workers and sweeps, at the same time and each bounded."""

    def __init__(self, *, store: Store, gateway: Gateway, vault_addr: str, client: httpx.AsyncClient) -> None:
        self._store = store
        self._gateway = gateway
        self._vault_addr = vault_addr
        self._client = client
        self._since = datetime.now(UTC)
        self._one = asyncio.Lock()
        self._last: tuple[float, Looked] | None = None
        self._looking: asyncio.Task[Looked] | None = None

    async def looked(self) -> Looked:
        """Return what a look found that is no older than a second."""
        async with self._one:
            if self._last is None or time.monotonic() - self._last[0] > FRESH:
                found = await self._look()
                self._last = time.monotonic(), found
            return self._last[1]

    async def glimpsed(self, within: float) -> Looked | None:
        """Return a look if it is done within so many seconds, else the one before it, None where there was none.

        The look goes on for whoever comes next: a page never waits for a system that is away.
        """
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self.looked())
        done, _ = await asyncio.wait({self._looking}, timeout=within)
        return self._looking.result() if done else self._last and self._last[1]

    async def _look(self) -> Looked:
        overdue: list[Overdue] = []
        sweeps: list[Sweeps] = []

        async def look_at_store() -> None:
            overdue.append(await to_thread.run_sync(self._store.overdue, abandon_on_cancel=True))

        async def look_at_sweeps() -> None:
            sweeps.append(self._judged(await self._gateway.last_sweep()))

        looks = {
            "store": look_at_store,
            "temporal": self._gateway.ping,
            "vault": self._look_at_vault,
            "workers": self._look_at_workers,
            "sweep": look_at_sweeps,
        }
        *checks, sweep = await asyncio.gather(*(_timed(name, look) for name, look in looks.items()))
        # How old the last sweep is does not make the rest less ready; it is told apart.
        unseen = Sweeps(late=not sweep.ok)
        return Looked(checks=tuple(checks), overdue=next(iter(overdue), None), sweep=next(iter(sweeps), unseen), at=datetime.now(UTC))

    def _judged(self, ended: datetime | None) -> Sweeps:
        now = datetime.now(UTC)
        age = max(0, round((now - ended).total_seconds())) if ended else None
        return Sweeps(last_ended_at=ended, age_seconds=age, late=sweep_late(ended, since=self._since, now=now))

    async def _look_at_vault(self) -> None:
        answer = await self._client.get(f"{self._vault_addr}/v1/sys/health", params={"standbyok": "true"}, timeout=TIMEOUT)
        if answer.status_code != 200:
            raise NotWell(SEALED.get(answer.status_code, f"answered {answer.status_code}"))

    async def _look_at_workers(self) -> None:
        silent = unpolled(await self._gateway.last_polls(), now=datetime.now(UTC))
        if silent:
            raise NotWell("; ".join(f"no worker polls {queue}: {NOT_ENDED if queue.endswith('-endings') else WAITS}" for queue in silent))


async def _timed(name: str, look: Callable[[], Awaitable[None]]) -> Check:
    began, detail = time.perf_counter(), ""
    try:
        async with asyncio.timeout(TIMEOUT):
            await look()
    except TimeoutError:
        detail = f"no answer in {TIMEOUT:g} s"
    except JustEnoughError as error:
        detail = str(error)
    except httpx.HTTPError as error:
        detail = f"does not answer ({type(error).__name__})"
    return Check(name=name, ok=not detail, ms=round((time.perf_counter() - began) * 1000, 1), detail=detail)
