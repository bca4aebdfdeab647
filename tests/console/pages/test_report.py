"""The Compliance page: concurrent requests share one report, figures link to ledger entries, and downloads equal the renderers' output."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from console.presentation.report import html, markdown
from console.services.background_reads import ReportDays
from justenough.adapters.configuration.settings import Settings
from justenough.domain.evidence.aggregator import ReportPeriod
from justenough.domain.evidence.report import Report
from justenough.services import evidence_report
from tests.adapters.store import event_samples as samples
from tests.console.pages.plain_browser import Browser
from tests.console.pages.recorded_console import HOSTILE, Desk, load_page, serve_desk, submit_form

pytestmark = pytest.mark.servers


@pytest.fixture
async def records(settings: Settings, passwords: dict[str, str], own_store: Path, small_config: Path) -> AsyncIterator[Desk]:
    async with serve_desk(settings, passwords, own_store, config=small_config) as opened:
        yield opened


def record_violation(records: Desk) -> str:
    """Record a job that ended while its credential is active, which is a violation. Return the entry that shows it."""
    job, at = records.record_job(), datetime.now(UTC)
    records.store.ledger.append(
        [
            samples.access_request(job, at=at),
            samples.access_decision("allowed", job, at=at),
            samples.job_start(job, at=at),
            samples.issuance(job, at=at, expires_at=at + timedelta(minutes=10)),
        ]
    )
    records.store.ledger.append([samples.job_end(job=job, at=at)])
    return f"{job}/credential.issued/c{job[1:]}-1"


async def generate_report(records: Desk, who: Browser, days: ReportDays | None = None) -> tuple[str, Report]:
    """Generate a report with the page's form; return its address and its content."""
    today = datetime.now(UTC).date()
    days = days or ReportDays(today - timedelta(days=30), today)
    answer = await submit_form(who, "/report", "/report", first=str(days.first), last=str(days.last))
    assert answer.status_code == 303, answer.text
    work = records.console.background_reads.reports.get(days)
    assert work is not None
    return answer.headers["location"], work.outcome or await records.console.background_reads.reports.result(days, by="test")


async def test_a_report_is_generated_on_request_and_links_figures_to_entries(records: Desk) -> None:
    auditor, entry = await records.log_in("auditor"), record_violation(records)
    before = await load_page(auditor, "/report")
    assert "No report for these days" in before.text
    today = datetime.now(UTC).date()
    assert [str(today - timedelta(days=30)), str(today)] == [
        attributes["value"] for tag, attributes in before.tags if tag == "input" and attributes.get("type") == "date"
    ]
    path, report = await generate_report(records, auditor)
    shown = await load_page(auditor, path)
    assert report.status == "violation"
    assert "by auditor from" in shown.text
    for line in report.lines:
        assert line.title in shown.text
        assert any(link.endswith(f"#{line.key}") for link in shown.links)
    links = []
    for section in report.sections:
        part = await load_page(auditor, f"{path}&section={section.key}")
        assert {line.key for line in section.lines} <= set(part.values("id"))
        links += part.links
    assert f"/ledger/entry?id={entry.replace('/', '%2F')}" in links
    await load_page(auditor, f"/ledger/entry?id={entry}")


async def test_downloads_equal_the_renderers_output(records: Desk) -> None:
    auditor = await records.log_in("auditor")
    record_violation(records)
    path, report = await generate_report(records, auditor)
    for form, text in (("html", html.render_html(report)), ("md", markdown.render_markdown(report))):
        answer = await auditor.open(path.replace("/report?", "/report/download?") + f"&form={form}")
        assert answer.status_code == 200
        assert answer.text == text
        assert answer.headers["content-disposition"].startswith("attachment; ")
    answer = await auditor.open(path.replace("/report?", "/report/download?") + "&form=json")
    assert Report.model_validate(json.loads(answer.text)) == report
    assert (await auditor.open("/report/download?first=2020-01-01&last=2020-01-02&form=md")).status_code == 404
    assert (await auditor.open(path.replace("/report?", "/report/download?") + "&form=exe")).status_code == 422


