"""Runs jobs as a session does, and looks at processes from outside."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from activities.delivery.delivery import Delivered
from activities.process.interpreters import find_interpreter
from activities.process.job_command import JobLaunch
from activities.process.log_capture import LogCapture
from activities.process.process import JobProcess
from activities.process.sandbox import Sandbox
from activities.process.uid_pool import MAX_UIDS, lend_uid
from justenough.adapters.configuration.settings import Settings
from justenough.domain.core.redaction import Redactor
from justenough.domain.jobs.spec import ResourceLimits

DEFAULTS = ResourceLimits()
SECRETS = ("stack.json", "seal.key", "worker.approle.json", "console.approle.json", "vault-admin.token", "justenough.db")
"""Files of the worker's home that no job may read."""


@dataclass
class RunResult:
    code: int
    log: str
    exceeded_limit: str | None = None

    @property
    def json_output(self) -> Any:
        """What the job printed, as JSON."""
        return json.loads(self.log)


@dataclass
class Runner:
    """Runs jobs as a session does."""

    settings: Settings
    sandbox: Sandbox

    async def __call__(self, *argv: str, secrets: tuple[str, ...] = (), **more: Any) -> RunResult:
        texts: list[str] = []

        async def sink(text: str) -> None:
            texts.append(text)

        with lend_uid(self.settings) as uid:
            process = await self.start(*argv, uid=uid, **more)
            capture = await LogCapture.start(process.output, Redactor(secrets), sink)
            code = await process.wait()
            await capture.finish()
        return RunResult(code, "".join(texts), process.limit_exceeded)

    async def python(self, code: str, *argv: str, **more: Any) -> RunResult:
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
        limits: ResourceLimits = DEFAULTS,
    ) -> JobProcess:
        given = given or Delivered()
        return await JobProcess.start(
            self.sandbox,
            JobLaunch(
                "j-dev-test",
                argv,
                uid,
                find_interpreter(self.settings, python),
                workdir,
                network,
                {**(env or {}), **given.env},
                given.files,
                given.paths,
                limits=limits,
            ),
        )


def command_lines() -> list[bytes]:
    """Every process's command line on this machine, as anyone can read it."""
    return [line for line, _ in _processes()]


def holders_of(text: bytes) -> list[bytes]:
    """The command lines of all processes whose environment holds a text, as far as we may read them."""
    return [line for line, environment in _processes() if text in environment]


def own_environment() -> bytes:
    """The worker's, which is the test's."""
    return _read(Path("/proc/self/environ"))


def _processes() -> Iterator[tuple[bytes, bytes]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            yield _read(entry / "cmdline"), _read(entry / "environ")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def is_alive(marker: str) -> bool:
    """Whether a process with this word in its command line lives, wherever it hides."""
    return any(marker.encode() in line for line in command_lines())


async def until(condition: Callable[[], bool], *, seconds: float = 180) -> None:
    """Wait until something becomes true; fail after `seconds`."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - /proc tells nobody
            await asyncio.sleep(0.05)


def is_job_uid(settings: Settings, uid: int) -> bool:
    """Whether a user id is one that jobs get: which of them, others that run tests decide too."""
    return settings.job_uid_base <= uid < settings.job_uid_base + MAX_UIDS if is_root() else uid == os.geteuid()


def is_root() -> bool:
    return os.geteuid() == 0
