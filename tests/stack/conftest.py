"""Three real servers for the tests of the stack itself; separate from the suite's own, because these get killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.stack import Stack, running_stack
from worker.stack.state import SERVERS

SHOP = Path(__file__).parents[2] / "examples" / "shop"


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    # Temp folders are 0700, so where we are root this home is one that PostgreSQL's account cannot enter by itself.
    with running_stack(tmp_path_factory.mktemp("servers") / "home", SHOP, only=SERVERS, provision=False) as stack:
        yield stack
