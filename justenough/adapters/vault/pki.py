"""Certificates that Vault issued: when one ends by itself, whether it is what the catalog says it is, whether it still stands. Changes nothing.

Seen on OpenBao 2.7: revoking the lease of a pki certificate (`generate_lease: true` on its role) revokes the certificate, and the CRL that Vault serves
has it when that call returns; with `auto_rebuild` on, the CRL has it only hours later. Without `generate_lease`, or with `no_store`, there is no lease
and nothing to revoke it by. A lease of pki cannot be renewed. What is read here, `cert/<serial>` and an issuer's CRL, Vault shows to anybody.
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
from justenough.domain.core.secret import Secret
from justenough.domain.jobs.states import Revocable

MAX_CLOCK_SKEW = timedelta(seconds=10)
"""How far Vault's clock may be ahead of ours before a certificate that was made for the grant's time looks longer than that."""
NEVER = datetime.max.replace(tzinfo=UTC)


def ends_at(action: ActionDef, issued: IssuedSecret) -> datetime | None:
    """Return when what was issued ends by itself, whatever happens to Vault; None where it does not say."""
    fields = issued.fields
    if action.revocable is Revocable.NEVER:
        return None
    try:
        if {"certificate", "expiration"} <= fields.keys():
            return datetime.fromtimestamp(int(fields["expiration"].reveal()), UTC)
        return _ssh_expiry(fields["signed_key"]) if "signed_key" in fields else None
    except (ValueError, OverflowError, UnsupportedAlgorithm):
        # What cannot be read, and what is to hold for ever, never ends as far as anybody can say.
        return NEVER


def certificate_path(action: ActionDef, issued: IssuedSecret) -> str | None:
    """Return where in Vault a certificate is whose revocation is to be seen, None where none is."""
    serial = issued.fields.get("serial_number")
    return f"{action.crl}/cert/{serial.reveal()}" if action.crl and serial else None


def why_unfit(action: ActionDef, issued: IssuedSecret, *, grant_ends: datetime) -> str | None:
    """Return why what was issued is not what the catalog promises of its end; None where it is, or is no certificate."""
    end = ends_at(action, issued)
    if end is not None and end > grant_ends + MAX_CLOCK_SKEW:
        return f'its certificate would live until {end.isoformat()}, longer than its grant; have the catalog send `ttl: "{{ttl}}s"` in issue.data'
    if action.revocable is not Revocable.NOW:
        return None
    if "signed_key" in issued.fields:
        return "nothing revokes an SSH certificate; the catalog must say `revocable: on_expiry`"
    return _why_not_revocable(action, issued) if action.crl or end is not None else None


def is_unrevoked(vault: Vault, path: str) -> bool:
    """Whether a certificate is not (yet) in the CRL that Vault serves. Raises VaultRefused where Vault knows no such certificate."""
    mount, _, serial = path.rpartition("/cert/")
    found = vault.call_own("get", safe_path(path))
    if found is None:
        raise VaultRefused(f"{path}: Vault knows no such certificate")
    if not found["data"].get("revocation_time"):
        return True
    revoked = _load_crl(vault, mount, found["data"].get("issuer_id"))
    return revoked.get_revoked_certificate_by_serial_number(int(serial.replace(":", ""), 16)) is None


def _load_crl(vault: Vault, mount: str, issuer: str | None) -> x509.CertificateRevocationList:
    """Return an issuer's CRL; where Vault does not say who issued, that of the mount's default issuer."""
    place, field = (f"{mount}/issuer/{issuer}/crl", "crl") if issuer else (f"{mount}/cert/crl", "certificate")
    found = (vault.call_own("get", safe_path(place)) or {}).get("data") or {}
    try:
        return x509.load_pem_x509_crl(str(found.get(field)).encode())
    except ValueError as error:
        raise VaultRefused(f"{place}: there is no CRL to be read") from error


def _why_not_revocable(action: ActionDef, issued: IssuedSecret) -> str | None:
    otherwise = "or have the catalog say `revocable: on_expiry`"
    if not action.crl:
        return f"the catalog names no `crl` in which its revocation could be seen; name its mount there, {otherwise}"
    if certificate_path(action, issued) is None:
        return "the catalog names a `crl`, and what was issued is no certificate"
    if issued.lease_id is None:
        return f"it came without a lease to revoke it by; set `generate_lease: true` on its role in Vault, {otherwise}"
    return None


def _ssh_expiry(signed: Secret) -> datetime:
    found = load_ssh_public_identity(signed.reveal().strip().encode())
    return datetime.fromtimestamp(found.valid_before, UTC) if isinstance(found, SSHCertificate) else NEVER
