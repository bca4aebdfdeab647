"""The page of model use: tokens and calls against budgets, by model, job and agent, of jobs that the user may read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from justenough.adapters.configuration.settings import Settings
from justenough.domain.ledger.events import EventType, build_event
from tests.console.pages.page_text import text_of
from tests.console.pages.recorded_console import HOSTILE, Desk, load_page, serve_desk

pytestmark = pytest.mark.servers


@pytest.fixture
async def records(
    settings: Settings, passwords: dict[str, str], own_store: Path, small_config: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Desk]:
    monkeypatch.setattr("console.services.dashboard.TREND_TTL_S", 0)
    async with serve_desk(settings, passwords, own_store, config=small_config) as opened:
        yield opened


def record_use(
    records: Desk, *calls: tuple[str, int, int, int], agent: str = "parcel-agent", requester: str = "e-ops", age: timedelta = timedelta(0)
) -> str:
    """Record a job with a budget of 10 requests and 1,000 tokens and its calls: outcome, calls, tokens in, tokens out. Return its id."""
    spec = {"name": "parcels", "run": {"command": ["true"]}, "model": {"name": "big", "requests": 10, "tokens": 1000}}
    job = records.record_job(
        spec=spec, name="parcels", agent={"name": agent, "version": "1", "model": "", "owner": ""}, requester=requester
    )
    records.store.ledger.append(
        [
            build_event(
                EventType.MODEL_USED,
                job,
                at=datetime.now(UTC) - age,
                about=str(number),
                name="big",
                model="big-1",
                credential=None,
                calls=count,
                prompt_tokens=prompt,
                completion_tokens=completion,
                estimated=0,
                outcome=outcome,
            )
            for number, (outcome, count, prompt, completion) in enumerate(calls)
        ]
    )
    return job


async def test_use_is_shown_against_the_budgets_of_the_jobs(records: Desk) -> None:
    lead = await records.log_in()
    first = record_use(records, ("answered", 3, 400, 100), ("over_budget", 2, 0, 0))
    second = record_use(records, ("answered", 1, 700, 500), ("denied", 1, 0, 0), agent="other-agent")
    page = await load_page(lead, "/models")
    source = (await lead.open("/models")).text
    assert "tokens 1,700 calls 4 refused calls 3 jobs that called a model 2" in text_of(source, "total")
    assert (
        "big big-1 no longer in the catalog 2 4 1,100 600 85% of 2,000 20% of 20 2 over budget, 1 denied or waiting for approval"
        in page.text
    )
    assert [link for link in page.links if link.startswith("/jobs/j-")] == [f"/jobs/{second}", f"/jobs/{first}"]
    record_use(records, ("answered", 1, 999, 295))
    assert "99% of 3,000" in (await load_page(lead, "/models")).text
    assert "120% of 1,000 over 10% of 10" in text_of(source, "jobs")
    assert "other-agent 1 1 700 500" in text_of(source, "agents")
    assert {"/agents/parcel-agent", "/agents/other-agent"} <= set(page.links)


async def test_the_period_is_chosen_by_the_address(records: Desk) -> None:
    lead = await records.log_in()
    record_use(records, ("answered", 1, 10, 1), age=timedelta(days=2))
    record_use(records, ("answered", 1, 5000, 1), age=timedelta(days=8))
    assert "No job called a model." in text_of((await lead.open("/models")).text, "jobs")
    week = (await lead.open("/models?period=7d")).text
    assert "tokens 11 calls 1" in text_of(week, "total")
    assert (await lead.open("/models?period=1y")).status_code == 422


async def test_a_launcher_sees_the_use_of_their_own_jobs_only(records: Desk) -> None:
    ops = await records.log_in("ops")
    own = record_use(records, ("answered", 1, 10, 1), requester=await records.id_of(ops))
    record_use(records, ("answered", 1, 5000, 1), agent="secret-agent", requester="e-else")
    page = await load_page(ops, "/models")
    assert [link for link in page.links if link.startswith("/jobs/j-")] == [f"/jobs/{own}"]
    assert "tokens 11 calls 1" in page.text
    assert "secret-agent" not in page.text
    assert (await (await records.log_in("outsider")).open("/models")).status_code == 403


async def test_model_use_beyond_the_limit_is_marked_as_incomplete(records: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    record_use(records, ("answered", 1, 10, 1), ("cut", 1, 10, 1))
    assert records.store.model_use.period_use(datetime.now(UTC) - timedelta(days=1)).is_whole
    assert not records.store.model_use.period_use(datetime.now(UTC) - timedelta(days=1), limit=1).is_whole


async def test_the_page_is_reached_from_the_operations_the_agent_and_the_job(records: Desk) -> None:
    lead = await records.log_in()
    job = record_use(records, ("answered", 1, 10, 1))
    while not records.store.search.index().is_complete:
        pass
    for place in ("/operations", "/agents/parcel-agent", f"/jobs/{job}"):
        assert "/models" in (await load_page(lead, place)).links
    assert "big : at most 10 requests, 1,000 tokens" in (await load_page(lead, f"/jobs/{job}")).text
    assert 'href="/operations" aria-current="page"' in (await lead.open("/models")).text


async def test_untrusted_text_about_models_is_shown_as_text(records: Desk) -> None:
    record_use(records, ("answered", 1, 10, 1), agent=HOSTILE)
    assert "<script>alert(1)" in (await load_page(await records.log_in(), "/models")).text
