"""The profiles on this machine: which exist, and which one is used without --profile. Loads no HTTP client."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from console.cli import private_files
from console.cli.errors import ExitCode, Failure, WrongUsage

# The login file of x.identity would be the cache of profile x.
PROFILE_NAME = re.compile(r"(?!.*\.identity\Z)[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
DEFAULT_PROFILE = "default"
CHOICE_FILE = "profile"
"""The file with the name that `profile use` chose, next to the login files."""
CACHE_SUFFIX = ".identity.json"
DEFAULT_MOUNTS = {"password": "people", "oidc": "oidc"}
"""The auth mounts of the login methods, unless somebody names another."""


@dataclass(frozen=True, slots=True)
class LoginMethod:
    """How a person logs in at Vault."""

    kind: Literal["password", "oidc"]
    mount: str
    role: str = ""
    """Of an OIDC mount; empty: the mount's default role."""

    @classmethod
    def from_json(cls, value: Any) -> LoginMethod | None:
        """Return the method that a login file names; None if it names none, like a file that an older version wrote."""
        match value:
            case {"kind": "password" | "oidc" as kind, "mount": str(mount), "role": str(role)}:
                return cls(kind, mount, role)
        return None


def choose_login_method(
    last: LoginMethod | None, *, kind: Literal["password", "oidc"] | None, mount: str | None, role: str | None
) -> LoginMethod:
    """Return how to log in: as the options say, and for the rest like the last login if that was of the same kind at the same mount."""
    kind = kind or (last.kind if last else "password")
    if last is None or last.kind != kind or mount not in (None, last.mount):
        last = LoginMethod(kind, mount or DEFAULT_MOUNTS[kind])
    return last if role is None else replace(last, role=role)


def profile_name(option: str | None) -> str:
    """Return the profile to use: that of --profile, else the one that `profile use` chose. Raises Failure for an invalid name."""
    name = option or str((private_files.read(private_files.folder() / CHOICE_FILE) or {}).get("name") or DEFAULT_PROFILE)
    if not PROFILE_NAME.fullmatch(name):
        raise WrongUsage("--profile: use at most 64 letters, digits, '.', '_' and '-'; do not begin with a dot or end with .identity")
    return name


def choose_profile(name: str) -> None:
    """Use a profile from now on. Raises Failure if it does not exist."""
    if name not in (known := profile_names()):
        hint = f"Profiles: {', '.join(known)}" if known else ""
        raise Failure(f"there is no profile {name}; create it: justenough login --profile {name}", code=ExitCode.NOT_FOUND, hint=hint)
    private_files.write(private_files.folder() / CHOICE_FILE, {"name": name})


def profile_names() -> list[str]:
    folder = private_files.folder()
    files = [file.name for file in (folder.glob("*.json") if folder.is_dir() else ()) if not file.name.endswith(CACHE_SUFFIX)]
    return sorted(name for file in files if PROFILE_NAME.fullmatch(name := file.removesuffix(".json")))


def login_file(name: str) -> Path:
    return private_files.folder() / f"{name}.json"


def saved_logins() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each profile with the content of its login file, without its token."""
    for name in profile_names():
        content = private_files.read(login_file(name)) or {}
        yield name, {key: value for key, value in content.items() if key != "token"}
