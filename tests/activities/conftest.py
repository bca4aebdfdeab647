"""The shop's PostgreSQL and Vault, real and provisioned as `justenough vault setup` does; one desk (worker) per test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from justenough.adapters.configuration.settings import Settings
from justenough.adapters.runtime.private_files import read_json
from justenough.domain.core.secret import Secret
from tests.activities.catalog_variants import open_changed_desk
from tests.activities.tcp_door import Door
from tests.activities.vault_shop import EXAMPLE, PASSWORD, PASSWORD_HASH, Desk, Shop, open_desk
from worker.provisioning.setup import PersonSeed, VaultTarget, provision_vault
from worker.stack.control import running_stack
from worker.stack.paths import StackPaths
from worker.stack.postgres import superuser_dsn
from worker.stack.seed import shop_environment

PEOPLE = {"ops": ("ops",), "lead": ("support-leads",), "security": ("security",), "chief": ("chiefs",)}


@pytest.fixture(scope="package")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    home = tmp_path_factory.mktemp("activities") / "home"
    with running_stack(home, EXAMPLE, only=("postgres", "vault"), provision=False) as stack:
        assert stack.vault is not None
        places = StackPaths(home)
        port = int(read_json(places.ports)["postgres"])
        door = Door(port)
        settings = Settings(home=home, config=EXAMPLE, vault_addr=stack.vault)
        admin_token = places.admin_token.read_text(encoding="utf-8").strip()
        # Vault reaches PostgreSQL through the door too, so that a test can take the target away from everybody.
        environment = {**os.environ, **shop_environment(places), "SHOP_PORT": str(door.port)}
        people = {name: PersonSeed(Secret(PASSWORD), groups) for name, groups in PEOPLE.items()}
        shop = Shop(settings, admin_token, superuser_dsn(places, port), door, environment)
        for mount in (*settings.people_mounts, settings.pages_mount):
            shop.admin("POST", f"sys/auth/{mount}", {"type": "userpass"})
            for name in PEOPLE:
                shop.admin("POST", f"auth/{mount}/users/{name}", {"password_hash": PASSWORD_HASH})
        # Provisioning finds that everyone has a password already.
        provision_vault(VaultTarget(settings, admin_token=Secret(admin_token), people=people, environment=environment))
        yield shop
        door.close()


@pytest.fixture
def blind(shop: Shop, tmp_path: Path) -> Iterator[Desk]:
    """A desk whose catalog names no target for reading orders: nobody can look for such users by name."""

    def change(catalog: dict[str, Any]) -> None:
        catalog["resources"]["orders-db"]["actions"]["read"]["target"] = None
        # The tools connect to the target.
        del catalog["tools"]

    with open_changed_desk(shop, tmp_path, change) as made:
        yield made


@pytest.fixture
def at(shop: Shop, tmp_path: Path) -> Iterator[Desk]:
    with open_desk(shop, tmp_path) as made:
        yield made
        shop.door.open()
