"""Checks whether the systems that an installation needs answer, how fast, and which revocations and sweeps are late. Names no job."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import TypeVar

import httpx
from anyio import CapacityLimiter, to_thread

from console.concurrency.caches import SingleFlightCache
from console.temporal.client import TemporalGateway
from justenough.adapters.store.metrics import OverdueCounts
from justenough.domain.core.base_model import Message
from justenough.domain.core.errors import GiveUp, JustEnoughError
from justenough.domain.ledger.overdue import MAX_REPORT_AGE, find_unpolled_queues, is_sweep_late
from justenough.domain.readmodel.views import TargetCheck, WorkerView
from justenough.services.dependencies import Deps

T = TypeVar("T")

CHECK_TIMEOUT_S = 2.0
MAX_HANGING = 4
"""Maximum number of checks of one system that may hang at once after their callers have given up."""
CACHE_TTL_S = 1.0
MAX_REPORT_AGE_SHOWN = timedelta(seconds=10)
"""An older report is not shown: a system that has hung since then would look healthy."""
WHOLE_INSTALLATION = "installation"
VAULT_STATUS_TEXT = {
    429: "answered 429: a standby node that does not serve requests",
    501: "is not initialised (bao operator init)",
    503: "is sealed (bao operator unseal)",
}
JOBS_WAIT_TEXT = "jobs wait"
ENDINGS_WAIT_TEXT = "the access of jobs that are killed, or whose worker died, is not revoked"


class Check(Message):
    """The result of checking one system."""

    name: str
    ok: bool
    ms: float
    detail: str = ""


class Sweeps(Message):
    """The sweeps, as workers recorded them."""

    last_ended_at: datetime | None = None
    """When the last completed sweep ended; None if none is known."""
    age_seconds: int | None = None
    late: bool = False
    by_clock: bool = False
    """Whether a worker began the last sweep by its own clock, because no sweep came through Temporal: its schedule or its task is missing."""


class Targets(Message):
    """The health of the catalog's targets in the last sweep."""

    known: int = 0
    failing: tuple[TargetCheck, ...] = ()
    """Targets where users could not be found or ended, so no revocation in them can be verified; those failing longest come first."""
    checked_at: datetime | None = None
    """None if no target is known, because no sweep has ended yet or the catalog has none."""
    late: bool = False
    """Whether no sweep has checked them for MAX_SWEEP_AGE."""


class HealthReport(Message):
    """The result of checking every system."""

    checks: tuple[Check, ...]
    overdue: OverdueCounts | None = None
    """None if the store does not answer."""
    workers: tuple[WorkerView, ...] = ()
    """Workers that have reported within MAX_REPORT_AGE; none if the store does not answer."""
    targets: Targets = Targets()
    sweep: Sweeps = Sweeps()
    at: datetime | None = None
    """When the checks ended."""

    def config_alarm(self, own: str | None) -> str | None:
        """Return why the newest configuration is not in force, in this console (`own`) or in workers; None if it is in force."""
        theirs = (f"worker {worker.name}: {worker.config_alarm}" for worker in self.workers if worker.config_alarm)
        return "\n".join(filter(None, (own, *theirs))) or None


class Unhealthy(GiveUp):
    """A system answers, but reports that it is not healthy."""


