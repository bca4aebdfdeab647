"""A job's history before its session, built only from its ledger entries."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pytest

from justenough.adapters.store.paging import MAX_PAGE_SIZE
from justenough.domain.jobs.states import JobState
from justenough.domain.ledger.events import EventType
from justenough.domain.readmodel.views import EntryView, Page
from justenough.services.job_history import MAX_ENTRIES_READ, build_job_history, read_job_history

REQUEST = "r-dev-01arz3ndektsv4rrffq69g5fav-1"


def entry(kind: EventType, **data: Any) -> EntryView:
    said = {"request": REQUEST, **data}
    return EntryView(position=1, job="j", seq=1, id="x", type=kind.value, at=datetime(2026, 1, 1, tzinfo=UTC), data=said, prev="", hash="")


class EndlessLedger:
    """A ledger that is flooded while it is read."""

    def entries(self, *, job: str | None, types: Iterable[EventType] = (), after: int, limit: int) -> Page[EntryView]:
        del job, types
        assert limit == MAX_PAGE_SIZE
        assert after < 2 * MAX_ENTRIES_READ, "it is read for ever"
        return Page(items=(entry(EventType.APPROVAL_REJECTED),) * limit, next=str(after + limit))


@pytest.mark.parametrize("kind", [EventType.JOB_STARTED, EventType.JOB_ENDED, EventType.CREDENTIAL_ISSUED])
def test_a_job_that_started_ended_or_got_a_credential_does_not_run_again(kind: EventType) -> None:
    assert build_job_history([entry(EventType.JOB_SUBMITTED), entry(kind)]).why_over
    assert not build_job_history([entry(EventType.JOB_SUBMITTED), entry(EventType.JOB_REFUSED)]).why_over


@pytest.mark.parametrize(
    "kind, data, how",
    [
        (EventType.APPROVAL_DECIDED, {"decision": "deny"}, "denied"),
        (EventType.APPROVAL_EXPIRED, {}, "expired"),
        (EventType.ACCESS_WITHDRAWN, {}, "withdrawn"),
        (EventType.APPROVAL_DECIDED, {"decision": "approve"}, None),
        (EventType.APPROVAL_REJECTED, {"decision": "deny"}, None),
    ],
)
def test_a_final_rejection_of_a_request_stays(kind: EventType, data: dict[str, Any], how: str | None) -> None:
    later = entry(EventType.APPROVAL_DECIDED, decision="approve")
    assert build_job_history([entry(kind, **data), later]).settled.get(REQUEST) == how


def test_a_request_is_at_the_highest_tier_that_it_was_escalated_to() -> None:
    steps = [
        entry(EventType.APPROVAL_OPENED, tier=1),
        entry(EventType.APPROVAL_ESCALATED, tier=3),
        entry(EventType.APPROVAL_ESCALATED, tier=2),
    ]
    assert build_job_history(steps).tiers == {REQUEST: 3}


@pytest.mark.parametrize(
    "ways, state",
    [
        ([], None),
        (["cancel"], JobState.CANCELLED),
        (["kill", "cancel"], JobState.KILLED),
        (["cancel", "kill"], JobState.KILLED),
        # An unknown way to stop is still a stop.
        (["later"], JobState.CANCELLED),
    ],
)
def test_a_stopped_job_ends_as_people_asked_and_a_cancel_does_not_override_a_kill(ways: list[str], state: JobState | None) -> None:
    assert build_job_history([entry(EventType.JOB_SUBMITTED), *(entry(EventType.STOP_REQUESTED, how=how) for how in ways)]).stop is state


def test_a_flooded_chain_prevents_a_job_from_running_and_ends_the_reading() -> None:
    assert read_job_history(EndlessLedger(), "j").why_over == "the ledger has too many entries of this job"
