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

from console.temporal.client import TemporalGateway
from justenough.adapters.store import Store
from justenough.adapters.store.metrics import OverdueCounts
from justenough.domain.core.base_model import Message
from justenough.domain.core.errors import GiveUp, JustEnoughError
from justenough.domain.ledger.overdue import find_unpolled_queues, is_sweep_late

CHECK_TIMEOUT_S = 2.0
"""Seconds for each look."""
CACHE_TTL_S = 1.0
"""Seconds for which one answer serves everybody."""
VAULT_STATUS_TEXT = {
    429: "answered 429: a standby that does not serve",
    501: "is not initialised (bao operator init)",
    503: "is sealed (bao operator unseal)",
}
"""What Vault's health says by its status."""
JOBS_WAIT_TEXT = "jobs wait"
ENDINGS_WAIT_TEXT = "a job that is killed, or whose worker died, is not revoked"


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


class HealthReport(Message):
    """What one look at everything found."""

    checks: tuple[Check, ...]
    overdue: OverdueCounts | None = None
    """None where the store does not tell."""
    sweep: Sweeps = Sweeps()
    at: datetime | None = None
    """When the look was done."""


class Unhealthy(GiveUp):
    """A system answers, and what it says is not well."""


class HealthMonitor:
    """Looks at store, Temporal, Vault, workers and sweeps, at the same time and each bounded."""

    def __init__(self, *, store: Store, gateway: TemporalGateway, vault_addr: str, client: httpx.AsyncClient) -> None:
        self._store = store
        self._gateway = gateway
        self._vault_addr = vault_addr
        self._client = client
        self._since = datetime.now(UTC)
        self._lock = asyncio.Lock()
        self._last: tuple[float, HealthReport] | None = None
        self._report_task: asyncio.Task[HealthReport] | None = None

    async def report(self) -> HealthReport:
        """Return what a look found that is no older than a second."""
        async with self._lock:
            if self._last is None or time.monotonic() - self._last[0] > CACHE_TTL_S:
                found = await self._check_all()
                self._last = time.monotonic(), found
            return self._last[1]

    async def report_within(self, timeout_s: float) -> HealthReport | None:
        """Return a look if it is done within so many seconds, else the one before it, None where there was none.

        The look goes on for whoever comes next: a page never waits for a system that is away.
        """
        if self._report_task is None or self._report_task.done():
            self._report_task = asyncio.create_task(self.report())
        done, _ = await asyncio.wait({self._report_task}, timeout=timeout_s)
        return self._report_task.result() if done else self._last and self._last[1]

    async def _check_all(self) -> HealthReport:
        overdue: list[OverdueCounts] = []
        sweeps: list[Sweeps] = []

        async def look_at_store() -> None:
            overdue.append(await to_thread.run_sync(self._store.metrics.overdue, abandon_on_cancel=True))

        async def look_at_sweeps() -> None:
            sweeps.append(self._sweep_status(await self._gateway.last_sweep()))

        looks = {
            "store": look_at_store,
            "temporal": self._gateway.ping,
            "vault": self._check_vault,
            "workers": self._check_workers,
            "sweep": look_at_sweeps,
        }
        *checks, sweep = await asyncio.gather(*(_run_check(name, look) for name, look in looks.items()))
        # How old the last sweep is does not make the rest less ready; it is told apart.
        unseen = Sweeps(late=not sweep.ok)
        return HealthReport(checks=tuple(checks), overdue=next(iter(overdue), None), sweep=next(iter(sweeps), unseen), at=datetime.now(UTC))

    def _sweep_status(self, ended: datetime | None) -> Sweeps:
        now = datetime.now(UTC)
        age = max(0, round((now - ended).total_seconds())) if ended else None
        return Sweeps(last_ended_at=ended, age_seconds=age, late=is_sweep_late(ended, since=self._since, now=now))

    async def _check_vault(self) -> None:
        answer = await self._client.get(f"{self._vault_addr}/v1/sys/health", params={"standbyok": "true"}, timeout=CHECK_TIMEOUT_S)
        if answer.status_code != 200:
            raise Unhealthy(VAULT_STATUS_TEXT.get(answer.status_code, f"answered {answer.status_code}"))

    async def _check_workers(self) -> None:
        silent = find_unpolled_queues(await self._gateway.last_polls(), now=datetime.now(UTC))
        if silent:
            raise Unhealthy(
                "; ".join(
                    f"no worker polls {queue}: {ENDINGS_WAIT_TEXT if queue.endswith('-endings') else JOBS_WAIT_TEXT}" for queue in silent
                )
            )


async def _run_check(name: str, check: Callable[[], Awaitable[None]]) -> Check:
    began, detail = time.perf_counter(), ""
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            await check()
    except TimeoutError:
        detail = f"no answer in {CHECK_TIMEOUT_S:g} s"
    except JustEnoughError as error:
        detail = str(error)
    except httpx.HTTPError as error:
        detail = f"does not answer ({type(error).__name__})"
    return Check(name=name, ok=not detail, ms=round((time.perf_counter() - began) * 1000, 1), detail=detail)
