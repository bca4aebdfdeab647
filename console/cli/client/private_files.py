"""Files of one person: mode 0600 in a folder 0700, written in one step, refused when others can read them."""

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
    """Return where login files are."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base and Path(base).is_absolute() else Path.home() / ".config") / "justenough"


def read(path: Path) -> dict[str, Any] | None:
    """Return a file's content; None where there is none or it is not readable as JSON. Raises Failure where others can read it."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Failure(f"{path} cannot be read: {error.strerror}") from error
    if stat.S_IMODE(mode) & 0o077:
        raise Failure(
            f"{path} can be read by others (mode {stat.S_IMODE(mode):04o})", hint=f"chmod 600 {path}, or log in anew: justenough login"
        )
    try:
        found = json.loads(content)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file whole or not at all. Raises Failure."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, json.dumps(content))
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error.strerror}") from error


def remove(path: Path) -> bool:
    """Remove a file; whether it was there."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise Failure(f"{path} cannot be removed: {error.strerror}") from error
    return True
