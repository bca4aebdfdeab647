"""Shows a job's progress on stderr: one line per event; on a terminal also a live display of its state. Prints no data."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from types import TracebackType

from console.cli import terminal
from console.cli.arguments import path_segment
from console.cli.client.api import ConsoleApiClient
from console.cli.errors import Failure
from console.cli.json_object import Json
from console.cli.options import current_options
from console.cli.render.output import join_values, with_state_colour
from console.cli.render.table import shorten_ids_in
from console.cli.watch.job import EventHandler
from console.presentation.event_text import event_sentence
from console.presentation.terminal_text import colour_text, moment, output_text, plain

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
LOG_POLL_INTERVAL_S = 1.0
MAX_TAIL_CHARS = 8_000


@contextlib.contextmanager
def show_progress(api: ConsoleApiClient, job: str, *, event_types: frozenset[str] | None) -> Iterator[EventHandler]:
    """Show a job's events during a block: those of `event_types`; None for all, and on a terminal also for the end of the job's output."""

    def print_event(event: Json) -> None:
        if event_types is None or event["type"] in event_types:
            terminal.write_message(_event_text(api, event, {}, colour=False))

    if current_options().quiet:
        yield lambda _: None
    elif terminal.can_redraw(sys.stderr):
        with _live_progress(api, job, event_types) as on_event:
            yield on_event
    else:
        yield print_event


@contextlib.contextmanager
def _live_progress(api: ConsoleApiClient, job: str, event_types: frozenset[str] | None) -> Iterator[EventHandler]:
    from console.cli.render.gantt import job_status_lines  # noqa: PLC0415
    from console.cli.render.live import live_display  # noqa: PLC0415 - only a terminal needs it
    from console.presentation.timeline_model import Timeline  # noqa: PLC0415

    groups: dict[str, str] = {}
    timeline, lock, paint, logs = Timeline(), threading.Lock(), partial(with_state_colour, stream=sys.stderr), LogTail(api, job)

    def draw_status(columns: int, rows: int) -> Iterable[str]:
        # Another thread draws the timeline while this one adds events to it.
        with lock:
            status = list(job_status_lines(job, timeline, now=datetime.now(UTC), columns=columns, paint=paint, groups=groups))
        if event_types is not None:
            return status[:1]
        return [*status[: max(1, rows - 1 - MAX_LOG_LINES)], *logs.lines(MAX_LOG_LINES)]

    shown_logs = logs if event_types is None else contextlib.nullcontext()
    with live_display(draw_status, stream=sys.stderr) as print_above, shown_logs:

        def on_event(event: Json) -> None:
            with lock:
                timeline.add_entry(event["type"], event["at"], event["data"])
            if event_types is None or event["type"] in event_types:
                print_above(shorten_ids_in(_event_text(api, event, groups, colour=terminal.shows_colours(sys.stderr))))

        yield on_event


def _event_text(api: ConsoleApiClient, event: Json, groups: dict[str, str], *, colour: bool) -> str:
    """Describe an event; with a request, look up who can decide it or why policy denied it.

    `groups`: who can decide, by request. It is updated: a decided request has no entry.
    """
    event_type, data, hint = event["type"], event["data"], ""
    request = str(data.get("request"))
    if event_type in APPROVAL_EVENT_TYPES:
        groups.pop(request, None)
        found = _fetch_request(api, request)
        if found.get("state", "pending") == "pending":
            groups[request] = join_values(found.get("approvers") or ())
            hint = f"  ({plain(groups[request] or 'its approvers')} can decide: justenough request approve {request})"
    elif event_type == "access.decided" and data.get("outcome") == "denied":
        data = {**data, "policy_reasons": _fetch_request(api, request).get("policy_reasons") or {}}
    padded = event_type.ljust(EVENT_TYPE_COLUMNS)
    shown = colour_text(padded, COLOUR_BY_EVENT_TYPE[event_type]) if colour and event_type in COLOUR_BY_EVENT_TYPE else padded
    return f"{moment(event['at'])}  {shown} {plain(event_sentence(event_type, data))}{hint}".rstrip()


def _fetch_request(api: ConsoleApiClient, request: str) -> Json:
    """Return a request; an empty object if the console does not return it."""
    with contextlib.suppress(Failure):
        return api.get(f"/requests/{path_segment(request)}")
    return {}


class LogTail:
    """Reads the last lines of a job's output in the background, during a block.

    Errors are ignored, because the command that waits for the job reports them.
    """

    def __init__(self, api: ConsoleApiClient, job: str) -> None:
        self._api, self._path = api, f"/jobs/{path_segment(job)}/logs"
        self._text = ""
        self._stop_event = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop_event.set()
        self._thread.join(LOG_POLL_INTERVAL_S)

    def lines(self, count: int) -> list[str]:
        """Return the last lines, without colour codes."""
        return [f"  │ {plain(line)}" for line in output_text(self._text).split("\n") if line.strip()][-count:]

    def _read(self) -> None:
        after = -1
        while not self._stop_event.is_set():
            # RuntimeError: while this thread waited to repeat a request, the command ended and closed its client.
            with contextlib.suppress(Failure, RuntimeError):
                page = self._api.get(self._path, after=after, limit=1000)
                self._text = (self._text + "".join(item["text"] for item in page["items"]))[-MAX_TAIL_CHARS:]
                after = page["items"][-1]["seq"] if page["items"] else after
            self._stop_event.wait(LOG_POLL_INTERVAL_S)
