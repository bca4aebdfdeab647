"""Webhooks to a real receiver, with their secrets in a real Vault: what is sent and retried, what never blocks, and which addresses are
never contacted.
"""

from __future__ import annotations

import asyncio
import socket
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

from console.outbox import dispatcher, subscription_worker
from console.outbox.dispatcher import Dispatcher
from console.outbox.senders import WebhookSender
from justenough.adapters.outbound import webhook_client
from justenough.adapters.store.errors import StoreUnavailable
from justenough.adapters.store.outbox_queries import DeliveryState, OutboxRepository
from justenough.domain.integrations.cloudevents import read_event, to_cloud_event
from justenough.domain.integrations.retry_policy import GONE_REST_S, REFUSED_RETRY_DELAYS_S, RETRY_DELAYS_S
from justenough.domain.ledger.events import Event
from tests.adapters.store.event_samples import job_end, job_id, job_start, submission
from tests.console.outbox_rig import CURRENT, PREVIOUS, SECRET, OutboxRig, wait_until_idle
from tests.support.tls_authority import create_authority
from tests.support.webhook_receiver import CUT, ENDLESS_BODY, ENDLESS_HEADERS, HANG, Answer, Receiver

pytestmark = pytest.mark.servers


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver().listen() as found:
        yield found


def hook(receiver: Receiver | str, name: str = "siem", **more: Any) -> dict[str, Any]:
    url = receiver if isinstance(receiver, str) else receiver.url
    return {"name": name, "url": url, "events": ["*"], "signing_secret": SECRET, "allow_private": True, **more}


def submissions(count: int, *, first: int = 1) -> list[Event]:
    return [submission(job_id(number)) for number in range(first, first + count)]


async def start_webhooks(rig: OutboxRig, *hooks: dict[str, Any]) -> Dispatcher:
    """A console that tells these from now on."""
    rig.configure(webhooks=list(hooks))
    found = rig.add_dispatcher()
    await rig.deliver(found)
    return found


def fail_over(*_: Any, **__: Any) -> NoReturn:
    raise StoreUnavailable("failing over")


