"""A person with a second login, as docs/how-to/lockout.md sets it up: a client certificate at a mount that locks no names."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.child_process import run_child
from tests.support.wait import until
from worker.provisioning.policies import person_policy
from worker.stack.binaries import Programs

PERSON = {"token_policies": ["je-person"], "token_no_default_policy": True, "token_type": "service", "token_ttl": "1h"}


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """The address of a Vault in memory that speaks TLS, under the authority in `vault-ca.pem`."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    options = ("-dev-tls", f"-dev-tls-cert-dir={tmp_path}", "-dev-root-token-id=root", "-dev-no-store-token")
    argv = (str(Programs().vault()), "server", "-dev", *options, f"-dev-listen-address=127.0.0.1:{port}")
    with run_child(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        yield f"https://127.0.0.1:{port}"


def create_certificate(folder: Path, name: str) -> Path:
    """Create a person's self-signed certificate; return the file with it and its key."""
    key, now, subject = (
        ec.generate_private_key(ec.SECP256R1()),
        datetime.now(UTC),
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]),
    )
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key()).serial_number(1)
    usage = x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = (
        builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=1)).add_extension(usage, critical=False)
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file = folder / f"{name}.pem"
    file.write_bytes(private + builder.sign(key, hashes.SHA256()).public_bytes(pem))
    return file


def connect(address: str, folder: Path, *, certificate: Path | None = None, token: str = "") -> httpx.Client:
    """Return a client of Vault."""
    tls = ssl.create_default_context(cafile=folder / "vault-ca.pem")
    if certificate:
        tls.load_cert_chain(certificate)
    headers = {"X-Vault-Token": token} if token else {}
    return httpx.Client(base_url=f"{address}/v1/", headers=headers, verify=tls, timeout=60, trust_env=False)


def is_up(address: str, folder: Path) -> bool:
    """Whether the server has its certificate and is ready."""
    with suppress(httpx.TransportError, OSError), connect(address, folder) as vault:
        return vault.get("sys/health").status_code == 200
    return False


def test_a_person_whose_name_is_locked_can_log_in_with_a_certificate_and_is_the_same_person(address: str, tmp_path: Path) -> None:
    until(lambda: is_up(address, tmp_path), "Vault serves")
    certificate = create_certificate(tmp_path, "oncall")
    with connect(address, tmp_path, token="root") as admin, connect(address, tmp_path, certificate=certificate) as oncall:
        writes = {
            "sys/mounts/transit": {"type": "transit"},
            "sys/policies/acl/je-person": {"policy": person_policy()},
            "sys/auth/people": {"type": "userpass"},
            "sys/auth/people-cert": {"type": "cert"},
            "auth/people/users/oncall": {"password": "right", **PERSON},
            "auth/people-cert/certs/oncall": {"certificate": certificate.read_text(), "allowed_common_names": "oncall", **PERSON},
        }
        for path, data in writes.items():
            admin.post(path, json=data).raise_for_status()
        entity = oncall.post("auth/people/login/oncall", json={"password": "right"}).raise_for_status().json()["auth"]["entity_id"]
        accessor = admin.get("sys/auth").json()["data"]["people-cert/"]["accessor"]
        alias = {"name": "oncall", "canonical_id": entity, "mount_accessor": accessor}
        admin.post("identity/entity-alias", json=alias).raise_for_status()
        for _ in range(5):
            oncall.post("auth/people/login/oncall", json={"password": "wrong"})
        assert oncall.post("auth/people/login/oncall", json={"password": "right"}).status_code == 403
        login = oncall.post("auth/people-cert/login", json={"name": "oncall"}).raise_for_status().json()["auth"]
        assert (login["entity_id"], login["policies"]) == (entity, ["je-person"])
        key = oncall.post(f"transit/keys/je-sign-{entity}", json={"type": "ed25519"}, headers={"X-Vault-Token": login["client_token"]})
        assert key.is_success
