"""A credential that cannot be revoked works until its lease ends. So that end is recorded, not the grant's, unless Vault shortens the
lease.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from activities.revocation.proof import LOGIN_MARGIN
from activities.revocation.revoke import record_lapsed
from tests.activities.catalog_variants import open_changed_desk
from tests.activities.issuing_session import start_session
from tests.activities.vault_shop import Desk, Shop

pytestmark = pytest.mark.servers
LEASE = timedelta(minutes=10)
GRANT = timedelta(minutes=1)
DOOR = {"resource": "door", "action": "read", "ttl": "1m", "reason": "Look at the door"}
ORDERS = {"resource": "orders-db", "action": "read", "ttl": "1m", "reason": "Look at the orders"}


@pytest.fixture
def at(shop: Shop, tmp_path: Path) -> Iterator[Desk]:
    """A desk with leases that Vault cannot renew (one-time passwords), and with users of the shop that nothing revokes early."""

    def change(catalog: dict[str, Any]) -> None:
        issue = {"path": "otp/creds/door", "method": "update", "data": {"ip": "192.0.2.1"}}
        role = {"key_type": "otp", "default_user": "door", "cidr_list": "192.0.2.0/24"}
        catalog["resources"]["door"] = {
            "title": "The shop's door",
            "environment": "prod",
            "sensitivity": "internal",
            "owner": "support-leads",
            "actions": {"read": {"issue": issue, "role": role, "max_ttl": "5m", "revocable": "on_expiry"}},
        }
        catalog["resources"]["orders-db"]["actions"]["read"]["revocable"] = "on_expiry"
        mount = {"type": "ssh", "config": {"default_lease_ttl": f"{LEASE.total_seconds():.0f}s"}}
        catalog["provision"].append({"path": "sys/mounts/otp", "data": mount})

    with open_changed_desk(shop, tmp_path, change, provision=True) as made:
        yield made


def lease_end(shop: Shop, lease: str) -> datetime:
    return datetime.fromisoformat(shop.admin("PUT", "sys/leases/lookup", {"lease_id": lease})["data"]["expire_time"])


def test_a_credential_that_only_expires_is_valid_until_its_lease_ends(at: Desk) -> None:
    one = start_session(at, DOOR)
    held = one.issue()
    assert held.credential.lease_id
    ends = lease_end(at.shop, held.credential.lease_id)
    assert ends <= held.credential.expires_at <= datetime.now(UTC) + LEASE + LOGIN_MARGIN

    assert one.end().confirmed
    at.clock.ahead = GRANT + timedelta(seconds=5)
    record_lapsed(at.deps)

    assert one.credential_state() == "residual", "its lease would have lived for eight minutes more"
    at.clock.ahead = LEASE + LOGIN_MARGIN + timedelta(seconds=5)
    record_lapsed(at.deps)
    assert one.credential_state() == "expired"


def test_a_credential_that_only_expires_ends_with_its_grant_if_vault_shortens_its_lease(at: Desk) -> None:
    one = start_session(at, ORDERS)
    held = one.issue()
    assert held.credential.lease_id
    ends = lease_end(at.shop, held.credential.lease_id)
    assert ends <= held.credential.expires_at <= datetime.now(UTC) + GRANT + LOGIN_MARGIN
    (view,) = at.deps.store.credentials.list(job=one.job).items
    assert view.expires_at == held.credential.expires_at
    assert one.end().confirmed
