"""triggers.yaml: triggers, schedules, webhooks and notifications; and how a job's params are filled in from an event. No I/O, no clock.

A worker accepts params from the console only if the trigger's templates could have produced them. Whether this machine knows a schedule's
time zone is checked elsewhere, because time zones are files.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints, field_validator

from justenough.domain.approvals.statements import MAX_CLOCK_SKEW
from justenough.domain.approvals.tiers import MAX_TIER
from justenough.domain.core.base_model import Model
from justenough.domain.core.errors import Problem, raise_problems, reject_if
from justenough.domain.core.placeholders import fits_wildcards
from justenough.domain.core.rfc3339 import to_rfc3339
from justenough.domain.core.untrusted_yaml import read_yaml, validate_model
from justenough.domain.core.url_policy import url_problem
from justenough.domain.integrations.cloudevents import EVENT, CloudEvent
from justenough.domain.integrations.cron import Cron, read_cron
from justenough.domain.integrations.notifications import NOTIFYING_EVENTS, SETTLING_EVENTS
from justenough.domain.jobs.spec import JobFile, Name, ParamName
from justenough.domain.ledger.events import EventType

TRIGGERS_FILE = "triggers.yaml"
CONSOLE_ENTITY = "je-console"
"""The name of the console's entity in Vault. It signs the orders of triggers and schedules, and nothing else."""

EventTypeText = Annotated[str, StringConstraints(pattern=r"^[^\s]{1,256}$")]
Template = Annotated[str, StringConstraints(min_length=1, max_length=512)]

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_KNOWN = re.compile(r"id|source|type|subject|time|data(?:\.[A-Za-z0-9_-]+)+")
# In binary mode these attributes are headers, which the signature does not cover.
_UNSIGNED = frozenset({"source", "subject", "time"})
CATCHUP_WINDOW = timedelta(hours=1)
"""How long after a scheduled time its job may still be launched. Temporal or all consoles may be down for this long."""
MAX_SCHEDULES = 100
"""Schedules in one file."""
ZoneName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+)*$", max_length=64)]
"""An IANA time zone."""
ParamText = Annotated[str, StringConstraints(max_length=256)]
SecretPath = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]+/data(?:/[A-Za-z0-9_-][A-Za-z0-9_.-]*)+$", max_length=256)]
"""A path in a kv version 2 store."""
MAX_SUBSCRIPTIONS = 50
"""Subscriptions in one configuration."""
T = TypeVar("T")


def _patterns_for(kind: EventType) -> frozenset[str]:
    """Return every pattern that matches events of a type."""
    return frozenset({"*", kind.value, f"{kind.partition('.')[0]}.*"})


def _check_pattern(pattern: str) -> str:
    known = frozenset().union(*map(_patterns_for, EventType))
    what = "use *, a group like credential.*, or a name from docs/reference/ledger.md like job.ended"
    reject_if(pattern not in known, f"unknown event {pattern[:64]!r}; {what}")
    return pattern


def _check_notifying(kind: str) -> str:
    reject_if(kind not in NOTIFYING_EVENTS, f"no notifications for {kind[:64]!r}; choose from {', '.join(sorted(NOTIFYING_EVENTS))}")
    return kind


def _check_not_empty(items: tuple[T, ...]) -> tuple[T, ...]:
    reject_if(not items, "needs at least one")
    return items


NonEmpty = Annotated[tuple[T, ...], AfterValidator(_check_not_empty)]
EventPattern = Annotated[str, AfterValidator(_check_pattern)]
NotifyingEvent = Annotated[str, AfterValidator(_check_notifying)]
Url = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
TierNumber = Annotated[int, Field(ge=1, le=MAX_TIER)]


class EventFilter(Model):
    """The events that a trigger accepts."""

    type: EventTypeText


class Trigger(Model):
    """The events that launch a job, the secret that signs them, and the job."""

    on: EventFilter
    signing_secret: SecretPath
    job: JobFile
    """The file of a spec in the configuration folder."""
    params: Mapping[ParamName, Template] = Field(default_factory=dict)

    def could_have_made(self, params: Mapping[str, str]) -> bool:
        return params.keys() == self.params.keys() and all(
            fits_wildcards(value, _PLACEHOLDER.split(self.params[name])[::2]) for name, value in params.items()
        )


class Schedule(Model):
    """A cron expression and the job that it launches."""

    cron: Annotated[str, StringConstraints(max_length=256)]
    timezone: ZoneName = "UTC"
    job: JobFile
    """The file of a spec in the configuration folder."""
    params: Mapping[ParamName, ParamText] = Field(default_factory=dict)
    overlap: Literal["skip", "allow"] = "skip"
    """`skip`: launch nothing while the last launched job is still running."""
    paused: bool = False
    """Whether it is created paused; later changes by people stay in effect."""

    @field_validator("cron")
    @classmethod
    def _can_be_parsed(cls, cron: str) -> str:
        read_cron(cron)
        return cron

    @property
    def times(self) -> Cron:
        """Its cron expression, parsed. Times are in its time zone."""
        return read_cron(self.cron)


