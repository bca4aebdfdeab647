"""Waiting for a job's end: the result for each state, and what happens if the console is unavailable or streams do not arrive."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

from console.cli.client import api
from console.cli.client.profile import CliSession
from console.cli.errors import Unreachable
from console.cli.json_object import Json
from console.cli.options import DEFAULT_OPTIONS, current_options, run_with_options
from console.cli.watch import job as following
from console.cli.watch import poll, progress
from console.cli.watch.job import job_exit_code, parse_event_stream
from console.cli.watch.poll import OutageTolerance
from tests.console.cli.conftest import Cli, run_on_terminal
from tests.support.canned_server import serve_canned_answers

LINES = [
    ": ping",
    "id: 7",
    "event: job.ended",
    'data: {"type": "dev.justenough.job.ended.v1", "time": "2026-01-01T00:00:00Z",',
    'data: "data": {"state": "failed"}}',
    "",
    "",
    "id: x",
    "data: not json",
    "",
    "id: 8",
    "data: cut off",
]

WHOLE_ID = "j-dev-01kb3zq0aa0000000000000000"
"""An id that needs no lookup."""


def job(state: str, revocation: str) -> dict[str, Any]:
    return {"id": "j-dev-x", "name": "n", "state": state, "exit_code": None, "reason": None, "revocation": {"state": revocation}}


@pytest.mark.parametrize(
    "state,revocation,code",
    [
        ("succeeded", "none", 0),
        ("succeeded", "confirmed", 0),
        ("succeeded", "pending", 9),
        ("failed", "overdue", 9),
        ("denied", "none", 6),
        ("failed", "confirmed", 3),
        ("timed_out", "confirmed", 3),
        ("lost", "confirmed", 3),
        ("killed", "none", 3),
        ("cancelled", "none", 3),
        ("running", "none", 7),
        ("revoking", "pending", 7),
        ("revoking", "overdue", 9),
    ],
)
def test_a_jobs_end_is_an_exit_code_and_an_unproven_credential_outweighs_how_it_ended(state: str, revocation: str, code: int) -> None:
    assert job_exit_code(job(state, revocation)) == code


def test_a_stream_is_read_event_by_event_and_unreadable_or_incomplete_events_are_skipped() -> None:
    heard = list(parse_event_stream(LINES))

    entry = {"position": 7, "at": "2026-01-01T00:00:00Z", "job": None, "type": "job.ended", "data": {"state": "failed"}}
    assert heard == [None, entry, None]


def test_an_outage_of_the_console_is_tolerated_until_it_lasts_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poll, "POLL_INTERVAL_S", 0.0)
    absences = [Unreachable("away"), Unreachable("away")]

    def ask() -> str:
        if absences:
            raise absences.pop()
        return "back"

    assert OutageTolerance().retry(ask) == "back"
    monkeypatch.setattr(poll, "MAX_OUTAGE_S", -1.0)
    absences.append(Unreachable("away"))
    with pytest.raises(Unreachable):
        OutageTolerance().retry(ask)


@pytest.mark.servers
def test_waiting_polls_until_the_end_if_streams_do_not_pass(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poll, "POLL_INTERVAL_S", 0.01)
    entry = {"position": 1, "at": "2026-01-01T00:00:00Z", "type": "job.ended", "data": {"state": "failed", "exit_code": 1, "reason": None}}
    with serve_canned_answers() as console:
        console.routes = {
            "/jobs/j-dev-x": (200, job("running", "none")),
            "/events": (404, {"detail": "no streams here"}),
            "/timeline": (200, {"items": [entry], "next": None}),
        }

        seen, original = console.requests, console.answer_to

        def answer_to(path: str) -> tuple[int, bytes]:
            """End the job once it was asked for three times."""
            if sum(one.path.endswith("/jobs/j-dev-x") for one in seen) > 3:
                console.routes["/jobs/j-dev-x"] = (200, job("failed", "confirmed"))
            return original(path)

        monkeypatch.setattr(console, "answer_to", answer_to)
        done = cli.run("job", "watch", "j-dev-x", "--console-url", console.address)

    assert done.exit_code == 3
    assert [one.path.rpartition("/")[2] for one in seen].count("events") == 1
    assert done.stderr.count("job.ended") == 1
    assert "Events do not arrive (no streams here)" in done.stderr


@pytest.mark.servers
@pytest.mark.parametrize("status", [502, 503, 504])
def test_waiting_survives_a_restart_of_the_console_behind_a_proxy(cli: Cli, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setattr(poll, "POLL_INTERVAL_S", 0.01)
    monkeypatch.setattr(api, "RETRY_DELAY_S", 0.01)
    with serve_canned_answers() as console:
        seen, original = console.requests, console.answer_to

        def answer_to(path: str) -> tuple[int, bytes]:
            """Show a running job, then the proxy's page, then the job's end."""
            if 1 < len(seen) < 30:
                return status, b"<html><h1>The server behind this proxy does not answer</h1></html>"
            console.routes = {f"/jobs/{WHOLE_ID}": (200, job("failed", "confirmed") if len(seen) > 1 else job("running", "none"))}
            return original(path)

        monkeypatch.setattr(console, "answer_to", answer_to)
        done = cli.run("job", "watch", WHOLE_ID, "--console-url", console.address)

    assert (done.exit_code, "error" in done.stderr) == (3, False), done.stderr


@pytest.mark.servers
def test_waiting_polls_if_a_proxy_holds_streams_back(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poll, "POLL_INTERVAL_S", 0.01)
    with serve_canned_answers() as console:
        console.routes = {"/jobs/j-dev-x": (200, job("running", "none")), "/timeline": (200, {"items": [], "next": None})}
        seen, original = console.requests, console.answer_to

        def answer_to(path: str) -> tuple[int, bytes]:
            """Say nothing on streams, and end the job some time later."""
            if path.endswith("/events"):
                return 200, b""
            if sum(one.path.endswith("/jobs/j-dev-x") for one in seen) > 5:
                console.routes["/jobs/j-dev-x"] = (200, job("failed", "confirmed"))
            return original(path)

        monkeypatch.setattr(console, "answer_to", answer_to)
        done = cli.run("job", "watch", "j-dev-x", "--console-url", console.address)

    assert done.exit_code == 3
    assert sum(one.path.endswith("/events") for one in seen) == poll.MAX_SILENT_STREAMS
    assert "a proxy may be buffering them" in done.stderr


@pytest.mark.servers
def test_waiting_ends_at_once_if_the_timeline_shows_the_end_before_the_job_does(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"position": 2, "at": "2026-01-01T00:00:00Z", "type": "job.ended", "data": {"state": "failed", "exit_code": 1, "reason": None}}
    with serve_canned_answers() as console:
        console.routes = {"/jobs/j-dev-x": (200, job("revoking", "confirmed")), "/timeline": (200, {"items": [entry], "next": None})}
        seen, original = console.requests, console.answer_to

        def answer_to(path: str) -> tuple[int, bytes]:
            """Stream the last event but one, and end the job once its timeline was read."""
            if path.endswith("/events"):
                return (
                    200,
                    b'id: 1\ndata: {"type": "dev.justenough.revocation.confirmed.v1", "time": "2026-01-01T00:00:00Z", "data": {}}\n\n',
                )
            if "/timeline" in path:
                console.routes["/jobs/j-dev-x"] = (200, job("failed", "confirmed"))
            return original(path)

        monkeypatch.setattr(console, "answer_to", answer_to)
        done = cli.run("job", "watch", "j-dev-x", "--console-url", console.address)

    assert done.exit_code == 3
    assert sum(one.path.endswith("/events") for one in seen) == 1


@pytest.mark.servers
def test_waiting_for_a_job_that_is_never_proven_clean_exits_with_9(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poll, "POLL_INTERVAL_S", 0.01)
    monkeypatch.setattr(following, "CONFIRMATION_TIMEOUT_S", 0.05)
    with serve_canned_answers() as console:
        console.routes = {"/jobs/j-dev-x": (200, job("succeeded", "pending")), "/events": (404, {"detail": "no streams here"})}
        done = cli.run("job", "watch", "j-dev-x", "--console-url", console.address)

    assert done.exit_code == 9
    assert "justenough credential prove j-dev-x" in done.stderr


@pytest.mark.servers
def test_waiting_ends_if_the_login_does(cli: Cli) -> None:
    with serve_canned_answers() as console:
        console.routes = {
            f"/jobs/{WHOLE_ID}": (200, job("running", "none")),
            "/events": (401, {"title": "Unauthorized", "detail": "your login has ended"}),
        }
        done = cli.run("job", "watch", WHOLE_ID, "--console-url", console.address)

    assert (done.exit_code, done.stderr) == (4, "error: your login has ended\nLog in: justenough login\n")


@pytest.mark.servers
def test_a_terminal_gets_a_jobs_output_only_if_it_is_shown(cli: Cli) -> None:
    with serve_canned_answers() as console:
        console.routes = {
            "/jobs/j-dev-x": (200, {**job("running", "pending"), "credentials": []}),
            "/kill": (200, {**job("running", "pending"), "credentials": []}),
            "/events": (404, {"detail": "no streams here"}),
            "/timeline": (200, {"items": [], "next": None}),
        }
        for arguments, is_shown in ((("job", "kill", "j-dev-x"), False), (("job", "watch", "j-dev-x"), True)):
            with run_on_terminal(cli, *arguments, "--timeout", "2s", "--console-url", console.address) as (process, terminal):
                terminal.read_until(b"The timeout has passed" if is_shown else b"prove j-dev-x")
                process.wait()
            assert any("/logs" in one.path for one in console.requests) is is_shown


@pytest.mark.servers
def test_a_jobs_output_that_is_still_being_read_when_the_command_ends_is_no_traceback(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in cli.env().items():
        monkeypatch.setenv(name, value)
    reads = threading.Semaphore(0)

    class CountedClient(api.ConsoleApiClient):
        def get(self, path: str, **query: Any) -> Json:
            """Count the call, and make it."""
            reads.release()
            return super().get(path, **query)

    closed = run_with_options(replace(DEFAULT_OPTIONS, profile="ops"), lambda: CountedClient(CliSession(current_options())))
    with progress.LogTail(closed, "j-dev-none"):
        # An error in the thread fails the test, and there would be no second read.
        assert all(reads.acquire(timeout=240) for _ in range(2))
