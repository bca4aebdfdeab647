"""What the tests of certificates stand on: one credential issued as sessions issue, and OpenSSH's own word on SSH certificates."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from activities.issuing.issuer import Issuer
from activities.issuing.results import IssuedCredential
from activities.revocation.revoke import RevocationResult, revoke
from justenough.domain.approvals.ladder import ApprovalAnswer
from justenough.domain.contracts.workflow_messages import GrantedRequest
from justenough.domain.core.ids import new_job_id, request_id
from justenough.services.job_history import read_job_history
from justenough.services.ledger_events import order_events
from justenough.services.verify_order import VerifiedOrder, verify_order
from tests.activities.issuing.test_renewal_check import approval_of
from tests.activities.vault_shop import SPEC, Desk

WAREHOUSE = {"resource": "warehouse-api", "action": "read", "ttl": "5m", "reason": "Look the stock up"}
WEB = {"resource": "web-servers", "action": "write", "ttl": "5m", "reason": "Roll the release out"}


@dataclass(frozen=True)
class Session:
    """A job's session that may issue its one request."""

    at: Desk
    job: str
    issuer: Issuer
    granted: GrantedRequest

    def issue(self) -> IssuedCredential:
        return self.issuer.issue(self.granted)

    def end(self) -> RevocationResult:
        """Revoke as the session's own exit does."""
        return revoke(self.at.deps, self.job, by="session", settled=True, why="it ended", known=self.issuer.holdings.alive)

    def entry_types(self) -> list[str]:
        return [
            entry.type
            for entry in self.at.deps.store.ledger.entries(job=self.job).items
            if entry.type.startswith(("credential", "revocation"))
        ]

    def credential_state(self) -> str:
        (view,) = self.at.deps.store.credentials.list(job=self.job).items
        return view.state.value


def start_session(at: Desk, access: Mapping[str, Any], *, tier: int = 0) -> Session:
    """Return the session of a newcomer's job with this one request, approved where a tier asks for it."""
    deps, mark = at.deps, secrets.token_hex(4)
    launcher = at.shop.newcomer(f"launcher-{mark}", "ops")
    job = new_job_id("dev", now=deps.now())
    order = launcher.order(job, now=deps.now(), spec={**SPEC, "access": [access]})
    verified = verify_order(deps, order, now=deps.now())
    assert isinstance(verified, VerifiedOrder)
    deps.store.ledger.append(order_events(deps, order, verified))
    assert deps.store.claims.claim(job, run="run", owner="owner", now=deps.now())
    issuer = Issuer(deps, order, verified, read_job_history(deps.store.ledger, job), owner="owner")
    answers: tuple[ApprovalAnswer, ...] = ()
    if tier:
        answers = (approval_of(at, job, verified, at.shop.newcomer(f"approver-{mark}", "support-leads"), tier=tier),)
    return Session(at, job, issuer, GrantedRequest(id=request_id(job, 1), number=1, answers=answers))


def sign_text(held: IssuedCredential, folder: Path, *, ca: str) -> Path:
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


def openssh_certificate(folder: Path, lives: timedelta | None) -> str:
    """Return a certificate that OpenSSH itself signs for this long, or without an end."""
    for name in ("ca", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    until = ["-V", f"+{int(lives.total_seconds())}s"] if lives else []
    subprocess.run(["ssh-keygen", "-q", "-s", folder / "ca", "-I", "a-job", "-n", "deploy", *until, folder / "key.pub"], check=True)
    return (folder / "key-cert.pub").read_text()
