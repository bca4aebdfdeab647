"""What the tests of whole jobs share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.attacks.intruder import Intruder
from tests.support.shop import Witness
from worker.stack import Stack


@pytest.fixture(scope="session")
def intruder(whole: Stack) -> Iterator[Intruder]:
    """Terminates workflows, reads the store."""
    with Intruder.entered(whole) as entered:
        yield entered


@pytest.fixture
def witness() -> Iterator[Witness]:
    """Hears from jobs."""
    opened = Witness()
    yield opened
    opened.close()
