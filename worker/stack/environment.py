"""The environment variables of the stack's children: almost none for the servers; all except Vault's tokens for worker and console."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from justenough.adapters.configuration.settings import Settings
from worker.stack.paths import StackPaths

ROOT = Path(__file__).resolve().parents[2]
"""The folder of our packages: the children run the same code as the supervisor."""
SHOP_PYTHON = Path(sys.prefix).parent / ".venv-shop" / "bin"
"""Where `make setup` puts the Python of the shop's jobs."""
MODEL_URL = "MODEL_URL"
UNUSED_PORT = 65_535
"""A port on which nothing is expected to listen."""
NEVER_INHERITED = ("VAULT_TOKEN", "BAO_TOKEN", "VAULT_ADDR", "VAULT_NAMESPACE", "VAULT_CACERT")
VAULT_VARIABLES = {"vault_addr": "VAULT_ADDR", "vault_namespace": "VAULT_NAMESPACE", "vault_cacert": "VAULT_CACERT"}


def server_environment(paths: StackPaths) -> dict[str, str]:
    """Return the environment of the servers: without our own VAULT_*, TEMPORAL_* and PG*, which would change their behaviour."""
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(paths.home), "LANG": "C", "LC_ALL": "C", "TZ": "UTC"}


def own_environment(settings: Settings, ports: Mapping[str, int] | None = None) -> dict[str, str]:
    """Return the environment of our own processes. These settings override the settings file; with the stack's ports, it has the shop's addresses."""
    values = settings.model_dump(mode="json", exclude_none=True)
    if "job_path" not in settings.model_fields_set and SHOP_PYTHON.is_dir():
        values["job_path"] = os.pathsep.join((str(SHOP_PYTHON), settings.job_path))
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in NEVER_INHERITED and not name.startswith(("JUSTENOUGH_", "TEMPORAL_"))
    }
    exported = {
        VAULT_VARIABLES.get(name, f"JUSTENOUGH_{name.upper()}"): json.dumps(value) if isinstance(value, list) else str(value)
        for name, value in values.items()
    }
    # The stack's own Temporal speaks no TLS, whatever a profile in the user's home says of others.
    ours = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "TEMPORAL_CONFIG_FILE": os.devnull}
    return inherited | exported | shop_settings(ports or {}) | ours


def shop_settings(ports: Mapping[str, int]) -> dict[str, str]:
    """Return the values of `${SHOP_HOST}`, `${SHOP_PORT}` and `${MODEL_URL}` in the catalog; none without the ports of a stack.

    A MODEL_URL in our own environment wins.
    """
    if "postgres" not in ports:
        return {}
    model = os.environ.get(MODEL_URL) or f"http://127.0.0.1:{ports.get('model', UNUSED_PORT)}/v1"
    return {"SHOP_HOST": "127.0.0.1", "SHOP_PORT": str(ports["postgres"]), MODEL_URL: model}
