"""What a job's ledger entries come to, for drawing: the job, its requests and its credentials, each from when until when. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from console.presentation.event_text import decision_text

Json = Mapping[str, Any]
MIN_TIMELINE_SPAN = timedelta(seconds=1)
"""No picture spans less."""


@dataclass(slots=True)
class TimelineRow:
    """One thing that begins, lasts and ends."""

    kind: str
    """job | request | credential"""
    id: str
    what: str
    began: datetime
    state: str
    until: datetime | None = None
    """When the tier's time is over, or the credential's."""
    ended: datetime | None = None
    """When somebody ended it; it is not seen to be dead for that."""
    settled: datetime | None = None
    """When it was over: decided, ended, or seen to be dead."""
    tier: int = 0
    quorum: int = 0
    claim: str = ""
    answers: list[str] = field(default_factory=list)
    """What people said to a request."""


@dataclass(frozen=True, slots=True)
class TimelinePart:
    """A stretch of a lane."""

    kind: Literal["lasts", "maybe", "spared", "ahead"]
    """lasts; maybe: not seen dead yet; spared: time that it did not use; ahead: it may still last so long"""
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class TimelineRange:
    """From when until when a picture is drawn."""

    start: datetime
    end: datetime
    now: datetime | None
    """None where nothing goes on any more."""


@dataclass(slots=True)
class Timeline:
    """A job as its entries so far tell it."""

    lanes: dict[str, TimelineRow] = field(default_factory=dict)
    """By kind and id, in the order in which they began."""
    last: datetime | None = None

    def add_entry(self, kind: str, at: str, data: Json) -> None:
        """Add an entry. One that this version does not know, or that says other than it should, changes nothing but the time."""
        moment = _time(at)
        if moment is None:
            return
        self.last = max(self.last, moment) if self.last else moment
        if kind in ENTRY_HANDLERS:
            try:
                ENTRY_HANDLERS[kind](self, moment, data)
            except (KeyError, TypeError, ValueError, AttributeError):
                return

    def rows_of(self, kind: str) -> list[TimelineRow]:
        """Return the lanes of a kind."""
        return [lane for lane in self.lanes.values() if lane.kind == kind]

    @property
    def job_row(self) -> TimelineRow | None:
        """The job's own lane, once its order was seen."""
        return next(iter(self.rows_of("job")), None)

    @property
    def is_open(self) -> bool:
        """Whether something of it goes on, as far as its entries tell. A request does not outlast its job."""
        return any(lane.settled is None for lane in self.lanes.values() if lane.kind != "request" or self.job_row is None)

    def row(self, kind: str, name: str) -> TimelineRow:
        """Return a lane. Raises KeyError where its beginning was not seen."""
        return self.lanes[f"{kind} {name}"]

    def add_row(self, row: TimelineRow) -> None:
        """Add a lane."""
        self.lanes[f"{row.kind} {row.id}"] = row


def build_timeline(entries: Iterable[Json]) -> Timeline:
    """Return what entries as the API shows them come to."""
    picture = Timeline()
    for entry in entries:
        picture.add_entry(entry["type"], entry["at"], entry["data"])
    return picture


def timeline_range(timeline: Timeline, *, now: datetime) -> TimelineRange | None:
    """Return how far a picture reaches; None where nothing has begun."""
    lanes = timeline.lanes.values()
    if not lanes:
        return None
    start = min(lane.began for lane in lanes)
    last = timeline.last or start
    if not timeline.is_open:
        return TimelineRange(start, max(last, start + MIN_TIMELINE_SPAN), None)
    # What is to come gets as much room as what was: a credential of an hour must not squeeze the first minute.
    now = max(now, last)
    ahead = [lane.until for lane in lanes if lane.until and lane.settled is None]
    return TimelineRange(start, max(now, min(max(ahead, default=now), now + (now - start))) + MIN_TIMELINE_SPAN, now)


def row_parts(row: TimelineRow, *, now: datetime) -> tuple[TimelinePart, ...]:
    """Return what a lane is made of, in order; `now` is the end of the picture where nothing goes on any more."""
    dead = row.settled or max(now, row.began)
    alive = min(at for at in (dead, row.ended, row.until if row.kind == "credential" else None) if at)
    found = [TimelinePart("lasts", row.began, max(alive, row.began)), TimelinePart("maybe", max(alive, row.began), dead)]
    if row.until and row.until > dead and row.kind == "credential":
        found.append(TimelinePart("spared" if row.settled else "ahead", dead, row.until))
    if row.until and row.settled is None and row.kind == "request":
        found.append(TimelinePart("ahead", dead, row.until))
    return tuple(part for part in found if part.until > part.since)


def _begin_job(timeline: Timeline, at: datetime, data: Json) -> None:
    timeline.add_row(TimelineRow("job", "", str(data["name"]), at, "pending"))


