"""A job's timeline as geometry: a row for each step, request and credential, placed in per cent of the time that is shown. Pure.

What begins and ends is the picture's (`console.presentation.timeline_model`); the steps are the job's own times.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from console.presentation.timeline_model import Lane, Part, Picture, Reach, parts, reach
from justenough.domain.jobs.states import RevocationState
from justenough.domain.readmodel.views import JobSummary

MOST = 20
"""Rows that are drawn; the table tells of all."""
THINNEST = 0.5
"""Per cent: what was short can be seen too."""
TICKS = 4
"""Marks of the time, at most: as many as are readable on a phone."""
STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)
"""Seconds between two marks; beyond, whole days."""
NEAR = 8.0
"""Per cent from an edge within which a mark's words would not fit around it."""

STATES = {"asked": "pending", "waits": "pending"}
"""What the picture's words are in the read model's."""
TONES = {"waits": "wait", "runs": "live", "gives": "wait", "request": "wait", "credential": "live"}


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of a row."""

    kind: str
    """lasts | maybe | spared | ahead"""
    tone: str
    x: float
    """Per cent, as `width`."""
    width: float


@dataclass(frozen=True, slots=True)
class Row:
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
    blocks: tuple[Block, ...]
    end: float | None
    """Per cent: where it was settled."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A moment that is written along the upper edge."""

    x: float
    text: str
    anchor: str
    """start | middle | end: so that it stays within the edges."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """A timeline that can be written."""

    rows: tuple[Row, ...]
    hidden: int
    """Rows beyond MOST, which only the table tells of."""
    all: tuple[Row, ...]
    ticks: tuple[Tick, ...]
    now: Tick | None
    """None where nothing goes on any more."""
    start: datetime
    end: datetime


def drawn(picture: Picture, job: JobSummary, *, given_back: datetime | None, now: datetime) -> Drawing | None:
    """Return a job's timeline; None where nothing has begun. `given_back`: when the ending of its access began."""
    whole = Picture(lanes={f"{lane.kind} {lane.id}": lane for lane in _lanes(picture, job, given_back)}, last=picture.last)
    found = reach(whole, now=now)
    if found is None:
        return None
    rows = tuple(_row(lane, found) for lane in whole.lanes.values())
    here = _tick(found, found.now, "now") if found.now else None
    ticks = tuple(_tick(found, at, text) for at, text in marks(found.start, found.end))
    return Drawing(rows[:MOST], max(0, len(rows) - MOST), rows, ticks, here, found.start, found.end)


def marks(start: datetime, end: datetime) -> Iterator[tuple[datetime, str]]:
    """Yield round moments between two, at most TICKS, each with its text in UTC."""
    span = (end - start).total_seconds()
    step = next((step for step in STEPS if span / step <= TICKS), None) or -(-span // (TICKS * 86_400)) * 86_400
    form = "%H:%M:%S" if step < 60 else "%H:%M" if span <= 86_400 else "%m-%d %H:%M" if step < 86_400 else "%m-%d"
    at = -(-start.timestamp() // step) * step
    while at < end.timestamp():
        moment = datetime.fromtimestamp(at, UTC)
        yield moment, f"{moment:{form}}"
        at += step


def place(reached: Reach, at: datetime) -> float:
    """Return where a moment is, in per cent of what is shown; the nearer edge for what is beyond."""
    share = (at - reached.start) / (reached.end - reached.start)
    return round(100 * min(1.0, max(0.0, share)), 2)


def _lanes(picture: Picture, job: JobSummary, given_back: datetime | None) -> Iterator[Lane]:
    """Yield the job's steps, then its requests and credentials as they began."""
    # One who never ran waited until the end.
    yield Lane("step", "waits", "Waits to start", job.created_at, "", settled=job.started_at or job.ended_at)
    if job.started_at:
        yield Lane("step", "runs", "Runs", job.started_at, "", settled=given_back or job.ended_at)
    if given_back:
        late = "overdue" if job.revocation.state is RevocationState.OVERDUE else ""
        yield Lane("step", "gives", "Gives access back", given_back, late, settled=job.revocation.confirmed_at)
    yield from sorted((lane for lane in picture.lanes.values() if lane.kind != "job"), key=lambda lane: lane.began)


def _row(lane: Lane, reached: Reach) -> Row:
    return Row(
        kind=lane.kind,
        id=lane.id,
        what=lane.what,
        state=STATES.get(lane.state, lane.state),
        began=lane.began,
        until=lane.until,
        settled=lane.settled,
        answers=tuple(lane.answers),
        blocks=tuple(_block(lane, part, reached) for part in parts(lane, now=reached.now or reached.end)),
        end=place(reached, lane.settled) if lane.settled else None,
    )


def _block(lane: Lane, part: Part, reached: Reach) -> Block:
    left = min(place(reached, part.since), 100 - THINNEST)
    right = max(place(reached, part.until), left + THINNEST)
    tone = TONES[lane.id if lane.kind == "step" else lane.kind]
    late = lane.state == "overdue" or (part.kind == "maybe" and lane.state == "doubted")
    return Block(part.kind, "bad" if late else tone, round(left, 2), round(right - left, 2))


def _tick(reached: Reach, at: datetime, text: str) -> Tick:
    x = place(reached, at)
    return Tick(x, text, "start" if x < NEAR else "end" if x > 100 - NEAR else "middle")


def lasted(row: Row, *, now: datetime) -> timedelta:
    """Return how long a row lasted, until now where it goes on."""
    return max(timedelta(), (row.settled or now) - row.began)
