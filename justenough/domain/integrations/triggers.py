"""triggers.yaml: which events, and which times, launch which job of the configuration's own; how its params come from an event; who is told of ours.
No I/O.

What a trigger's template could have made of some event is also what a worker accepts of the console.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from justenough.domain.core.base_model import Model
from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.core.untrusted_yaml import read_yaml, validate_model
from justenough.domain.integrations.cloudevents import EVENT, CloudEvent
from justenough.domain.integrations.schedules import MAX_SCHEDULES, Schedule
from justenough.domain.integrations.subscriptions import Notify, SecretPath, Subscription, Webhook, index_by_name, subscription_problems
from justenough.domain.jobs.spec import JobFile, Name, ParamName

TRIGGERS_FILE = "triggers.yaml"
CONSOLE_ENTITY = "je-console"
"""The name of the console's own entity in Vault: it signs the orders of triggers and schedules, and nothing else."""

EventTypeText = Annotated[str, StringConstraints(pattern=r"^[^\s]{1,256}$")]
Template = Annotated[str, StringConstraints(min_length=1, max_length=512)]

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_KNOWN = re.compile(r"id|source|type|subject|time|data(?:\.[A-Za-z0-9_-]+)+")
# In binary mode these travel in headers, which the signature does not cover.
_UNSIGNED = frozenset({"source", "subject", "time"})


class EventFilter(Model):
    """Which events a trigger takes."""

    type: EventTypeText


class Trigger(Model):
    """One kind of event, who may send it, and what it launches."""

    on: EventFilter
    signing_secret: SecretPath
    job: JobFile
    """A spec's file in the configuration folder."""
    params: Mapping[ParamName, Template] = Field(default_factory=dict)

    def could_have_made(self, params: Mapping[str, str]) -> bool:
        """Whether some event gives exactly these params."""
        return params.keys() == self.params.keys() and all(
            _template_pattern(self.params[name]).fullmatch(value) for name, value in params.items()
        )


class Triggers(Model):
    """triggers.yaml."""

    triggers: Mapping[Name, Trigger] = Field(default_factory=dict)
    schedules: Annotated[Mapping[Name, Schedule], Field(max_length=MAX_SCHEDULES)] = Field(default_factory=dict)
    webhooks: tuple[Webhook, ...] = ()
    notify: tuple[Notify, ...] = ()

    @property
    def subscriptions(self) -> Mapping[str, Subscription]:
        """Who is told of events, by name."""
        return index_by_name(self.webhooks, self.notify)

    @property
    def secret_paths(self) -> tuple[str, ...]:
        """The paths in Vault that the console reads."""
        incoming = {trigger.signing_secret for trigger in self.triggers.values()}
        return tuple(sorted(incoming | {path for one in self.subscriptions.values() for path in one.secret_paths}))


def read_triggers(text: str | bytes) -> Triggers:
    """Return triggers.yaml as read; raise InvalidInput with every problem."""
    found = validate_model(TRIGGERS_FILE, Triggers, read_yaml(TRIGGERS_FILE, text))
    problems = (*_placeholder_problems(found), *subscription_problems(found.webhooks, found.notify))
    if problems:
        raise InvalidInput(TRIGGERS_FILE, problems)
    return found


def trigger_origin(trigger: str) -> str:
    """Return how the order of a trigger says where it comes from; its job's requester is shown so."""
    return f"trigger:{trigger}"


def fill_params(trigger: Trigger, event: CloudEvent) -> dict[str, str]:
    """Return the params that an event gives. Raises InvalidInput, naming each param that it does not give."""
    problems: list[Problem] = []
    params = {name: _fill_template(f"params.{name}", template, event, problems) for name, template in trigger.params.items()}
    if event.type != trigger.on.type:
        problems.append(Problem("type", f"this trigger takes events of type {trigger.on.type}"))
    if event.parent and not event.structured:
        problems.append(Problem("jeparent", "headers are not signed: send the event in structured mode to name a parent"))
    if problems:
        raise InvalidInput(EVENT, tuple(problems))
    return params


def _fill_template(path: str, template: str, event: CloudEvent, problems: list[Problem]) -> str:
    def replacement(found: re.Match[str]) -> str:
        name = found[1]
        if name in _UNSIGNED and not event.structured:
            problems.append(Problem(path, f"{{{name}}} needs structured mode: headers are not signed"))
            return ""
        text = _to_text(_event_value(event, name))
        if text is None:
            problems.append(Problem(path, f"the event has no text or number at {name}"))
        return text or ""

    return _PLACEHOLDER.sub(replacement, template)


def _event_value(event: CloudEvent, name: str) -> Any:
    if not name.startswith("data."):
        return getattr(event, name)
    value = event.data
    for part in name.split(".")[1:]:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _to_text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    return json.dumps(value) if isinstance(value, bool | int | float) else None


def _template_pattern(template: str) -> re.Pattern[str]:
    literals = map(re.escape, _PLACEHOLDER.split(template)[::2])
    return re.compile(".*".join(literals), re.DOTALL)


def _placeholder_problems(triggers: Triggers) -> Iterator[Problem]:
    for name, trigger in triggers.triggers.items():
        for param, template in trigger.params.items():
            for placeholder in _PLACEHOLDER.findall(template):
                if not _KNOWN.fullmatch(placeholder):
                    why = f"{{{placeholder}}} is nothing of an event; there are id, source, type, subject, time and data.<name>"
                    yield Problem(f"triggers.{name}.params.{param}", why)