class HealthMonitor:
    """Checks store, Temporal, Vault, workers and sweeps concurrently, each with a timeout. Callers within CACHE_TTL_S share a result."""

    def __init__(self, deps: Deps, gateway: TemporalGateway, client: httpx.AsyncClient) -> None:
        self._store, self._vault, self._now = deps.store, deps.vault, deps.now
        self._gateway = gateway
        self._client = client
        # A check that hangs must not use up the threads of the others.
        self._store_threads, self._vault_threads = CapacityLimiter(MAX_HANGING), CapacityLimiter(MAX_HANGING)
        self._since = self._now()
        self._cache = SingleFlightCache(self._check_all)

    async def report(self) -> HealthReport:
        """Return a report that is at most CACHE_TTL_S old."""
        return await self._cache.get(WHOLE_INSTALLATION, max_age_s=CACHE_TTL_S)

    async def report_within(self, timeout_s: float) -> HealthReport | None:
        """Return a current report if it is ready in time, else the last one, or None if that is too old. The checks continue and serve the next caller."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self.report()
        except TimeoutError:
            last = self._cache.last(WHOLE_INSTALLATION)
            return last if last and last.at and self._now() - last.at <= MAX_REPORT_AGE_SHOWN else None

    async def _check_all(self, _key: str) -> HealthReport:
        (store, figures), (temporal, _), (vault, _), (workers, _), (_, sweep) = await asyncio.gather(
            _run_check("store", self._check_store),
            _run_check("temporal", self._gateway.ping),
            _run_check("vault", self._check_vault),
            _run_check("workers", self._check_workers),
            _run_check("sweep", self._check_sweeps),
        )
        # A late sweep does not make the installation less ready, so it is reported separately. An unknown sweep counts as late.
        overdue, reported, targets = figures or (None, (), Targets())
        return HealthReport(
            checks=(store, temporal, vault, workers),
            overdue=overdue,
            workers=reported,
            targets=targets,
            sweep=sweep or Sweeps(late=True),
            at=self._now(),
        )

    async def _check_store(self) -> tuple[OverdueCounts, tuple[WorkerView, ...], Targets]:
        def check() -> tuple[OverdueCounts, tuple[WorkerView, ...], Targets]:
            now = self._now()
            self._store.probe_write(now)
            targets = self._store.targets.all()
            failing = sorted((target for target in targets if target.failure is not None), key=lambda target: target.since)
            checked_at = min((target.checked_at for target in targets), default=None)
            late = checked_at is not None and is_sweep_late(checked_at, since=checked_at, now=now)
            seen = Targets(known=len(targets), failing=tuple(failing), checked_at=checked_at, late=late)
            return self._store.metrics.overdue(), self._store.workers.seen_since(now - MAX_REPORT_AGE), seen

        return await to_thread.run_sync(check, abandon_on_cancel=True, limiter=self._store_threads)

    async def _check_vault(self) -> None:
        # Asked without a namespace: only the root namespace has sys/health.
        url, params = f"{self._vault.address}/v1/sys/health", {"standbyok": "true"}
        response = await self._client.get(url, params=params, timeout=CHECK_TIMEOUT_S)
        if response.status_code != 200:
            raise Unhealthy(VAULT_STATUS_TEXT.get(response.status_code, f"answered {response.status_code}"))
        # Vault does not audit sys/health, and answers nothing else while its audit log cannot be written.
        await to_thread.run_sync(self._vault.require_audited_answer, abandon_on_cancel=True, limiter=self._vault_threads)
        # Without this key no job can be launched.
        await self._gateway.prepare_encryption()

    async def _check_workers(self) -> None:
        unpolled = find_unpolled_queues(await self._gateway.last_polls(), now=self._now())
        if unpolled:
            texts = (f"no worker polls {name}: {ENDINGS_WAIT_TEXT if name.endswith('-endings') else JOBS_WAIT_TEXT}" for name in unpolled)
            raise Unhealthy("; ".join(texts))

    async def _check_sweeps(self) -> Sweeps:
        last = await to_thread.run_sync(self._store.sweeps.last, abandon_on_cancel=True, limiter=self._store_threads)
        ended, now = last.ended_at if last else None, self._now()
        return Sweeps(
            last_ended_at=ended,
            age_seconds=max(0, round((now - ended).total_seconds())) if ended else None,
            late=is_sweep_late(ended, since=self._since, now=now),
            by_clock=last is not None and last.by_clock,
        )


async def _run_check(name: str, check: Callable[[], Awaitable[T]]) -> tuple[Check, T | None]:
    """Return the outcome of a check, and its result if it succeeded."""
    began, detail, result = time.perf_counter(), "", None
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            result = await check()
    except TimeoutError:
        detail = f"no answer in {CHECK_TIMEOUT_S:g} s"
    except JustEnoughError as error:
        detail = str(error)
    except httpx.HTTPError as error:
        detail = f"does not answer ({type(error).__name__})"
    return Check(name=name, ok=not detail, ms=round((time.perf_counter() - began) * 1000, 1), detail=detail), result
