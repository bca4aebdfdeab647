"""A job that asks for more at once than any needs to is told to wait, before anything is looked at, and takes no more than its share."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from activities.broker.broker import MAX_CALL_BURST, MAX_CALLS_PER_SECOND, Broker, PendingRequest
from activities.broker.errors import TooManyCalls
from activities.broker.llm.gateway import MAX_CONCURRENT_PARSES, ModelGateway
from activities.broker.llm.openai_api import InvalidChatRequest
from activities.broker.tools.gateway import MAX_CONCURRENT_CALLS, ToolGateway
from justenough.domain.jobs.spec import ModelUse


class Knocked:
    """A door in front of calls that never end."""

    def __init__(self) -> None:
        self.made = 0

    async def run_in_thread(self, call: Any) -> None:
        del call
        self.made += 1
        await asyncio.Event().wait()

    async def run_while_open(self, doing: Any) -> Any:
        return await doing


def tools_behind(door: Any) -> ToolGateway:
    told: Any = SimpleNamespace(statement=SimpleNamespace(job="j-test"), spec=SimpleNamespace(environment="test"))
    return ToolGateway(cast("Any", None), told, cast("Any", None), cast("Broker", door))


async def ignore_progress(pending: PendingRequest, seconds: float) -> None:
    """Hear of progress."""


async def test_so_many_calls_are_under_way_and_no_more() -> None:
    door = Knocked()
    tools = tools_behind(door)
    under_way = [
        asyncio.create_task(tools.call("find", {}, report_progress=ignore_progress, max_wait=1)) for _ in range(MAX_CONCURRENT_CALLS)
    ]
    while door.made < MAX_CONCURRENT_CALLS:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0)
    with pytest.raises(TooManyCalls):
        await tools.call("find", {}, report_progress=ignore_progress, max_wait=1)
    under_way[0].cancel()
    await asyncio.wait(under_way[:1])
    again = asyncio.create_task(tools.call("find", {}, report_progress=ignore_progress, max_wait=1))
    while door.made <= MAX_CONCURRENT_CALLS:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0)
    for task in (*under_way, again):
        task.cancel()
    await asyncio.wait({*under_way, again})


def test_a_large_request_counts_as_several_and_may_leave_a_debt() -> None:
    now, nobody = [0.0], cast("Any", None)
    told: Any = SimpleNamespace(statement=SimpleNamespace(job="j-test"), spec=None)
    counting = Broker(cast("Any", SimpleNamespace(ticks=lambda: now[0])), told, nobody, nobody, nobody, owner="", notify_workflow=nobody)
    counting.admit()
    counting.charge(MAX_CALL_BURST + MAX_CALLS_PER_SECOND)
    with pytest.raises(TooManyCalls) as refused:
        counting.admit()
    # One call that was admitted, one second's calls owed, and one token for the next.
    assert refused.value.retry_after == pytest.approx(1 + 2 / MAX_CALLS_PER_SECOND)
    now[0] += refused.value.retry_after
    counting.admit()


async def test_few_questions_of_one_job_are_values_at_a_time() -> None:
    told: Any = SimpleNamespace(statement=SimpleNamespace(job="j-test"), spec=SimpleNamespace(run=SimpleNamespace(timeout=1)))
    deps: Any = SimpleNamespace(ticks=lambda: 0.0)
    models = ModelGateway(deps, told, cast("Broker", Knocked()), ModelUse(name="default", requests=1, tokens=1))
    lock, most, now = threading.Lock(), 0, 0

    def read() -> dict[str, Any]:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        # Until the others would be here too, were they let in.
        together.wait(0.2)
        with lock:
            now -= 1
        raise InvalidChatRequest("it is none")

    together = threading.Event()
    found = await asyncio.gather(*(models.chat(read) for _ in range(8)), return_exceptions=True)
    assert {type(one) for one in found} == {InvalidChatRequest}
    assert most == MAX_CONCURRENT_PARSES
