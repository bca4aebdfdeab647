"""Right-sizing: what past runs of a job asked for, were granted and really used, and what they would have needed. No I/O, no clock.

A rule only ever takes away: an item that is kept asks for what it asked before, or for less. Where nothing is known, nothing changes.
Items of different revisions of a spec are the same item where resource and action are the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from statistics import median
from typing import Any

from justenough.domain.core.base_model import Message
from justenough.domain.core.units import duration_text, parse_duration
from justenough.domain.jobs.states import Action
from justenough.domain.rightsizing.usage import AccessKey, PastRequest, PastRun, access_key_of, is_delivered

MIN_RUNS = 3
"""Runs from which on figures mean something."""
TTL_HEADROOM = 1.5
"""How much longer than its longest use an access may last."""
ACTIONS_BY_BREADTH = tuple(Action)
"""Actions from the narrowest to the broadest."""
READABLE_TTLS_S = tuple(60 * minutes for minutes in (1, 2, 3, 5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 240, 360, 480, 720, 1440))
"""Seconds that people write as a ttl; nothing is shortened below the first."""


class What(StrEnum):
    DROP = "drop"
    ACTION = "action"
    TTL = "ttl"


class Change(Message):
    """One thing that an access item would need less of."""

    what: What
    to: str
    """An action, or a duration; empty for what is dropped."""
    why: str


class Sized(Message):
    """One access item of the newest spec: what was granted against what was used. Counts are of requests."""

    resource: str
    action: str
    runs: int
    """Runs whose spec asked for it."""
    asked: int
    granted: int
    refused: int
    issued: int
    used: int | None
    """Those whose use was seen; None where use is not observable."""
    asked_ttl: int
    """Seconds, as the newest spec says."""
    granted_ttl: int | None
    """Seconds, the longest that was granted."""
    used_p50: float | None
    """Seconds from issue to end."""
    used_max: float | None
    changes: tuple[Change, ...] = ()

    def change(self, what: What) -> Change | None:
        """Return what would change in this, None for nothing."""
        return next((change for change in self.changes if change.what is what), None)


class Sizing(Message):
    """A job's right size, by its past runs."""

    name: str
    newest: str
    """Its newest run's job id."""
    newest_at: datetime
    runs: int
    """Past runs that were looked at."""
    ran: int
    """Those whose process was started."""
    enough: bool
    """Whether there were enough runs to go by."""
    asked: int
    granted: int
    issued: int
    used: int | None
    """Requests whose use was seen; None where no use is observable."""
    spec: dict[str, Any]
    """The newest run's spec, as it was signed."""
    access: tuple[Sized, ...]
    """Its access items, in their order."""


class SizingSummary(Message):
    """A job's right size in figures, for a list."""

    name: str
    newest: str
    newest_at: datetime
    runs: int
    ran: int
    enough: bool
    asked: int
    granted: int
    issued: int
    used: int | None
    dropped: int
    """Access items that past runs did not need."""
    narrowed: int
    """Those of which they needed less."""


@dataclass(frozen=True)
class _AccessEvidence:
    """What the runs tell of one item."""

    key: AccessKey
    runs: tuple[PastRun, ...]
    asks: tuple[PastRequest, ...]
    observable: bool

    @classmethod
    def of(cls, item: Mapping[str, Any], runs: Sequence[PastRun]) -> _AccessEvidence:
        key = access_key_of(item)
        theirs = [(run, [ask for ask in run.asks if _is_about(ask, key)]) for run in runs]
        concerned = tuple(run for run, asks in theirs if asks or key in run.offered)
        asks = tuple(ask for _, asks in theirs for ask in asks)
        return cls(key, concerned, asks, _is_use_observable(key.resource, runs, delivered=is_delivered(item)))

    @cached_property
    def granted_asks(self) -> tuple[PastRequest, ...]:
        return tuple(ask for ask in self.asks if ask.granted)

    @cached_property
    def issued_asks(self) -> tuple[PastRequest, ...]:
        return tuple(ask for ask in self.asks if ask.uses)

    @cached_property
    def refused_asks(self) -> tuple[PastRequest, ...]:
        return tuple(ask for ask in self.asks if ask.refused)

    @cached_property
    def used_count(self) -> int | None:
        return sum(any(use.seen for use in ask.uses) for ask in self.asks) if self.observable else None

    @cached_property
    def seconds(self) -> tuple[float, ...]:
        return tuple(ask.seconds for ask in self.issued_asks if ask.seconds is not None)


def build_sizing(name: str, spec: dict[str, Any], runs: Sequence[PastRun], *, newest: str, newest_at: datetime) -> Sizing:
    """Return a job's right size. `spec`: the newest run's raw spec; `runs`: past ones, over by now, that the rules may go by."""
    asks = [ask for run in runs for ask in run.asks]
    anything = any(use.seen for ask in asks for use in ask.uses)
    return Sizing(
        name=name,
        newest=newest,
        newest_at=newest_at,
        runs=len(runs),
        ran=sum(run.ran for run in runs),
        enough=len(runs) >= MIN_RUNS,
        asked=len(asks),
        granted=sum(ask.granted for ask in asks),
        issued=sum(bool(ask.uses) for ask in asks),
        used=sum(any(use.seen for use in ask.uses) for ask in asks) if anything else None,
        spec=spec,
        access=tuple(_size_access(item, runs) for item in spec.get("access") or ()),
    )


