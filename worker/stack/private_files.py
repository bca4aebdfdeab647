"""Files that only their owner may read: written whole or not at all, mode 0600 from the first byte. Knows no file's meaning."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def write_private(path: Path, content: str | bytes) -> None:
    """Replace a file in one step; a crash leaves the old one or the new one."""
    data = content.encode() if isinstance(content, str) else content
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def make_private_folder(path: Path, *, mode: int = 0o700) -> Path:
    """Make a folder with this mode; one that exists keeps its own."""
    if not path.is_dir():
        path.mkdir(parents=True)
        path.chmod(mode)
    return path


def read_json(path: Path) -> dict[str, Any]:
    """Return what a JSON object file holds; empty where there is none, or not an object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def ensure_passwords(path: Path, names: Iterable[str]) -> dict[str, str]:
    """Return a password for each name: those in the file, and new ones for the rest, which are kept before they are returned."""
    kept = {name: str(value) for name, value in read_json(path).items()}
    missing = {name: secrets.token_hex(16) for name in names if name not in kept}
    if missing:
        kept |= missing
        write_private(path, json.dumps(kept, indent=1))
    return kept
