"""Sends to each kind of subscription: signed events to webhooks, messages to people and follow-ups on their outcome. Does not write to the store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Protocol

from anyio import CapacityLimiter, to_thread

from console.auth.vault_keys import SigningSecrets, SigningSecretUnavailable
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
    is_overdue_again,
    is_still_pending,
    notice_subject,
)
from justenough.domain.integrations.retry_policy import DeliveryFault, DeliveryOutcome, SentNotice
from justenough.domain.integrations.triggers import Notify, Webhook
from justenough.domain.integrations.webhook_signature import message_id, signed_headers
from justenough.domain.readmodel.views import EntryView
from justenough.services.dependencies import Deps

SEND_TIMEOUT_S = 25.0
"""Limit for one message to one service: some of Apprise's plugins have no timeout."""
URLS_TTL_S = 30.0
MAX_CONCURRENT_SENDS = 8
TEST_EVENT_TYPE = "webhook.tested"
"""The type of a test event; no ledger entry has it."""


class SenderNotReady(RetryLater):
    """Nothing can be sent now because a secret is missing on our side: no receiver is contacted and no attempt is counted."""


class Sender(Protocol):
    """Sends ledger entries to one subscription."""

    batch_size: int
    """Maximum number of entries in one batch."""

    async def ready(self) -> None:
        """Read the secrets that it needs. Raises SenderNotReady."""

    async def send(self, entry: EntryView) -> DeliveryOutcome:
        """Send one entry, once, and return the outcome."""

    async def test(self, now: datetime, person: str) -> DeliveryOutcome:
        """Send a test event and return the outcome."""

    async def close(self) -> None:
        """Close its connections."""


class WebhookSender:
    """Sends each entry as a CloudEvent, signed with every valid key."""

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
        try:
            self._keys = await self._secrets.keys_of(self._webhook.signing_secret)
        except SigningSecretUnavailable as error:
            raise SenderNotReady(
                f"the signing secret {self._webhook.signing_secret} cannot be read; the console's log has the reason"
            ) from error

    async def send(self, entry: EntryView) -> DeliveryOutcome:
        return await self._post(to_cloud_event(entry, self._installation))

    async def test(self, now: datetime, person: str) -> DeliveryOutcome:
        event = {
            "specversion": "1.0",
            "id": f"{self._name}/{TEST_EVENT_TYPE}/{to_rfc3339(now)}",
            "source": event_source_of(self._installation),
            "type": event_type_of(TEST_EVENT_TYPE),
            "subject": self._name,
            "time": to_rfc3339(now),
            "datacontenttype": "application/json",
            "data": {"webhook": self._name, "name": person},
        }
        return await self._post(event)

    async def close(self) -> None:
        await self._receiver.close()

    async def _post(self, event: Mapping[str, Any]) -> DeliveryOutcome:
        body, now = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode(), self._deps.now()
        signed = signed_headers(message_id(event["source"], event["id"]), body, self._keys, now=now)
        return await self._receiver.post(body, {"content-type": STRUCTURED_TYPE, **signed}, now=now)


