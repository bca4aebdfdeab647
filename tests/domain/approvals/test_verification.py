"""Who may answer for whom, and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest

from justenough.domain.approvals.statements import DelegationStatement, SignedStatement, to_signable
from justenough.domain.approvals.tiers import Person, Tier, Tiers
from justenough.domain.approvals.verification import ApprovalVerifier
from justenough.domain.core.canonical_json import to_canonical_json
from tests.support.domain_samples import NOW
from tests.support.signing_keys import public_key, vault_signature

TIERS = Tiers(tiers={1: Tier(name="owner", approvers=("leads",), respond_within=3600)})


@dataclass(frozen=True)
class Everybody:
    """All are leads, and nobody has ended what they signed."""

    signed: SignedStatement

    def person(self, entity: str) -> Person | None:
        return Person(id=entity, name=entity, groups=frozenset({"leads"}))

    def public_keys(self, entity: str) -> Mapping[int, bytes]:
        return {1: public_key(entity)}

    def delegation(self, person: str, delegate: str) -> SignedStatement | None:
        del person, delegate
        return self.signed


def delegation(*, at: datetime, until: datetime) -> SignedStatement:
    raw = to_signable(DelegationStatement(delegate="lead2", reason="away", person="lead", issued_at=at, expires_at=until))
    return SignedStatement(statement=raw, signature=vault_signature("lead", to_canonical_json(raw)))


@pytest.mark.parametrize(
    "at, until, why",
    [
        (timedelta(hours=-1), timedelta(hours=1), None),
        # Prolonged while a job runs whose approval was counted before: its renewals ask about then.
        (timedelta(hours=1), timedelta(hours=2), None),
        (timedelta(hours=-2), timedelta(hours=-1), "their appointment as a delegate is not valid now: the statement has expired"),
        (timedelta(0), timedelta(days=91), "their appointment as a delegate is not valid now: the statement lives longer than 90 days"),
    ],
)
def test_a_delegation_holds_until_its_end_however_late_it_was_prolonged(at: timedelta, until: timedelta, why: str | None) -> None:
    signed = delegation(at=NOW + at, until=NOW + until)
    rejection = ApprovalVerifier(Everybody(signed), TIERS, NOW).why_not_delegate("lead", "lead2", signed)
    assert (rejection.message if rejection else None) == why
