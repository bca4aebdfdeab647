"""triggers.yaml: what it may contain, which params an event gives, and which params a trigger could have produced."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from justenough.domain.core.errors import InvalidInput
from justenough.domain.integrations.cloudevents import CloudEvent
from justenough.domain.integrations.triggers import Trigger, fill_params, read_triggers

EVENT = CloudEvent(
    id="e1",
    source="/s",
    type="t",
    subject="sub",
    time="2026-01-31T09:30:00Z",
    data={"id": 7, "a": {"b": "x"}, "yes": True},
    structured=True,
)
YAML = "triggers: {one: {on: {type: t}, signing_secret: kv/data/one, job: jobs/one.yaml, params: {ticket: '{data.id}'}}}"


def trigger(**params: str) -> Trigger:
    return Trigger.model_validate({"on": {"type": "t"}, "signing_secret": "kv/data/one", "job": "jobs/one.yaml", "params": params})


def paths(text: str) -> list[str]:
    with pytest.raises(InvalidInput) as told:
        read_triggers(text)
    return [problem.path for problem in told.value.problems]


def test_a_file_names_each_trigger_and_the_secrets_to_be_read() -> None:
    assert read_triggers(YAML).secret_paths == ("kv/data/one",)
    assert read_triggers("{}").triggers == {}


@pytest.mark.parametrize(
    "old, new, path",
    [
        ("type: t", "type: ''", "triggers.one.on.type"),
        ("on: {type: t}", "on: {}", "triggers.one.on.type"),
        ("kv/data/one", "kv/one", "triggers.one.signing_secret"),
        ("kv/data/one", "kv/data/../../sys/seal", "triggers.one.signing_secret"),
        ("kv/data/one", "kv/data/*", "triggers.one.signing_secret"),
        ("kv/data/one", "kv/data/+/x", "triggers.one.signing_secret"),
        ("jobs/one.yaml", "/etc/one.yaml", "triggers.one.job"),
        ("jobs/one.yaml", "jobs/../../one.yaml", "triggers.one.job"),
        ("jobs/one.yaml", "one.yaml", "triggers.one.job"),
        ("{data.id}", "{data}", "triggers.one.params.ticket"),
        ("{data.id}", "{env.HOME}", "triggers.one.params.ticket"),
        ("ticket:", "Ticket:", "triggers.one.params.Ticket"),
        ("job: jobs/one.yaml", "job: jobs/one.yaml, command: [sh]", "triggers.one.command"),
        ("triggers: {one", "hooks: {one", "hooks"),
    ],
)
def test_each_mistake_in_a_trigger_is_reported_by_its_place(old: str, new: str, path: str) -> None:
    assert old in YAML
    assert paths(YAML.replace(old, new)) == [path]


def test_an_unknown_placeholder_is_named_with_those_that_exist() -> None:
    why = r"unknown placeholder \{env\.HOME\}; use id, source, type, subject, time or data\.<name>"
    with pytest.raises(InvalidInput, match=why):
        read_triggers(YAML.replace("{data.id}", "{env.HOME}"))


def test_params_come_from_what_the_event_says() -> None:
    whole = trigger(a="{data.id}", b="{data.a.b}-{id}", c="fixed", d="{source}{subject}{type}{time}", e="{data.yes}")
    assert fill_params(whole, EVENT) == {"a": "7", "b": "x-e1", "c": "fixed", "d": "/ssubt2026-01-31T09:30:00Z", "e": "true"}


@pytest.mark.parametrize(
    "changes, path, message",
    [
        ({"data": None}, "params.a", "at data.id"),
        ({"data": {"id": None}}, "params.a", "at data.id"),
        ({"data": {"id": [1]}}, "params.a", "at data.id"),
        ({"data": "id"}, "params.a", "at data.id"),
        ({"type": "u"}, "type", "events of type t"),
        ({"structured": False, "extensions": {"jeparent": "j"}}, "jeparent", "structured mode"),
    ],
)
def test_missing_values_of_an_event_are_named(changes: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(InvalidInput) as told:
        fill_params(trigger(a="{data.id}"), EVENT.model_copy(update=changes))
    assert [(one.path, message in one.message) for one in told.value.problems] == [(path, True)]


@pytest.mark.parametrize("name", ["source", "subject", "time"])
def test_attributes_that_no_signature_covers_cannot_become_params(name: str) -> None:
    with pytest.raises(InvalidInput, match="headers are not signed"):
        fill_params(trigger(a=f"{{{name}}}"), EVENT.model_copy(update={"structured": False}))


@given(st.text(), st.text())
def test_params_that_a_trigger_made_pass_its_check_and_altered_ones_do_not(first: str, second: str) -> None:
    whole = trigger(a="t-{data.x}.{data.y}", b="fixed")
    made = fill_params(whole, EVENT.model_copy(update={"data": {"x": first, "y": second}}))
    assert whole.could_have_made(made)
    assert not whole.could_have_made({**made, "b": made["b"] + "!"})
    assert not whole.could_have_made({**made, "a": "u" + made["a"]})


def test_a_value_with_many_separators_is_checked_at_once() -> None:
    # A regular expression takes 20 seconds if there are five, and stops all other threads meanwhile.
    whole = trigger(a=":".join(["{id}"] * 30) + " {id}")
    assert whole.could_have_made({"a": ":" * 29 + " " + ":" * 226})
    assert not whole.could_have_made({"a": ":" * 256})


@pytest.mark.parametrize(
    "params",
    [{}, {"a": "t-1"}, {"b": "t-1"}, {"a": "t-1.2", "b": "x", "c": "1"}, {"a": "t-1x2", "b": "fixed"}, {"a": "t-1.2", "b": "Fixed"}],
)
def test_params_that_a_trigger_could_not_have_made_are_refused(params: dict[str, str]) -> None:
    assert not trigger(a="t-{data.x}.{data.y}", b="fixed").could_have_made(params)
