"""A job's timeline as geometry: one row per step, request and credential, positioned in per cent of the displayed time. Pure.

Requests and credentials come from `console.presentation.timeline_model`; the steps from the job's own times.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from console.presentation.timeline_model import Timeline, TimelineRange, TimelineRow, row_parts, timeline_range
from justenough.domain.jobs.states import RevocationState
from justenough.domain.readmodel.views import JobSummary

MIN_BLOCK_PERCENT = 0.5
"""Smallest width in per cent, so that short blocks stay visible."""
MAX_TICKS = 4
"""Maximum number of ticks on the time axis, so that it is readable on a phone."""
TICK_INTERVALS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)
"""Possible seconds between two ticks; longer intervals are whole days."""
EDGE_PERCENT = 8.0
"""Distance from an edge, in per cent, within which a centred label would not fit."""

ROW_STATES = {"asked": "pending", "waits": "pending"}
"""States of the timeline model that have another name in the read model."""
ROW_TONES = {"waits": "wait", "runs": "live", "gives": "wait", "request": "wait", "credential": "live"}


@dataclass(frozen=True, slots=True)
class DrawnBlock:
    kind: str
    """lasts (access is active) | maybe (its end is not verified) | spared (unused time) | ahead (remaining time)"""
    tone: str
    x: float
    """Per cent, as `width`."""
    width: float


@dataclass(frozen=True, slots=True)
class DrawnRow:
    """A drawn step, request or credential."""

    row: TimelineRow
    state: str
    """The read model's state; empty for a step."""
    later_end: str
    """The time until which it lasts, if that is after the shown time; else empty."""
    blocks: tuple[DrawnBlock, ...]
    end: float | None
    """Position of the moment when it was settled, in per cent; None if it is not settled."""


@dataclass(frozen=True, slots=True)
class DrawnTick:
    """A labelled moment on the time axis."""

    x: float
    text: str
    anchor: str
    """start | middle | end: keeps the label within the edges."""


@dataclass(frozen=True, slots=True)
class TimelineDrawing:
    rows: tuple[DrawnRow, ...]
    ticks: tuple[DrawnTick, ...]
    now: DrawnTick | None
    """None if nothing is in progress."""
    start: datetime
    end: datetime


def draw_timeline(timeline: Timeline, job: JobSummary, *, revocation_started_at: datetime | None, now: datetime) -> TimelineDrawing | None:
    """Return a job's drawn timeline; None if nothing has started."""
    # A job that never ran was queued until its end.
    rows = [TimelineRow("step", "waits", "Queued", job.created_at, "", settled=job.started_at or job.ended_at)]
    if job.started_at:
        rows.append(TimelineRow("step", "runs", "Running", job.started_at, "", settled=revocation_started_at or job.ended_at))
    if revocation_started_at:
        late = "overdue" if job.revocation.state is RevocationState.OVERDUE else ""
        rows.append(TimelineRow("step", "gives", "Revoking", revocation_started_at, late, settled=job.revocation.confirmed_at))
    rows += sorted((row for row in timeline.rows.values() if row.kind != "job"), key=lambda row: row.began)
    span = timeline_range(Timeline(rows={f"{row.kind} {row.id}": row for row in rows}, last=timeline.last), now=now)
    if span is None:
        return None
    here = _draw_tick(span, span.now, "now") if span.now else None
    ticks = tuple(_draw_tick(span, at, text) for at, text in tick_times(span.start, span.end))
    return TimelineDrawing(tuple(_draw_row(row, span) for row in rows), ticks, here, span.start, span.end)


def tick_times(start: datetime, end: datetime) -> Iterator[tuple[datetime, str]]:
    """Yield round moments between two, at most MAX_TICKS, each with its label in UTC."""
    span = (end - start).total_seconds()
    step = next((step for step in TICK_INTERVALS_S if span / step <= MAX_TICKS), None) or -(-span // (MAX_TICKS * 86_400)) * 86_400
    form = "%H:%M:%S" if step < 60 else "%H:%M" if span <= 86_400 else "%m-%d %H:%M" if step < 86_400 else "%m-%d"
    at = -(-start.timestamp() // step) * step
    while at < end.timestamp():
        moment = datetime.fromtimestamp(at, UTC)
        yield moment, f"{moment:{form}}"
        at += step


def to_percent(time_range: TimelineRange, at: datetime) -> float:
    """Return the position of a moment in per cent of the shown time, clipped to the edges."""
    share = (at - time_range.start) / (time_range.end - time_range.start)
    return round(100 * min(1.0, max(0.0, share)), 2)


def _draw_row(row: TimelineRow, time_range: TimelineRange) -> DrawnRow:
    blocks, tone = [], ROW_TONES[row.id if row.kind == "step" else row.kind]
    for part in row_parts(row, now=time_range.now or time_range.end):
        left = min(to_percent(time_range, part.since), 100 - MIN_BLOCK_PERCENT)
        right = max(to_percent(time_range, part.until), left + MIN_BLOCK_PERCENT)
        late = row.state == "overdue" or (part.kind == "maybe" and row.state == "doubted")
        blocks.append(DrawnBlock(part.kind, "bad" if late else tone, round(left, 2), round(right - left, 2)))
    later = row.until if row.until and not row.settled and row.until > time_range.end else None
    # With its date if the shown time starts on another day.
    form = "%H:%M:%S" if later and later.date() == time_range.start.date() else "%m-%d %H:%M"
    return DrawnRow(
        row=row,
        state=ROW_STATES.get(row.state, row.state),
        later_end=f"{later:{form}}" if later else "",
        blocks=tuple(blocks),
        end=to_percent(time_range, row.settled) if row.settled else None,
    )


def _draw_tick(time_range: TimelineRange, at: datetime, text: str) -> DrawnTick:
    x = to_percent(time_range, at)
    return DrawnTick(x, text, "start" if x < EDGE_PERCENT else "end" if x > 100 - EDGE_PERCENT else "middle")