async def test_the_report_is_for_those_who_read_everything(records: Desk) -> None:
    auditor, ops = await records.log_in("auditor"), await records.log_in("ops")
    path, _ = await generate_report(records, auditor)
    for one in ("/report", path, path.replace("/report?", "/report/download?") + "&form=md"):
        assert "Needs one of the groups: auditors" in (await load_page(ops, one, status=403)).text
    today = str(datetime.now(UTC).date())
    assert (await submit_form(ops, "/ledger", "/report", first=today, last=today)).status_code == 403
    assert (await auditor.send("/report", {"first": today, "last": today})).status_code == 403
    assert len(records.console.background_reads.reports.items()) == 1


@pytest.mark.parametrize(
    "first,last,field,said",
    [
        ("2026-02-30", "2026-03-01", "e-first", "must be a date like 2026-01-31"),
        ("2026-01-01", "soon", "e-last", "must be a date like 2026-01-31"),
        ("2026-02-02", "2026-02-01", "e-first", "must not be after the last day"),
        ("2999-01-01", "2999-01-02", "e-first", "is in the future"),
        ("2026-01-01", "9999-12-31", "e-last", "must be a date like 2026-01-31"),
        ("", "0001-01-05", "e-last", "must be a date like 2026-01-31"),
    ],
)
async def test_invalid_days_are_reported_beside_their_field(records: Desk, first: str, last: str, field: str, said: str) -> None:
    lead = await records.log_in()
    answer = await submit_form(lead, "/report", "/report", first=first, last=last)
    assert answer.status_code == 422
    shown = await load_page(lead, f"/report?first={first}&last={last}", status=422)
    assert field in shown.values("id")
    assert said in shown.text
    assert records.console.background_reads.reports.items() == ()


async def test_a_period_with_too_many_entries_says_so(records: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence_report, "MAX_ENTRIES_PER_REPORT", 2)
    lead = await records.log_in()
    record_violation(records)
    today = datetime.now(UTC).date()
    with pytest.raises(Exception, match="at most 2"):
        await generate_report(records, lead, ReportDays(today, today))
    shown = await load_page(lead, f"/report?first={today}&last={today}")
    assert "The report could not be generated" in shown.text
    assert "request shorter periods" in shown.text


async def test_concurrent_requests_share_one_report_and_see_its_progress(records: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    real, loop, go_on, begun = evidence_report.build_evidence_report, asyncio.get_running_loop(), asyncio.Event(), []

    def held(store: Any, period: ReportPeriod, **more: Any) -> Report:
        begun.append(period)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(timeout=60)
        return real(store, period, **more)

    monkeypatch.setattr(evidence_report, "build_evidence_report", held)
    lead, auditor = await records.log_in(), await records.log_in("auditor")
    days = ReportDays(date(2026, 1, 1), date(2026, 1, 31))
    for who in (lead, auditor):
        answer = await submit_form(who, "/report", "/report", first=str(days.first), last=str(days.last))
        shown = await load_page(who, answer.headers["location"])
        assert "Generating the report" in shown.text
        assert "Started by lead" in shown.text
        assert shown.values("data-again") == ["2"]
    go_on.set()
    report = await records.console.background_reads.reports.result(days, by="auditor")
    assert begun == [ReportPeriod(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC))]
    assert (report.since, report.until) == begun[0]


async def test_untrusted_text_is_shown_as_text(records: Desk) -> None:
    job, at = records.record_job(task=HOSTILE, name=HOSTILE), datetime.now(UTC)
    facts = [
        samples.access_request(job, at=at),
        samples.access_decision("needs_approval", job, tier=1, at=at),
        samples.approval_opening(job, at=at),
    ]
    facts += [
        samples.replace_data(samples.approval_decision("approved", job, at=at), name=HOSTILE),
        samples.issuance(job, at=at, resource=HOSTILE),
        samples.job_end("failed", job, at=at),
    ]
    records.store.ledger.append(facts)
    lead = await records.log_in()
    path, _ = await generate_report(records, lead)
    shown = [await load_page(lead, f"{path}&section={part}") for part in ("standing", "lifetimes", "approvals", "grants", "")]
    assert any("<script>alert(1)</script>\\u202e" in part.text for part in shown)
