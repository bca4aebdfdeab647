"""Draws a job's timeline in text: a Gantt chart with rows for the job, its requests and its credentials, or a line for each row. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from console.presentation.status_badges import state_word
from console.presentation.terminal_text import clock, pad, plain, truncate, width
from console.presentation.timeline_model import Timeline, TimelineRow, row_parts, timeline_range

MIN_ONE_LINE_COLUMNS = 64
"""Width from which a row's name, bar and state fit on one line."""
MIN_STATE_COLUMNS = 24
"""Width that a row's state may need: enough for the longest state."""
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


def gantt_lines(timeline: Timeline, *, now: datetime, columns: int, paint: Paint) -> Iterator[str]:
    """Yield the lines of the chart, at most `columns` wide. Yield nothing if nothing has begun."""
    rows = sorted(timeline.rows.values(), key=lambda row: row.began)
    time_range = timeline_range(timeline, now=now)
    if not rows or not time_range:
        return
    name, word, bar = _column_widths(rows, now, columns)
    scale = Scale(time_range.start, time_range.end, bar, time_range.now)
    indent = " " * (columns - bar - (word + 1 if word else 0))
    yield from (truncate(f"{indent}{line}", columns) for line in _axis(scale))
    for row in rows:
        head, state = f"{row.began.astimezone(UTC):%H:%M:%S} {row_icon(row)}", row_state_text(row, now)
        if word:
            parts = head, pad(truncate(row_label(row), name), name), paint(_bar(row, scale), row.state)
            yield " ".join((*parts, paint(truncate(state, word), row.state)))
        else:
            # The name is truncated before the state, and colour codes, which take no columns, are added last.
            text = truncate(f"{head} {row_label(row)}", max(len(head), columns - width(state) - 2))
            room = columns - width(text) - 2
            yield f"{text}  {paint(truncate(state, room), row.state)}" if room > 0 else truncate(text, columns)
            yield paint(_bar(row, scale), row.state)
    line = LEGEND[0]
    for part in LEGEND[1:]:
        if width(line) + 2 + width(part) > columns:
            yield truncate(line, columns)
            line = part
        else:
            line = f"{line}  {part}"
    yield truncate(line, columns)


def job_status_lines(
    job: str, timeline: Timeline, *, now: datetime, columns: int, paint: Paint, groups: Mapping[str, str]
) -> Iterator[str]:
    """Yield a line for the job and one for each request and credential, at most `columns` wide. `groups`: who can decide, by request."""
    job_row = timeline.job_row
    state = job_row.state if job_row else ""
    word = state_word("job", state) if job_row else "no entries yet"
    age = f", for {clock(((job_row.settled or now) - job_row.began).total_seconds())}" if job_row else ""
    yield paint(truncate(plain(f"{job}: {word}{age}"), columns), state)
    # Open rows come first, because a small terminal cuts off the last lines.
    rows = [row for row in timeline.rows.values() if row.kind != "job"]
    for row in sorted(rows, key=lambda row: row.settled is not None):
        status, is_open = row_state_text(row, now), row.settled is None
        if row.kind == "credential":
            status = f"issued {clock((now - row.began).total_seconds())} ago, {status}" if is_open else status
        else:
            needed = f"{row.quorum} needed" if row.quorum and is_open else ""
            claim = f"claimed by {row.claim}" if row.claim and is_open else ""
            is_pending = is_open and row.state == "waits"
            who = f" for {named}" if (named := groups.get(str(row.id))) else ""
            waits = f"waits {clock((now - row.began).total_seconds())}{who}" if is_pending else ""
            status = "; ".join(plain(part) for part in (status, waits, needed, claim, *row.answers) if part)
        yield paint(truncate(f"  {row_icon(row)} {row_label(row)}: {status}", columns), row.state)


def row_icon(row: TimelineRow) -> str:
    return ICONS.get(row.state, "✘")


def row_label(row: TimelineRow) -> str:
    return plain({"job": "job ", "request": "asks ", "credential": "holds "}[row.kind] + row.what)


def row_state_text(row: TimelineRow, now: datetime) -> str:
    left = clock((row.until - now).total_seconds()) if row.until and row.until > now else ""
    match row.kind, row.state:
        case "request", "waits":
            return f"tier {row.tier}{f', {left} left' if left else ''}" if row.tier else "waits"
        case "credential", ("issued" | "doubted" | "residual") as state:
            before, after = EXPIRY_WORDS[state]
            return f"{before}, {left} left" if left else after
        case "credential", ("revoked" | "expired"):
            return f"{row.state}, not verified"
        case "credential", "confirmed":
            lived = ((row.settled or now) - row.began).total_seconds()
            return f"verified after {clock(lived)}" if lived >= 1 else "verified within 1s"
        case _:
            return plain(state_word(row.kind, row.state))


def _column_widths(rows: list[TimelineRow], now: datetime, columns: int) -> tuple[int, int, int]:
    """Return the columns of name, state and bar; 0 for the state if it is on the name's line."""
    names, words = max(width(row_label(row)) for row in rows), max(width(row_state_text(row, now)) for row in rows)
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


def _bar(row: TimelineRow, scale: Scale) -> str:
    cells = [" "] * scale.columns
    for part in row_parts(row, now=scale.now or scale.end):
        for column in range(max(0, scale.column(part.since)), min(len(cells), scale.column(part.until))):
            cells[column] = SIGNS[part.kind]
    _mark(cells, scale, row.began, SIGNS["lasts"])
    if scale.now:
        _mark(cells, scale, scale.now, "│")
    if row.settled:
        _mark(cells, scale, row.settled, row_icon(row))
    return "".join(cells)


def _mark(cells: list[str], scale: Scale, at: datetime, sign: str) -> None:
    if cells:
        cells[max(0, min(len(cells) - 1, scale.column(at)))] = sign