def build_summary(sizing: Sizing) -> SizingSummary:
    """Return the figures alone."""
    dropped = sum(item.change(What.DROP) is not None for item in sizing.access)
    return SizingSummary(
        **{name: getattr(sizing, name) for name in SizingSummary.model_fields if name in Sizing.model_fields},
        dropped=dropped,
        narrowed=sum(bool(item.changes) for item in sizing.access) - dropped,
    )


def next_readable_ttl(seconds: float) -> int:
    """Return the next longer duration, in seconds, that people would write."""
    return next((step for step in READABLE_TTLS_S if step >= seconds), math.ceil(seconds))


def format_seconds(seconds: float) -> str:
    """Return a measured time as text: `0.4 s`, `52 s`, `12.5 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{math.ceil(seconds)} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _is_about(ask: PastRequest, key: AccessKey) -> bool:
    """Whether what was asked for is this item, or was narrowed to no more: a tightened spec is judged by the runs that it came from."""
    asked, given, this = (ACTIONS_BY_BREADTH.index(Action(action)) for action in (ask.key.action, ask.resulting_action, key.action))
    return ask.key == key or (ask.key.resource == key.resource and asked > this >= given)


def _size_access(item: Mapping[str, Any], runs: Sequence[PastRun]) -> Sized:
    seen = _AccessEvidence.of(item, runs)
    ttl = parse_duration(item["ttl"])
    drop = _drop_change(seen)
    return Sized(
        resource=seen.key.resource,
        action=seen.key.action,
        runs=len(seen.runs),
        asked=len(seen.asks),
        granted=len(seen.granted_asks),
        refused=len(seen.refused_asks),
        issued=len(seen.issued_asks),
        used=seen.used_count,
        asked_ttl=ttl,
        granted_ttl=max((_granted_ttl(ask) for ask in seen.granted_asks), default=None),
        used_p50=median(seen.seconds) if seen.seconds else None,
        used_max=max(seen.seconds, default=None),
        changes=(drop,) if drop else tuple(_narrowing_changes(seen, ttl)),
    )


def _drop_change(evidence: _AccessEvidence) -> Change | None:
    if evidence.issued_asks:
        unused = evidence.observable and not evidence.used_count
        return Change(what=What.DROP, to="", why=f"issued {_times_text(len(evidence.issued_asks))}, never used") if unused else None
    always = bool(evidence.runs) and len(evidence.refused_asks) == len(evidence.asks) >= len(evidence.runs)
    # Where no process was started, it may be another item's denial that kept this one from being issued.
    if always or any(run.ran for run in evidence.runs):
        refused = f", refused {_times_text(len(evidence.refused_asks))}" if evidence.refused_asks else ""
        return Change(
            what=What.DROP,
            to="",
            why=f"never issued in {_runs_text(len(evidence.runs))} (asked for {_times_text(len(evidence.asks))}{refused})",
        )
    return None


def _narrowing_changes(evidence: _AccessEvidence, asked: int) -> Iterator[Change]:
    broadest = max(
        (ACTIONS_BY_BREADTH.index(Action(ask.resulting_action)) for ask in evidence.granted_asks), default=len(ACTIONS_BY_BREADTH)
    )
    if broadest < ACTIONS_BY_BREADTH.index(Action(evidence.key.action)):
        action, times = ACTIONS_BY_BREADTH[broadest].value, _times_text(len(evidence.granted_asks))
        yield Change(what=What.ACTION, to=action, why=f"was {evidence.key.action}: granted {times}, each time {action} at most")
    ttl, why = min(_sufficient_ttls(evidence), default=(asked, ""))
    if ttl < asked:
        yield Change(what=What.TTL, to=duration_text(ttl), why=f"was {duration_text(asked)}: {why}")


def _sufficient_ttls(evidence: _AccessEvidence) -> Iterator[tuple[int, str]]:
    """Yield the ttls that would have been enough, each with why."""
    if evidence.granted_asks and all(_granted_ttl(ask) < ask.ttl for ask in evidence.granted_asks):
        longest = max(map(_granted_ttl, evidence.granted_asks))
        yield longest, f"granted {_times_text(len(evidence.granted_asks))}, each time {duration_text(longest)} at most"
    # One use of unknown length may have been the longest.
    if evidence.seconds and len(evidence.seconds) == len(evidence.issued_asks):
        longest_use, usual = format_seconds(max(evidence.seconds)), format_seconds(median(evidence.seconds))
        needed = next_readable_ttl(TTL_HEADROOM * max(evidence.seconds))
        yield needed, f"used {_times_text(len(evidence.seconds))}, {longest_use} at the longest (p50 {usual})"


def _is_use_observable(resource: str, runs: Sequence[PastRun], *, delivered: bool) -> bool:
    # Who sees the broker's use of a credential sees nothing of one that the process holds itself; each way is observable for itself.
    uses = (use for run in runs for ask in run.asks if ask.key.resource == resource for use in ask.uses)
    return any(use.seen for use in uses if use.delivered is delivered)


def _granted_ttl(ask: PastRequest) -> int:
    return ask.ttl if ask.granted_ttl is None else min(ask.granted_ttl, ask.ttl)


def _times_text(count: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")


def _runs_text(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"
