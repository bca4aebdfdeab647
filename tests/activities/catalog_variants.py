"""Desks with another catalog than the shop's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.activities.vault_shop import EXAMPLE, Desk, Shop, copy_config, open_desk

Change = Callable[[dict[str, Any]], object]


@contextmanager
def open_changed_desk(shop: Shop, tmp_path: Path, change: Change, *, provision: bool = False) -> Iterator[Desk]:
    """A desk for the length of a block, its catalog the shop's with a `change`; `provision`: in a Vault that was set up for that."""
    folder = copy_config(tmp_path)
    catalog = yaml.safe_load((folder / "catalog.yaml").read_text())
    change(catalog)
    (folder / "catalog.yaml").write_text(yaml.safe_dump(catalog))
    if provision:
        shop.provision(folder)
    try:
        with open_desk(shop, tmp_path, folder=folder) as made:
            yield made
    finally:
        if provision:
            shop.provision(EXAMPLE)
