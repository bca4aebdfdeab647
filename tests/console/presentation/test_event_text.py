"""The sentence for each type of ledger entry."""

from __future__ import annotations

from typing import Any

import pytest

from console.presentation.event_text import event_sentence
from justenough.domain.ledger.events import EventType

LISTS = {"policies", "errors", "failures", "unknown", "tiers", "tier_names"}


@pytest.mark.parametrize("kind", EventType, ids=str)
def test_each_kind_of_entry_has_a_sentence_made_of_its_own_fields(kind: EventType) -> None:
    data: dict[str, Any] = {name: [f"<{name}>"] if name in LISTS else f"<{name}>" for name in kind.fields}
    data |= {name: {"<tool>": {"calls": 3}} for name in ("tools", "granted_tools") if name in kind.fields}

    assert "<" in event_sentence(kind, data), (
        "console/presentation/event_text.py: SENTENCES has no sentence for it, or none with its fields"
    )


def test_an_entry_of_an_unknown_type_has_no_sentence() -> None:
    assert event_sentence("of.tomorrow", {}) == ""
    assert event_sentence("job.ended", {}) == ""


def test_the_named_reason_of_a_result_is_told_in_words() -> None:
    words = "its worker no longer reported to Temporal (worker_lost)"
    assert event_sentence("job.ended", {"state": "failed", "exit_code": None, "reason": "worker_lost"}) == f"failed: {words}"
    started = event_sentence("revocation.started", {"by": "compensation", "why": "worker_lost"})
    assert started == f"revocation started by compensation: {words}"


@pytest.mark.parametrize("by, shown", [("person", "at a person's request"), ("session", "by session")])
def test_a_revocation_that_a_person_requested_does_not_name_a_part_of_the_system(by: str, shown: str) -> None:
    assert event_sentence("revocation.started", {"by": by, "why": "killed"}) == f"revocation started {shown}: killed"
    assert event_sentence("credential.revoked", {"credential": "c-1", "by": by, "why": ""}).startswith(f"c-1 revoked {shown}")


@pytest.mark.parametrize(
    "phase, when", [("runtime", " at runtime"), ("narrowed", " on the terms that people approved"), ("issue", ", checked again at issue")]
)
def test_a_later_decision_about_a_request_is_told_from_its_first(phase: str, when: str) -> None:
    data = {"request": "r-1", "phase": phase, "outcome": "needs_approval", "tier": 1, "policies": ["write-at-tier-1"], "errors": []}
    assert event_sentence("access.decided", data) == f"r-1 needs approval at tier 1{when} (write-at-tier-1)"
