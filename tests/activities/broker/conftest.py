"""One job that talks to its broker for all tests that only look."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.activities.broker.model_server import ModelServer, serve_model
from tests.activities.broker.remote_job import Puppet, launch_puppet
from tests.support.people import Human
from tests.support.shop import Shop
from worker.stack.paths import StackPaths
from worker.stack.stack_file import Stack


@pytest.fixture(scope="session")
def shop(whole_shop: Shop) -> Shop:
    """The shop of the whole stack, not that of the activities' tests."""
    return whole_shop


@pytest.fixture(scope="module")
def broker_job(ops: Human) -> Iterator[Puppet]:
    with launch_puppet(ops) as job:
        yield job


@pytest.fixture(scope="module")
def model(whole: Stack) -> Iterator[ModelServer]:
    """A model's server where the stack's catalog says that there is one."""
    port = json.loads(StackPaths(whole.home).ports.read_text())["model"]
    with serve_model(port) as serving:
        yield serving


@pytest.fixture(scope="module")
def model_job(ops: Human, model: ModelServer) -> Iterator[Puppet]:
    """One job with a model, for all tests that only look."""
    del model
    with launch_puppet(ops, model={"name": "default", "requests": 1_000, "tokens": 1_000_000}) as job:
        yield job
