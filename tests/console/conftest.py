"""One real Temporal and OpenBao, a console served by uvicorn, and people who log in and sign for real. No worker: what it would do is not asked here."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from activities.settings import Settings
from console.build import built
from justenough.secret import Secret
from tests.console.support import SHOP, Served, logged_in, serving
from worker.provisioning import PersonSeed, setup
from worker.stack.control import running_stack
from worker.stack.fill import shop_environment
from worker.stack.places import Places
from worker.stack.private import read_json
from worker.stack.state import Stack


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    with (
        tempfile.TemporaryDirectory(prefix="je-console-") as folder,
        running_stack(Path(folder) / "home", SHOP, only=("temporal", "vault", "postgres")) as running,
    ):
        yield running


@pytest.fixture(scope="session")
def settings(stack: Stack) -> Settings:
    assert stack.vault
    assert stack.temporal
    return Settings(home=stack.home, config=SHOP, vault_addr=stack.vault, temporal_address=stack.temporal, installation="dev")


@pytest.fixture(scope="session")
def everyone(stack: Stack, settings: Settings) -> dict[str, str]:
    """Everyone's password: the stack's people, another launcher, and one who is in no group."""
    groups = {name: user.groups for name, user in stack.users.items()} | {"ops2": ("ops",), "nobody": ()}
    passwords = {name: user.password for name, user in stack.users.items()} | {"ops2": "ops2-password", "nobody": "nobody-password"}
    places = Places.of(stack.home)
    setup(
        settings,
        vault_addr=settings.vault_addr,
        admin_token=Secret(stack.admin_token_file.read_text().strip()),
        people={name: PersonSeed(password=Secret(passwords[name]), groups=groups[name]) for name in groups},
        environment={**os.environ, **shop_environment(places, int(read_json(places.ports)["postgres"]))},
    )
    return passwords


@pytest.fixture
def admin(stack: Stack) -> Iterator[httpx.Client]:
    """Vault, as its administrator."""
    token = stack.admin_token_file.read_text().strip()
    with httpx.Client(base_url=f"{stack.vault}/v1/", headers={"X-Vault-Token": token}, timeout=15, trust_env=False) as client:
        yield client


@pytest.fixture(scope="session")
async def served(stack: Stack, settings: Settings, everyone: dict[str, str]) -> AsyncIterator[Served]:
    async with built(settings) as console, serving(console) as http:
        temporal = await Client.connect(settings.temporal_address, data_converter=pydantic_data_converter)
        people = {name: logged_in(stack, name, password) for name, password in everyone.items()}
        yield Served(http=http, console=console, temporal=temporal, stack=stack, people=people)
