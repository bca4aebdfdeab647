"""`request watch`: follows pending requests. Each event of the console makes it fetch a request again. Survives a restart of the console.

Changes are found by comparing each fetched request with the version seen last. Therefore no change is lost or reported twice, even if the
stream breaks.
"""

from __future__ import annotations

import contextlib
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
from console.cli.errors import ExitCode, Failure, Unreachable, WrongUsage
from console.cli.json_object import Json
from console.cli.options import CliOutputFormat, current_options
from console.cli.render.output import count_label, note
from console.cli.render.request_table import RequestChange, request_changes, request_table_lines
from console.cli.watch.job import parse_event_stream
from console.cli.watch.poll import StreamHealth
from console.presentation.terminal_text import moment, to_json_text

ChangeHandler = Callable[[Json, list[RequestChange]], None]
"""Takes a request and its changes."""

STREAM_TIMEOUT_S = 40.0
"""Seconds without data after which a stream counts as broken: longer than two of the console's keep-alive intervals."""
FIRST_EVENT_TIMEOUT_S = 20.0
"""The same before any stream has carried data. The console sends something immediately, and then a keep-alive every 15 s."""
POLL_INTERVAL_S = 2.0
"""Seconds between two polls of the ledger if streams do not reach this machine."""
POLLS_BEFORE_STREAM_RETRY = 150
"""Polls after which a stream is tried again."""
REFUSAL_EXIT_CODES = {ExitCode.DENIED, ExitCode.NOT_AUTHENTICATED}
RECONNECT_DELAY_S = 1.0
"""Seconds before the next attempt to reach the console."""
REQUEST_EVENT_PREFIXES = ("approval.", "review.", "lock.", "access.withdrawn")
"""Events whose types begin like this may change a pending request."""


@dataclass(slots=True)
class RequestWatcher:
    api: ConsoleApiClient
    on_change: ChangeHandler
    mine: bool = False
    everything: bool = False
    pending: dict[str, Json] = field(default_factory=dict)
    """Pending requests by id. The dict is replaced, never changed, because another thread draws it."""
    is_started: bool = False
    """Whether the requests that were pending at the start have been reported."""
    _last_seen: dict[str, Json] = field(default_factory=dict)
    """Every reported request, as last seen."""
    _last_position: str | None = None
    _is_disconnected: bool = False
    _streams: StreamHealth = field(default_factory=lambda: StreamHealth(POLL_INTERVAL_S))
    _has_streamed: bool = False
    """Whether any stream has carried data yet."""

    def run_forever(self) -> None:
        """Follow until the user interrupts. Raises Failure if the console is unreachable at the start, or refuses."""
        # Read the position before the first list, so that no event in between is missed.
        _, self._last_position = self.api.get_entries_after(None)
        self.refresh()
        while True:
            try:
                if self._streams.is_usable:
                    self._follow_stream()
                else:
                    self._poll_ledger()
            except Unreachable as error:
                if not self._is_disconnected:
                    note(f"Connection lost: {error.message}. Reconnecting.")
                self._is_disconnected = True
            # Wait even if the console ended the stream itself, as when the token expires: it may end each new stream at once.
            time.sleep(RECONNECT_DELAY_S)

    def refresh(self) -> None:
        """Fetch the pending requests, and each request that is no longer pending."""
        waiting = {item["id"]: item for item in self._fetch_pending()}
        for item in sorted(waiting.values(), key=lambda item: str(item["created_at"])):
            self._update(item, is_pending=True)
        for name in [name for name in self.pending if name not in waiting]:
            if (gone := self._fetch_request(name)) is not None:
                self._update(gone, is_pending=False)
        self.is_started = True
        if self._is_disconnected:
            note("Reconnected to the console.")
        self._is_disconnected = False

    def _fetch_pending(self, **query: Any) -> Iterator[Json]:
        for item in self.api.get_all("/requests", state="pending", mine="true" if self.mine else None, **query):
            if item["quorum"]:
                yield item

    def _follow_stream(self) -> None:
        is_silent = True
        silence_timeout_s = STREAM_TIMEOUT_S if self._has_streamed else FIRST_EVENT_TIMEOUT_S
        try:
            with self.api.stream("/events", last_event_id=self._last_position, silence_timeout_s=silence_timeout_s) as lines:
                # Refresh once the stream is open and at each keep-alive: groups and delegations change without an event about a request.
                self.refresh()
                for event in parse_event_stream(lines):
                    is_silent, self._has_streamed = False, True
                    self._streams.record_data()
                    if event is None:
                        self.refresh()
                    else:
                        self._handle_event(event)
        except Unreachable:
            if not is_silent:
                raise
            # This raises if the console itself is down, and not only its streams.
            self.refresh()
        except Failure as error:
            if not is_silent or error.code in REFUSAL_EXIT_CODES:
                raise
            self._streams.fall_back(error.message)
            return
        if is_silent:
            self._streams.record_silence()

    def _poll_ledger(self) -> None:
        """Poll the ledger for a while: no change is missed, only reported later."""
        for _ in range(POLLS_BEFORE_STREAM_RETRY):
            time.sleep(POLL_INTERVAL_S)
            more = self._last_position is not None
            while more:
                page, newest = self.api.get_entries_after(self._last_position, limit=1000)
                for item in page["items"]:
                    self._handle_event(item)
                more = page["next"] is not None
                self._last_position = page["next"] or newest or self._last_position
            self.refresh()
        self._streams.reset()

    def _handle_event(self, event: Json) -> None:
        """Refresh the requests that an event may have changed."""
        names: list[str] = []
        if event["type"] == "job.ended":
            # The job's pending requests are withdrawn without an event for each.
            names = [name for name, item in self.pending.items() if item["job_id"] == event["job"]]
        elif event["type"].startswith(REQUEST_EVENT_PREFIXES) or (self.everything and event["type"] == "access.decided"):
            names = [str(event["data"]["request"])] if event["data"].get("request") else []
        for name in names:
            item = self._fetch_request(name)
            if item is None:
                continue
            is_pending = item["state"] == "pending" and item["quorum"] > 0
            if self.mine:
                is_pending = is_pending and any(other["id"] == name for other in self._fetch_pending(job=item["job_id"]))
            if is_pending or not self.mine or name in self.pending:
                self._update(item, is_pending=is_pending, at=event["at"])
        # Move on only now, so that the next stream repeats an event that was not handled.
        self._last_position = str(event["position"])

    def _fetch_request(self, name: str) -> Json | None:
        """Return a request; None if this person may no longer read it."""
        try:
            return self.api.get(f"/requests/{path_segment(name)}")
        except Failure as error:
            if error.code is not ExitCode.NOT_FOUND:
                raise
            self.pending = {other: item for other, item in self.pending.items() if other != name}
            return None

    def _update(self, item: Json, *, is_pending: bool, at: str = "") -> None:
        """Report the changes of a request. `at`: the time of the event that reported them; empty if no event did."""
        name, before = item["id"], self._last_seen.get(item["id"])
        self.pending = {other: pending for other, pending in self.pending.items() if other != name} | ({name: item} if is_pending else {})
        self._last_seen[name] = item
        if changes := [RequestChange(text, own_time or at) for text, own_time in request_changes(before, item)]:
            self.on_change(item, changes)


