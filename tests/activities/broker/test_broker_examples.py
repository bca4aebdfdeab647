"""The shop's example jobs that talk to their broker, in sessions of a whole stack."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from justenough.adapters.configuration.bundle_packer import pack_folder
from justenough.domain.jobs.spec import read_spec
from tests.activities.broker.shop_agent import SHOP, answer_until_ended, serve_scripted_model
from tests.support.people import ACCEPTED_STATUSES, Human
from worker.stack.stack_file import Stack

pytestmark = pytest.mark.servers

SAID_WITH_BROKER = {
    "answer-ticket": "Ticket 4711 (refund) is about order",
    "count-orders": " orders; nobody is logged in now.",
    "support-agent": "What became of it:",
}
"""The text in programs that use their broker."""


@pytest.fixture(scope="module")
def scripted(whole: Stack) -> Iterator[str]:
    """The example's own model."""
    with serve_scripted_model(whole) as url:
        yield url


@pytest.mark.parametrize("name", SAID_WITH_BROKER)
def test_each_example_job_that_uses_its_broker_gets_and_releases_access(
    ops: Human, lead: Human, security: Human, scripted: str, name: str
) -> None:
    del scripted
    file = SHOP / "jobs" / f"{name}.yaml"
    raw = read_spec(file.read_bytes())
    content = pack_folder(file.parent, raw["run"]["workdir"])
    sent = ops.api.post("bundles", content=content, headers={"Content-Type": "application/gzip"}).raise_for_status()
    job = ops.launch(raw, bundle=sent.json()["digest"])

    def approve(request: dict[str, Any]) -> None:
        assert (lead, security)[request["tier"] - 1].answer(request).status_code in ACCEPTED_STATUSES | {409}

    seen = answer_until_ended(ops, job, approve)
    said = ops.output(job)
    assert (seen["state"], seen["revocation"]["state"]) == ("succeeded", "confirmed"), said
    assert SAID_WITH_BROKER[name] in said
    ends = [item for item in seen["credentials"] if item["revocable"] == "now"]
    assert len(ends) >= 2
    assert {item["state"] for item in ends} == {"confirmed"}
    ended = next(entry["position"] for entry in ops.ledger(job) if entry["type"] == "revocation.started")
    alone = [entry for entry in ops.ledger(job) if entry["type"] == "credential.confirmed" and entry["position"] < ended]
    assert len(alone) == len(ends), "each was dead before the job was over"
