"""The shop's configuration, copied for servers of tests."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "shop"
NIGHTLY = 'cron: "0 2 * * *"'
"""When the shop's only schedule runs a job."""


def copy_shop(folder: Path, *, example: Path = EXAMPLE) -> Path:
    """Copy the shop's configuration to `folder`, which must not exist. Its nightly job is due in twelve hours: never while tests run."""
    shutil.copytree(example, folder, ignore=shutil.ignore_patterns("__pycache__"))
    triggers, hour = folder / "triggers.yaml", (datetime.now(UTC) + timedelta(hours=12)).hour
    text = triggers.read_text()
    assert NIGHTLY in text, f"{triggers} has no schedule with {NIGHTLY}: find out when its schedules run, so that none does while tests run"
    triggers.write_text(text.replace(NIGHTLY, f'cron: "0 {hour} * * *"'))
    return folder
