"""Right-sizing: compares what past runs of a job requested, were granted and used, and proposes less access. No I/O, no clock.

A proposal never adds access: it drops an item, narrows it or leaves it alone. Without evidence it changes nothing.
Items of different revisions of a spec are the same item if resource and action are the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from itertools import chain
from statistics import median
from typing import Any

from justenough.domain.core.base_model import Message
from justenough.domain.core.units import duration_text, parse_duration
from justenough.domain.jobs.states import Action
from justenough.domain.rightsizing.usage import AccessKey, PastRequest, PastRun, access_key_of, is_delivered

MIN_RUNS = 3
"""Fewer runs than this are not enough evidence."""
TTL_HEADROOM = 1.5
"""The ratio of the proposed ttl to the longest use."""
READABLE_TTLS_S = tuple(60 * minutes for minutes in (1, 2, 3, 5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 240, 360, 480, 720, 1440))
"""Round ttls in seconds, as people write them; the shortest one is the minimum of a proposal."""


class What(StrEnum):
    DROP = "drop"
    ACTION = "action"
    TTL = "ttl"


class Change(Message):
    """A proposed change of an access item."""

    what: What
    to: str
    """An action or a duration; empty if the item is dropped."""
    why: str


class Sized(Message):
    """An access item of the newest spec, with the grants and use of past runs. Counts are numbers of requests."""

    resource: str
    action: str
    runs: int
    """Runs whose spec requested it."""
    asked: int
    granted: int
    refused: int
    issued: int
    used: int | None
    """Requests whose use was observed; None if use is not observable."""
    asked_ttl: int
    """Seconds, as in the newest spec."""
    granted_ttl: int | None
    """Seconds: the longest granted ttl."""
    used_p50: float | None
    """Seconds from issue to the credential's end."""
    used_max: float | None
    changes: tuple[Change, ...] = ()

    def change(self, what: What) -> Change | None:
        """Return the proposed change of this kind; None if there is none."""
        return next((change for change in self.changes if change.what is what), None)


class SizingFigures(Message):
    """The totals of a job's past runs."""

    name: str
    newest: str
    """The job id of the newest run."""
    newest_at: datetime
    runs: int
    """Past runs in the analysis."""
    ran: int
    """Runs whose process was started."""
    enough: bool
    """Whether there were enough runs to propose changes."""
    asked: int
    granted: int
    issued: int
    used: int | None
    """Requests whose use was observed; None if no use is observable."""


class Sizing(SizingFigures):
    """The right size of a job according to its past runs."""

    spec: dict[str, Any]
    """The newest run's spec, as it was signed."""
    access: tuple[Sized, ...]
    """Its access items, in their order."""


class SizingSummary(SizingFigures):
    """A job's right size in figures, for a list."""

    dropped: int
    """Access items that past runs did not need."""
    narrowed: int
    """Access items that past runs needed only in part."""


class _AccessEvidence:
    """The past runs and requests that concern one access item."""

    def __init__(self, item: Mapping[str, Any], runs: Sequence[PastRun]) -> None:
        self.key = access_key_of(item)
        requests_by_run = [(run, [request for request in run.requests if _concerns(request, self.key)]) for run in runs]
        self.runs = [run for run, requests in requests_by_run if requests or self.key in run.offered]
        self.requests = [request for _, requests in requests_by_run for request in requests]
        self.granted = [request for request in self.requests if request.granted]
        self.issued = [request for request in self.requests if request.uses]
        self.refused = sum(request.refused for request in self.requests)
        self.seconds = [request.seconds for request in self.issued if request.seconds is not None]
        # Observing the broker's use of a credential does not imply observing the use of a delivered one, so they count separately.
        uses = (use for run in runs for request in run.requests if request.key.resource == self.key.resource for use in request.uses)
        is_observable = any(use.seen for use in uses if use.delivered is is_delivered(item))
        self.used = sum(any(use.seen for use in request.uses) for request in self.requests) if is_observable else None
        """None if use is not observable."""


def build_sizing(name: str, spec: dict[str, Any], runs: Sequence[PastRun], *, newest: str, newest_at: datetime) -> Sizing:
    """Return the right size of a job. `spec`: the newest run's raw spec; `runs`: finished runs to analyse."""
    requests = [request for run in runs for request in run.requests]
    used = sum(any(use.seen for use in request.uses) for request in requests)
    access = []
    for item in spec.get("access") or ():
        evidence, ttl = _AccessEvidence(item, runs), parse_duration(item["ttl"])
        access.append(
            Sized(
                resource=evidence.key.resource,
                action=evidence.key.action,
                runs=len(evidence.runs),
                asked=len(evidence.requests),
                granted=len(evidence.granted),
                refused=evidence.refused,
                issued=len(evidence.issued),
                used=evidence.used,
                asked_ttl=ttl,
                granted_ttl=max(map(_granted_ttl, evidence.granted), default=None),
                used_p50=median(evidence.seconds) if evidence.seconds else None,
                used_max=max(evidence.seconds, default=None),
                changes=tuple(_changes(item, evidence, runs, ttl)),
            )
        )
    return Sizing(
        name=name,
        newest=newest,
        newest_at=newest_at,
        runs=len(runs),
        ran=sum(run.ran for run in runs),
        enough=len(runs) >= MIN_RUNS,
        asked=len(requests),
        granted=sum(request.granted for request in requests),
        issued=sum(bool(request.uses) for request in requests),
        used=used or None,
        spec=spec,
        access=tuple(access),
    )


