"""`request watch`: what waits for an answer, followed by the console's events as wake-ups. Survives a console that restarts.

What changed is told by comparing a request as the API shows it with what was seen last, so that nothing is told twice or lost, however often the
stream breaks.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import typer

from console.cli import terminal
from console.cli.arguments import path_segment
from console.cli.client.api import ConsoleApiClient
from console.cli.errors import ExitCode, Failure, Unreachable
from console.cli.options import CliOutputFormat, current_options
from console.cli.render.output import note
from console.cli.render.request_table import request_changes, request_table_lines
from console.cli.watch.job import WatchedEvent, parse_event_stream

Json = dict[str, Any]
ChangeHandler = Callable[[Json, list[str]], None]
"""Told of a request, and what changed about it."""

STREAM_TIMEOUT_S = 40.0
"""Seconds without a word after which a stream is taken for dead: longer than two of the console's keep-alives."""
FIRST_EVENT_TIMEOUT_S = 10.0
"""The same before any stream has said anything; the console says something at once."""
MAX_SILENT_STREAMS = 2
"""Streams without a word after which the ledger is asked instead: something holds them back."""
POLL_INTERVAL_S = 2.0
"""Seconds between two looks at the ledger where no stream comes through."""
POLLS_BEFORE_STREAM_RETRY = 150
"""Looks after which a stream is tried again."""
REFUSAL_EXIT_CODES = {ExitCode.DENIED, ExitCode.NOT_AUTHENTICATED}
RECONNECT_DELAY_S = 1.0
"""Seconds before the console is looked for again."""
REQUEST_EVENT_PREFIXES = ("approval.", "review.", "lock.", "access.withdrawn")
"""What begins so may change a request that somebody has to answer."""


@dataclass(slots=True)
class RequestWatcher:
    """The requests that wait, as last seen."""

    api: ConsoleApiClient
    on_change: ChangeHandler
    mine: bool = False
    everything: bool = False
    pending: dict[str, Json] = field(default_factory=dict)
    """What waits, by id. Replaced, never changed: it is drawn from another thread."""
    is_started: bool = False
    """Whether what waits at first has been told."""
    _last_seen: dict[str, Json] = field(default_factory=dict)
    """Every request told of, as it was last."""
    _last_position: str | None = None
    _is_disconnected: bool = False
    _uses_stream: bool = True
    _has_streamed: bool = False
    """Whether any stream has said anything yet."""
    _silent_streams: int = 0

    def run_forever(self) -> None:
        """Follow until somebody interrupts. Raises Failure where the console is not there at first, or refuses."""
        # Before the first look, so that what comes and goes between that and the first event is heard of.
        _, self._last_position = self.api.get_entries_after(None, "/ledger")
        self.refresh()
        while True:
            try:
                if self._uses_stream:
                    self._follow_stream()
                else:
                    self._poll_ledger()
            except Unreachable as error:
                self._report_outage(error)
            # Also where the console ended the stream itself, as it does with its token: one that does so each time must not be pressed.
            time.sleep(RECONNECT_DELAY_S)

    def refresh(self) -> None:
        """See what waits now, and what became of that which no longer does."""
        waiting = {item["id"]: item for item in self._fetch_pending()}
        for item in sorted(waiting.values(), key=lambda one: str(one["created_at"])):
            self._update(item, is_pending=True)
        for name in [name for name in self.pending if name not in waiting]:
            if (gone := self._fetch_request(name)) is not None:
                self._update(gone, is_pending=False)
        self.is_started = True
        self._report_recovery()

    def _fetch_pending(self, **query: Any) -> Iterator[Json]:
        for item in self.api.get_all("/requests", state="pending", mine="true" if self.mine else None, **query):
            if item["quorum"]:
                yield item

    def _follow_stream(self) -> None:
        silent = True
        try:
            for _ in self._read_stream():
                silent, self._has_streamed, self._silent_streams = False, True, 0
        except Unreachable:
            if not silent:
                raise
            # Whether the console is away, or only its streams are.
            self.refresh()
        except Failure as error:
            if not silent or error.code in REFUSAL_EXIT_CODES:
                raise
            self._fall_back_to_polling(error.message)
            return
        if silent:
            self._silent_streams += 1
            if self._silent_streams >= MAX_SILENT_STREAMS:
                self._fall_back_to_polling("something on the way holds them back")

    def _fall_back_to_polling(self, why: str) -> None:
        self._uses_stream = False
        note(f"Events do not come through ({why}); asking every {POLL_INTERVAL_S:g} s instead.")

    def _poll_ledger(self) -> None:
        """Read the ledger now and then instead of hearing of it: no change is missed, only told later."""
        for _ in range(POLLS_BEFORE_STREAM_RETRY):
            time.sleep(POLL_INTERVAL_S)
            more = self._last_position is not None
            while more:
                page, newest = self.api.get_entries_after(self._last_position, "/ledger", limit=1000)
                for item in page["items"]:
                    self._handle_event(WatchedEvent(item["position"], item["at"], item["type"], item["data"], item["job"]))
                more = page["next"] is not None
                self._last_position = page["next"] or newest or self._last_position
            self.refresh()
        self._uses_stream, self._silent_streams = True, 0

    def _handle_event(self, event: WatchedEvent) -> None:
        for name in self._affected_requests(event):
            self._refresh_request(name)
        # Only now: what was not looked at is told again by the next stream.
        self._last_position = str(event.position)

    def _read_stream(self) -> Iterator[None]:
        with self.api.stream(
            "/events",
            last_event_id=self._last_position,
            silence_timeout_s=STREAM_TIMEOUT_S if self._has_streamed else FIRST_EVENT_TIMEOUT_S,
        ) as lines:
            # Once the stream is open and at each keep-alive: groups and delegates change without an event about a request.
            self.refresh()
            for heard in parse_event_stream(lines):
                yield
                if heard is None:
                    self.refresh()
                else:
                    self._handle_event(heard)

    def _affected_requests(self, event: WatchedEvent) -> list[str]:
        """Return the requests that an event may have changed."""
        if event.kind == "job.ended":
            # What of it still waits is withdrawn without a word about each.
            return [name for name, item in self.pending.items() if item["job_id"] == event.job]
        if event.kind.startswith(REQUEST_EVENT_PREFIXES) or (self.everything and event.kind == "access.decided"):
            return [str(event.data["request"])] if event.data.get("request") else []
        return []

    def _refresh_request(self, name: str) -> None:
        item = self._fetch_request(name)
        if item is None:
            return
        stays = item["state"] == "pending" and item["quorum"] > 0
        if self.mine:
            stays = stays and any(one["id"] == name for one in self._fetch_pending(job=item["job_id"]))
            if not stays and name not in self.pending:
                return
        self._update(item, is_pending=stays)

    def _fetch_request(self, name: str) -> Json | None:
        """Return a request whole; None where it is not theirs to read any more."""
        try:
            return self.api.get(f"/requests/{path_segment(name)}")
        except Failure as error:
            if error.code is not ExitCode.NOT_FOUND:
                raise
            self.pending = {other: item for other, item in self.pending.items() if other != name}
            return None

    def _update(self, item: Json, *, is_pending: bool) -> None:
        name, before = item["id"], self._last_seen.get(item["id"])
        self.pending = {other: one for other, one in self.pending.items() if other != name} | ({name: item} if is_pending else {})
        self._last_seen[name] = item
        if told := list(request_changes(before, item)):
            self.on_change(item, told)

    def _report_outage(self, error: Unreachable) -> None:
        if not self._is_disconnected:
            note(f"Lost: {error.message}. Looking for it.")
        self._is_disconnected = True

    def _report_recovery(self) -> None:
        if self._is_disconnected:
            note("Found the console again.")
        self._is_disconnected = False


