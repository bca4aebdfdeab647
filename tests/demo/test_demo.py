"""The demo, whole, as `make demo` runs it: on a stack of its own that it starts and stops."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.servers
@pytest.mark.timeout(300)
def test_the_demo_proves_that_every_credential_is_dead_and_leaves_nothing_running(tmp_path: Path) -> None:
    environment = {**os.environ, "JUSTENOUGH_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-m", "console.cli", "demo"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 credentials, all proven dead" in done.stdout
    assert done.stdout.count("Its login worked while it ran. Now: FATAL:") == 7
    assert "waits in Vault (accessor " in done.stdout
    assert "Writing one: permission denied for table refunds" in done.stdout
    assert "chains are unbroken" in done.stdout
    assert not (tmp_path / "home" / "stack.json").exists()
