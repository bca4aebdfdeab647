"""What a job's ancestors have touched, according to the ledger."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from activities.issuing.results import issued_event
from justenough.domain.core.ids import credential_id, new_job_id, request_id
from justenough.domain.core.rejection import Rejection
from justenough.domain.jobs.credentials import CredentialHandle, HeldAccess
from justenough.domain.jobs.states import Action, Revocable, Sensitivity
from justenough.domain.ledger.events import Event
from justenough.services.ledger_events import order_events
from justenough.services.parent_chain import MAX_ANCESTORS, ancestor_views, inherit_touched, read_submissions
from justenough.services.verify_order import VerifiedOrder, verify_order
from tests.activities.vault_shop import SPEC, Shop, open_desk

pytestmark = pytest.mark.servers


def issuance(job: str, number: int, nth: int, resource: str, *, at: datetime) -> Event:
    credential = CredentialHandle(
        id=credential_id(job, number, nth),
        request_id=request_id(job, number),
        resource=resource,
        action=Action.READ,
        lease_id=None,
        accessor=None,
        issued_at=at,
        expires_at=at,
        revocable=Revocable.NOW,
    )
    return issued_event(job, credential)


def test_a_chain_of_too_many_ancestors_is_refused(shop: Shop, tmp_path: Path) -> None:
    with open_desk(shop, tmp_path) as at:
        ops, now, chain = at.shop.newcomer("ancestor", "ops"), at.deps.now(), list[str]()
        for _ in range(MAX_ANCESTORS + 1):
            job = new_job_id("dev", now=now)
            order = ops.order(job, {"parent": chain[-1]} if chain else {}, now=now, spec=SPEC)
            verified = verify_order(at.deps, order, now=now)
            assert isinstance(verified, VerifiedOrder), verified
            at.deps.store.ledger.append(order_events(at.deps, order, verified))
            chain.append(job)
        assert len(tuple(read_submissions(at.deps, chain[-2]))) == MAX_ANCESTORS
        refused = verify_order(at.deps, ops.order(new_job_id("dev", now=now), {"parent": chain[-1]}, now=now, spec=SPEC), now=now)
    assert isinstance(refused, Rejection)
    why = "the job would have more than 10 ancestors; 10 is the maximum"
    assert str(refused) == f"{chain[-1]} cannot be its parent job: {why}"


def test_a_job_inherits_each_resource_of_an_ancestor_however_many_credentials_that_was_issued(shop: Shop, tmp_path: Path) -> None:
    with open_desk(shop, tmp_path) as at:
        job, now = at.job(), at.clock.now()
        again = [issuance(job, 1, nth, "orders-db", at=now) for nth in range(1, 1_200)]
        # A resource that neither a request nor the catalog describes counts as restricted.
        others = [issuance(job, 11, 1, "gone-db", at=now), issuance(job, 2, 1, "refunds-db", at=now)]
        at.deps.store.ledger.append([*again, *others])
        assert [view.touched for view in ancestor_views(at.deps, job)] == [("gone-db", "orders-db", "refunds-db")]
        # An approver can still look at a request whose job's parent the ledger does not have.
        assert ancestor_views(at.deps, new_job_id("dev", now=now)) == ()
        held = inherit_touched(at.deps, job, HeldAccess(touched_resources=frozenset({"own-db"})))
    assert held.touched_resources == {"own-db", "orders-db", "gone-db", "refunds-db"}
    assert held.touched is Sensitivity.RESTRICTED
    assert (held.held, held.issued_count) == (frozenset(), 0)
