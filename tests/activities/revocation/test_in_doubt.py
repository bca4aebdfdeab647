"""Issues that nobody recorded: an issue in flight, or a lease that nobody learned. A second check finds them, or they stay in doubt until
they must have ended.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import psycopg
import pytest

from activities.issuing.results import issued_event
from activities.revocation.proof import prove
from activities.revocation.steps import STORE_TIMEOUT_S
from justenough.adapters.vault import VaultUnavailable
from justenough.domain.catalog.models import ResolvedIssue
from justenough.domain.core.ids import request_id
from justenough.domain.jobs.states import CredentialState, Revocable, RevocationState
from justenough.domain.ledger.events import EventType, build_event
from justenough.services import job_history
from justenough.services.revocation_attempts import SECOND_CHECK_DELAY
from tests.activities.catalog_variants import open_changed_desk
from tests.activities.revocation_calls import lose_an_issue, revocation_state, revoke_by_session, revoke_from_outside
from tests.activities.vault_shop import Desk, Held, Shop, issue_decision
from tests.support.wait import until

pytestmark = pytest.mark.servers


def test_a_revocation_from_outside_ends_a_dead_workers_credential_and_waits_for_a_second_check(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)

    first = revoke_from_outside(at, job)

    assert not at.shop.can_log_in(held)
    assert not first.confirmed
    assert first.failures == ()
    assert first.second_check_in is not None
    assert "revocation.confirmed" not in at.entry_types(job)
    at.clock.ahead = SECOND_CHECK_DELAY - timedelta(seconds=2)
    assert not revoke_from_outside(at, job).confirmed
    at.clock.ahead = SECOND_CHECK_DELAY + timedelta(seconds=2)
    assert revoke_from_outside(at, job).confirmed
    assert at.entry_types(job).count("revocation.started") == 1


def test_the_next_clean_check_after_one_that_failed_counts_as_the_first(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    with at.shop.door.closed():
        assert revoke_from_outside(at, job).second_check_in is None
    at.clock.ahead = 2 * SECOND_CHECK_DELAY
    assert revoke_from_outside(at, job).second_check_in is not None
    assert not at.shop.can_log_in(held)


def test_a_credential_issued_during_the_revocation_is_dead_after_the_second_check(at: Desk) -> None:
    job = at.job()
    shop = at.shop
    slow = "SELECT pg_sleep(1.5); CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE shop_orders_read_acme"
    shop.admin(
        "POST", "database/roles/orders-slow", {"db_name": "shop", "default_ttl": "5m", "max_ttl": "5m", "creation_statements": [slow]}
    )
    shop.admin("POST", "sys/policies/acl/je-grant-orders-slow", {"policy": 'path "database/creds/orders-slow" { capabilities = ["read"] }'})
    at.deps.vault.open_prefix(job, 600)
    token = at.deps.vault.create_token(job, policy="je-grant-orders-slow", alias=None, ttl=300)
    arrived: list[Held] = []

    def issue() -> None:
        issued = at.deps.vault.issue(token, ResolvedIssue(path="database/creds/orders-slow", method="read", data={}))
        arrived.append(Held(credential=None, token=token, issued=issued))  # type: ignore[arg-type]  # nobody recorded it

    in_flight = threading.Thread(target=issue)
    in_flight.start()
    until(lambda: is_shop_asleep(shop), "it sleeps")

    first = revoke_from_outside(at, job)
    assert first.second_check_in is not None
    assert not first.confirmed

    in_flight.join()
    at.clock.ahead = SECOND_CHECK_DELAY + timedelta(seconds=1)
    assert revoke_from_outside(at, job).confirmed
    assert not shop.can_log_in(arrived[0])
    assert shop.users_of(job) == []


def test_a_user_created_between_two_checks_is_found_by_its_name_and_ended(at: Desk) -> None:
    job, name = at.job(), "Ab3dEf9h-token-{job}-orders-read-acme"
    until(lambda: revoke_from_outside(at, job).second_check_in is not None, "a first check finds nothing")
    with psycopg.connect(at.shop.superuser, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE \"{name.format(job=job)}\" LOGIN PASSWORD 'landed' IN ROLE shop_orders_read_acme")
    landed = psycopg.connect(at.shop.superuser, user=name.format(job=job), password="landed", autocommit=True)

    def is_confirmed() -> bool:
        """Check again. One check may fail on a busy machine: the user's session has two seconds to end, the store two to answer."""
        at.clock.ahead += SECOND_CHECK_DELAY + timedelta(seconds=1)
        return revoke_from_outside(at, job).confirmed

    until(is_confirmed, "a check has ended it")

    with landed, pytest.raises(psycopg.OperationalError):
        landed.execute("SELECT 1")
    assert at.shop.users_of(job) == []


