"""That a user is not found proves something only if one was found there before; on servers that were not set up for JustEnough."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from activities.issuing.results import IssueRefused, issued_event
from activities.revocation.proof import prove
from activities.revocation.revoke import revoke_by_handle
from justenough.adapters.vault import Vault, VaultUnavailable
from justenough.domain.core.secret import Secret
from justenough.domain.jobs.states import Action, RevocationState
from justenough.domain.ledger.events import EventType
from justenough.services.positive_control import (
    NotObservable,
    configuration_digest,
    known_controls,
    why_not_observable,
    with_observed_user,
)
from justenough.services.revocation_attempts import SECOND_CHECK_DELAY
from tests.activities.issuing_session import start_session
from tests.activities.plain_roles import (
    BY_DISPLAY_NAME,
    NOTHING,
    drop_user,
    open_plain_desk,
    plain_users,
    rename_users,
    standby_away,
    standby_of,
)
from tests.activities.revocation_calls import lose_an_issue, revocation_state, revoke_by_session, revoke_from_outside
from tests.activities.vault_shop import ACME, Desk, Held, Shop, issue_decision
from tests.support.wait import until

pytestmark = pytest.mark.servers
ORDERS = {"resource": "orders-db", "action": "read", "ttl": "5m", "reason": "Look the order up"}
LONGEST = timedelta(minutes=30)
"""The catalog's max_ttl for reading orders."""


def user_of(held: Held) -> str:
    return held.issued.fields["username"].reveal()


def assert_in_doubt_for_its_longest_life(at: Desk, job: str) -> None:
    """Look again and again: nothing confirms it before the longest possible life of such a credential is over."""
    first = revoke_from_outside(at, job)
    assert any("its lease is not known and its target cannot be searched" in why for why in first.failures), first
    at.clock.ahead += 2 * SECOND_CHECK_DELAY
    assert not revoke_from_outside(at, job).confirmed
    assert not prove(at.deps, job).dead
    assert "credential.confirmed" not in at.entry_types(job)
    at.clock.ahead += LONGEST
    assert revoke_from_outside(at, job).second_check_in is not None
    at.clock.ahead += SECOND_CHECK_DELAY
    assert revoke_from_outside(at, job).confirmed
    assert "credential.expired" in at.entry_types(job)
    assert "credential.confirmed" not in at.entry_types(job)


def test_a_user_that_its_revocation_statements_leave_alive_is_found_by_its_name(shop: Shop, tmp_path: Path) -> None:
    with open_plain_desk(shop, tmp_path, revocation=NOTHING) as at:
        job = at.job()
        held = at.issue(job)
        assert job not in user_of(held)

        result = revoke_by_session(at, job, held)

        assert at.shop.can_log_in(held), "this Vault revokes nothing"
        assert not result.confirmed
        assert any(user_of(held) in why for why in result.failures), result
        assert revocation_state(at, job) is not RevocationState.CONFIRMED
        assert not prove(at.deps, job).dead
        drop_user(shop, user_of(held))
        assert revoke_by_session(at, job, held).confirmed


def test_a_credential_whose_user_stays_alive_is_not_confirmed(shop: Shop, tmp_path: Path) -> None:
    with open_plain_desk(shop, tmp_path, revocation=NOTHING) as at:
        job = at.job()
        held, other = at.issue(job), at.issue(job)
        for mine, others in ((held, (other,)), (other, ())):
            result = revoke_by_handle(at.deps, job, mine.credential, [item.credential for item in others], by="person", why="a test")
            assert not result.confirmed
            assert at.shop.can_log_in(mine)
        drop_user(shop, user_of(held))
        assert revoke_by_handle(at.deps, job, held.credential, [other.credential], by="person", why="a test").confirmed
        drop_user(shop, user_of(other))


def older(held: Held) -> Held:
    """Return a credential as versions recorded it that recorded no user."""
    unknown = {"user": None, "target_digest": None, "search_digest": None}
    return replace(held, credential=held.credential.model_copy(update=unknown))


