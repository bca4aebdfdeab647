"""One real Temporal and OpenBao, a console served by uvicorn, and people who log in and sign for real. No worker: what it would do is not asked here."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from console.services.console import build_console
from justenough.adapters.configuration.settings import Settings
from justenough.adapters.store import Store
from justenough.domain.core.secret import Secret
from tests.console.outbox_rig import CURRENT, OTHERS, PEOPLE, PREVIOUS, SECRET, Clock, OutboxRig, write_config
from tests.console.served_console import SHOP, Served, log_in, serve_console
from tests.support import temporal_client
from tests.support.cheap_passwords import PASSWORDS, create_users
from tests.support.plain_http import NO_TLS
from tests.support.shop_config import copy_shop
from worker.provisioning.setup import PersonSeed, VaultTarget, provision_vault
from worker.stack.control import running_stack
from worker.stack.paths import StackPaths
from worker.stack.seed import shop_environment
from worker.stack.stack_file import Stack


@pytest.fixture(scope="package")
def stack() -> Iterator[Stack]:
    """The servers. `settings` sets Vault up."""
    only = ("temporal", "vault", "postgres")
    with (
        tempfile.TemporaryDirectory(prefix="je-console-") as folder,
        running_stack(Path(folder) / "home", copy_shop(Path(folder) / "shop"), only=only, provision=False) as running,
    ):
        yield running


@pytest.fixture(scope="package")
def everyone(stack: Stack) -> dict[str, str]:
    """Everyone's password: the stack's people, another launcher, and one who is in no group."""
    return {name: PASSWORDS[name] for name in (*stack.users, "ops2", "nobody")}


@pytest.fixture(scope="package")
def settings(stack: Stack, everyone: dict[str, str]) -> Settings:
    """A console's settings. Its Vault has everyone's logins."""
    assert stack.vault
    assert stack.temporal
    settings = Settings(home=stack.home, config=stack.config, vault_addr=stack.vault, temporal_address=stack.temporal, installation="dev")
    groups = {name: user.groups for name, user in stack.users.items()} | {"ops2": ("ops",), "nobody": ()}
    headers, places = {"X-Vault-Token": stack.admin_token_file.read_text().strip()}, StackPaths(stack.home)
    with httpx.Client(base_url=f"{stack.vault}/v1/", headers=headers, timeout=15, trust_env=False, verify=NO_TLS) as vault:
        create_users(vault, (*settings.people_mounts, settings.pages_mount), everyone)
    provision_vault(
        VaultTarget(
            settings,
            admin_token=Secret(stack.admin_token_file.read_text().strip()),
            people={name: PersonSeed(password=Secret(everyone[name]), groups=groups[name]) for name in groups},
            environment={**os.environ, **shop_environment(places)},
        )
    )
    return settings


@pytest.fixture
def admin(stack: Stack) -> Iterator[httpx.Client]:
    """Vault, as its administrator."""
    token = stack.admin_token_file.read_text().strip()
    with httpx.Client(
        base_url=f"{stack.vault}/v1/", headers={"X-Vault-Token": token}, timeout=60, trust_env=False, verify=NO_TLS
    ) as client:
        yield client


@pytest.fixture(scope="package")
async def served(stack: Stack, settings: Settings, everyone: dict[str, str]) -> AsyncIterator[Served]:
    async with build_console(settings) as console, serve_console(console) as http:
        temporal = await temporal_client.connect(stack)
        people = {name: log_in(stack, name, password) for name, password in everyone.items()}
        yield Served(http=http, console=console, temporal=temporal, stack=stack, people=people)


@pytest.fixture(scope="package")
def readable(stack: Stack, settings: Settings, served: Served, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The console may read the secrets of subscriptions, too: `vault setup` with a configuration that names them."""
    del served
    hook = {"url": "https://siem.example.com/", "events": ["*"], "signing_secret": SECRET}
    shop = shutil.copytree(SHOP, tmp_path_factory.mktemp("readable") / "config", ignore=shutil.ignore_patterns("__pycache__"))
    folder = write_config(shop, webhooks=[hook], notify=[{"on": ["approval.opened"], "to": [PEOPLE, OTHERS]}])
    places = StackPaths(stack.home)
    provision_vault(
        VaultTarget(
            settings.model_copy(update={"config": folder}),
            admin_token=Secret(stack.admin_token_file.read_text().strip()),
            people={},
            environment={**os.environ, **shop_environment(places)},
        )
    )


@pytest.fixture(scope="package")
def ready_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite store that is migrated, to copy from."""
    path = tmp_path_factory.mktemp("ready") / "store.db"
    with contextlib.closing(Store(f"sqlite:///{path}")) as store:
        store.migrate()
    return path


@pytest.fixture
def own_store(ready_file: Path, tmp_path: Path) -> Path:
    """An SQLite store for this test alone, migrated and empty."""
    return Path(shutil.copy(ready_file, tmp_path / "store.db"))


@pytest.fixture(scope="package")
def small_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shop's tiers and policies with a small catalog, for consoles that show what is recorded."""
    return write_config(tmp_path_factory.mktemp("small") / "config")


@pytest.fixture
async def rig(served: Served, readable: None, admin: httpx.Client, own_store: Path, tmp_path: Path) -> AsyncIterator[OutboxRig]:
    """Consoles with a store of their own, whose subscriptions' secrets are in Vault."""
    del readable
    clock, folder = Clock(), write_config(tmp_path / "config")
    with contextlib.closing(Store(f"sqlite:///{own_store}")) as store:
        deps = dataclasses.replace(served.console.deps, store=store, now=clock.now, ticks=clock.ticks)
        found = OutboxRig(deps, store, clock, folder, admin)
        await found.write_secret(SECRET, secret=CURRENT, previous=PREVIOUS)
        yield found
        for office in found.dispatchers:
            await office.close()
