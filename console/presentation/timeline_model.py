"""A job's timeline from its ledger entries: start and end of the job, its requests and its credentials. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from console.presentation.event_text import decision_text
from console.presentation.status_badges import shown_credential_state
from justenough.domain.ledger.events import time_done

Json = Mapping[str, Any]
MIN_TIMELINE_SPAN = timedelta(seconds=1)
"""The shortest range that is drawn."""


@dataclass(slots=True)
class TimelineRow:
    """The job, a request or a credential over time."""

    kind: str
    """job | request | credential"""
    id: str
    what: str
    began: datetime
    state: str
    revocable: str = ""
    """For a credential: now | on_expiry | never"""
    until: datetime | None = None
    """Deadline of the current tier, or expiry of the credential."""
    ended: datetime | None = None
    """When its revocation was attempted; that does not verify its end."""
    settled: datetime | None = None
    """When it was decided, ended, or verified as revoked."""
    tier: int = 0
    quorum: int = 0
    claim: str = ""
    answers: list[str] = field(default_factory=list)
    """Decisions on a request, as short texts."""


@dataclass(frozen=True, slots=True)
class TimelinePart:
    kind: Literal["lasts", "maybe", "spared", "ahead"]
    """lasts: active; maybe: end not verified; spared: unused time; ahead: remaining time"""
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class TimelineRange:
    """The time range that is drawn."""

    start: datetime
    end: datetime
    now: datetime | None
    """None if nothing is in progress."""


@dataclass(slots=True)
class Timeline:
    """A job's rows, built from its ledger entries so far."""

    rows: dict[str, TimelineRow] = field(default_factory=dict)
    """By kind and id, in order of start."""
    last: datetime | None = None

    def add_entry(self, kind: str, at: str, data: Json) -> None:
        """Add an entry. An entry of an unknown type, or with malformed data, only moves the time forward."""
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
        return [row for row in self.rows.values() if row.kind == kind]

    @property
    def job_row(self) -> TimelineRow | None:
        """The job's own row; None before job.submitted."""
        return next(iter(self.rows_of("job")), None)

    @property
    def is_open(self) -> bool:
        """Whether anything is in progress according to the entries. A request does not outlast its job."""
        return any(row.settled is None for row in self.rows.values() if row.kind != "request" or self.job_row is None)

    def row(self, kind: str, name: str) -> TimelineRow:
        """Return a row. Raises KeyError if its first entry is missing."""
        return self.rows[f"{kind} {name}"]

    def add_row(self, row: TimelineRow) -> None:
        self.rows[f"{row.kind} {row.id}"] = row


def build_timeline(entries: Iterable[Json]) -> Timeline:
    """Build a timeline from entries in the API's format."""
    timeline = Timeline()
    for entry in entries:
        timeline.add_entry(entry["type"], entry["at"], entry["data"])
    return timeline


def timeline_range(timeline: Timeline, *, now: datetime) -> TimelineRange | None:
    """Return the range to draw; None if nothing has started."""
    rows = timeline.rows.values()
    if not rows:
        return None
    start = min(row.began for row in rows)
    last = timeline.last or start
    if not timeline.is_open:
        return TimelineRange(start, max(last, start + MIN_TIMELINE_SPAN), None)
    # Draw at most as much future as past, so that a credential of an hour does not squeeze the first minute.
    now = max(now, last)
    ahead = [row.until for row in rows if row.until and row.settled is None]
    return TimelineRange(start, max(now, min(max(ahead, default=now), now + (now - start))) + MIN_TIMELINE_SPAN, now)


def row_parts(row: TimelineRow, *, now: datetime) -> tuple[TimelinePart, ...]:
    """Return the parts of a row in order. `now` is the end of the range if nothing is in progress."""
    dead = row.settled or max(now, row.began)
    alive = min(at for at in (dead, row.ended, row.until if row.kind == "credential" else None) if at)
    parts = [TimelinePart("lasts", row.began, max(alive, row.began)), TimelinePart("maybe", max(alive, row.began), dead)]
    if row.until and row.until > dead and row.kind == "credential":
        parts.append(TimelinePart("spared" if row.settled else "ahead", dead, row.until))
    if row.until and row.settled is None and row.kind == "request":
        parts.append(TimelinePart("ahead", dead, row.until))
    return tuple(part for part in parts if part.until > part.since)


Handler = Callable[[Timeline, datetime, Json], None]


def _begin_row(kind: Literal["job", "request", "credential"], state: str) -> Handler:
    def take(timeline: Timeline, at: datetime, data: Json) -> None:
        what = str(data["name"]) if kind == "job" else f"{data['action']} {data['resource']}"
        until = _time(data["expires_at"]) if kind == "credential" else None
        name, revocable = "" if kind == "job" else data[kind], str(data.get("revocable", "")) if kind == "credential" else ""
        timeline.add_row(TimelineRow(kind, name, what, at, state, revocable, until))

    return take