async def fail_to_dispatch(console: Dispatcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the store fail once, as in a failover."""
    with monkeypatch.context() as failing_over:
        failing_over.setattr(OutboxRepository, "status", fail_over)
        with pytest.raises(StoreUnavailable):
            await console.dispatch()


@contextmanager
def lost_records(store: Path) -> Iterator[None]:
    """Restore the store when the block ends: what was recorded in it is lost, as after a failover to a standby that lags."""
    with closing(sqlite3.connect(store)) as current, closing(sqlite3.connect(":memory:")) as backup:
        current.backup(backup)
        yield
        backup.backup(current)


def deliveries(rig: OutboxRig, name: str = "siem", state: DeliveryState | None = None) -> list[Any]:
    return list(rig.store.outbox.deliveries(name, state=state, limit=100, cursor=None).items)


async def test_an_event_arrives_once_as_a_cloudevent_that_every_current_key_signed(rig: OutboxRig, receiver: Receiver) -> None:
    rig.record(*submissions(1))
    console = await start_webhooks(rig, hook(receiver))
    assert receiver.requests == [], "a new subscription is told from now on"
    rig.record(job_start(job_id(1)), job_end("failed", job_id(1)))
    for _ in range(3):
        await rig.deliver(console)
    entries = rig.store.ledger.entries().items[1:]
    assert receiver.events == [to_cloud_event(entry, "dev") for entry in entries]
    for got in receiver.requests:
        event = read_event(got.headers, got.body)
        assert (event.structured, event.subject) == (True, job_id(1))
        assert [got.why_not_signed(secret, rig.clock.now()) for secret in (CURRENT, PREVIOUS)] == [None, None]
        assert got.why_not_signed("whsec_" + "b" * 40, rig.clock.now()) is not None
    assert len({got.headers["webhook-id"] for got in receiver.requests}) == 2
    assert rig.progress_of("siem").delivered == 2


async def test_a_receiver_verifies_by_what_the_document_says(rig: OutboxRig, receiver: Receiver) -> None:
    console = await start_webhooks(rig, hook(receiver))
    rig.record(*submissions(1))
    await rig.deliver(console)
    (got,) = receiver.requests
    text = (Path(__file__).parents[3] / "docs" / "reference" / "events.md").read_text()
    told: dict[str, Any] = {}
    exec(text.partition("```python\n")[2].partition("```")[0], told)  # noqa: S102 - our own document
    assert [told["verify"](got.headers, got.body, secret) for secret in (CURRENT, PREVIOUS)] == [True, True]
    assert not told["verify"](got.headers, got.body + b" ", CURRENT)
    assert not told["verify"](got.headers, got.body, "whsec_" + "b" * 40)
    assert not told["verify"]({**got.headers, "webhook-timestamp": "1"}, got.body, CURRENT)


async def test_a_jobs_events_arrive_in_their_order(rig: OutboxRig, receiver: Receiver) -> None:
    console = await start_webhooks(rig, hook(receiver))
    numbers = range(1, 8)
    rig.record(
        *(fact for number in numbers for fact in (submission(job_id(number)), job_start(job_id(number)), job_end("failed", job_id(number))))
    )
    await rig.deliver(console)
    kinds = {number: [event["type"].split(".")[3] for event in receiver.events if event["subject"] == job_id(number)] for number in numbers}
    assert kinds == {key: ["submitted", "started", "ended"] for key in numbers}


async def test_a_rotated_secret_signs_and_the_one_before_last_no_longer_does(rig: OutboxRig, receiver: Receiver) -> None:
    newest = "whsec_" + "bmV3ZXN0LXNlY3JldC1vZi10aGUtc2llbSEhISE"[:36]
    await rig.write_secret(SECRET, secret=newest, previous=CURRENT)
    console = await start_webhooks(rig, hook(receiver))
    rig.record(*submissions(1))
    await rig.deliver(console)
    (got,) = receiver.requests
    assert [got.why_not_signed(secret, rig.clock.now()) is None for secret in (newest, CURRENT, PREVIOUS)] == [True, True, False]


async def test_only_events_of_the_subscribed_types_are_sent(rig: OutboxRig, receiver: Receiver) -> None:
    async with Receiver().listen() as other:
        console = await start_webhooks(
            rig, hook(receiver, events=["job.ended"]), hook(other, "other", events=["credential.*", "job.started"])
        )
        rig.record(*submissions(1), job_start(job_id(1)), job_end("failed", job_id(1)))
        await rig.deliver(console)
        assert [event["type"] for event in receiver.events] == ["dev.justenough.job.ended.v1"]
        assert [event["type"] for event in other.events] == ["dev.justenough.job.started.v1"]


async def test_the_position_of_a_subscription_is_saved_even_if_no_event_was_for_it(rig: OutboxRig, receiver: Receiver) -> None:
    console = await start_webhooks(rig, hook(receiver, events=["job.ended"]))
    rig.record(*submissions(3))
    await rig.deliver(console)
    assert rig.progress_of("siem").behind == 3, "not each time: that would be a write for each entry"
    rig.clock.advance(subscription_worker.SAVE_POSITION_INTERVAL_S)
    await rig.deliver(console)
    assert (rig.progress_of("siem").behind, receiver.requests) == (0, [])


async def test_a_delivery_that_fails_is_tried_again_later_with_the_same_id_and_body(rig: OutboxRig, receiver: Receiver) -> None:
    answers: list[Answer] = [500, CUT, 429, 204]
    receiver.answer = lambda number: answers[number]
    console = await start_webhooks(rig, hook(receiver))
    rig.record(*submissions(1))
    await rig.deliver(console)
    for attempt, delay in enumerate(RETRY_DELAYS_S[:3], start=1):
        (row,) = deliveries(rig)
        assert (row.attempts, row.state) == (attempt, "pending")
        rig.clock.advance(delay * 0.9)
        await rig.deliver(console)
        assert len(receiver.requests) == attempt, "not before its time"
        rig.clock.advance(delay * 0.4)
        await rig.deliver(console)
    assert len(receiver.requests) == 4
    assert len({(got.headers["webhook-id"], got.body) for got in receiver.requests}) == 1
    assert {got.why_not_signed(CURRENT, rig.clock.now()) for got in receiver.requests[-1:]} == {None}
    assert deliveries(rig) == []
    assert (rig.progress_of("siem").why, rig.progress_of("siem").pending) == (None, 0)


async def test_an_event_that_the_receiver_rejects_does_not_hold_up_the_next_one(rig: OutboxRig, receiver: Receiver) -> None:
    receiver.answer = lambda number: 422 if number == 0 else 204
    console = await start_webhooks(rig, hook(receiver))
    rig.record(*submissions(1))
    await rig.deliver(console)
    rig.record(*submissions(1, first=2))
    await rig.deliver(console)
    assert [event["subject"] for event in receiver.events] == [job_id(1), job_id(2)]
    assert [row.job for row in deliveries(rig)] == [job_id(1)]
    assert rig.progress_of("siem").position == 2


@pytest.mark.parametrize("status, delays", [(503, RETRY_DELAYS_S), (401, REFUSED_RETRY_DELAYS_S), (410, ())])
async def test_an_event_that_is_never_delivered_becomes_a_dead_letter_that_can_be_resent(
    rig: OutboxRig, receiver: Receiver, status: int, delays: tuple[int, ...]
) -> None:
    receiver.answer = lambda _: status
    console = await start_webhooks(rig, hook(receiver))
    rig.record(*submissions(1))
    await rig.deliver(console)
    for delay in delays:
        rig.clock.advance(delay * 1.3)
        await rig.deliver(console)
    (dead,) = deliveries(rig, state=DeliveryState.DEAD)
    assert (dead.attempts, dead.next_at, dead.why.split()[0]) == (len(delays) + 1, None, str(status))
    rig.clock.advance(10 * RETRY_DELAYS_S[-1])
    await rig.deliver(console)
    assert len(receiver.requests) == len(delays) + 1, "a dead letter is left alone"
    receiver.answer = lambda _: 204
    assert rig.store.outbox.resend("siem", [dead.id], now=rig.clock.now()) == 1
    await rig.deliver(console)
    assert len(receiver.requests) == len(delays) + 2
    assert deliveries(rig) == []


async def test_a_receiver_that_sends_retry_after_is_left_alone_for_that_time(rig: OutboxRig, receiver: Receiver) -> None:
    receiver.answer = lambda number: (503, {"retry-after": "120"}) if number == 0 else 204
    console = await start_webhooks(rig, hook(receiver))
    rig.record(*submissions(1))
    await rig.deliver(console)
    rig.record(*submissions(1, first=2))
    rig.clock.advance(100)
    await rig.deliver(console)
    assert len(receiver.requests) == 1
    rig.clock.advance(30)
    await rig.deliver(console)
    assert len(receiver.requests) == 3


async def test_events_go_out_although_the_clock_was_set_back(rig: OutboxRig, receiver: Receiver) -> None:
    console = await start_webhooks(rig, hook(receiver))
    rig.record(*submissions(1))
    await rig.deliver(console)
    rig.clock.set_back(3600)
    rig.record(*submissions(1, first=2))
    rig.clock.advance(1)
    await rig.deliver(console)
    assert [event["subject"] for event in receiver.events] == [job_id(1), job_id(2)]


async def test_a_receiver_that_answered_410_rests_for_an_hour_but_resent_events_go_out_at_once(rig: OutboxRig, receiver: Receiver) -> None:
    receiver.answer = lambda number: 410 if number == 0 else 204
    console = await start_webhooks(rig, hook(receiver))
    rig.record(*submissions(1))
    await rig.deliver(console)
    rig.record(*submissions(1, first=2))
    rig.clock.advance(GONE_REST_S - 60)
    await rig.deliver(console)
    assert len(receiver.requests) == 1
    assert rig.store.outbox.resend("siem", None, now=rig.clock.now()) == 1
    await rig.deliver(console)
    assert sorted(event["subject"] for event in receiver.events) == [job_id(1), job_id(1), job_id(2)]


async def test_resent_events_wait_too_if_the_receiver_sends_retry_after(rig: OutboxRig, receiver: Receiver) -> None:
    receiver.answer = lambda _: 410
    console = await start_webhooks(rig, hook(receiver))
    rig.record(*submissions(WebhookSender.batch_size * 2))
    for _ in range(2):
        await rig.deliver(console)
        rig.clock.advance(GONE_REST_S + 1)
    assert len(deliveries(rig, state=DeliveryState.DEAD)) == WebhookSender.batch_size * 2
    receiver.requests.clear()
    receiver.answer = lambda _: (429, {"retry-after": "3600"})
    rig.store.outbox.resend("siem", None, now=rig.clock.now())
    for _ in range(3):
        await rig.deliver(console)
        rig.clock.advance(1)
    assert len(receiver.requests) == WebhookSender.batch_size
    rig.clock.advance(3600)
    await rig.deliver(console)
    assert len(receiver.requests) == WebhookSender.batch_size * 2


async def test_a_redirect_is_not_followed(rig: OutboxRig, receiver: Receiver) -> None:
    async with Receiver().listen() as elsewhere:
        receiver.answer = lambda _: (302, {"location": elsewhere.url})
        console = await start_webhooks(rig, hook(receiver))
        rig.record(*submissions(1))
        await rig.deliver(console)
        assert (len(receiver.requests), elsewhere.requests) == (1, [])
    assert deliveries(rig)[0].why == "302 Found"


async def test_a_receiver_that_hangs_does_not_delay_other_receivers(rig: OutboxRig, receiver: Receiver) -> None:
    async with Receiver(answer=lambda _: HANG).listen() as stuck:
        console = await start_webhooks(rig, hook(stuck, "stuck"), hook(receiver))
        rig.record(*submissions(3))
        await console.dispatch()
        await stuck.until(3)
        await receiver.until(3)
        rig.record(*submissions(2, first=4))
        rig.clock.advance(1)
        while len(receiver.requests) < 5:
            await console.dispatch()
            await asyncio.sleep(0)  # The lane's own threads and sockets make progress; its receiver's condition ends the loop.
        assert len(stuck.requests) == 3
        stuck.released.set()
        await wait_until_idle(console)
        await rig.deliver(console)
        assert sorted(event["subject"] for event in stuck.events) == [job_id(number) for number in range(1, 6)]


@pytest.mark.parametrize("answer, why", [(HANG, "no answer in"), (ENDLESS_HEADERS, "no answer")])
async def test_a_delivery_ends_at_the_request_timeout_whatever_the_receiver_does(
    rig: OutboxRig, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, answer: str, why: str
) -> None:
    monkeypatch.setattr(webhook_client, "REQUEST_TIMEOUT_S", 0.5)
    receiver.answer = lambda _: answer
    console = await start_webhooks(rig, hook(receiver))
    rig.record(*submissions(1))
    async with asyncio.timeout(180):
        await rig.deliver(console)
    assert deliveries(rig)[0].why.startswith(why)


async def test_only_the_status_of_an_endless_response_is_read(rig: OutboxRig, receiver: Receiver) -> None:
    receiver.answer = lambda _: ENDLESS_BODY
    console = await start_webhooks(rig, hook(receiver))
    rig.record(*submissions(2))
    async with asyncio.timeout(webhook_client.REQUEST_TIMEOUT_S - 1):
        await rig.deliver(console)
    assert deliveries(rig) == []
    assert rig.progress_of("siem").delivered == 2


async def test_a_receiver_that_is_down_gets_everything_once_it_is_up(rig: OutboxRig) -> None:
    down = Receiver()
    async with down.listen():
        port = down.port
    console = await start_webhooks(rig, hook(down))
    rig.record(*submissions(40))
    await rig.deliver(console)
    assert {row.why for row in deliveries(rig)} == {"no connection (ConnectionRefusedError)"}
    async with down.listen(port=port):
        rig.clock.advance(10)
        await rig.deliver(console)
        assert {event["subject"] for event in down.events} == {job_id(number) for number in range(1, 41)}
    assert len(down.requests) == 40
    assert deliveries(rig) == []


async def test_a_receiver_that_is_down_for_long_has_a_bounded_number_of_stored_deliveries(
    rig: OutboxRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription_worker, "MAX_PENDING", 20)
    down = Receiver()
    async with down.listen():
        port = down.port
    console = await start_webhooks(rig, hook(down))
    rig.record(*submissions(100))
    await rig.deliver(console)
    assert 20 <= rig.progress_of("siem").pending < 20 + 16
    assert rig.progress_of("siem").behind > 60, "the rest is in the ledger, where it was"
    async with down.listen(port=port):
        rig.clock.advance(10)
        await rig.deliver(console)
    assert {event["subject"] for event in down.events} == {job_id(number) for number in range(1, 101)}


async def test_new_events_are_delivered_after_the_last_pending_ones_have_become_dead_letters_during_a_pause(
    rig: OutboxRig, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription_worker, "MAX_PENDING", 4)
    receiver.answer = lambda _: 503
    console = await start_webhooks(rig, hook(receiver))
    rig.record(*submissions(4))
    await rig.deliver(console)
    receiver.answer = lambda _: 410
    rig.clock.advance(RETRY_DELAYS_S[0] * 1.3)
    await rig.deliver(console)
    assert len(deliveries(rig, state=DeliveryState.DEAD)) == 4
    receiver.answer = lambda _: 204
    rig.record(*submissions(1, first=5))
    rig.clock.advance(GONE_REST_S + 1)
    await rig.deliver(console)
    assert receiver.events[-1]["subject"] == job_id(5)


async def test_another_console_takes_over_deliveries_once_the_first_falls_silent(rig: OutboxRig, receiver: Receiver) -> None:
    first = await start_webhooks(rig, hook(receiver))
    second = rig.add_dispatcher()
    rig.record(*submissions(3))
    await rig.deliver(second)
    assert receiver.requests == []
    await rig.deliver(first)
    assert len(receiver.requests) == 3
    rig.record(*submissions(2, first=4))
    rig.clock.advance(dispatcher.LEASE_TTL_S + 1)
    await rig.deliver(second)
    assert sorted(event["subject"] for event in receiver.events) == [job_id(number) for number in range(1, 6)]
    rig.record(*submissions(1, first=6))
    await rig.deliver(first)
    assert len(receiver.requests) == 5, "it sees that it is not the one any more"
    await rig.deliver(second)
    assert len(receiver.requests) == 6


async def test_a_console_that_sleeps_through_its_lease_settles_nothing(rig: OutboxRig, receiver: Receiver) -> None:
    receiver.answer = lambda number: HANG if number == 0 else 204
    slow = await start_webhooks(rig, hook(receiver))
    quick = rig.add_dispatcher()
    rig.record(*submissions(1))
    await slow.dispatch()
    await receiver.until(1)
    rig.clock.advance(dispatcher.LEASE_TTL_S + 1)
    rig.record(*submissions(2, first=2))
    await rig.deliver(quick)
    assert rig.progress_of("siem").position == 3
    receiver.released.set()
    await wait_until_idle(slow)
    assert rig.progress_of("siem").position == 3
    await rig.deliver(slow)
    await rig.deliver(quick)
    assert sorted(event["subject"] for event in receiver.events) == [job_id(1), job_id(1), job_id(2), job_id(3)]


async def test_a_console_that_stops_lets_the_next_one_deliver_at_once(rig: OutboxRig, receiver: Receiver) -> None:
    first = await start_webhooks(rig, hook(receiver))
    await first.close()
    second = rig.add_dispatcher()
    rig.record(*submissions(1))
    await rig.deliver(second)
    assert len(receiver.requests) == 1


async def test_a_console_that_is_stopped_while_it_waits_for_the_end_of_a_delivery_stops(
    rig: OutboxRig, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = await start_webhooks(rig, hook(receiver))
    begun, interrupted, may_end = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def deliver_slowly(_: object) -> bool:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            interrupted.set()
            await may_end.wait()
        return False

    monkeypatch.setattr(subscription_worker.SubscriptionWorker, "deliver_batch", deliver_slowly)
    rig.record(*submissions(1))
    await console.dispatch()
    await begun.wait()
    rig.configure()
    running = asyncio.create_task(console.run())
    await interrupted.wait()
    running.cancel()
    may_end.set()
    assert await asyncio.wait({running}, timeout=60) == ({running}, set())
    assert running.cancelled()


async def test_a_subscription_keeps_its_place_when_the_file_is_reordered_or_it_is_away_for_a_while(
    rig: OutboxRig, receiver: Receiver
) -> None:
    nameless = {key: value for key, value in hook(receiver).items() if key != "name"}
    async with Receiver().listen() as other:
        console = await start_webhooks(rig, nameless, hook(other, "other"))
        rig.record(*submissions(1))
        await rig.deliver(console)
        rig.configure(webhooks=[hook(other, "other"), nameless])
        await rig.deliver(console)
        assert (len(receiver.requests), len(other.requests)) == (1, 1)
        rig.configure(webhooks=[hook(other, "other")])
        await rig.deliver(console)
        rig.record(*submissions(1, first=2))
        await rig.deliver(console)
        rig.configure(webhooks=[nameless, hook(other, "other")])
        await rig.deliver(console)
        assert [event["subject"] for event in receiver.events] == [job_id(1), job_id(2)]


async def test_a_subscription_that_was_removed_for_long_begins_again(rig: OutboxRig, receiver: Receiver) -> None:
    async with Receiver(answer=lambda _: 410).listen() as other:
        console = await start_webhooks(rig, hook(receiver), hook(other, "other"))
        rig.record(*submissions(1))
        await rig.deliver(console)
        rig.configure(webhooks=[hook(receiver)])
        await rig.deliver(console)
        assert len(deliveries(rig, "other")) == 1
        rig.clock.advance(8 * 24 * 3600)
        await rig.deliver(console)
        assert [one.name for one in rig.store.outbox.subscription_progress()] == ["siem"]
        assert deliveries(rig, "other") == []


async def test_without_its_secret_nothing_is_sent_and_nothing_is_lost(rig: OutboxRig, receiver: Receiver) -> None:
    await rig.write_secret(SECRET, secret="whsec_short")
    console = await start_webhooks(rig, hook(receiver))
    rig.record(*submissions(1))
    await rig.deliver(console)
    assert receiver.requests == []
    assert SECRET in (rig.progress_of("siem").why or "")
    assert deliveries(rig) == [], "no attempt counts"
    await rig.write_secret(SECRET, secret=CURRENT)
    again = rig.add_dispatcher()
    rig.clock.advance(dispatcher.LEASE_TTL_S + 1)
    await rig.deliver(again)
    assert len(receiver.requests) == 1
    assert rig.progress_of("siem").why is None


# Where nothing is sent.


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "localhost", "[::ffff:127.0.0.1]", "[::1]"])
async def test_a_private_network_is_not_reached_unless_it_is_allowed(rig: OutboxRig, receiver: Receiver, host: str) -> None:
    found = webhook_client.WebhookClient(f"https://{host}:{receiver.port}/", private=False)
    outcome = await found.post(b"{}", {}, now=rig.clock.now())
    await found.close()
    assert (outcome.fault, "private network" in outcome.why) == ("refused", True), outcome
    assert receiver.requests == []


@pytest.mark.parametrize("host", ["169.254.169.254", "0.0.0.0", "[fd00:ec2::254]", "[::ffff:a9fe:a9fe]", "[ff02::1]", "2852039166"])  # noqa: S104 - nothing is bound
async def test_metadata_and_link_local_are_never_reached(rig: OutboxRig, host: str) -> None:
    found = webhook_client.WebhookClient(f"http://{host}:8080/latest/meta-data", private=True)
    outcome = await found.post(b"{}", {}, now=rig.clock.now())
    await found.close()
    assert outcome.fault == "refused", outcome


class Names:
    """A resolver whose answers are made up, one after the other; the last one stays."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **answers: list[list[str]]) -> None:
        self.requests: list[str] = []
        self._answers = {name.replace("_", "."): answer for name, answer in answers.items()}
        self._real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self)

    def __call__(self, host: Any, port: Any, *args: Any, **more: Any) -> list[Any]:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in self._answers:
            return self._real(host, port, *args, **more)
        self.requests.append(name)
        answers = self._answers[name]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]


