"""A grant's time is over when either clock says so."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from activities.issuing.results import IssuedCredential
from justenough.domain.jobs.credentials import CredentialHandle
from justenough.domain.jobs.spec import Access
from justenough.domain.jobs.states import Action, Revocable

NOW = datetime(2026, 1, 1, tzinfo=UTC)
GRANT = timedelta(minutes=5)


def issuance() -> IssuedCredential:
    access = Access(resource="orders-db", action=Action.READ, ttl=300, reason="a test")
    credential = CredentialHandle(
        id="c-dev-1",
        request_id="r-dev-1",
        resource="orders-db",
        action=Action.READ,
        lease_id="l",
        accessor="a",
        issued_at=NOW,
        expires_at=NOW + GRANT,
        revocable=Revocable.NOW,
    )
    return IssuedCredential(
        access=access, credential=credential, fields={}, ends=1000 + GRANT.total_seconds(), lease_seconds=60, connect={}
    )


@pytest.mark.parametrize(
    "passed, stepped, left",
    [
        (timedelta(), timedelta(), 300),
        (timedelta(minutes=2), timedelta(), 180),
        (timedelta(minutes=2), timedelta(hours=-1), 180),
        (timedelta(minutes=6), timedelta(hours=-1), -60),
        (timedelta(minutes=2), timedelta(hours=1), 180 - 3600),
    ],
    ids=["at once", "later", "set back", "set back and over", "set forward"],
)
def test_setting_the_clock_never_prolongs_a_grant(passed: timedelta, stepped: timedelta, left: float) -> None:
    assert issuance().seconds_left(now=NOW + passed + stepped, ticks=1000 + passed.total_seconds()) == left
