"""How each child of the stack is started, except PostgreSQL: Temporal, Vault, the worker, the console, and the configuration's scripted model.

The embedded Temporal and OpenBao are for evaluation only. Temporal is the CLI's dev server on an SQLite file, which may not survive an upgrade.
OpenBao is one persistent raft node that unseals itself, with a file audit device; its seal key is stored next to its data. Agents use the
scripted model unless MODEL_URL names another model.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from string import Template

from justenough.adapters.configuration.settings import Settings
from justenough.adapters.runtime.private_files import make_private_folder, write_private
from justenough.domain.contracts.search_attributes import SEARCH_ATTRIBUTES
from justenough.domain.core.errors import GiveUp
from worker.stack.binaries import Programs
from worker.stack.environment import MODEL_URL, own_environment, server_environment
from worker.stack.managed_process import ChildSpec
from worker.stack.paths import StackPaths
from worker.stack.probes import is_http_ok, request_json, was_touched_recently

FAIRNESS = {
    "matching.useNewMatcher": "true",
    "matching.enableFairness": "true",
    "matching.numTaskqueueReadPartitions": "1",
    "matching.numTaskqueueWritePartitions": "1",
}
"""Dynamic configuration with which sessions take turns by launcher while all workers are full.

Turns are per partition, so there is only one partition.
"""
# 2.4 times the throughput of the default pragmas. Killing the process loses nothing; only a power cut could lose the last writes.
PRAGMAS = ("journal_mode=wal", "synchronous=normal")
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
# -P: do not import from a folder in the working directory that has the name of one of our packages.
PYTHON_ARGV = (sys.executable, "-P", "-m")
STOP_MARGIN_S = 30
"""After draining, the worker needs this time to end its sessions' processes (10 s of grace, 2 s of output) and to revoke."""
PROGRAM_FILE = "scripted_model.py"
"""A file in the configuration's folder. It takes `--port` and serves OpenAI's chat completions below /v1 on loopback."""
MODEL_HEALTH_PATH = "/v1/models"


def temporal_child(paths: StackPaths, programs: Programs, ports: Mapping[str, int], *, namespace: str = "default") -> ChildSpec:
    """Describe the server. Raises ProgramMissing."""
    port, ui, http = ports["temporal"], ports["temporal_ui"], ports["temporal_http"]
    return ChildSpec(
        name="temporal",
        argv=(
            *(str(programs.temporal()), "server", "start-dev", "--ip", "127.0.0.1", "--ui-ip", "127.0.0.1"),
            *("--port", str(port), "--ui-port", str(ui), "--http-port", str(http), "--namespace", namespace),
            *("--db-filename", str(paths.temporal / "temporal.db"), "--log-level", "warn", "--ui-disable-news-fetch"),
            *(part for pragma in PRAGMAS for part in ("--sqlite-pragma", pragma)),
            *(part for name, value in FAIRNESS.items() for part in ("--dynamic-config-value", f"{name}={value}")),
            *(part for name in SEARCH_ATTRIBUTES for part in ("--search-attribute", f"{name}=Keyword")),
        ),
        env=server_environment(paths),
        prepare=lambda: make_private_folder(paths.temporal),
        # The HTTP port belongs to the frontend that serves gRPC, so it answers when gRPC does.
        healthy=lambda: is_http_ok(http, f"/api/v1/namespaces/{namespace}"),
    )


def vault_child(paths: StackPaths, programs: Programs, ports: Mapping[str, int]) -> ChildSpec:
    """Describe the server. Raises ProgramMissing."""
    port = ports["vault"]
    return ChildSpec(
        name="vault",
        argv=(str(programs.vault()), "server", f"-config={paths.vault / 'openbao.hcl'}", "-log-level=warn"),
        env=server_environment(paths),
        prepare=lambda: _write_vault_configuration(paths, ports),
        awaken=lambda: _initialise_vault(paths, port),
        healthy=lambda: is_http_ok(port, VAULT_HEALTH_PATH),
        own_logs=(paths.audit_log,),
    )


