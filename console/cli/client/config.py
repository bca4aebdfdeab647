"""Where console and Vault are, and the folders: flag, environment, justenough.toml, profile, the running stack. In this order (docs/reference/cli.md)."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from console.cli.errors import ExitCode, Failure

SETTINGS_FILE = Path("justenough.toml")
START_HINT = "Start the stack: justenough up --detach"


@dataclass(frozen=True, slots=True)
class ConfiguredAddresses:
    """Addresses that someone gave: a flag, the environment, the settings file."""

    console: str | None
    vault: str | None
    namespace: str | None
    cacert: str | None


@dataclass(frozen=True, slots=True)
class ServerAddresses:
    """Where a command goes; None where nobody knows."""

    console: str | None
    vault: str | None
    namespace: str | None = None
    cacert: str | None = None


def configured_addresses(console_url: str | None = None) -> ConfiguredAddresses:
    """Return what flag, environment and settings file say, in this order. Raises Failure about an address that is none."""
    return ConfiguredAddresses(
        console=_parse_address("--console-url", console_url)
        or _parse_address("console_url", setting("console_url", "JUSTENOUGH_CONSOLE_URL")),
        vault=_parse_address("VAULT_ADDR", setting("vault_addr", "VAULT_ADDR")),
        namespace=setting("vault_namespace", "VAULT_NAMESPACE"),
        cacert=_absolute(setting("vault_cacert", "VAULT_CACERT")),
    )


def home() -> Path:
    """Return the embedded stack's folder."""
    return Path(setting("home", "JUSTENOUGH_HOME") or ".justenough").expanduser()


def config_folder() -> Path:
    """Return the folder of catalog, tiers and policies."""
    return Path(setting("config", "JUSTENOUGH_CONFIG") or "examples/shop").expanduser()


def running_stack() -> Mapping[str, Any]:
    """Return what a running stack published in the home; empty where none did. Raises Failure on a damaged file."""
    path = home() / "stack.json"
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Failure(f"{path} is not readable", hint="Start the stack anew: justenough down, then justenough up --detach") from error
    return found if isinstance(found, dict) else {}


def setting(name: str, variable: str) -> str | None:
    """Return a setting from the environment, else from justenough.toml; None where it is in neither."""
    return os.environ.get(variable) or _from_toml(name, variable)


def _from_toml(*names: str) -> str | None:
    try:
        found = tomllib.loads(SETTINGS_FILE.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise Failure(f"{SETTINGS_FILE} is not readable: {error}", code=ExitCode.USAGE) from error
    return next((str(found[name]) for name in names if found.get(name)), None)


def _parse_address(source: str, value: str | None) -> str | None:
    if value is None:
        return None
    parts = _split(value)
    if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise Failure(f"{source}: not an address like https://host:port", code=ExitCode.USAGE)
    return value.rstrip("/")


def _absolute(path: str | None) -> str | None:
    return str(Path(path).expanduser().absolute()) if path else None


def _split(value: str) -> SplitResult | None:
    try:
        return urlsplit(value)
    except ValueError:
        return None
