"""A worker's home with secrets in it, the sandbox of this machine, and a way to run one job in it for real."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from activities.session.delivery import Delivered
from activities.session.interpreters import interpreter
from activities.session.launch import Launch
from activities.session.logs import LogCapture
from activities.session.process import JobProcess
from activities.session.sandbox import Sandbox
from activities.session.uids import lent_uid
from activities.settings import Settings
from justenough.redaction import Redactor

SECRETS = ("stack.json", "seal.key", "worker.approle.json", "console.approle.json", "vault-admin.token", "justenough.db")


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


@dataclass
class Ran:
    code: int
    log: str

    @property
    def told(self) -> Any:
        """What the job printed, as JSON."""
        return json.loads(self.log)


@dataclass
class Runner:
    """Runs jobs as a session does."""

    settings: Settings
    sandbox: Sandbox

    async def __call__(self, *argv: str, secrets: tuple[str, ...] = (), **more: Any) -> Ran:
        texts: list[str] = []

        async def sink(text: str) -> None:
            texts.append(text)

        with lent_uid(self.settings) as uid:
            process = await self.start(*argv, uid=uid, **more)
            capture = await LogCapture.start(process.output, Redactor(secrets), sink)
            code = await process.wait()
            await capture.finished()
        return Ran(code, "".join(texts))

    async def python(self, code: str, *argv: str, **more: Any) -> Ran:
        return await self("python", "-c", code, *argv, **more)

    async def start(
        self,
        *argv: str,
        uid: int,
        workdir: Path | None = None,
        network: Literal["host", "none"] = "host",
        env: Mapping[str, str] | None = None,
        given: Delivered | None = None,
        python: str | None = None,
    ) -> JobProcess:
        given = given or Delivered()
        return await JobProcess.start(
            self.sandbox,
            Launch("j-dev-test", argv, uid, interpreter(self.settings, python), workdir, network, {**(env or {}), **given.env}, given.files),
        )


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


def cmdlines() -> list[bytes]:
    """Every process's command line on this machine, as anyone can read it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found.append((entry / "cmdline").read_bytes())
            except OSError:
                continue
    return found


def alive(marker: str) -> bool:
    """Whether a process with this word in its command line lives, wherever it hides."""
    return any(marker.encode() in line for line in cmdlines())


async def until(condition: Any, *, seconds: float = 10) -> None:
    """Wait until something becomes true; fail after `seconds`."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def is_root() -> bool:
    return os.geteuid() == 0
