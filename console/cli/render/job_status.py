"""Describes a running job in a few lines: its state, its requests and its credentials. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from console.cli.render.gantt import Paint, lane_icon, lane_label, lane_state_text
from console.presentation.terminal_text import clock, plain, truncate
from console.presentation.timeline_model import Timeline, TimelineRow


def job_status_lines(job: str, picture: Timeline, *, now: datetime, columns: int, paint: Paint = lambda text, _: text) -> Iterator[str]:
    """Yield a line for the job and one for each request and credential, at most `columns` wide."""
    own = picture.job_row
    state = own.state if own else "no entries yet"
    age = f", for {clock(((own.settled or now) - own.began).total_seconds())}" if own else ""
    yield paint(truncate(plain(f"{job}: {state}{age}"), columns), state)
    # Open lanes come first, because a small terminal cuts off the last lines.
    lanes = [lane for lane in picture.lanes.values() if lane.kind != "job"]
    for lane in sorted(lanes, key=lambda lane: lane.settled is not None):
        yield paint(truncate(f"  {lane_icon(lane)} {lane_label(lane)}: {_lane_status(lane, now)}", columns), lane.state)


def _lane_status(lane: TimelineRow, now: datetime) -> str:
    if lane.kind == "credential":
        issued = f"issued {clock((now - lane.began).total_seconds())} ago, " if lane.settled is None else ""
        return f"{issued}{lane_state_text(lane, now)}"
    claim = f"claimed by {lane.claim}" if lane.claim and lane.settled is None else ""
    needed = f"{lane.quorum} needed" if lane.quorum and lane.settled is None else ""
    return "; ".join(plain(part) for part in (lane_state_text(lane, now), needed, claim, *lane.answers) if part)
