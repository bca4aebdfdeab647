"""One child process of the stack: start it, keep it running, stop it. Does not know the child's purpose."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
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
"""A child that is unhealthy for this many seconds is killed and started again."""
HEALTH_CHECK_INTERVAL_S = 2.0
MAX_RETRY_INTERVAL_S = 5.0
LOG_TAIL_LINES = 8
MAX_LOG_BYTES = 50 * 2**20
"""A larger log is rotated. One older log is kept."""


class ChildFailed(RetryLater):
    """A child ended or did not become healthy while it was starting. The message ends with the last lines of its log."""

    def __init__(self, name: str, what: str, log_file: Path) -> None:
        try:
            tail = "\n".join(log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL_LINES:])
        except OSError:
            tail = "(nothing)"
        super().__init__(f"{name} {what}. Its log, {log_file}, ends with:\n{tail}")


def rotate_log(log_file: Path) -> None:
    """Move the content of a log that has become too large to NAME.log.1. Its writer appends, so it continues in the emptied file.

    Lines written between the two steps are lost, because the writer cannot be asked to wait. If the disk is full, the log is left alone.
    Blocks.
    """
    with contextlib.suppress(OSError):
        if log_file.stat().st_size > MAX_LOG_BYTES:
            shutil.copyfile(log_file, log_file.with_name(f"{log_file.name}.1"))
            os.truncate(log_file, 0)


def move_log(log_file: Path) -> bool:
    """Rename a log that is too large to NAME.log.1. Return whether its writer must open a new one. Loses no line. Blocks."""
    with contextlib.suppress(OSError):
        if log_file.stat().st_size > MAX_LOG_BYTES:
            log_file.replace(log_file.with_name(f"{log_file.name}.1"))
    return not log_file.exists()


def _do_nothing() -> None:
    """Do nothing: the default of every hook."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    healthy: Callable[[], bool]
    """Whether the child has started."""
    answers: Callable[[], bool] | None = None
    """Whether the child, which has started, still answers; None: the same as `healthy`."""
    cwd: Path | None = Path("/")
    popen: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments for subprocess."""
    prepare: Callable[[], object] = _do_nothing
    """Runs before every start."""
    awaken: Callable[[], object] = _do_nothing
    """Runs before each health check until the child is healthy."""
    real_pid: Callable[[int], int] = int
    """Maps the pid that we started to the server's own pid; they differ if the server runs under a wrapper."""
    own_logs: tuple[Path, ...] = ()
    """More logs, which the child itself opens, and opens again after SIGHUP."""
    stop_signal: signal.Signals = signal.SIGTERM
    stop_within: float = 10.0
    start_within: float = 45.0


class ManagedProcess:
    """Owns one child's process from its first start until the stack stops."""

    def __init__(self, child: ChildSpec, paths: StackPaths, *, on_change: Callable[[], object] = _do_nothing) -> None:
        self.child = child
        self.pid: int | None = None
        """The server's own pid; its last pid while it is down; None until it has been healthy for the first time."""
        self._paths = paths
        self._on_change = on_change
        self._is_reported = True
        self._process: asyncio.subprocess.Process | None = None
        self._exit: asyncio.Task[int] | None = None
        """Ends with the process. All checks share it, because asyncio keeps a waiter for each call of the process's `wait` until the process ends."""
        self._identity: ProcessIdentity | None = None

    async def start(self) -> None:
        """Start the child and return once it is healthy. Raises ChildFailed; then no process of the child is left."""
        child, run, log_file = self.child, self._paths.run, self._paths.log(self.child.name)
        try:
            await asyncio.to_thread(child.prepare)
            with log_file.open("ab") as output:
                self._process = await asyncio.create_subprocess_exec(
                    *child.argv,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=dict(child.env),
                    cwd=child.cwd,
                    start_new_session=True,
                    **child.popen,
                )
            self._exit = asyncio.create_task(self._process.wait())
            if identity := identity_of(self._process.pid):
                write_pidfile(run, child.name, identity)
            await self._wait_until_healthy(log_file)
            self._identity = identity_of(child.real_pid(self._process.pid))
            if self._identity is None:
                raise ChildFailed(child.name, "ended right after it started", log_file)
            self.pid = self._identity.pid
            write_pidfile(run, child.name, self._identity)
        except BaseException:
            await self._kill()
            raise

    async def keep_running(self) -> None:
        """Restart the child whenever it dies or hangs, until cancelled."""
        while True:
            reason = await self._wait_until_down()
            log.warning("child is down, starting it again", child=self.child.name, reason=reason)
            await self._kill()
            pause, is_up = 0.1, False
            while not is_up:
                try:
                    await self.start()
                    is_up = True
                except Exception as error:  # noqa: BLE001 - the stack retries after every failure of a start
                    log.warning("child did not start", child=self.child.name, error=str(error))
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, MAX_RETRY_INTERVAL_S)
            log.info("child is up again", child=self.child.name, pid=self.pid)
            self._report_change()

    async def stop(self) -> None:
        """Ask the child to end, kill it after its time limit, and remove its pidfile."""
        if self._process is not None and self._process.returncode is None:
            self._signal(self.child.stop_signal)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), self.child.stop_within)
        await self._kill()
        remove_pidfile(self._paths.run, self.child.name)

    async def _wait_until_healthy(self, log_file: Path) -> None:
        end = time.monotonic() + self.child.start_within
        while True:
            await asyncio.to_thread(self.child.awaken)
            if await asyncio.to_thread(self.child.healthy):
                return
            if await self._has_exited(within=0.05):
                raise ChildFailed(self.child.name, "ended while it was starting", log_file)
            if time.monotonic() > end:
                raise ChildFailed(self.child.name, f"did not become healthy within {self.child.start_within:.0f} s", log_file)

    async def _has_exited(self, *, within: float) -> bool:
        assert self._exit is not None
        done, _ = await asyncio.wait({self._exit}, timeout=within)
        return bool(done)

    async def _wait_until_down(self) -> str:
        answers, healthy_at = self.child.answers or self.child.healthy, time.monotonic()
        while not await self._has_exited(within=HEALTH_CHECK_INTERVAL_S):
            await asyncio.to_thread(rotate_log, self._paths.log(self.child.name))
            for log_file in self.child.own_logs:
                if await asyncio.to_thread(move_log, log_file):
                    self._signal(signal.SIGHUP)
            if not self._is_reported:
                self._report_change()
            if await asyncio.to_thread(answers):
                healthy_at = time.monotonic()
            elif time.monotonic() - healthy_at > HUNG_AFTER_S:
                return "hung"
        return "exited"

    def _report_change(self) -> None:
        """Report the new pid. If the disk is full, the child is still kept running, and the report is repeated later."""
        try:
            self._on_change()
            self._is_reported = True
        except OSError as error:
            if self._is_reported:
                log.warning("the new pid cannot be published yet", child=self.child.name, error=str(error))
            self._is_reported = False

    async def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._signal(signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        self._identity = None

    def _signal(self, number: signal.Signals) -> None:
        """Signal the server itself, or the process that we started while the server's own pid is unknown."""
        assert self._process is not None
        if self._identity is not None:
            self._identity.send(number)
        else:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)
