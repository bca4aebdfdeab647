"""An installation whose console keeps schedules."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from console.services.console import build_console
from justenough.adapters.configuration.settings import Settings
from tests.console.served_console import SHOP, Served
from tests.console.temporal.scheduled_installation import Installation
from tests.support.temporal_client import connect


@pytest.fixture
async def installation(served: Served, settings: Settings, own_store: Path, tmp_path: Path) -> AsyncIterator[Installation]:
    folder = tmp_path / "shop"
    shutil.copytree(SHOP, folder, ignore=shutil.ignore_patterns("__pycache__"))
    own = {"config": folder, "installation": f"t{secrets.token_hex(3)}", "database_url": f"sqlite:///{own_store}"}
    own_settings = settings.model_copy(update=own)
    async with build_console(own_settings) as console:
        found = Installation(console, own_settings, await connect(served.stack, own_settings.installation), folder)
        yield found
        await found.sync_schedules()
