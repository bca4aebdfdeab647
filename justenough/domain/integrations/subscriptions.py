"""The webhooks and notifications of triggers.yaml: their events, secrets and names. No I/O."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints

from justenough.domain.approvals.tiers import MAX_TIER
from justenough.domain.core.base_model import Model
from justenough.domain.core.errors import Problem, reject_if
from justenough.domain.core.url_policy import url_problem
from justenough.domain.integrations.notifications import NOTIFYING_EVENTS, SETTLING_EVENTS
from justenough.domain.jobs.spec import Name
from justenough.domain.ledger.events import EventType

SecretPath = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]+/data(?:/[A-Za-z0-9_-][A-Za-z0-9_.-]*)+$", max_length=256)]
"""A path in a kv version 2 store."""
ALL_EVENTS = "*"
MAX_SUBSCRIPTIONS = 50
"""Subscriptions in one configuration."""
T = TypeVar("T")
SUBJECTS = frozenset(kind.partition(".")[0] for kind in EventType)


def _check_pattern(pattern: str) -> str:
    if pattern != ALL_EVENTS and pattern not in set(EventType) and pattern not in {f"{subject}.*" for subject in SUBJECTS}:
        message = (
            f"unknown event {pattern[:64]!r}; use *, a group like credential.*, or a name from docs/reference/ledger.md like job.ended"
        )
        raise ValueError(message)
    return pattern


def _check_notifying(kind: str) -> str:
    reject_if(kind not in NOTIFYING_EVENTS, f"no notifications for {kind[:64]!r}; choose from {', '.join(sorted(NOTIFYING_EVENTS))}")
    return kind


def _check_not_empty(items: tuple[T, ...]) -> tuple[T, ...]:
    reject_if(not items, "needs at least one")
    return items


EventPattern = Annotated[str, AfterValidator(_check_pattern)]
NotifyingEvent = Annotated[str, AfterValidator(_check_notifying)]
Url = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
Tier = Annotated[int, Field(ge=1, le=MAX_TIER)]


class Webhook(Model):
    """Another system that receives events as they happen."""

    name: Name | None = None
    url: Url
    """Must not contain secrets, because they do not belong in this file."""
    events: Annotated[tuple[EventPattern, ...], AfterValidator(_check_not_empty)]
    signing_secret: SecretPath
    allow_private: bool = False
    """Whether private addresses and plain HTTP are allowed."""

    @property
    def subscription_name(self) -> str:
        """Its name, by default derived from its URL, so that it does not depend on its place in the file."""
        host = re.sub(r"[^a-z0-9]+", "-", (urlsplit(self.url).hostname or "").lower()).strip("-")[:50]
        return self.name or "-".join(filter(None, (host, _digest(self.url))))

    @property
    def event_types(self) -> tuple[EventType, ...]:
        """The events that it receives."""
        return tuple(kind for kind in EventType if {ALL_EVENTS, kind.value, f"{kind.partition('.')[0]}.*"} & set(self.events))

    @property
    def secret_paths(self) -> tuple[str, ...]:
        """The paths in Vault that the console reads for it."""
        return (self.signing_secret,)


class Notify(Model):
    """People who are notified of events that need them, through a service that Apprise supports."""

    name: Name | None = None
    on: Annotated[tuple[NotifyingEvent, ...], AfterValidator(_check_not_empty)]
    to: Annotated[tuple[SecretPath, ...], AfterValidator(_check_not_empty)]
    """Secrets in Vault; each field is one Apprise URL."""
    tiers: Annotated[tuple[Tier, ...], AfterValidator(_check_not_empty)] = (1, 2, 3)
    """Only requests at one of these tiers are notified."""
    allow_private: bool = False

    @property
    def subscription_name(self) -> str:
        """Its name, by default derived from its receivers and tiers."""
        return self.name or f"notify-{_digest(*sorted(self.to), *map(str, sorted(self.tiers)))}"

    @property
    def event_types(self) -> tuple[EventType, ...]:
        """The events that it notifies of, and those that settle them."""
        return tuple(sorted({*(EventType(kind) for kind in self.on), *SETTLING_EVENTS}))

    @property
    def secret_paths(self) -> tuple[str, ...]:
        """The paths in Vault that the console reads for it."""
        return self.to


Subscription = Webhook | Notify


def index_by_name(webhooks: Iterable[Webhook], notify: Iterable[Notify]) -> Mapping[str, Subscription]:
    """Return all subscriptions by name."""
    subscriptions: tuple[Subscription, ...] = (*webhooks, *notify)
    return {subscription.subscription_name: subscription for subscription in subscriptions}


def subscription_problems(webhooks: tuple[Webhook, ...], notify: tuple[Notify, ...]) -> Iterator[Problem]:
    """Yield a problem for each duplicate name, each forbidden URL, and too many subscriptions, by YAML path."""
    names: dict[str, str] = {}
    subscriptions: list[tuple[str, Subscription]] = [
        *((f"webhooks[{index}]", webhook) for index, webhook in enumerate(webhooks)),
        *((f"notify[{index}]", entry) for index, entry in enumerate(notify)),
    ]
    for where, subscription in subscriptions:
        first = names.setdefault(subscription.subscription_name, where)
        if first != where:
            message = f"{first} has the name {subscription.subscription_name} too; give each subscription a different `name`"
            yield Problem(f"{where}.name", message)
        if isinstance(subscription, Webhook) and (why := url_problem(subscription.url, private=subscription.allow_private)):
            yield Problem(f"{where}.url", why)
    if len(subscriptions) > MAX_SUBSCRIPTIONS:
        yield Problem("webhooks", f"at most {MAX_SUBSCRIPTIONS} are accepted, counting `webhooks` and `notify` together")


def tier_problems(notify: tuple[Notify, ...], tiers: Iterable[int]) -> Iterator[Problem]:
    """Yield each tier of a notification that approvals.yaml does not have."""
    known = set(tiers)
    for index, entry in enumerate(notify):
        # The default means all existing tiers.
        for tier in sorted({*entry.tiers} - known) if "tiers" in entry.model_fields_set else ():
            yield Problem(f"notify[{index}].tiers", f"approvals.yaml has no tier {tier}")


def delivery_id(subscription: str, position: int) -> str:
    """Return the id of the delivery of one ledger entry to one subscription."""
    return f"d-{hashlib.sha256(f'{subscription}/{position}'.encode()).hexdigest()[:24]}"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]