def test_a_credential_without_a_recorded_user_is_confirmed_only_by_its_expiry(shop: Shop, tmp_path: Path) -> None:
    with open_plain_desk(shop, tmp_path, revocation=NOTHING) as at:
        job = at.job()
        held = at.issue(job)
        result = revoke_by_session(at, job, older(held))
        assert at.shop.can_log_in(held), "this Vault revokes nothing"
        assert not result.confirmed
        assert any("no search by job id had found such users before" in why for why in result.failures), result
        at.clock.ahead = LONGEST + timedelta(seconds=6)
        assert revoke_by_session(at, job, older(held)).confirmed
        assert "credential.confirmed" not in at.entry_types(job)
        drop_user(shop, user_of(held))


def test_a_search_that_found_such_users_before_finds_those_that_an_older_version_did_not_record(at: Desk) -> None:
    earlier = at.job()
    assert revoke_by_session(at, earlier, at.issue(earlier)).confirmed
    job = at.job()
    held = at.issue(job)
    assert revoke_by_session(at, job, older(held)).confirmed
    assert not at.shop.can_log_in(held)


def test_an_unrecorded_issue_is_in_doubt_if_user_names_do_not_contain_the_job_id(shop: Shop, tmp_path: Path) -> None:
    with open_plain_desk(shop, tmp_path, revocation=NOTHING) as at:
        earlier = at.job()
        first = at.issue(earlier)
        drop_user(shop, user_of(first))
        assert revoke_by_session(at, earlier, first).confirmed, "its name is known"
        job, held = lose_an_issue(at)
        assert_in_doubt_for_its_longest_life(at, job)
        assert at.shop.can_log_in(held), "by the servers' clocks no half hour has passed"
        drop_user(shop, user_of(held))


def test_an_unrecorded_issue_is_found_if_a_search_found_an_earlier_user(shop: Shop, tmp_path: Path) -> None:
    with open_plain_desk(shop, tmp_path, template=BY_DISPLAY_NAME) as at:
        earlier = at.job()
        first = at.issue(earlier)
        assert user_of(first).startswith(f"token-{earlier}_")
        assert revoke_by_session(at, earlier, first).confirmed

        job, held = lose_an_issue(at)
        assert revoke_from_outside(at, job).second_check_in is not None
        at.clock.ahead = SECOND_CHECK_DELAY + timedelta(seconds=1)
        assert revoke_from_outside(at, job).confirmed
        assert not at.shop.can_log_in(held)
        assert "credential.doubted" not in at.entry_types(job)


def test_a_session_that_dies_as_it_issues_again_leaves_a_doubt_if_no_search_finds_its_user(shop: Shop, tmp_path: Path) -> None:
    with open_plain_desk(shop, tmp_path, revocation=NOTHING) as at:
        session = start_session(at, ORDERS)
        held = session.issue()
        name = session.die_during(lambda: session.issuer.access(held.access))
        assert any(
            "its lease is not known and its target cannot be searched" in why for why in revoke_from_outside(at, session.job).failures
        )
        assert name in plain_users(shop), "nobody knows of it, and nobody drops it"
        assert "credential.doubted" in at.entry_types(session.job)
        for role in plain_users(shop):
            drop_user(shop, role)


def test_a_session_that_dies_as_it_issues_again_leaves_no_doubt_if_a_search_finds_its_user(at: Desk) -> None:
    session = start_session(at, ORDERS)
    held = session.issue()
    name = session.die_during(lambda: session.issuer.access(held.access))
    assert session.job in name
    assert revoke_from_outside(at, session.job).second_check_in is not None
    at.clock.ahead += SECOND_CHECK_DELAY
    assert revoke_from_outside(at, session.job).confirmed
    assert "credential.doubted" not in at.entry_types(session.job)
    with psycopg.connect(at.shop.superuser, autocommit=True) as connection:
        assert connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [name]).fetchone() is None


