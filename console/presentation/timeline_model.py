"""What a job's ledger entries come to, for drawing: the job, its requests and its credentials, each from when until when. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from console.presentation.event_text import said

Json = Mapping[str, Any]
LEAST = timedelta(seconds=1)
"""No picture spans less."""


@dataclass(slots=True)
class Lane:
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
class Part:
    """A stretch of a lane."""

    kind: Literal["lasts", "maybe", "spared", "ahead"]
    """lasts; maybe: not seen dead yet; spared: time that it did not use; ahead: it may still last so long"""
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Reach:
    """From when until when a picture is drawn."""

    start: datetime
    end: datetime
    now: datetime | None
    """None where nothing goes on any more."""


@dataclass(slots=True)
class Picture:
    """A job as its entries so far tell it."""

    lanes: dict[str, Lane] = field(default_factory=dict)
    """By kind and id, in the order in which they began."""
    last: datetime | None = None

    def take(self, kind: str, at: str, data: Json) -> None:
        """Add an entry. One that this version does not know, or that says other than it should, changes nothing but the time."""
        moment = _time(at)
        if moment is None:
            return
        self.last = max(self.last, moment) if self.last else moment
        if kind in TAKEN:
            try:
                TAKEN[kind](self, moment, data)
            except (KeyError, TypeError, ValueError, AttributeError):
                return

    def of(self, kind: str) -> list[Lane]:
        """Return the lanes of a kind."""
        return [lane for lane in self.lanes.values() if lane.kind == kind]

    @property
    def job(self) -> Lane | None:
        """The job's own lane, once its order was seen."""
        return next(iter(self.of("job")), None)

    @property
    def open(self) -> bool:
        """Whether something of it goes on, as far as its entries tell. A request does not outlast its job."""
        return any(lane.settled is None for lane in self.lanes.values() if lane.kind != "request" or self.job is None)

    def lane(self, kind: str, name: str) -> Lane:
        """Return a lane. Raises KeyError where its beginning was not seen."""
        return self.lanes[f"{kind} {name}"]

    def begin(self, lane: Lane) -> None:
        """Add a lane."""
        self.lanes[f"{lane.kind} {lane.id}"] = lane


def pictured(entries: Iterable[Json]) -> Picture:
    """Return what entries as the API shows them come to."""
    picture = Picture()
    for entry in entries:
        picture.take(entry["type"], entry["at"], entry["data"])
    return picture


def reach(picture: Picture, *, now: datetime) -> Reach | None:
    """Return how far a picture reaches; None where nothing has begun."""
    lanes = picture.lanes.values()
    if not lanes:
        return None
    start = min(lane.began for lane in lanes)
    last = picture.last or start
    if not picture.open:
        return Reach(start, max(last, start + LEAST), None)
    # What is to come gets as much room as what was: a credential of an hour must not squeeze the first minute.
    now = max(now, last)
    ahead = [lane.until for lane in lanes if lane.until and lane.settled is None]
    return Reach(start, max(now, min(max(ahead, default=now), now + (now - start))) + LEAST, now)


def parts(lane: Lane, *, now: datetime) -> tuple[Part, ...]:
    """Return what a lane is made of, in order; `now` is the end of the picture where nothing goes on any more."""
    dead = lane.settled or max(now, lane.began)
    alive = min(at for at in (dead, lane.ended, lane.until if lane.kind == "credential" else None) if at)
    found = [Part("lasts", lane.began, max(alive, lane.began)), Part("maybe", max(alive, lane.began), dead)]
    if lane.until and lane.until > dead and lane.kind == "credential":
        found.append(Part("spared" if lane.settled else "ahead", dead, lane.until))
    if lane.until and lane.settled is None and lane.kind == "request":
        found.append(Part("ahead", dead, lane.until))
    return tuple(part for part in found if part.until > part.since)


def _submitted(picture: Picture, at: datetime, data: Json) -> None:
    picture.begin(Lane("job", "", str(data["name"]), at, "pending"))


