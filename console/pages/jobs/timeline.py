"""A job's timeline as geometry: a row for each step, request and credential, placed in per cent of the time that is shown. Pure.

What begins and ends is the picture's (`console.presentation.timeline_model`); the steps are the job's own times.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from console.presentation.timeline_model import Timeline, TimelinePart, TimelineRange, TimelineRow, row_parts, timeline_range
from justenough.domain.jobs.states import RevocationState
from justenough.domain.readmodel.views import JobSummary

MAX_ROWS = 20
"""Rows that are drawn; the table tells of all."""
MIN_BLOCK_PERCENT = 0.5
"""Per cent: what was short can be seen too."""
MAX_TICKS = 4
"""Marks of the time, at most: as many as are readable on a phone."""
TICK_INTERVALS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)
"""Seconds between two marks; beyond, whole days."""
EDGE_PERCENT = 8.0
"""Per cent from an edge within which a mark's words would not fit around it."""

ROW_STATES = {"asked": "pending", "waits": "pending"}
"""What the picture's words are in the read model's."""
ROW_TONES = {"waits": "wait", "runs": "live", "gives": "wait", "request": "wait", "credential": "live"}


@dataclass(frozen=True, slots=True)
class DrawnBlock:
    """A stretch of a row."""

    kind: str
    """lasts | maybe | spared | ahead"""
    tone: str
    x: float
    """Per cent, as `width`."""
    width: float


@dataclass(frozen=True, slots=True)
class DrawnRow:
    """One thing that began, lasted and ended."""

    kind: str
    """step | request | credential"""
    id: str
    what: str
    state: str
    """As the read model calls it; empty for a step."""
    began: datetime
    until: datetime | None
    settled: datetime | None
    answers: tuple[str, ...]
    blocks: tuple[DrawnBlock, ...]
    end: float | None
    """Per cent: where it was settled."""


@dataclass(frozen=True, slots=True)
class DrawnTick:
    """A moment that is written along the upper edge."""

    x: float
    text: str
    anchor: str
    """start | middle | end: so that it stays within the edges."""


@dataclass(frozen=True, slots=True)
class TimelineDrawing:
    """A timeline that can be written."""

    rows: tuple[DrawnRow, ...]
    hidden: int
    """Rows beyond MOST, which only the table tells of."""
    all: tuple[DrawnRow, ...]
    ticks: tuple[DrawnTick, ...]
    now: DrawnTick | None
    """None where nothing goes on any more."""
    start: datetime
    end: datetime


def draw_timeline(timeline: Timeline, job: JobSummary, *, revocation_started_at: datetime | None, now: datetime) -> TimelineDrawing | None:
    """Return a job's timeline; None where nothing has begun. `revocation_started_at`: when the ending of its access began."""
    whole = Timeline(
        lanes={f"{lane.kind} {lane.id}": lane for lane in _timeline_rows(timeline, job, revocation_started_at)}, last=timeline.last
    )
    found = timeline_range(whole, now=now)
    if found is None:
        return None
    rows = tuple(_draw_row(lane, found) for lane in whole.lanes.values())
    here = _draw_tick(found, found.now, "now") if found.now else None
    ticks = tuple(_draw_tick(found, at, text) for at, text in tick_times(found.start, found.end))
    return TimelineDrawing(rows[:MAX_ROWS], max(0, len(rows) - MAX_ROWS), rows, ticks, here, found.start, found.end)


def tick_times(start: datetime, end: datetime) -> Iterator[tuple[datetime, str]]:
    """Yield round moments between two, at most TICKS, each with its text in UTC."""
    span = (end - start).total_seconds()
    step = next((step for step in TICK_INTERVALS_S if span / step <= MAX_TICKS), None) or -(-span // (MAX_TICKS * 86_400)) * 86_400
    form = "%H:%M:%S" if step < 60 else "%H:%M" if span <= 86_400 else "%m-%d %H:%M" if step < 86_400 else "%m-%d"
    at = -(-start.timestamp() // step) * step
    while at < end.timestamp():
        moment = datetime.fromtimestamp(at, UTC)
        yield moment, f"{moment:{form}}"
        at += step


def to_percent(time_range: TimelineRange, at: datetime) -> float:
    """Return where a moment is, in per cent of what is shown; the nearer edge for what is beyond."""
    share = (at - time_range.start) / (time_range.end - time_range.start)
    return round(100 * min(1.0, max(0.0, share)), 2)


def _timeline_rows(timeline: Timeline, job: JobSummary, revocation_started_at: datetime | None) -> Iterator[TimelineRow]:
    """Yield the job's steps, then its requests and credentials as they began."""
    # One who never ran waited until the end.
    yield TimelineRow("step", "waits", "Waits to start", job.created_at, "", settled=job.started_at or job.ended_at)
    if job.started_at:
        yield TimelineRow("step", "runs", "Runs", job.started_at, "", settled=revocation_started_at or job.ended_at)
    if revocation_started_at:
        late = "overdue" if job.revocation.state is RevocationState.OVERDUE else ""
        yield TimelineRow("step", "gives", "Gives access back", revocation_started_at, late, settled=job.revocation.confirmed_at)
    yield from sorted((lane for lane in timeline.lanes.values() if lane.kind != "job"), key=lambda lane: lane.began)


def _draw_row(row: TimelineRow, time_range: TimelineRange) -> DrawnRow:
    return DrawnRow(
        kind=row.kind,
        id=row.id,
        what=row.what,
        state=ROW_STATES.get(row.state, row.state),
        began=row.began,
        until=row.until,
        settled=row.settled,
        answers=tuple(row.answers),
        blocks=tuple(_draw_block(row, part, time_range) for part in row_parts(row, now=time_range.now or time_range.end)),
        end=to_percent(time_range, row.settled) if row.settled else None,
    )


def _draw_block(row: TimelineRow, part: TimelinePart, time_range: TimelineRange) -> DrawnBlock:
    left = min(to_percent(time_range, part.since), 100 - MIN_BLOCK_PERCENT)
    right = max(to_percent(time_range, part.until), left + MIN_BLOCK_PERCENT)
    tone = ROW_TONES[row.id if row.kind == "step" else row.kind]
    late = row.state == "overdue" or (part.kind == "maybe" and row.state == "doubted")
    return DrawnBlock(part.kind, "bad" if late else tone, round(left, 2), round(right - left, 2))


def _draw_tick(time_range: TimelineRange, at: datetime, text: str) -> DrawnTick:
    x = to_percent(time_range, at)
    return DrawnTick(x, text, "start" if x < EDGE_PERCENT else "end" if x > 100 - EDGE_PERCENT else "middle")


def row_duration(row: DrawnRow, *, now: datetime) -> timedelta:
    """Return how long a row lasted, until now where it goes on."""
    return max(timedelta(), (row.settled or now) - row.began)
