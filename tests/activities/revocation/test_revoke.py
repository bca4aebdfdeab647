"""Revocation by its effects on real servers: logins that fail, roles that are gone, sessions that are cut, whatever else is down."""

from __future__ import annotations

import threading
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import delete, insert, select, text, update

from activities.issuing.results import issued_event, renewed_event
from activities.revocation.proof import NONE_WITH_JOB_ID, VALUE_STAYS, prove
from activities.revocation.revoke import RevocationResult, record_lapsed, revoke, revoke_one
from console.presentation.job_status import residual_text
from justenough.adapters.store import Store, queries
from justenough.adapters.store.tables import CREDENTIALS, LEDGER
from justenough.adapters.targets.inspector import TargetInspector
from justenough.adapters.vault import Vault
from justenough.domain.core.errors import NotFound
from justenough.domain.core.ids import credential_id
from justenough.domain.core.rfc3339 import to_rfc3339
from justenough.domain.core.secret import Secret
from justenough.domain.jobs.states import CredentialState, Revocable, RevocationState
from justenough.domain.ledger.events import EventType
from justenough.services import job_history
from justenough.services.revocation_attempts import SECOND_CHECK_DELAY
from tests.activities.revocation_calls import revocation_state, revoke_by_session, revoke_from_outside
from tests.activities.vault_shop import EXAMPLE, Desk, Shop, copy_config, open_desk, secret_values
from tests.support.canned_server import serve_canned_answers
from tests.support.claims import claim_job
from worker.provisioning.setup import VaultTarget, provision_vault

pytestmark = pytest.mark.servers


