"""What a worker loads when it starts, and how it shows that it runs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from justenough.domain.core.errors import GiveUp
from worker import main
from worker.main import LIVENESS_INTERVAL_S, HomeNotWritable, signal_liveness


def test_a_worker_starts_without_loading_the_mcp_sdk() -> None:
    """The SDK takes most of a second and 17 MB, and a worker that starts may have access to revoke."""
    code = "import sys; import worker.main; print(sorted({'mcp', 'mcp_types', 'jsonschema'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_package_from_another_folder_keeps_a_worker_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    main.check_packages()
    monkeypatch.setattr(main, "PACKAGES", ("worker", "pytest"))
    with pytest.raises(GiveUp, match=r"^package 'pytest' was imported from .*, not from .*; install the worker in a separate environment$"):
        main.check_packages()


async def test_a_liveness_file_is_touched_again_after_a_time_in_which_it_could_not_be(tmp_path: Path) -> None:
    """The disk may be full, or the file system read-only, for a while."""
    file = tmp_path / "run" / "worker.alive"
    async with signal_liveness(file):
        file.unlink()
        file.parent.rename(tmp_path / "away")
        await asyncio.sleep(2 * LIVENESS_INTERVAL_S)
        assert not file.parent.exists()
        (tmp_path / "away").rename(file.parent)
        async with asyncio.timeout(60):
            while not await asyncio.to_thread(file.exists):  # noqa: ASYNC110 - nothing reports it
                await asyncio.sleep(0.05)


async def test_a_home_that_cannot_be_written_is_named_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    with pytest.raises(HomeNotWritable, match=r"home/run: Not a directory; make JUSTENOUGH_HOME a folder in which the worker can write"):
        async with signal_liveness(tmp_path / "home" / "run" / "worker.alive"):
            pass
