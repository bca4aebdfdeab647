"""What the attacks share: an intruder who is already inside, and a witness who hears from jobs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.attacks.intruder import Intruder
from tests.support.shop import Witness
from worker.stack import Stack


@pytest.fixture(scope="session")
def intruder(whole: Stack) -> Iterator[Intruder]:
    """Has write access to Temporal, to the store and to Vault's groups."""
    with Intruder.entered(whole) as entered:
        yield entered


@pytest.fixture
def witness() -> Iterator[Witness]:
    """Hears from jobs."""
    opened = Witness()
    yield opened
    opened.close()