class NotifySender:
    """Sends a message to each recipient's service, remembers who got it, and sends those a follow-up with the outcome."""

    batch_size = 8

    def __init__(self, name: str, notify: Notify, deps: Deps) -> None:
        self._name = name
        self._notify = notify
        self._deps = deps
        self._urls: Mapping[str, Secret] = {}
        self._read_at: float | None = None
        self._recipients: dict[str, tuple[SentNotice, ...]] = {}
        """By job, the notices sent since the last recorded ones, so that only the first of two entries with the same meaning is sent."""
        self._limiter = CapacityLimiter(MAX_CONCURRENT_SENDS)

    async def ready(self) -> None:
        """Forget unrecorded recipients, and read the Apprise URLs if they are older than URLS_TTL_S. Raises SenderNotReady."""
        self._recipients.clear()
        if self._read_at is not None and self._deps.ticks() - self._read_at < URLS_TTL_S:
            return
        self._read_at, began = None, self._deps.ticks()
        await to_thread.run_sync(apprise_sender.load_plugins)
        urls = dict[str, Secret]()
        for path in self._notify.to:
            try:
                fields = (await to_thread.run_sync(self._deps.vault.creds, path)).fields
            except JustEnoughError as error:
                raise SenderNotReady(f"{path} cannot be read: {error}") from error
            urls |= {f"{path}#{field}": url for field, url in fields.items()}
        self._urls = urls
        if not self._urls:
            raise SenderNotReady(f"{', '.join(self._notify.to)}: no field contains an Apprise URL; add one in Vault")
        self._read_at = began

    async def send(self, entry: EntryView) -> DeliveryOutcome:
        """Send a message about something that waits for a person, or a follow-up to the recipients of such a message."""
        recipients = self._recipients.get(entry.job)
        if recipients is None:
            recipients = await to_thread.run_sync(self._deps.store.outbox.unsettled_notices, self._name, entry.job)
        is_request = is_for_tiers(entry, on=self._notify.on, tiers=self._notify.tiers)
        outcome = await (
            self._notify_of_request(entry, recipients) if is_request else self._notify_of_outcome(entry, find_settled(entry, recipients))
        )
        notified = {(notice.about, notice.target): notice for notice in recipients}
        for notice in outcome.settled_notices:
            notified.pop((notice.about, notice.target), None)
        notified |= {(notice.about, notice.target): notice for notice in outcome.sent_notices}
        self._recipients[entry.job] = tuple(notified.values())
        return outcome

    async def test(self, now: datetime, person: str) -> DeliveryOutcome:
        message = Notice(title="JustEnough test message", body=f"{person} sent this test message at {to_rfc3339(now)}. No action needed.")
        failed = [outcome for url in self._urls.values() if (outcome := await self._send_notice(url, message)).fault]
        return failed[0] if failed else DeliveryOutcome()

    async def close(self) -> None:
        """Do nothing: no connection is kept open."""

    async def _notify_of_request(self, entry: EntryView, recipients: Iterable[SentNotice]) -> DeliveryOutcome:
        about, tier = notice_subject(entry), asked_tier(entry)
        notified = {notice.target for notice in recipients if notice.about == about and notice.tier == tier}
        context = await to_thread.run_sync(self._read_context, entry.job, about)
        remaining = [target for target in self._urls if target not in notified]
        if not remaining or not is_still_pending(entry, context):
            return DeliveryOutcome(nothing=True)
        message = build_notice(entry, context)
        outcomes = {target: await self._send_notice(self._urls[target], message) for target in remaining}
        reached = [target for target, outcome in outcomes.items() if outcome.fault is None]
        sent = tuple(SentNotice(about=about, target=target, tier=tier, job=entry.job) for target in reached)
        return replace(_worst_outcome([*outcomes.values()]), sent_notices=sent)

    async def _notify_of_outcome(self, entry: EntryView, recipients: Sequence[SentNotice]) -> DeliveryOutcome:
        if not recipients or is_overdue_again(entry, await to_thread.run_sync(self._read_context, entry.job, recipients[0].about)):
            return DeliveryOutcome(nothing=True)
        outcomes = []
        for notice in recipients:
            # A recipient whose URL is no longer configured gets no follow-up; that is not a failure.
            outcome = DeliveryOutcome()
            if url := self._urls.get(notice.target):
                context = await to_thread.run_sync(self._read_context, entry.job, notice.about)
                outcome = await self._send_notice(url, build_follow_up(entry, notice.about, context))
            outcomes.append(outcome)
        settled = tuple(notice for notice, outcome in zip(recipients, outcomes, strict=True) if outcome.fault is None)
        return replace(_worst_outcome(outcomes), settled_notices=settled)

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

    def _read_context(self, job: str, about: str) -> NoticeContext:
        kind, _, subject = about.partition("/")
        store = self._deps.store
        return NoticeContext(
            job=store.jobs.get(job),
            request=store.requests.get(subject) if kind in {"request", "review"} and job_of(subject) == job else None,
            credential=store.credentials.get(subject) if kind == "credential" else None,
            top=self._deps.config.current().tiers.top,
            console=self._deps.settings.console_url,
        )


def _worst_outcome(outcomes: Sequence[DeliveryOutcome]) -> DeliveryOutcome:
    """Return the outcome to act on: one to retry soon before one to retry later, before a success."""
    order = {DeliveryFault.AWAY: 0, DeliveryFault.REFUSED: 1, DeliveryFault.GONE: 2, None: 3}
    return min(outcomes, key=lambda outcome: order[outcome.fault], default=DeliveryOutcome())
