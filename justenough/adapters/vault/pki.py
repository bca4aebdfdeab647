"""Certificates that Vault issued: when they expire, whether they match the catalog, whether they are revoked. Changes nothing.

Observed on OpenBao 2.7: revoking the lease of a pki certificate (`generate_lease: true` on its role) revokes the certificate, and the CRL
lists it when that call returns, but with `auto_rebuild` only hours later. Without `generate_lease`, or with `no_store`, there is no lease
to revoke. A pki lease cannot be renewed. `cert/<serial>` and an issuer's CRL, which are read here, are public in Vault.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import SSHCertificate, load_ssh_public_identity

from justenough.adapters.vault.client import IssuedSecret, Vault
from justenough.adapters.vault.connection import safe_path
from justenough.adapters.vault.errors import VaultRefused
from justenough.domain.catalog.models import ActionDef
from justenough.domain.core.rfc3339 import to_rfc3339
from justenough.domain.jobs.states import Revocable

MAX_CLOCK_SKEW = timedelta(seconds=10)
"""How far Vault's clock may be ahead of ours before a certificate with the grant's ttl seems to outlive the grant."""
NO_LEASE = (
    "Vault issued it without a lease, so nothing can revoke it; set `revocable: on_expiry` in the catalog if it ends by itself within its "
    "ttl, otherwise `revocable: never`"
)
NEVER = datetime.max.replace(tzinfo=UTC)


def ends_at(action: ActionDef, issued: IssuedSecret) -> datetime | None:
    """Return when a certificate expires; None for any other secret, and for a certificate that cannot be revoked."""
    fields = issued.fields
    if action.revocable is Revocable.NEVER:
        return None
    try:
        if {"certificate", "expiration"} <= fields.keys():
            return datetime.fromtimestamp(int(fields["expiration"].reveal()), UTC)
        if "signed_key" not in fields:
            return None
        identity = load_ssh_public_identity(fields["signed_key"].reveal().strip().encode())
        return datetime.fromtimestamp(identity.valid_before, UTC) if isinstance(identity, SSHCertificate) else NEVER
    except (ValueError, OverflowError, UnsupportedAlgorithm):
        # The expiry cannot be read, or there is none.
        return NEVER


def certificate_path(action: ActionDef, issued: IssuedSecret) -> str | None:
    """Return the Vault path of a certificate whose revocation can be verified; None if there is none."""
    serial = issued.fields.get("serial_number")
    return f"{action.crl}/cert/{serial.reveal()}" if action.crl and serial else None


def why_unfit(action: ActionDef, issued: IssuedSecret, *, grant_ends: datetime) -> str | None:
    """Return why an issued certificate does not match the catalog's rules for its end; None if it does."""
    end, on_expiry = ends_at(action, issued), "or set `revocable: on_expiry` in the catalog"
    if end is not None and end > grant_ends + MAX_CLOCK_SKEW:
        return f'its certificate expires at {to_rfc3339(end)}, after its grant; set `ttl: "{{ttl}}s"` in the catalog\'s issue.data'
    if action.revocable is not Revocable.NOW:
        return None
    if "signed_key" in issued.fields:
        return "an SSH certificate cannot be revoked; set `revocable: on_expiry` in the catalog"
    if not action.crl:
        no_crl = f"the catalog has no `crl` in which its revocation can be verified; name its mount in `crl`, {on_expiry}"
        return no_crl if end is not None else NO_LEASE if issued.lease_id is None else None
    if certificate_path(action, issued) is None:
        return "the catalog has a `crl`, but what Vault issued is not a certificate"
    no_lease = f"Vault issued it without a lease, so it cannot be revoked; set `generate_lease: true` on its role in Vault, {on_expiry}"
    return no_lease if issued.lease_id is None else None


def is_unrevoked(vault: Vault, path: str) -> bool:
    """Whether a certificate is not (yet) in the CRL that Vault serves. Raises VaultRefused if Vault does not know the certificate."""
    mount, _, serial = path.rpartition("/cert/")
    answer = vault.call_own("get", safe_path(path))
    if answer is None:
        raise VaultRefused(f"{path}: Vault does not know this certificate")
    if not answer["data"].get("revocation_time"):
        return True
    # If Vault's answer names no issuer, the mount's default issuer issued it.
    issuer = answer["data"].get("issuer_id")
    crl_path, field = (f"{mount}/issuer/{issuer}/crl", "crl") if issuer else (f"{mount}/cert/crl", "certificate")
    try:
        crl = x509.load_pem_x509_crl(str(vault.read_data("get", safe_path(crl_path)).get(field)).encode())
    except ValueError as error:
        raise VaultRefused(f"{crl_path}: Vault returned no CRL that can be parsed") from error
    return crl.get_revoked_certificate_by_serial_number(int(serial.replace(":", ""), 16)) is None
