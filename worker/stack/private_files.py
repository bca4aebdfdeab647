"""The stack's private folders, and files of passwords."""

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
    kept = {name: str(value) for name, value in read_json(path).items()}
    missing = {name: secrets.token_hex(16) for name in names if name not in kept}
    if missing:
        kept |= missing
        write_private(path, json.dumps(kept, indent=1))
    return kept