def build_summary(sizing: Sizing) -> SizingSummary:
    """Return the figures of a job's right size."""
    dropped = sum(item.change(What.DROP) is not None for item in sizing.access)
    narrowed = sum(bool(item.changes) for item in sizing.access) - dropped
    return SizingSummary(**{name: getattr(sizing, name) for name in SizingFigures.model_fields}, dropped=dropped, narrowed=narrowed)


def next_readable_ttl(seconds: float) -> int:
    """Return the next longer duration, in seconds, that people would write."""
    return next((step for step in READABLE_TTLS_S if step >= seconds), math.ceil(seconds))


def format_seconds(seconds: float) -> str:
    """Return a measured time as text: `0.4 s`, `52 s`, `12.5 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{math.ceil(seconds)} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _concerns(request: PastRequest, key: AccessKey) -> bool:
    """Whether a request was for this item, or was narrowed to it or less, so that a tightened spec is still judged by the runs from which
    it was derived.
    """
    requested, granted, item = (Action(action).rank for action in (request.key.action, request.resulting_action, key.action))
    return request.key == key or (request.key.resource == key.resource and requested > item >= granted)


def _changes(item: Mapping[str, Any], evidence: _AccessEvidence, runs: Sequence[PastRun], asked_ttl: int) -> Iterator[Change]:
    """Yield the change that drops an item, or else the changes to a narrower action and a shorter ttl that would have been enough.

    An item that child jobs of these runs requested, too, stays unchanged: otherwise the children's orders would be rejected.
    """
    if any(evidence.key in run.passed_on for run in runs):
        return
    judged_by, action = [evidence], _action_change(evidence)
    if action:
        # Judge the narrowed item too, by what the runs say about its new action, so that a tightened spec needs no second tightening.
        judged_by.append(_AccessEvidence({**item, "action": action.to}, runs))
    if drop := next(filter(None, map(_drop_change, judged_by)), None):
        yield drop
        return
    if action:
        yield action
    ttl, why = min([(asked_ttl, ""), *chain.from_iterable(map(_sufficient_ttls, judged_by))])
    # The order must cover what the program asks for; otherwise its requests go beyond the order.
    named = max((request.ttl for one in judged_by for request in one.requests if request.is_ttl_named), default=0)
    if ttl < named:
        ttl, why = named, f"{why}; the program asked for {duration_text(named)}"
    elif item.get("at") == "request":
        why += "; if the program names a ttl, lower it there too"
    if ttl < asked_ttl:
        yield Change(what=What.TTL, to=duration_text(ttl), why=f"was {duration_text(asked_ttl)}: {why}")


def _drop_change(evidence: _AccessEvidence) -> Change | None:
    issued, requested, refused, runs = len(evidence.issued), len(evidence.requests), evidence.refused, len(evidence.runs)
    if issued:
        return Change(what=What.DROP, to="", why=f"issued {_times_text(issued)}, never used") if evidence.used == 0 else None
    # If no process was started, another item's denial may be the reason that this one was not issued.
    if any(run.ran for run in evidence.runs) or (runs and refused == requested >= runs):
        history = f"requested {_times_text(requested)}" + (f", refused {_times_text(refused)}" if refused else "")
        return Change(what=What.DROP, to="", why=f"never issued in {runs} run{'' if runs == 1 else 's'} ({history})")
    return None


def _action_change(evidence: _AccessEvidence) -> Change | None:
    requested, granted = Action(evidence.key.action), [Action(request.resulting_action) for request in evidence.granted]
    broadest = max(granted, key=lambda action: action.rank, default=requested)
    if broadest.rank >= requested.rank:
        return None
    why = f"was {requested}: granted {_times_text(len(granted))}, each time {broadest} at most"
    return Change(what=What.ACTION, to=broadest.value, why=why)


def _sufficient_ttls(evidence: _AccessEvidence) -> Iterator[tuple[int, str]]:
    """Yield each ttl, in seconds, that would have been enough, and why."""
    granted, seconds = evidence.granted, evidence.seconds
    if granted and all(_granted_ttl(request) < request.ttl for request in granted):
        longest = max(map(_granted_ttl, granted))
        yield longest, f"granted {_times_text(len(granted))}, each time {duration_text(longest)} at most"
    # A use of unknown length may have been the longest.
    if seconds and len(seconds) == len(evidence.issued):
        why = f"used {_times_text(len(seconds))}, {format_seconds(max(seconds))} at the longest (p50 {format_seconds(median(seconds))})"
        yield next_readable_ttl(TTL_HEADROOM * max(seconds)), why


def _granted_ttl(request: PastRequest) -> int:
    return request.ttl if request.granted_ttl is None else min(request.granted_ttl, request.ttl)


def _times_text(count: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")
