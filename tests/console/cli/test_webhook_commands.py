"""`justenough webhook`: subscriptions, deliveries that failed, resending them, and test events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.console.cli.conftest import Cli, complete, write_spec
from tests.support.canned_server import CannedServer, serve_canned_answers
from tests.support.dead_letters import reject_events
from tests.support.people import Human
from tests.support.shop import Shop
from tests.support.wait import until

pytestmark = pytest.mark.servers

WRITE = {"resource": "refunds-db", "action": "write", "ttl": "5m", "reason": "Write the refund"}


@pytest.fixture
def siem(cli: Cli, auditor: Human) -> Iterator[CannedServer]:
    """A receiver that wants nothing any more, and that the stack's console tells of jobs."""
    with reject_events(cli.config, auditor, "siem") as found:
        yield found


def test_undelivered_events_are_listed_and_gone_once_they_are_resent(cli: Cli, siem: CannedServer, tmp_path: Path) -> None:
    job = cli.json("job", "run", write_spec(tmp_path, ["true"]), "--wait")["id"]
    (dead,) = until(lambda: cli.json("webhook", "deliveries", "siem", "--dead", who="lead")["items"], "there is a dead letter")
    assert (dead["job"], dead["type"], dead["why"]) == (job, "job.submitted", "410 Gone")
    table = cli.run("webhook", "list", who="lead").stdout
    assert "siem" in table
    assert "failing" in table
    for words in ((), (dead["id"], "--all")):
        refused = cli.run("webhook", "resend", "siem", *words, who="lead")
        assert (refused.exit_code, "--all" in refused.stderr) == (2, True)
    assert cli.run("webhook", "resend", "siem", "d-unknown", who="lead").exit_code == 5
    assert cli.run("webhook", "resend", "siem", "--all", who="auditor").exit_code == 6
    siem.set_response(200, {})
    resent = cli.run("webhook", "resend", "siem", "d-unknown", dead["id"], who="lead")
    assert (resent.exit_code, resent.stdout) == (5, "1 queued for delivery\n")
    assert "d-unknown: siem has no dead letter" in resent.stderr
    until(lambda: not cli.json("webhook", "deliveries", "siem", who="lead")["items"], "all are delivered or dropped")
    assert "No failed deliveries." in cli.run("webhook", "deliveries", "siem", who="lead").stderr
    assert cli.json("webhook", "resend", "siem", "--all", who="lead") == {"subscription": "siem", "resent": 0}
    sent = [json.loads(heard.body) for heard in siem.requests]
    assert [event["subject"] for event in sent] == [job, job]


def test_a_test_delivery_says_whether_it_arrived(cli: Cli, siem: CannedServer) -> None:
    failed = cli.run("webhook", "test", "siem", who="lead")
    assert (failed.exit_code, failed.stdout) == (1, "siem: did not arrive (410 Gone)\n")
    assert complete(cli, "justenough --profile lead webhook test si") == ["siem"]
    assert "webhook deliveries siem" in failed.stderr
    siem.set_response(200, {})
    assert cli.run("webhook", "test", "siem", who="lead").stdout == "siem: arrived (200 OK)\n"
    assert json.loads(siem.requests[-1].body)["type"] == "dev.justenough.webhook.tested.v1"


def test_webhook_commands_refuse_people_without_the_right_and_unknown_subscriptions(cli: Cli) -> None:
    assert cli.run("webhook", "list", who="ops").exit_code == 6
    assert cli.run("webhook", "deliveries", "nobody", who="lead").exit_code == 5


def test_approvers_are_notified_with_a_link_to_the_request_and_then_of_the_end(
    cli: Cli, shop: Shop, lead: Human, ops: Human, tmp_path: Path
) -> None:
    file = cli.config / "triggers.yaml"
    before = file.read_text()
    people = {"name": "leads", "on": ["approval.opened"], "to": ["kv/data/je/notify/leads"], "tiers": [1], "allow_private": True}
    with serve_canned_answers() as chat, shop.admin() as vault:
        url = chat.address.replace("http://", "json://")
        vault.post("kv/data/je/notify/leads", json={"data": {"chat": url}}).raise_for_status()
        file.write_text(f"{before}\nnotify: [{json.dumps(people)}]\n")
        try:
            assert cli.run("vault", "setup").exit_code == 0
            until(lambda: cli.run("webhook", "test", "leads", who="lead").exit_code == 0, "it takes a test")
            until(
                lambda: [item["state"] for item in cli.json("webhook", "list", who="lead")["items"] if item["name"] == "leads"] == ["ok"],
                "it is well",
            )
            path = write_spec(tmp_path, ["true"], access=[WRITE], data_scope={"tenant": "acme"})
            job = cli.json("job", "run", path)["id"]
            request = ops.until(job, "awaiting_approval")["requests"][0]
            told = until(lambda: [json.loads(heard.body) for heard in chat.requests[1:]], "they are told of the request")
            assert told[0]["title"] == "Approval needed (tier 1): write on Refunds"
            assert told[0]["message"].endswith(f"Review: {shop.stack.console}/inbox/{request['id']}")
            assert lead.answer(request, "deny").status_code == 200
            until(lambda: len(chat.requests) > 2, "they are told of its answer")
            assert "lead denied the request" in json.loads(chat.requests[2].body)["message"]
        finally:
            file.write_text(before)
            assert cli.run("vault", "setup").exit_code == 0
