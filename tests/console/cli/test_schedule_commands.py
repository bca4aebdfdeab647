"""`justenough schedule`: seeing, pausing and running what launches jobs by the clock, against the whole stack."""

from __future__ import annotations

import pytest

from justenough.domain.integrations.triggers import read_triggers
from tests.console.cli.conftest import Cli
from tests.support.canned_server import serve_canned_answers
from tests.support.people import Human
from tests.support.shop import Shop

pytestmark = pytest.mark.servers

NAME = "nightly-reconcile"


def test_schedules_are_listed_and_shown_in_every_form(cli: Cli, shop: Shop) -> None:
    cron = read_triggers((shop.config / "triggers.yaml").read_bytes()).schedules[NAME].cron
    table = cli.run("schedule", "list").stdout.splitlines()
    assert table[0].split()[:5] == ["NAME", "CRON", "TIMEZONE", "JOB", "OVERLAP"]
    assert table[1].startswith(f"{NAME}  {cron}  UTC")
    assert f"T{int(cron.split()[1]):02}:00:00Z" in table[1]
    assert cli.run("schedule", "list", "-o", "name").stdout == f"{NAME}\n"
    (listed,) = cli.json("schedule", "list", who="auditor")["items"]
    assert cli.json("schedule", "show", NAME)["next"] == listed["next"]
    assert f"name: {NAME}" in cli.run("schedule", "show", NAME, "-o", "yaml").stdout


def test_a_pause_is_shown_with_its_author_and_reason_until_the_schedule_is_resumed(cli: Cli) -> None:
    paused = cli.json("schedule", "pause", NAME, "--reason", "the books are being closed")
    assert (paused["paused"], paused["note"]) == (True, "ops: the books are being closed")
    shown = cli.run("schedule", "show", NAME, who="auditor").stdout
    assert "State:   paused" in shown
    assert "Note:    ops: the books are being closed" in shown
    assert not cli.json("schedule", "unpause", NAME)["paused"]
    told = cli.run("ledger", "list", "--type", "schedule.paused", "--type", "schedule.unpaused", who="auditor").stdout
    assert f"ops paused the schedule {NAME}: the books are being closed" in told
    assert f"ops unpaused the schedule {NAME}" in told


def test_a_schedule_is_run_now_once_per_idempotency_key_and_shows_its_jobs(cli: Cli, auditor: Human, shop: Shop) -> None:
    shop.forget_refunds()
    job = cli.run("schedule", "run", NAME, "--reason", "to see it", "--idempotency-key", "cli-1", "-o", "name").stdout.strip()
    assert cli.json("schedule", "run", NAME, "--reason", "to see it", "--idempotency-key", "cli-1")["id"] == job
    assert auditor.until(job)["state"] == "succeeded"
    lines = cli.run("schedule", "show", NAME).stdout.splitlines()
    (line,) = [line for line in lines if line.startswith(job)]
    assert line.split()[1] == "succeeded"
    assert "run now by ops: to see it" in line


@pytest.mark.parametrize(
    "words, who, code, why",
    [
        (("show", "weekly"), "ops", 5, "there is no schedule weekly\nList them: justenough schedule list\n"),
        (("pause", NAME), "ops", 2, "--reason is required"),
        (("pause", NAME, "--reason", "x"), "auditor", 6, "needs one of the groups: ops"),
        (("run", NAME), "lead", 6, "needs one of the groups: ops"),
        (("run", " "), "ops", 2, "the id is empty"),
    ],
)
def test_a_schedule_command_that_fails_says_why(cli: Cli, words: tuple[str, ...], who: str, code: int, why: str) -> None:
    done = cli.run("schedule", *words, who=who)
    assert (done.exit_code, why in done.stderr) == (code, True), done.stderr


def test_a_schedule_whose_job_has_not_ended_is_not_run_and_without_temporal_its_state_is_unknown(cli: Cli) -> None:
    view: dict[str, object] = {
        "name": "a",
        "cron": "* * * * *",
        "timezone": "UTC",
        "job": "jobs/a.yaml",
        "params": {},
        "overlap": "skip",
        "paused": None,
        "note": None,
        "next": [],
        "missed": None,
        "jobs": [],
        "skipped": ["2026-01-31T09:30:00Z"],
        "more_skipped": True,
        "problem": "Temporal does not answer",
    }
    with serve_canned_answers() as console:
        console.routes["/schedules/a"] = (200, view)
        console.set_response(409, {"detail": "the job that it launched last has not ended: j-1"})
        refused = cli.run("schedule", "run", "a", "--console-url", console.address)
        shown = cli.run("schedule", "show", "a", "--console-url", console.address)
    assert (refused.exit_code, "has not ended: j-1" in refused.stderr) == (8, True), refused.stderr
    assert "State:   unknown" in shown.stdout
    assert "Problem: Temporal does not answer" in shown.stdout
    assert "Skipped: earlier ones, 2026-01-31T09:30:00Z" in shown.stdout