def _write_vault_configuration(paths: StackPaths, ports: Mapping[str, int]) -> None:
    make_private_folder(paths.vault)
    if _has_lost_keys(paths):
        # Nobody has used this Vault, and Vault cannot complete its initialisation.
        shutil.rmtree(paths.vault / "data")
    make_private_folder(paths.vault / "data")
    if not paths.seal_key.exists():
        write_private(paths.seal_key, secrets.token_bytes(32))
    configuration = CONFIGURATION_TEMPLATE.substitute(
        data=json.dumps(str(paths.vault / "data")),
        audit=json.dumps(str(paths.audit_log)),
        key=json.dumps(f"file://{paths.seal_key}"),
        address=f"127.0.0.1:{ports['vault']}",
        cluster=f"127.0.0.1:{ports['vault_cluster']}",
        longest=MAX_REQUEST_DURATION_S,
    )
    write_private(paths.vault / "openbao.hcl", configuration)


def _initialise_vault(paths: StackPaths, port: int) -> None:
    """Initialise a new server and save its admin token and recovery key before anything uses them. Raises GiveUp."""
    body, keys = {"recovery_shares": 1, "recovery_threshold": 1}, None
    try:
        status, _ = request_json(port, VAULT_HEALTH_PATH)
        if status == NOT_INITIALISED_STATUS:
            if not paths.admin_token.exists():
                paths.vault_initialising.touch(mode=0o600)
            _, keys = request_json(port, "/v1/sys/init", method="PUT", body=body, timeout_s=FIRST_ELECTION_TIMEOUT_S)
    except OSError:
        return  # The server does not answer yet; the next health check tries again.
    if status != NOT_INITIALISED_STATUS:
        if _has_lost_keys(paths):
            raise GiveUp("Vault was initialised, but its answer was lost; start the stack again, which initialises a new Vault")
        if not paths.admin_token.exists():
            message = f"Vault is initialised but {paths.admin_token} is missing. Put it back, or remove {paths.home} to start again."
            raise GiveUp(message)
        paths.vault_initialising.unlink(missing_ok=True)
    elif isinstance(keys, dict) and "root_token" in keys:
        write_private(paths.vault / "recovery.json", json.dumps({"recovery_keys": keys["recovery_keys_base64"]}))
        write_private(paths.admin_token, str(keys["root_token"]))
        paths.vault_initialising.unlink(missing_ok=True)


def _has_lost_keys(paths: StackPaths) -> bool:
    """Whether Vault's first initialisation began and its keys were not saved. False if somebody removed the token of a Vault that is in use: its
    data must stay.
    """
    return paths.vault_initialising.exists() and not paths.admin_token.exists()


def worker_child(paths: StackPaths, settings: Settings, ports: Mapping[str, int]) -> ChildSpec:
    """Describe the worker, which touches a liveness file every second."""
    return ChildSpec(
        name="worker",
        argv=(*PYTHON_ARGV, "worker"),
        env=own_environment(settings, ports),
        cwd=None,
        # The liveness file of an earlier process proves nothing about this one.
        prepare=lambda: paths.worker_alive.unlink(missing_ok=True),
        healthy=lambda: was_touched_recently(paths.worker_alive),
        stop_within=settings.drain + STOP_MARGIN_S,
    )


def console_child(settings: Settings, ports: Mapping[str, int]) -> ChildSpec:
    return ChildSpec(
        name="console",
        argv=(*PYTHON_ARGV, "console"),
        env=own_environment(settings, ports),
        cwd=None,
        healthy=lambda: is_http_ok(ports["console"], "/livez"),
    )


def model_child(paths: StackPaths, config: Path, ports: Mapping[str, int]) -> ChildSpec | None:
    """Describe the model; None if the configuration has none or MODEL_URL names another one."""
    program, port = config / PROGRAM_FILE, ports["model"]
    if os.environ.get(MODEL_URL) or not program.is_file():
        return None
    return ChildSpec(
        name="model",
        # -I: the model needs only the standard library, and none of our packages.
        argv=(sys.executable, "-I", str(program), "--port", str(port)),
        env=server_environment(paths),
        healthy=lambda: is_http_ok(port, MODEL_HEALTH_PATH),
    )
