"""Links each alarm to its section in the served runbook. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from justenough.domain.readmodel.attention import AttentionKind

RUNBOOK_PAGE = "how-to/runbook"
ANCHORS: Mapping[str, str] = {
    AttentionKind.OVERDUE: "overdue",
    AttentionKind.FAILED: "a-job-failed",
    AttentionKind.ESCALATED: "a-request-waits",
    AttentionKind.WAITING: "a-request-waits",
    AttentionKind.DENIED: "policy-denied-a-request",
    AttentionKind.WEBHOOK: "dead-letters",
    AttentionKind.SCHEDULE: "a-schedule-did-not-launch-its-job",
    AttentionKind.WORKER: "a-worker-is-gone",
    "configuration": "the-configuration-has-errors",
    "sweep": "the-sweep-is-late",
    "residual": "residual",
    "expired": "expired",
}
"""Headings of the runbook, by kind of attention item and by the pages' other alarms."""


def runbook_url(alarm: str) -> str:
    """Return the address of the runbook's section about an alarm, a key of ANCHORS."""
    return f"/docs/{RUNBOOK_PAGE}#{ANCHORS[alarm]}"
