"""The evidence report without servers: folding the ledger of many jobs, as the console reads it from the store. Returns its figure."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

from bench.figures import Figure
from justenough.adapters.store import Store
from justenough.domain.evidence.aggregator import ReportPeriod
from justenough.domain.ledger.events import Event, EventType, build_event, required_fields
from justenough.services.evidence_report import build_evidence_report

MOMENT = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
FILLED = "as long as what stands there usually is, a reason or a digest of sixty-four characters"

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
"""What is recorded of such a job, in order."""


def reporting(*, quick: bool) -> Figure:
    """Time the report over approved jobs of one credential each, without the ledger's own verification, which has a figure of its own."""
    jobs = 50 if quick else 4_000
    period = ReportPeriod(MOMENT - timedelta(days=1), MOMENT + timedelta(days=1))
    with tempfile.TemporaryDirectory(prefix="je-bench-") as folder, closing(Store(f"sqlite:///{folder}/ledger.db")) as store:
        store.migrate()
        names = [f"j-dev-{number:026d}" for number in range(jobs)]
        # Many jobs in one transaction: seeding is not what is measured.
        parts = [names[start : start + 50] for start in range(0, jobs, 50)]
        entries = sum(len(store.ledger.append(fact for name in part for fact in _job(name))) for part in parts)
        took = []
        for _ in range(5):
            began = time.perf_counter()
            found = build_evidence_report(store, period, installation="dev", now=period.until, max_verified_entries=0)
            took.append(time.perf_counter() - began)
            measured = [line.figures["measured"] for line in found.lines if line.key == "lifetimes.real"]
            assert measured == [jobs], measured
    what = f"evidence report over {entries:,} entries of {jobs:,} jobs, SQLite, best of five"
    return Figure("evidence_report", what, entries / min(took), "entries/s", at_least=100_000)


def _job(job: str) -> Iterator[Event]:
    """Yield what is recorded of an approved job from order to proof."""
    request, credential = f"r{job[1:]}-1", f"c{job[1:]}-1"
    known: dict[str, Any] = {
        "request": request,
        "credential": credential,
        "ttl": 600,
        "granted_ttl": 300,
        "tier": 1,
        "outcome": "needs_approval",
        "phase": "start",
        "policies": ["writes-need-an-owner"],
        "errors": [],
        "facts": {"held": [], "touched": 0, "requester_groups": ["ops"], "reason": FILLED},
        "verdict": "approved",
        "decision": "approve",
        "revocable": "now",
        "sandbox": "bubblewrap",
        "signed": {"statement": dict.fromkeys(("type", "job", "digest", "reason", "person"), FILLED), "signature": FILLED},
        "issued_at": MOMENT.isoformat(),
        "expires_at": (MOMENT + timedelta(minutes=5)).isoformat(),
        "state": "succeeded",
        "proof": {"prefix": FILLED},
        "optional": False,
        "number": 1,
        "agent": None,
        "data_scope": {},
        "labels": {},
        "params": {},
        "spec": dict.fromkeys(("name", "task", "run", "access"), FILLED),
        "order": {"statement": {"person": "someone"}, "signature": FILLED},
        "exit_code": 0,
        "quorum": 1,
        "respond_by": (MOMENT + timedelta(minutes=15)).isoformat(),
    }
    for kind in ORDER:
        yield build_event(kind, job, at=MOMENT, **{name: known.get(name, FILLED) for name in required_fields(kind)})
