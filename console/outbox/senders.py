"""How each kind of subscription is told: a signed event to a webhook, a message to people and later how it ended. Settles nothing itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Protocol

from anyio import CapacityLimiter, to_thread

from console.auth.vault_directory import PeopleVault
from console.outbox.signing_secrets import SecretUnknown, SigningSecrets
from justenough.adapters.outbound import apprise_sender
from justenough.adapters.outbound.webhook_client import Receiver
from justenough.domain.core.errors import JustEnoughError, RetryLater
from justenough.domain.core.ids import job_of
from justenough.domain.core.rfc3339 import rfc3339
from justenough.domain.core.secret import Secret
from justenough.domain.integrations.cloudevents import STRUCTURED, cloud_event, source_of, type_of
from justenough.domain.integrations.notifications import Notice, Scene, about_of, asks, follow_up, notice, settled_by, still_asks, tier_of
from justenough.domain.integrations.retry_policy import Fault, Outcome, Told
from justenough.domain.integrations.subscriptions import Notify, Subscription, Webhook
from justenough.domain.integrations.webhook_signature import message_id, signed_headers
from justenough.domain.readmodel.views import EntryView
from justenough.services.dependencies import Deps

SEND_SECONDS = 25.0
"""For one service to take one message: Apprise has bounds of its own, and some of its plugins none."""
KEPT = 30.0
"""Seconds for which the Apprise URLs are in memory: how long a new one is unknown here."""
SENDS = 8
"""Messages that are on their way at once."""
TESTED = "webhook.tested"
"""A type that no ledger entry has: what somebody sends to see whether it arrives."""


class NotReady(RetryLater):
    """Nothing can be sent now, for a reason that is ours: no receiver is asked, and no attempt counts."""


class Sender(Protocol):
    """Tells one subscription."""

    most: int
    """Entries that it takes at once."""

    async def ready(self) -> None:
        """Read the secrets that it needs. Raises NotReady."""

    async def send(self, entry: EntryView) -> Outcome:
        """Tell of one entry, once."""

    async def test(self, now: datetime, person: str) -> Outcome:
        """Send something that means nothing."""

    async def close(self) -> None:
        """Close its connections."""


def sender_for(name: str, subscription: Subscription, deps: Deps, secrets: SigningSecrets) -> Sender:
    """Return what tells a subscription."""
    if isinstance(subscription, Webhook):
        return WebhookSender(name, subscription, deps, secrets)
    return NotifySender(name, subscription, deps)


class WebhookSender:
    """Sends each entry as a CloudEvent, signed with every key that counts."""

    most = 16

    def __init__(self, name: str, webhook: Webhook, deps: Deps, secrets: SigningSecrets) -> None:
        self._name = name
        self._webhook = webhook
        self._deps = deps
        self._secrets = secrets
        self._keys: Sequence[bytes] = ()
        self._receiver = Receiver(webhook.url, private=webhook.allow_private)
        self._installation = deps.settings.installation

    async def ready(self) -> None:
        """Read the signing secret. Raises NotReady."""
        try:
            self._keys = await self._secrets.of(self._webhook.signing_secret)
        except SecretUnknown as error:
            raise NotReady(f"its signing secret {self._webhook.signing_secret} cannot be had; the console's log says why") from error

    async def send(self, entry: EntryView) -> Outcome:
        """Send one entry."""
        return await self._post(cloud_event(entry, self._installation))

    async def test(self, now: datetime, person: str) -> Outcome:
        """Send an event that is no ledger entry's."""
        named = {"specversion": "1.0", "id": f"{self._name}/{TESTED}/{rfc3339(now)}", "source": source_of(self._installation)}
        more = {"type": type_of(TESTED), "subject": self._name, "time": rfc3339(now), "datacontenttype": "application/json"}
        return await self._post({**named, **more, "data": {"webhook": self._name, "name": person}})

    async def close(self) -> None:
        """Close its connections."""
        await self._receiver.close()

    async def _post(self, event: Mapping[str, Any]) -> Outcome:
        body, now = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode(), self._deps.now()
        signed = signed_headers(message_id(event["source"], event["id"]), body, self._keys, now=now)
        return await self._receiver.post(body, {"content-type": STRUCTURED, **signed}, now=now)


