"""Shared by the attacks: an intruder with write access, and a witness to whom jobs send their logins."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.attacks.intruder import Intruder
from tests.support.shop import Witness
from worker.stack.stack_file import Stack


@pytest.fixture(scope="session")
def intruder(whole: Stack) -> Iterator[Intruder]:
    """Yield an intruder with write access to Temporal, the store and Vault's groups."""
    with Intruder.break_in(whole) as entered:
        yield entered


@pytest.fixture
def witness() -> Iterator[Witness]:
    """Yield a witness, to whom jobs send their logins."""
    opened = Witness()
    yield opened
    opened.close()
