"""Desks with another catalog than the shop's own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.activities.conftest import EXAMPLE
from tests.activities.vault_shop import Desk, Shop, desk

Change = Callable[[dict[str, Any]], object]


@contextmanager
def open_desk(shop: Shop, tmp_path: Path, change: Change, *, provision: bool = False) -> Iterator[Desk]:
    """A desk for the length of a block, its catalog the shop's with a `change`; `provision`: in a Vault that was set up for that."""
    folder = tmp_path / "config"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__", "data"))
    catalog = yaml.safe_load((folder / "catalog.yaml").read_text())
    change(catalog)
    (folder / "catalog.yaml").write_text(yaml.safe_dump(catalog))
    if provision:
        shop.provision(folder)
    made = desk(shop, f"sqlite:///{tmp_path / 'store.db'}", folder=folder)
    try:
        yield made
    finally:
        made.deps.targets.close()
        made.deps.vault.close()
        made.deps.store.close()
        if provision:
            shop.provision(EXAMPLE)
