"""The stack's private folders and password files."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from pathlib import Path

from justenough.adapters.runtime.private_files import read_json, write_private


def make_private_folder(path: Path, *, mode: int = 0o700) -> Path:
    """Create a folder with this mode. A folder that exists keeps its mode."""
    if not path.is_dir():
        path.mkdir(parents=True)
        path.chmod(mode)
    return path


def ensure_passwords(path: Path, names: Iterable[str]) -> dict[str, str]:
    """Return a password for each name: the one in the file, or a new one, which is written to the file first."""
    passwords = {name: str(value) for name, value in read_json(path).items()}
    if missing := {name: secrets.token_hex(16) for name in names if name not in passwords}:
        passwords |= missing
        write_private(path, json.dumps(passwords, indent=1))
    return passwords
