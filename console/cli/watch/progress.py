"""A job's progress on stderr: one line per event; on a terminal also how it stands now, drawn again each second. Data never goes here."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from console.cli import terminal
from console.cli.options import current_options
from console.cli.render.output import with_state_colour
from console.cli.watch.job import EventHandler, WatchedEvent
from console.cli.watch.log_tail import LogTail
from console.presentation.event_text import event_sentence
from console.presentation.terminal_text import colour_text, moment, plain

APPROVAL_EVENT_TYPES = frozenset({"approval.opened", "approval.escalated"})
"""What those want to know who only wait: someone must answer."""
COLOUR_BY_EVENT_TYPE = {
    "approval.opened": "yellow",
    "approval.escalated": "yellow",
    "revocation.overdue": "red",
    "revocation.confirmed": "green",
}
EVENT_TYPE_COLUMNS = 20
"""Columns of an event's name."""
MAX_LOG_LINES = 5
"""Lines of a job's output that are shown."""


@contextlib.contextmanager
def show_progress(
    job: str, *, every_event: bool, extra_types: frozenset[str] = frozenset(), logs: LogTail | None = None
) -> Iterator[EventHandler]:
    """Show what happens for the length of a block: everything, or only what someone has to answer, and kinds of `extra_types`."""
    told = APPROVAL_EVENT_TYPES | extra_types
    if current_options().quiet:
        yield lambda _: None
    elif terminal.can_redraw(sys.stderr):
        with _show_live_progress(job, told, every_event=every_event, logs=logs) as tell:
            yield tell
    else:
        yield lambda happened: _print_event(happened, told, every_event=every_event)


@contextlib.contextmanager
def _show_live_progress(job: str, event_types: frozenset[str], *, every_event: bool, logs: LogTail | None) -> Iterator[EventHandler]:
    from console.cli.render.job_status import job_status_lines  # noqa: PLC0415
    from console.cli.render.live import live_display  # noqa: PLC0415 - only a terminal needs it
    from console.presentation.timeline_model import Timeline  # noqa: PLC0415

    picture, lock = Timeline(), threading.Lock()

    def lines(columns: int, rows: int) -> Iterable[str]:
        # The picture is drawn from another thread than the one that hears what happens.
        with lock:
            found = list(job_status_lines(job, picture, now=datetime.now(UTC), columns=columns, paint=_paint))
        return [
            *found[: max(1, rows - 1 - MAX_LOG_LINES) if every_event else 1],
            *(logs.lines(MAX_LOG_LINES) if every_event and logs else ()),
        ]

    with live_display(lines, stream=sys.stderr) as above, logs or contextlib.nullcontext():

        def tell(happened: WatchedEvent) -> None:
            with lock:
                picture.add_entry(happened.kind, happened.at, happened.data)
            if every_event or happened.kind in event_types:
                above(_event_text(happened, colour=terminal.shows_colours(sys.stderr)))

        yield tell


def _paint(text: str, state: str) -> str:
    return with_state_colour(text, state, stream=sys.stderr)


def _print_event(event: WatchedEvent, event_types: frozenset[str], *, every_event: bool) -> None:
    if every_event or event.kind in event_types:
        terminal.write_message(_event_text(event, colour=False))


def _event_text(event: WatchedEvent, *, colour: bool) -> str:
    kind = event.kind.ljust(EVENT_TYPE_COLUMNS)
    shown = colour_text(kind, COLOUR_BY_EVENT_TYPE[event.kind]) if colour and event.kind in COLOUR_BY_EVENT_TYPE else kind
    hint = f"  (justenough request approve {event.data.get('request')})" if event.kind in APPROVAL_EVENT_TYPES else ""
    return f"{moment(event.at)}  {shown} {plain(event_sentence(event.kind, event.data))}{hint}".rstrip()
