"""A worker's home with secrets in it, the sandbox of this machine, and a way to run one job in it for real."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from activities.process.sandbox import Sandbox
from justenough.adapters.configuration.settings import Settings
from tests.activities.process.job_process import SECRETS, Runner


@pytest.fixture
def home() -> Iterator[Path]:
    """The worker's home, as private as in life."""
    folder = Path(tempfile.mkdtemp(prefix="je-home-"))
    for name in SECRETS:
        (folder / name).write_text(f"the content of {name}")
        (folder / name).chmod(0o600)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def settings(home: Path) -> Settings:
    return Settings(home=home, job_path="/usr/bin:/bin", sandbox="auto", job_uid_base=710_000)


@pytest.fixture(scope="session")
def sandbox() -> Sandbox:
    return Sandbox.probe(Settings(home=Path("/nonexistent"), sandbox="auto", job_uid_base=710_000))


@pytest.fixture
def run(settings: Settings, sandbox: Sandbox) -> Runner:
    return Runner(settings, sandbox)


@pytest.fixture
def bare(settings: Settings) -> Runner:
    """Runs jobs without a sandbox."""
    return Runner(settings, Sandbox.probe(settings.model_copy(update={"sandbox": "off"})))


@pytest.fixture
def listener() -> Iterator[int]:
    """A port on the host's loopback that accepts."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server.getsockname()[1]
