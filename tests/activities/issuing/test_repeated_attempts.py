"""A job asks again after an attempt that failed: each credential that Vault may have issued has its own record."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest

from activities.issuing.authorization import record_issue_decision
from activities.issuing.results import AccessClosed, IssuedCredential, IssueRefused, PendingRequest
from activities.revocation import revoke as revocation
from activities.revocation.proof import prove
from activities.revocation.revoke import RevocationResult, revoke
from activities.revocation.steps import try_record
from justenough.adapters.targets.postgres import TargetDown
from justenough.adapters.vault import IssuedSecret, VaultUnavailable
from justenough.domain.core.ids import request_id
from justenough.domain.jobs.credentials import HeldAccess
from justenough.domain.jobs.states import CredentialState
from justenough.domain.ledger.events import Event, EventType
from justenough.services.approval_ladder import ladder_for_recorded_request
from justenough.services.dependencies import Deps
from justenough.services.evaluate_request import evaluate_request
from justenough.services.ledger_events import access_decided_event, approval_decided_event
from justenough.services.revocation_attempts import SECOND_CHECK_DELAY
from tests.activities.issuing.test_reason_sources import sealed_vault
from tests.activities.issuing.test_renewal_check import approval_of
from tests.activities.issuing_session import Session, start_session
from tests.activities.plain_roles import NOTHING, drop_user, open_plain_desk, plain_users, standby_away
from tests.activities.revocation_calls import revoke_from_outside
from tests.activities.vault_shop import Desk, Shop, copy_config, open_desk
from tests.support.wait import until

pytestmark = pytest.mark.servers
ORDERS = {"resource": "orders-db", "action": "read", "ttl": "5m", "reason": "Look the order up"}
MENDING = {"resource": "orders-db", "action": "write", "ttl": "5m", "reason": "Mend the order", "at": "request"}
IN_DOUBT = "its lease is not known and its target cannot be searched"


def request_approved_access(session: Session) -> PendingRequest:
    """Request the order's access at runtime, and record that a person approved it."""
    at, (access,) = session.at, session.verified.spec.access
    waiting = session.issuer.access(access)
    assert isinstance(waiting, PendingRequest)
    view = at.deps.store.requests.get(waiting.request_id)
    assert view is not None
    approver = at.shop.newcomer(f"approver-{session.job[-8:]}", "support-leads")
    answer = approval_of(at, session.job, session.verified, approver, tier=1)
    ladder = ladder_for_recorded_request(view, requester=session.verified.person.id, respond_by=at.deps.now())
    approved = ladder.model_copy(update={"answers": (answer,)})
    at.deps.store.ledger.append([approval_decided_event(session.job, approved, answer, verdict="approved", at=at.deps.now())])
    return waiting


def test_an_approval_covers_nothing_after_its_time_although_the_machine_was_suspended_meanwhile(at: Desk) -> None:
    session = start_session(at, MENDING)
    (access,) = session.verified.spec.access
    waiting = request_approved_access(session)
    assert isinstance(session.issuer.access(access), IssuedCredential)
    # The time of day goes on, and ticks stand still, as on a suspended machine.
    at.clock.stepped = timedelta(minutes=6)
    again = session.issuer.access(access)
    assert isinstance(again, PendingRequest)
    assert again.request_id != waiting.request_id


