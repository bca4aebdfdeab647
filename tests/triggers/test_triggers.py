"""Events that launch jobs on the real stack, from the sender's request to the job that the worker runs or refuses."""

from __future__ import annotations

import base64
import json
import time
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest

from justenough.adapters.configuration.configured_jobs import load_triggered_jobs
from justenough.domain.core.ids import first_job_id, new_job_id
from justenough.domain.integrations.triggers import read_triggers
from tests.attacks.secret_scan import files
from tests.support.people import ACCEPTED_STATUSES, Human
from tests.support.shop import Shop
from tests.triggers.event_sender import Sender, event
from tests.triggers.stolen_console import StolenConsole

pytestmark = pytest.mark.servers

STRANGER = "delivery refused: its address, its Standard Webhooks signature or its timestamp is not valid"


def job_count(auditor: Human) -> int:
    """Return the number of jobs that the console launched."""
    items = auditor.api.get("jobs", params={"requester": "trigger:ticket-created", "limit": 1000}).raise_for_status().json()["items"]
    return len(items)


def kill_jobs(lead: Human, auditor: Human, *jobs: str) -> None:
    """Kill jobs that wait for approval. No launcher may: a trigger launched them."""
    for job in jobs:
        lead.api.post(f"jobs/{job}/kill").raise_for_status()
        assert auditor.until(job)["state"] == "killed"


def test_an_event_starts_one_job_in_the_triggers_name_that_only_people_can_approve(
    helpdesk: Sender, auditor: Human, lead: Human, security: Human, shop: Shop
) -> None:
    first = event(data={"id": 4717})
    answer = helpdesk.send(first)
    assert answer.status_code == 201, answer.text
    assert answer.json().keys() == {"id", "state"}
    job = answer.json()["id"]

    again = [helpdesk.send(first), helpdesk.send({**first, "data": {"id": 1}})]
    assert [(one.status_code, one.json()["id"]) for one in again] == [(200, job), (200, job)]

    seen = auditor.until(job, "awaiting_approval")
    assert (seen["requester"], seen["params"], seen["name"]) == ("trigger:ticket-created", {"ticket": "4717"}, "refund-triage")
    submitted = auditor.ledger(job)[0]
    assert submitted["data"]["reason"] == f"event {first['id']} of /helpdesk"
    assert submitted["data"]["order"]["statement"]["origin"] == "trigger:ticket-created"
    for request in seen["requests"]:
        if request["state"] == "pending":
            by = security if request["tier"] == 2 else lead
            assert by.answer(request, "deny" if request["tier"] == 2 else "approve").status_code in ACCEPTED_STATUSES
    done = auditor.until(job)
    assert done["state"] == "succeeded", done["reason"]
    shop.assert_dead(done)


def test_an_event_in_binary_mode_starts_one_job_and_unsigned_headers_start_no_second(helpdesk: Sender, auditor: Human, lead: Human) -> None:
    sent = event()
    answer = helpdesk.send_binary(sent)
    assert answer.status_code == 201, answer.text
    job = answer.json()["id"]
    again = helpdesk.send_binary({**sent, "source": "/somewhere-else"})
    assert (again.status_code, again.json()["id"]) == (200, job)
    assert auditor.job(job)["params"] == {"ticket": "4711"}
    kill_jobs(lead, auditor, job)
    for changes, delivery, path in (({}, "msg_other", "id"), ({"jeparent": job}, None, "jeparent")):
        refused = helpdesk.send_binary(event(**changes), delivery=delivery)
        assert (refused.status_code, refused.json()["errors"][0]["path"]) == (422, path)


def test_an_event_may_name_its_parent_job(helpdesk: Sender, auditor: Human, lead: Human) -> None:
    first = helpdesk.send(event()).json()["id"]
    job = helpdesk.send(event(jeparent=first)).json()["id"]
    auditor.until(job, "awaiting_approval")
    assert [one["job"] for one in auditor.job(job)["chain"]] == [first]
    kill_jobs(lead, auditor, job, first)
    unknown = helpdesk.send(event(jeparent=new_job_id("dev", now=datetime.now(UTC))))
    assert unknown.status_code == 409
    assert "there is no job" in unknown.json()["detail"]


def test_every_invalid_signature_gets_the_same_error_and_leaves_nothing(helpdesk: Sender, auditor: Human) -> None:
    before, now = job_count(auditor), int(time.time())
    body = json.dumps(event()).encode()
    content = {"content-type": "application/cloudevents+json"}
    good = helpdesk.headers(body)
    mallory = Sender(helpdesk.address, "whsec_" + base64.b64encode(b"another-secret-of-24-bytes").decode())
    answers = {
        "unsigned": helpdesk.post(body, content),
        "another's secret": mallory.send(event()),
        "another body": helpdesk.post(body + b" ", {**content, **good}),
        "another id": helpdesk.post(body, {**content, **good, "webhook-id": "msg_2"}),
        "old": helpdesk.send(event(), at=now - 330),
        "from the future": helpdesk.send(event(), at=now + 330),
        "a later time": helpdesk.post(body, {**content, **good, "webhook-timestamp": str(now + 2)}),
        "unknown trigger": helpdesk.send(event(), trigger="ticket-closed"),
        "no name": helpdesk.send(event(), trigger="x" * 63),
    }
    assert {why: answer.status_code for why, answer in answers.items()} == dict.fromkeys(answers, 401)
    assert {answer.json()["detail"][: len(STRANGER)] for answer in answers.values()} == {STRANGER}
    assert len({answer.json()["detail"] for answer in answers.values()}) == 1
    assert helpdesk.post(body, {**content, **good}).status_code == 201
    assert job_count(auditor) == before + 1


