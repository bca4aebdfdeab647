"""Inspecting a real PostgreSQL: whose users are found, what happens if it is unavailable, and that no secret leaks."""

from __future__ import annotations

import socket
import threading
import time

import psycopg
import pytest

from justenough.adapters.targets import postgres
from justenough.adapters.targets.inspector import TargetInspector
from justenough.adapters.targets.postgres import TargetDown, escape_like, log_in_once, why_unreachable
from justenough.adapters.vault import VaultRefused
from justenough.domain.core.secret import Secret
from justenough.domain.jobs.states import Action
from tests.activities.vault_shop import Desk

pytestmark = pytest.mark.servers


def test_only_users_of_the_job_are_found_and_ended(at: Desk) -> None:
    job, other = at.job(), at.job()
    held, bystander = at.issue(job), at.issue(other)
    assert [user.name for user in at.deps.targets.traces_of(job)] == at.shop.users_of(job)

    assert at.deps.targets.end_all_of(job).failures == ()

    assert at.deps.targets.traces_of(job) == ()
    assert not at.shop.can_log_in(held)
    assert at.shop.can_log_in(bystander)


def test_users_are_found_by_name_in_a_database_whose_clients_get_bytes(at: Desk) -> None:
    """As those of a database with the encoding SQL_ASCII do by default."""
    job, targets = at.job(), TargetInspector(at.deps.vault, lambda: at.deps.config.current().catalog, installation="dev")
    held = at.issue(job)
    with psycopg.connect(at.shop.superuser, autocommit=True) as database:
        database.execute("ALTER DATABASE shop SET client_encoding = 'SQL_ASCII'")
        try:
            found = targets.inspect(job)
        finally:
            database.execute("ALTER DATABASE shop RESET client_encoding")
    assert [user.name for user in found.users] == [held.credential.user]
    targets.close()


