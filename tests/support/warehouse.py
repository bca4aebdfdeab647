"""The shop's warehouse: a server that accepts the shop's client certificates unless they are in the CRL that Vault serves."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
from cryptography import x509

from justenough.domain.core.secret import Secret
from tests.support.plain_http import NO_TLS
from tests.support.tls_authority import create_authority

Fields = Mapping[str, Secret]
"""The data that Vault issued: `certificate`, `private_key`, `issuing_ca`, `serial_number`."""


@dataclass(frozen=True)
class Warehouse:
    """A server that requires client certificates of the shop's CA and checks each against the CRL that Vault serves."""

    vault: str
    """Vault's address."""
    folder: Path

    def crl(self) -> str:
        """Return the current CRL, which Vault serves without a token."""
        response = httpx.get(f"{self.vault}/v1/pki/cert/crl", timeout=60, trust_env=False, verify=NO_TLS).raise_for_status()
        return str(response.json()["data"]["certificate"])

    def is_listed(self, certificate: Fields) -> bool:
        """Whether the CRL lists a certificate."""
        serial = int(certificate["serial_number"].reveal().replace(":", ""), 16)
        return x509.load_pem_x509_crl(self.crl().encode()).get_revoked_certificate_by_serial_number(serial) is not None

    def can_connect(self, certificate: Fields) -> bool:
        """Whether a TLS handshake with this certificate and key succeeds."""
        try:
            _handshake(self._server(certificate), _client(self.folder, certificate))
        except ssl.SSLCertVerificationError as error:
            if "revoked" not in error.verify_message:
                raise
            return False
        return True

    def _server(self, certificate: Fields) -> ssl.SSLContext:
        _, contexts = create_authority(self.folder, "warehouse")
        trusted = self.folder / "trusted.pem"
        trusted.write_text(certificate["issuing_ca"].reveal() + "\n" + self.crl())
        server = contexts["warehouse"]
        server.load_verify_locations(trusted)
        server.verify_mode = ssl.CERT_REQUIRED
        server.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        return server


def _client(folder: Path, certificate: Fields) -> ssl.SSLContext:
    pem = folder / "client.pem"
    pem.write_text(certificate["private_key"].reveal() + "\n" + certificate["certificate"].reveal())
    client = ssl.create_default_context(cafile=folder / "authority.pem")
    client.load_cert_chain(pem)
    return client


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    """Run a TLS handshake in memory. Raises SSLCertVerificationError if the server rejects the client's certificate."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [server.wrap_bio(up, down, server_side=True), client.wrap_bio(down, up, server_hostname="warehouse")]
    waiting = [*ends]
    while waiting:
        for end in [*reversed(waiting)]:
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                continue
