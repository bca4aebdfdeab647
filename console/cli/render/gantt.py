"""A job's timeline as lanes to scale: the job, its requests and its credentials, in the columns that there are. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from console.presentation.terminal_text import clock, pad, plain, truncate, width
from console.presentation.timeline_model import Timeline, TimelineRow, row_parts, timeline_range

MIN_ONE_LINE_COLUMNS = 64
"""Columns from which on a lane's name, bar and state stand on one line."""
ICONS = {"confirmed": "✔", "succeeded": "✔", "allowed": "✔", "approved": "✔", "issued": "●", "running": "●"}
ICONS |= dict.fromkeys(("waits", "asked", "pending", "revoked", "revoking", "doubted"), "…")
"""Of any other state: ✘. Colours tell no more than icon and word do."""
LIVES, MAYBE, SPARED, TO_COME = "█", "▒", "·", "┄"
SIGNS = {"lasts": LIVES, "maybe": MAYBE, "spared": SPARED, "ahead": TO_COME}
LEGEND = (f"{LIVES} lasts", f"{MAYBE} not seen dead yet", f"{SPARED} time it did not use", f"{TO_COME} may still last")

Paint = Callable[[str, str], str]
"""Returns a text in the colour of a state."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Which time each column of a bar stands for."""

    start: datetime
    end: datetime
    columns: int
    now: datetime | None
    """None where nothing goes on any more."""

    def column(self, at: datetime) -> int:
        """Return the column of a moment; beyond the ends, the one beside them."""
        share = (at - self.start) / (self.end - self.start)
        return max(-1, min(self.columns, int(share * self.columns) if share >= 0 else -1))


def gantt_lines(picture: Timeline, *, now: datetime, columns: int, paint: Paint = lambda text, _: text) -> Iterator[str]:
    """Yield the lines of a picture, none wider than `columns`; nothing where nothing has begun."""
    lanes = sorted(picture.lanes.values(), key=lambda lane: lane.began)
    if not lanes:
        return
    name, word, bar = _column_widths(lanes, now, columns)
    scale = _build_scale(picture, now=now, columns=bar)
    if scale is None:
        return
    indent = " " * (columns - bar - (word + 1 if word else 0))
    yield from (truncate(f"{indent}{line}", columns) for line in _axis(scale))
    for lane in lanes:
        head, said = f"{lane.began.astimezone(UTC):%H:%M:%S} {lane_icon(lane)}", lane_state_text(lane, now)
        if word:
            parts = head, pad(truncate(lane_label(lane), name), name), paint(_bar(lane, scale), lane.state)
            yield " ".join((*parts, paint(truncate(said, word), lane.state)))
        else:
            yield _lane_heading(head, lane, said, columns=columns, paint=paint)
            yield paint(_bar(lane, scale), lane.state)
    yield from _legend(columns)


def lane_icon(lane: TimelineRow) -> str:
    """Return a lane's state as one sign."""
    return ICONS.get(lane.state, "✘")


def lane_label(lane: TimelineRow) -> str:
    """Return what a lane is, for people."""
    return plain({"job": "job ", "request": "asks ", "credential": "holds "}[lane.kind] + lane.what)


def lane_state_text(lane: TimelineRow, now: datetime) -> str:
    """Return a lane's state for people."""
    left = clock((lane.until - now).total_seconds()) if lane.until and lane.until > now else ""
    match lane.kind, lane.state:
        case "request", "waits":
            return f"tier {lane.tier}{f', {left} left' if left else ''}" if lane.tier else "waits"
        case "credential", "issued":
            return f"alive, {left} left" if left else "past its end"
        case "credential", "doubted":
            return f"may live, {left} left" if left else "may have lived"
        case "credential", ("revoked" | "expired"):
            return f"{lane.state}, unproven"
        case "credential", "confirmed":
            lived = ((lane.settled or now) - lane.began).total_seconds()
            return f"dead after {clock(lived)}" if lived >= 1 else "dead within 1s"
        case _:
            return plain(lane.state)


def _lane_heading(head: str, lane: TimelineRow, state_text: str, *, columns: int, paint: Paint) -> str:
    """Return a lane's line above its bar. The state is cut last; a colour's code, which takes no column, is added after the cutting."""
    text = truncate(f"{head} {lane_label(lane)}", max(len(head), columns - width(state_text) - 2))
    room = columns - width(text) - 2
    return f"{text}  {paint(truncate(state_text, room), lane.state)}" if room > 0 else truncate(text, columns)


def _legend(columns: int) -> Iterator[str]:
    line = ""
    for part in LEGEND:
        if line and width(line) + 2 + width(part) > columns:
            yield truncate(line, columns)
            line = ""
        line = f"{line}  {part}" if line else part
    yield truncate(line, columns)


def _column_widths(lanes: list[TimelineRow], now: datetime, columns: int) -> tuple[int, int, int]:
    """Return how many columns name, state and bar have; no columns for the state where it stands on the name's line."""
    names, words = max(width(lane_label(lane)) for lane in lanes), max(width(lane_state_text(lane, now)) for lane in lanes)
    if columns < MIN_ONE_LINE_COLUMNS:
        return max(1, min(names, columns - 12)), 0, columns
    name, word = min(names, columns * 3 // 10), min(words, max(20, columns // 4))
    return name, word, columns - name - word - 13


def _build_scale(picture: Timeline, *, now: datetime, columns: int) -> Scale | None:
    found = timeline_range(picture, now=now)
    return Scale(found.start, found.end, columns, found.now) if found else None


def _axis(scale: Scale) -> Iterator[str]:
    start, end = (f"{at.astimezone(UTC):%H:%M:%S}" for at in (scale.start, scale.end))
    day = f"{scale.start.astimezone(UTC):%Y-%m-%d} UTC"
    yield day
    line = pad(start, scale.columns - 8) + end if scale.columns >= 20 else start
    if scale.now is None:
        yield line
        return
    at = min(scale.column(scale.now), scale.columns - 1)
    place = min(max(at - 1, 0), max(scale.columns - 3, 0))
    if scale.columns >= 20 and not line[max(0, place - 1) : place + 4].strip():
        yield f"{line[:place]}now{line[place + 3 :]}"
    else:
        yield line
        yield f"{' ' * place}now"


def _bar(lane: TimelineRow, scale: Scale) -> str:
    cells = [" "] * scale.columns
    for part in row_parts(lane, now=scale.now or scale.end):
        _fill(cells, scale, part.since, part.until, SIGNS[part.kind])
    _mark(cells, scale, lane.began, LIVES)
    if scale.now:
        _mark(cells, scale, scale.now, "│")
    if lane.settled:
        _mark(cells, scale, lane.settled, lane_icon(lane))
    return "".join(cells)


def _fill(cells: list[str], scale: Scale, since: datetime, until: datetime, sign: str) -> None:
    for column in range(max(0, scale.column(since)), min(len(cells), scale.column(until))):
        cells[column] = sign


def _mark(cells: list[str], scale: Scale, at: datetime, sign: str) -> None:
    if cells:
        cells[max(0, min(len(cells) - 1, scale.column(at)))] = sign
