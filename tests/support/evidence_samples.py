"""Evidence reports from events, without a store."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from justenough.domain.evidence.aggregator import EvidenceAggregator, ReportPeriod
from justenough.domain.evidence.current_state import CurrentState, LedgerState, LiveCredential
from justenough.domain.evidence.report import Line, Report
from justenough.domain.ledger.events import Event, EventType, build_event
from justenough.domain.ledger.hash_chain import LedgerReport, chain_entry, moment_text
from tests.adapters.store.event_samples import JOB, NOW, credential_event, later, part_id

DAY = timedelta(days=1)
SOUND = LedgerState(entries=0, hash=None, verified=LedgerReport(entries=0, jobs=0))


def raw_entry(kind: str, *, job: str = JOB, at: datetime = NOW, about: str = "1", **data: Any) -> tuple[str, str, str, str, str]:
    """Return an entry as it is stored. Its type may be unknown to this version."""
    return job, f"{job}/{kind}/{about}", kind, moment_text(at), json.dumps(data)


def aggregator_of(
    entries: Iterable[Event | tuple[str, str, str, str, str]], *, since: datetime = NOW - DAY, until: datetime = NOW + DAY
) -> EvidenceAggregator:
    """Return an aggregator to which these entries were added in order."""
    aggregator = EvidenceAggregator(ReportPeriod(since, until))
    for entry in entries:
        if isinstance(entry, Event):
            stored = chain_entry(entry, None)
            aggregator.add_entry(stored.job, stored.id, stored.type, stored.at, stored.data)
        else:
            aggregator.add_entry(*entry)
    return aggregator


def report_of(
    *entries: Event | tuple[str, str, str, str, str],
    now: datetime = NOW + DAY,
    live: Iterable[LiveCredential] = (),
    ledger: LedgerState = SOUND,
) -> Report:
    """Return the report of these entries."""
    state = CurrentState(now=now)
    for active in live:
        state.add_live(active)
    return aggregator_of(entries).report(installation="dev", now=now, current_state=state, ledger=ledger)


def line(report: Report, key: str) -> Line:
    """Return the report's line with this key."""
    (only,) = [candidate for candidate in report.lines if candidate.key == key]
    return only


def rejection(why: str, number: int = 1) -> Event:
    return build_event(
        EventType.APPROVAL_REJECTED, JOB, at=NOW, about=str(number), request=part_id(JOB, "r"), why=why, person=None, received=None
    )


def expiry(number: int = 1, *, seconds: float = 700, **more: Any) -> Event:
    return credential_event(EventType.CREDENTIAL_EXPIRED, number=number, at=later(seconds), why="its expiry time has passed", **more)


def withdrawal(seconds: float, number: int = 1) -> Event:
    name = part_id(JOB, "r", number)
    return build_event(EventType.ACCESS_WITHDRAWN, JOB, at=later(seconds), about=name, request=name, why="the job ended")


def approval_expiry(seconds: float, *, tier: int = 3) -> Event:
    return build_event(EventType.APPROVAL_EXPIRED, JOB, at=later(seconds), about=part_id(JOB, "r"), request=part_id(JOB, "r"), tier=tier)


def review(seconds: float = 0, *, person: str = "e-lead") -> tuple[str, str, str, str, str]:
    data: dict[str, Any] = {
        "request": part_id(JOB, "r"),
        "person": person,
        "name": "lead",
        "tiers": [1],
        "groups": ["security"],
        "reason": "fire",
    }
    return raw_entry("review.opened", at=later(seconds), about=person, **data)


def review_answer(answer: str) -> tuple[str, str, str, str, str]:
    return raw_entry(
        "review.answered", at=later(9), request=part_id(JOB, "r"), person="e-chief", name="chief", verdict=answer, reason="", signed={}
    )


def live_credential(number: int = 1, **changes: Any) -> LiveCredential:
    fields = {
        "credential": part_id(JOB, "c", number),
        "job": JOB,
        "job_state": "running",
        "task": "Refund",
        "resource": "orders-db",
        "action": "write",
        "issued_at": NOW,
        "expires_at": NOW + 2 * DAY,
        "revocable": "now",
        "known": True,
    }
    return LiveCredential(**{**fields, **changes})
