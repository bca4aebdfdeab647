"""What is done over and over: jobs launched through the API and followed to their end, one at a time or many at once. Measures wall time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from temporalio.client import Client

from bench.people import Human

LOOK_EVERY = 0.05
LOGIN = {"env": {"PGUSER": "username", "PGPASSWORD": "password"}}


@dataclass(frozen=True, slots=True)
class Run:
    """One series: how long it took in all, and each of its parts, in seconds."""

    seconds: float
    each: tuple[float, ...]

    @property
    def per_second(self) -> float:
        """Parts per second."""
        return len(self.each) / self.seconds


@dataclass(frozen=True, slots=True)
class Crew:
    """Who launches, who approves, and the Temporal that tells when a workflow has closed, as it tells the floor's."""

    launcher: Human
    approver: Human
    temporal: Client

    async def orders(self, spec: dict[str, Any], count: int) -> list[dict[str, Any]]:
        """Return signed orders."""
        return list(await asyncio.gather(*(self.launcher.order(spec) for _ in range(count))))

    async def through(self, order: dict[str, Any]) -> float:
        """Launch a signed order and return the seconds until its workflow has closed, which it does after its proof."""
        began = time.perf_counter()
        job = await self.launcher.launch(order)
        await self.temporal.get_workflow_handle(job).result()
        return time.perf_counter() - began

    async def signed_through(self, spec: dict[str, Any]) -> float:
        """The same, with the signing of the order."""
        began = time.perf_counter()
        await self.through(await self.launcher.order(spec))
        return time.perf_counter() - began

    async def must_be_clean(self, orders: Sequence[dict[str, Any]]) -> None:
        """Fail unless each of these jobs succeeded, was issued something, and was confirmed clean."""
        for order in orders:
            seen = await self.launcher.get(f"jobs/{order['id']}")
            states = [item["state"] for item in seen["credentials"]]
            assert seen["state"] == "succeeded", seen
            assert seen["revocation"]["state"] == "confirmed", seen
            assert states == ["confirmed"] * len(order["spec"]["access"]), seen

    @asynccontextmanager
    async def approving(self) -> AsyncIterator[None]:
        """Approve whatever waits, for the length of a block, as an eager approver with a script would."""
        task = asyncio.create_task(self._approve())
        try:
            yield
        finally:
            task.cancel()

    async def _approve(self) -> None:
        seen: set[str] = set()
        async with asyncio.TaskGroup() as answers:
            while True:
                waiting = (await self.approver.get("requests", state="pending"))["items"]
                for request in waiting:
                    # A request is shown a moment before it is decided.
                    if request["current_tier"] and request["id"] not in seen:
                        seen.add(request["id"])
                        answers.create_task(self._answer(request))
                await asyncio.sleep(LOOK_EVERY)

    async def _answer(self, request: dict[str, Any]) -> None:
        await self.approver.answer(request, await self.approver.approval(request))


async def at_once(parts: Sequence[Callable[[], Awaitable[float]]], many: int) -> Run:
    """Run these, so many at once, and return how long it took."""
    gate = asyncio.Semaphore(many)

    async def gated(part: Callable[[], Awaitable[float]]) -> float:
        async with gate:
            return await part()

    began = time.perf_counter()
    each = await asyncio.gather(*(gated(part) for part in parts))
    return Run(time.perf_counter() - began, tuple(each))


def spec(action: str = "read", command: Sequence[str] = ("true",)) -> dict[str, Any]:
    """Return a job that does nothing, with one database login."""
    access = {"resource": "orders-db", "action": action, "ttl": "5m", "reason": "It is measured", "deliver": LOGIN}
    run = {"command": list(command), "timeout": "5m"}
    return {"name": "bench", "task": "Nothing", "environment": "prod", "data_scope": {"tenant": "acme"}, "run": run, "access": [access]}
