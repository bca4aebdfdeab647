"""A job that makes too many requests at once is told to wait before any is examined, and takes no more than its share."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, nullcontext
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from activities.broker import broker as broker_module
from activities.broker.broker import MAX_CALL_BURST, MAX_CALLS_PER_SECOND, MAX_NOTIFY_INTERVAL_S, MAX_REFUSALS_RECORDED, MAX_THREADS, Broker
from activities.broker.errors import TooManyCalls
from activities.broker.llm import gateway
from activities.broker.llm.gateway import MAX_CONCURRENT_PARSES, ModelGateway
from activities.broker.llm.openai_api import InvalidChatRequest
from activities.broker.tools.gateway import MAX_CONCURRENT_CALLS, ToolGateway
from activities.issuing.issuer import MAX_LIVE_CREDENTIALS, Issuer
from activities.issuing.lease_keeper import MAX_LEASE_THREADS, LeaseKeeper
from activities.issuing.results import PendingRequest
from activities.revocation import revoke
from justenough.domain.catalog.models import Catalog
from justenough.domain.core.redaction import Redactor
from justenough.domain.core.secret import Secret
from justenough.domain.jobs.spec import MAX_APPROVAL_REQUESTS_PER_JOB, MAX_TIMEOUT_S, ModelUse
from justenough.domain.jobs.states import RequestState
from justenough.services.job_history import JobHistory


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


async def test_a_job_has_only_a_limited_number_of_tool_calls_under_way() -> None:
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


def test_a_large_request_counts_as_several_even_beyond_the_limit() -> None:
    now, nobody = [0.0], cast("Any", None)
    told: Any = SimpleNamespace(statement=SimpleNamespace(job="j-test"), spec=None)
    counting = Broker(cast("Any", SimpleNamespace(ticks=lambda: now[0])), told, nobody, nobody, nobody, owner="", notify_workflow=nobody)
    counting.admit()
    counting.charge(MAX_CALL_BURST + MAX_CALLS_PER_SECOND)
    with pytest.raises(TooManyCalls) as refused:
        counting.admit()
    # The bucket owes one second's calls for the admitted call, and needs one token for the next.
    assert refused.value.retry_after == pytest.approx(1 + 2 / MAX_CALLS_PER_SECOND)
    now[0] += refused.value.retry_after
    counting.admit()


async def test_only_a_few_model_requests_of_one_job_are_parsed_at_a_time() -> None:
    told: Any = SimpleNamespace(statement=SimpleNamespace(job="j-test"), spec=SimpleNamespace(run=SimpleNamespace(timeout=1)))
    deps: Any = SimpleNamespace(ticks=lambda: 0.0)
    models = ModelGateway(deps, told, cast("Broker", Knocked()), ModelUse(name="default", requests=1, tokens=1))
    lock, most, now = threading.Lock(), 0, 0

    def read() -> dict[str, Any]:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        # Wait until the others would be here, too, if they were let in.
        together.wait(0.2)
        with lock:
            now -= 1
        raise InvalidChatRequest("it is none")

    together = threading.Event()
    found = await asyncio.gather(*(models.chat(read) for _ in range(8)), return_exceptions=True)
    assert {type(one) for one in found} == {InvalidChatRequest}
    assert most == MAX_CONCURRENT_PARSES


async def test_model_calls_wait_for_an_approval_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "APPROVAL_WAIT_S", 0.5)
    waits = []

    class UndecidedBroker:
        @asynccontextmanager
        async def borrow(self, access: object, *, used_for: str, wait: float) -> AsyncIterator[PendingRequest]:
            waits.append(wait)
            await asyncio.sleep(wait)
            yield PendingRequest("r-1", tier=1)

    told: Any = SimpleNamespace(statement=SimpleNamespace(job="j-test"), spec=SimpleNamespace(run=SimpleNamespace(timeout=1)))
    catalog = Catalog.model_validate(
        {
            "resources": {
                "api": {
                    "title": "x",
                    "environment": "prod",
                    "sensitivity": "internal",
                    "owner": "x",
                    "actions": {"read": {"issue": {"path": "kv/data/x"}, "policy": "je-grant-api-read", "max_ttl": "1h"}},
                }
            },
            "models": {"default": {"uses": {"resource": "api"}, "url": "https://models.example/v1", "allow": ["x"]}},
        }
    )
    deps: Any = SimpleNamespace(ticks=time.monotonic, config=SimpleNamespace(current=lambda: SimpleNamespace(catalog=catalog)))
    models = ModelGateway(deps, told, cast("Broker", UndecidedBroker()), ModelUse(name="default", requests=9, tokens=9))
    monkeypatch.setattr(models.usage, "count_call", lambda *_: None)
    found = await asyncio.gather(*(models.chat(lambda: {"model": "x", "messages": []}) for _ in range(8)), return_exceptions=True)
    assert [getattr(error, "code", error) for error in found] == ["waiting_for_approval"] * 8
    assert len(waits) == 8
    assert sum(waits) < 8 * 0.5 / 2, "whoever waits for the lock meanwhile waits no longer afterwards"


class SlowServer:
    """A store or a Vault that answers nobody until it is released, and knows how many threads wait for it."""

    def __init__(self) -> None:
        self._released, self._lock = threading.Event(), threading.Lock()
        self.waiting = self.answered = 0

    def call(self, *_: object, **__: object) -> Any:
        """Answer once released, for a revocation: that it is confirmed."""
        with self._lock:
            self.waiting += 1
        self._released.wait()
        with self._lock:
            self.answered += 1
        return SimpleNamespace(confirmed=True, events=())

    async def count_threads(self, work: list[Awaitable[object]], *, room: int) -> int:
        """Return how many threads of a pool with room for all of the work wait at the same time; release them and await the work."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(room) as pool:
            loop.set_default_executor(pool)
            try:
                tasks = [asyncio.ensure_future(each) for each in work]
                for _ in range(3):
                    # Once this call has run in a thread, every earlier call has, too.
                    await asyncio.to_thread(lambda: None)
                found = self.waiting
                self._released.set()
                await asyncio.gather(*tasks)
            finally:
                self._released.set()
                # Other tests use the same loop.
                loop.set_default_executor(ThreadPoolExecutor())
        return found


