"""Files and folders that only their owner may read. A file has mode 0600 from the first byte, and is replaced atomically."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def write_private(path: Path, content: str | bytes) -> None:
    """Replace a file atomically: a crash leaves the old file or the new one. Raises OSError."""
    data = content.encode() if isinstance(content, str) else content
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; empty if there is no file, or no JSON object in it. Raises OSError if it is not readable."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def make_private_folder(path: Path, *, mode: int = 0o700) -> None:
    """Create a folder with this mode. A folder that exists keeps its mode."""
    if not path.is_dir():
        path.mkdir(parents=True)
        path.chmod(mode)


def ensure_passwords(path: Path, names: Iterable[str]) -> dict[str, str]:
    """Return a password for each name: the one in the file, or a new one, which is written to the file first."""
    passwords = {name: str(value) for name, value in read_json(path).items()}
    if missing := {name: secrets.token_hex(16) for name in names if name not in passwords}:
        passwords |= missing
        write_private(path, json.dumps(passwords, indent=1))
    return passwords
