"""Schedules on the whole stack: the worker runs a job that its own configuration names, and refuses all others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from justenough.adapters.configuration.configured_jobs import ScheduledJob, load_scheduled_jobs
from justenough.domain.integrations.triggers import read_triggers
from tests.support import temporal_client
from tests.support.people import Human
from tests.support.shop import Shop
from tests.support.wait import until
from tests.triggers.stolen_console import StolenConsole

pytestmark = pytest.mark.servers

NIGHTLY = "schedules/nightly-reconcile"
PAY = """
  pay: {cron: "0 2 * * *", job: jobs/refund-triage.yaml, params: {ticket: "4719"}, paused: true}
"""


def schedule_of(shop: Shop, name: str = "nightly-reconcile") -> ScheduledJob:
    """Return a schedule in the form of the configuration."""
    return load_scheduled_jobs(shop.config, read_triggers((shop.config / "triggers.yaml").read_bytes()), None, [])[name]


@contextmanager
def edit_config(shop: Shop, auditor: Human, file: str, old: str, new: str, *, shows: tuple[str, str]) -> Iterator[None]:
    """Edit a configuration file for a block; wait until the console has reloaded it."""
    path, there = shop.config / file, (shop.config / file).read_text()
    assert old in there
    path.write_text(there.replace(old, new))
    where, what = shows
    until(lambda: what in auditor.api.get(where).text, f"{where} tells of {what}")
    try:
        yield
    finally:
        path.write_text(there)


def test_the_shops_schedule_is_shown_with_its_next_run(auditor: Human, shop: Shop) -> None:
    found = auditor.api.get(NIGHTLY).raise_for_status().json()
    cron = read_triggers((shop.config / "triggers.yaml").read_bytes()).schedules["nightly-reconcile"].cron
    assert (found["cron"], found["timezone"], found["job"], found["paused"]) == (cron, "UTC", "jobs/reconcile.yaml", False)
    assert {moment[11:] for moment in found["next"]} == {f"{int(cron.split()[1]):02}:00:00Z"}
    assert found["problem"] is None


def test_a_schedules_job_runs_in_the_schedules_name_without_approvals_and_ends_clean(ops: Human, auditor: Human, shop: Shop) -> None:
    shop.forget_refunds()
    answer = ops.api.post(f"{NIGHTLY}/run", json={"reason": "to see it"})
    assert answer.status_code == 201, answer.text
    done = auditor.until(answer.json()["id"])
    assert (done["state"], done["requester"], done["name"]) == ("succeeded", "schedule:nightly-reconcile", "reconcile"), done["reason"]
    assert {request["state"] for request in done["requests"]} == {"allowed"}
    submitted = auditor.ledger(done["id"])[0]["data"]
    signed = submitted["order"]["statement"]
    assert (signed["origin"], signed["asked_by"], submitted["reason"]) == (
        "schedule:nightly-reconcile",
        ops.id,
        "run now by ops: to see it",
    )
    shop.assert_dead(done)
    (job, *_) = auditor.api.get(NIGHTLY).json()["jobs"]
    assert (job["id"], job["state"], job["exit_code"]) == (done["id"], "succeeded", 0)


def test_a_compromised_console_can_run_for_a_schedule_only_what_the_workers_configuration_allows(shop: Shop, auditor: Human) -> None:
    console, nightly = StolenConsole(shop), schedule_of(shop)
    whole: dict[str, Any] = {"origin": "schedule:nightly-reconcile", "bundle": nightly.bundle_digest}
    attempts: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "launches a different spec": ({**nightly.spec, "access": nightly.spec["access"][1:]}, whole),
        "launches a different bundle": (nightly.spec, {**whole, "bundle": None}),
        "has no schedule:weekly": (nightly.spec, {**whole, "origin": "schedule:weekly"}),
        "has no trigger:nightly-reconcile": (nightly.spec, {**whole, "origin": "trigger:nightly-reconcile"}),
        "cannot have a parent job": (nightly.spec, {**whole, "parent": f"j-dev-{'0' * 26}"}),
        "is no longer an active person": (nightly.spec, {**whole, "asked_by": "00000000-0000-0000-0000-000000000000"}),
        "not an active person": (nightly.spec, {**whole, "origin": None}),
    }
    for why, (ordered, changes) in attempts.items():
        assert_refused(shop, auditor, why, console.run_order(ordered, **changes))
    with edit_config(shop, auditor, "triggers.yaml", "\nschedules:\n", f"\nschedules:{PAY}", shows=("schedules", '"pay"')):
        pay = schedule_of(shop, "pay")
        other = {"origin": "schedule:pay", "bundle": pay.bundle_digest, "params": {"ticket": "4711"}}
        assert_refused(shop, auditor, "does not launch its job with these params", console.run_order(pay.spec, **other))


def assert_refused(shop: Shop, auditor: Human, why: str, outcome: dict[str, Any]) -> None:
    """Fail unless a job's order was refused for this reason and nothing was issued."""
    assert (outcome["closed"].state, why in str(outcome["closed"].reason)) == ("failed", True), (why, outcome["closed"].reason)
    told = [one["type"] for one in auditor.api.get("ledger", params={"job": outcome["job"]}).json()["items"]]
    assert (told[0], {"job.submitted", "access.requested", "credential.issued"} & set(told)) == ("job.refused", set())
    assert shop.tokens_of(outcome["job"]) == []


