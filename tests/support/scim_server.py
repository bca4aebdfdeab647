"""A real SCIM 2.0 server (scim2-server), in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import httpx

TOKEN = "scim-token-1"


@dataclass(frozen=True)
class ScimServer:
    """The server, and a client that may write."""

    address: str
    http: httpx.Client

    def create(self, kind: str, **resource: Any) -> str:
        """Create a user or a group; return its id."""
        body = {"schemas": [f"urn:ietf:params:scim:schemas:core:2.0:{kind}"], **resource}
        made = self.http.post(f"/{kind}s", json=body, headers={"Content-Type": "application/scim+json"})
        assert made.status_code == 201, made.text
        return str(made.json()["id"])

    def change(self, path: str, **values: Any) -> None:
        """Replace values of a user or group."""
        body = {
            "schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"],
            "Operations": [{"op": "replace", "path": name, "value": value} for name, value in values.items()],
        }
        changed = self.http.patch(path, json=body, headers={"Content-Type": "application/scim+json"})
        assert changed.is_success, changed.text


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serve_scim() -> Iterator[ScimServer]:
    """Serve on a free port for a block."""
    # Importing them takes seconds, which each test process would spend to collect the tests.
    from scim2_server.memory import InMemoryStorage
    from scim2_server.testserver.application import BearerTokenApplication
    from scim2_server.utils import load_default_provider

    application = BearerTokenApplication(InMemoryStorage(), load_default_provider(), bearer_tokens=[TOKEN])
    with make_server("127.0.0.1", 0, application, handler_class=_Quiet) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            with httpx.Client(base_url=address, headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False) as client:
                yield ScimServer(address, client)
        finally:
            server.shutdown()
            thread.join()