@pytest.mark.parametrize(
    "changes, path",
    [
        ({"data": {"ticket": 1}}, "params.ticket"),
        ({"data": None}, "params.ticket"),
        ({"data": {"id": {"a": 1}}}, "params.ticket"),
        ({"data": {"id": "4711; rm -rf"}}, "params.ticket"),
        ({"data": {"id": "--help"}}, "params.ticket"),
        ({"type": "com.example.ticket.closed"}, "type"),
        ({"id": None}, "id"),
        ({"specversion": "0.3"}, "specversion"),
    ],
)
def test_an_event_that_does_not_match_gets_the_missing_fields_and_launches_nothing(
    helpdesk: Sender, auditor: Human, changes: dict[str, Any], path: str
) -> None:
    before = job_count(auditor)
    answer = helpdesk.send(event(**changes))
    assert (answer.status_code, [one["path"] for one in answer.json()["errors"]]) == (422, [path])
    assert job_count(auditor) == before


@pytest.mark.parametrize("wrong", [None, {"id": "4711; rm -rf"}])
def test_an_event_that_is_fixed_and_sent_again_launches_a_job_of_that_time(
    helpdesk: Sender, auditor: Human, lead: Human, wrong: dict[str, Any] | None
) -> None:
    fixed = event()
    assert helpdesk.send({**fixed, "data": wrong}).status_code == 422
    began = datetime.now(UTC)
    answer = helpdesk.send(fixed)
    assert answer.status_code == 201
    # Lists sort jobs by their ids, which contain their time.
    assert answer.json()["id"] >= first_job_id("dev", since=began)
    kill_jobs(lead, auditor, answer.json()["id"])


def test_a_body_over_the_limit_is_not_read(helpdesk: Sender) -> None:
    assert helpdesk.send(event(data={"id": "x" * 1024 * 1024})).status_code == 413


def test_a_compromised_console_can_launch_only_what_the_workers_configuration_allows(shop: Shop, auditor: Human) -> None:
    console = StolenConsole(shop)
    named = load_triggered_jobs(shop.config, read_triggers((shop.config / "triggers.yaml").read_bytes()), None, [])["ticket-created"]
    whole = {"bundle": named.bundle_digest, "params": {"ticket": "4711"}}
    attempts: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "launches a different spec": ({**named.spec, "access": named.spec["access"][1:]}, whole),
        "launches a different bundle": (named.spec, {**whole, "bundle": None}),
        "does not launch its job with these params": (named.spec, {**whole, "params": {"ticket": "4711", "witness": "127.0.0.1:9"}}),
        "has no trigger:ticket-closed": (named.spec, {**whole, "origin": "trigger:ticket-closed"}),
        "not an active person": (named.spec, {**whole, "origin": None}),
        "there is no job": (named.spec, {**whole, "parent": f"j-dev-{'0' * 26}"}),
    }
    for why, (ordered, changes) in attempts.items():
        seen = console.run_order(ordered, **changes)
        assert (seen["closed"].state, why in str(seen["closed"].reason)) == ("failed", True), (why, seen["closed"].reason)
        told = [one["type"] for one in auditor.api.get("ledger", params={"job": seen["job"]}).json()["items"]]
        assert (told[0], {"job.submitted", "access.requested", "credential.issued"} & set(told)) == ("job.refused", set())
        assert shop.tokens_of(seen["job"]) == []


def test_only_the_console_can_order_in_a_triggers_name(ops: Human, shop: Shop) -> None:
    named = load_triggered_jobs(shop.config, read_triggers((shop.config / "triggers.yaml").read_bytes()), None, [])["ticket-created"]
    answer = ops.api.post(
        "jobs", json=ops.order(named.spec, bundle=named.bundle_digest, params={"ticket": "1"}, origin="trigger:ticket-created")
    )
    assert answer.status_code in {403, 422}
    body = ops.order({**named.spec, "run": {"command": ["true"]}}, origin="trigger:ticket-created")
    refused = ops.api.post("jobs", json=body)
    assert (refused.status_code, "only the console's identity" in refused.json()["detail"]) == (403, True)


def test_the_consoles_login_signs_with_its_own_key_and_reads_only_the_triggers_secrets(shop: Shop, lead: Human) -> None:
    console = StolenConsole(shop)
    assert console.vault("GET", "kv/data/je/triggers/ticket-created").status_code == 200
    for method, path in (
        ("GET", "kv/data/je/triggers/another"),
        ("GET", "kv/data/tenants/acme/helpdesk"),
        ("POST", "kv/data/je/triggers/ticket-created"),
        ("POST", f"transit/sign/je-sign-{lead.id}"),
        ("POST", f"transit/keys/je-sign-{console.id}"),
        ("POST", f"transit/keys/je-sign-{console.id}/rotate"),
        ("POST", f"transit/keys/je-sign-{uuid.uuid4()}"),
    ):
        assert console.vault(method, path, {"input": "aGk="} if method == "POST" else None).status_code == 403, path


def test_the_signing_secret_is_in_no_log_and_no_file(helpdesk: Sender, shop: Shop) -> None:
    helpdesk.send(event(type="none.of.ours"))
    secret = helpdesk.secret.removeprefix("whsec_").encode()
    found = {place: secret in content for place, content in files(shop.stack) if not place.startswith("file vault/")}
    assert any("console" in place for place in found)
    assert [place for place, has_secret in found.items() if has_secret] == []