def test_only_the_console_can_order_in_a_schedules_name_or_name_the_person_who_started_it(ops: Human, lead: Human, shop: Shop) -> None:
    spec = {**schedule_of(shop).spec, "run": {"command": ["true"]}}
    for changes, why in (
        ({"origin": "schedule:nightly-reconcile"}, "only the console's identity"),
        ({"asked_by": lead.id}, "only the console may name the person who requested"),
    ):
        refused = ops.api.post("jobs", json=ops.order(spec, **changes))
        assert (refused.status_code, why in refused.json()["detail"]) == (403, True), refused.text


def test_a_person_who_starts_a_schedule_cannot_approve_its_requests(shop: Shop, lead: Human, security: Human, auditor: Human) -> None:
    # lead both launches and approves here.
    more = edit_config(shop, auditor, "triggers.yaml", "\nschedules:\n", f"\nschedules:{PAY}", shows=("schedules", '"pay"'))
    with edit_config(shop, lead, "approvals.yaml", "launch: [ops]", "launch: [ops, support-leads]", shows=("whoami", "launch")), more:
        job = lead.api.post("schedules/pay/run", json={}).raise_for_status().json()["id"]
        seen = auditor.until(job, "awaiting_approval")
        request = next(one for one in seen["requests"] if one["state"] == "pending" and one["tier"] == 1)
        refused = lead.answer(request)
        assert (refused.status_code, "people cannot decide on a" in refused.json()["detail"]) == (403, True)
        # Send it directly to the job, without the console.
        asyncio.run(_signal(shop, job, lead.decision(request)))
        told = _wait_for_rejection(auditor, job)
        assert "people cannot decide on a job that they triggered, or on a descendant of a job that they launched" in told
        assert auditor.job(job)["state"] == "awaiting_approval"
        security.api.post(f"jobs/{job}/kill").raise_for_status()
        assert auditor.until(job)["state"] == "killed"


async def _signal(shop: Shop, job: str, signed: dict[str, Any]) -> None:
    client = await temporal_client.connect(shop.stack)
    await client.get_workflow_handle(job).signal("decide", signed)


def _wait_for_rejection(auditor: Human, job: str) -> str:
    """Return why the worker rejected a signal that did not come through the console."""

    def found() -> list[str]:
        return [one["data"]["why"] for one in auditor.ledger(job) if one["type"] == "approval.rejected" and "/signal-" in one["id"]]

    return until(found, "it is rejected")[0]
