"""Long work runs once for all who request it at the same time, in turns, and its outcome is kept. The work in these tests waits for a
command.
"""

from __future__ import annotations

import asyncio

import pytest

from console.services.background_reads import Busy, SingleFlight
from justenough.domain.core.errors import GiveUp
from justenough.services.dependencies import utc_now


class Bench:
    """Work that goes on when the test says so."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.entered: asyncio.Queue[str] = asyncio.Queue()
        self.most = self.now = 0
        self.go_on = asyncio.Event()

    async def work(self, key: str) -> str:
        self.begun.append(key)
        self.entered.put_nowait(key)
        self.now += 1
        self.most = max(self.most, self.now)
        await self.go_on.wait()
        self.now -= 1
        if key == "bad":
            message = "it cannot be done"
            raise GiveUp(message)
        if key == "broken":
            raise RuntimeError(key)
        return key.upper()


async def test_concurrent_callers_share_one_run_of_the_work() -> None:
    bench = Bench()
    works = SingleFlight(bench.work, now=utc_now)
    waiting = [asyncio.create_task(works.result("a", by=who)) for who in ("lead", "chief")]
    await bench.entered.get()
    work = works.get("a")
    assert work is not None
    assert (work.is_running, work.by) == (True, "lead")
    bench.go_on.set()
    assert await asyncio.gather(*waiting) == ["A", "A"]
    assert bench.begun == ["a"]
    done = works.get("a")
    assert done is not None
    assert (done.is_running, done.outcome) == (False, "A")
    assert await works.result("a", by="lead") == "A"
    assert bench.begun == ["a", "a"]


async def test_concurrent_runs_are_limited_and_old_outcomes_are_forgotten() -> None:
    bench = Bench()
    works = SingleFlight(bench.work, now=utc_now, max_concurrency=2, max_outcomes=3)
    waiting = [asyncio.create_task(works.result(key, by=f"{key}-person")) for key in "abcdef"]
    assert [await bench.entered.get(), await bench.entered.get()] == ["a", "b"]
    assert len(works.items()) == 6
    bench.go_on.set()
    assert await asyncio.gather(*waiting) == list("ABCDEF")
    assert bench.most == 2
    await works.result("g", by="lead")
    assert [key for key, _ in works.items()] == ["g", "f", "e"]


async def test_a_caller_that_stops_waiting_does_not_cancel_the_work_for_others() -> None:
    bench = Bench()
    works = SingleFlight(bench.work, now=utc_now)
    gone, stays = (asyncio.create_task(works.result("a", by=who)) for who in ("lead", "chief"))
    await bench.entered.get()
    gone.cancel()
    bench.go_on.set()
    assert await stays == "A"


async def test_a_failure_is_raised_to_every_caller_and_the_work_can_be_started_again() -> None:
    bench = Bench()
    bench.go_on.set()
    works = SingleFlight(bench.work, now=utc_now, max_outcomes=2)
    with pytest.raises(GiveUp, match="it cannot be done"):
        await works.result("bad", by="lead")
    with pytest.raises(Exception, match="the console's log has the details"):
        await works.result("broken", by="lead")
    assert [str(work.error) for _, work in works.items()] == [
        "unexpected error; the console's log has the details",
        "it cannot be done",
    ]
    await works.close()


async def test_one_person_can_start_only_a_limited_number_of_runs() -> None:
    bench = Bench()
    works = SingleFlight(bench.work, now=utc_now, max_per_person=2)
    for key in "ab":
        works.start(key, by="greedy")
    with pytest.raises(Busy, match="2 checks or reports that you started are still running"):
        works.start("c", by="greedy")
    assert works.start("a", by="greedy").is_running, "what is being done is joined"
    waiting = asyncio.create_task(works.result("d", by="lead"))
    bench.go_on.set()
    assert await waiting == "D"
    assert bench.begun == ["a", "b", "d"]
    assert works.start("c", by="greedy").is_running
    await works.close()
