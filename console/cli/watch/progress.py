"""Shows a job's progress on stderr: one line per event; on a terminal also a live display of its state. Prints no data."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from console.cli import terminal
from console.cli.json_object import Json
from console.cli.options import current_options
from console.cli.render.output import join_values, with_state_colour
from console.cli.render.table import shorten_ids_in
from console.cli.watch.job import EventHandler, WatchedEvent
from console.cli.watch.log_tail import LogTail
from console.presentation.event_text import event_sentence
from console.presentation.terminal_text import colour_text, moment, plain

APPROVAL_EVENT_TYPES = frozenset({"approval.opened", "approval.escalated"})
"""Events that are shown even without --watch, because somebody must decide."""
COLOUR_BY_EVENT_TYPE = {
    "approval.opened": "yellow",
    "approval.escalated": "yellow",
    "revocation.overdue": "red",
    "revocation.confirmed": "green",
}
EVENT_TYPE_COLUMNS = 20
MAX_LOG_LINES = 5


@contextlib.contextmanager
def show_progress(
    job: str,
    *,
    every_event: bool,
    logs: LogTail,
    fetch_request: Callable[[str], Json],
    extra_types: frozenset[str] = frozenset(),
) -> Iterator[EventHandler]:
    """Show events during a block: every event, or only those that need an approver and those of `extra_types`.

    `fetch_request` returns a request, which names who can decide it and why policy denied it; an empty one if it cannot be read.
    """
    event_types = APPROVAL_EVENT_TYPES | extra_types
    groups: dict[str, str] = {}

    def describe(event: WatchedEvent, *, colour: bool) -> str:
        return _event_text(with_request(event, groups, fetch_request), colour=colour, groups=groups)

    def print_event(event: WatchedEvent) -> None:
        if every_event or event.kind in event_types:
            terminal.write_message(describe(event, colour=False))

    if current_options().quiet:
        yield lambda _: None
        return
    if not terminal.can_redraw(sys.stderr):
        yield print_event
        return

    from console.cli.render.job_status import job_status_lines  # noqa: PLC0415
    from console.cli.render.live import live_display  # noqa: PLC0415 - only a terminal needs it
    from console.presentation.timeline_model import Timeline  # noqa: PLC0415

    picture, lock, paint = Timeline(), threading.Lock(), partial(with_state_colour, stream=sys.stderr)

    def draw_status(columns: int, rows: int) -> Iterable[str]:
        # Another thread draws the picture while this one adds events to it.
        with lock:
            status = list(job_status_lines(job, picture, now=datetime.now(UTC), columns=columns, paint=paint, groups=groups))
        if not every_event:
            return status[:1]
        return [*status[: max(1, rows - 1 - MAX_LOG_LINES)], *logs.lines(MAX_LOG_LINES)]

    with live_display(draw_status, stream=sys.stderr) as print_above, logs:

        def on_event(event: WatchedEvent) -> None:
            with lock:
                picture.add_entry(event.kind, event.at, event.data)
            if every_event or event.kind in event_types:
                print_above(shorten_ids_in(describe(event, colour=terminal.shows_colours(sys.stderr))))

        yield on_event


def with_request(event: WatchedEvent, groups: dict[str, str], fetch_request: Callable[[str], Json]) -> WatchedEvent:
    """Look up the request of an event: add who can decide it to `groups` (text by request; none if it is decided); return the event with
    why policy denied it.
    """
    request = str(event.data.get("request"))
    if event.kind in APPROVAL_EVENT_TYPES:
        groups.pop(request, None)
        found = fetch_request(request)
        if found.get("state", "pending") == "pending":
            groups[request] = join_values(found.get("approvers") or ())
    if event.kind != "access.decided" or event.data.get("outcome") != "denied":
        return event
    return replace(event, data={**event.data, "policy_reasons": fetch_request(request).get("policy_reasons") or {}})


def _event_text(event: WatchedEvent, *, colour: bool, groups: Mapping[str, str]) -> str:
    kind = event.kind.ljust(EVENT_TYPE_COLUMNS)
    shown = colour_text(kind, COLOUR_BY_EVENT_TYPE[event.kind]) if colour and event.kind in COLOUR_BY_EVENT_TYPE else kind
    hint = ""
    request = str(event.data.get("request"))
    if event.kind in APPROVAL_EVENT_TYPES and request in groups:
        who = plain(groups.get(request) or "its approvers")
        hint = f"  ({who} can decide: justenough request approve {request})"
    return f"{moment(event.at)}  {shown} {plain(event_sentence(event.kind, event.data))}{hint}".rstrip()