def _job(state: str | None = None, *, over: bool = False) -> Callable[[Picture, datetime, Json], None]:
    def take(picture: Picture, at: datetime, data: Json) -> None:
        lane = picture.lane("job", "")
        if lane.settled is None:
            lane.state, lane.settled = state or str(data["state"]), at if over else None
        for one in picture.of("request") if over else ():
            if one.settled is None:
                one.state, one.settled = "withdrawn", at

    return take


def _requested(picture: Picture, at: datetime, data: Json) -> None:
    picture.begin(Lane("request", data["request"], f"{data['action']} {data['resource']}", at, "asked"))


def _weighed(picture: Picture, at: datetime, data: Json) -> None:
    lane, outcome, phase = picture.lane("request", data["request"]), data["outcome"], data["phase"]
    # As the ledger is folded (docs/reference/ledger.md): asked again before an issue only a denial changes a request, and at a renewal nothing does.
    if phase in {"start", "runtime"} or (phase in {"issue", "granted"} and outcome == "denied"):
        lane.state, lane.settled = ("waits", None) if outcome == "needs_approval" else (str(outcome), at)


def _opened(picture: Picture, _at: datetime, data: Json) -> None:
    lane = picture.lane("request", data["request"])
    lane.state, lane.settled, lane.until = "waits", None, _time(data["respond_by"])
    lane.tier, lane.quorum = int(data["tier"]), int(data["quorum"])


def _answered(picture: Picture, at: datetime, data: Json) -> None:
    lane = picture.lane("request", data["request"])
    lane.answers.append(f"{data['name']} {said(data['decision']) if 'decision' in data else 'took it back'}")
    if data["verdict"] != "pending":
        lane.state, lane.settled = str(data["verdict"]), at


def _claimed(picture: Picture, _at: datetime, data: Json) -> None:
    picture.lane("request", data["request"]).claim = str(data["name"]) if data["until"] else ""


def _over(state: str) -> Callable[[Picture, datetime, Json], None]:
    def take(picture: Picture, at: datetime, data: Json) -> None:
        lane = picture.lane("request", data["request"])
        lane.state, lane.settled = state, at

    return take


def _issued(state: str) -> Callable[[Picture, datetime, Json], None]:
    def take(picture: Picture, at: datetime, data: Json) -> None:
        lane = Lane("credential", data["credential"], f"{data['action']} {data['resource']}", at, state, until=_time(data["expires_at"]))
        picture.begin(lane)

    return take


def _renewed(picture: Picture, _at: datetime, data: Json) -> None:
    picture.lane("credential", data["credential"]).until = _time(data["expires_at"])


def _dying(state: str) -> Callable[[Picture, datetime, Json], None]:
    def take(picture: Picture, at: datetime, data: Json) -> None:
        _end(picture.lane("credential", data["credential"]), state, at)

    return take


def _dead(state: str) -> Callable[[Picture, datetime, Json], None]:
    def take(picture: Picture, at: datetime, data: Json) -> None:
        lane = picture.lane("credential", data["credential"])
        lane.state, lane.settled = state, at

    return take


def _overdue(picture: Picture, at: datetime, _data: Json) -> None:
    for lane in picture.of("credential"):
        _end(lane, "overdue", at)


def _end(lane: Lane, state: str, at: datetime) -> None:
    # An attempt that is recorded late does not undo the proof.
    if lane.settled is None:
        lane.state, lane.ended = state, lane.ended or at


TAKEN: dict[str, Callable[[Picture, datetime, Json], None]] = {
    "job.submitted": _submitted,
    "job.refused": _job("refused"),
    "job.started": _job("running"),
    "job.ended": _job(over=True),
    "access.requested": _requested,
    "access.decided": _weighed,
    "access.withdrawn": _over("withdrawn"),
    "approval.opened": _opened,
    "approval.escalated": _opened,
    "approval.decided": _answered,
    "approval.withdrawn": _answered,
    "approval.claimed": _claimed,
    "approval.expired": _over("expired"),
    "credential.issued": _issued("issued"),
    "credential.doubted": _issued("doubted"),
    "credential.renewed": _renewed,
    "credential.revoked": _dying("revoked"),
    "credential.overdue": _dying("overdue"),
    "credential.confirmed": _dead("confirmed"),
    "credential.expired": _dead("expired"),
    "revocation.overdue": _overdue,
}


def _time(text: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
