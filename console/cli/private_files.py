"""Private files: mode 0600 in a folder with mode 0700, written atomically, and refused if others can read them."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from console.cli.errors import Failure
from justenough.adapters.runtime.private_files import write_private


def folder() -> Path:
    """Return the folder of the login files. Raises Failure if this person has no home folder, as in some containers."""
    base = os.environ.get("XDG_CONFIG_HOME")
    if base and Path(base).is_absolute():
        return Path(base) / "justenough"
    try:
        return Path.home() / ".config" / "justenough"
    except RuntimeError as error:
        raise Failure("the folder of the logins is unknown: this user has no home folder", hint="Set HOME or XDG_CONFIG_HOME") from error


def read(path: Path) -> dict[str, Any] | None:
    """Return a file's JSON object; None if there is no file or it is not a JSON object. Raises Failure if others can read the file."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Failure(f"cannot read {path}: {error.strerror}") from error
    if stat.S_IMODE(mode) & 0o077:
        raise Failure(f"other users can read {path} (mode {stat.S_IMODE(mode):04o})", hint=f"chmod 600 {path}")
    try:
        found = json.loads(content)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file atomically. Raises Failure."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, json.dumps(content))
    except OSError as error:
        raise Failure(f"cannot write {path}: {error.strerror}") from error


def remove(path: Path) -> None:
    """Delete a file if it exists. Raises Failure."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise Failure(f"cannot delete {path}: {error.strerror}") from error