def _settle_row(kind: Literal["request", "credential"], state: str) -> Handler:
    def take(timeline: Timeline, at: datetime, data: Json) -> None:
        row = timeline.row(kind, data[kind])
        row.state, row.settled = shown_credential_state(state, row.revocable), time_done(data, at)

    return take


def _set_job_state(state: str | None = None, *, ended: bool = False) -> Handler:
    def take(timeline: Timeline, at: datetime, data: Json) -> None:
        job = timeline.row("job", "")
        if job.settled is None:
            job.state, job.settled = state or str(data["state"]), at if ended else None
        for request in timeline.rows_of("request") if ended else ():
            if request.settled is None:
                request.state, request.settled = "withdrawn", at

    return take


def _end_credentials(state: str) -> Handler:
    """Return a handler that marks the credential of an entry, or all credentials of the job, as ended but not verified."""

    def take(timeline: Timeline, at: datetime, data: Json) -> None:
        at = time_done(data, at)
        for row in [timeline.row("credential", data["credential"])] if "credential" in data else timeline.rows_of("credential"):
            # An attempt that is recorded late must not undo the proof.
            if row.settled is None:
                row.state, row.ended = state, row.ended or at

    return take


def _apply_decision(timeline: Timeline, at: datetime, data: Json) -> None:
    row, outcome, phase = timeline.row("request", data["request"]), data["outcome"], data["phase"]
    # As in the read model (docs/reference/ledger.md): an evaluation before an issue changes a request only if it denies; one at a renewal never does.
    if phase in {"start", "runtime"} or (phase in {"issue", "granted"} and outcome == "denied"):
        row.state, row.settled = ("waits", None) if outcome == "needs_approval" else (str(outcome), at)


def _open_approval(timeline: Timeline, at: datetime, data: Json) -> None:
    row = timeline.row("request", data["request"])
    row.state, row.settled, row.until = "waits", None, _time(data["respond_by"])
    row.tier, row.quorum = int(data["tier"]), int(data["quorum"])
    job = timeline.row("job", "")
    # A running job may request more; it keeps running meanwhile.
    if job.state == "pending":
        job.state = "awaiting_approval"
    if data.get("verdict"):
        row.state, row.settled = str(data["verdict"]), at


def _add_answer(timeline: Timeline, at: datetime, data: Json) -> None:
    row = timeline.row("request", data["request"])
    row.answers.append(f"{data['name']} {decision_text(data['decision']) if 'decision' in data else 'withdrew'}")
    if data["verdict"] != "pending":
        row.state, row.settled = str(data["verdict"]), at


def _set_claim(timeline: Timeline, _at: datetime, data: Json) -> None:
    timeline.row("request", data["request"]).claim = str(data["name"]) if data["until"] else ""


def _renew_credential(timeline: Timeline, _at: datetime, data: Json) -> None:
    timeline.row("credential", data["credential"]).until = _time(data["expires_at"])


def _leave_credential(timeline: Timeline, at: datetime, data: Json) -> None:
    """Mark a credential as still valid.

    It is open until it expires; a credential that its owner must change is closed, because nothing more will be known of it.
    """
    row = timeline.row("credential", data["credential"])
    row.state, row.ended, row.until = "residual", None, _time(data["until"])
    row.settled = None if row.until else at


ENTRY_HANDLERS: dict[str, Handler] = {
    "job.submitted": _begin_row("job", "pending"),
    "job.refused": _set_job_state("refused"),
    "job.started": _set_job_state("running"),
    "job.ended": _set_job_state(ended=True),
    "revocation.started": _set_job_state("revoking"),
    "access.requested": _begin_row("request", "asked"),
    "access.decided": _apply_decision,
    "access.withdrawn": _settle_row("request", "withdrawn"),
    "approval.opened": _open_approval,
    "approval.escalated": _open_approval,
    "approval.decided": _add_answer,
    "approval.withdrawn": _add_answer,
    "approval.claimed": _set_claim,
    "approval.expired": _settle_row("request", "expired"),
    "credential.issued": _begin_row("credential", "issued"),
    "credential.doubted": _begin_row("credential", "doubted"),
    "credential.renewed": _renew_credential,
    "credential.revoked": _end_credentials("revoked"),
    "credential.overdue": _end_credentials("overdue"),
    "credential.confirmed": _settle_row("credential", "confirmed"),
    "credential.residual": _leave_credential,
    "credential.expired": _settle_row("credential", "expired"),
    "revocation.overdue": _end_credentials("overdue"),
}


def _time(text: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
