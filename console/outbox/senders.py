"""How each kind of subscription is told: a signed event to a webhook, a message to people and later how it ended. Settles nothing itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Protocol

from anyio import CapacityLimiter, to_thread

from console.auth.vault_directory import ConsoleVault
from console.outbox.signing_secrets import SigningSecrets, SigningSecretUnavailable
from justenough.adapters.outbound import apprise_sender
from justenough.adapters.outbound.webhook_client import WebhookClient
from justenough.domain.core.errors import JustEnoughError, RetryLater
from justenough.domain.core.ids import job_of
from justenough.domain.core.rfc3339 import to_rfc3339
from justenough.domain.core.secret import Secret
from justenough.domain.integrations.cloudevents import STRUCTURED_TYPE, event_source_of, event_type_of, to_cloud_event
from justenough.domain.integrations.notifications import (
    Notice,
    NoticeContext,
    asked_tier,
    build_follow_up,
    build_notice,
    find_settled,
    is_for_tiers,
    is_still_pending,
    notice_subject,
)
from justenough.domain.integrations.retry_policy import DeliveryFault, DeliveryOutcome, SentNotice
from justenough.domain.integrations.subscriptions import Notify, Subscription, Webhook
from justenough.domain.integrations.webhook_signature import message_id, signed_headers
from justenough.domain.readmodel.views import EntryView
from justenough.services.dependencies import Deps

SEND_TIMEOUT_S = 25.0
"""For one service to take one message: Apprise has bounds of its own, and some of its plugins none."""
URLS_TTL_S = 30.0
"""Seconds for which the Apprise URLs are in memory: how long a new one is unknown here."""
MAX_CONCURRENT_SENDS = 8
"""Messages that are on their way at once."""
TEST_EVENT_TYPE = "webhook.tested"
"""A type that no ledger entry has: what somebody sends to see whether it arrives."""


class SenderNotReady(RetryLater):
    """Nothing can be sent now, for a reason that is ours: no receiver is asked, and no attempt counts."""


class Sender(Protocol):
    """Tells one subscription."""

    batch_size: int
    """Entries that it takes at once."""

    async def ready(self) -> None:
        """Read the secrets that it needs. Raises SenderNotReady."""

    async def send(self, entry: EntryView) -> DeliveryOutcome:
        """Tell of one entry, once."""

    async def test(self, now: datetime, person: str) -> DeliveryOutcome:
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

    batch_size = 16

    def __init__(self, name: str, webhook: Webhook, deps: Deps, secrets: SigningSecrets) -> None:
        self._name = name
        self._webhook = webhook
        self._deps = deps
        self._secrets = secrets
        self._keys: Sequence[bytes] = ()
        self._receiver = WebhookClient(webhook.url, private=webhook.allow_private)
        self._installation = deps.settings.installation

    async def ready(self) -> None:
        """Read the signing secret. Raises SenderNotReady."""
        try:
            self._keys = await self._secrets.keys_of(self._webhook.signing_secret)
        except SigningSecretUnavailable as error:
            raise SenderNotReady(f"its signing secret {self._webhook.signing_secret} cannot be had; the console's log says why") from error

    async def send(self, entry: EntryView) -> DeliveryOutcome:
        """Send one entry."""
        return await self._post(to_cloud_event(entry, self._installation))

    async def test(self, now: datetime, person: str) -> DeliveryOutcome:
        """Send an event that is no ledger entry's."""
        named = {
            "specversion": "1.0",
            "id": f"{self._name}/{TEST_EVENT_TYPE}/{to_rfc3339(now)}",
            "source": event_source_of(self._installation),
        }
        more = {
            "type": event_type_of(TEST_EVENT_TYPE),
            "subject": self._name,
            "time": to_rfc3339(now),
            "datacontenttype": "application/json",
        }
        return await self._post({**named, **more, "data": {"webhook": self._name, "name": person}})

    async def close(self) -> None:
        """Close its connections."""
        await self._receiver.close()

    async def _post(self, event: Mapping[str, Any]) -> DeliveryOutcome:
        body, now = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode(), self._deps.now()
        signed = signed_headers(message_id(event["source"], event["id"]), body, self._keys, now=now)
        return await self._receiver.post(body, {"content-type": STRUCTURED_TYPE, **signed}, now=now)


