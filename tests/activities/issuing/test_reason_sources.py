"""Who wrote a request's reason is recorded where the request is made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from activities.issuing import grants
from activities.issuing.results import AccessRefused, IssuedCredential, PendingRequest
from justenough.adapters.store import StoreUnavailable
from justenough.adapters.vault import VaultUnavailable
from justenough.domain.jobs.spec import Access
from justenough.domain.jobs.states import Action, ReasonSource
from justenough.domain.ledger.events import Event
from tests.activities.issuing_session import Session, start_session
from tests.activities.vault_shop import Desk, Shop, copy_config, open_desk

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


@contextmanager
def sealed_vault(at: Desk) -> Iterator[None]:
    """Let Vault answer a session, for the length of a block, as if it were sealed."""

    def find_vault_sealed(*_: object) -> NoReturn:
        raise VaultUnavailable("sealed")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(at.deps.vault, "open_prefix", find_vault_sealed)
        yield


def test_a_request_that_could_not_be_issued_is_the_same_request_when_the_job_asks_again(at: Desk) -> None:
    session = start_session(at, SIGNED)
    (access,) = session.verified.spec.access
    with sealed_vault(at):
        for _ in range(2):
            with pytest.raises(VaultUnavailable):
                session.issuer.access(access)
    assert isinstance(session.issuer.access(access), IssuedCredential)
    assert reasons_of(session) == [("Look the order up", ReasonSource.ORDER, "Look the order up")]
    session.end()


def test_a_jobs_last_request_is_still_possible_after_it_could_not_be_issued(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    session = start_session(at, SIGNED)
    monkeypatch.setattr(grants, "MAX_REQUESTS", 2)
    with sealed_vault(at):
        for reason in ("the first", "the second"):
            with pytest.raises(VaultUnavailable):
                ask(session, "orders-db", reason)
        with pytest.raises(AccessRefused, match="at most 2 requests"):
            ask(session, "orders-db", "the third")
    ask(session, "orders-db", "the second")
    assert len(session.issuer.holdings.alive) == 1
    session.end()


def test_a_request_for_another_time_or_reason_is_not_the_one_that_could_not_be_issued(at: Desk) -> None:
    session = start_session(at, SIGNED)
    (access,) = session.verified.spec.access
    with sealed_vault(at), pytest.raises(VaultUnavailable):
        session.issuer.access(access)
    issued = session.issuer.access(access.model_copy(update={"ttl": 60, "reason": "Look once more"}))
    assert isinstance(issued, IssuedCredential)
    assert issued.access.ttl == 60, "the job asked for no more"
    assert [reason for reason, *_ in reasons_of(session)] == ["Look the order up", "Look once more"]
    session.end()


def test_a_request_that_could_not_be_issued_before_people_must_approve_it_waits_for_them(shop: Shop, tmp_path: Path) -> None:
    folder = copy_config(tmp_path)
    reads = folder / "policies" / "reads.cedar"
    with open_desk(shop, tmp_path, folder=folder) as at:
        session = start_session(at, SIGNED)
        (access,) = session.verified.spec.access
        with sealed_vault(at), pytest.raises(VaultUnavailable):
            session.issuer.access(access)
        reads.write_text(reads.read_text().replace("resource.sensitivity <= 2", "resource.sensitivity <= 2 && context.approved_tier >= 1"))
        at.deps.config.refresh()
        assert isinstance(session.issuer.access(access), PendingRequest)
        session.end()


def test_a_request_whose_denial_could_not_be_recorded_is_decided_again(shop: Shop, tmp_path: Path) -> None:
    folder = copy_config(tmp_path)
    reads = folder / "policies" / "reads.cedar"
    allowed = reads.read_text()
    reads.write_text(allowed.replace("resource.sensitivity <= 2", "false"))
    with open_desk(shop, tmp_path, folder=folder) as at:
        session = start_session(at, SIGNED)
        (access,) = session.verified.spec.access

        def find_store_failing_over(*_: object) -> NoReturn:
            raise StoreUnavailable("failing over")

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(at.deps.store.ledger, "append", find_store_failing_over)
            with pytest.raises(StoreUnavailable):
                session.issuer.access(access)
        reads.write_text(allowed)
        at.deps.config.refresh()
        assert isinstance(session.issuer.access(access), IssuedCredential)
        session.end()