async def test_refusals_of_one_job_take_no_more_of_the_workers_threads_than_its_calls() -> None:
    told: Any = SimpleNamespace(statement=SimpleNamespace(job="j-test"), spec=None)
    server, nobody = SlowServer(), cast("Any", None)
    store = SimpleNamespace(ledger=SimpleNamespace(append=server.call))
    deps = cast("Any", SimpleNamespace(ticks=lambda: 0.0, now=lambda: datetime.now(UTC), store=store))
    broker = Broker(deps, told, nobody, nobody, nobody, owner="", notify_workflow=nobody)
    refusals: list[Awaitable[object]] = [broker.record_refusal("a request", "it is wrong") for _ in range(MAX_REFUSALS_RECORDED)]
    assert await server.count_threads(refusals, room=2 * MAX_REFUSALS_RECORDED) <= MAX_THREADS
    assert server.answered == MAX_REFUSALS_RECORDED


async def test_credentials_of_one_job_that_end_together_take_few_of_the_workers_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    server = SlowServer()
    monkeypatch.setattr(revoke, "revoke_by_handle", server.call)
    issuer = cast("Any", SimpleNamespace(others_beside=lambda _: (), forget=lambda *_: None))
    deps = cast("Any", SimpleNamespace(ticks=lambda: 0.0, now=lambda: datetime.now(UTC)))
    keeper = LeaseKeeper(deps, "j-test", issuer)
    over: Callable[..., float] = lambda **_: 0.0  # noqa: E731 - the time of each credential is over
    for number in range(MAX_LIVE_CREDENTIALS):
        item = SimpleNamespace(credential=SimpleNamespace(id=f"c-{number}"), lease_seconds=None, began=0.0, seconds_left=over)
        keeper.keep(cast("Any", item))
    endings: list[Awaitable[object]] = [task for _, task in keeper._keepers.values()]
    assert await server.count_threads(endings, room=2 * MAX_LIVE_CREDENTIALS) <= MAX_LEASE_THREADS
    assert server.answered == MAX_LIVE_CREDENTIALS


