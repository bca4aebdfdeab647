"""Makes the secrets of docker-compose.yml: passwords, OpenBao's seal key, and a CA with a certificate for OpenBao.

The first service of `docker compose up`, and the only one that sees all secrets. Each other service gets a volume with what it needs, readable
by its own user only. Existing secrets are kept; the certificate is renewed a year before it expires. Connects to nothing.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VOLUMES = Path("/volumes")
OWNERS = {"setup": 10001, "console": 10001, "worker": 10001, "postgres": 999, "temporal": 1000, "openbao": 100}
"""The volume of each service's secrets, and the user that the service runs as. (The worker is root, and reads its own regardless.)"""
OPENBAO_DATA = Path("/openbao/file")
OPENBAO_NAMES = ("openbao", "openbao-front", "openbao-back", "localhost")
PASSWORDS = {"admin": ("postgres",), "store": ("postgres",), "temporal": ("postgres", "temporal"), "vault": ("postgres", "setup")}
"""PostgreSQL's passwords (the superuser's, the store's, Temporal's, OpenBao's), and the volumes that have each."""
CA_LIFETIME = timedelta(days=20 * 365)
CERTIFICATE_LIFETIME = timedelta(days=5 * 365)
RENEW_BEFORE = timedelta(days=365)


def main() -> None:
    for volume, uid in OWNERS.items():
        os.chown(VOLUMES / volume, uid, uid)
        (VOLUMES / volume).chmod(0o700)
    os.chown(OPENBAO_DATA, OWNERS["openbao"], OWNERS["openbao"])
    for name, volumes in PASSWORDS.items():
        password = read_or_make(volumes[0], name, secrets.token_hex(24).encode())
        for volume in volumes[1:]:
            write(volume, name, password)
    store = (VOLUMES / "postgres/store").read_text()
    for volume in ("console", "worker"):
        write(volume, "pgpass", f"postgres:5432:justenough:justenough:{store}\n".encode())
    read_or_make("openbao", "seal.key", secrets.token_bytes(32))
    ca_key, ca = certificate_authority()
    for volume in ("setup", "console", "worker"):
        write(volume, "ca.pem", pem(ca))
    if not is_current(VOLUMES / "openbao/tls.pem"):
        key = ec.generate_private_key(ec.SECP256R1())
        write("openbao", "tls.key", key_pem(key))
        write("openbao", "tls.pem", pem(openbao_certificate(key, ca_key, ca)))
        print("made a certificate for OpenBao; if it was running: docker compose restart openbao")


def read_or_make(volume: str, name: str, content: bytes) -> bytes:
    """Return the secret if it exists; else store this one and return it."""
    path = VOLUMES / volume / name
    if not path.exists():
        write(volume, name, content)
    return path.read_bytes()


def write(volume: str, name: str, content: bytes) -> None:
    """Replace a secret in one step, so that no service ever reads half of one."""
    path = VOLUMES / volume / name
    new = path.with_name(f"{name}.new")
    new.write_bytes(content)
    new.chmod(0o400)
    os.chown(new, OWNERS[volume], OWNERS[volume])
    new.replace(path)


def certificate_authority() -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """Return the installation's CA, made at the first start. Only this service reads its key."""
    path = VOLUMES / "setup/ca.key"
    if path.exists():
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return key, x509.load_pem_x509_certificate((VOLUMES / "setup/ca.pem").read_bytes())
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "JustEnough installation CA")])
    certificate = (
        builder(name, name, key, CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    write("setup", "ca.pem", pem(certificate))
    write("setup", "ca.key", key_pem(key))
    return key, certificate


def openbao_certificate(key: ec.EllipticCurvePrivateKey, ca_key: ec.EllipticCurvePrivateKey, ca: x509.Certificate) -> x509.Certificate:
    """Return a certificate for OpenBao at its names here and on the host's loopback."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "openbao")])
    addresses = [x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", "::1")]
    names = [*(x509.DNSName(name) for name in OPENBAO_NAMES), *addresses]
    return (
        builder(subject, ca.subject, key, CERTIFICATE_LIFETIME)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )


def builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, lifetime: timedelta) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def is_current(path: Path) -> bool:
    """Whether the certificate exists and lasts for a while yet."""
    if not path.exists():
        return False
    return x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc - datetime.now(UTC) > RENEW_BEFORE


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


if __name__ == "__main__":
    os.umask(0o077)
    main()
