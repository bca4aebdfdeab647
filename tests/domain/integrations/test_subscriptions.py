"""Webhooks and notifications in triggers.yaml: what they may contain, their names, and the events that they get."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from justenough.domain.core.errors import InvalidInput
from justenough.domain.integrations.notifications import SETTLING_EVENTS
from justenough.domain.integrations.triggers import MAX_SUBSCRIPTIONS, Notify, Triggers, Webhook, delivery_id, read_triggers, tier_problems
from justenough.domain.ledger.events import EventType

HOOK = {"url": "https://siem.example.com/hooks", "events": ["*"], "signing_secret": "kv/data/je/webhooks/siem"}
PEOPLE = {"on": ["approval.opened", "review.opened"], "to": ["kv/data/je/notify/leads"], "tiers": [1]}


def read(*webhooks: dict[str, Any], notify: list[dict[str, Any]] | None = None) -> Triggers:
    return read_triggers(json.dumps({"webhooks": list(webhooks), "notify": notify or []}))


def problems(**subscriptions: Any) -> dict[str, str]:
    with pytest.raises(InvalidInput) as told:
        read_triggers(json.dumps(subscriptions))
    return {problem.path: problem.message for problem in told.value.problems}


def test_the_console_reads_the_secrets_of_subscriptions_and_triggers() -> None:
    assert read(HOOK, notify=[PEOPLE]).secret_paths == ("kv/data/je/notify/leads", "kv/data/je/webhooks/siem")


def test_a_subscription_without_a_name_gets_one_that_does_not_depend_on_its_place() -> None:
    other = {**HOOK, "url": "https://siem.example.com/other"}
    forth, back = read(HOOK, other, notify=[PEOPLE]), read(other, HOOK, notify=[PEOPLE])
    assert set(forth.subscriptions) == set(back.subscriptions)
    assert len(forth.subscriptions) == 3
    (first, *_) = forth.subscriptions
    assert first.startswith("siem-example-com-")
    assert read({**HOOK, "events": ["job.*"]}).webhooks[0].subscription_name == first
    assert read({**HOOK, "name": "siem"}).webhooks[0].subscription_name == "siem"


@given(st.text("abc.-XYZ123", min_size=1, max_size=60))
def test_every_generated_subscription_name_is_a_valid_name(host: str) -> None:
    made = Webhook.model_validate({**HOOK, "url": f"https://{host}/"}).subscription_name
    assert Webhook.model_validate({**HOOK, "name": made}).subscription_name == made
    people = Notify.model_validate(PEOPLE).subscription_name
    assert Notify.model_validate({**PEOPLE, "name": people}).subscription_name == people


@pytest.mark.parametrize(
    "changes, path, message",
    [
        ({"url": "http://siem.example.com/"}, "webhooks[0].url", "allow_private"),
        ({"url": "https://10.0.0.1/"}, "webhooks[0].url", "allow_private"),
        ({"url": "http://169.254.169.254/", "allow_private": True}, "webhooks[0].url", "credentials"),
        ({"url": "https://me:secret@siem.example.com/"}, "webhooks[0].url", "must not contain a user"),
        ({"url": ""}, "webhooks[0].url", "empty"),
        ({"events": []}, "webhooks[0].events", "at least one"),
        ({"events": ["job.finished"]}, "webhooks[0].events[0]", "unknown event"),
        ({"events": ["job.ended", "jobs.*"]}, "webhooks[0].events[1]", "unknown event"),
        ({"events": ["job*"]}, "webhooks[0].events[0]", "unknown event"),
        ({"signing_secret": "whsec_abc"}, "webhooks[0].signing_secret", "pattern"),
        ({"signing_secret": "kv/data/../sys/seal"}, "webhooks[0].signing_secret", "pattern"),
        ({"secret": "x"}, "webhooks[0].secret", "unknown key"),
        ({"name": "Siem"}, "webhooks[0].name", "pattern"),
        ({"allow_private": "perhaps"}, "webhooks[0].allow_private", "must be true or false"),
    ],
)
def test_each_mistake_in_a_webhook_is_reported_by_its_place(changes: dict[str, Any], path: str, message: str) -> None:
    found = problems(webhooks=[{**HOOK, **changes}])
    assert list(found) == [path]
    assert message in found[path]


@pytest.mark.parametrize(
    "changes, path, message",
    [
        ({"on": []}, "notify[0].on", "at least one"),
        ({"on": ["job.ended"]}, "notify[0].on[0]", "no notifications for"),
        ({"on": ["*"]}, "notify[0].on[0]", "approval.opened"),
        ({"to": []}, "notify[0].to", "at least one"),
        ({"to": ["slack://token/token"]}, "notify[0].to[0]", "pattern"),
        ({"tiers": []}, "notify[0].tiers", "at least one"),
        ({"tiers": [0]}, "notify[0].tiers[0]", "at least"),
        ({"tiers": [4]}, "notify[0].tiers[0]", "at most"),
        ({"tier": 1}, "notify[0].tier", "unknown key"),
    ],
)
def test_each_mistake_in_a_notification_is_reported_by_its_place(changes: dict[str, Any], path: str, message: str) -> None:
    found = problems(notify=[{**PEOPLE, **changes}])
    assert list(found) == [path]
    assert message in found[path]


def test_two_subscriptions_with_one_name_are_refused_across_both_kinds() -> None:
    assert list(problems(webhooks=[HOOK, HOOK])) == ["webhooks[1].name"]
    found = problems(webhooks=[{**HOOK, "name": "x"}], notify=[{**PEOPLE, "name": "x"}])
    assert found == {"notify[0].name": "webhooks[0] has the name x too; give each subscription a different `name`"}


def test_the_number_of_subscriptions_is_limited() -> None:
    many = [{**HOOK, "name": f"n{number}"} for number in range(MAX_SUBSCRIPTIONS + 1)]
    assert len(read(*many[:-1]).webhooks) == MAX_SUBSCRIPTIONS
    assert list(problems(webhooks=many)) == ["webhooks"]


def test_a_tier_that_approvals_yaml_does_not_have_is_reported_at_the_place_that_names_it() -> None:
    named, silent = read(notify=[{**PEOPLE, "tiers": [1, 3]}, {key: value for key, value in PEOPLE.items() if key != "tiers"}]).notify
    assert [problem.path for problem in tier_problems((silent, named), [1, 2])] == ["notify[1].tiers"]
    assert list(tier_problems((silent, named), [1, 2, 3])) == []


@pytest.mark.parametrize(
    "events, wanted",
    [
        (["*"], set(EventType)),
        (["job.ended"], {EventType.JOB_ENDED}),
        (["revocation.*", "job.ended"], {kind for kind in EventType if kind.startswith("revocation.")} | {EventType.JOB_ENDED}),
    ],
)
def test_a_webhook_gets_the_event_types_that_it_names(events: list[str], wanted: set[EventType]) -> None:
    assert set(Webhook.model_validate({**HOOK, "events": events}).event_types) == wanted


def test_a_notification_gets_events_that_open_requests_and_reviews_and_those_that_settle_them() -> None:
    assert set(Notify.model_validate(PEOPLE).event_types) == {EventType.APPROVAL_OPENED, EventType.REVIEW_OPENED, *SETTLING_EVENTS}


@given(st.text(max_size=10), st.integers(0, 2**53), st.text(max_size=10), st.integers(0, 2**53))
def test_a_delivery_has_an_id_of_its_own(name: str, position: int, other: str, place: int) -> None:
    same = (name, position) == (other, place)
    assert (delivery_id(name, position) == delivery_id(other, place)) is same