@pytest.mark.parametrize("requests", [1, MAX_APPROVAL_REQUESTS_PER_JOB])
async def test_requests_that_nobody_opens_use_up_few_of_the_signals_that_temporal_accepts(
    monkeypatch: pytest.MonkeyPatch, requests: int
) -> None:
    sent, longest, slept, sleep_now = 0, 0.0, dict[object, float](), asyncio.sleep

    async def sleep(seconds: float) -> None:
        nonlocal longest
        task = asyncio.current_task()
        slept[task], longest = slept.get(task, 0.0) + seconds, max(longest, seconds)
        await (sleep_now(0) if slept[task] < MAX_TIMEOUT_S else asyncio.Event().wait())

    async def notify(_: str) -> None:
        nonlocal sent
        sent += 1

    monkeypatch.setattr(asyncio, "sleep", sleep)
    told: Any = SimpleNamespace(statement=SimpleNamespace(job="j-test"), spec=None)
    unopened = SimpleNamespace(expires_at=None, state=RequestState.PENDING)
    store = SimpleNamespace(requests=SimpleNamespace(get=lambda _: unopened))
    deps, nobody = cast("Any", SimpleNamespace(ticks=lambda: 0.0, store=store)), cast("Any", None)
    broker = Broker(deps, told, nobody, nobody, nobody, owner="", notify_workflow=notify)
    for number in range(requests):
        broker._notifying[f"r-test-{number}"] = asyncio.create_task(broker._notify_until_opened(f"r-test-{number}"))
    while len(slept) < requests or min(slept.values()) < MAX_TIMEOUT_S:
        await sleep_now(0.01)
    broker.close()
    assert requests < sent < 5_000
    # A request that could not be opened is notified again soon after an outage, however long the outage was.
    assert longest <= MAX_NOTIFY_INTERVAL_S * requests


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(None, id="the store lost it"),
        pytest.param(SimpleNamespace(expires_at=datetime.now(UTC), state=RequestState.PENDING), id="people were asked"),
        pytest.param(SimpleNamespace(expires_at=None, state=RequestState.WITHDRAWN), id="nobody needs it"),
    ],
)
async def test_a_workflow_is_not_notified_again_of_a_request_that_it_opened_or_cannot_open(
    monkeypatch: pytest.MonkeyPatch, view: object
) -> None:
    sent: list[str] = []

    async def notify(request: str) -> None:
        sent.append(request)

    monkeypatch.setattr(broker_module, "NOTIFY_INTERVAL_S", 0.0)
    told: Any = SimpleNamespace(statement=SimpleNamespace(job="j-test"), spec=None)
    store = SimpleNamespace(requests=SimpleNamespace(get=lambda _: view))
    deps, nobody = cast("Any", SimpleNamespace(ticks=lambda: 0.0, store=store)), cast("Any", None)
    broker = Broker(deps, told, nobody, nobody, nobody, owner="", notify_workflow=notify)
    async with asyncio.timeout(10):
        await broker._notify_until_opened("r-test-1")
    assert sent == ["r-test-1"]


async def test_a_vault_that_is_slow_to_sign_an_identity_token_does_not_delay_other_access(monkeypatch: pytest.MonkeyPatch) -> None:
    signing, over = threading.Event(), threading.Event()

    def sign_slowly(*_: object, **__: object) -> Secret:
        signing.set()
        assert over.wait(60)
        return Secret("token")

    monkeypatch.setattr(broker_module, "issue_identity_token", sign_slowly)
    config = SimpleNamespace(hold=nullcontext)
    deps: Any = SimpleNamespace(ticks=lambda: 0.0, now=lambda: datetime.now(UTC), config=config)
    verified: Any = SimpleNamespace(statement=SimpleNamespace(job="j-test"), spec=SimpleNamespace(data_scope={}, access=()))
    order, nobody = cast("Any", SimpleNamespace(job="j-test", bundle=None)), cast("Any", None)
    issuer = Issuer(deps, order, verified, JobHistory(), owner="")
    broker = Broker(deps, verified, issuer, nobody, Redactor(()), owner="", notify_workflow=nobody)
    identity = asyncio.create_task(broker.identity("https://helpdesk.example"))
    try:
        assert await asyncio.to_thread(signing.wait, 60)
        assert await asyncio.wait_for(asyncio.to_thread(issuer.verified_order), 60) is verified
    finally:
        over.set()
    assert (await identity)[0].reveal() == "token"
