"""Shared fixtures of the tests of whole jobs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.attacks.intruder import Intruder
from tests.support.shop import Witness
from worker.stack.stack_file import Stack


@pytest.fixture(scope="session")
def intruder(whole: Stack) -> Iterator[Intruder]:
    """Yield an intruder, who can terminate workflows and read the store."""
    with Intruder.break_in(whole) as entered:
        yield entered


@pytest.fixture
def witness() -> Iterator[Witness]:
    """Yield a witness, to whom jobs send their logins."""
    opened = Witness()
    yield opened
    opened.close()
