"""Who may answer for whom, and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest

from justenough.domain.approvals.statements import DelegationStatement, Signed, signable
from justenough.domain.approvals.tiers import Person, Tier, Tiers
from justenough.domain.approvals.verification import Table
from justenough.domain.core.canonical_json import canonical
from tests.justenough.building import NOW
from tests.justenough.keys import public_key, vault_signature

TIERS = Tiers(tiers={1: Tier(name="owner", approvers=("leads",), respond_within=3600)})


@dataclass(frozen=True)
class Everybody:
    """All are leads, and nobody has ended what they signed."""

    signed: Signed

    def person(self, entity: str) -> Person | None:
        return Person(id=entity, name=entity, groups=frozenset({"leads"}))

    def public_keys(self, entity: str) -> Mapping[int, bytes]:
        return {1: public_key(entity)}

    def delegation(self, person: str, delegate: str) -> Signed | None:
        del person, delegate
        return self.signed


def delegation(*, at: datetime, until: datetime) -> Signed:
    raw = signable(DelegationStatement(delegate="lead2", reason="away", person="lead", issued_at=at, expires_at=until))
    return Signed(statement=raw, signature=vault_signature("lead", canonical(raw)))


@pytest.mark.parametrize(
    "at, until, why",
    [
        (timedelta(hours=-1), timedelta(hours=1), None),
        # Prolonged while a job runs whose approval was counted before: its renewals ask about then.
        (timedelta(hours=1), timedelta(hours=2), None),
        (timedelta(hours=-2), timedelta(hours=-1), "they are no delegate now: the statement has expired"),
        (timedelta(0), timedelta(days=91), "they are no delegate now: the statement lives longer than 90 days"),
    ],
)
def test_a_delegation_holds_until_its_end_however_late_it_was_prolonged(at: timedelta, until: timedelta, why: str | None) -> None:
    signed = delegation(at=NOW + at, until=NOW + until)
    assert Table(Everybody(signed), TIERS, NOW).why_no_delegate("lead", "lead2", signed) == why