def test_a_user_is_searched_for_nowhere_if_the_catalog_has_come_to_need_more_data_scope_than_its_job_has(at: Desk) -> None:
    earlier = at.job()
    assert revoke_by_session(at, earlier, at.issue(earlier)).confirmed
    action = at.deps.config.current().catalog.action("orders-db", Action.READ)
    assert action is not None
    assert known_controls(at.deps, action, ACME).is_search_known
    known = known_controls(at.deps, action, {})
    assert (known.digest, known.is_search_known, known.is_place_known) == (None, False, False)
    assert configuration_digest(at.deps, action, known.path, fresh=True) is None


def test_the_first_issue_of_a_configuration_is_in_doubt_because_no_search_has_found_a_user_yet(at: Desk) -> None:
    job, held = lose_an_issue(at)
    assert_in_doubt_for_its_longest_life(at, job)
    assert not at.shop.can_log_in(held), "the search ended it; only nobody could rely on that"


def test_the_user_of_each_concurrent_first_issue_is_found_separately(at: Desk) -> None:
    action = at.deps.config.current().catalog.action("orders-db", Action.READ)
    assert action is not None
    job, other = at.job(), at.job()
    known = known_controls(at.deps, action, ACME)
    held = at.issue(job, record=False)
    at.deps.store.ledger.append([issued_event(job, held.credential)])
    at.issue(other)
    assert held.credential.target_digest is None, "only the other one's user was found"
    with pytest.raises(NotObservable, match=r"Vault's answer from database/creds/.* names no user"):
        with_observed_user(at.deps, job, held.credential.model_copy(update={"user": None}), action, known)
    with closing(Vault("http://127.0.0.1:1")) as away:
        away.login_token(Secret("none"))
        why = why_not_observable(replace(at.deps, vault=away), held.credential)
    assert why is not None
    assert why.startswith("Vault"), why
    assert with_observed_user(at.deps, job, held.credential, action, known).target_digest is not None
    (view,) = at.deps.store.credentials.list(job=job).items
    assert view.target_digest is not None
    assert revoke_from_outside(at, job).second_check_in is not None
    assert "credential.confirmed" in at.entry_types(job)


def test_a_search_is_no_longer_trusted_once_vault_names_users_differently(shop: Shop, tmp_path: Path) -> None:
    with open_plain_desk(shop, tmp_path, template=BY_DISPLAY_NAME) as at:
        earlier, working, searching = at.job(), at.job(), at.job()
        action = at.deps.config.current().catalog.action("orders-db", Action.READ)
        assert action is not None
        known, found = known_controls(at.deps, action, {}), at.issue(searching, record=False).credential
        assert revoke_by_session(at, earlier, at.issue(earlier)).confirmed
        at.issue(working)
        assert at.deps.store.credentials.list(job=working).items[0].search_digest, "it may issue again without recording that first"
        aged = at.issue(old := at.job())
        rename_users(shop, "")
        assert not revoke_by_session(at, old, older(aged)).confirmed, "another search than the one that found users"
        with_observed_user(at.deps, searching, found, action, known)
        (entry,) = at.deps.store.ledger.entries(job=searching, types=[EventType.CREDENTIAL_FOUND]).items
        assert (entry.data["search_digest"], entry.data["place_digest"]) == (None, None), (
            "nobody knows under which configuration it was found"
        )
        job, held = lose_an_issue(at)
        assert job not in user_of(held)
        assert_in_doubt_for_its_longest_life(at, job)
        assert any("cannot be searched" in why for why in revoke_from_outside(at, working).failures), "nor for a job that trusted it"


def test_a_session_gets_no_credential_whose_user_its_target_does_not_show(shop: Shop, other_server: dict[str, str], tmp_path: Path) -> None:
    with open_plain_desk(shop, tmp_path, target=other_server) as at:
        session = start_session(at, ORDERS)
        with pytest.raises(IssueRefused, match=r"Vault created the user v-token-.*, but the target 127\.0\.0\.1:\d+/shop does not show it"):
            session.issue()
        assert shop.users_of(session.job) == []
        (view,) = at.deps.store.credentials.list(job=session.job).items
        assert view.user is not None
        with psycopg.connect(shop.superuser) as connection:
            assert connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [view.user]).fetchone() is None
        result = session.end()
        assert not result.confirmed, "nobody can tell whether it is gone: its target is another server"
        assert any("has never shown v-token-" in why for why in result.failures)
        at.clock.ahead = timedelta(minutes=5, seconds=6)
        assert session.end().confirmed
        assert "credential.confirmed" not in session.entry_types()


