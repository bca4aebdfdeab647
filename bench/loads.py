"""Launches jobs through the API and waits for their end, one at a time or many at once. Measures wall time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from temporalio.client import Client
from temporalio.common import RawValue

from bench.people import Human
from bench.processes import Used, since, used

LOGIN = {"env": {"PGUSER": "username", "PGPASSWORD": "password"}}


@dataclass(frozen=True, slots=True)
class Run:
    """One series: the seconds that it took in all and for each of its parts."""

    seconds: float
    each: tuple[float, ...]
    used: Used
    """Processor time during the series, by process."""

    @property
    def per_second(self) -> float:
        """Parts per second."""
        return len(self.each) / self.seconds

    @property
    def processor_each(self) -> Used:
        """Processor seconds per part, by process."""
        return {name: seconds / len(self.each) for name, seconds in self.used.items()}


@dataclass(frozen=True, slots=True)
class Crew:
    """The person who launches, the person who approves, and the Temporal client that waits for our workflows and the floor's."""

    launcher: Human
    approver: Human
    temporal: Client

    async def orders(self, spec: dict[str, Any], count: int) -> list[dict[str, Any]]:
        """Return signed orders."""
        return list(await asyncio.gather(*(self.launcher.order(spec) for _ in range(count))))

    async def run(self, order: dict[str, Any]) -> float:
        """Launch a signed order and return the seconds until its workflow has closed, which it does after its proof."""
        began = time.perf_counter()
        job = await self.launcher.launch(order)
        # Encrypted; only that it has closed counts.
        await self.temporal.get_workflow_handle(job, result_type=RawValue).result()
        return time.perf_counter() - began

    async def sign_and_run(self, spec: dict[str, Any]) -> float:
        """Sign an order, launch it, and return the seconds until its workflow has closed."""
        began = time.perf_counter()
        await self.run(await self.launcher.order(spec))
        return time.perf_counter() - began

    async def must_be_clean(self, orders: Sequence[dict[str, Any]]) -> None:
        """Fail unless each job succeeded and every credential of it was issued and confirmed revoked."""
        for order in orders:
            job = await self.launcher.get(f"jobs/{order['id']}")
            states = [item["state"] for item in job["credentials"]]
            assert job["state"] == "succeeded", job
            assert job["revocation"]["state"] == "confirmed", job
            assert states == ["confirmed"] * len(order["spec"]["access"]), job

    @asynccontextmanager
    async def approving(self) -> AsyncIterator[None]:
        """Approve every request during a block, like a script that follows the events."""
        # Follow from an existing entry: a request that opens before the stream is connected must not be missed.
        newest = (await self.approver.get("jobs", limit=1))["items"][0]["id"]
        entries = (await self.approver.get(f"jobs/{newest}/timeline", limit=1000))["items"]
        task = asyncio.create_task(self._approve_requests(entries[-1]["position"]))
        try:
            yield
        finally:
            task.cancel()

    async def _approve_requests(self, after: int) -> None:
        async with asyncio.TaskGroup() as decisions, aclosing(self.approver.follow_events(after)) as events:
            async for entry in events:
                if entry["type"] == "dev.justenough.approval.opened.v1":
                    decisions.create_task(self._approve_request(entry["data"]["request"]))

    async def _approve_request(self, name: str) -> None:
        request = await self.approver.get(f"requests/{name}")
        if request["state"] == "pending":
            await self.approver.decide(request, await self.approver.approval(request))


async def at_once(parts: Sequence[Callable[[], Awaitable[float]]], many: int, pids: Mapping[str, int]) -> Run:
    """Run the parts, `many` at a time; return their times and the processor time of these processes."""
    gate = asyncio.Semaphore(many)

    async def gated(part: Callable[[], Awaitable[float]]) -> float:
        async with gate:
            return await part()

    before, began = used(pids), time.perf_counter()
    each = await asyncio.gather(*(gated(part) for part in parts))
    return Run(time.perf_counter() - began, tuple(each), since(before, used(pids)))


def spec(action: str = "read", command: Sequence[str] = ("true",)) -> dict[str, Any]:
    """Return the spec of a job that does nothing, with one database login."""
    access = {"resource": "orders-db", "action": action, "ttl": "5m", "reason": "It is measured", "deliver": LOGIN}
    run = {"command": list(command), "timeout": "5m"}
    return {"name": "bench", "task": "Nothing", "environment": "prod", "data_scope": {"tenant": "acme"}, "run": run, "access": [access]}
