"""Helpers of the certificate tests: one credential, issued as sessions issue it, and OpenSSH's own verdict on SSH certificates."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

from activities.issuing.results import IssuedCredential

WAREHOUSE = {"resource": "warehouse-api", "action": "read", "ttl": "5m", "reason": "Look the stock up"}
WEB = {"resource": "web-servers", "action": "write", "ttl": "5m", "reason": "Roll the release out"}


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
