"""An action on transit: Vault answers once about what the catalog fixes, with a key that nobody sees. The answer cannot be revoked."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from activities.revocation.proof import VALUE_STAYS, prove
from justenough.domain.ledger.events import EventType
from tests.activities.catalog_variants import open_changed_desk
from tests.activities.issuing_session import start_session
from tests.activities.vault_shop import Desk, Shop

pytestmark = pytest.mark.servers
TEXT = base64.b64encode(b"the shop's opening hours").decode()
SIGN = {"resource": "notices", "action": "read", "ttl": "5m", "reason": "Put the notice up"}
ISSUE: dict[str, Any] = {"path": "transit/sign/notices", "method": "update", "data": {"input": TEXT}}


@pytest.fixture(scope="module")
def at(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    def change(catalog: dict[str, Any]) -> None:
        catalog["resources"]["notices"] = {
            "title": "The shop's signature",
            "environment": "prod",
            "sensitivity": "internal",
            "owner": "support-leads",
            "actions": {"read": {"issue": ISSUE, "max_ttl": "10m", "revocable": "never"}},
        }
        catalog["provision"].append({"path": "transit/keys/notices", "data": {"type": "ed25519"}})

    with open_changed_desk(shop, tmp_path_factory.mktemp("transit"), change, provision=True) as made:
        yield made


def test_a_signature_from_transit_stays_valid_after_the_job_and_is_recorded_as_residual(at: Desk) -> None:
    one = start_session(at, SIGN)
    held = one.issue()
    signed = {"input": TEXT, "signature": held.fields["signature"].reveal()}
    assert "key" not in " ".join(held.fields.keys() - {"key_version"})

    assert one.end().confirmed

    assert at.shop.admin("POST", "transit/verify/notices", signed)["data"]["valid"] is True
    assert "credential.confirmed" not in one.entry_types()
    (left,) = at.deps.store.ledger.entries(job=one.job, types=[EventType.CREDENTIAL_RESIDUAL]).items
    assert VALUE_STAYS in left.data["why"]
    assert any(finding.detail == VALUE_STAYS for finding in prove(at.deps, one.job).findings)


def test_a_grant_can_sign_only_the_text_that_the_catalog_fixes(at: Desk) -> None:
    one = start_session(at, SIGN)
    one.issue()
    token = at.deps.vault.create_token(one.job, policy="je-grant-notices-read", alias=None, ttl=60).secret.reveal()
    other = base64.b64encode(b"all prices are halved").decode()
    assert at.shop.status("PUT", ISSUE["path"], token=token, body={"input": TEXT}) == 200
    assert at.shop.status("PUT", ISSUE["path"], token=token, body={"input": other}) == 403
    assert at.shop.status("PUT", ISSUE["path"], token=token, body={"input": TEXT, "batch_input": [{"input": other}]}) == 403
    assert one.end().confirmed
