"""The page of all jobs of a name: figures of its runs, what they ask for, who decides, and launching one again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from console.pages.charts import BAR_HEIGHT_PX, run_bars
from justenough.adapters.configuration.settings import Settings
from tests.adapters.store import event_samples as samples
from tests.console.pages.recorded_console import HOSTILE, Desk, load_page, serve_desk

pytestmark = pytest.mark.servers

SPEC = {
    "name": "parcel-tracer",
    "task": "Trace",
    "environment": "prod",
    "run": {"command": ["true"]},
    "access": [{"resource": "orders-db", "action": "write", "ttl": "10m", "reason": "Trace it"}],
}


@pytest.fixture
async def records(settings: Settings, passwords: dict[str, str], own_store: Path, small_config: Path) -> AsyncIterator[Desk]:
    async with serve_desk(settings, passwords, own_store, config=small_config) as opened:
        yield opened


def record_run(records: Desk, *, state: str = "succeeded", ran_s: float = 40, waited_s: float = 120, **changes: Any) -> str:
    """Record a run of parcel-tracer that a person approved, or that was denied; return its id."""
    at = datetime.now(UTC) - timedelta(hours=1)
    job = records.record_job(**{"name": "parcel-tracer", "spec": SPEC, **changes})
    began = records.store.jobs.get(job)
    assert began is not None
    at = began.created_at
    denied = state == "denied"
    events = [samples.access_request(job, at=at), samples.access_decision("needs_approval", job, tier=1, at=at)]
    decided = at + timedelta(seconds=waited_s)
    events.append(
        samples.approval_decision(
            "denied" if denied else "approved", job, decision="deny" if denied else "approve", person="lead", at=decided
        )
    )
    if not denied:
        events.append(samples.job_start(job, at=decided))
    records.store.ledger.append([*events, samples.job_end(state, job, at=decided + timedelta(seconds=0 if denied else ran_s))])
    return job


async def test_the_runs_of_a_job_name_are_summed_up(records: Desk) -> None:
    lead = await records.log_in()
    runs = [
        record_run(records),
        record_run(records, ran_s=20),
        record_run(records, state="failed", ran_s=60),
        record_run(records, state="denied"),
    ]
    page = await load_page(lead, "/jobs/by-name/parcel-tracer")
    assert "4 runs · 50% succeeded · median 40 s" in page.text
    record_run(records, state="cancelled")
    assert "5 runs · 50% succeeded" in (await load_page(lead, "/jobs/by-name/parcel-tracer")).text
    assert [link.removeprefix("/jobs/") for link in page.links if link.startswith("/jobs/j-")] == runs[::-1]
    assert "lead denied write on orders-db" in page.text
    assert "2 min" in page.text
    assert "/jobs?name=parcel-tracer" in page.links
    assert "orders-db write decided by lead · 3 of 4 granted" in page.text
    assert len([tag for tag, attributes in page.tags if tag == "rect"]) == 4


async def test_a_launcher_sees_their_own_runs_and_otherwise_nothing(records: Desk) -> None:
    ops, mallory = await records.log_in("ops"), await records.log_in("mallory")
    own = record_run(records, requester=await records.id_of(ops))
    other = record_run(records, requester="e-else")
    page = await load_page(ops, "/jobs/by-name/parcel-tracer")
    assert (f"/jobs/{own}" in page.links, f"/jobs/{other}" in page.links) == (True, False)
    assert "1 run that you launched" in page.text
    assert "There is no job named parcel-tracer" in (await load_page(mallory, "/jobs/by-name/parcel-tracer", status=404)).text
    await load_page(ops, "/jobs/by-name/kill", status=404)


async def test_a_run_is_launched_again_from_its_template_or_spec_with_its_parameters(records: Desk) -> None:
    ops = await records.log_in("ops")
    mine = await records.id_of(ops)
    job = record_run(records, requester=mine, params={"parcel": "77"})
    page = await load_page(ops, "/jobs/by-name/parcel-tracer")
    again = next(link for link in page.links if link.startswith("/jobs/new"))
    assert again == f"/jobs/new?paste=1&from={job}"
    form = await ops.open(again)
    text = form.text.partition("<textarea")[2].partition(">")[2].partition("</textarea>")[0]
    assert yaml.safe_load(text.replace("&#39;", "'").replace("&#34;", '"')) == {**SPEC, "params": {"parcel": "77"}}
    await load_page(ops, "/jobs/new?paste=1&from=j-dev-unknown", status=404)
    with_files = {**SPEC, "name": "own-files", "run": {"command": ["true"], "workdir": "tool"}}
    record_run(records, requester=mine, name="own-files", spec=with_files)
    assert "justenough job run FILE" in (await load_page(ops, "/jobs/by-name/own-files")).text
    assert not [link for link in (await load_page(await records.log_in(), "/jobs/by-name/own-files")).links if link.startswith("/jobs/new")]


async def test_untrusted_text_about_a_job_name_is_shown_as_text(records: Desk) -> None:
    lead = await records.log_in()
    record_run(records, task=HOSTILE)
    assert "<script>alert(1)" in (await load_page(lead, "/jobs/by-name/parcel-tracer")).text
    await load_page(lead, "/jobs/by-name/%3Cscript%3E", status=404)


def test_bars_are_as_high_as_runs_were_long() -> None:
    bars = run_bars([(10, True), (5, False), (None, False)])
    assert [(bar.height, bar.succeeded) for bar in bars] == [(BAR_HEIGHT_PX, True), (BAR_HEIGHT_PX / 2, False), (4.0, False)]
    assert run_bars([]) == ()
    assert run_bars([(0.0, True)])[0].height == 4.0


async def test_only_runs_that_policy_decided_are_shown_as_decided_by_policy(records: Desk) -> None:
    lead = await records.log_in()
    names = ("policy-decides", "nobody-decides", "no-access")
    allowed, cancelled, _ = [records.record_job(name=name, spec={**SPEC, "name": name}) for name in names]
    records.store.ledger.append(
        [
            *(samples.access_request(allowed), samples.access_decision("allowed", allowed)),
            *(samples.access_request(cancelled), samples.access_decision("needs_approval", cancelled, tier=1)),
            samples.job_end("cancelled", cancelled),
        ]
    )
    shown = [(await load_page(lead, f"/jobs/by-name/{name}")).text for name in names]
    assert ["policy alone" in text for text in shown] == [True, False, False]
    assert "nobody" in shown[1]
