"""A worker on a machine whose clock is not Vault's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from justenough.adapters.configuration.settings import Settings
from justenough.services.dependencies import open_worker_deps
from worker.stack.stack_file import Stack

pytestmark = pytest.mark.servers


def test_a_worker_tells_the_time_by_vaults_clock(whole: Stack) -> None:
    assert whole.vault
    settings = Settings(
        home=whole.home, config=whole.config, vault_addr=whole.vault, console_url=whole.console, database_url=whole.database_url
    )
    with open_worker_deps(settings, {"SHOP_HOST": "127.0.0.1", "SHOP_PORT": "1", "MODEL_URL": "http://127.0.0.1:65535/v1"}) as deps:
        vaults, clock = datetime.now(UTC) + timedelta(hours=1), deps.vault.clock
        clock.note(vaults.timestamp(), sent=clock.steady())
        assert abs(deps.now() - vaults) < timedelta(minutes=5)
