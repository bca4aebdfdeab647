"""A real OpenID Connect provider that is not Vault (oidc-provider-mock), in a process of its own. Whoever is named on its page is logged in."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.child_process import run_child
from tests.support.wait import until

PROGRAM = Path(sys.executable).with_name("oidc-provider-mock")


@dataclass(frozen=True)
class IdentityProvider:
    """The provider, and what it says of people."""

    address: str
    http: httpx.Client

    def set_claims(self, subject: str, **claims: object) -> None:
        """Let the provider send these claims with each further login of a person."""
        self.http.put(f"/users/{subject}", json=claims).raise_for_status()

    def is_up(self) -> bool:
        """Whether it answers."""
        try:
            return self.http.get("/.well-known/openid-configuration").status_code == 200
        except httpx.HTTPError:
            return False


@contextmanager
def serve_identity_provider() -> Iterator[IdentityProvider]:
    """Serve on a free port for a block. Browsers reach it under the name of another site than the console's."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://localhost:{port}"
    command = ("setpriv", "--pdeathsig=KILL", str(PROGRAM), "--host", "localhost", "--port", str(port))
    with (
        run_child(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL),
        httpx.Client(base_url=address, timeout=60, trust_env=False) as client,
    ):
        provider = IdentityProvider(address, client)
        until(provider.is_up, "the identity provider answers")
        yield provider
