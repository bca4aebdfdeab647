"""Certificates by their effects: a server that checks Vault's CRL accepts one before its revocation and not after. What nothing revokes is
never `confirmed`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import SSHCertificate, load_ssh_public_identity

from activities.issuing.results import IssueRefused
from activities.revocation.proof import prove
from activities.revocation.revoke import record_lapsed, revoke, revoke_one
from justenough.adapters.vault import IssuedSecret, pki
from justenough.domain.catalog.loader import read_catalog
from justenough.domain.core.rfc3339 import to_rfc3339
from justenough.domain.core.secret import Secret
from justenough.domain.jobs.states import Action
from justenough.domain.ledger.events import EventType
from justenough.services.revocation_attempts import SECOND_CHECK_DELAY
from tests.activities.catalog_variants import open_changed_desk
from tests.activities.certificate_issue import WAREHOUSE, WEB, openssh_accepts, openssh_certificate, sign_text
from tests.activities.held_credentials import keep_until
from tests.activities.issuing_session import start_session
from tests.activities.revocation_calls import revoke_from_outside
from tests.activities.vault_shop import EXAMPLE, Desk, Shop
from tests.support.warehouse import Warehouse

pytestmark = pytest.mark.servers
GRANT = timedelta(minutes=5)


@pytest.fixture
def warehouse(shop: Shop, tmp_path: Path) -> Warehouse:
    return Warehouse(shop.settings.vault_addr, tmp_path)


@pytest.fixture
def late_crl(shop: Shop) -> Iterator[Callable[[], Any]]:
    """The mount makes no new CRL when something is revoked; returns how to have it made."""
    shop.admin("POST", "pki/config/crl", {"auto_rebuild": True})
    yield lambda: shop.admin("GET", "pki/crl/rotate")
    shop.admin("POST", "pki/config/crl", {"auto_rebuild": False})


def test_a_certificate_opens_the_warehouse_until_it_is_revoked_and_is_confirmed_by_the_crl(at: Desk, warehouse: Warehouse) -> None:
    one = start_session(at, WAREHOUSE)
    held, other = one.issue(), start_session(at, WAREHOUSE).issue()
    assert warehouse.can_connect(held.fields)
    assert not warehouse.is_listed(held.fields)

    result = one.end()

    assert result.confirmed, result
    assert warehouse.is_listed(held.fields)
    assert [warehouse.can_connect(each.fields) for each in (held, other)] == [False, True]
    assert one.entry_types() == [
        "credential.issued",
        "revocation.started",
        "credential.revoked",
        "credential.confirmed",
        "revocation.confirmed",
    ]
    (confirmed,) = at.deps.store.ledger.entries(job=one.job, types=[EventType.CREDENTIAL_CONFIRMED]).items
    assert confirmed.data["how"].endswith(f"its certificate {held.credential.certificate} is in the CRL that Vault serves")


def test_a_certificate_names_its_job_and_tenant_and_ends_with_its_grant(at: Desk) -> None:
    before = datetime.now(UTC)
    one = start_session(at, WAREHOUSE)
    held = one.issue()
    found = x509.load_pem_x509_certificate(held.fields["certificate"].reveal().encode())
    assert f"CN={one.job}.acme.jobs.shop.internal" in found.subject.rfc4514_string()
    assert before + GRANT - timedelta(seconds=2) <= found.not_valid_after_utc <= datetime.now(UTC) + GRANT
    assert held.credential.expires_at == found.not_valid_after_utc
    assert held.lease_seconds is None


def test_a_revoked_certificate_that_is_in_no_crl_yet_is_not_confirmed(at: Desk, warehouse: Warehouse, late_crl: Callable[[], Any]) -> None:
    one = start_session(at, WAREHOUSE)
    held = one.issue()

    first = one.end()

    assert held.credential.lease_id
    assert not at.deps.vault.is_lease_alive(held.credential.lease_id)
    assert warehouse.can_connect(held.fields)
    assert not first.confirmed
    assert [why for why in first.failures if str(held.credential.certificate) in why and "not in the CRL" in why]
    assert "credential.confirmed" not in one.entry_types()

    late_crl()
    assert one.end().confirmed
    assert not warehouse.can_connect(held.fields)
    assert one.credential_state() == "confirmed"


def test_a_certificate_that_expired_needs_no_crl_to_be_confirmed(at: Desk, late_crl: Callable[[], Any]) -> None:
    one = start_session(at, WAREHOUSE)
    one.issue()
    assert not one.end().confirmed
    at.clock.ahead = GRANT + timedelta(seconds=1)
    assert one.end().confirmed
    assert prove(at.deps, one.job).dead


def test_a_certificate_can_be_revoked_while_its_job_goes_on(at: Desk, warehouse: Warehouse) -> None:
    one = start_session(at, WAREHOUSE)
    held = one.issue()
    assert revoke_one(at.deps, one.job, held.credential.id, by="person", why="asked for").confirmed
    assert not warehouse.can_connect(held.fields)
    assert one.credential_state() == "confirmed"


def test_a_revoked_certificate_that_is_in_no_crl_yet_is_overdue(at: Desk, late_crl: Callable[[], Any]) -> None:
    one = start_session(at, WAREHOUSE)
    held = one.issue()
    result = revoke_one(at.deps, one.job, held.credential.id, by="person", why="asked for")
    assert result.failures == ("its lease is gone, but its certificate is not in the CRL that Vault serves",)
    assert one.credential_state() == "overdue"
    late_crl()
    assert revoke_one(at.deps, one.job, held.credential.id, by="person", why="asked for").confirmed


def test_a_dead_workers_certificate_is_revoked_by_what_the_store_recorded(at: Desk, warehouse: Warehouse) -> None:
    one = start_session(at, WAREHOUSE)
    held = one.issue()
    assert revoke_from_outside(at, one.job).second_check_in is not None
    assert not warehouse.can_connect(held.fields)
    at.clock.ahead = SECOND_CHECK_DELAY + timedelta(seconds=2)
    assert revoke_from_outside(at, one.job).confirmed
    assert one.credential_state() == "confirmed"


def test_a_proof_looks_up_the_certificate_in_vault(at: Desk) -> None:
    one = start_session(at, WAREHOUSE)
    held = one.issue()
    what = f"certificate {held.credential.certificate}"
    assert {finding.what: finding.alive for finding in prove(at.deps, one.job).findings}[what]
    one.end()
    found = {finding.what: finding for finding in prove(at.deps, one.job).findings}[what]
    assert (found.alive, found.detail, found.credential) == (False, "in the CRL that Vault serves", held.credential.id)


def test_the_mount_removes_expired_certificates_from_its_crl_by_itself(shop: Shop) -> None:
    tidy = shop.admin("GET", "pki/config/auto-tidy")["data"]

    assert [tidy[name] for name in ("enabled", "tidy_cert_store", "tidy_revoked_certs")] == [True, True, True]
    assert [tidy[name] for name in ("interval_duration", "safety_buffer", "revoked_safety_buffer")] == [900, 3600, 3600]


def test_a_certificate_that_vault_does_not_know_is_never_confirmed(at: Desk) -> None:
    one = start_session(at, WAREHOUSE)
    held = one.issue()
    lost = held.credential.model_copy(update={"certificate": "pki/cert/00:11:22"})
    result = revoke(at.deps, one.job, by="session", settled=True, why="it ended", known=(lost,))
    assert not result.confirmed
    assert any("pki/cert/00:11:22: Vault does not know this certificate" in why for why in result.failures)


@pytest.mark.parametrize(
    "resource, tier, role, change, why, ends",
    [
        ("warehouse-api", 0, {"generate_lease": False}, {}, "without a lease, so it cannot be revoked; set `generate_lease: true`", False),
        ("warehouse-api", 0, {}, {"crl": None}, "has no `crl` in which its revocation can be verified", True),
        ("warehouse-api", 0, {}, {"ttl": "14m"}, "after its grant; set `ttl:", True),
        ("web-servers", 1, {}, {"ttl": "9m"}, "after its grant; set `ttl:", True),
        ("web-servers", 1, {}, {"revocable": "now"}, "an SSH certificate cannot be revoked", False),
    ],
    ids=["no lease", "no crl", "a certificate of 14 minutes", "an ssh certificate of 9 minutes", "an ssh certificate said to be revocable"],
)
def test_a_certificate_that_differs_from_what_the_catalog_promises_reaches_no_job(
    shop: Shop, tmp_path: Path, resource: str, tier: int, role: dict[str, Any], change: dict[str, Any], why: str, ends: bool
) -> None:
    access, action = (WAREHOUSE, "read") if resource == "warehouse-api" else (WEB, "write")

    def changed(catalog: dict[str, Any]) -> None:
        definition = catalog["resources"][resource]["actions"][action]
        for key, value in change.items():
            (definition["issue"]["data"] if key == "ttl" else definition).update({key: value})

    before = shop.admin("GET", "pki/roles/warehouse-read")["data"]
    shop.admin("POST", "pki/roles/warehouse-read", {**before, **role})
    with open_changed_desk(shop, tmp_path, changed) as at:
        one = start_session(at, access, tier=tier)
        with pytest.raises(IssueRefused, match=re.escape(why)):
            one.issue()
        shop.admin("POST", "pki/roles/warehouse-read", before)
        # Vault gave it all the same, so it is known, and ended at once where it has a lease. What is said to end `now`, and has nothing to end it by, is in the way of a proof until its time.
        ended = ["credential.revoked", "credential.confirmed"] if resource == "warehouse-api" and not role else []
        assert one.entry_types() == ["credential.issued", *ended, "credential.refused"]
        assert one.end().confirmed is ends


def test_an_ssh_certificate_works_until_its_time_is_over_and_is_never_confirmed(at: Desk, shop: Shop, tmp_path: Path) -> None:
    one = start_session(at, WEB, tier=1)
    held = one.issue()
    certificate = load_ssh_public_identity(held.fields["signed_key"].reveal().strip().encode())
    assert isinstance(certificate, SSHCertificate)
    assert one.job in certificate.key_id.decode()
    assert certificate.valid_principals == [b"deploy"]
    ends = datetime.fromtimestamp(certificate.valid_before, UTC)
    assert held.credential.expires_at == ends <= datetime.now(UTC) + GRANT
    folder = sign_text(held, tmp_path, ca=shop.admin("GET", "ssh/config/ca")["data"]["public_key"])

    assert one.end().confirmed

    assert openssh_accepts(folder, datetime.now(UTC))
    assert "credential.confirmed" not in one.entry_types()
    assert one.credential_state() == "residual"
    last = prove(at.deps, one.job).findings[-1]
    assert (last.alive, last.residual, last.detail) == (True, True, f"it cannot be revoked early; it is valid until {to_rfc3339(ends)}")
    at.clock.ahead = GRANT + timedelta(seconds=1)
    assert not openssh_accepts(folder, at.clock.now())
    assert record_lapsed(at.deps) == ()
    assert one.credential_state() == "expired"
    assert one.entry_types()[-1] == "credential.expired"


@pytest.mark.parametrize(
    "signed, ends",
    [
        ("for five minutes", GRANT),
        ("for ever", None),
        ("ssh-ed25519-cert-v01@openssh.com AAAA", None),
        ("no certificate at all", None),
    ],
)
def test_an_ssh_certificate_ends_at_its_own_expiry_and_never_without_one(tmp_path: Path, signed: str, ends: timedelta | None) -> None:
    if signed.startswith("for "):
        signed = openssh_certificate(tmp_path, ends)
    action = read_catalog((EXAMPLE / "catalog.yaml").read_bytes()).resources["web-servers"].actions[Action.WRITE]
    now = datetime.now(UTC)
    issued = IssuedSecret(lease_id=None, ttl=None, fields={"signed_key": Secret(signed)})
    found = pki.ends_at(action, issued)
    assert found is not None
    assert abs(found - (now + ends)) < timedelta(minutes=1) if ends else found == pki.NEVER
    assert (pki.why_unfit(action, issued, grant_ends=now + GRANT + timedelta(minutes=1)) is None) is (ends is not None)


@pytest.mark.parametrize(
    "access, tier, ends_as", [(WAREHOUSE, 0, "credential.confirmed"), (WEB, 1, "credential.expired")], ids=["pki", "ssh"]
)
async def test_a_certificate_whose_grant_has_ended_is_recorded_as_ended_while_its_job_goes_on(
    at: Desk, access: dict[str, str], tier: int, ends_as: str
) -> None:
    one = start_session(at, {**access, "ttl": "4s"}, tier=tier)
    held = one.issue()
    # The sweep records what came to its end a moment after its session had looked.
    await keep_until(at, one.job, one.issuer, held, lambda: record_lapsed(at.deps) == () and ends_as in one.entry_types())
    assert at.deps.now() >= held.credential.expires_at
    assert "credential.renewed" not in one.entry_types()
    assert one.credential_state() == ends_as.removeprefix("credential.")


@pytest.mark.parametrize("expiration", ["soon", "1e400", str(10**30)])
def test_a_certificate_whose_end_cannot_be_read_never_ends(expiration: str) -> None:
    action = read_catalog((EXAMPLE / "catalog.yaml").read_bytes()).resources["warehouse-api"].actions[Action.READ]
    fields = {"certificate": Secret("PEM"), "expiration": Secret(expiration)}
    assert pki.ends_at(action, IssuedSecret(lease_id="l", ttl=60, fields=fields)) == pki.NEVER
