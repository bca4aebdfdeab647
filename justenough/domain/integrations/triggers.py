"""triggers.yaml: triggers, schedules, webhooks and notifications; and how a job's params are filled in from an event. No I/O.

A worker accepts params from the console only if the trigger's templates could have produced them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from justenough.domain.core.base_model import Model
from justenough.domain.core.errors import Problem, raise_problems
from justenough.domain.core.placeholders import fits_wildcards
from justenough.domain.core.untrusted_yaml import read_yaml, validate_model
from justenough.domain.integrations.cloudevents import EVENT, CloudEvent
from justenough.domain.integrations.schedules import MAX_SCHEDULES, Schedule
from justenough.domain.integrations.subscriptions import Notify, SecretPath, Subscription, Webhook, index_by_name, subscription_problems
from justenough.domain.jobs.spec import JobFile, Name, ParamName

TRIGGERS_FILE = "triggers.yaml"
CONSOLE_ENTITY = "je-console"
"""The name of the console's entity in Vault. It signs the orders of triggers and schedules, and nothing else."""

EventTypeText = Annotated[str, StringConstraints(pattern=r"^[^\s]{1,256}$")]
Template = Annotated[str, StringConstraints(min_length=1, max_length=512)]

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_KNOWN = re.compile(r"id|source|type|subject|time|data(?:\.[A-Za-z0-9_-]+)+")
# In binary mode these attributes are headers, which the signature does not cover.
_UNSIGNED = frozenset({"source", "subject", "time"})


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
        """Whether this trigger could have produced these params."""
        return params.keys() == self.params.keys() and all(
            fits_wildcards(value, _PLACEHOLDER.split(self.params[name])[::2]) for name, value in params.items()
        )


class Triggers(Model):
    """The content of triggers.yaml."""

    triggers: Mapping[Name, Trigger] = Field(default_factory=dict)
    schedules: Annotated[Mapping[Name, Schedule], Field(max_length=MAX_SCHEDULES)] = Field(default_factory=dict)
    webhooks: tuple[Webhook, ...] = ()
    notify: tuple[Notify, ...] = ()

    @property
    def subscriptions(self) -> Mapping[str, Subscription]:
        """The webhooks and notifications, by name."""
        return index_by_name(self.webhooks, self.notify)

    @property
    def secret_paths(self) -> tuple[str, ...]:
        """The paths in Vault that the console reads."""
        incoming = {trigger.signing_secret for trigger in self.triggers.values()}
        return tuple(sorted(incoming | {path for subscription in self.subscriptions.values() for path in subscription.secret_paths}))


def read_triggers(text: str | bytes) -> Triggers:
    """Parse and check triggers.yaml; raise InvalidInput with every problem."""
    triggers = validate_model(TRIGGERS_FILE, Triggers, read_yaml(TRIGGERS_FILE, text))
    unknown = (
        Problem(
            f"triggers.{name}.params.{param}",
            f"unknown placeholder {{{placeholder}}}; use id, source, type, subject, time or data.<name>",
        )
        for name, trigger in triggers.triggers.items()
        for param, template in trigger.params.items()
        for placeholder in _PLACEHOLDER.findall(template)
        if not _KNOWN.fullmatch(placeholder)
    )
    problems = (*unknown, *subscription_problems(triggers.webhooks, triggers.notify))
    raise_problems(TRIGGERS_FILE, problems)
    return triggers


def trigger_origin(trigger: str) -> str:
    """Return the `origin` of a trigger's orders, which is also shown as its jobs' requester."""
    return f"trigger:{trigger}"


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