def watch_requests(api: ConsoleApiClient, *, mine: bool, everything: bool) -> None:
    """Show pending requests and their changes until the user interrupts."""
    form = current_options().output
    if form is CliOutputFormat.YAML:
        raise WrongUsage("request watch has no YAML output; use -o table, -o name or -o json (one object per line)")

    def print_change(item: Json, changes: list[RequestChange]) -> None:
        if form is CliOutputFormat.JSON:
            terminal.write_line(to_json_text(item))
        elif form is CliOutputFormat.NAME:
            terminal.write_line(item["id"])
        else:
            for change in changes:
                terminal.write_line(_line(item, change))
        terminal.flush()

    watcher = RequestWatcher(api, print_change, mine=mine, everything=everything)
    is_live = form is CliOutputFormat.TABLE and terminal.can_redraw(sys.stdout)
    try:
        with _show_live_table(watcher) if is_live else contextlib.nullcontext():
            watcher.run_forever()
    except KeyboardInterrupt:
        note("Stopped watching.")
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def _line(item: Json, change: RequestChange) -> str:
    return f"{moment(change.at or datetime.now(UTC).isoformat())}  {item['id']}  {change.text}"


@contextlib.contextmanager
def _show_live_table(watcher: RequestWatcher) -> Iterator[None]:
    from console.cli.render.live import live_display  # noqa: PLC0415 - only a terminal needs rich

    def lines(columns: int, rows: int) -> Iterator[str]:
        waiting = list(watcher.pending.values())
        count = count_label(len(waiting), "pending request")
        yield f"{count}{' that you can decide' if watcher.mine else ''}. Press Ctrl-C to stop."
        yield from request_table_lines(waiting, now=datetime.now(UTC), columns=columns, lines=max(3, rows - 3))

    with live_display(lines, stream=sys.stdout) as above:
        reported: set[str] = set()

        def print_above(item: Json, changes: list[RequestChange]) -> None:
            is_new = item["id"] not in reported
            reported.add(item["id"])
            # The requests that were pending at the start are in the table.
            for change in changes if watcher.is_started else ():
                above(_line(item, change), bell=is_new)
                is_new = False

        watcher.on_change = print_above
        yield
