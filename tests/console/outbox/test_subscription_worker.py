"""Delivery to one subscription through failures of every kind, crashes between sending and recording, and takeovers by another console.
Nothing is lost.
"""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import tempfile
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from console.outbox.subscription_worker import SubscriptionWorker
from justenough.adapters.store import Store
from justenough.domain.core.errors import RetryLater
from justenough.domain.integrations.retry_policy import GONE_REST_S, DeliveryFault, DeliveryOutcome
from justenough.domain.integrations.triggers import Webhook
from justenough.domain.readmodel.views import EntryView
from justenough.services.dependencies import Deps
from tests.adapters.store.event_samples import job_id, submission
from tests.console.outbox_rig import Clock

HOOK = Webhook.model_validate({"url": "https://siem.example.com/", "events": ["*"], "signing_secret": "kv/data/siem"})
OUTCOMES = {
    "well": DeliveryOutcome(),
    "away": DeliveryOutcome(DeliveryFault.AWAY, "503"),
    "quiet": DeliveryOutcome(DeliveryFault.AWAY, "503", rest=60),
    "refused": DeliveryOutcome(DeliveryFault.REFUSED, "422"),
    "gone": DeliveryOutcome(DeliveryFault.GONE, "410", rest=GONE_REST_S),
}
KINDS = [*OUTCOMES, "crash", "crash after"]
ACTIONS = st.one_of(
    st.sampled_from(["happen", "happen", "step", "step", "another console"]),
    st.integers(1, 7_200),
    st.sampled_from(KINDS),
    st.sampled_from(KINDS),
)


class ScriptedSender:
    """A sender whose receivers do what they are told to; the last one of the script stays."""

    batch_size = 4

    def __init__(self) -> None:
        self.script: list[str] = []
        self.sent: list[str] = []

    async def ready(self) -> None:
        """Nothing is needed."""

    async def send(self, entry: EntryView) -> DeliveryOutcome:
        kind = self.script.pop(0) if self.script else "well"
        if kind == "crash":
            raise RetryLater(kind)
        if kind in {"well", "crash after"}:
            self.sent.append(entry.job)
        if kind == "crash after":
            raise RetryLater(kind)
        if kind == "fault":
            raise ZeroDivisionError("the canary")
        return OUTCOMES[kind]

    async def test(self, now: datetime, person: str) -> DeliveryOutcome:
        raise NotImplementedError

    async def close(self) -> None:
        """Nothing is open."""


@dataclasses.dataclass(frozen=True)
class World:
    """What a lane needs: a store and a clock."""

    store: Store
    clock: Clock

    @property
    def now(self) -> Any:
        return self.clock.now

    @property
    def ticks(self) -> Any:
        return self.clock.ticks


class Consoles:
    """Consoles that deliver one after the other; the newest has the lease."""

    def __init__(self, store: Store) -> None:
        self.store, self.clock, self.sender = store, Clock(), ScriptedSender()
        self.happened = self.number = 0
        self.start()

    def start(self) -> None:
        """Another console takes over."""
        self.clock.advance(16)
        self.number += 1
        self.hold()
        self.store.outbox.keep_subscriptions({"siem": "webhook"}, holder=self.holder, now=self.clock.now())
        position = self.store.outbox.status().positions["siem"]
        deps = cast("Deps", World(self.store, self.clock))
        self.lane = SubscriptionWorker("siem", HOOK, self.sender, deps, holder=self.holder, position=position, jitter=lambda: 0.5)

    @property
    def holder(self) -> str:
        return f"console {self.number}"

    def hold(self) -> None:
        now = self.clock.now()
        assert self.store.outbox.acquire_lease(self.holder, now=now, until=now + timedelta(seconds=15))

    async def act(self, action: Any) -> None:
        if isinstance(action, int):
            self.clock.advance(action)
        elif action == "happen":
            self.happened += 1
            self.store.ledger.append([submission(job_id(self.happened))])
        elif action == "another console":
            self.start()
        elif action == "step":
            await self.step()
        else:
            self.sender.script.append(action)

    async def step(self) -> bool:
        self.hold()
        try:
            return await self.lane.deliver_batch()
        except* RetryLater:
            # What the lane did is not recorded, so the next one does it again.
            self.start()
        return True

    async def drain(self) -> None:
        """Everybody is well from now on, and dead letters are sent again."""
        self.sender.script.clear()
        self.store.outbox.resend("siem", None, now=self.clock.now())
        while await self.step() or self.store.outbox.count_pending("siem"):
            self.clock.advance(90_000)


def test_an_event_that_cannot_be_sent_is_tried_again_later_and_delays_no_other(own_store: Path) -> None:
    async def story(store: Store) -> None:
        consoles = Consoles(store)
        for action in ("happen", "happen", "fault", "step"):
            await consoles.act(action)
        assert len(consoles.sender.sent) == 1
        (waiting,) = store.outbox.deliveries("siem", state=None, limit=9, cursor=None).items
        assert waiting.why == "the event cannot be sent (ZeroDivisionError); the console's log has the details"
        await consoles.drain()
        assert set(consoles.sender.sent) == {job_id(1), job_id(2)}

    with closing(Store(f"sqlite:///{own_store}")) as store:
        asyncio.run(story(store))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(ACTIONS, max_size=40))
def test_every_event_arrives_despite_failures_and_crashes(ready_file: Path, actions: list[Any]) -> None:
    async def story(store: Store) -> None:
        consoles = Consoles(store)
        for action in actions:
            await consoles.act(action)
        await consoles.drain()
        assert set(consoles.sender.sent) == {job_id(number) for number in range(1, consoles.happened + 1)}
        standing = store.outbox.subscription_progress()[0]
        assert (standing.pending, standing.dead, standing.behind) == (0, 0, 0)
        if not {"crash", "crash after"} & set(actions):
            assert len(consoles.sender.sent) == consoles.happened, "once, where nothing crashed"

    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(ready_file, Path(folder) / "store.db")
        with closing(Store(f"sqlite:///{folder}/store.db")) as store:
            asyncio.run(story(store))
