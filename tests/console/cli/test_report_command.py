"""`justenough report` against the whole stack: its figures about real jobs equal those of the lists; formats, files and exit codes."""

from __future__ import annotations

import json
import stat
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from justenough.domain.evidence.aggregator import EvidenceAggregator, ReportPeriod
from justenough.domain.evidence.metric_definitions import METRICS
from tests.console.cli.conftest import Cli
from tests.support.canned_server import serve_canned_answers
from tests.support.people import ENDED, Human
from tests.support.shop import access, spec

pytestmark = pytest.mark.servers

WRITE = access("refunds-db", "write", deliver={})


def lines(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a report's lines by key."""
    return {one["key"]: one for section in report["sections"] for one in section["lines"]}


def entries(auditor: Human, since: str, until: str) -> list[dict[str, Any]]:
    """Return every ledger entry of a period, as the list tells them."""
    found: list[dict[str, Any]] = []
    page: dict[str, Any] = {"next": None}
    while not found or page["next"]:
        asked = {"since": since, "until": until, "limit": 1000, "cursor": page["next"]}
        page = auditor.api.get("ledger", params={name: value for name, value in asked.items() if value}).raise_for_status().json()
        found += page["items"]
    return found


def list_items(auditor: Human, path: str, **query: str) -> list[dict[str, Any]]:
    """Return everything of a list."""
    page = auditor.api.get(path, params={**query, "limit": 1000}).raise_for_status().json()
    found: list[dict[str, Any]] = page["items"]
    while page["next"]:
        page = auditor.api.get(path, params={**query, "limit": 1000, "cursor": page["next"]}).raise_for_status().json()
        found += page["items"]
    return found


@dataclass(frozen=True)
class ReportRun:
    """The outcome of some jobs: in their own views, in the ledger's list, and in the report about the time in which they ran."""

    jobs: list[dict[str, Any]]
    entries: list[dict[str, Any]]
    live: list[dict[str, Any]]
    report: dict[str, Any]
    period: ReportPeriod

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The data of each entry of a type."""
        return [entry["data"] for entry in self.entries if entry["type"] == kind]

    def figures(self, key: str) -> dict[str, Any]:
        """A line's figures."""
        return dict(lines(self.report)[key]["figures"])


@pytest.fixture(scope="module")
def report_run(cli: Cli, ops: Human, lead: Human, auditor: Human) -> ReportRun:
    """One job that policy allows, one that lead approves for less time after its launcher tried to, and one that lead denies."""
    since = datetime.now(UTC)
    jobs = [ops.launch(spec("true", task="<script>alert(1)</script>")), ops.launch(spec("true", WRITE)), ops.launch(spec("true", WRITE))]
    waiting = [ops.until(job, "awaiting_approval")["requests"][0] for job in jobs[1:]]
    assert ops.answer(waiting[0]).status_code == 403
    assert lead.answer(waiting[0], ttl=60).status_code == 200
    assert lead.answer(waiting[1], "deny").status_code == 200
    ended = [ops.until(job) for job in jobs]
    assert [job["state"] for job in ended] == ["succeeded", "succeeded", "denied"]
    until = datetime.now(UTC)
    period = since.isoformat(), until.isoformat()
    report = cli.json("report", "--since", period[0], "--until", period[1], who="auditor")
    return ReportRun(ended, entries(auditor, *period), list_items(auditor, "credentials", live="true"), report, ReportPeriod(since, until))


def test_reported_figures_of_credentials_equal_those_of_the_lists(report_run: ReportRun) -> None:
    held = {one["id"] for job in report_run.jobs for one in job["credentials"]}
    assert len(held) == 2
    assert {one["credential"] for one in report_run.of("credential.confirmed")} >= held
    assert report_run.figures("revocation.never")["issued"] == len(report_run.of("credential.issued"))
    assert report_run.figures("lifetimes.real")["measured"] == len(
        {one["credential"] for one in report_run.of("credential.confirmed")}
        & {one["credential"] for one in report_run.of("credential.issued")}
    )
    assert report_run.figures("revocation.time")["measured"] >= 2
    assert report_run.figures("machinery.sandbox_off")["runs"] == len(report_run.of("job.started"))


def test_reported_figures_of_approvals_equal_those_of_the_lists(report_run: ReportRun) -> None:
    answers, outcomes, told = report_run.of("approval.decided"), report_run.figures("approvals.outcomes"), lines(report_run.report)
    verdicts = Counter(one["verdict"] for one in answers)
    assert outcomes["opened"] == len(report_run.of("approval.opened")) >= 2
    assert (outcomes["approved"], outcomes["denied"]) == (verdicts["approved"], verdicts["denied"])
    assert dict(told["approvals.people"]["table"]["rows"]) == Counter(one["name"] for one in answers)
    narrowed = [one["id"] for one in report_run.entries if one["type"] == "approval.decided" and one["data"]["granted_ttl"] == 60]
    own = [one["id"] for one in report_run.entries if "that they launched" in (one["data"].get("why") or "")]
    assert told["approvals.narrowed"]["evidence"]["ids"] == narrowed
    assert told["attempts.own"]["evidence"]["ids"] == own
    assert (len(narrowed), len(own)) == (1, 1)


def test_reported_figures_of_policy_decisions_equal_those_of_the_lists(report_run: ReportRun) -> None:
    first = Counter(one["outcome"] for one in report_run.of("access.decided") if one["phase"] in {"start", "runtime"})
    figures = report_run.figures("policy.automatic")
    assert {name: figures[name] for name in ("decided", "allowed", "needs_approval", "denied")} == {
        "decided": first.total(),
        **{name: first[name] for name in ("allowed", "needs_approval", "denied")},
    }


def test_the_reported_standing_privilege_is_none_of_the_tested_jobs(report_run: ReportRun, auditor: Human) -> None:
    # Other tests' jobs share this stack: of those, what the lists say.
    over = [one for one in report_run.live if auditor.job(one["job_id"])["state"] in ENDED]
    assert report_run.figures("standing.live")["credentials"] == len(report_run.live)
    assert report_run.figures("standing.after_end")["credentials"] == len(over)
    assert {one["job_id"] for one in report_run.live}.isdisjoint({job["id"] for job in report_run.jobs})


def test_every_entry_that_a_line_names_is_in_the_ledger(report_run: ReportRun) -> None:
    known, told = {entry["id"] for entry in report_run.entries}, lines(report_run.report)
    # The current state may have been recorded before the period.
    of_period = [key for key in METRICS if not key.startswith("standing.")]
    named = [entry for key in of_period for entry in told[key]["evidence"]["ids"]]
    assert set(named) <= known
    assert len(named) > 10
    kinds = EvidenceAggregator(report_run.period).types
    assert report_run.report["entries"] == sum(entry["type"] in kinds for entry in report_run.entries)
    assert report_run.figures("ledger.verified")["verified"] == "sound"


@pytest.mark.parametrize("form,begins", [("md", "# Evidence report: dev\n"), ("html", "<!doctype html>"), ("json", "{\n")])
def test_a_report_is_written_whole_for_its_reader_alone(cli: Cli, tmp_path: Path, form: str, begins: str) -> None:
    out = tmp_path / f"report.{form}"

    done = cli.run("report", "--since", "1h", "--format", form, "--out", out, who="auditor")

    assert (done.exit_code, done.stdout) == (0, "")
    assert out.read_text().startswith(begins)
    assert "Last checkpoint" in out.read_text()
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert str(out) in done.stderr


def test_the_output_format_counts_in_a_file_too(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "report"

    assert cli.run("report", "--since", "1h", "-o", "json", "--out", out, who="auditor").exit_code == 0
    assert json.loads(out.read_text())["installation"] == "dev"
    refused = cli.run("report", "--since", "1h", "-o", "yaml", "--out", out, who="auditor")
    assert (refused.exit_code, refused.stderr) == (2, "error: --out cannot be combined with -o yaml; give --format md, json or html\n")


def test_a_report_can_be_printed_as_json_as_names_and_as_markdown(cli: Cli) -> None:
    assert cli.json("report", "--since", "1h", who="auditor")["installation"] == "dev"
    found = cli.json("report", "--since", "1h", who="auditor")
    unwell = {line["key"] for section in found["sections"] for line in section["lines"] if line["status"] != "ok"}
    assert (
        set(cli.run("report", "--since", found["since"], "--until", found["until"], "-o", "name", who="auditor").stdout.split()) == unwell
    )
    assert cli.run("report", "--since", "1h", who="auditor").stdout.startswith("# Evidence report")


def test_a_report_covers_the_thirty_days_before_its_end_unless_told_otherwise(cli: Cli) -> None:
    found = cli.json("report", "--until", "2026-03-31", who="auditor")

    assert (found["since"], found["until"]) == ("2026-03-01T00:00:00Z", "2026-03-31T00:00:00Z")


def test_a_violation_changes_the_exit_code_only_with_the_option_for_it(cli: Cli) -> None:
    empty = cli.json("report", "--since", "1h", who="auditor") | {"status": "violation"}
    with serve_canned_answers() as console:
        console.set_response(200, empty, "application/json")
        plain = cli.run("report", "--console-url", console.address)
        console.set_response(200, empty, "application/json")
        asked = cli.run("report", "--exit-code", "--console-url", console.address)
        console.set_response(200, empty | {"status": "attention"}, "application/json")
        fine = cli.run("report", "--exit-code", "--console-url", console.address)

    assert (plain.exit_code, asked.exit_code, fine.exit_code) == (0, 1, 0)
    assert "violation" in asked.stderr


def test_a_person_who_may_not_read_everything_gets_no_report(cli: Cli) -> None:
    done = cli.run("report")

    assert done.exit_code == 6
    assert "needs one of the groups" in done.stderr


@pytest.mark.parametrize(
    "arguments,says",
    [
        (("--since", "soon"), "--since: 'soon' is neither an age like 24h or 7d nor a date or time"),
        (("--until", "later"), "--until: 'later' is neither"),
        (("--since", "1h", "--until", "2h"), "--since: must be before until"),
        (("--format", "pdf"), "--format"),
    ],
)
def test_an_invalid_period_or_format_is_a_usage_error(cli: Cli, arguments: tuple[str, ...], says: str) -> None:
    done = cli.run("report", *arguments, who="auditor")

    assert done.exit_code == 2
    assert says in done.stderr


def test_the_command_that_a_line_names_lists_its_entries(cli: Cli, ops: Human, auditor: Human) -> None:
    since = datetime.now(UTC) - timedelta(seconds=1)
    job = ops.launch(spec())
    ops.until(job)
    until = datetime.now(UTC) + timedelta(seconds=1)

    listed = cli.json(
        *("ledger", "list", "--type", "credential.issued", "--type", "job.ended", "--job", job),
        *("--since", since.isoformat(), "--until", until.isoformat()),
        who="auditor",
    )["items"]
    before = cli.json("ledger", "list", "--job", job, "--until", since.isoformat(), who="auditor")["items"]

    assert [entry["type"] for entry in listed] == ["credential.issued", "job.ended"]
    assert before == []
    assert cli.run("ledger", "list", "--type", "from.tomorrow").exit_code == 2
