"""What is done over and over: jobs launched through the API and followed to their end, one at a time or many at once. Measures wall time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from temporalio.client import Client

from bench.people import Human
from bench.processes import Used, since, used

LOGIN = {"env": {"PGUSER": "username", "PGPASSWORD": "password"}}


@dataclass(frozen=True, slots=True)
class Run:
    """One series: how long it took in all, and each of its parts, in seconds."""

    seconds: float
    each: tuple[float, ...]
    used: Used
    """Processor time meanwhile, by process."""

    @property
    def per_second(self) -> float:
        """Parts per second."""
        return len(self.each) / self.seconds

    @property
    def processor_each(self) -> Used:
        """Processor seconds that one part took, by process."""
        return {name: seconds / len(self.each) for name, seconds in self.used.items()}


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
        """Approve whatever is opened, for the length of a block, as a script that follows the events would."""
        # From an entry that is there already: what is opened before the stream stands must not be missed.
        newest = (await self.approver.get("jobs", limit=1))["items"][0]["id"]
        entries = (await self.approver.get(f"jobs/{newest}/timeline", limit=1000))["items"]
        task = asyncio.create_task(self._approve(entries[-1]["position"]))
        try:
            yield
        finally:
            task.cancel()

    async def _approve(self, after: int) -> None:
        async with asyncio.TaskGroup() as answers, aclosing(self.approver.followed(after)) as events:
            async for entry in events:
                if entry["type"] == "dev.justenough.approval.opened.v1":
                    answers.create_task(self._answer(entry["data"]["request"]))

    async def _answer(self, name: str) -> None:
        request = await self.approver.get(f"requests/{name}")
        if request["state"] == "pending":
            await self.approver.answer(request, await self.approver.approval(request))


async def at_once(parts: Sequence[Callable[[], Awaitable[float]]], many: int, pids: Mapping[str, int]) -> Run:
    """Run these, so many at once, and return how long it took, and how long these processes worked."""
    gate = asyncio.Semaphore(many)

    async def gated(part: Callable[[], Awaitable[float]]) -> float:
        async with gate:
            return await part()

    before, began = used(pids), time.perf_counter()
    each = await asyncio.gather(*(gated(part) for part in parts))
    return Run(time.perf_counter() - began, tuple(each), since(before, used(pids)))


def spec(action: str = "read", command: Sequence[str] = ("true",)) -> dict[str, Any]:
    """Return a job that does nothing, with one database login."""
    access = {"resource": "orders-db", "action": action, "ttl": "5m", "reason": "It is measured", "deliver": LOGIN}
    run = {"command": list(command), "timeout": "5m"}
    return {"name": "bench", "task": "Nothing", "environment": "prod", "data_scope": {"tenant": "acme"}, "run": run, "access": [access]}