async def test_a_name_that_resolves_differently_after_the_check_does_not_change_the_connection(
    rig: OutboxRig, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Receiver().listen(host="127.0.0.2", port=receiver.port) as elsewhere:
        names = Names(monkeypatch, siem_test=[["127.0.0.1"], ["127.0.0.2"]])
        found = webhook_client.WebhookClient(f"http://siem.test:{receiver.port}/", private=True)
        outcome = await found.post(b"{}", {}, now=rig.clock.now())
        await found.close()
        assert (outcome.fault, len(receiver.requests), elsewhere.requests) == (None, 1, [])
        assert names.requests == ["siem.test"]
        assert receiver.requests[0].headers["host"] == f"siem.test:{receiver.port}"


async def test_a_name_with_one_private_address_is_not_reached_at_all(
    rig: OutboxRig, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    Names(monkeypatch, siem_test=[["93.184.216.34", "127.0.0.1"]])
    found = webhook_client.WebhookClient(f"https://siem.test:{receiver.port}/", private=False)
    outcome = await found.post(b"{}", {}, now=rig.clock.now())
    await found.close()
    assert (outcome.fault, receiver.requests) == ("refused", [])


async def test_the_next_address_is_tried_if_one_accepts_no_connection(
    rig: OutboxRig, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    Names(monkeypatch, siem_test=[["127.0.0.3", "127.0.0.1"]])
    found = webhook_client.WebhookClient(f"http://siem.test:{receiver.port}/", private=True)
    assert (await found.post(b"{}", {}, now=rig.clock.now())).fault is None
    await found.close()
    assert len(receiver.requests) == 1


async def test_a_certificate_is_checked_by_the_receivers_name_though_its_address_is_pinned(
    rig: OutboxRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, servers = create_authority(tmp_path, "siem.test", "other.test")
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    Names(monkeypatch, siem_test=[["127.0.0.1"]])
    for name, fault in (("siem.test", None), ("other.test", "away")):
        async with Receiver().listen(tls=servers[name]) as receiver:
            found = webhook_client.WebhookClient(f"https://siem.test:{receiver.port}/", private=True)
            outcome = await found.post(b"{}", {}, now=rig.clock.now())
            await found.close()
            assert (outcome.fault, len(receiver.requests)) == (fault, int(fault is None)), outcome
            assert fault is None or "SSLCertVerificationError" in outcome.why


async def test_an_unknown_name_is_not_sent_to_a_proxy_from_the_environment(
    rig: OutboxRig, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{receiver.port}")
    found = webhook_client.WebhookClient("http://siem.invalid:8080/", private=True)
    outcome = await found.post(b"{}", {}, now=rig.clock.now())
    await found.close()
    assert (outcome.fault, "siem.invalid cannot be resolved" in outcome.why) == ("away", True), outcome
    assert receiver.requests == []


@pytest.mark.parametrize("is_settled", [True, False])
async def test_a_receiver_gets_the_events_after_a_restore_of_the_store_beneath_a_running_console(
    rig: OutboxRig, receiver: Receiver, own_store: Path, is_settled: bool
) -> None:
    """The restored ledger is shorter than what the console has read, as after a failover to a standby that lags."""
    console = await start_webhooks(rig, hook(receiver))
    rig.record(*submissions(2))
    await rig.deliver(console)
    with lost_records(own_store):
        receiver.answer = lambda number: 204 if is_settled or number > 2 else HANG
        rig.record(*submissions(4, first=3))
        await console.dispatch()
        await receiver.until(6)
        if is_settled:
            await wait_until_idle(console)
    receiver.released.set()
    await wait_until_idle(console)
    await rig.deliver(console)
    rig.record(*submissions(2, first=7))
    for _ in range(3):
        await rig.deliver(console)
    assert sorted(event["subject"] for event in receiver.events) == [job_id(number) for number in range(1, 9)]
    assert rig.progress_of("siem").position == 4


async def read_lost_entries(rig: OutboxRig, receiver: Receiver, own_store: Path) -> Dispatcher:
    """Return a console that has read three entries that the store then lost, none of them for its subscription."""
    console = await start_webhooks(rig, hook(receiver, events=["job.submitted"]))
    with lost_records(own_store):
        rig.record(*(job_start(job_id(number)) for number in range(1, 4)))
        await rig.deliver(console)
    return console


async def test_events_that_take_the_places_of_entries_lost_in_a_failover_are_delivered(
    rig: OutboxRig, receiver: Receiver, own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger has become as long as what the console has read before the console reads it again."""
    console = await read_lost_entries(rig, receiver, own_store)

    await fail_to_dispatch(console, monkeypatch)
    rig.record(*submissions(4))
    for _ in range(2):
        await rig.deliver(console)
    assert sorted(event["subject"] for event in receiver.events) == [job_id(number) for number in range(1, 5)]


async def test_events_that_take_lost_places_are_delivered_although_only_a_subscriptions_own_reading_failed(
    rig: OutboxRig, receiver: Receiver, own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = await read_lost_entries(rig, receiver, own_store)
    rig.record(*submissions(4))
    with monkeypatch.context() as failing_over:
        failing_over.setattr(OutboxRepository, "next_batch", fail_over)
        await rig.deliver(console)
    assert receiver.requests == []
    rig.clock.advance(subscription_worker.NOT_READY_RETRY_S)
    for _ in range(2):
        await rig.deliver(console)
    assert sorted(event["subject"] for event in receiver.events) == [job_id(number) for number in range(1, 5)]


async def test_events_that_are_being_sent_while_the_store_fails_for_a_moment_are_sent_once(
    rig: OutboxRig, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = await start_webhooks(rig, hook(receiver))
    receiver.answer = lambda number: HANG if number == 1 else 204
    rig.record(submission(job_id(1)), job_start(job_id(1)))
    await console.dispatch()
    await receiver.until(2)
    await fail_to_dispatch(console, monkeypatch)
    receiver.released.set()
    await wait_until_idle(console)
    await rig.deliver(console)
    assert [event["type"].split(".")[3] for event in receiver.events] == ["submitted", "started"]


async def test_events_that_take_the_places_of_entries_that_were_being_sent_are_delivered(
    rig: OutboxRig, receiver: Receiver, own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = await start_webhooks(rig, hook(receiver, events=["job.submitted"]))
    with lost_records(own_store):
        receiver.answer = lambda number: HANG if number == 0 else 204
        rig.record(*submissions(1), job_start(job_id(1)))
        await console.dispatch()
        await receiver.until(1)
    await fail_to_dispatch(console, monkeypatch)
    rig.record(*submissions(2, first=2))
    receiver.released.set()
    await wait_until_idle(console)
    for _ in range(3):
        await rig.deliver(console)
    assert sorted(event["subject"] for event in receiver.events)[-2:] == [job_id(2), job_id(3)]
