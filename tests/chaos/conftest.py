"""One rig per test process. Each test starts with working servers and one running worker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.chaos.administrator import Administrator
from tests.chaos.exposure import Lab
from tests.chaos.rig import Rig, Worker, run_rig
from tests.support.people import Human, log_in
from tests.support.shop import Shop, Witness
from tests.support.shop_config import copy_shop

ARCHIVE_TTL = "20s"


def add_archive(config: Path) -> None:
    """Add a database without a target, in which users cannot be searched by name."""
    catalog = yaml.safe_load((config / "catalog.yaml").read_text())
    orders = catalog["resources"]["orders-db"]
    issue = {"path": "database/creds/archive-read"}
    # Without a target, nothing would find and drop a space.
    create, _ = orders["actions"]["admin"]["role"]["creation_statements"]
    role = {"default_ttl": ARCHIVE_TTL, "max_ttl": ARCHIVE_TTL, "creation_statements": [create]}
    read = {"issue": issue, "role": role, "max_ttl": ARCHIVE_TTL, "revocable": "now"}
    catalog["resources"]["archive-db"] = {**orders, "target": None, "data_scope": [], "title": "Old orders", "actions": {"read": read}}
    database = next(item for item in catalog["provision"] if item["path"] == "database/config/shop")
    database["data"]["allowed_roles"].append("archive-*")
    # JSON is YAML, and writes nothing twice by reference.
    (config / "catalog.yaml").write_text(json.dumps(catalog, default=str))


@pytest.fixture(scope="package")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Yield the stack without a worker, behind doors and a gate."""
    folder = tmp_path_factory.mktemp("chaos")
    config = copy_shop(folder / "shop")
    add_archive(config)
    with run_rig(folder / "home", config) as rig:
        yield rig


@pytest.fixture(autouse=True)
def _whole_again(rig: Rig) -> Iterator[None]:
    """Restore everything after each test."""
    yield
    rig.mend()


@pytest.fixture
def worker(rig: Rig) -> Worker:
    """Return the worker that runs when the test begins."""
    return rig.ensure_worker()


@pytest.fixture(scope="package")
def shop(rig: Rig) -> Iterator[Shop]:
    """Return the shop, connected directly as its database's owner."""
    with Shop.open(rig.stack) as opened:
        yield opened


@pytest.fixture(scope="package")
def administrator(rig: Rig) -> Iterator[Administrator]:
    """Yield a Temporal administrator."""
    with Administrator.connect(rig.stack) as administrator:
        yield administrator


@pytest.fixture
def witness() -> Iterator[Witness]:
    """Yield a witness, to whom jobs send their logins."""
    opened = Witness()
    yield opened
    opened.close()


def _person(name: str) -> object:
    def fixture(rig: Rig) -> Iterator[Human]:
        with log_in(rig.stack, name) as human:
            yield human

    return pytest.fixture(fixture, scope="package", name=name)


ops, lead, security, auditor = map(_person, ("ops", "lead", "security", "auditor"))


@pytest.fixture(scope="module")
def lab(rig: Rig, shop: Shop, ops: Human, lead: Human) -> Iterator[Lab]:
    """Jobs whose labels leave their revocation to the sweep."""
    with Lab.open(shop, ops, lead, pause=1) as lab:
        rig.start_alone(labelled=True)
        yield lab
