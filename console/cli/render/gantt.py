"""Draws a job's timeline in text: a Gantt chart with lanes for the job, its requests and its credentials, or a line for each lane. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType

from console.presentation.status_badges import state_word
from console.presentation.terminal_text import clock, pad, plain, truncate, width
from console.presentation.timeline_model import Timeline, TimelineRow, row_parts, timeline_range

MIN_ONE_LINE_COLUMNS = 64
"""Width from which a lane's name, bar and state fit on one line."""
MIN_STATE_COLUMNS = 24
"""Width that a lane's state may need: enough for the longest state."""
ICONS = {"confirmed": "✔", "succeeded": "✔", "allowed": "✔", "approved": "✔", "issued": "●", "running": "●"}
ICONS |= dict.fromkeys(("waits", "asked", "pending", "revoked", "revoking", "doubted", "residual"), "…") | {"unheld": "–"}
"""Any other state: ✘. Colours carry no information that icon and text lack."""
SIGNS = {"lasts": "█", "maybe": "▒", "spared": "·", "ahead": "┄"}
"""The characters of a bar, by the kind of part."""
LEGEND = ("█ active", "▒ not verified as revoked", "· unused time", "┄ remaining time")

EXPIRY_WORDS = {
    "issued": ("active", "past its expiry"),
    "doubted": ("may be active", "may have been active"),
    "residual": ("valid", "still valid"),
}
"""By state: the words for a credential before its expiry, and the words for it after its expiry or without one."""

NO_GROUPS: Mapping[str, str] = MappingProxyType({})
Paint = Callable[[str, str], str]
"""Colours a text by a state."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps times to columns of a bar."""

    start: datetime
    end: datetime
    columns: int
    now: datetime | None
    """The current time; None once the job has ended."""

    def column(self, at: datetime) -> int:
        """Return the column of a time; -1 before the start, `columns` after the end."""
        share = (at - self.start) / (self.end - self.start)
        return max(-1, min(self.columns, int(share * self.columns) if share >= 0 else -1))


def gantt_lines(picture: Timeline, *, now: datetime, columns: int, paint: Paint = lambda text, _: text) -> Iterator[str]:
    """Yield the lines of the chart, at most `columns` wide. Yield nothing if nothing has begun."""
    lanes = sorted(picture.lanes.values(), key=lambda lane: lane.began)
    time_range = timeline_range(picture, now=now)
    if not lanes or not time_range:
        return
    name, word, bar = _column_widths(lanes, now, columns)
    scale = Scale(time_range.start, time_range.end, bar, time_range.now)
    indent = " " * (columns - bar - (word + 1 if word else 0))
    yield from (truncate(f"{indent}{line}", columns) for line in _axis(scale))
    for lane in lanes:
        head, state = f"{lane.began.astimezone(UTC):%H:%M:%S} {lane_icon(lane)}", lane_state_text(lane, now)
        if word:
            parts = head, pad(truncate(lane_label(lane), name), name), paint(_bar(lane, scale), lane.state)
            yield " ".join((*parts, paint(truncate(state, word), lane.state)))
        else:
            # The name is truncated before the state, and colour codes, which take no columns, are added last.
            text = truncate(f"{head} {lane_label(lane)}", max(len(head), columns - width(state) - 2))
            room = columns - width(text) - 2
            yield f"{text}  {paint(truncate(state, room), lane.state)}" if room > 0 else truncate(text, columns)
            yield paint(_bar(lane, scale), lane.state)
    line = LEGEND[0]
    for part in LEGEND[1:]:
        if width(line) + 2 + width(part) > columns:
            yield truncate(line, columns)
            line = part
        else:
            line = f"{line}  {part}"
    yield truncate(line, columns)


def job_status_lines(
    job: str, picture: Timeline, *, now: datetime, columns: int, paint: Paint = lambda text, _: text, groups: Mapping[str, str] = NO_GROUPS
) -> Iterator[str]:
    """Yield a line for the job and one for each request and credential, at most `columns` wide. `groups`: who can decide, by request."""
    row = picture.job_row
    state = row.state if row else ""
    word = state_word("job", state) if row else "no entries yet"
    age = f", for {clock(((row.settled or now) - row.began).total_seconds())}" if row else ""
    yield paint(truncate(plain(f"{job}: {word}{age}"), columns), state)
    # Open lanes come first, because a small terminal cuts off the last lines.
    lanes = [lane for lane in picture.lanes.values() if lane.kind != "job"]
    for lane in sorted(lanes, key=lambda lane: lane.settled is not None):
        status, is_open = lane_state_text(lane, now), lane.settled is None
        if lane.kind == "credential":
            status = f"issued {clock((now - lane.began).total_seconds())} ago, {status}" if is_open else status
        else:
            needed = f"{lane.quorum} needed" if lane.quorum and is_open else ""
            claim = f"claimed by {lane.claim}" if lane.claim and is_open else ""
            is_pending = is_open and lane.state == "waits"
            who = f" for {named}" if (named := groups.get(str(lane.id))) else ""
            waits = f"waits {clock((now - lane.began).total_seconds())}{who}" if is_pending else ""
            status = "; ".join(plain(part) for part in (status, waits, needed, claim, *lane.answers) if part)
        yield paint(truncate(f"  {lane_icon(lane)} {lane_label(lane)}: {status}", columns), lane.state)


def lane_icon(lane: TimelineRow) -> str:
    return ICONS.get(lane.state, "✘")


def lane_label(lane: TimelineRow) -> str:
    """Return the name of a lane as the chart shows it."""
    return plain({"job": "job ", "request": "asks ", "credential": "holds "}[lane.kind] + lane.what)


def lane_state_text(lane: TimelineRow, now: datetime) -> str:
    left = clock((lane.until - now).total_seconds()) if lane.until and lane.until > now else ""
    match lane.kind, lane.state:
        case "request", "waits":
            return f"tier {lane.tier}{f', {left} left' if left else ''}" if lane.tier else "waits"
        case "credential", ("issued" | "doubted" | "residual") as state:
            before, after = EXPIRY_WORDS[state]
            return f"{before}, {left} left" if left else after
        case "credential", ("revoked" | "expired"):
            return f"{lane.state}, not verified"
        case "credential", "confirmed":
            lived = ((lane.settled or now) - lane.began).total_seconds()
            return f"verified after {clock(lived)}" if lived >= 1 else "verified within 1s"
        case _:
            return plain(state_word(lane.kind, lane.state))


def _column_widths(lanes: list[TimelineRow], now: datetime, columns: int) -> tuple[int, int, int]:
    """Return the columns of name, state and bar; 0 for the state if it is on the name's line."""
    names, words = max(width(lane_label(lane)) for lane in lanes), max(width(lane_state_text(lane, now)) for lane in lanes)
    if columns < MIN_ONE_LINE_COLUMNS:
        return max(1, min(names, columns - 12)), 0, columns
    name, word = min(names, columns * 3 // 10), min(words, max(MIN_STATE_COLUMNS, columns // 4))
    return name, word, columns - name - word - 13


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
        for column in range(max(0, scale.column(part.since)), min(len(cells), scale.column(part.until))):
            cells[column] = SIGNS[part.kind]
    _mark(cells, scale, lane.began, SIGNS["lasts"])
    if scale.now:
        _mark(cells, scale, scale.now, "│")
    if lane.settled:
        _mark(cells, scale, lane.settled, lane_icon(lane))
    return "".join(cells)


def _mark(cells: list[str], scale: Scale, at: datetime, sign: str) -> None:
    if cells:
        cells[max(0, min(len(cells) - 1, scale.column(at)))] = sign
