"""The page of an agent: versions, tools, tokens, denials and jobs, of jobs that the user may read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from justenough.adapters.configuration.settings import Settings
from justenough.domain.ledger.events import EventType, build_event
from tests.adapters.store import event_samples as samples
from tests.adapters.store.event_samples import part_id
from tests.console.pages.recorded_console import HOSTILE, Desk, load_page, serve_desk

pytestmark = pytest.mark.servers


@pytest.fixture
async def records(settings: Settings, passwords: dict[str, str], own_store: Path, small_config: Path) -> AsyncIterator[Desk]:
    async with serve_desk(settings, passwords, own_store, config=small_config) as opened:
        yield opened


def record_agent(records: Desk, version: str = "1.4", *, name: str = "parcel-agent", requester: str = "e-ops") -> str:
    """Record a job of an agent that called a tool and a model, and was denied something; return its id."""
    job, now = (
        records.record_job(agent={"name": name, "version": version, "model": "large", "owner": "support"}, requester=requester),
        datetime.now(UTC),
    )
    tool = {"tool": "refund", "arguments": "sha256:1", "action": "refunds-db:write", "request": None, "credential": None, "answer_bytes": 1}
    model = {"name": "model-api", "model": "large", "credential": None, "estimated": 0, "outcome": "answered"}
    records.store.ledger.append(
        [
            build_event(EventType.TOOL_CALLED, job, at=now, about="1", outcome="done", duration_ms=5, **tool),
            build_event(EventType.TOOL_CALLED, job, at=now, about="2", outcome="denied", duration_ms=5, **tool),
            build_event(EventType.MODEL_USED, job, at=now, about="1", calls=3, prompt_tokens=1200, completion_tokens=34, **model),
            samples.access_request(job, at=now),
            samples.access_decision("denied", job, at=now),
        ]
    )
    while not records.store.search.index().is_complete:
        pass
    return job


async def test_an_agents_page_shows_its_versions_calls_denials_tokens_and_jobs(records: Desk) -> None:
    lead = await records.log_in()
    old, new = record_agent(records, "1.3"), record_agent(records)
    record_agent(records, name="parcel-agent-two")
    page = await load_page(lead, "/agents/parcel-agent")
    assert "1.4 · model large · owner support 1 job 1.3 · model large" in page.text
    assert "refund 2 denied, 2 done" in page.text
    assert "6 calls, 2,400 prompt + 68 completion tokens" in page.text
    assert [link for link in page.links if link.startswith("/jobs/j-")] == [f"/jobs/{new}", f"/jobs/{old}"]
    assert {f"/inbox/{part_id(job, 'r')}" for job in (old, new)} <= set(page.links)


async def test_a_launcher_sees_the_agent_in_their_own_jobs_only(records: Desk) -> None:
    ops, mallory = await records.log_in("ops"), await records.log_in("mallory")
    own = record_agent(records, requester=await records.id_of(ops))
    record_agent(records, "secret-version", requester="e-else")
    page = await load_page(ops, "/agents/parcel-agent")
    assert [link for link in page.links if link.startswith("/jobs/j-")] == [f"/jobs/{own}"]
    assert "secret-version" not in page.text
    assert "1 denied, 1 done" in page.text
    assert "There is no agent parcel-agent" in (await load_page(mallory, "/agents/parcel-agent", status=404)).text
    await load_page(ops, "/agents/%3Cscript%3E", status=404)


async def test_untrusted_text_about_an_agent_is_shown_as_text(records: Desk) -> None:
    record_agent(records, HOSTILE)
    assert "<script>alert(1)" in (await load_page(await records.log_in(), "/agents/parcel-agent")).text
