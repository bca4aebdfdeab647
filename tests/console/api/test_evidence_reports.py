"""The evidence report over the API: who may read it, which periods it accepts, and that the console serves others meanwhile."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from justenough.domain.evidence.aggregator import ReportPeriod
from justenough.domain.evidence.report import Report
from justenough.services import evidence_report
from tests.console.served_console import Served


def line(report: dict[str, Any], key: str) -> dict[str, Any]:
    """Return one line."""
    (found,) = [one for section in report["sections"] for one in section["lines"] if one["key"] == key]
    return dict(found)


async def test_only_people_who_read_everything_get_the_report(served: Served) -> None:
    codes = {who: (await served.get("/report", who)).status_code for who in served.people}
    readers = {"lead", "security", "chief", "chief2", "auditor", "oncall"}
    assert {who for who, code in codes.items() if code == 200} == readers
    assert {code for who, code in codes.items() if who in {"ops", "ops2", "nobody"}} == {403}
    refused = (await served.get("/report", "ops")).json()["detail"]
    assert refused == "needs one of the groups: auditors, break-glass, chiefs, security, support-leads"
    assert (await served.http.get("/api/v1/report")).status_code == 401


async def test_a_planted_live_credential_of_an_ended_job_is_a_violation(served: Served) -> None:
    job = (await served.launch())["id"]
    served.end(job)
    before = (await served.get("/report", "auditor")).json()
    credential = served.issue(job)
    after = (await served.get("/report", "auditor")).json()
    key, entry = "standing.after_end", f"{job}/credential.issued/{credential}"
    assert entry not in line(before, key)["evidence"]["ids"]
    assert line(after, key)["figures"]["credentials"] == line(before, key)["figures"]["credentials"] + 1
    assert (line(after, key)["status"], after["status"]) == ("violation", "violation")
    assert entry in line(after, key)["evidence"]["ids"]


async def test_an_attempt_to_decide_on_ones_own_job_is_in_the_report_of_that_period(served: Served) -> None:
    request, began = await served.launch_and_request(), datetime.now(UTC)
    body = served.people["ops"].decision(request)
    assert (
        await served.post(f"/requests/{request['id']}/decisions", "ops", body, headers={"If-Match": request["digest"]})
    ).status_code == 403
    report = (await served.get("/report", "auditor", params={"since": began.isoformat()})).json()
    entries = (await served.get("/ledger", "auditor", params={"type": "approval.rejected", "since": began.isoformat()})).json()["items"]
    assert line(report, "attempts.own")["figures"] == {"attempts": 1}
    assert line(report, "attempts.own")["evidence"]["ids"] == [entry["id"] for entry in entries]


async def test_the_period_defaults_to_the_last_thirty_days_and_never_ends_in_the_future(served: Served) -> None:
    now = datetime.now(UTC)
    report = Report.model_validate((await served.get("/report", "auditor")).json())
    assert report.until - report.since == timedelta(days=30)
    later = {"since": (now - timedelta(hours=1)).isoformat(), "until": (now + timedelta(days=9)).isoformat()}
    ahead = Report.model_validate((await served.get("/report", "auditor", params=later)).json())
    assert ahead.until == ahead.generated_at < now + timedelta(minutes=1)
    oldest = Report.model_validate((await served.get("/report", "auditor", params={"until": "0001-01-05T00:00:00Z"})).json())
    assert (oldest.since, oldest.entries) == (datetime.min.replace(tzinfo=UTC), 0)


@pytest.mark.parametrize(
    "period,path,message",
    [
        ({"since": "2999-01-01T00:00:00Z"}, "query.since", "must be before until"),
        (
            {"since": "2026-02-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"},
            "query.since",
            "must be before until (2026-01-01T00:00:00.000000Z)",
        ),
        ({"since": "2026-01-01"}, "query.since", "with a time zone"),
        ({"since": "1764063000"}, "query.since", "with a time zone"),
        ({"until": "yesterday"}, "query.until", "RFC 3339"),
    ],
)
async def test_an_invalid_period_is_refused_by_its_place(served: Served, period: dict[str, str], path: str, message: str) -> None:
    answer = await served.get("/report", "auditor", params=period)
    assert answer.status_code == 422
    assert [problem["path"] for problem in answer.json()["errors"]] == [path]
    assert message in answer.json()["errors"][0]["message"]


async def test_ledger_entries_can_be_listed_up_to_a_given_time(served: Served) -> None:
    first = (await served.launch())["id"]
    between = datetime.now(UTC)
    second = (await served.launch())["id"]
    page = await served.get("/ledger", "auditor", params={"type": "job.submitted", "until": between.isoformat(), "limit": 1000})
    jobs = {entry["job"] for entry in page.json()["items"]}
    assert first in jobs
    assert second not in jobs


async def test_other_requests_are_answered_while_a_report_is_generated_and_reports_take_turns(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, loop, begun, go_on = evidence_report.build_evidence_report, asyncio.get_running_loop(), asyncio.Queue[int](), asyncio.Event()

    def held(store: Any, period: ReportPeriod, **more: Any) -> Report:
        loop.call_soon_threadsafe(begun.put_nowait, 1)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(timeout=60)
        return real(store, period, **more)

    monkeypatch.setattr(evidence_report, "build_evidence_report", held)
    reports = [asyncio.create_task(served.get("/report", "auditor")) for _ in range(2)]
    await begun.get()
    # The console is one loop: an answer to this shows that it turns, and a second report that had begun would be in the queue by now.
    assert (await served.get("/whoami", "auditor")).status_code == 200
    assert begun.empty()
    go_on.set()
    assert [answer.status_code for answer in await asyncio.gather(*reports)] == [200, 200]
