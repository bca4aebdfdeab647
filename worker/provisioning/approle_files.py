"""The AppRole files, private and replaced in one step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from justenough.adapters.runtime.private_files import write_private


def read_approle(file: Path) -> dict[str, str]:
    """Return the content of an AppRole file; empty if there is no readable one."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def write_approle(file: Path, approle: Mapping[str, str]) -> None:
    """Replace an AppRole file. A crash leaves the old file or the new one. Raises OSError."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(file, json.dumps(dict(approle)))
