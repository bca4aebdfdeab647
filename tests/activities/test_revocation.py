"""Revocation by its effects on real servers: logins that fail, roles that are gone, sessions that are cut, whatever else is down."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest

from activities import slowness
from activities.looks import SECOND_LOOK
from activities.revocation import RevocationResult, prove, record_lapsed, revoke, revoke_one
from activities.store import Store
from activities.targets import Asked, Look, Targets
from activities.vault import Vault
from justenough import lateness
from justenough.access import CredentialState, Revocable, RevocationState
from justenough.catalog import ResolvedIssue
from justenough.errors import NotFound
from justenough.events import EventType, event
from justenough.ids import request_id
from justenough.secret import Secret
from tests.activities.shop import Desk, Held, Shop, issued_event, secret_values, to_be_issued

pytestmark = pytest.mark.servers


def by_session(at: Desk, job: str, *held: Held) -> RevocationResult:
    return revoke(at.deps, job, by="session", settled=True, why="it ended", known=tuple(item.credential for item in held))


def from_outside(at: Desk, job: str) -> RevocationResult:
    return revoke(at.deps, job, by="compensation", settled=False, why="its worker died")


def revocation_of(at: Desk, job: str) -> RevocationState:
    view = at.deps.store.job(job)
    assert view is not None
    return view.revocation.state


def test_after_revocation_the_login_fails_and_nothing_of_the_job_is_left(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    assert at.shop.works(held)

    result = by_session(at, job, held)

    assert result.confirmed, result
    assert not at.shop.works(held)
    assert at.shop.users_of(job) == []
    assert at.deps.vault.prefix_accessors(job) == ()
    assert at.shop.status("GET", "database/creds/orders-read-acme", token=held.token.secret.reveal()) == 403
    assert at.types(job) == ["revocation.started", "credential.revoked", "credential.confirmed", "revocation.confirmed"]


def test_what_is_confirmed_is_shown_so_in_the_read_model(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    by_session(at, job, held)
    view = at.deps.store.job(job)
    assert view is not None
    assert view.revocation.state is RevocationState.CONFIRMED
    assert [item.state for item in view.credentials] == [CredentialState.CONFIRMED]


def test_an_open_session_in_the_database_is_cut(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    with at.shop.login(held) as connection:
        by_session(at, job, held)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


def test_read_and_write_end_together_and_another_job_keeps_working(at: Desk) -> None:
    job, other = at.job(), at.job()
    read, write, bystander = at.issue(job, 1), at.issue(job, 2), at.issue(other)

    assert by_session(at, job, read, write).confirmed

    assert [at.shop.works(item) for item in (read, write, bystander)] == [False, False, True]
    assert by_session(at, other, bystander).confirmed


def test_revoking_again_is_fine_and_so_is_a_lease_that_is_gone_already(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    assert held.credential.lease_id is not None
    at.shop.admin("PUT", f"sys/leases/revoke/{held.credential.lease_id}", {"sync": True})
    assert by_session(at, job, held).confirmed
    assert by_session(at, job, held).confirmed


def test_a_job_that_never_held_anything_is_confirmed(at: Desk) -> None:
    assert by_session(at, at.job()).confirmed


def test_nothing_can_be_issued_under_a_revoked_job_by_a_session_that_asks_late(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    at.deps.store.claim(job, run="r", owner="o", now=at.clock.now())
    by_session(at, job, held)
    claim = at.deps.store.claim_of(job)
    assert claim is not None
    assert not claim.open
    assert at.deps.vault.job_prefixes("dev").count(job) == 0


def test_from_outside_it_finds_by_the_store_what_a_dead_worker_had_issued_and_waits_for_a_second_look(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)

    first = from_outside(at, job)

    assert not at.shop.works(held)
    assert not first.confirmed
    assert first.failures == ()
    assert first.second_look_in is not None
    assert "revocation.confirmed" not in at.types(job)
    at.clock.ahead = SECOND_LOOK - timedelta(seconds=2)
    assert not from_outside(at, job).confirmed
    at.clock.ahead = SECOND_LOOK + timedelta(seconds=2)
    assert from_outside(at, job).confirmed
    assert at.types(job).count("revocation.started") == 1


def test_a_look_that_found_something_alive_makes_the_next_clean_look_a_first_one(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    at.shop.door.close()
    assert not from_outside(at, job).second_look_needed
    at.shop.door.open()
    at.clock.ahead = 2 * SECOND_LOOK
    assert from_outside(at, job).second_look_needed
    assert not at.shop.works(held)


def test_an_issue_in_flight_during_the_revocation_is_dead_after_the_second_look(at: Desk) -> None:
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
    _until(lambda: shop_is_asleep(shop))

    first = from_outside(at, job)
    assert first.second_look_needed
    assert not first.confirmed

    in_flight.join()
    at.clock.ahead = SECOND_LOOK + timedelta(seconds=1)
    assert from_outside(at, job).confirmed
    assert not shop.works(arrived[0])
    assert shop.users_of(job) == []


def test_a_user_that_landed_between_two_looks_is_found_by_its_name_and_ended(at: Desk) -> None:
    job, name = at.job(), "Ab3dEf9h-token-{job}-orders-read-acme"
    assert from_outside(at, job).second_look_needed
    with psycopg.connect(at.shop.superuser, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE \"{name.format(job=job)}\" LOGIN PASSWORD 'landed' IN ROLE shop_orders_read_acme")
    landed = psycopg.connect(at.shop.superuser, user=name.format(job=job), password="landed", autocommit=True)

    at.clock.ahead = SECOND_LOOK + timedelta(seconds=1)
    assert from_outside(at, job).confirmed

    with landed, pytest.raises(psycopg.OperationalError):
        landed.execute("SELECT 1")
    assert at.shop.users_of(job) == []


def test_a_target_that_is_down_is_named_overdue_and_confirmed_once_it_is_back(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    at.shop.door.close()

    failed = by_session(at, job, held)

    assert not failed.confirmed
    assert any(f"127.0.0.1:{at.shop.door.port}/shop" in why for why in failed.failures)
    assert any(str(held.credential.lease_id) in why for why in failed.failures)
    assert revocation_of(at, job) is RevocationState.PENDING, "a first failure that came at once may be a blip"
    assert at.deps.vault.prefix_accessors(job) == (), "the tokens end although the target is away"
    by_session(at, job, held)
    assert revocation_of(at, job) is RevocationState.OVERDUE
    at.shop.door.open()
    assert by_session(at, job, held).confirmed
    assert not at.shop.works(held)
    assert at.shop.users_of(job) == []


def test_one_credential_that_cannot_be_ended_is_overdue_with_the_reason_until_it_is(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    at.shop.door.close()

    assert not revoke_one(at.deps, job, held.credential.id, by="session").confirmed
    assert at.types(job) == [], "the session tries again in a moment"
    assert not revoke_one(at.deps, job, held.credential.id, by="person").confirmed

    view = at.deps.store.credential(held.credential.id)
    assert view is not None
    assert view.state is CredentialState.OVERDUE
    assert str(held.credential.lease_id) in str(view.why)
    assert revocation_of(at, job) is RevocationState.NONE, "its job goes on"
    at.shop.door.open()
    assert revoke_one(at.deps, job, held.credential.id, by="person").confirmed
    assert not at.shop.works(held)
    assert at.types(job) == ["credential.overdue", "credential.revoked", "credential.confirmed"]
    after = at.deps.store.credential(held.credential.id)
    assert after is not None
    assert (after.state, after.why) == (CredentialState.CONFIRMED, None)


def test_one_attempt_that_takes_longer_than_the_grace_is_overdue_by_itself(at: Desk) -> None:
    class Slow(Targets):
        def look(self, job: str, asked: Asked | None = None) -> Look:
            at.clock.ahead += lateness.GRACE
            return super().look(job, asked)

    targets = Slow(at.deps.vault, lambda: at.deps.config.current().catalog, installation=at.deps.settings.installation)
    slow, job = replace(at, deps=replace(at.deps, targets=targets)), at.job()
    held = at.issue(job)
    at.shop.door.close()
    assert not by_session(slow, job, held).confirmed
    assert revocation_of(at, job) is RevocationState.OVERDUE
    at.shop.door.open()
    assert by_session(slow, job, held).confirmed
    targets.close()


def test_a_target_that_hangs_holds_nobody_for_long(at: Desk) -> None:
    job = at.job()
    at.deps.targets.look(job)
    at.shop.door.hang()
    started = time.monotonic()
    look = at.deps.targets.look(job)
    assert look.failures
    assert time.monotonic() - started < 8


def test_a_revocation_that_hangs_is_shown_as_overdue_while_it_hangs(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging(Vault):
        def revoke_prefix(self, job: str) -> None:
            assert go_on.wait(30)
            super().revoke_prefix(job)

    def overdue() -> bool:
        view = at.deps.store.job(job)
        assert view is not None
        return view.revocation.state is RevocationState.OVERDUE

    monkeypatch.setattr(slowness, "GRACE", timedelta(seconds=0.2))
    go_on, job = threading.Event(), at.job()
    held = at.issue(job)
    vault = Hanging(at.shop.settings.vault_addr)
    vault.login_approle_file(at.shop.settings.worker_approle_file)
    with closing(vault), ThreadPoolExecutor(1) as pool:
        revoking = pool.submit(by_session, replace(at, deps=replace(at.deps, vault=vault)), job, held)
        end = time.monotonic() + 10
        while not overdue():
            assert time.monotonic() < end
        go_on.set()
        assert revoking.result().confirmed
    assert not overdue()
    assert at.types(job).count("revocation.started") == 1


def test_many_failing_attempts_do_not_flood_the_ledger(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    at.shop.door.close()
    for _ in range(5):
        by_session(at, job, held)
    assert at.types(job).count("revocation.overdue") == 2, "the second and the fourth"
    at.shop.door.open()
    assert by_session(at, job, held).confirmed


def test_the_store_being_away_neither_stops_the_revocation_nor_loses_its_events(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    without = replace(at.deps, store=Store("postgresql://nobody:nothing@127.0.0.1:1/none"))

    result = revoke(without, job, by="session", settled=True, why="it ended", known=(held.credential,))

    assert result.confirmed
    assert not at.shop.works(held)
    assert [fact.type for fact in result.events][-1] is EventType.REVOCATION_CONFIRMED
    at.deps.store.record(result.events)
    view = at.deps.store.job(job)
    assert view is not None
    assert view.revocation.state is RevocationState.CONFIRMED


def test_without_store_and_memory_the_prefix_and_the_target_are_enough_and_it_is_not_confirmed_while_the_claim_is_open(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    without = replace(at.deps, store=Store("postgresql://nobody:nothing@127.0.0.1:1/none"))
    result = revoke(without, job, by="guard", settled=False, why="its workflow closed")
    assert not at.shop.works(held)
    assert not result.confirmed
    assert any("store" in why for why in result.failures)


def test_vault_being_away_is_named_and_confirms_nothing(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    away = replace(at.deps, vault=_nowhere())
    failed = revoke(away, job, by="session", settled=True, why="it ended", known=(held.credential,))
    assert not failed.confirmed
    assert any("did not answer" in why for why in failed.failures)
    assert by_session(at, job, held).confirmed


def test_what_was_read_from_kv_ends_as_expired_and_says_why_while_the_job_is_confirmed(at: Desk) -> None:
    job = at.job()
    held = at.issue(job, 3)
    result = by_session(at, job, held)
    assert result.confirmed
    view = at.deps.store.job(job)
    assert view is not None
    assert [item.state for item in view.credentials] == [CredentialState.EXPIRED]
    assert at.types(job) == ["revocation.started", "credential.revoked", "credential.expired", "revocation.confirmed"]
    assert at.shop.status("GET", "kv/data/tenants/acme/helpdesk", token=held.token.secret.reveal()) == 403


def test_a_lease_that_nobody_learned_on_an_unsearchable_engine_is_never_confirmed_but_expires(at: Desk) -> None:
    job = at.job()
    held = at.issue(job, 3)
    lost = replace(held, credential=held.credential.model_copy(update={"revocable": Revocable.NOW}))
    result = by_session(at, job, lost)
    assert not result.confirmed
    assert any("cannot be searched" in why for why in result.failures)
    at.clock.ahead = timedelta(seconds=301)
    assert by_session(at, job, lost).confirmed
    assert "credential.confirmed" not in at.types(job)
    assert "credential.expired" in at.types(job)


def test_what_only_time_can_end_is_revoked_first_and_expired_when_its_time_is_over(at: Desk) -> None:
    job = at.job()
    held = at.issue(job, 3, record=False)
    timed = held.credential.model_copy(update={"revocable": Revocable.ON_EXPIRY})
    at.deps.store.record([issued_event(job, timed)])
    assert by_session(at, job, replace(held, credential=timed)).confirmed
    record_lapsed(at.deps)
    assert "credential.expired" not in at.types(job)
    at.clock.ahead = timedelta(seconds=301)
    assert record_lapsed(at.deps) == ()
    assert [name for name in at.types(job) if name.startswith("credential.")] == ["credential.revoked", "credential.expired"]


def test_a_credential_whose_lease_was_never_learned_is_confirmed_by_its_target(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    lost = replace(held, credential=held.credential.model_copy(update={"lease_id": None}))
    assert by_session(at, job, lost).confirmed
    assert not at.shop.works(held)
    assert "credential.confirmed" in at.types(job)


def test_one_credential_ends_while_its_job_goes_on(at: Desk) -> None:
    job = at.job()
    read, write = at.issue(job, 1), at.issue(job, 2)
    assert revoke_one(at.deps, job, read.credential.id, by="person").confirmed
    assert [at.shop.works(item) for item in (read, write)] == [False, True]
    with pytest.raises(NotFound):
        revoke_one(at.deps, at.job(), write.credential.id, by="person")
    assert by_session(at, job, read, write).confirmed


def test_a_lease_that_was_forced_ends_nothing_and_is_not_taken_for_a_proof(at: Desk) -> None:
    job = at.job()
    forced, other = at.issue(job, 1), at.issue(job, 2)
    at.shop.door.close()
    # What an administrator does to be rid of a lease: Vault forgets it, whatever the target says.
    at.shop.admin("POST", "sys/leases/revoke-force/database/creds/orders-read-acme")
    at.shop.door.open()
    result = revoke_one(at.deps, job, forced.credential.id, by="person")
    assert (result.confirmed, at.shop.works(forced)) == (False, True)
    assert any("a user of the job is left in" in why for why in result.failures)
    assert by_session(at, job, forced, other).confirmed
    assert [at.shop.works(item) for item in (forced, other)] == [False, False]


def test_setting_the_clock_brings_no_second_look_nearer(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    assert from_outside(at, job).second_look_needed
    at.clock.stepped = timedelta(hours=3)
    assert from_outside(at, job).second_look_needed
    at.clock.stepped = timedelta(hours=-3)
    assert from_outside(at, job).second_look_needed
    at.clock.ahead = SECOND_LOOK + timedelta(seconds=1)
    assert from_outside(at, job).confirmed
    assert not at.shop.works(held)


def test_an_issue_that_nobody_told_of_where_nobody_can_look_is_doubted_until_it_can_only_have_ended(blind: Desk) -> None:
    job = blind.job()
    blind.deps.store.record([to_be_issued(job, 1, blind.clock.now())])
    held = blind.issue(job, record=False)

    first = from_outside(blind, job)

    assert any("cannot be searched" in why for why in first.failures)
    assert not from_outside(blind, job).confirmed
    view = blind.deps.store.job(job)
    assert view is not None
    assert [(item.accessor, item.lease_id, item.state) for item in view.credentials] == [(None, None, CredentialState.OVERDUE)]
    assert not prove(blind.deps, job).dead
    # The catalog allows 30 minutes; it may have landed until the second look.
    blind.clock.ahead = timedelta(minutes=30) + SECOND_LOOK + timedelta(seconds=1)
    assert from_outside(blind, job).second_look_needed
    blind.clock.ahead += SECOND_LOOK
    assert from_outside(blind, job).confirmed
    assert not blind.shop.works(held)
    told = blind.types(job)
    assert (told.count("credential.doubted"), told.count("credential.expired"), told.count("credential.confirmed")) == (1, 1, 0)


def test_an_issue_that_was_refused_leaves_no_doubt(blind: Desk) -> None:
    job, now = blind.job(), blind.clock.now()
    request = request_id(job, 1)
    refusal = event(EventType.CREDENTIAL_REFUSED, job, at=now, about=request, request=request, why="Vault says no")
    blind.deps.store.record([to_be_issued(job, 1, now), refusal])
    assert from_outside(blind, job).second_look_needed
    blind.clock.ahead = SECOND_LOOK + timedelta(seconds=1)
    assert from_outside(blind, job).confirmed


def test_where_the_target_can_be_searched_there_is_nothing_to_doubt(at: Desk) -> None:
    job = at.job()
    at.deps.store.record([to_be_issued(job, 1, at.clock.now())])
    held = at.issue(job, record=False)
    assert from_outside(at, job).second_look_needed
    at.clock.ahead = SECOND_LOOK + timedelta(seconds=1)
    assert from_outside(at, job).confirmed
    assert not at.shop.works(held)
    assert "credential.doubted" not in at.types(job)


def test_what_was_doubted_gets_its_handles_from_a_session_that_slept(blind: Desk) -> None:
    job = blind.job()
    blind.deps.store.record([to_be_issued(job, 1, blind.clock.now())])
    held = blind.issue(job, record=False)
    assert from_outside(blind, job).failures
    blind.deps.store.record([issued_event(job, held.credential)])
    assert by_session(blind, job, held).confirmed
    assert "credential.confirmed" in blind.types(job)
    assert not blind.shop.works(held)


def test_a_proof_is_a_fresh_look_that_sees_what_lives(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    alive = prove(at.deps, job)
    assert not alive.dead
    assert {finding.what.split()[0] for finding in alive.findings if finding.alive} == {"tokens", "lease", "token", "users"}
    by_session(at, job, held)
    assert prove(at.deps, job).dead
    with pytest.raises(NotFound):
        prove(at.deps, "j-dev-00000000000000000000000000")


def test_a_proof_with_the_target_away_says_that_it_could_not_look(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    by_session(at, job, held)
    at.shop.door.close()
    report = prove(at.deps, job)
    assert not report.dead
    assert report.failures


def test_neither_events_nor_failures_carry_a_secret(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    at.shop.door.close()
    failed = by_session(at, job, held)
    at.shop.door.open()
    by_session(at, job, held)
    text = repr(failed) + repr(at.deps.store.ledger(job=job))
    assert str(held.credential.lease_id) in text, "the control: what may be there is found"
    assert [value for value in secret_values(held) if value in text] == []


def test_two_revocations_at_once_do_not_disturb_each_other(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    results: list[RevocationResult] = []
    threads = [threading.Thread(target=lambda: results.append(by_session(at, job, held))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert by_session(at, job, held).confirmed
    assert not at.shop.works(held)
    assert at.types(job).count("credential.confirmed") == 1


def shop_is_asleep(shop: Shop) -> bool:
    asleep = "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep(1.5)%' AND pid <> pg_backend_pid() AND wait_event = 'PgSleep'"
    with psycopg.connect(shop.superuser, autocommit=True) as connection:
        return connection.execute(asleep).fetchone() is not None


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)


def _nowhere() -> Vault:
    vault = Vault("http://127.0.0.1:1")
    vault.login_token(Secret("none"))
    return vault
