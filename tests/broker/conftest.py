"""One job that talks to its broker for all tests that only look."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.broker.puppet import Puppet, puppet
from tests.people import Human


@pytest.fixture(scope="module")
def talking(ops: Human) -> Iterator[Puppet]:
    with puppet(ops) as job:
        yield job
