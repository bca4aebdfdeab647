"""An OpenBao that speaks TLS and takes client certificates, in memory and with nothing in it."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.free_ports import hold_ports
from tests.support.tls_authority import create_authority
from tests.support.wait import until
from worker.stack.binaries import Programs

CONFIGURATION = """
storage "inmem" {{}}
api_addr = "https://localhost:{port}"
listener "tcp" {{
  address = "127.0.0.1:{port}"
  tls_cert_file = "{folder}/localhost.pem"
  tls_key_file = "{folder}/localhost.pem"
}}
"""


@dataclass(frozen=True)
class TlsVault:
    """Its address, the authority that signed its certificate, and an administrator's client."""

    address: str
    authority: Path
    admin: httpx.Client

    def write(self, path: str, **data: Any) -> dict[str, Any]:
        """Write something and return the answer's data."""
        answer = self.admin.post(path, json=data)
        assert answer.is_success, answer.text
        return (answer.json().get("data") or {}) if answer.content else {}


@contextmanager
def serve_tls_vault(folder: Path, *clients: str) -> Iterator[TlsVault]:
    """Serve for a block. `clients`: names of client certificates that the same authority signs, in the folder."""
    authority, _ = create_authority(folder, "localhost", *clients)
    configuration, log = folder / "vault.hcl", folder / "vault.log"
    command = ("setpriv", "--pdeathsig=KILL", str(Programs().vault()), "server", f"-config={configuration}")
    trust = ssl.create_default_context(cafile=authority)
    with ExitStack() as stack:
        (port,) = stack.enter_context(hold_ports(folder, 1))
        configuration.write_text(CONFIGURATION.format(port=port, folder=folder))
        address, output = f"https://localhost:{port}", stack.enter_context(log.open("wb"))
        process = stack.enter_context(subprocess.Popen(command, stdout=output, stderr=output))
        admin = stack.enter_context(httpx.Client(base_url=f"{address}/v1/", verify=trust, timeout=60, trust_env=False))
        try:
            until(lambda: _is_up(admin), f"Vault answers: {log.read_text()}")
            made = admin.post("sys/init", json={"secret_shares": 1, "secret_threshold": 1}).raise_for_status().json()
            admin.post("sys/unseal", json={"key": made["keys"][0]}).raise_for_status()
            admin.headers["X-Vault-Token"] = made["root_token"]
            until(lambda: admin.get("sys/health").status_code == 200, "Vault is unsealed")
            yield TlsVault(address, authority, admin)
        finally:
            process.kill()


def _is_up(client: httpx.Client) -> bool:
    try:
        return client.get("sys/seal-status").status_code == 200
    except httpx.HTTPError:
        return False