class Webhook(Model):
    """Another system that receives events as they happen."""

    name: Name | None = None
    url: Url
    """Must not contain secrets, because they do not belong in this file."""
    events: NonEmpty[EventPattern]
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
        return tuple(kind for kind in EventType if _patterns_for(kind) & set(self.events))

    @property
    def secret_paths(self) -> tuple[str, ...]:
        """The paths in Vault that the console reads for it."""
        return (self.signing_secret,)


class Notify(Model):
    """People who are notified of events that need them, through a service that Apprise supports."""

    name: Name | None = None
    on: NonEmpty[NotifyingEvent]
    to: NonEmpty[SecretPath]
    """Secrets in Vault; each field is one Apprise URL."""
    tiers: NonEmpty[TierNumber] = tuple(range(1, MAX_TIER + 1))
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
        return self.to


Subscription = Webhook | Notify


class Triggers(Model):
    """The content of triggers.yaml."""

    triggers: Mapping[Name, Trigger] = Field(default_factory=dict)
    schedules: Annotated[Mapping[Name, Schedule], Field(max_length=MAX_SCHEDULES)] = Field(default_factory=dict)
    webhooks: tuple[Webhook, ...] = ()
    notify: tuple[Notify, ...] = ()

    @property
    def subscriptions(self) -> Mapping[str, Subscription]:
        """The webhooks and notifications, by name."""
        subscriptions: tuple[Subscription, ...] = (*self.webhooks, *self.notify)
        return {subscription.subscription_name: subscription for subscription in subscriptions}

    @property
    def secret_paths(self) -> tuple[str, ...]:
        """The paths in Vault that the console reads."""
        incoming = {trigger.signing_secret for trigger in self.triggers.values()}
        return tuple(sorted(incoming | {path for subscription in self.subscriptions.values() for path in subscription.secret_paths}))


def read_triggers(text: str | bytes) -> Triggers:
    """Parse and check triggers.yaml; raise InvalidInput with every problem."""
    triggers = validate_model(TRIGGERS_FILE, Triggers, read_yaml(TRIGGERS_FILE, text))
    raise_problems(TRIGGERS_FILE, (*_template_problems(triggers.triggers), *_subscription_problems(triggers)))
    return triggers


def _template_problems(triggers: Mapping[str, Trigger]) -> Iterator[Problem]:
    """Yield each placeholder that no event can fill in."""
    for name, trigger in triggers.items():
        for param, template in trigger.params.items():
            for placeholder in _PLACEHOLDER.findall(template):
                if not _KNOWN.fullmatch(placeholder):
                    message = f"unknown placeholder {{{placeholder}}}; use id, source, type, subject, time or data.<name>"
                    yield Problem(f"triggers.{name}.params.{param}", message)


def _subscription_problems(triggers: Triggers) -> Iterator[Problem]:
    """Yield a problem for each duplicate name, each forbidden URL, and too many subscriptions."""
    names: dict[str, str] = {}
    subscriptions: list[tuple[str, Subscription]] = [
        *((f"webhooks[{index}]", webhook) for index, webhook in enumerate(triggers.webhooks)),
        *((f"notify[{index}]", entry) for index, entry in enumerate(triggers.notify)),
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


def trigger_origin(trigger: str) -> str:
    """Return the `origin` of a trigger's orders, which is also shown as its jobs' requester."""
    return f"trigger:{trigger}"


def schedule_origin(schedule: str) -> str:
    """Return the `origin` of a schedule's orders, which is also shown as its jobs' requester."""
    return f"schedule:{schedule}"


def why_no_occasion(cron: Cron, *, local: datetime, now: datetime) -> str | None:
    """Return why a schedule launches no job now for the time `local` (in its time zone); None if it launches one.

    Anyone with write access to Temporal can claim any time, so it must be a scheduled and recent time.
    """
    if not cron.matches(local):
        return f"{to_rfc3339(local)} is not a scheduled time"
    if local > now + MAX_CLOCK_SKEW:
        return f"{to_rfc3339(local)} is in the future"
    return f"{to_rfc3339(local)} is too long ago" if local < now - CATCHUP_WINDOW - MAX_CLOCK_SKEW else None


def fill_params(trigger: Trigger, event: CloudEvent) -> dict[str, str]:
    """Return the params that an event fills in. Raises InvalidInput with each param that it cannot fill."""
    problems: list[Problem] = []
    params = {name: _fill_template(f"params.{name}", template, event, problems) for name, template in trigger.params.items()}
    if event.type != trigger.on.type:
        problems.append(Problem("type", f"this trigger accepts only events of type {trigger.on.type}"))
    if event.parent and not event.structured:
        problems.append(Problem("jeparent", "headers are not signed: send the event in structured mode to name a parent"))
    raise_problems(EVENT, problems)
    return params


def _fill_template(path: str, template: str, event: CloudEvent, problems: list[Problem]) -> str:
    def replacement(found: re.Match[str]) -> str:
        name = found[1]
        if name in _UNSIGNED and not event.structured:
            problems.append(Problem(path, f"{{{name}}} needs structured mode: headers are not signed"))
            return ""
        first, *keys = name.split(".")
        value: Any = getattr(event, first)
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if not isinstance(value, str | bool | int | float):
            problems.append(Problem(path, f"the event has no text or number at {name}"))
            return ""
        return value if isinstance(value, str) else json.dumps(value)

    return _PLACEHOLDER.sub(replacement, template)


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
