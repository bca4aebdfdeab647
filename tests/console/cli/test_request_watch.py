"""Watching requests: first the pending ones, then each change once, even if the stream breaks; a table on a terminal, lines elsewhere."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from console.api.routes.events import KEEP_ALIVE_INTERVAL_S
from console.cli.client import api
from console.cli.render.table import SHORT_ID_CHARS
from console.cli.watch import requests
from tests.console.cli.conftest import ROOT, Cli, run_on_terminal, write_spec
from tests.console.cli.test_request_commands import WRITE, PendingJob
from tests.console.cli.test_request_table import ANSWER, request
from tests.support.canned_server import CannedServer, serve_canned_answers
from tests.support.child_process import run_child
from tests.support.people import Human
from tests.support.terminal_signals import interruptible_command

pytestmark = pytest.mark.servers

PENDING = request()
APPROVED = {**PENDING, "state": "approved", "approvals": [ANSWER]}
OTHER = {**PENDING, "id": "r-2", "state": "denied"}


@contextmanager
def run_watch(cli: Cli, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Watch as lead, off a terminal."""
    command = [sys.executable, "-m", "console.cli", "--profile", "lead", "request", "watch", *arguments]
    with run_child(
        interruptible_command(command), cwd=ROOT, env=cli.env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        yield process


def test_each_change_is_a_line_at_once_and_in_json_the_request_as_the_api_shows_it(
    cli: Cli, lead: Human, ops: Human, tmp_path: Path
) -> None:
    job = PendingJob(cli, ops, tmp_path, [WRITE])
    name = job.requests[0]
    with run_watch(cli) as text, run_watch(cli, "--mine", "-o", "json") as objects:
        assert text.stdout is not None
        assert objects.stdout is not None
        asked = next(line for line in text.stdout if name in line)
        shown = next(found for found in map(json.loads, objects.stdout) if found["id"] == name)

        cli.json("request", "claim", name, who="lead")
        claimed = next(line for line in text.stdout if name in line)
        looked_at = next(found for found in map(json.loads, objects.stdout) if found["id"] == name)
        cli.json("request", "approve", name, "--reason", "the customer is right", who="lead")
        answers = [next(line for line in text.stdout if name in line) for _ in range(2)]
        answered = next(found for found in map(json.loads, objects.stdout) if found["id"] == name)

        text.send_signal(signal.SIGINT)
        _, told = text.communicate(timeout=60)

    assert (
        "ops requests write on refunds-db for 5m (from-the-cli): Write a refund (from the signed spec); tier 1, 0 of 1, until 20" in asked
    )
    assert (shown["state"], shown["claim"], shown["approvals"]) == ("pending", None, [])
    assert f"{name}  claimed by lead until 20" in claimed
    assert looked_at["claim"]["by"] == "lead"
    assert [line.rstrip().partition(name)[2] for line in answers] == ["  lead approved: the customer is right", "  is now approved"]
    assert answered == lead.api.get(f"requests/{name}").json()
    assert (text.returncode, told) == (130, "Stopped watching.\n")


def test_a_terminal_shows_a_table_and_rings_for_what_is_new(cli: Cli, ops: Human, tmp_path: Path) -> None:
    first = PendingJob(cli, ops, tmp_path, [WRITE])
    # As high as needed to show the requests that other tests left pending too: theirs are more urgent.
    with run_on_terminal(cli, "request", "watch", "--mine", who="lead", whole=True, columns=40, rows=10_000) as (process, terminal):
        # The table has short ids.
        shown = terminal.read_until(first.requests[0][: len("r-dev-") + SHORT_ID_CHARS].encode())
        shown += terminal.read_until(b"TIME LEFT ")
        second = PendingJob(cli, ops, tmp_path, [WRITE])
        rung = terminal.read_until(b"\x07")
        cli.run("job", "cancel", first.id)
        gone = terminal.read_until(f"{first.requests[0]}  is now withdrawn".encode())
        process.send_signal(signal.SIGINT)
        end = terminal.read_until(b"never")
        process.wait(20)

    cli.run("job", "cancel", second.id)
    assert "ACCESS write refunds-db for 5m" in shown
    assert f"{second.requests[0]}  ops requests write on refunds-db" in rung
    assert (process.returncode, end.rstrip().endswith("Stopped watching.")) == (130, True)
    assert "is now withdrawn" in gone
    assert "Traceback" not in end


def event(position: int, name: str) -> bytes:
    cloud = {"type": "dev.justenough.approval.decided.v1", "time": "2026-01-01T18:00:00Z", "data": {"request": name}}
    return f"id: {position}\nevent: approval.decided\ndata: {json.dumps(cloud)}\n\n".encode()


class Script:
    """A console whose streams end, that is away for a while after the first one, and that finally refuses."""

    STREAMS = (event(7, "r-1"), b"", event(7, "r-1") + event(9, "r-2"), b": ping\n\n")

    def __init__(self, console: CannedServer, away: tuple[int, bytes]) -> None:
        self._original, self._stream, self._away = console.answer_to, 0, away
        console.routes = {"/requests/r-1": (200, APPROVED), "/requests/r-2": (200, OTHER)}

    def answer_to(self, path: str) -> tuple[int, bytes]:
        if path.endswith("/events"):
            self._stream += 1
            return (200, self.STREAMS[self._stream - 1]) if self._stream <= len(self.STREAMS) else (403, b"{}")
        if path.partition("?")[0].endswith("/requests"):
            if self._stream == 2:
                return self._away
            return 200, json.dumps({"items": [PENDING] if self._stream < 2 else [], "next": None}).encode()
        return self._original(path)


VAULT_AWAY = (503, b'{"title": "Away", "detail": "Vault is away"}')
PROXY_PAGE = (502, b"<html><h1>502 Bad Gateway</h1></html>")
"""What a proxy answers while the console behind it restarts."""


@pytest.mark.parametrize("form,away", [("table", VAULT_AWAY), ("json", VAULT_AWAY), ("table", PROXY_PAGE)])
def test_a_console_that_was_down_is_followed_from_the_last_event_and_nothing_is_reported_twice(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, form: str, away: tuple[int, bytes]
) -> None:
    monkeypatch.setattr(requests, "RECONNECT_DELAY_S", 0.01)
    monkeypatch.setattr(api, "RETRY_DELAY_S", 0.01)
    with serve_canned_answers() as console:
        monkeypatch.setattr(console, "answer_to", Script(console, away).answer_to)
        done = cli.run("request", "watch", "-o", form, "--console-url", console.address, who="lead")
        heard = [one for one in console.requests if one.path.endswith("/events")]

    if form == "table":
        # Each line has the time of its own change, or of the event that told of it.
        assert [line.split()[0][11:16] for line in done.stdout.splitlines()] == ["18:00", "17:50", "18:00", "18:00", "18:00"]
    told = [line.split()[1] if form == "table" else json.loads(line)["id"] for line in done.stdout.splitlines()]
    assert done.exit_code == 6
    assert [one.headers.get("Last-Event-ID") for one in heard] == [None, "7", "7", "9", "9"]
    assert told == (["r-1", "r-1", "r-1", "r-2", "r-2"] if form == "table" else ["r-1", "r-1", "r-2"])
    why = "Vault is away" if away == VAULT_AWAY else f"the console at {console.address} answered 502"
    assert done.stderr.splitlines()[:-1] == [f"Connection lost: {why}. Reconnecting.", "Reconnected to the console."]


class Gone:
    """A console whose list lacks a request after the first read, although no event said why. Later it refuses every read."""

    def __init__(self, shown: tuple[int, bytes], stream: bytes) -> None:
        self._shown, self._stream, self._lists = shown, stream, 0

    def answer_to(self, path: str) -> tuple[int, bytes]:
        path = path.partition("?")[0]
        if path.endswith("/requests/r-1"):
            return self._shown
        if path.endswith("/events"):
            stream, self._stream = self._stream, b""
            return (200, stream) if stream else (403, b"{}")
        if path.endswith("/requests"):
            self._lists += 1
            return 200, json.dumps({"items": [PENDING] if self._lists == 1 else [], "next": None}).encode()
        return 200, b'{"items": [], "next": null}'


@pytest.mark.parametrize("stream", [b": ping\n\n", event(7, "r-1")])
@pytest.mark.parametrize(
    "shown,lines",
    [((200, json.dumps(APPROVED).encode()), 3), ((404, b'{"title": "Not Found", "detail": "there is no request r-1"}'), 1)],
    ids=["decided", "no longer readable"],
)
def test_a_request_that_leaves_the_list_is_reported_if_the_person_may_still_read_it(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, shown: tuple[int, bytes], lines: int, stream: bytes
) -> None:
    monkeypatch.setattr(requests, "RECONNECT_DELAY_S", 0.01)
    with serve_canned_answers() as console:
        monkeypatch.setattr(console, "answer_to", Gone(shown, stream).answer_to)
        done = cli.run("request", "watch", "--console-url", console.address, who="lead")

    assert [line.split()[1] for line in done.stdout.splitlines()] == ["r-1"] * lines
    assert (done.exit_code, "r-1" in done.stderr) == (6, False)


class Blocked:
    """A console whose streams do not come through; a request comes and goes between two looks, and then somebody must log in anew."""

    def __init__(self, stream: tuple[int, bytes]) -> None:
        self._stream, self._ledger = stream, 0

    def answer_to(self, path: str) -> tuple[int, bytes]:
        path, _, query = path.partition("?")
        if path.endswith("/events"):
            return self._stream
        if path.endswith("/requests/r-2"):
            return 200, json.dumps(OTHER).encode()
        if not path.endswith("/ledger"):
            return 200, b'{"items": [], "next": null}'
        after = parse_qs(query)["after"]
        if after == [str(api.POSITION_BEYOND_END)]:
            return 200, b'{"items": [], "next": null}'
        self._ledger += 1
        entry = {"position": 9, "at": "2026-01-01T18:00:00Z", "type": "approval.decided", "data": {"request": "r-2"}, "job": "j-1"}
        known = [entry] if after == ["7"] else []
        return (200, json.dumps({"items": known, "next": None}).encode()) if self._ledger < 3 else (401, b"{}")


@pytest.mark.parametrize(
    "stream,why",
    [((404, b'{"title": "x", "detail": "no streams here"}'), "no streams here"), ((200, b""), "a proxy may be buffering them")],
)
def test_the_ledger_is_polled_if_no_stream_arrives_and_nothing_is_missed(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, stream: tuple[int, bytes], why: str
) -> None:
    monkeypatch.setattr(requests, "RECONNECT_DELAY_S", 0.01)
    monkeypatch.setattr(requests, "POLL_INTERVAL_S", 0.01)
    with serve_canned_answers() as console:
        console.headers["Last-Event-ID"] = "7"
        monkeypatch.setattr(console, "answer_to", Blocked(stream).answer_to)
        done = cli.run("request", "watch", "-o", "name", "--console-url", console.address, who="lead")
        streams = [one.headers.get("Last-Event-ID") for one in console.requests if one.path.endswith("/events")]

    assert done.exit_code == 4
    assert done.stdout.split() == ["r-2"]
    assert f"Events do not arrive ({why})" in done.stderr
    assert done.stderr.count("do not arrive") == 1
    # The stream begins where the first read ended, so nothing in between is missed.
    assert set(streams) == {"7"}


def test_streams_are_tried_again_after_a_while_of_polling(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "RECONNECT_DELAY_S", 0.01)
    monkeypatch.setattr(requests, "POLL_INTERVAL_S", 0.01)
    monkeypatch.setattr(requests, "POLLS_BEFORE_STREAM_RETRY", 3)
    with serve_canned_answers() as console:
        seen, original = console.requests, console.answer_to

        def answer_to(path: str) -> tuple[int, bytes]:
            """Refuse the first stream as a proxy does, and the second as a console does."""
            streams = sum(one.path.endswith("/events") for one in seen)
            return ((404, b"{}"), (403, b"{}"))[streams - 1] if path.endswith("/events") else original(path)

        monkeypatch.setattr(console, "answer_to", answer_to)
        done = cli.run("request", "watch", "--console-url", console.address, who="lead")

    assert (done.exit_code, done.stderr.count("do not arrive")) == (6, 1)
    assert [one.path.rpartition("/")[2].partition("?")[0] for one in seen].count("requests") == 4


@pytest.mark.parametrize("arguments,problem", [(("--mine", "--all"), "one of them"), (("-o", "yaml"), "one object per line")])
def test_an_invalid_request_watch_command_is_a_usage_error(cli: Cli, arguments: tuple[str, ...], problem: str) -> None:
    done = cli.run("request", "watch", *arguments, who="lead")

    assert (done.exit_code, done.stdout) == (2, "")
    assert problem in done.stderr


def test_a_console_that_does_not_answer_at_the_start_is_an_error(cli: Cli) -> None:
    done = cli.run("request", "watch", "--console-url", "http://127.0.0.1:9", who="lead")

    assert done.exit_code == 1
    assert "does not answer" in done.stderr


def test_a_timeline_is_drawn_on_a_terminal_and_with_entries_it_is_not(cli: Cli, ops: Human, tmp_path: Path) -> None:
    job = PendingJob(cli, ops, tmp_path, [WRITE])
    shown: dict[tuple[Any, ...], str] = {}
    for arguments, env in [((), {}), ((), {"NO_COLOR": "1"}), (("--entries",), {})]:
        with run_on_terminal(cli, "job", "timeline", job.id, *arguments, whole=True, columns=80, rows=24, **env) as (process, terminal):
            shown[arguments, *env] = terminal.read_until(b"never")
            process.wait(20)
    cli.run("job", "cancel", job.id)

    drawn, plain, entries = shown.values()
    assert "asks write refunds-db" in drawn
    assert "now" in drawn
    assert "\x1b[33m" in drawn
    assert "\x1b" not in plain
    assert all("job.submitted" in text for text in shown.values())
    assert entries.startswith("SEQ")


def test_watching_a_job_on_a_terminal_shows_its_status_and_its_last_output(cli: Cli, ops: Human, tmp_path: Path) -> None:
    command = ["sh", "-c", "echo out-of-the-job; sleep 60"]
    job = cli.json("job", "run", write_spec(tmp_path, command, access=[{**WRITE, "action": "read"}], data_scope={"tenant": "acme"}))["id"]
    with run_on_terminal(cli, "job", "watch", job, whole=True) as (process, terminal):
        shown = terminal.read_until(b"out-of-the-job")
        cli.run("job", "kill", job, "--no-wait")
        shown += terminal.read_until(b"never")
        process.wait(30)

    assert f"{job}: running, for" in shown
    assert "holds read refunds-db: issued" in shown
    assert "  │ out-of-the-job" in shown
    assert process.returncode == 3


def test_a_quiet_stream_outlives_the_consoles_keep_alives() -> None:
    """Otherwise each quiet watch reports a lost connection."""
    assert KEEP_ALIVE_INTERVAL_S < requests.FIRST_EVENT_TIMEOUT_S < requests.STREAM_TIMEOUT_S
    assert 2 * KEEP_ALIVE_INTERVAL_S < requests.STREAM_TIMEOUT_S
