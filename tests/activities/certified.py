"""What the tests of certificates stand on: one credential issued as sessions issue, and servers that look certificates up as the shop's would."""

from __future__ import annotations

import secrets
import ssl
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509

from activities.entries import ordered
from activities.past import past_of
from activities.revocation import RevocationResult, revoke
from activities.session.issuing import Issuance, Issuer
from activities.vault import Issued
from activities.verification import VerifiedOrder, verify_order
from justenough.approval import Answer
from justenough.ids import new_job_id, request_id
from justenough.messages import Granted
from tests.activities.shop import SPEC, Desk, Shop
from tests.activities.test_renewing import approved
from tests.console.certificates import authority

WAREHOUSE = {"resource": "warehouse-api", "action": "read", "ttl": "5m", "reason": "Look the stock up"}
WEB = {"resource": "web-servers", "action": "write", "ttl": "5m", "reason": "Roll the release out"}


@dataclass(frozen=True)
class Session:
    """A job's session that may issue its one request."""

    at: Desk
    job: str
    issuer: Issuer
    granted: Granted

    def issue(self) -> Issuance:
        return self.issuer.issue(self.granted)

    def end(self) -> RevocationResult:
        """Revoke as the session's own exit does."""
        return revoke(self.at.deps, self.job, by="session", settled=True, why="it ended", known=self.issuer.issued)

    def types(self) -> list[str]:
        return [
            entry.type for entry in self.at.deps.store.ledger(job=self.job).items if entry.type.startswith(("credential", "revocation"))
        ]

    def state(self) -> str:
        (view,) = self.at.deps.store.credentials(job=self.job).items
        return view.state.value


def session(at: Desk, access: Mapping[str, Any], *, tier: int = 0) -> Session:
    """Return the session of a newcomer's job with this one request, approved where a tier asks for it."""
    deps, mark = at.deps, secrets.token_hex(4)
    launcher = at.shop.newcomer(f"launcher-{mark}", "ops")
    job = new_job_id("dev", now=deps.now())
    order = launcher.order(job, now=deps.now(), spec={**SPEC, "access": [access]})
    verified = verify_order(deps, order, now=deps.now())
    assert isinstance(verified, VerifiedOrder)
    deps.store.record(ordered(deps, order, verified))
    assert deps.store.claim(job, run="run", owner="owner", now=deps.now())
    issuer = Issuer(deps, order, verified, past_of(deps.store, job), owner="owner")
    answers: tuple[Answer, ...] = ()
    if tier:
        answers = (approved(at, job, verified, at.shop.newcomer(f"approver-{mark}", "support-leads"), tier=tier),)
    return Session(at, job, issuer, Granted(id=request_id(job, 1), number=1, answers=answers))


@dataclass(frozen=True)
class Warehouse:
    """A server that asks for client certificates of the shop's CA and looks each up in the CRL that Vault serves."""

    shop: Shop
    folder: Path

    def crl(self) -> str:
        """What Vault serves to anybody, now."""
        answer = self.shop.anybody("GET", "pki/cert/crl")
        return str(answer["data"]["certificate"])

    def lists(self, held: Issuance | Issued) -> bool:
        """Whether the CRL has a certificate."""
        serial = int(held.fields["serial_number"].reveal().replace(":", ""), 16)
        return x509.load_pem_x509_crl(self.crl().encode()).get_revoked_certificate_by_serial_number(serial) is not None

    def lets_in(self, held: Issuance | Issued) -> bool:
        """Whether a TLS handshake with this certificate and key succeeds."""
        try:
            _handshake(self._server(held), _client(self.folder, held))
        except ssl.SSLCertVerificationError as error:
            if "revoked" not in error.verify_message:
                raise
            return False
        return True

    def _server(self, held: Issuance | Issued) -> ssl.SSLContext:
        _, contexts = authority(self.folder, "warehouse")
        trusted = self.folder / "trusted.pem"
        trusted.write_text(held.fields["issuing_ca"].reveal() + "\n" + self.crl())
        server = contexts["warehouse"]
        server.load_verify_locations(trusted)
        server.verify_mode = ssl.CERT_REQUIRED
        server.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        return server


def signed_by(held: Issuance, folder: Path, *, ca: str) -> Path:
    """Sign a text with a job's SSH key and certificate, as OpenSSH does; return the folder with all of it."""
    key = folder / "id"
    key.write_text(held.fields["private_key"].reveal())
    key.chmod(0o600)
    (folder / "id-cert.pub").write_text(held.fields["signed_key"].reveal())
    public = subprocess.run(["ssh-keygen", "-y", "-f", key], capture_output=True, text=True, check=True).stdout
    (folder / "id.pub").write_text(public)
    (folder / "allowed").write_text(f'deploy cert-authority,namespaces="test" {ca}')
    (folder / "text").write_text("a text")
    subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-n", "test", "-f", folder / "id-cert.pub", folder / "text"], check=True, capture_output=True
    )
    return folder


def openssh_accepts(folder: Path, at: datetime) -> bool:
    """Whether OpenSSH takes that signature's certificate for user deploy at a time."""
    when = f"verify-time={at.astimezone(UTC):%Y%m%d%H%M%S}Z"
    command = ["ssh-keygen", "-Y", "verify", "-f", "allowed", "-I", "deploy", "-n", "test", "-s", "text.sig", "-O", when]
    with (folder / "text").open() as text:
        done = subprocess.run(command, cwd=folder, stdin=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or "expired" in done.stdout + done.stderr, done
    return done.returncode == 0


def _client(folder: Path, held: Issuance | Issued) -> ssl.SSLContext:
    pem = folder / "client.pem"
    pem.write_text(held.fields["private_key"].reveal() + "\n" + held.fields["certificate"].reveal())
    client = ssl.create_default_context(cafile=folder / "authority.pem")
    client.load_cert_chain(pem)
    return client


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    """Have two ends shake hands in memory. Raises SSLCertVerificationError where the server does not take the client's certificate."""
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
