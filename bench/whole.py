"""Benchmarks of the whole stack: our jobs and the floor's take turns on the same servers, so that a slow machine slows both."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from temporalio.common import RawValue

from bench import floor, processes
from bench.figures import Figure, p50, p99
from bench.loads import Crew, Run, at_once, spec
from justenough.domain.core.ids import request_id

Tell = Callable[[str], None]
REST = 0.15
"""Pause before each job that runs alone: Vault still revokes the floor's login after the floor has returned."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much to measure."""

    jobs: int
    """Jobs in a parallel series."""
    many: int
    """Parallel jobs."""
    rounds: int
    """How often the floor and our jobs take turns."""
    alone: int
    """Jobs that run one at a time."""


@dataclass(frozen=True, slots=True)
class Whole:
    """One stack's processes, its people, and the function that prints progress."""

    pids: Mapping[str, int]
    crew: Crew
    size: Size
    tell: Tell

    async def measure(self) -> list[Figure]:
        """Return all figures, measured after a warm-up."""
        fresh = self._memory()
        self.tell("warming up")
        await self._floor(self.size.many, self.size.many)
        await self._ours(self.size.many, self.size.many)
        figures = [*await self.throughput(), *await self.alone(), *await self.guarded(), await self.ending(), await self.approval()]
        what, note = "idle memory of worker and console (resident)", f"after all of the above; {fresh:.0f} MB before it"
        return [*figures, Figure("memory_idle", what, self._memory(), "MB", at_most=250, note=note)]

    async def throughput(self) -> list[Figure]:
        """Run many jobs in parallel."""
        size, floors, ours, signed = self.size, [], [], []
        for number in range(size.rounds):
            self.tell(f"{size.jobs} jobs, {size.many} at once: round {number + 1} of {size.rounds}")
            floors.append(await self._floor(size.jobs, size.many))
            ours.append(await self._ours(size.jobs, size.many))
            signed.append(await self._ours(size.jobs // 3, size.many, signing=True))
        base, what = _rate(floors), f"auto-approved jobs per second, {size.many} at once"
        rounds = "by round: " + ", ".join(
            f"{mine.per_second:.1f} to {theirs.per_second:.1f}" for mine, theirs in zip(ours, floors, strict=True)
        )
        return [
            Figure("jobs_per_second", what, _rate(ours), "/s", floor=base, at_least=0.8, of="ratio", note=rounds),
            Figure("jobs_per_second_signing", f"{what}, signing included", _rate(signed), "/s", floor=base),
            _processor_figure(ours, floors),
        ]

    async def alone(self) -> list[Figure]:
        """Run jobs and floor one at a time, in turns."""
        self.tell(f"{self.size.alone} jobs, one at a time")
        orders = await self.crew.orders(spec(), self.size.alone)
        floors, ours, signed = [], [], []
        for order in orders:
            floors.append(await _after_rest(floor.run_once(self.crew.temporal)))
            ours.append(await _after_rest(self.crew.run(order)))
            signed.append(await _after_rest(self.crew.sign_and_run(spec())))
        await self.crew.must_be_clean(orders)
        lengths = [await self._history_length(order["id"]) for order in orders]
        base, what = p50(floors) * 1e3, "submit → closed and confirmed clean, one at a time, p50"
        note = f"p99 {p99(ours) * 1e3:.0f} ms, floor's {p99(floors) * 1e3:.0f} ms"
        return [
            Figure("job_p50", what, p50(ours) * 1e3, "ms", floor=base, at_most=1.0, of="ratio", note=note),
            Figure("job_p50_signing", f"{what}, signing included", p50(signed) * 1e3, "ms", floor=base),
            Figure("history_events", "history of an auto-approved job", max(lengths), "events", at_most=30),
        ]

    async def guarded(self) -> list[Figure]:
        """Run many jobs in parallel, each with a write that a person approves, and so with a guard."""
        size = self.size
        jobs, rounds, rates, floors, lengths = size.jobs // 2, max(1, size.rounds - 1), [], [], []
        for number in range(rounds):
            self.tell(f"{jobs} approved jobs, {size.many} at once: round {number + 1} of {rounds}")
            floors.append(await self._floor(jobs, size.many))
            orders = await self.crew.orders(spec("write"), jobs)
            async with self.crew.approving():
                rates.append(await at_once([partial(self.crew.run, order) for order in orders], size.many, self.pids))
            await self.crew.must_be_clean(orders)
            lengths += [await self._history_length(order["id"]) for order in orders[:5]]
        what = f"approved and guarded jobs per second, {size.many} at once, the approver's work included"
        return [
            Figure("guarded_jobs_per_second", what, _rate(rates), "/s", floor=_rate(floors), at_least=0.5, of="ratio"),
            Figure("history_events_approved", "history of an approved job", max(lengths), "events"),
        ]

    async def ending(self) -> Figure:
        """Measure from the last time that a job's process printed until its credential was confirmed revoked."""
        self.tell(f"{self.size.alone} endings, one at a time")
        orders = await self.crew.orders(spec(command=("date", "+%s.%N")), self.size.alone)
        seconds, revoking = [], []
        for order in orders:
            await _after_rest(self.crew.run(order))
            entries = await self._entries(order["id"])
            logs = (await self.crew.launcher.get(f"jobs/{order['id']}/logs"))["items"]
            confirmed = entries["credential.confirmed"]
            seconds.append(confirmed - float(logs[0]["text"]))
            revoking.append(confirmed - entries["revocation.started"])
        note = f"p50 {p50(seconds) * 1e3:.0f} ms, of which revoking and verifying {p50(revoking) * 1e3:.0f} ms"
        what = "process ends → every credential confirmed revoked, p99, idle"
        return Figure("ending_p99", what, p99(seconds) * 1e3, "ms", at_most=250, note=note)

    async def approval(self) -> Figure:
        """Measure from the post of an approval until its credential is issued, and until its workflow has recorded it."""
        count = max(1, self.size.alone // 2)
        self.tell(f"{count} approvals, one at a time")
        issued, counted = [], []
        for order in await self.crew.orders(spec("write"), count):
            job = await self.crew.launcher.launch(order)
            request = await self._wait_until_open(request_id(job, 1))
            signed = await self.crew.approver.approval(request)
            posted = time.time()
            await self.crew.approver.decide(request, signed)
            await self.crew.temporal.get_workflow_handle(job, result_type=RawValue).result()
            entries = await self._entries(job)
            issued.append(entries["credential.issued"] - posted)
            counted.append(entries["approval.decided"] - posted)
        note = f"counted after {p50(counted) * 1e3:.0f} ms; then the guard starts, and the session verifies everything again and issues"
        what = "approval posted → credential issued, p50"
        return Figure("approval_p50", what, p50(issued) * 1e3, "ms", at_most=50, note=note)

    def _memory(self) -> float:
        """Return the resident memory of worker and console in MB."""
        return sum(processes.resident(self.pids[name]) for name in ("worker", "console"))

    async def _floor(self, jobs: int, many: int) -> Run:
        return await at_once([partial(floor.run_once, self.crew.temporal)] * jobs, many, self.pids)

    async def _ours(self, jobs: int, many: int, *, signing: bool = False) -> Run:
        if signing:
            return await at_once([partial(self.crew.sign_and_run, spec())] * jobs, many, self.pids)
        orders = await self.crew.orders(spec(), jobs)
        run = await at_once([partial(self.crew.run, order) for order in orders], many, self.pids)
        await self.crew.must_be_clean(orders)
        return run

    async def _history_length(self, job: str) -> int:
        return int((await self.crew.temporal.get_workflow_handle(job).describe()).history_length)

    async def _entries(self, job: str) -> dict[str, float]:
        """Return the time of the last entry of each type, in seconds since the epoch."""
        items = (await self.crew.launcher.get(f"jobs/{job}/timeline", limit=1000))["items"]
        return {item["type"]: datetime.fromisoformat(item["at"]).timestamp() for item in items}

    async def _wait_until_open(self, request: str) -> Any:
        while True:
            response = await self.crew.approver.api.get(f"requests/{request}")
            if response.status_code == 200 and response.json()["current_tier"]:
                return response.json()


async def _after_rest(part: Awaitable[float]) -> float:
    await asyncio.sleep(REST)
    return await part


def _rate(runs: Sequence[Run]) -> float:
    return p50([run.per_second for run in runs])


def _processor_figure(ours: Sequence[Run], floors: Sequence[Run]) -> Figure:
    """Return the processor time per job of all processes. Other work on the machine disturbs it less than the wall time."""
    mine, theirs = _processor_ms(ours), _processor_ms(floors)
    note = ", ".join(f"{name} {mine[name]:.0f} to {theirs[name]:.0f}" for name in mine)
    what = "processor time for one auto-approved job, all processes"
    return Figure("processor_per_job", what, sum(mine.values()), "ms", floor=sum(theirs.values()), note=f"in ms, job to floor: {note}")


def _processor_ms(runs: Sequence[Run]) -> dict[str, float]:
    return {name: p50([run.processor_each[name] for run in runs]) * 1e3 for name in runs[0].used}
