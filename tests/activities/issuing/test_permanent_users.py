"""Users that no revocation ends: their action has its resource's target, and they stay in it. They do not count as access that is left
over.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from activities.revocation.proof import VALUE_STAYS, prove
from activities.revocation.revoke import record_lapsed, revoke_by_handle
from justenough.domain.jobs.states import Action
from justenough.services.action_trial import try_action
from tests.activities.issuing_session import start_session
from tests.activities.plain_roles import NOTHING, drop_user, open_plain_desk
from tests.activities.vault_shop import Desk, Shop

pytestmark = pytest.mark.servers
ORDERS = {"resource": "orders-db", "action": "read", "ttl": "1m", "reason": "Look at the orders"}


def only_expires(catalog: dict[str, Any]) -> None:
    catalog["resources"]["orders-db"]["actions"]["read"]["revocable"] = "on_expiry"


@pytest.fixture
def static(shop: Shop, tmp_path: Path) -> Iterator[Desk]:
    """A desk whose orders are read as a static role of Vault's: a user whose password Vault rotates."""

    def read_as_static_role(catalog: dict[str, Any]) -> None:
        action = catalog["resources"]["orders-db"]["actions"]["read"]
        action["issue"]["path"] = "database/static-creds/reports"
        action["revocable"] = "never"
        (plain,) = (write["data"] for write in catalog["provision"] if write["path"] == "database/config/plain")
        plain["allowed_roles"] = ["plain-read", "reports"]
        role = {"db_name": "plain", "username": "reports", "rotation_period": "24h"}
        catalog["provision"].append({"path": "database/static-roles/reports", "data": role})

    with psycopg.connect(shop.superuser, autocommit=True) as connection:
        connection.execute("CREATE ROLE reports LOGIN IN ROLE shop_orders_read_acme")
        connection.execute("GRANT reports TO je_vault WITH ADMIN TRUE, INHERIT FALSE, SET FALSE")
    try:
        with open_plain_desk(shop, tmp_path, change=read_as_static_role) as made:
            yield made
    finally:
        shop.admin("DELETE", "database/static-roles/reports")
        drop_user(shop, "reports")


def test_a_job_that_read_a_static_roles_password_leaves_nothing_overdue(static: Desk) -> None:
    one = start_session(static, ORDERS)
    held = one.issue()
    assert held.fields["username"].reveal() == "reports"

    result = one.end()

    assert result.confirmed, result
    assert one.credential_state() == "residual"
    proof = prove(static.deps, one.job)
    assert (proof.revoked, proof.dead) == (True, False)
    assert any(finding.detail == VALUE_STAYS for finding in proof.findings)


@pytest.mark.parametrize("ttl", ["1m", "10m"], ids=["its lease is shortened", "its lease is renewed"])
def test_a_user_that_only_expires_is_not_called_expired_while_it_can_log_in(shop: Shop, tmp_path: Path, ttl: str) -> None:
    with open_plain_desk(shop, tmp_path, revocation=NOTHING, change=only_expires) as at:
        one = start_session(at, {**ORDERS, "ttl": ttl})
        held = one.issue()
        user = held.fields["username"].reveal()
        try:
            # Renew the lease as the last renewal does.
            left = math.ceil(held.seconds_left(now=at.deps.now(), ticks=at.deps.ticks()))
            assert at.deps.vault.renew_lease(str(held.credential.lease_id), left) == left
            assert one.end().confirmed
            with psycopg.connect(shop.superuser) as connection:
                (until,) = connection.execute("SELECT rolvaliduntil FROM pg_roles WHERE rolname = %s", [user]).fetchone() or (None,)
            assert until is not None
            at.clock.stopped = until - timedelta(seconds=0.5)
            record_lapsed(at.deps)
            assert one.credential_state() == "residual"
        finally:
            drop_user(shop, user)


def test_a_user_that_only_expires_leaves_nothing_overdue(shop: Shop, tmp_path: Path) -> None:
    with open_plain_desk(shop, tmp_path, revocation=NOTHING, change=only_expires) as at:
        one = start_session(at, ORDERS)
        user = one.issue().fields["username"].reveal()
        try:
            assert one.end().confirmed
            assert one.credential_state() == "residual"
            at.clock.ahead = timedelta(minutes=2)
            record_lapsed(at.deps)
            assert one.credential_state() == "expired"
        finally:
            drop_user(shop, user)


def test_a_user_that_only_expires_does_not_keep_its_credential_from_ending_with_its_grant(shop: Shop, tmp_path: Path) -> None:
    with open_plain_desk(shop, tmp_path, revocation=NOTHING, change=only_expires) as at:
        one = start_session(at, ORDERS)
        held = one.issue()
        assert held.credential.user
        try:
            ended = revoke_by_handle(at.deps, one.job, held.credential, (), by="session", why="its ttl has ended")
            assert ended.confirmed, ended
            assert one.credential_state() == "residual"
        finally:
            drop_user(shop, held.credential.user)


def test_trying_a_static_role_does_not_fail_because_its_user_stays(static: Desk, shop: Shop, tmp_path: Path) -> None:
    settings = shop.settings.model_copy(update={"config": tmp_path / "config"})
    environment = {"SHOP_HOST": "127.0.0.1", "SHOP_PORT": str(shop.door.port), "MODEL_URL": "http://127.0.0.1:65535/v1"}
    steps = list(try_action(settings, environment, "orders-db", Action.READ, {}))
    assert [step.step for step in steps if step.outcome == "ok"] == ["issue", "find in target", "log in"], steps
    assert not [step for step in steps if step.outcome == "failed"], steps