def test_a_credential_without_a_known_lease_on_an_unsearchable_engine_only_expires(at: Desk) -> None:
    job = at.job()
    held = at.issue(job, 3)
    lost = replace(held, credential=held.credential.model_copy(update={"revocable": Revocable.NOW}))
    result = revoke_by_session(at, job, lost)
    assert not result.confirmed
    assert any("Vault gave it no lease" in why for why in result.failures)
    at.clock.ahead = timedelta(seconds=301)
    assert revoke_by_session(at, job, lost).confirmed
    assert "credential.confirmed" not in at.entry_types(job)
    assert "credential.expired" in at.entry_types(job)


def test_a_credential_whose_lease_is_unknown_is_confirmed_by_its_target(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    lost = replace(held, credential=held.credential.model_copy(update={"lease_id": None}))
    assert revoke_by_session(at, job, lost).confirmed
    assert not at.shop.can_log_in(held)
    assert "credential.confirmed" in at.entry_types(job)


def test_setting_the_clock_does_not_bring_the_second_check_forward(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    assert revoke_from_outside(at, job).second_check_in is not None
    at.clock.stepped = timedelta(hours=3)
    assert revoke_from_outside(at, job).second_check_in is not None
    at.clock.stepped = timedelta(hours=-3)
    assert revoke_from_outside(at, job).second_check_in is not None
    at.clock.ahead = SECOND_CHECK_DELAY + timedelta(seconds=1)
    assert revoke_from_outside(at, job).confirmed
    assert not at.shop.can_log_in(held)


def test_an_unrecorded_issue_on_an_unsearchable_target_is_in_doubt_until_it_must_have_ended(blind: Desk) -> None:
    job, held = lose_an_issue(blind)

    first = revoke_from_outside(blind, job)

    assert any("cannot be searched" in why for why in first.failures)
    assert not revoke_from_outside(blind, job).confirmed
    view = blind.deps.store.jobs.get(job)
    assert view is not None
    assert [(item.accessor, item.lease_id, item.state) for item in view.credentials] == [(None, None, CredentialState.OVERDUE)]
    assert not prove(blind.deps, job).dead
    # The catalog allows 30 minutes; it may have landed until the second look.
    blind.clock.ahead = timedelta(minutes=30) + SECOND_CHECK_DELAY + timedelta(seconds=1)
    assert revoke_from_outside(blind, job).second_check_in is not None
    blind.clock.ahead += SECOND_CHECK_DELAY
    assert revoke_from_outside(blind, job).confirmed
    assert not blind.shop.can_log_in(held)
    told = blind.entry_types(job)
    assert (told.count("credential.doubted"), told.count("credential.expired"), told.count("credential.confirmed")) == (1, 1, 0)


def test_an_unrecorded_issue_is_in_doubt_however_many_entries_its_job_has(blind: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_history, "MAX_ENTRIES_READ", 2_000)
    job, now = blind.job(), blind.clock.now()
    uses = [
        build_event(EventType.CREDENTIAL_USED, job, at=now, about=str(n), credential="c", what="a tool")
        for n in range(job_history.MAX_ENTRIES_READ)
    ]
    blind.deps.store.ledger.append(uses)
    blind.deps.store.ledger.append([issue_decision(job, 1, now)])
    held = blind.issue(job, record=False)
    assert any("cannot be searched" in why for why in revoke_from_outside(blind, job).failures)
    until(lambda: not blind.shop.can_log_in(held), "Vault ended what it knew")


def test_an_issue_that_vault_refused_leaves_no_doubt(blind: Desk) -> None:
    job, now = blind.job(), blind.clock.now()
    request = request_id(job, 1)
    refusal = build_event(EventType.CREDENTIAL_REFUSED, job, at=now, about=request, request=request, why="Vault says no")
    blind.deps.store.ledger.append([issue_decision(job, 1, now), refusal])
    assert revoke_from_outside(blind, job).second_check_in is not None
    blind.clock.ahead = SECOND_CHECK_DELAY + timedelta(seconds=1)
    assert revoke_from_outside(blind, job).confirmed


def test_an_issue_of_an_action_that_the_catalog_has_dropped_is_doubted_for_as_long_as_was_requested(
    at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, held = lose_an_issue(at)
    view, config = at.deps.store.jobs.get(job), at.deps.config.current()
    assert view is not None
    without = replace(config, catalog=config.catalog.model_copy(update={"resources": {}}))
    monkeypatch.setattr(at.deps.config, "current", lambda: without)
    asked_at = at.clock.now()
    assert any("cannot be searched" in why for why in revoke_from_outside(at, job).failures)
    view = at.deps.store.jobs.get(job)
    assert view is not None
    (credential,) = view.credentials
    longest = timedelta(seconds=view.requests[0].ttl) + SECOND_CHECK_DELAY
    assert abs(credential.expires_at - asked_at - longest) < timedelta(seconds=60)
    # Vault ends the leases of a revoked token in its own time, and nothing here looks whether it has.
    until(lambda: not at.shop.can_log_in(held), "Vault ended what it knew")


def test_an_edit_that_declares_an_action_irrevocable_does_not_end_the_doubt_about_what_was_issued_before(
    blind: Desk, tmp_path: Path
) -> None:
    (job, held), later_path = lose_an_issue(blind), tmp_path / "later"
    later_path.mkdir()

    def move_to_a_store_of_values(catalog: dict[str, Any]) -> None:
        del catalog["tools"]
        value = {"issue": {"path": "kv/data/orders"}, "revocable": "never", "max_ttl": "30m", "target": None}
        catalog["resources"]["orders-db"]["actions"]["read"] = value

    with open_changed_desk(blind.shop, later_path, move_to_a_store_of_values) as edited:
        assert edited.deps.config.alarm is None
        after = replace(blind, deps=replace(blind.deps, config=edited.deps.config, targets=edited.deps.targets))
        assert any("cannot be searched" in why for why in revoke_from_outside(after, job).failures)
        blind.clock.ahead = SECOND_CHECK_DELAY + timedelta(seconds=1)
        assert not revoke_from_outside(after, job).confirmed
    until(lambda: not blind.shop.can_log_in(held), "Vault ended what it knew")


def test_a_doubt_lasts_as_long_as_the_role_in_vault_allows(blind: Desk) -> None:
    job, _ = lose_an_issue(blind)
    role, asked_at = blind.shop.admin("GET", "database/roles/orders-read-acme")["data"], blind.clock.now()
    try:
        blind.shop.admin("POST", "database/roles/orders-read-acme", {**role, "default_ttl": "2h", "max_ttl": "2h"})
        assert revoke_from_outside(blind, job).failures
    finally:
        blind.shop.admin("POST", "database/roles/orders-read-acme", role)
    view = blind.deps.store.jobs.get(job)
    assert view is not None
    (credential,) = view.credentials
    # The catalog allows 30 minutes, and 5 were requested.
    assert abs(credential.expires_at - asked_at - SECOND_CHECK_DELAY - timedelta(hours=2)) < timedelta(seconds=60)


def test_no_credential_is_in_doubt_if_the_target_can_be_searched(at: Desk) -> None:
    earlier = at.job()
    assert revoke_by_session(at, earlier, at.issue(earlier)).confirmed
    job, held = lose_an_issue(at)
    assert revoke_from_outside(at, job).second_check_in is not None
    at.clock.ahead = SECOND_CHECK_DELAY + timedelta(seconds=1)
    assert revoke_from_outside(at, job).confirmed
    assert not at.shop.can_log_in(held)
    assert "credential.doubted" not in at.entry_types(job)


def test_a_session_that_wakes_up_provides_the_handles_of_a_credential_in_doubt(blind: Desk) -> None:
    job, held = lose_an_issue(blind)
    assert revoke_from_outside(blind, job).failures
    blind.deps.store.ledger.append([issued_event(job, held.credential)])
    assert revoke_by_session(blind, job, held).confirmed
    assert "credential.confirmed" in blind.entry_types(job)
    assert not blind.shop.can_log_in(held)


def is_shop_asleep(shop: Shop) -> bool:
    asleep = "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep(1.5)%' AND pid <> pg_backend_pid() AND wait_event = 'PgSleep'"
    with psycopg.connect(shop.superuser, autocommit=True) as connection:
        return connection.execute(asleep).fetchone() is not None


def test_a_store_that_answers_is_not_blamed_while_vault_hangs(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    job, held = lose_an_issue(at)

    def hang(*_: object, **__: object) -> NoReturn:
        threading.Event().wait(STORE_TIMEOUT_S + 0.5)
        raise VaultUnavailable("Vault did not answer")

    with monkeypatch.context() as patched:
        patched.setattr(at.deps.vault, "database_role", hang)
        result = revoke_from_outside(at, job)
    assert result.failures == ("issues in flight: Vault did not answer",)
    assert not at.shop.can_log_in(held), "what could be done was done"


def test_a_store_that_hangs_while_doubts_are_examined_does_not_delay_a_revocation(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    job, held = lose_an_issue(at)
    released = threading.Event()

    def hang(_digest: str) -> None:
        released.wait(60)

    with monkeypatch.context() as patched:
        patched.setattr(at.deps.store.positive_controls, "found_at", hang)
        result = revoke_from_outside(at, job)
    released.set()
    assert result.failures == ("issues in flight: did not answer within 2 s",)
    assert not at.shop.can_log_in(held)


def test_a_proof_does_not_cover_what_was_found_alive_after_its_inspection(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier = at.job()
    assert revoke_by_session(at, earlier, at.issue(earlier)).confirmed
    job, _ = lose_an_issue(at)
    assert revoke_from_outside(at, job).second_check_in is not None
    at.clock.ahead = SECOND_CHECK_DELAY + timedelta(seconds=2)
    seen_from, read_role = list[str](), at.deps.vault.database_role

    def look_meanwhile(*args: Any, **how: Any) -> Any:
        seen_from.append(at.clock.now().isoformat())
        at.clock.ahead += timedelta(seconds=5)
        return read_role(*args, **how)

    with monkeypatch.context() as patched:
        patched.setattr(at.deps.vault, "database_role", look_meanwhile)
        assert revoke_from_outside(at, job).confirmed
    found = {"failures": ["users in shop: one"], "attempt": 2, "seen_from": seen_from[0]}
    at.deps.store.ledger.append([build_event(EventType.REVOCATION_OVERDUE, job, at=at.clock.now(), about="other", by="guard", **found)])
    assert revocation_state(at, job) is RevocationState.OVERDUE


def test_a_sessions_exit_after_the_store_was_read_ends_the_doubt_of_another_revocation(
    blind: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = blind.job()
    held = blind.issue(job, record=False)
    trusted = held.credential.model_copy(update={"search_digest": "sha256:a search that is not trusted any more"})
    blind.deps.store.ledger.append([issued_event(job, trusted)])
    revoke_prefix = blind.deps.vault.revoke_prefix

    def exit_meanwhile(prefix: str) -> None:
        patched.undo()
        assert revoke_by_session(blind, job, held).confirmed
        revoke_prefix(prefix)

    with monkeypatch.context() as patched:
        patched.setattr(blind.deps.vault, "revoke_prefix", exit_meanwhile)
        _ = revoke_from_outside(blind, job)
    types = blind.entry_types(job)
    assert (types.count("credential.doubted"), types.count("credential.confirmed")) == (1, 2)
    assert revocation_state(blind, job) is RevocationState.CONFIRMED
