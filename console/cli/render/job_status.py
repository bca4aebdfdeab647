"""Describes a running job in a few lines: its state, its requests and its credentials. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from types import MappingProxyType

from console.cli.render.gantt import Paint, lane_icon, lane_label, lane_state_text
from console.presentation.status_badges import state_word
from console.presentation.terminal_text import clock, plain, truncate
from console.presentation.timeline_model import Timeline

NO_GROUPS: Mapping[str, str] = MappingProxyType({})


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
