"""The AppRole files: private from their first byte, replaced in one step. Knows nothing of the stack, whose files have their own module."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path


def read_approle(file: Path) -> dict[str, str]:
    """Return what an AppRole file holds; empty where there is none or it is not one."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def write_approle(file: Path, approle: Mapping[str, str]) -> None:
    """Replace an AppRole file; a crash leaves the old one or the new one. Raises OSError."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as handle:
        json.dump(dict(approle), handle)
        handle.flush()
        os.fsync(handle.fileno())
    fresh.replace(file)
