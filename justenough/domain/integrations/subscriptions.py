"""Who is told what: the webhooks and notifications of triggers.yaml, which events each wants, and the name that each is known by. No I/O."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints

from justenough.domain.approvals.tiers import MAX_TIER
from justenough.domain.core.base_model import Model
from justenough.domain.core.errors import Problem
from justenough.domain.core.url_policy import url_problem
from justenough.domain.integrations.notifications import NOTIFYING_EVENTS, SETTLING_EVENTS
from justenough.domain.jobs.spec import Name
from justenough.domain.ledger.events import EventType

SecretPath = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]+/data(?:/[A-Za-z0-9_-][A-Za-z0-9_.-]*)+$", max_length=256)]
"""In a kv store of version 2."""
ALL_EVENTS = "*"
MAX_SUBSCRIPTIONS = 50
"""Subscriptions in one configuration."""
T = TypeVar("T")
SUBJECTS = frozenset(kind.partition(".")[0] for kind in EventType)


def _check_pattern(pattern: str) -> str:
    if pattern != ALL_EVENTS and pattern not in set(EventType) and pattern not in {f"{subject}.*" for subject in SUBJECTS}:
        message = f"{pattern[:64]!r} is no event; there are *, credential.* and the names in docs/reference/ledger.md, such as job.ended"
        raise ValueError(message)
    return pattern


def _check_notifying(kind: str) -> str:
    if kind not in NOTIFYING_EVENTS:
        message = f"nobody is notified of {kind[:64]!r}; there are " + ", ".join(sorted(NOTIFYING_EVENTS))
        raise ValueError(message)
    return kind


def _check_not_empty(found: tuple[T, ...]) -> tuple[T, ...]:
    if not found:
        message = "needs at least one"
        raise ValueError(message)
    return found


EventPattern = Annotated[str, AfterValidator(_check_pattern)]
NotifyingEvent = Annotated[str, AfterValidator(_check_notifying)]
Url = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
Tier = Annotated[int, Field(ge=1, le=MAX_TIER)]


class Webhook(Model):
    """Another system that is told of events as they happen."""

    name: Name | None = None
    url: Url
    """Holds no secret: this file is no place for one."""
    events: Annotated[tuple[EventPattern, ...], AfterValidator(_check_not_empty)]
    signing_secret: SecretPath
    allow_private: bool = False
    """Whether it may be in one's own network, and plain HTTP."""

    @property
    def subscription_name(self) -> str:
        """Its name; without one, what its address makes it: the same wherever it stands in the file."""
        host = re.sub(r"[^a-z0-9]+", "-", (urlsplit(self.url).hostname or "").lower()).strip("-")[:50]
        return self.name or "-".join(filter(None, (host, _digest(self.url))))

    @property
    def event_types(self) -> tuple[EventType, ...]:
        """The events that it wants."""
        return tuple(kind for kind in EventType if {ALL_EVENTS, kind.value, f"{kind.partition('.')[0]}.*"} & set(self.events))

    @property
    def secret_paths(self) -> tuple[str, ...]:
        """The paths in Vault that the console reads for it."""
        return (self.signing_secret,)


class Notify(Model):
    """People who are told, by a service that Apprise knows, of what waits for them."""

    name: Name | None = None
    on: Annotated[tuple[NotifyingEvent, ...], AfterValidator(_check_not_empty)]
    to: Annotated[tuple[SecretPath, ...], AfterValidator(_check_not_empty)]
    """Secrets in Vault, each field of which is one Apprise URL."""
    tiers: Annotated[tuple[Tier, ...], AfterValidator(_check_not_empty)] = (1, 2, 3)
    """Who asks for an answer of another tier is not told to these."""
    allow_private: bool = False

    @property
    def subscription_name(self) -> str:
        """Its name; without one, what its receivers and tiers make it."""
        return self.name or f"notify-{_digest(*sorted(self.to), *map(str, sorted(self.tiers)))}"

    @property
    def event_types(self) -> tuple[EventType, ...]:
        """The events that it wants, and those by which they are settled."""
        return tuple(sorted({*(EventType(kind) for kind in self.on), *SETTLING_EVENTS}))

    @property
    def secret_paths(self) -> tuple[str, ...]:
        """The paths in Vault that the console reads for it."""
        return self.to


Subscription = Webhook | Notify


def index_by_name(webhooks: Iterable[Webhook], notify: Iterable[Notify]) -> Mapping[str, Subscription]:
    """Return all by their names."""
    every: tuple[Subscription, ...] = (*webhooks, *notify)
    return {one.subscription_name: one for one in every}


def subscription_problems(webhooks: tuple[Webhook, ...], notify: tuple[Notify, ...]) -> Iterator[Problem]:
    """Yield what is wrong beyond each one's own form, by its place."""
    taken: dict[str, str] = {}
    placed: list[tuple[str, Subscription]] = [
        *((f"webhooks[{at}]", one) for at, one in enumerate(webhooks)),
        *((f"notify[{at}]", one) for at, one in enumerate(notify)),
    ]
    for where, one in placed:
        first = taken.setdefault(one.subscription_name, where)
        if first != where:
            yield Problem(f"{where}.name", f"{first} is called {one.subscription_name} too; give each a `name` of its own")
        if isinstance(one, Webhook) and (why := url_problem(one.url, private=one.allow_private)):
            yield Problem(f"{where}.url", why)
    if len(placed) > MAX_SUBSCRIPTIONS:
        yield Problem("webhooks", f"with `notify` more than {MAX_SUBSCRIPTIONS} are not accepted")


def tier_problems(notify: tuple[Notify, ...], tiers: Iterable[int]) -> Iterator[Problem]:
    """Yield the tiers that are asked for and that approvals.yaml does not have."""
    known = set(tiers)
    for at, one in enumerate(notify):
        # The default means: whichever there are.
        for tier in sorted({*one.tiers} - known) if "tiers" in one.model_fields_set else ():
            yield Problem(f"notify[{at}].tiers", f"approvals.yaml has no tier {tier}")


def delivery_id(subscription: str, position: int) -> str:
    """Return the id of what one subscription is owed of one entry of the ledger."""
    return f"d-{hashlib.sha256(f'{subscription}/{position}'.encode()).hexdigest()[:24]}"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]
