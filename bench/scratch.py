"""Temporary stacks and stores to measure on, and progress on stderr."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from justenough.adapters.store import Store
from worker.stack.control import running_stack
from worker.stack.stack_file import CHILDREN, Stack

SHOP = Path(__file__).resolve().parent.parent / "examples" / "shop"


@contextmanager
def scratch_stack(*, only: Iterable[str] = CHILDREN) -> Iterator[Stack]:
    """Yield a running stack with the shop in a temporary folder."""
    tell("starting a stack")
    with tempfile.TemporaryDirectory(prefix="je-bench-") as folder, running_stack(Path(folder) / "home", SHOP, only=only) as stack:
        yield stack


@contextmanager
def scratch_store() -> Iterator[Store]:
    """Yield an empty SQLite store in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="je-bench-") as folder, closing(Store(f"sqlite:///{folder}/ledger.db")) as store:
        store.migrate()
        yield store


def tell(text: str) -> None:
    """Print progress on stderr."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