def test_a_credential_that_a_person_revokes_at_once_is_no_fault_of_its_target(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    session, inspect = start_session(at, ORDERS), at.deps.targets.inspect

    def revoke_and_inspect(*arguments: Any, **options: Any) -> Any:
        for item in session.issuer.holdings.alive:
            at.deps.vault.revoke_lease(str(item.lease_id))
        return inspect(*arguments, **options)

    monkeypatch.setattr(at.deps.targets, "inspect", revoke_and_inspect)
    with pytest.raises(IssueRefused, match="it was revoked before its user was searched for"):
        session.issue()


def test_an_approved_request_that_is_issued_again_records_each_lease(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier, session = start_session(at, MENDING), start_session(at, MENDING)
    for each in (earlier, session):
        request_approved_access(each)
    # From now on it is known that the target shows such users.
    assert isinstance(earlier.issuer.access(earlier.verified.spec.access[0]), IssuedCredential)
    (access,), vault_issue, leases = session.verified.spec.access, at.deps.vault.issue, list[str | None]()

    def issue_and_lose_the_target(*arguments: Any) -> IssuedSecret:
        issued = vault_issue(*arguments)
        leases.append(issued.lease_id)
        if len(leases) == 1:
            at.shop.door.close()
        return issued

    monkeypatch.setattr(at.deps.vault, "issue", issue_and_lose_the_target)
    with pytest.raises(TargetDown):
        session.issuer.access(access)
    at.shop.door.open()
    given = session.issuer.access(access)
    assert isinstance(given, IssuedCredential)

    recorded = {view.id: view.lease_id for view in at.deps.store.credentials.list(job=session.job).items}
    assert set(recorded.values()) == set(leases), "each can be revoked by somebody who reads the ledger"
    assert recorded[given.credential.id] == given.credential.lease_id == leases[1]
    assert {item.lease_id for item in session.issuer.holdings.alive} == set(leases)
    for each in (earlier, session):
        assert each.end().confirmed
        assert at.shop.users_of(each.job) == []


def deciding_policies(session: Session) -> list[list[str]]:
    """Return the policies of each recorded decision before an issue."""
    entries = session.at.deps.store.ledger.entries(job=session.job, types=[EventType.ACCESS_DECIDED]).items
    return [entry.data["policies"] for entry in entries if entry.data["phase"] == "issue"]


@pytest.mark.parametrize("asked", [ORDERS, MENDING])
def test_what_is_issued_by_another_policy_than_before_has_a_decision_of_its_own(shop: Shop, tmp_path: Path, asked: dict[str, str]) -> None:
    folder = copy_config(tmp_path)
    with open_desk(shop, tmp_path, folder=folder) as at:
        session = start_session(at, asked)
        (access,) = session.verified.spec.access
        if asked is MENDING:
            # A person approves the request, and then Vault does not answer. The attempt keeps its number.
            request_approved_access(session)
            with sealed_vault(at), pytest.raises(VaultUnavailable):
                session.issuer.access(access)
        else:
            session.issue()
        (before,) = deciding_policies(session)
        for file in (folder / "policies").glob("*.cedar"):
            file.write_text(file.read_text().replace(f'"{before[0]}"', '"edited-meanwhile"'))
        at.deps.config.refresh()
        assert isinstance(session.issuer.access(access), IssuedCredential)
        assert deciding_policies(session) == [before, ["edited-meanwhile", *before[1:]]]
        session.end()


def test_each_decision_before_an_attempt_is_recorded_although_the_same_policies_made_it(at: Desk) -> None:
    session = start_session(at, ORDERS)
    (access,) = session.verified.spec.access
    decision, facts = evaluate_request(at.deps, session.job, session.verified, access, held=HeldAccess(), phase="start")
    for tier in (3, 2, 1, 2):
        edited = decision.model_copy(update={"outcome": "needs_approval", "tier": tier})
        record_issue_decision(
            at.deps, access_decided_event(session.job, request_id(session.job, 1), edited, "", facts=facts, phase="issue", at=at.deps.now())
        )
    entries = at.deps.store.ledger.entries(job=session.job, types=[EventType.ACCESS_DECIDED]).items
    assert [entry.data["tier"] for entry in entries if entry.data["phase"] == "issue"] == [3, 2, 1]
    session.end()


def test_an_issue_whose_answer_was_lost_stays_in_doubt_after_the_next_one(shop: Shop, tmp_path: Path) -> None:
    with open_plain_desk(shop, tmp_path, revocation=NOTHING) as at:
        session, before = start_session(at, ORDERS), plain_users(shop)
        held = session.issue()
        known = plain_users(shop) - before
        with standby_away(shop), pytest.raises(VaultUnavailable):
            session.issuer.access(held.access)
        (lost,) = plain_users(shop) - before - known
        again = session.issuer.access(held.access)
        assert isinstance(again, IssuedCredential)
        for item in (held, again):
            drop_user(shop, str(item.credential.user))

        at.clock.ahead += SECOND_CHECK_DELAY
        results = [revoke_from_outside(at, session.job)]
        at.clock.ahead += SECOND_CHECK_DELAY
        results.append(revoke_from_outside(at, session.job))
        assert lost in plain_users(shop), "nobody knows of it, and nobody drops it"
        assert not any(result.confirmed for result in results)
        assert any(IN_DOUBT in why for why in results[-1].failures), results
        ends = revoke(
            at.deps, session.job, by="session", settled=session.issuer.settled, why="it ended", known=session.issuer.holdings.alive
        )
        assert not ends.confirmed
        drop_user(shop, lost)


def test_an_attempt_that_dies_after_one_that_vault_refused_is_in_doubt(shop: Shop, tmp_path: Path) -> None:
    with open_plain_desk(shop, tmp_path, revocation=NOTHING) as at:
        session = start_session(at, ORDERS)
        held = session.issue()
        role = shop.admin("GET", "database/roles/plain-read")["data"]
        shop.admin("DELETE", "database/roles/plain-read")
        with pytest.raises(IssueRefused, match="unknown role"):
            session.issuer.access(held.access)
        shop.admin("POST", "database/roles/plain-read", role)
        lost = session.die_during(lambda: session.issuer.access(held.access))
        drop_user(shop, str(held.credential.user))
        assert any(IN_DOUBT in why for why in revoke_from_outside(at, session.job).failures)
        types = [entry.type for entry in at.deps.store.ledger.entries(job=session.job, types=[EventType.CREDENTIAL_DOUBTED]).items]
        assert len(types) == 1
        drop_user(shop, lost)


def test_a_credential_whose_resource_leaves_the_catalog_while_vault_issues_it_is_held_and_revoked(
    at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, config, vault_issue = start_session(at, ORDERS), at.deps.config.current(), at.deps.vault.issue

    def issue_and_edit_the_catalog(*arguments: Any) -> IssuedSecret:
        issued = vault_issue(*arguments)
        resources = {name: item for name, item in config.catalog.resources.items() if name != "orders-db"}
        edited = replace(config, catalog=config.catalog.model_copy(update={"resources": resources}))
        monkeypatch.setattr(at.deps.config, "current", lambda: edited)
        return issued

    monkeypatch.setattr(at.deps.vault, "issue", issue_and_edit_the_catalog)
    with contextlib.suppress(IssueRefused):
        session.issue()
    (held,) = session.issuer.holdings.alive
    assert held.lease_id is not None
    (recorded,) = at.deps.store.credentials.list(job=session.job).items
    assert recorded.lease_id == held.lease_id
    session.end()
    assert not at.deps.vault.is_lease_alive(held.lease_id)


@pytest.mark.parametrize("ahead", [timedelta(), timedelta(minutes=1)], ids=["clocks agree", "the killer's clock is ahead"])
@pytest.mark.parametrize("is_recorded_late", [False, True])
def test_a_doubt_about_an_issue_that_vault_then_refused_ends_with_the_jobs_proof(
    at: Desk, monkeypatch: pytest.MonkeyPatch, *, is_recorded_late: bool, ahead: timedelta
) -> None:
    killer = replace(at.deps, now=lambda: at.clock.now() + ahead)
    session, vault, record, may_record = start_session(at, ORDERS), at.deps.vault, try_record, threading.Event()
    vault_issue, results = vault.issue, list[RevocationResult]()

    def record_late(deps: Deps, facts: list[Event]) -> tuple[Event, ...]:
        if threading.current_thread() is kill:
            may_record.wait(60)
        return record(deps, facts)

    def issue_during_a_kill(*arguments: Any) -> IssuedSecret:
        kill.start()
        until(lambda: vault.prefix_accessors(session.job) == (), "the kill has revoked the job's token")
        if not is_recorded_late:
            may_record.set()
            kill.join(60)
        return vault_issue(*arguments)

    kill = threading.Thread(target=lambda: results.append(revoke(killer, session.job, by="person", settled=False, why="killed")))
    monkeypatch.setattr(revocation, "try_record", record_late)
    monkeypatch.setattr(vault, "issue", issue_during_a_kill)
    with pytest.raises(AccessClosed):
        session.issue()
    assert session.issuer.settled
    assert session.end().confirmed
    may_record.set()
    kill.join(60)
    assert any(IN_DOUBT in why for why in results[0].failures)
    (doubt,) = at.deps.store.credentials.list(job=session.job).items
    assert (doubt.state, doubt.confirmed_how) == (
        CredentialState.CONFIRMED,
        "Vault answered each request of its session, and issued no such credential",
    )
    assert at.deps.store.credentials.list(live=True).items == ()
    report = prove(at.deps, session.job)
    assert (report.revoked, report.failures) == (True, ())


def test_an_attempt_that_dies_long_after_its_decision_is_in_doubt_for_as_long_as_its_credential_may_live(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_vault_sealed(*_: object) -> NoReturn:
        raise VaultUnavailable("sealed")

    with open_plain_desk(shop, tmp_path, revocation=NOTHING) as at:
        session = start_session(at, ORDERS)
        with monkeypatch.context() as patched:
            patched.setattr(at.deps.vault, "open_prefix", find_vault_sealed)
            with pytest.raises(VaultUnavailable):
                session.issue()
        # The decision is recorded, and Vault was not asked. Much later Vault is back.
        at.clock.ahead += timedelta(hours=1)
        lost = session.die_during(session.issue)
        results = [revoke_from_outside(at, session.job)]
        at.clock.ahead += SECOND_CHECK_DELAY
        results.append(revoke_from_outside(at, session.job))
        assert lost in plain_users(shop)
        assert not any(result.confirmed for result in results)
        assert any(IN_DOUBT in why for why in results[-1].failures), results
        drop_user(shop, lost)
