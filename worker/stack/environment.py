"""What the stack's children see of our environment: servers next to nothing, our own processes all of it but Vault's tokens."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from justenough.adapters.configuration.settings import Settings
from worker.stack.paths import StackPaths

ROOT = Path(__file__).resolve().parents[2]
"""Where our packages are: the children run the very code that the supervisor runs."""
SHOP_PYTHON = Path(sys.prefix).parent / ".venv-shop" / "bin"
"""Where `make setup` puts the Python of the shop's jobs."""
MODEL_URL = "MODEL_URL"
UNUSED_PORT = 65_535
"""A port at which nobody is expected to answer."""
NEVER_INHERITED = ("VAULT_TOKEN", "BAO_TOKEN", "VAULT_ADDR", "VAULT_NAMESPACE", "VAULT_CACERT")


def server_environment(places: StackPaths) -> dict[str, str]:
    """For the servers, whose own variables (VAULT_*, TEMPORAL_*, PG*) would change what they do."""
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(places.home), "LANG": "C", "LC_ALL": "C", "TZ": "UTC"}


def own_environment(settings: Settings, *, shop_port: int | None, model_port: int = UNUSED_PORT) -> dict[str, str]:
    """For worker and console: where everything is, as settings that override every other source."""
    inherited = {name: value for name, value in os.environ.items() if name not in NEVER_INHERITED and not name.startswith("JUSTENOUGH_")}
    return (
        inherited | _export_settings(settings) | shop_settings(shop_port, model_port) | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    )


def supervisor_environment(settings: Settings) -> dict[str, str]:
    """For a supervisor of its own: the settings as they are here, whatever file or flag they came from."""
    return own_environment(settings, shop_port=None)


def _export_settings(settings: Settings) -> dict[str, str]:
    values = settings.model_dump(mode="json", exclude_none=True)
    if "job_path" not in settings.model_fields_set and SHOP_PYTHON.is_dir():
        values["job_path"] = os.pathsep.join((str(SHOP_PYTHON), settings.job_path))
    # Vault's settings have their usual names.
    usual = {"vault_addr": "VAULT_ADDR", "vault_namespace": "VAULT_NAMESPACE", "vault_cacert": "VAULT_CACERT"}
    return {usual.get(name, f"JUSTENOUGH_{name.upper()}"): _to_text(value) for name, value in values.items()}


def _to_text(value: object) -> str:
    return json.dumps(value) if isinstance(value, list) else str(value)


def shop_settings(port: int | None, model_port: int) -> dict[str, str]:
    """What `${SHOP_HOST}`, `${SHOP_PORT}` and `${MODEL_URL}` in the catalog stand for; a model of one's own is told by our environment."""
    if port is None:
        return {}
    return {"SHOP_HOST": "127.0.0.1", "SHOP_PORT": str(port), MODEL_URL: os.environ.get(MODEL_URL) or f"http://127.0.0.1:{model_port}/v1"}
