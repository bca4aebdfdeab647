"""One PostgreSQL with the shop and one empty OpenBao for this folder, set up from the shop's own configuration."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from justenough.adapters.configuration.settings import Settings
from justenough.adapters.runtime.private_files import read_json
from tests.worker.provisioning.provisioned_shop import PEOPLE, SHOP, Emptied, Session, Shop
from worker.provisioning.admin_client import AppliedWrite
from worker.stack.control import running_stack
from worker.stack.paths import StackPaths
from worker.stack.postgres import superuser_dsn
from worker.stack.seed import shop_environment


@pytest.fixture(scope="package")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    home = tmp_path_factory.mktemp("provisioning") / "home"
    with running_stack(home, SHOP, only=("postgres", "vault"), provision=False) as stack:
        assert stack.vault is not None
        places = StackPaths(home)
        port = int(read_json(places.ports)["postgres"])
        admin = Session(stack.vault, places.admin_token.read_text().strip())
        settings = Settings(home=home, config=SHOP, vault_addr=stack.vault)
        environment = {**os.environ, **shop_environment(places)}
        yield Shop(settings=settings, admin=admin, environment=environment, superuser=superuser_dsn(places, port))


@pytest.fixture(scope="package")
def first_run(servers: Shop) -> tuple[AppliedWrite, ...]:
    """Return the outcomes of the first setup."""
    return servers.setup(people=PEOPLE)


@pytest.fixture(scope="package")
def shop(servers: Shop, first_run: tuple[AppliedWrite, ...]) -> Shop:
    return servers


@pytest.fixture(scope="package")
def worker(shop: Shop) -> Session:
    return shop.approle(shop.settings.worker_approle_file)


@pytest.fixture
def console(shop: Shop) -> Session:
    """Log in again for each test: one test recreates the console's identity, which ends its logins."""
    return shop.approle(shop.settings.console_approle_file)


@pytest.fixture
def empty(shop: Shop, tmp_path: Path) -> Iterator[Emptied]:
    made = Emptied(shop, tmp_path)
    made.create()
    yield made
    made.delete()
