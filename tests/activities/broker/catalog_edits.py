"""More tools in the shop's catalog, for as long as a test needs them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from justenough.domain.catalog.loader import read_catalog
from tests.support.shop import Shop


@contextmanager
def offer_tools(shop: Shop, tools: Mapping[str, Any]) -> Iterator[None]:
    """Have the catalog offer these too for the length of a block; a worker sees it a moment later."""
    with edit_catalog(shop, "\ntools:\n", "\ntools:\n" + "".join(f"  {name}: {json.dumps(tool)}\n" for name, tool in tools.items())):
        yield


@contextmanager
def extend_catalog(shop: Shop, text: str) -> Iterator[None]:
    """Have the catalog say this too."""
    with edit_catalog(shop, "\ntools:\n", f"\n{text}tools:\n"):
        yield


@contextmanager
def edit_catalog(shop: Shop, old: str, new: str) -> Iterator[None]:
    """Have another text in the catalog's stead."""
    catalog = shop.config / "catalog.yaml"
    was = catalog.read_text()
    more = was.replace(old, new, 1)
    read_catalog(more)
    catalog.write_text(more)
    try:
        yield
    finally:
        catalog.write_text(was)
