"""When a worker's slots are free: each for one task at a time, and none while a server that the tasks need does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Self

import pytest
from structlog.testing import capture_logs
from temporalio.client import Client
from temporalio.worker import FixedSizeSlotSupplier

from activities.support.async_tools import run_beside
from justenough.adapters.configuration.folder import ConfigFolder
from justenough.adapters.configuration.settings import Settings
from justenough.adapters.store import Store
from justenough.adapters.targets.inspector import TargetInspector
from justenough.adapters.vault import Vault
from justenough.domain.core.secret import Secret
from justenough.services.dependencies import Deps
from tests.support.domain_samples import SHOP
from worker import intake as intake_module
from worker import temporal_worker
from worker.intake import NO_CONFIGURATION, STORE_AWAY, VAULT_AWAY, Intake, Slots

ENV = {"SHOP_HOST": "127.0.0.1", "SHOP_PORT": "5432", "MODEL_URL": "http://127.0.0.1:65535/v1"}
NOBODY = "http://127.0.0.1:1"
"""An address that refuses connections."""
TASK: Any = None
"""What the SDK says about the task; it does not matter."""


@pytest.fixture
def deps(tmp_path: Path) -> Iterator[Deps]:
    """Yield a Vault without a login, which refuses, a store that answers, and a valid configuration."""
    config, vault = ConfigFolder(SHOP, ENV), Vault(NOBODY)
    with closing(Store(f"sqlite:///{tmp_path / 'store.db'}")) as store:
        targets = TargetInspector(vault, lambda: config.current().catalog, installation="dev")
        yield Deps(settings=Settings(), store=store, vault=vault, config=config, targets=targets)


def unreachable_vault() -> Vault:
    """Return a Vault that is not there, with a login."""
    vault = Vault(NOBODY)
    vault.login_token(Secret("a-token"))
    return vault


async def no_thread(*_: object) -> None:
    """Fail like `asyncio.to_thread` when the machine has no thread left."""
    raise RuntimeError("can't start new thread")


async def test_a_slot_is_for_one_task_at_a_time_and_one_that_is_released_goes_to_a_poll_that_waits() -> None:
    slots = Slots(2, lambda: True)
    assert await slots.reserve_slot(TASK) is not None
    assert slots.try_reserve_slot(TASK) is not None
    assert slots.try_reserve_slot(TASK) is None
    waiting = {asyncio.create_task(slots.reserve_slot(TASK)) for _ in range(2)}
    async with asyncio.timeout(60):
        # The SDK calls from threads of its own.
        await asyncio.to_thread(slots.release_slot, TASK)
        _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert len(waiting) == 1
        assert slots.try_reserve_slot(TASK) is None
        await asyncio.to_thread(slots.release_slot, TASK)
        await asyncio.gather(*waiting)


async def test_a_poll_waits_while_no_tasks_are_taken_and_uses_up_no_slot() -> None:
    is_open = False
    slots = Slots(1, lambda: is_open)
    given_up, waiting = (asyncio.create_task(slots.reserve_slot(TASK)) for _ in range(2))
    assert slots.try_reserve_slot(TASK) is None
    given_up.cancel()
    is_open = True
    slots.try_again()
    async with asyncio.timeout(60):
        await waiting


@pytest.mark.parametrize(
    "away, obstacle, takes_tasks",
    [
        pytest.param({"vault"}, VAULT_AWAY, False, id="vault"),
        pytest.param({"store"}, STORE_AWAY, True, id="store"),
        pytest.param({"config"}, NO_CONFIGURATION, True, id="configuration"),
        pytest.param({"vault", "store"}, VAULT_AWAY, False, id="vault and store"),
    ],
)
async def test_without_vault_a_worker_takes_no_tasks_and_without_store_or_configuration_no_jobs(
    deps: Deps, tmp_path: Path, away: set[str], obstacle: str, *, takes_tasks: bool
) -> None:
    (tmp_path / "empty").mkdir()
    lacking: dict[str, Any] = {
        "vault": unreachable_vault(),
        "store": Store("postgresql://somebody@127.0.0.1:1/store"),
        "config": ConfigFolder(tmp_path / "empty", ENV, required=True),
    }
    intake = Intake(replace(deps, **{name: lacking[name] for name in away}))
    tasks, sessions = intake.slots(3, for_sessions=False), intake.slots(3, for_sessions=True)
    waiting = asyncio.create_task(sessions.reserve_slot(TASK))
    with capture_logs() as logs:
        await intake.check()
        await intake.check()
    assert [(entry["event"], entry["log_level"], bool(entry["why"])) for entry in logs] == [(obstacle, "error", True)]
    assert (tasks.try_reserve_slot(TASK) is not None, sessions.try_reserve_slot(TASK)) == (takes_tasks, None)
    assert intake.reaches_vault() is takes_tasks
    # The servers are back.
    intake._deps = deps
    with capture_logs() as logs:
        await intake.check()
    assert [entry["event"] for entry in logs] == ["worker ready"]
    async with asyncio.timeout(60):
        await waiting
    assert tasks.try_reserve_slot(TASK) is not None


async def test_a_check_that_fails_unexpectedly_lets_the_worker_take_tasks_and_is_repeated(
    deps: Deps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "RECHECK_INTERVAL", timedelta(0))
    monkeypatch.setattr(intake_module, "CHECK_INTERVAL", timedelta(0))
    intake = Intake(replace(deps, vault=unreachable_vault()))
    slots = intake.slots(1, for_sessions=False)
    await intake.check()
    assert slots.try_reserve_slot(TASK) is None
    with capture_logs() as logs:
        async with run_beside(intake.watch), asyncio.timeout(60):
            with monkeypatch.context() as broken:
                broken.setattr(asyncio, "to_thread", no_thread)
                await slots.reserve_slot(TASK)
            while VAULT_AWAY not in [entry["event"] for entry in logs]:  # noqa: ASYNC110 - nothing else reports it
                await asyncio.sleep(0.01)


class RecordedWorker:
    """Takes the place of an SDK worker, and shows how it was set up."""

    made: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, _client: Client, **options: Any) -> None:
        self.made.append(options)
        self._workflow_worker = SimpleNamespace()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None


async def test_every_slot_of_a_worker_goes_by_what_it_reaches(deps: Deps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temporal_worker, "Worker", RecordedWorker)
    monkeypatch.setattr(RecordedWorker, "made", [])
    nobody: Any = None
    for each in (deps, replace(deps, vault=unreachable_vault())):
        async with temporal_worker.run_workers(nobody, each, nobody):
            pass
    suppliers = [
        (options["tuner"]._get_workflow_task_slot_supplier(), options["tuner"]._get_activity_task_slot_supplier())
        for options in RecordedWorker.made
    ]
    is_free = [tuple(isinstance(one, Slots) and one.try_reserve_slot(TASK) is not None for one in pair) for pair in suppliers]
    # The worker for revocations, which has no workflows, then the one for sessions: both while Vault answers, then both while it does not.
    assert is_free == [(False, True), (True, True), (False, False), (False, False)]
    assert not any(isinstance(one, FixedSizeSlotSupplier) and one.num_slots for pair in suppliers for one in pair)
