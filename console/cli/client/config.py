"""Finds addresses and folders: from flag, environment, justenough.toml, profile and running stack, in this order (docs/reference/cli.md)."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from console.cli.errors import Failure, WrongUsage
from console.cli.render.output import note
from justenough.adapters.configuration.example_shop import example_shop, fallback_notice

if TYPE_CHECKING:
    from justenough.adapters.configuration.folder import ConfigSet

SETTINGS_FILE = Path("justenough.toml")
ADDRESS_HINT = (
    "Start the stack: justenough up --detach. If it runs in another folder, set JUSTENOUGH_HOME. For an installation elsewhere, set VAULT_ADDR and "
    "JUSTENOUGH_CONSOLE_URL, then log in: justenough login"
)
"""What to do if no address of a server is known."""
OIDC_CALLBACK_PORT = 8250
"""The default port of `vault login` and `bao login`, so that existing roles allow it."""


@dataclass(frozen=True, slots=True)
class ServerAddresses:
    """The addresses of console and Vault; None if unknown."""

    console: str | None = None
    vault: str | None = None
    namespace: str | None = None
    cacert: str | None = None


def configured_addresses(console_url: str | None = None) -> ServerAddresses:
    """Return the addresses from flag, environment and settings file, in this order. Raises Failure for an invalid address."""
    cacert = setting("vault_cacert", "VAULT_CACERT")
    return ServerAddresses(
        console=_parse_address("--console-url", console_url)
        or _parse_address("console_url", setting("console_url", "JUSTENOUGH_CONSOLE_URL")),
        vault=_parse_address("VAULT_ADDR", setting("vault_addr", "VAULT_ADDR")),
        namespace=setting("vault_namespace", "VAULT_NAMESPACE"),
        cacert=str(Path(cacert).expanduser().absolute()) if cacert else None,
    )


def home() -> Path:
    """Return the embedded stack's folder."""
    return Path(setting("home", "JUSTENOUGH_HOME") or ".justenough").expanduser()


def config_folder() -> Path:
    """Return the configuration folder: catalog, tiers and policies. If none is set, it is the example shop's, and stderr says so."""
    if chosen := setting("config", "JUSTENOUGH_CONFIG"):
        return Path(chosen).expanduser()
    note(fallback_notice())
    return example_shop()


def load_config(folder: Path) -> ConfigSet:
    """Load a configuration folder. Raises InvalidInput with the problems of all its files."""
    from justenough.adapters.configuration.folder import load_config_folder  # noqa: PLC0415 - loads the policy engine

    return load_config_folder(folder)


def running_stack() -> Mapping[str, Any]:
    """Return the content of stack.json in the home folder, empty if no stack is running. Raises Failure if the file is damaged."""
    path = home() / "stack.json"
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise Failure(f"cannot read {path}: {error.strerror}", hint="Run this as the user who started the stack") from error
    except ValueError as error:
        raise Failure(f"cannot read {path}", hint="Restart the stack: justenough down, then justenough up --detach") from error
    return found if isinstance(found, dict) else {}


def setting(name: str, variable: str) -> str | None:
    """Return a setting from the environment, else from justenough.toml, else None."""
    if value := os.environ.get(variable):
        return value
    try:
        found = tomllib.loads(SETTINGS_FILE.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise WrongUsage(f"cannot read {SETTINGS_FILE}: {error}") from error
    return next((str(found[key]) for key in (name, variable) if found.get(key)), None)


def _parse_address(source: str, value: str | None) -> str | None:
    if value is None:
        return None
    try:
        parts = urlsplit(value)
        # Python encodes host names like this, which may raise UnicodeError, a ValueError.
        is_address = parts.scheme in {"http", "https"} and (parts.hostname or "").encode("idna") and not (parts.query or parts.fragment)
    except ValueError:
        is_address = False
    if not is_address:
        raise WrongUsage(f"{source}: not an address like https://host:port")
    return value.rstrip("/")
