"""Each alarm of the pages links to its section of the runbook, which the console serves."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from console.pages.docs import doc_page
from console.presentation.runbook import ANCHORS, RUNBOOK_PAGE, runbook_url
from justenough.adapters.configuration.settings import Settings
from justenough.adapters.store.outbox_queries import FailedDelivery, Settlement
from justenough.domain.ledger.events import EventType, build_event
from justenough.domain.readmodel.attention import AttentionKind
from justenough.domain.readmodel.views import WorkerView
from tests.adapters.store import event_samples as samples
from tests.console.pages.recorded_console import Desk, load_page, serve_desk
from tests.console.pages.recorded_jobs import ago, now

pytestmark = pytest.mark.servers


@pytest.fixture
async def records(settings: Settings, passwords: dict[str, str], own_store: Path, small_config: Path) -> AsyncIterator[Desk]:
    async with serve_desk(settings, passwords, own_store, config=small_config) as opened:
        yield opened


def record_request(records: Desk, *, asked: timedelta, escalated: bool) -> str:
    """Record a job with a request that waits for so long."""
    job, at = records.record_job(), now() - asked
    records.store.ledger.append([samples.access_request(job, at=at), samples.access_decision("needs_approval", job, at=at, tier=1)])
    records.store.ledger.append([samples.approval_opening(job, at=at)])
    if escalated:
        records.store.ledger.append([samples.approval_opening(job, tier=2, at=now(), escalated=True)])
    return job


def record_overdue(records: Desk) -> str:
    """Record a job whose revocation is overdue."""
    job = records.record_job()
    records.store.ledger.append([samples.job_start(job), samples.issuance(job), samples.revocation_start(job, at=ago(minutes=7))])
    tried = {"by": "compensation", "failures": ["target crm: refused"], "attempt": 1, "seen_from": now().isoformat()}
    records.store.ledger.append([build_event(EventType.REVOCATION_OVERDUE, job, at=now(), about="1", **tried)])
    return job


def record_installation_alarms(records: Desk) -> None:
    """Record a failing webhook, a skipped run and a silent worker."""
    store, at = records.store, now().isoformat()
    store.ledger.append(
        [build_event(EventType.SCHEDULE_SKIPPED, records.record_job(), at=now(), about=at, schedule="nightly", occasion=at)]
    )
    assert store.outbox.acquire_lease("us", now=now(), until=now() + timedelta(minutes=1))
    assert store.outbox.keep_subscriptions({"siem": "webhook"}, holder="us", now=ago(minutes=1))
    (entry, *_) = store.outbox.next_batch(list(EventType), after=0, limit=10).entries
    failed = FailedDelivery(entry=entry, attempts=1, next_at=None, why="503 Service Unavailable")
    assert store.outbox.settle(Settlement(subscription="siem", at=now(), position=2, failed=(failed,)), holder="us")
    store.workers.report(WorkerView(name="worker-2", version="1", config_digest=None, config_alarm=None, last_seen=ago(minutes=10)))


def test_each_kind_of_attention_and_each_other_alarm_has_a_section() -> None:
    page = doc_page(RUNBOOK_PAGE)
    assert page is not None
    headings = set(re.findall(r'<h2 id="([^"]+)"', page.body))
    assert set(AttentionKind) <= set(ANCHORS)
    assert set(ANCHORS.values()) <= headings


async def test_every_item_of_the_dashboard_links_to_its_section(records: Desk) -> None:
    failed, denied = records.record_job(name="failed-one"), records.record_job(name="denied-one")
    records.store.ledger.append([samples.job_end("failed", failed, at=now())])
    records.store.ledger.append([samples.access_request(denied, at=now()), samples.access_decision("denied", denied, at=now())])
    record_request(records, asked=timedelta(minutes=14), escalated=False)
    record_request(records, asked=timedelta(minutes=1), escalated=True)
    record_overdue(records)
    record_installation_alarms(records)
    page = await load_page(await records.log_in(), "/now")
    kinds = {item.kind for item in records.console.dashboard.attention()}
    assert kinds == set(AttentionKind)
    assert {runbook_url(kind) for kind in kinds} <= set(page.links)


async def test_the_alarms_of_jobs_and_operations_link_to_their_sections(records: Desk) -> None:
    lead = await records.log_in()
    overdue, escalated = record_overdue(records), record_request(records, asked=timedelta(minutes=1), escalated=True)
    record_installation_alarms(records)
    failed = records.record_job()
    records.store.ledger.append([samples.job_end("failed", failed, at=now())])
    places = {
        f"/jobs/{overdue}": "overdue",
        f"/jobs/{escalated}": "escalated",
        f"/jobs/{failed}": "failed",
        "/operations/workers": "worker",
        "/operations/deliveries": "webhook",
    }
    for place, alarm in places.items():
        assert runbook_url(alarm) in (await load_page(lead, place)).links, place
    calm = await load_page(lead, f"/jobs/{records.record_job()}")
    assert not [link for link in calm.links if "runbook" in link]
