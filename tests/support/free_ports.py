"""Ports for servers that a test starts by itself, while other tests and their stacks start theirs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.stack.paths import StackPaths
from worker.stack.ports import PORT_NAMES, claim_ports


@contextmanager
def hold_ports(folder: Path, count: int) -> Iterator[tuple[int, ...]]:
    """Yield free ports that nobody else chooses until the block ends, as a stack holds its own. `folder`: remembers them."""
    with claim_ports(StackPaths(folder)) as ports:
        yield tuple(ports[name] for name in PORT_NAMES[:count])