def test_after_revocation_the_login_fails_and_nothing_of_the_job_is_left(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    assert at.shop.can_log_in(held)

    result = revoke_by_session(at, job, held)

    assert result.confirmed, result
    assert not at.shop.can_log_in(held)
    assert at.shop.users_of(job) == []
    assert at.deps.vault.prefix_accessors(job) == ()
    assert at.shop.status("GET", "database/creds/orders-read-acme", token=held.token.secret.reveal()) == 403
    assert at.entry_types(job) == ["revocation.started", "credential.revoked", "credential.confirmed", "revocation.confirmed"]


def test_a_confirmed_credential_is_shown_as_confirmed_in_the_read_model(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    revoke_by_session(at, job, held)
    view = at.deps.store.jobs.get(job)
    assert view is not None
    assert view.revocation.state is RevocationState.CONFIRMED
    assert [item.state for item in view.credentials] == [CredentialState.CONFIRMED]


def test_a_jobs_credentials_are_checked_several_at_once(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    job, both, is_lease_alive = at.job(), threading.Barrier(2, timeout=60), at.deps.vault.is_lease_alive
    revoke_by_session(at, job, at.issue(job, 1), at.issue(job, 2))

    def check(lease: str) -> bool:
        both.wait()
        return is_lease_alive(lease)

    monkeypatch.setattr(at.deps.vault, "is_lease_alive", check)
    assert prove(at.deps, job).dead


def test_an_open_session_in_the_database_is_cut(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    with at.shop.login(held) as connection:
        revoke_by_session(at, job, held)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


def test_read_and_write_end_together_and_another_job_keeps_working(at: Desk) -> None:
    job, other = at.job(), at.job()
    read, write, bystander = at.issue(job, 1), at.issue(job, 2), at.issue(other)

    assert revoke_by_session(at, job, read, write).confirmed

    assert [at.shop.can_log_in(item) for item in (read, write, bystander)] == [False, False, True]
    assert revoke_by_session(at, other, bystander).confirmed


def apply_to_vault(shop: Shop, folder: Path) -> None:
    """Set Vault up for another configuration folder, as `justenough vault apply` does."""
    settings = shop.settings.model_copy(update={"config": folder})
    provision_vault(VaultTarget(settings, admin_token=Secret(shop.admin_token), environment=shop.environment))


def test_what_was_issued_at_a_path_that_left_the_catalog_is_revoked(shop: Shop, tmp_path: Path) -> None:
    folder, old, policy = copy_config(tmp_path), "database/creds/orders-read-acme", "sys/policies/acl/je-worker"
    with open_desk(shop, tmp_path, folder=folder) as at:
        job = at.job()
        held = at.issue(job)
        catalog = folder / "catalog.yaml"
        catalog.write_text(catalog.read_text().replace("database/creds/orders-read-{tenant}", "database/creds/orders-read-{tenant}-2"))
        try:
            apply_to_vault(shop, folder)
            assert revoke_by_session(at, job, held).confirmed
            assert not at.shop.can_log_in(held)
            # Nothing is left there now, so the worker loses its rights.
            shop.admin("PUT", f"sys/leases/revoke-prefix/{old}", {"sync": True})
            apply_to_vault(shop, folder)
            assert f"{old}/" not in shop.admin("GET", policy)["data"]["policy"]
        finally:
            apply_to_vault(shop, EXAMPLE)


def test_revoking_twice_is_fine_and_so_is_a_lease_that_is_already_gone(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    assert held.credential.lease_id is not None
    at.shop.admin("PUT", f"sys/leases/revoke/{held.credential.lease_id}", {"sync": True})
    assert revoke_by_session(at, job, held).confirmed
    assert revoke_by_session(at, job, held).confirmed


def test_a_job_that_never_held_anything_is_confirmed(at: Desk) -> None:
    assert revoke_by_session(at, at.job()).confirmed


def test_a_revocation_closes_the_jobs_claim_and_deletes_its_prefix(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    claim_job(at.deps.store, job, run="r", owner="o", now=at.clock.now())
    revoke_by_session(at, job, held)
    claim = at.deps.store.claims.get(job)
    assert claim is not None
    assert not claim.open
    assert at.deps.vault.job_prefixes("dev").count(job) == 0


def test_a_store_outage_neither_stops_the_revocation_nor_loses_its_events(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    without = replace(at.deps, store=Store("postgresql://nobody:nothing@127.0.0.1:1/none"))

    result = revoke(without, job, by="session", settled=True, why="it ended", known=(held.credential,))

    assert result.confirmed
    assert not at.shop.can_log_in(held)
    assert [fact.type for fact in result.events][-1] is EventType.REVOCATION_CONFIRMED
    at.deps.store.ledger.append(result.events)
    view = at.deps.store.jobs.get(job)
    assert view is not None
    assert view.revocation.state is RevocationState.CONFIRMED


def test_a_revocation_made_while_the_store_was_away_is_dated_to_when_it_was_made(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    without = replace(at.deps, store=Store("postgresql://nobody:nothing@127.0.0.1:1/none"))
    before = at.clock.now()
    assert not revoke(without, job, by="compensation", settled=False, why="its worker died").confirmed
    done = at.clock.now()
    assert not at.shop.can_log_in(held)

    at.clock.ahead = timedelta(minutes=10)
    assert revoke_from_outside(at, job).second_check_in is not None

    view = at.deps.store.credentials.get(held.credential.id)
    assert view is not None
    assert view.revoked_at is not None
    assert view.confirmed_at is not None
    assert before <= view.revoked_at <= done
    assert before <= view.confirmed_at <= done
    written = {entry.type: entry.at for entry in at.deps.store.ledger.entries(job=job).items}
    assert min(written["credential.revoked"], written["credential.confirmed"]) >= done + timedelta(minutes=9)
    assert before <= written["revocation.started"] <= done
    job_view = at.deps.store.jobs.get(job)
    assert job_view is not None
    assert job_view.revocation.since == written["revocation.started"]


def test_a_job_that_was_alive_in_between_is_dated_to_the_later_clean_check(at: Desk) -> None:
    tracker, job = at.deps.revocation_tracker, at.job()
    first, alive, later = (at.clock.now() + timedelta(minutes=number) for number in range(3))
    assert tracker.record_inspection(job, dead=True, now=first) == first
    assert tracker.record_inspection(job, dead=False, now=alive) is None
    assert tracker.record_inspection(job, dead=True, now=later) == later


def test_without_the_store_a_revocation_ends_the_login_but_is_not_confirmed(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    without = replace(at.deps, store=Store("postgresql://nobody:nothing@127.0.0.1:1/none"))
    result = revoke(without, job, by="guard", settled=False, why="its workflow closed")
    assert not at.shop.can_log_in(held)
    assert not result.confirmed
    assert any("store" in why for why in result.failures)


def test_a_revocation_while_vault_is_away_names_vault_and_confirms_nothing(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    away = replace(at.deps, vault=_unreachable_vault())
    failed = revoke(away, job, by="session", settled=True, why="it ended", known=(held.credential,))
    assert not failed.confirmed
    assert any("did not answer" in why for why in failed.failures)
    assert revoke_by_session(at, job, held).confirmed


@pytest.mark.parametrize(
    "status, body",
    [
        (404, b"default backend - 404"),
        (404, b""),
        (404, b'{"message": "no Route matched with those values"}'),
        (200, b"<html>Back in a moment</html>"),
        (200, b""),
    ],
)
def test_the_answers_of_a_proxy_without_its_vault_prove_nothing(at: Desk, status: int, body: bytes) -> None:
    job = at.job()
    at.deps.vault.open_prefix(job, 600)
    token = at.deps.vault.create_token(job, policy="je-grant-orders-db-read", alias="je-scope-tenant-acme", ttl=300)
    with serve_canned_answers() as proxy, closing(Vault(proxy.address)) as vault:
        proxy.set_response(status, body, media="text/plain")
        vault.login_token(Secret("t"))
        behind = replace(at.deps, vault=vault)
        results = [revoke_from_outside(replace(at, deps=behind), job)]
        at.clock.ahead = 2 * SECOND_CHECK_DELAY
        results.append(revoke_from_outside(replace(at, deps=behind), job))
    assert at.deps.vault.is_accessor_alive(token.accessor)
    assert [result.confirmed for result in results] == [False, False]
    assert any("check VAULT_ADDR and that server" in why for why in results[-1].failures), results[-1]
    at.deps.vault.revoke_prefix(job)


def test_a_secret_read_from_kv_is_residual_and_the_job_says_so(at: Desk) -> None:
    job = at.job()
    held = at.issue(job, 3)
    result = revoke_by_session(at, job, held)
    assert result.confirmed
    view = at.deps.store.jobs.get(job)
    assert view is not None
    assert [(item.state, item.why) for item in view.credentials] == [
        (CredentialState.RESIDUAL, f"it cannot be revoked: its token is dead, but {VALUE_STAYS}")
    ]
    assert (view.revocation.state, view.revocation.residual_until) == (RevocationState.RESIDUAL, None)
    assert at.entry_types(job) == ["revocation.started", "credential.revoked", "credential.residual", "revocation.confirmed"]
    assert at.deps.store.credentials.live_of(job) == (), "nothing can be learned of it any more"
    proof = prove(at.deps, job)
    assert (proof.revoked, proof.dead) == (True, False)
    assert [finding.detail for finding in proof.findings if finding.residual] == [VALUE_STAYS]
    at.clock.ahead = timedelta(days=400)
    assert revoke_from_outside(at, job).second_check_in is not None
    assert not prove(at.deps, job).dead, "time does not change it"
    assert at.shop.status("GET", "kv/data/tenants/acme/helpdesk", token=held.token.secret.reveal()) == 403


def test_a_secret_read_for_a_tool_call_was_never_given_to_the_job_and_is_not_residual(at: Desk) -> None:
    job = at.job()
    held = at.issue(job, 3)
    used = replace(held, credential=held.credential.model_copy(update={"held_by_job": False}))
    assert revoke_by_session(at, job, used).confirmed
    assert revocation_state(at, job) is RevocationState.CONFIRMED
    assert "credential.expired" in at.entry_types(job)
    assert prove(at.deps, job).revoked


def test_a_secret_that_a_running_job_releases_is_not_said_to_have_a_dead_token(at: Desk) -> None:
    job = at.job()
    held = at.issue(job, 3)
    assert revoke_one(at.deps, job, held.credential.id, by="person", why="a test").confirmed
    assert at.deps.vault.is_accessor_alive(held.token.accessor), "it ends with the job"
    (view,) = at.deps.store.credentials.list(job=job).items
    assert (view.state, view.why) == (CredentialState.RESIDUAL, f"it cannot be revoked: {VALUE_STAYS}")
    assert revoke_by_session(at, job, held).confirmed
    assert not at.deps.vault.is_accessor_alive(held.token.accessor)


def test_a_credential_that_only_expires_is_residual_until_its_expiry(at: Desk) -> None:
    job = at.job()
    held = at.issue(job, 3, record=False)
    timed = held.credential.model_copy(update={"revocable": Revocable.ON_EXPIRY})
    at.deps.store.ledger.append([issued_event(job, timed)])
    assert revoke_by_session(at, job, replace(held, credential=timed)).confirmed
    record_lapsed(at.deps)
    assert "credential.expired" not in at.entry_types(job)
    view = at.deps.store.jobs.get(job)
    assert view is not None
    assert (view.revocation.state, view.revocation.residual_until) == (RevocationState.RESIDUAL, timed.expires_at)
    proof = prove(at.deps, job)
    assert (proof.revoked, proof.dead) == (True, False)
    ends = f"it cannot be revoked early; it is valid until {to_rfc3339(timed.expires_at)}"
    assert [finding.detail for finding in proof.findings if finding.residual] == [ends]
    at.clock.ahead = timedelta(seconds=301)
    assert prove(at.deps, job).dead
    assert record_lapsed(at.deps) == ()
    steps = ["credential.revoked", "credential.residual", "credential.expired"]
    assert [name for name in at.entry_types(job) if name.startswith("credential.")] == steps
    assert revocation_state(at, job) is RevocationState.CONFIRMED


def test_one_credential_can_be_revoked_while_its_job_goes_on(at: Desk) -> None:
    job = at.job()
    read, write = at.issue(job, 1), at.issue(job, 2)
    assert revoke_one(at.deps, job, read.credential.id, by="person", why="a test").confirmed
    assert [at.shop.can_log_in(item) for item in (read, write)] == [False, True]
    with pytest.raises(NotFound):
        revoke_one(at.deps, at.job(), write.credential.id, by="person", why="a test")
    assert revoke_by_session(at, job, read, write).confirmed


def test_a_force_revoked_lease_is_not_taken_as_proof_that_its_user_is_gone(at: Desk) -> None:
    job = at.job()
    forced, other = at.issue(job, 1), at.issue(job, 2)
    with at.shop.door.closed():
        # What an administrator does to be rid of a lease: Vault forgets it, whatever the target says.
        at.shop.admin("POST", "sys/leases/revoke-force/database/creds/orders-read-acme")
    result = revoke_one(at.deps, job, forced.credential.id, by="person", why="a test")
    assert (result.confirmed, at.shop.can_log_in(forced)) == (False, True)
    assert any("a user of the job still exists in" in why for why in result.failures)
    assert revoke_by_session(at, job, forced, other).confirmed
    assert [at.shop.can_log_in(item) for item in (forced, other)] == [False, False]


def test_the_user_of_a_force_revoked_lease_is_found_in_a_database_whose_clients_get_bytes(at: Desk) -> None:
    """As those of a database with the encoding SQL_ASCII do by default."""
    job, current = at.job(), at.deps.config.current
    forced, other = at.issue(job, 1), at.issue(job, 2)
    with psycopg.connect(at.shop.superuser, autocommit=True) as database:
        database.execute("ALTER DATABASE shop SET client_encoding = 'SQL_ASCII'")
        targets = TargetInspector(at.deps.vault, lambda: current().catalog, installation=at.deps.settings.installation)
        try:
            with at.shop.door.closed():
                at.shop.admin("POST", "sys/leases/revoke-force/database/creds/orders-read-acme")
            deps = replace(at.deps, targets=targets)
            result = revoke_one(deps, job, forced.credential.id, by="person", why="a test")
        finally:
            database.execute("ALTER DATABASE shop RESET client_encoding")
            targets.close()
    assert (result.confirmed, at.shop.can_log_in(forced)) == (False, True)
    assert revoke_by_session(at, job, forced, other).confirmed


def test_a_proof_is_a_new_check_that_finds_live_access(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    alive = prove(at.deps, job)
    assert not alive.dead
    assert {finding.what.split()[0] for finding in alive.findings if finding.alive} == {"tokens", "lease", "token", "users"}
    revoke_by_session(at, job, held)
    proof = prove(at.deps, job)
    assert proof.dead
    assert {finding.detail for finding in proof.findings if finding.what.startswith("lease ")} == {"unknown to Vault"}
    (users,) = [finding for finding in proof.findings if finding.what.startswith("users in ")]
    assert users.detail == f"its known user does not exist, and {NONE_WITH_JOB_ID}"
    assert not any("older" in finding.what for finding in proof.findings)
    with pytest.raises(NotFound):
        prove(at.deps, "j-dev-00000000000000000000000000")


def test_a_proof_finds_the_user_of_a_credential_that_nobody_recorded(at: Desk) -> None:
    job = at.job()
    held = at.issue(job, record=False)
    assert {finding.what.split()[0] for finding in prove(at.deps, job).findings if finding.alive} == {"tokens", "users"}
    revoke_by_session(at, job, held)


@pytest.mark.parametrize("edit", [{"lease_id": "x", "accessor": "y", "user": None}, {"revocable": "now"}, None])
def test_a_proof_checks_what_the_ledger_records_whatever_somebody_wrote_into_the_stores_tables(
    at: Desk, edit: dict[str, Any] | None
) -> None:
    job = at.job()
    held = at.issue(job, 1), at.issue(job, 3)
    with at.deps.store._engine.begin() as connection:
        rows = CREDENTIALS.c.job_id == job
        connection.execute(update(CREDENTIALS).where(rows).values(edit) if edit else delete(CREDENTIALS).where(rows))
    handles = {f"lease {held[0].credential.lease_id}", f"token {held[0].credential.accessor}", f"value of {held[1].credential.id}"}
    assert handles <= {finding.what for finding in prove(at.deps, job).findings if finding.alive}
    revoke_by_session(at, job, held[0])


def test_a_proof_checks_what_the_ledger_records_however_many_credentials_somebody_invented(
    at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "MAX_DEAD_CREDENTIALS", 2)
    job = at.job()
    held = at.issue(job)
    with at.deps.store._engine.begin() as connection:
        row = CREDENTIALS.c.job_id == job
        connection.execute(update(CREDENTIALS).where(row).values(live=False, state=CredentialState.CONFIRMED.value))
        real = dict(connection.execute(select(CREDENTIALS).where(row)).mappings().one())
        later = real["issued_at"] + timedelta(seconds=1)
        invented = ({"id": credential_id(job, 1, nth), "issued_at": later, "lease_id": "x", "accessor": "y"} for nth in range(2, 5))
        connection.execute(insert(CREDENTIALS), [real | one for one in invented])
    assert f"lease {held.credential.lease_id}" in {finding.what for finding in prove(at.deps, job).findings if finding.alive}
    revoke_by_session(at, job, held)


@pytest.mark.parametrize("seconds", [60, 59])
def test_a_proof_believes_that_a_credential_has_ended_if_the_ledger_records_that_its_lease_was_shortened(at: Desk, seconds: int) -> None:
    job = at.job()
    held = at.issue(job, 3)
    timed, end = held.credential.model_copy(update={"revocable": Revocable.ON_EXPIRY}), held.credential.issued_at + timedelta(seconds=60)
    timed = timed.model_copy(update={"id": credential_id(job, 3, 2)})
    shorter = timed.model_copy(update={"expires_at": end})
    at.deps.store.ledger.append([issued_event(job, timed), renewed_event(job, shorter, at=timed.issued_at)])
    with at.deps.store._engine.begin() as connection:
        row = CREDENTIALS.c.id == timed.id
        connection.execute(update(CREDENTIALS).where(row).values(expires_at=timed.issued_at + timedelta(seconds=seconds)))
    at.clock.ahead += timedelta(seconds=61)
    is_believed = seconds == 60
    residual = [finding.credential for finding in prove(at.deps, job).findings if finding.residual]
    assert (timed.id in residual) is not is_believed
    revoke_by_session(at, job, held)


def test_a_proof_goes_by_the_target_in_which_the_ledger_says_that_a_user_was_seen(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    elsewhere = held.credential.model_copy(update={"id": credential_id(job, 1, 2), "target_digest": "sha256:another"})
    at.deps.store.ledger.append([issued_event(job, elsewhere)])
    revoke_by_session(at, job, held)
    before = prove(at.deps, job)
    assert any("in a target that the catalog no longer has" in why for why in before.failures), before
    with at.deps.store._engine.begin() as connection:
        rows = CREDENTIALS.c.job_id == job
        connection.execute(update(CREDENTIALS).where(rows).values(target_digest=held.credential.target_digest))
    assert prove(at.deps, job).failures == before.failures


def test_a_proof_checks_as_many_recorded_issues_whether_or_not_their_users_were_found(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_history, "MAX_ENTRIES_READ", 2)
    monkeypatch.setattr(job_history, "MAX_PAGE_SIZE", 2)
    job = at.job()
    held = at.issue(job, 1), at.issue(job, 2)
    with at.deps.store._engine.begin() as connection:
        connection.execute(delete(CREDENTIALS).where(CREDENTIALS.c.job_id == job))
    alive = {finding.what for finding in prove(at.deps, job).findings if finding.alive}
    assert {f"lease {item.credential.lease_id}" for item in held} <= alive
    revoke_by_session(at, job, *held)


@pytest.mark.parametrize("data", ["{}", "[]", '{"credential": [], "request": "r"}'])
def test_a_proof_fails_if_somebody_replaced_what_the_ledger_records_of_a_credential(at: Desk, data: str) -> None:
    job = at.job()
    held = at.issue(job)
    revoke_by_session(at, job, held)
    with at.deps.store._engine.begin() as connection:
        issued = (LEDGER.c.job == job, LEDGER.c.type == EventType.CREDENTIAL_ISSUED.value)
        connection.execute(text("DROP TRIGGER IF EXISTS ledger_no_update"))
        connection.execute(update(LEDGER).where(*issued).values(data=data))
    report = prove(at.deps, job)
    assert (report.dead, report.revoked) == (False, False)
    (why,) = report.failures
    assert "ledger verify" in why


def test_a_proof_says_how_many_credentials_it_did_not_check_again(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    job = at.job()
    revoke_by_session(at, job, at.issue(job, 1), at.issue(job, 2))
    monkeypatch.setattr(queries, "MAX_DEAD_CREDENTIALS", 1)
    older = [finding for finding in prove(at.deps, job).findings if "older" in finding.what]
    assert [(finding.what, finding.alive) for finding in older] == [("1 older credentials", False)]


def test_a_value_that_stays_valid_is_proved_valid_however_many_credentials_came_after_it(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "MAX_DEAD_CREDENTIALS", 1)
    job = at.job()
    value = at.issue(job, 3)
    revoke_by_session(at, job, value, at.issue(job, 1), at.issue(job, 2))
    proof = prove(at.deps, job)
    assert (proof.revoked, proof.dead) == (True, False)
    assert [finding.credential for finding in proof.findings if finding.residual] == [value.credential.id]
    view = at.deps.store.jobs.get(job)
    assert view is not None
    assert residual_text(view).startswith("1 credential cannot be revoked early; valid until its owner changes it.")


def test_a_proof_says_that_it_could_not_check_a_target_that_is_away(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    revoke_by_session(at, job, held)
    with at.shop.door.closed():
        report = prove(at.deps, job)
        assert not report.dead
        assert report.failures


def test_neither_events_nor_failures_carry_a_secret(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    with at.shop.door.closed():
        failed = revoke_by_session(at, job, held)
    revoke_by_session(at, job, held)
    text = repr(failed) + repr(at.deps.store.ledger.entries(job=job))
    assert str(held.credential.lease_id) in text, "the control: what may be there is found"
    assert [value for value in secret_values(held) if value in text] == []


def test_two_revocations_at_once_do_not_disturb_each_other(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    results: list[RevocationResult] = []
    threads = [threading.Thread(target=lambda: results.append(revoke_by_session(at, job, held))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert revoke_by_session(at, job, held).confirmed
    assert not at.shop.can_log_in(held)
    assert at.entry_types(job).count("credential.confirmed") == 1


def _unreachable_vault() -> Vault:
    vault = Vault("http://127.0.0.1:1")
    vault.login_token(Secret("none"))
    return vault
