"""Where a request's page leads after a decision: to a request that nobody else is reviewing."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from justenough.adapters.configuration.settings import Settings
from justenough.domain.ledger.events import EventType, build_event
from tests.adapters.store import event_samples as samples
from tests.adapters.store.event_samples import part_id
from tests.console.pages.plain_browser import Browser
from tests.console.pages.recorded_console import Desk, RenderedPage, serve_desk
from tests.console.pages.recorded_jobs import now

pytestmark = pytest.mark.servers


@pytest.fixture
async def records(settings: Settings, passwords: dict[str, str], own_store: Path, small_config: Path) -> AsyncIterator[Desk]:
    async with serve_desk(settings, passwords, own_store, config=small_config) as opened:
        yield opened


def record_request(records: Desk, *, minutes: int) -> str:
    """Record a job with a request that tier 1 has so long to decide; return the request's id."""
    job, at = records.record_job(), now()
    records.store.ledger.append([samples.access_request(job, at=at), samples.access_decision("needs_approval", job, at=at, tier=1)])
    records.store.ledger.append([samples.approval_opening(job, at=at, respond_by=at + timedelta(minutes=minutes))])
    return part_id(job, "r")


def claim(records: Desk, request: str, *, by: str) -> None:
    view, at = records.store.requests.get(request), now()
    assert view is not None
    fields = {"request": request, "person": by, "name": by, "until": (at + timedelta(minutes=10)).isoformat()}
    records.store.ledger.append([build_event(EventType.APPROVAL_CLAIMED, view.job_id, at=at, about=f"{request}/{by}", **fields)])


async def next_requests(browser: Browser, request: str) -> tuple[list[str], str]:
    """Return the requests that a request's page leads to, and the page's text."""
    page = (await browser.open(f"/inbox/{request}?done=sent")).text
    return re.findall(r'href="/inbox/([^"]+)">Next request', page), RenderedPage(page).text


async def test_the_next_request_is_one_that_nobody_else_is_reviewing(records: Desk) -> None:
    lead = await records.log_in()
    decided, soon, later = [record_request(records, minutes=minutes) for minutes in (1, 2, 3)]
    view = records.store.requests.get(decided)
    assert view is not None
    records.store.ledger.append([samples.approval_decision("approved", view.job_id, person_id=await records.id_of(lead), at=now())])
    following, text = await next_requests(lead, decided)
    assert (following, "the most urgent one: tier 1, 1 min" in text) == ([soon], True)
    claim(records, soon, by="chief")
    following, text = await next_requests(lead, decided)
    assert (following, "is reviewing it" in text) == ([later], False)
    assert "the most urgent unclaimed one: tier 1, 2 min" in text
    claim(records, later, by="security")
    following, text = await next_requests(lead, decided)
    assert (following, "chief is reviewing it" in text) == ([soon], True)


async def test_a_review_is_listed_however_many_newer_ones_others_must_answer(records: Desk) -> None:
    lead = await records.log_in()
    requests = [record_request(records, minutes=1) for _ in range(8)]
    for number, (request, tier) in enumerate(zip(requests, (1, 3, 3, 3, 3, 3, 3, 3), strict=True)):
        view = records.store.requests.get(request)
        assert view is not None
        who = {"request": request, "person": "e-oncall", "name": "oncall", "reason": "the shop is down"}
        review = {"tiers": [tier], "groups": ["support-leads"]}
        opened = build_event(EventType.REVIEW_OPENED, view.job_id, at=now() + timedelta(seconds=number), about=request, **who, **review)
        records.store.ledger.append([opened])
    page = RenderedPage((await lead.open("/inbox")).text)
    assert [link for link in page.links if link.endswith("#review")] == [f"/inbox/{requests[0]}#review"] * 2