def end_of_password(at: Desk, user: str | None) -> datetime:
    """Return when a user's password ends."""
    with psycopg.connect(at.shop.superuser) as connection:
        found = connection.execute("SELECT rolvaliduntil FROM pg_roles WHERE rolname = %s", [user]).fetchone()
    assert found is not None
    assert isinstance(found[0], datetime)
    return found[0]


@pytest.mark.parametrize(
    "role_later, longest", [("as it was", timedelta(minutes=20)), ("lowered", timedelta(minutes=20)), ("gone", LONGEST)]
)
def test_a_user_that_no_search_found_is_in_doubt_for_the_longest_life_of_its_role(
    shop: Shop, other_server: dict[str, str], tmp_path: Path, *, role_later: str, longest: timedelta
) -> None:
    def live_long(catalog: dict[str, Any]) -> None:
        (role,) = (write["data"] for write in catalog["provision"] if write["path"] == "database/roles/plain-read")
        role["default_ttl"] = "20m"

    with open_plain_desk(shop, tmp_path, revocation=NOTHING, target=other_server, change=live_long) as at:
        session = start_session(at, ORDERS)
        with pytest.raises(IssueRefused, match="does not show it"):
            session.issue()
        (view,) = at.deps.store.credentials.list(job=session.job).items
        if role_later == "gone":
            shop.admin("DELETE", "database/roles/plain-read")
        elif role_later == "lowered":
            role = shop.admin("GET", "database/roles/plain-read")["data"]
            shop.admin("POST", "database/roles/plain-read", {**role, "default_ttl": "1m"})
        at.clock.ahead = timedelta(minutes=5, seconds=6)
        assert end_of_password(at, view.user) > at.deps.now(), "its grant is over"
        result = session.end()
        assert not result.confirmed
        assert any("has never shown v-token-" in why for why in result.failures), result
        assert not prove(at.deps, session.job).dead
        assert "credential.expired" not in session.entry_types()
        assert role_later == "gone" or end_of_password(at, view.user) > view.issued_at + longest, (
            "Vault lets it log in for five seconds more"
        )
        at.clock.stopped = view.issued_at + longest + timedelta(seconds=3)
        assert not session.end().confirmed
        at.clock.stopped = view.issued_at + longest + timedelta(seconds=7)
        assert end_of_password(at, view.user) < at.deps.now()
        assert session.end().confirmed
        assert "credential.expired" in session.entry_types()
        drop_user(shop, str(view.user))


@pytest.mark.usefixtures("other_server")
def test_a_target_that_showed_one_roles_users_proves_nothing_about_users_on_another_server(shop: Shop, tmp_path: Path) -> None:
    def read_elsewhere(catalog: dict[str, Any]) -> None:
        catalog["resources"]["orders-db"]["actions"]["read"]["issue"]["path"] = "database/creds/other-read"

    with open_plain_desk(shop, tmp_path, change=read_elsewhere) as at:
        shop.admin(
            "POST", "sys/policies/acl/je-grant-orders-db-read", {"policy": 'path "database/creds/other-read" {capabilities = ["read"]}'}
        )
        writing = start_session(at, {**ORDERS, "action": "write"}, tier=1)
        writing.issue()
        assert writing.end().confirmed, "its users are where the target says"
        session = start_session(at, ORDERS)
        with pytest.raises(IssueRefused, match=r"but the target .* does not show it"):
            session.issue()
        assert not session.end().confirmed


