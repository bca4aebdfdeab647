"""What the tests of whole jobs share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.shop import Witness


@pytest.fixture
def witness() -> Iterator[Witness]:
    """Hears from jobs."""
    opened = Witness()
    yield opened
    opened.close()
