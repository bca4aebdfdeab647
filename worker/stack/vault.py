"""The embedded OpenBao: one persistent raft node that unseals itself, with a file audit device.

Evaluation only: its seal key is stored next to its data.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from string import Template

from justenough.adapters.runtime.private_files import make_private_folder, write_private
from justenough.domain.core.errors import GiveUp
from worker.stack.binaries import Programs
from worker.stack.environment import server_environment
from worker.stack.managed_process import ChildSpec
from worker.stack.paths import StackPaths
from worker.stack.probes import is_http_ok, request_json

VAULT_HEALTH_PATH = "/v1/sys/health"
NOT_INITIALISED_STATUS = 501
FIRST_ELECTION_TIMEOUT_S = 20
"""How long the first start may take to elect its one node."""
MAX_REQUEST_DURATION_S = 10
"""A request to Vault takes at most this many seconds, so a credential that is being issued during a revocation exists before the second
check of justenough/services/revocation_attempts.py.
"""

# The only node elects itself, so waiting for others (the default multiplier, 5) would only make the first start slow. Audit devices can
# be declared only here, not over the API, and only in HCL: the server refuses the JSON form of this block.
CONFIGURATION_TEMPLATE = Template("""
storage "raft" {
  path = $data
  node_id = "embedded"
  performance_multiplier = 1
}
api_addr = "http://$address"
cluster_addr = "http://$cluster"
listener "tcp" {
  address = "$address"
  cluster_address = "$cluster"
  tls_disable = true
}
seal "static" {
  current_key_id = "local-1"
  current_key = $key
}
audit "file" "main" {
  options {
    file_path = $audit
    mode = "0600"
  }
}
default_max_request_duration = "${longest}s"
""")


class AdminTokenLost(GiveUp):
    """Vault is initialised, but its admin token is not in the home."""


def vault_child(places: StackPaths, programs: Programs, ports: Mapping[str, int]) -> ChildSpec:
    """Describe the server. Raises ProgramMissing."""
    port = ports["vault"]
    return ChildSpec(
        name="vault",
        argv=(str(programs.vault()), "server", f"-config={places.vault / 'openbao.hcl'}", "-log-level=warn"),
        env=server_environment(places),
        prepare=lambda: _write_configuration(places, ports),
        awaken=lambda: _initialise(places, port),
        healthy=lambda: is_http_ok(port, VAULT_HEALTH_PATH),
    )


def _write_configuration(places: StackPaths, ports: Mapping[str, int]) -> None:
    make_private_folder(places.vault)
    make_private_folder(places.vault / "data")
    if not places.seal_key.exists():
        write_private(places.seal_key, secrets.token_bytes(32))
    configuration = CONFIGURATION_TEMPLATE.substitute(
        data=json.dumps(str(places.vault / "data")),
        audit=json.dumps(str(places.vault / "audit.log")),
        key=json.dumps(f"file://{places.seal_key}"),
        address=f"127.0.0.1:{ports['vault']}",
        cluster=f"127.0.0.1:{ports['vault_cluster']}",
        longest=MAX_REQUEST_DURATION_S,
    )
    write_private(places.vault / "openbao.hcl", configuration)


def _initialise(places: StackPaths, port: int) -> None:
    """Initialise a new server and save its admin token and recovery key before anything uses them. Raises AdminTokenLost."""
    body, keys = {"recovery_shares": 1, "recovery_threshold": 1}, None
    try:
        status, _ = request_json(port, VAULT_HEALTH_PATH)
        if status == NOT_INITIALISED_STATUS:
            _, keys = request_json(port, "/v1/sys/init", method="PUT", body=body, timeout_s=FIRST_ELECTION_TIMEOUT_S)
    except OSError:
        return  # The server does not answer yet; the next health check tries again.
    if status != NOT_INITIALISED_STATUS:
        if not places.admin_token.exists():
            message = f"Vault is initialised but {places.admin_token} is missing. Put it back, or remove {places.home} to start again."
            raise AdminTokenLost(message)
    elif isinstance(keys, dict) and "root_token" in keys:
        write_private(places.admin_token, str(keys["root_token"]))
        write_private(places.vault / "recovery.json", json.dumps({"recovery_keys": keys["recovery_keys_base64"]}))