def watch_requests(api: ConsoleApiClient, *, mine: bool, everything: bool) -> None:
    """Show what waits and what becomes of it until somebody interrupts."""
    form = current_options().output
    if form is CliOutputFormat.YAML:
        raise Failure("request watch prints text, ids or, with -o json, a JSON object per line", code=ExitCode.USAGE)
    watching = RequestWatcher(api, _build_printer(form), mine=mine, everything=everything)
    try:
        if form is CliOutputFormat.TABLE and terminal.can_redraw(sys.stdout):
            with _show_live_table(watching):
                watching.run_forever()
        else:
            watching.run_forever()
    except KeyboardInterrupt:
        note("Not watching any more.")
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def _build_printer(form: CliOutputFormat) -> ChangeHandler:
    def tell(item: Json, told: list[str]) -> None:
        if form is CliOutputFormat.JSON:
            terminal.write_line(json.dumps(item, ensure_ascii=False))
        elif form is CliOutputFormat.NAME:
            terminal.write_line(item["id"])
        else:
            for text in told:
                terminal.write_line(_line(item, text))
        terminal.flush()

    return tell


def _line(item: Json, text: str) -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}  {item['id']}  {text}"


@contextlib.contextmanager
def _show_live_table(watcher: RequestWatcher) -> Iterator[None]:
    from console.cli.render.live import live_display  # noqa: PLC0415 - only a terminal needs rich

    def lines(columns: int, rows: int) -> Iterator[str]:
        waiting = list(watcher.pending.values())
        yield f"{len(waiting)} {'request waits' if len(waiting) == 1 else 'requests wait'}{' for you' if watcher.mine else ''}. Ctrl-C ends."
        yield from request_table_lines(waiting, now=datetime.now(UTC), columns=columns, lines=max(3, rows - 3))

    with live_display(lines, stream=sys.stdout) as above:
        told_of: set[str] = set()

        def tell(item: Json, told: list[str]) -> None:
            new = item["id"] not in told_of
            told_of.add(item["id"])
            # What waits already when the watching begins is in the table.
            for text in told if watcher.is_started else ():
                above(_line(item, text), bell=new)
                new = False

        watcher.on_change = tell
        yield