class NotifySender:
    """Sends a message to each of some people's services, remembers who has it, and tells those how it ended."""

    batch_size = 8

    def __init__(self, name: str, notify: Notify, deps: Deps) -> None:
        self._name = name
        self._notify = notify
        self._deps = deps
        self._urls: Mapping[str, Secret] = {}
        self._read_at: float | None = None
        self._recipients: dict[str, tuple[SentNotice, ...]] = {}
        """By job, who has been told since it was last taken down: of two entries that say the same, the second says nothing."""
        self._limiter = CapacityLimiter(MAX_CONCURRENT_SENDS)

    async def ready(self) -> None:
        """Begin anew with what is taken down, and read the Apprise URLs where that is not done lately. Raises SenderNotReady."""
        self._recipients.clear()
        if self._read_at is not None and self._deps.ticks() - self._read_at < URLS_TTL_S:
            return
        self._read_at, asked = None, self._deps.ticks()
        await to_thread.run_sync(apprise_sender.load_plugins)
        self._urls = {f"{path}#{field}": url for path in self._notify.to for field, url in (await self._secret_fields(path)).items()}
        if not self._urls:
            raise SenderNotReady(f"{', '.join(self._notify.to)}: no field holds an Apprise URL")
        self._read_at = asked

    async def send(self, entry: EntryView) -> DeliveryOutcome:
        """Tell of what waits, or of how what somebody was told of ended."""
        told = self._recipients.get(entry.job)
        if told is None:
            told = await to_thread.run_sync(self._deps.store.outbox.unsettled_notices, self._name, entry.job)
        asking = is_for_tiers(entry, on=self._notify.on, tiers=self._notify.tiers)
        outcome = await (self._notify_of_request(entry, told) if asking else self._notify_of_outcome(entry, find_settled(entry, told)))
        self._recipients[entry.job] = _merge_recipients(told, outcome)
        return outcome

    async def test(self, now: datetime, person: str) -> DeliveryOutcome:
        """Send a message that asks for nothing."""
        said = Notice(title="JustEnough: a test", body=f"{person} looks whether this arrives ({to_rfc3339(now)}). Nothing to do.")
        failed = [found for url in self._urls.values() if (found := await self._send_notice(url, said)).fault]
        return failed[0] if failed else DeliveryOutcome()

    async def close(self) -> None:
        """Nothing is kept open."""

    async def _notify_of_request(self, entry: EntryView, recipients: Iterable[SentNotice]) -> DeliveryOutcome:
        about, tier = notice_subject(entry), asked_tier(entry)
        known = {one.target for one in recipients if one.about == about and one.tier == tier}
        scene = await self._scene(entry.job, about)
        left = [target for target in self._urls if target not in known]
        if not left or not is_still_pending(entry, scene):
            return DeliveryOutcome(nothing=True)
        said = build_notice(entry, scene)
        found = [(target, await self._send_notice(self._urls[target], said)) for target in left]
        reached = tuple(SentNotice(about=about, target=target, tier=tier, job=entry.job) for target, one in found if one.fault is None)
        return replace(_worst_outcome([one for _, one in found]), told=reached)

    async def _notify_of_outcome(self, entry: EntryView, recipients: Sequence[SentNotice]) -> DeliveryOutcome:
        if not recipients:
            return DeliveryOutcome(nothing=True)
        # Whose address is not there any more cannot be told.
        found = [(one, await self._send_follow_up(entry, one)) for one in recipients]
        return replace(
            _worst_outcome([outcome for _, outcome in found]), untold=tuple(one for one, outcome in found if outcome.fault is None)
        )

    async def _send_follow_up(self, entry: EntryView, recipient: SentNotice) -> DeliveryOutcome:
        url = self._urls.get(recipient.target)
        if url is None:
            return DeliveryOutcome()
        return await self._send_notice(url, build_follow_up(entry, recipient.about, await self._scene(entry.job, recipient.about)))

    async def _send_notice(self, url: Secret, message: Notice) -> DeliveryOutcome:
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                return await to_thread.run_sync(
                    lambda: apprise_sender.send(url, message, private=self._notify.allow_private),
                    abandon_on_cancel=True,
                    limiter=self._limiter,
                )
        except TimeoutError:
            return DeliveryOutcome(DeliveryFault.AWAY, f"no answer in {SEND_TIMEOUT_S:g} s")

    async def _secret_fields(self, path: str) -> Mapping[str, Secret]:
        vault = self._deps.vault
        assert isinstance(vault, ConsoleVault)
        try:
            return await to_thread.run_sync(vault.notify_urls, path)
        except JustEnoughError as error:
            raise SenderNotReady(f"{path} cannot be read: {error}") from error

    async def _scene(self, job: str, about: str) -> NoticeContext:
        return await to_thread.run_sync(self._read_scene, job, about)

    def _read_scene(self, job: str, about: str) -> NoticeContext:
        kind, _, which = about.partition("/")
        store = self._deps.store
        return NoticeContext(
            job=store.jobs.get(job),
            request=store.requests.get(which) if kind in {"request", "review"} and job_of(which) == job else None,
            credential=store.credentials.get(which) if kind == "credential" else None,
            top=self._deps.config.current().tiers.top,
            console=self._deps.settings.console_url,
        )


def _merge_recipients(recipients: Iterable[SentNotice], outcome: DeliveryOutcome) -> tuple[SentNotice, ...]:
    """Return who has been told after an attempt."""
    found = {(one.about, one.target): one for one in recipients}
    for one in outcome.untold:
        found.pop((one.about, one.target), None)
    return tuple((found | {(one.about, one.target): one for one in outcome.told}).values())


def _worst_outcome(outcomes: Sequence[DeliveryOutcome]) -> DeliveryOutcome:
    """Return the one to act on: one that is tried again, before one that is tried less, before one that is well."""
    order = {DeliveryFault.AWAY: 0, DeliveryFault.REFUSED: 1, DeliveryFault.GONE: 2, None: 3}
    return min(outcomes, key=lambda one: order[one.fault], default=DeliveryOutcome())
