"""The benchmark of the evidence report: aggregate the ledger of many jobs, as the console reads it from the store. Needs no servers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from bench.figures import Figure, best_of_five
from bench.scratch import scratch_store
from justenough.domain.evidence.aggregator import ReportPeriod
from justenough.domain.ledger.events import Event, EventType, build_event
from justenough.services.evidence_report import build_evidence_report

MOMENT = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
TEXT = "a text of usual length: a reason, or a digest with sixty-four hexadecimal characters"

ORDER = (
    EventType.JOB_SUBMITTED,
    EventType.ACCESS_REQUESTED,
    EventType.ACCESS_DECIDED,
    EventType.APPROVAL_OPENED,
    EventType.APPROVAL_DECIDED,
    EventType.JOB_STARTED,
    EventType.CREDENTIAL_ISSUED,
    EventType.REVOCATION_STARTED,
    EventType.CREDENTIAL_REVOKED,
    EventType.CREDENTIAL_CONFIRMED,
    EventType.REVOCATION_CONFIRMED,
    EventType.JOB_ENDED,
)
"""The entries of an approved job, from order to proof."""


def measure_evidence_report(*, quick: bool) -> Figure:
    """Measure the report over approved jobs with one credential each, without the ledger's verification, which has its own figure."""
    jobs = 50 if quick else 4_000
    period = ReportPeriod(MOMENT - timedelta(days=1), MOMENT + timedelta(days=1))
    with scratch_store() as store:
        for start in range(0, jobs, 50):
            # Many jobs per transaction: seeding is not measured.
            numbers = range(start, min(start + 50, jobs))
            store.ledger.append(event for number in numbers for event in _job_events(f"j-dev-{number:026d}"))

        def report() -> None:
            evidence = build_evidence_report(store, period, installation="dev", now=period.until, max_verified_entries=0)
            lifetimes = [line.figures["measured"] for line in evidence.lines if line.key == "lifetimes.real"]
            assert lifetimes == [jobs], lifetimes

        entries, seconds = jobs * len(ORDER), best_of_five(report)
    what = f"evidence report over {entries:,} entries of {jobs:,} jobs, SQLite, best of five"
    return Figure("evidence_report", what, entries / seconds, "entries/s", at_least=100_000)


def _job_events(job: str) -> Iterator[Event]:
    request, credential = f"r{job[1:]}-1", f"c{job[1:]}-1"
    values: dict[str, Any] = {
        "request": request,
        "credential": credential,
        "ttl": 600,
        "granted_ttl": 300,
        "tier": 1,
        "outcome": "needs_approval",
        "phase": "start",
        "policies": ["writes-need-an-owner"],
        "errors": [],
        "facts": {"held": [], "touched": 0, "requester_groups": ["ops"], "reason": TEXT},
        "verdict": "approved",
        "decision": "approve",
        "revocable": "now",
        "held_by_job": True,
        "reason_by": "order",
        "times_out_at": (MOMENT + timedelta(hours=1)).isoformat(),
        "sandbox": "bubblewrap",
        "signed": {"statement": dict.fromkeys(("type", "job", "digest", "reason", "person"), TEXT), "signature": TEXT},
        "issued_at": MOMENT.isoformat(),
        "expires_at": (MOMENT + timedelta(minutes=5)).isoformat(),
        "state": "succeeded",
        "proof": {"prefix": TEXT},
        "optional": False,
        "number": 1,
        "agent": None,
        "data_scope": {},
        "labels": {},
        "params": {},
        "spec": dict.fromkeys(("name", "task", "run", "access"), TEXT),
        "order": {"statement": {"person": "someone"}, "signature": TEXT},
        "exit_code": 0,
        "quorum": 1,
        "respond_by": (MOMENT + timedelta(minutes=15)).isoformat(),
    }
    for kind in ORDER:
        yield build_event(kind, job, at=MOMENT, **{name: values.get(name, TEXT) for name in kind.required_fields})