def _set_job_state(state: str | None = None, *, over: bool = False) -> Callable[[Timeline, datetime, Json], None]:
    def take(picture: Timeline, at: datetime, data: Json) -> None:
        lane = picture.row("job", "")
        if lane.settled is None:
            lane.state, lane.settled = state or str(data["state"]), at if over else None
        for one in picture.rows_of("request") if over else ():
            if one.settled is None:
                one.state, one.settled = "withdrawn", at

    return take


def _begin_request(timeline: Timeline, at: datetime, data: Json) -> None:
    timeline.add_row(TimelineRow("request", data["request"], f"{data['action']} {data['resource']}", at, "asked"))


def _apply_decision(timeline: Timeline, at: datetime, data: Json) -> None:
    lane, outcome, phase = timeline.row("request", data["request"]), data["outcome"], data["phase"]
    # As the ledger is folded (docs/reference/ledger.md): asked again before an issue only a denial changes a request, and at a renewal nothing does.
    if phase in {"start", "runtime"} or (phase in {"issue", "granted"} and outcome == "denied"):
        lane.state, lane.settled = ("waits", None) if outcome == "needs_approval" else (str(outcome), at)


def _open_approval(timeline: Timeline, _at: datetime, data: Json) -> None:
    lane = timeline.row("request", data["request"])
    lane.state, lane.settled, lane.until = "waits", None, _time(data["respond_by"])
    lane.tier, lane.quorum = int(data["tier"]), int(data["quorum"])


def _add_answer(timeline: Timeline, at: datetime, data: Json) -> None:
    lane = timeline.row("request", data["request"])
    lane.answers.append(f"{data['name']} {decision_text(data['decision']) if 'decision' in data else 'took it back'}")
    if data["verdict"] != "pending":
        lane.state, lane.settled = str(data["verdict"]), at


def _set_claim(timeline: Timeline, _at: datetime, data: Json) -> None:
    timeline.row("request", data["request"]).claim = str(data["name"]) if data["until"] else ""


def _end_request(state: str) -> Callable[[Timeline, datetime, Json], None]:
    def take(picture: Timeline, at: datetime, data: Json) -> None:
        lane = picture.row("request", data["request"])
        lane.state, lane.settled = state, at

    return take


def _begin_credential(state: str) -> Callable[[Timeline, datetime, Json], None]:
    def take(picture: Timeline, at: datetime, data: Json) -> None:
        lane = TimelineRow(
            "credential", data["credential"], f"{data['action']} {data['resource']}", at, state, until=_time(data["expires_at"])
        )
        picture.add_row(lane)

    return take


def _renew_credential(timeline: Timeline, _at: datetime, data: Json) -> None:
    timeline.row("credential", data["credential"]).until = _time(data["expires_at"])


def _end_credential(state: str) -> Callable[[Timeline, datetime, Json], None]:
    def take(picture: Timeline, at: datetime, data: Json) -> None:
        _end_row(picture.row("credential", data["credential"]), state, at)

    return take


def _settle_credential(state: str) -> Callable[[Timeline, datetime, Json], None]:
    def take(picture: Timeline, at: datetime, data: Json) -> None:
        lane = picture.row("credential", data["credential"])
        lane.state, lane.settled = state, at

    return take


def _mark_overdue(timeline: Timeline, at: datetime, _data: Json) -> None:
    for lane in timeline.rows_of("credential"):
        _end_row(lane, "overdue", at)


def _end_row(row: TimelineRow, state: str, at: datetime) -> None:
    # An attempt that is recorded late does not undo the proof.
    if row.settled is None:
        row.state, row.ended = state, row.ended or at


ENTRY_HANDLERS: dict[str, Callable[[Timeline, datetime, Json], None]] = {
    "job.submitted": _begin_job,
    "job.refused": _set_job_state("refused"),
    "job.started": _set_job_state("running"),
    "job.ended": _set_job_state(over=True),
    "access.requested": _begin_request,
    "access.decided": _apply_decision,
    "access.withdrawn": _end_request("withdrawn"),
    "approval.opened": _open_approval,
    "approval.escalated": _open_approval,
    "approval.decided": _add_answer,
    "approval.withdrawn": _add_answer,
    "approval.claimed": _set_claim,
    "approval.expired": _end_request("expired"),
    "credential.issued": _begin_credential("issued"),
    "credential.doubted": _begin_credential("doubted"),
    "credential.renewed": _renew_credential,
    "credential.revoked": _end_credential("revoked"),
    "credential.overdue": _end_credential("overdue"),
    "credential.confirmed": _settle_credential("confirmed"),
    "credential.expired": _settle_credential("expired"),
    "revocation.overdue": _mark_overdue,
}


def _time(text: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