def test_moving_a_target_to_another_server_proves_nothing_about_users_on_the_first(
    shop: Shop, other_server: dict[str, str], tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    with open_plain_desk(shop, first) as at:
        job = at.job()
        held = at.issue(job)
        with open_plain_desk(shop, second, target=other_server) as moved:
            elsewhere = replace(at, deps=replace(at.deps, config=moved.deps.config, targets=moved.deps.targets))
            result = revoke_by_session(elsewhere, job, held)
        assert not result.confirmed
        assert any("is in a target that the catalog no longer has" in why for why in result.failures), result


def test_a_standby_in_the_place_of_a_target_proves_nothing(shop: Shop, tmp_path: Path) -> None:
    """A standby may show users of some time ago, or from before a failover."""
    with standby_of(shop) as port, psycopg.connect(shop.superuser, autocommit=True) as primary:
        target = {"postgres": f"host=127.0.0.1 port={port} dbname=shop"}
        with open_plain_desk(shop, tmp_path, template=BY_DISPLAY_NAME, target=target) as at:
            job, seen = start_session(at, ORDERS).job, partial(at.deps.targets.inspect, "j-none", {("orders-db", "read")})
            until(
                lambda: seen().inspected or "server is in hot standby mode" in str(seen().failures), "it has replicated the observer's user"
            )
            with psycopg.connect(shop.superuser, port=port, autocommit=True) as standby:
                standby.execute("SELECT pg_wal_replay_pause()")
            landed = f"token-{job}_Ab3dEf9h"
            primary.execute(f"CREATE ROLE \"{landed}\" LOGIN PASSWORD 'landed' IN ROLE shop_orders_read_acme")
            try:
                revoke_from_outside(at, job)
                at.clock.ahead = 2 * SECOND_CHECK_DELAY
                result = revoke_from_outside(at, job)
                psycopg.connect(shop.superuser, user=landed, password="landed").close()
            finally:
                primary.execute(f'DROP ROLE "{landed}"')
    assert not result.confirmed


def test_a_database_role_left_after_a_failed_issue_is_in_doubt(shop: Shop, tmp_path: Path) -> None:
    with open_plain_desk(shop, tmp_path) as at:
        earlier = at.job()
        assert revoke_by_session(at, earlier, at.issue(earlier)).confirmed
        job = at.job()
        at.deps.store.ledger.append([issue_decision(job, 1, at.clock.now())])
        before = plain_users(shop)
        with standby_away(shop), pytest.raises(VaultUnavailable):
            at.issue(job)
        (role,) = plain_users(shop) - before
        assert_in_doubt_for_its_longest_life(at, job)
        assert role in plain_users(shop), "nobody knows of it, and nobody drops it"
        drop_user(shop, role)


@pytest.mark.parametrize("searched", [True, False])
def test_a_credential_issued_without_a_lease_is_not_given_to_a_job_as_revocable(shop: Shop, tmp_path: Path, *, searched: bool) -> None:
    """The catalog does not know this mount, so only Vault's answer tells."""
    shelf = f"shelf{'-searched' if searched else ''}"

    def read_from_shelf(catalog: dict[str, Any]) -> None:
        action = catalog["resources"]["orders-db"]["actions"]["read"]
        action["issue"]["path"] = f"{shelf}/fixed"
        if not searched:
            action["target"] = None
            del catalog["tools"]

    shop.admin("POST", f"sys/mounts/{shelf}", {"type": "kv"})
    try:
        shop.admin("POST", f"{shelf}/fixed", {"username": "shop_reaper", "password": "x"})
        with open_plain_desk(shop, tmp_path, change=read_from_shelf) as at:
            session = start_session(at, ORDERS)
            with pytest.raises(IssueRefused, match="Vault issued it without a lease, so nothing can revoke it; set `revocable: on_expiry`"):
                session.issue()
            assert not session.end().confirmed
            # The credential's user is a permanent one, whose password the job never had.
            at.clock.ahead = timedelta(minutes=6)
            assert session.end().confirmed
            assert "credential.confirmed" not in session.entry_types()
            assert "credential.expired" in session.entry_types()
    finally:
        shop.admin("DELETE", f"sys/mounts/{shelf}")
