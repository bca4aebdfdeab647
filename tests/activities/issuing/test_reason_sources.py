"""Who wrote a request's reason is recorded where the request is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import pytest

from activities.issuing.results import IssuedCredential, PendingRequest
from justenough.adapters.store import StoreUnavailable
from justenough.adapters.vault import VaultUnavailable
from justenough.domain.jobs.spec import Access
from justenough.domain.jobs.states import Action, ReasonSource
from justenough.domain.ledger.events import Event
from tests.activities.issuing_session import Session, start_session
from tests.activities.vault_shop import Desk

pytestmark = pytest.mark.servers
SIGNED = {"resource": "orders-db", "action": "read", "ttl": "5m", "reason": "Look the order up", "at": "request"}


def reasons_of(session: Session) -> list[tuple[str, ReasonSource | None, str | None]]:
    view = session.at.deps.store.jobs.get(session.job)
    assert view is not None
    return [(request.reason, request.reason_by, request.signed_reason) for request in view.requests]


def ask(session: Session, resource: str, reason: str) -> None:
    session.issuer.access(Access(resource=resource, action=Action.READ, ttl=300, reason=reason, at="request"))


def test_a_reason_given_at_run_time_is_attributed_to_the_program_unless_it_equals_the_signed_one(at: Desk) -> None:
    honest, other, unlisted = (start_session(at, SIGNED) for _ in range(3))
    ask(honest, "orders-db", "Look the order up")
    ask(other, "orders-db", "The CFO approved this by phone")
    ask(unlisted, "refunds-db", "The CFO approved this by phone")
    assert reasons_of(honest) == [("Look the order up", ReasonSource.ORDER, "Look the order up")]
    assert reasons_of(other) == [("The CFO approved this by phone", ReasonSource.PROGRAM, "Look the order up")]
    assert reasons_of(unlisted) == [("The CFO approved this by phone", ReasonSource.PROGRAM, None)]
    for session in (honest, other, unlisted):
        session.end()


def test_a_reason_in_the_signed_order_is_attributed_to_the_order(at: Desk) -> None:
    session = start_session(at, {**SIGNED, "at": "start"})
    assert reasons_of(session) == [("Look the order up", ReasonSource.ORDER, "Look the order up")]


@pytest.mark.parametrize("is_committed", [True, False])
def test_a_request_whose_record_failed_is_the_same_request_when_the_job_asks_again(
    at: Desk, monkeypatch: pytest.MonkeyPatch, *, is_committed: bool
) -> None:
    session, ledger = start_session(at, {**SIGNED, "action": "write"}), at.deps.store.ledger
    (access,), append = session.verified.spec.access, ledger.append

    def append_and_lose_the_answer(events: Sequence[Event]) -> object:
        if is_committed:
            append(events)
        raise StoreUnavailable("failing over")

    with monkeypatch.context() as patched:
        patched.setattr(ledger, "append", append_and_lose_the_answer)
        with pytest.raises(StoreUnavailable):
            session.issuer.access(access)
    waiting = session.issuer.access(access)
    assert isinstance(waiting, PendingRequest)
    view = at.deps.store.jobs.get(session.job)
    assert view is not None
    assert [request.id for request in view.requests] == [waiting.request_id]
    assert reasons_of(session) == [("Look the order up", ReasonSource.ORDER, "Look the order up")]
    session.end()


def test_a_request_that_could_not_be_issued_is_the_same_request_when_the_job_asks_again(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    session = start_session(at, SIGNED)
    (access,) = session.verified.spec.access

    def find_vault_sealed(*_: object) -> NoReturn:
        raise VaultUnavailable("sealed")

    with monkeypatch.context() as patched:
        patched.setattr(at.deps.vault, "open_prefix", find_vault_sealed)
        for _ in range(2):
            with pytest.raises(VaultUnavailable):
                session.issuer.access(access)
    assert isinstance(session.issuer.access(access), IssuedCredential)
    assert reasons_of(session) == [("Look the order up", ReasonSource.ORDER, "Look the order up")]
    session.end()