class NotifySender:
    """Sends a message to each of some people's services, remembers who has it, and tells those how it ended."""

    most = 8

    def __init__(self, name: str, notify: Notify, deps: Deps) -> None:
        self._name = name
        self._notify = notify
        self._deps = deps
        self._urls: Mapping[str, Secret] = {}
        self._read_at: float | None = None
        self._news: dict[str, tuple[Told, ...]] = {}
        """By job, who has been told since it was last taken down: of two entries that say the same, the second says nothing."""
        self._limiter = CapacityLimiter(SENDS)

    async def ready(self) -> None:
        """Begin anew with what is taken down, and read the Apprise URLs where that is not done lately. Raises NotReady."""
        self._news.clear()
        if self._read_at is not None and self._deps.ticks() - self._read_at < KEPT:
            return
        self._read_at, asked = None, self._deps.ticks()
        await to_thread.run_sync(apprise_sender.load)
        self._urls = {f"{path}#{field}": url for path in self._notify.to for field, url in (await self._fields(path)).items()}
        if not self._urls:
            raise NotReady(f"{', '.join(self._notify.to)}: no field holds an Apprise URL")
        self._read_at = asked

    async def send(self, entry: EntryView) -> Outcome:
        """Tell of what waits, or of how what somebody was told of ended."""
        told = self._news.get(entry.job)
        if told is None:
            told = await to_thread.run_sync(self._deps.store.outbox.told, self._name, entry.job)
        asking = asks(entry, on=self._notify.on, tiers=self._notify.tiers)
        outcome = await (self._ask(entry, told) if asking else self._follow_up(entry, settled_by(entry, told)))
        self._news[entry.job] = _with(told, outcome)
        return outcome

    async def test(self, now: datetime, person: str) -> Outcome:
        """Send a message that asks for nothing."""
        said = Notice(title="JustEnough: a test", body=f"{person} looks whether this arrives ({rfc3339(now)}). Nothing to do.")
        failed = [found for url in self._urls.values() if (found := await self._sent(url, said)).fault]
        return failed[0] if failed else Outcome()

    async def close(self) -> None:
        """Nothing is kept open."""

    async def _ask(self, entry: EntryView, told: Iterable[Told]) -> Outcome:
        about, tier = about_of(entry), tier_of(entry)
        known = {one.target for one in told if one.about == about and one.tier == tier}
        scene = await self._scene(entry.job, about)
        left = [target for target in self._urls if target not in known]
        if not left or not still_asks(entry, scene):
            return Outcome(nothing=True)
        said = notice(entry, scene)
        found = [(target, await self._sent(self._urls[target], said)) for target in left]
        reached = tuple(Told(about=about, target=target, tier=tier, job=entry.job) for target, one in found if one.fault is None)
        return replace(_worst([one for _, one in found]), told=reached)

    async def _follow_up(self, entry: EntryView, settled: Sequence[Told]) -> Outcome:
        if not settled:
            return Outcome(nothing=True)
        # Whose address is not there any more cannot be told.
        found = [(one, await self._settled(entry, one)) for one in settled]
        return replace(_worst([outcome for _, outcome in found]), untold=tuple(one for one, outcome in found if outcome.fault is None))

    async def _settled(self, entry: EntryView, told: Told) -> Outcome:
        url = self._urls.get(told.target)
        if url is None:
            return Outcome()
        return await self._sent(url, follow_up(entry, told.about, await self._scene(entry.job, told.about)))

    async def _sent(self, url: Secret, said: Notice) -> Outcome:
        try:
            async with asyncio.timeout(SEND_SECONDS):
                return await to_thread.run_sync(
                    lambda: apprise_sender.send(url, said, private=self._notify.allow_private),
                    abandon_on_cancel=True,
                    limiter=self._limiter,
                )
        except TimeoutError:
            return Outcome(Fault.AWAY, f"no answer in {SEND_SECONDS:g} s")

    async def _fields(self, path: str) -> Mapping[str, Secret]:
        vault = self._deps.vault
        assert isinstance(vault, PeopleVault)
        try:
            return await to_thread.run_sync(vault.notify_urls, path)
        except JustEnoughError as error:
            raise NotReady(f"{path} cannot be read: {error}") from error

    async def _scene(self, job: str, about: str) -> Scene:
        return await to_thread.run_sync(self._looked, job, about)

    def _looked(self, job: str, about: str) -> Scene:
        kind, _, which = about.partition("/")
        store = self._deps.store
        return Scene(
            job=store.job(job),
            request=store.request(which) if kind in {"request", "review"} and job_of(which) == job else None,
            credential=store.credential(which) if kind == "credential" else None,
            top=self._deps.config.current().tiers.top,
            console=self._deps.settings.console_url,
        )


def _with(told: Iterable[Told], outcome: Outcome) -> tuple[Told, ...]:
    """Return who has been told after an attempt."""
    found = {(one.about, one.target): one for one in told}
    for one in outcome.untold:
        found.pop((one.about, one.target), None)
    return tuple((found | {(one.about, one.target): one for one in outcome.told}).values())


def _worst(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the one to act on: one that is tried again, before one that is tried less, before one that is well."""
    order = {Fault.AWAY: 0, Fault.REFUSED: 1, Fault.GONE: 2, None: 3}
    return min(outcomes, key=lambda one: order[one.fault], default=Outcome())