def test_a_users_open_session_is_cut_when_it_is_ended(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    with at.shop.login(held) as connection:
        at.deps.targets.end_all_of(job)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


def test_the_kept_connection_waits_in_a_transaction_that_holds_no_snapshot(at: Desk) -> None:
    """A snapshot would keep PostgreSQL from vacuuming."""
    target = at.deps.config.current().catalog.resources["orders-db"].actions[Action.READ].target
    assert target is not None
    at.deps.targets.require_reaper(target)
    with psycopg.connect(at.shop.superuser) as watching:
        query = "SELECT state, backend_xid, backend_xmin FROM pg_stat_activity WHERE usename LIKE '%-je-reaper' AND state <> 'active'"
        waiting = watching.execute(query).fetchall()
    assert ("idle in transaction", None, None) in waiting
    assert all((xid, xmin) == (None, None) for _, xid, xmin in waiting)


def test_a_user_with_rights_of_its_own_loses_them_even_if_a_lock_keeps_its_role(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    user = held.credential.user
    with psycopg.connect(at.shop.superuser, autocommit=True) as owner, psycopg.connect(at.shop.superuser) as locking:
        owner.execute(f'GRANT SELECT ON public.refunds TO "{user}"'.encode())
        locking.execute(f"COMMENT ON ROLE \"{user}\" IS 'kept'".encode())
        at.deps.targets.end_all_of(job)
        assert owner.execute("SELECT public.je_left_of(%s)", (user,)).fetchone() == ([],)
    at.deps.targets.end_all_of(job)
    assert at.deps.targets.traces_of(job) == ()


def test_a_lease_is_not_renewed_while_its_job_locks_its_own_role_and_nobody_waits_long(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    lease = held.credential.lease_id
    assert lease is not None
    with at.shop.login(held) as connection:
        connection.execute("BEGIN")
        connection.execute("ALTER ROLE CURRENT_USER PASSWORD 'known'")
        began = time.monotonic()
        with pytest.raises(VaultRefused, match="lock timeout"):
            at.deps.vault.renew_lease(lease, 60)
        assert time.monotonic() - began < 8
        connection.execute("ROLLBACK")
        assert at.deps.vault.renew_lease(lease, 60)


def test_job_ids_are_read_from_the_names_of_users(at: Desk) -> None:
    job = at.job()
    at.issue(job)
    jobs, inspection = at.deps.targets.job_ids()
    assert job in jobs
    assert inspection.failures == ()


def test_targets_that_no_request_could_have_reached_are_not_checked(at: Desk) -> None:
    job = at.job()
    at.issue(job)
    assert at.deps.targets.inspect(job, frozenset({("helpdesk-api", "read")})).inspected == ()
    assert at.deps.targets.inspect(job, frozenset({("orders-db", "read")})).traces
    assert at.deps.targets.inspect(job, frozenset({("no-longer-there", "read")})).traces, "an unknown resource may have been anywhere"


def test_an_unreachable_target_is_a_failure_that_names_it_and_is_checked_again_when_it_is_back(at: Desk) -> None:
    job = at.job()
    at.issue(job)
    target = at.deps.config.current().catalog.resources["orders-db"].actions[Action.READ].target
    assert target is not None
    with at.shop.door.closed():
        away = at.deps.targets.inspect(job)
        assert away.traces == ()
        assert len(away.failures) == 1
        assert f"127.0.0.1:{at.shop.door.port}/shop" in away.failures[0]
        # An unreachable target refuses nobody: the user may still be able to log in.
        with pytest.raises(TargetDown, match=f"^cannot log in to 127.0.0.1:{at.shop.door.port}/shop: Connection refused$"):
            log_in_once(target, Secret("user"), Secret("password"))
    assert at.deps.targets.inspect(job).traces


def test_a_target_that_refuses_its_observer_is_reported_with_its_own_error() -> None:
    refused = psycopg.OperationalError(
        'connection failed: connection to server at "127.0.0.1", port 5432 failed: FATAL:  permission denied for database "shop"\n'
        "DETAIL:  User does not have CONNECT privilege."
    )
    assert why_unreachable(refused) == 'permission denied for database "shop"'
    assert why_unreachable(psycopg.OperationalError("connection is bad: Connection refused")) == "Connection refused"
    invalid = psycopg.OperationalError('missing "=" after "hush" in connection info string')
    assert (
        why_unreachable(invalid) == why_unreachable(psycopg.errors.DataError("hush")).replace("Data", "Operational") == "OperationalError"
    )


def test_a_refused_observer_suggests_that_the_targets_clock_is_ahead_of_vaults(at: Desk) -> None:
    job, role = at.job(), "database/roles/je-observer"
    at.issue(job)
    before = at.shop.admin("GET", role)["data"]
    # As if the target's clock were years ahead: what Vault creates has ended already.
    expired = [statement.replace("{{expiration}}", "2000-01-01") for statement in before["creation_statements"]]
    targets = TargetInspector(at.deps.vault, lambda: at.deps.config.current().catalog, installation=at.deps.settings.installation)
    at.shop.admin("POST", role, {**before, "creation_statements": expired})
    try:
        (failure,) = targets.inspect(job).failures
    finally:
        at.shop.admin("POST", role, before)
        targets.close()
    assert "password authentication failed" in failure
    assert "is the target's clock ahead of Vault's?" in failure


def test_an_observer_that_may_not_connect_is_reported_with_the_servers_error(at: Desk) -> None:
    job = at.job()
    at.issue(job)
    targets = TargetInspector(at.deps.vault, lambda: at.deps.config.current().catalog, installation=at.deps.settings.installation)
    with psycopg.connect(at.shop.superuser, autocommit=True) as database:
        database.execute("REVOKE CONNECT ON DATABASE shop FROM shop_observer CASCADE")
        try:
            (failure,) = targets.inspect(job).failures
        finally:
            database.execute("GRANT CONNECT ON DATABASE shop TO shop_observer")
    assert failure.endswith('/shop: permission denied for database "shop"')
    assert targets.inspect(job).traces
    targets.close()


def test_a_target_that_refuses_every_connection_gathers_no_users_of_the_observer(at: Desk) -> None:
    targets = TargetInspector(at.deps.vault, lambda: at.deps.config.current().catalog, installation=at.deps.settings.installation)
    before = set(at.shop.users_of("je-observer"))
    with psycopg.connect(at.shop.superuser, autocommit=True) as database:
        # Vault may still connect, as superusers always may: so it issues a user for each check.
        database.execute("ALTER DATABASE shop CONNECTION LIMIT 0")
        try:
            for _ in range(3):
                (failure,) = targets.inspect(at.job()).failures
                assert "too many connections" in failure
            assert set(at.shop.users_of("je-observer")) <= before
        finally:
            database.execute("ALTER DATABASE shop CONNECTION LIMIT -1")
    targets.close()


def test_an_observer_whose_user_was_ended_is_replaced(at: Desk) -> None:
    job = at.job()
    at.issue(job)
    assert at.deps.targets.inspect(job).traces
    at.shop.admin("PUT", "sys/leases/revoke-prefix/database/creds/je-observer", {"sync": True})
    look = at.deps.targets.inspect(job)
    assert look.failures == ()
    assert look.traces


def test_a_target_that_accepts_no_connections_gets_no_further_observer_with_each_check(at: Desk) -> None:
    job, shop = at.job(), at.shop
    observers = "SELECT count(*) FROM pg_roles WHERE rolname LIKE '%observer%' AND rolcanlogin"
    with psycopg.connect(shop.superuser, autocommit=True) as connection:
        before = connection.execute(observers).fetchone()
        connection.execute("ALTER DATABASE shop CONNECTION LIMIT 0")
        try:
            targets = TargetInspector(at.deps.vault, lambda: at.deps.config.current().catalog, installation=at.deps.settings.installation)
            for _ in range(5):
                assert targets.inspect(job).failures
            during = connection.execute(observers).fetchone()
        finally:
            connection.execute("ALTER DATABASE shop CONNECTION LIMIT -1")
    assert before is not None
    assert during is not None
    assert during[0] <= before[0] + 1
    assert targets.inspect(job).failures == ()
    targets.close()


def test_a_server_to_which_the_targets_address_no_longer_leads_is_not_believed(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old primary still answers on the connection that the observer has, and knows nothing of what lives on the new one."""
    job = at.job()
    at.issue(job)
    assert at.deps.targets.inspect(job).traces
    monkeypatch.setattr(postgres, "MAX_OBSERVER_AGE_S", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with at.shop.door.leading_to(port):
        look = at.deps.targets.inspect(job)
        assert look.inspected == ()
        assert len(look.failures) == 1
    assert at.deps.targets.inspect(job).traces


def test_many_threads_can_search_a_target_at_once(at: Desk) -> None:
    job = at.job()
    at.issue(job)
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(len(at.deps.targets.traces_of(job)))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [1] * 16


def test_closing_the_inspector_leaves_no_user_of_its_own_behind(at: Desk) -> None:
    at.deps.targets.inspect(at.job())
    mine = at.shop.users_of("je-observer")
    at.deps.targets.close()
    assert mine
    assert len(at.shop.users_of("je-observer")) < len(mine)


def test_a_pattern_takes_every_character_literally() -> None:
    assert escape_like("j-a_b%c!d") == "j-a!_b!%c!!d"
