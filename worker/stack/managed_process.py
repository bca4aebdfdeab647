"""One child process of the stack: how it is started, kept alive and stopped. Knows nothing of what the child is for."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from justenough.domain.core.errors import RetryLater
from worker.stack.paths import StackPaths
from worker.stack.pidfile import ProcessIdentity, identity_of, remove_pidfile, write_pidfile

log = structlog.get_logger(__name__)

HUNG_AFTER_S = 10.0
"""Seconds without health after which a child is killed and started again."""
HEALTH_CHECK_INTERVAL_S = 1.0
MAX_RETRY_INTERVAL_S = 5.0


class ChildFailed(RetryLater):
    """A child ended or did not answer while it was being started; the message ends with the last lines of its log."""

    def __init__(self, name: str, what: str, log_file: Path) -> None:
        super().__init__(f"{name} {what}. Its log, {log_file}, ends with:\n{_read_tail(log_file)}")


def _do_nothing() -> None:
    """What a child needs that needs nothing."""


def _same_pid(pid: int) -> int:
    return pid


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    healthy: Callable[[], bool]
    cwd: Path | None = Path("/")
    popen: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments for subprocess."""
    prepare: Callable[[], None] = _do_nothing
    """Runs before every start."""
    awaken: Callable[[], None] = _do_nothing
    """Runs again and again from a start until the child is healthy."""
    real_pid: Callable[[int], int] = _same_pid
    """From the pid we started to the pid of the server itself, where something stands between."""
    gently: signal.Signals = signal.SIGTERM
    stop_within: float = 10.0
    start_within: float = 45.0


class ManagedProcess:
    """Owns one child's process from its first start until the stack stops."""

    def __init__(self, child: ChildSpec, places: StackPaths, *, on_change: Callable[[], None] = _do_nothing) -> None:
        self.child = child
        self._places = places
        self._on_change = on_change
        self._process: asyncio.subprocess.Process | None = None
        self._identity: ProcessIdentity | None = None
        self._pid: int | None = None

    @property
    def pid(self) -> int | None:
        """The pid of the server itself, while it is down its last one; None before it was ever up."""
        return self._pid

    async def start(self) -> None:
        """Start the child and return once it is healthy. Raises ChildFailed, and then nothing of it runs."""
        try:
            await asyncio.to_thread(self.child.prepare)
            await self._launch()
            await self._wait_until_healthy()
            self._record_server_pid()
        except BaseException:
            await self._kill()
            raise

    async def keep_running(self) -> None:
        """Start the child again whenever it died or hung; runs until cancelled."""
        while True:
            reason = await self._wait_until_down()
            log.warning("child is down, starting it again", child=self.child.name, reason=reason)
            await self._kill()
            await self._start_with_retries()
            log.info("child is up again", child=self.child.name, pid=self.pid)
            self._on_change()

    async def stop(self) -> None:
        """Ask the child to end, kill it after its time limit, and forget it."""
        if self._process is not None and self._process.returncode is None:
            self._signal(self.child.gently)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), self.child.stop_within)
        await self._kill()
        remove_pidfile(self._places.run, self.child.name)

    async def _launch(self) -> None:
        with self._places.log(self.child.name).open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *self.child.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(self.child.env),
                cwd=self.child.cwd,
                start_new_session=True,
                **self.child.popen,
            )
        if mark := identity_of(self._process.pid):
            write_pidfile(self._places.run, self.child.name, mark)

    def _record_server_pid(self) -> None:
        assert self._process is not None
        self._identity = identity_of(self.child.real_pid(self._process.pid))
        if self._identity is None:
            raise ChildFailed(self.child.name, "ended right after its start", self._places.log(self.child.name))
        self._pid = self._identity.pid
        write_pidfile(self._places.run, self.child.name, self._identity)

    async def _wait_until_healthy(self) -> None:
        end = time.monotonic() + self.child.start_within
        while not await asyncio.to_thread(self._check_health):
            if await self._has_exited(within=0.05):
                raise ChildFailed(self.child.name, "ended while it was starting", self._places.log(self.child.name))
            if time.monotonic() > end:
                what = f"did not become healthy in {self.child.start_within:.0f} s"
                raise ChildFailed(self.child.name, what, self._places.log(self.child.name))

    def _check_health(self) -> bool:
        self.child.awaken()
        return self.child.healthy()

    async def _has_exited(self, *, within: float) -> bool:
        assert self._process is not None
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), within)
            return True
        return False

    async def _wait_until_down(self) -> str:
        healthy_at = time.monotonic()
        while not await self._has_exited(within=HEALTH_CHECK_INTERVAL_S):
            if await asyncio.to_thread(self.child.healthy):
                healthy_at = time.monotonic()
            elif time.monotonic() - healthy_at > HUNG_AFTER_S:
                return "hung"
        return "exited"

    async def _start_with_retries(self) -> None:
        pause = 0.1
        while True:
            try:
                return await self.start()
            except Exception as error:  # noqa: BLE001 - whatever keeps a child from starting, the stack goes on trying
                log.warning("child did not start", child=self.child.name, error=str(error))
            await asyncio.sleep(pause)
            pause = min(pause * 2, MAX_RETRY_INTERVAL_S)

    async def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._signal(signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        self._identity = None

    def _signal(self, number: signal.Signals) -> None:
        """Signal the server itself, or what we started while the server is not known yet."""
        assert self._process is not None
        if self._identity is not None:
            self._identity.send(number)
        else:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


def _read_tail(file: Path, *, lines: int = 8) -> str:
    try:
        return "\n".join(file.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except OSError:
        return "(nothing)"
