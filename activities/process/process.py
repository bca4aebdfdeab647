"""A job's processes, from the start until none is left. Knows no credentials. log_capture.py reads their output from a pipe."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Self

import structlog

from activities.process import no_sandbox, process_tree, resource_monitor
from activities.process.job_command import CLEAN_ENV, JobLaunch, JobPaths
from activities.process.log_capture import open_pipe_reader, readable
from activities.process.process_tree import Belongs
from activities.process.sandbox import SANDBOX_PATHS, Isolation, Sandbox
from activities.support.async_tools import run_to_completion
from justenough.domain.core.errors import RetryLater

KILL_TIMEOUT_S = 10.0
"""Seconds to wait until killed processes are gone; one that is stuck in the kernel (a dead disk) may stay."""
POLL_INTERVAL_S = 0.01
KILLED_EXIT_CODE = 128 + signal.SIGKILL
CANNOT_EXECUTE_EXIT_CODE = 126
"""A job's exit code if its sandbox could not be created, the same as a shell's; the job's log has the reason."""

log = structlog.get_logger(__name__)


class StartFailed(RetryLater):
    """The process could not be started: the machine has no memory, process or file handle left."""


@dataclass(slots=True, eq=False)
class JobProcess:
    """One job's process tree. When its first process ends, the others are killed; `wait` returns after the last one."""

    sandbox: Sandbox
    launch: JobLaunch
    output: int
    """The read end of stdout and stderr combined. The reader closes it."""
    _outer: asyncio.subprocess.Process
    """bubblewrap, or the job's first process if there is no sandbox."""
    _job_paths: JobPaths
    _outer_fd: int | None = None
    """pidfd of `_outer`. None before it is opened, after `_outer` has ended, and on systems without pidfds."""
    _init: int | None = None
    """pidfd of the first process in the job's pid namespace. Once that has ended, all others in the namespace have too."""
    _empty: bool = False
    """Whether the namespace's first process had ended before its pidfd was opened; then the namespace is empty."""
    _belongs: Belongs = process_tree.NONE
    _killed: bool = False
    survivors: tuple[int, ...] = ()
    """Pids that were killed and did not end in time."""
    limit_exceeded: str | None = None
    """The limit that it was killed for, with the measured value."""
    _first: int | None = None
    """Pid of the first process in the job's pid namespace."""
    _reports: tuple[asyncio.StreamReader, asyncio.ReadTransport] = field(init=False)
    """The pipe on which bubblewrap reports what it started and its exit code."""
    _ended: asyncio.Task[int] = field(init=False)
    _watched: asyncio.Task[None] = field(init=False)

    @classmethod
    async def start(cls, sandbox: Sandbox, launch: JobLaunch) -> Self:
        """Start a job. Raises StartFailed. Call it on the main thread's loop: a sandbox ends with the thread that created it."""
        starting = asyncio.create_task(cls._spawn(sandbox, launch))
        try:
            # Until bubblewrap has created its sandbox, killing bubblewrap leaves an orphan that goes on to run the job. So wait, even if
            # cancelled, until bubblewrap has reported which process to kill.
            return await run_to_completion(starting)
        except OSError as error:
            raise StartFailed(f"the process could not be started: {error.strerror}") from error
        except asyncio.CancelledError:
            process = starting.result()
            await run_to_completion(process.kill())
            os.close(process.output)
            raise

    async def wait(self) -> int:
        """Return the exit code (128 + n for signal n) once no process of the job is left. Cancelling `wait` does not end the job."""
        return await asyncio.shield(self._ended)

    async def terminate(self) -> None:
        """Ask every process of the job to end (SIGTERM)."""
        await asyncio.to_thread(process_tree.signal_all, self._belongs, signal.SIGTERM)
        if not process_tree.PROC.is_dir():
            self._signal_group(signal.SIGTERM)

    async def kill(self) -> int:
        """Kill the whole tree (SIGKILL) and return the exit code once none is left."""
        self._kill_now()
        return await self.wait()

    async def finish(self, grace: float) -> int:
        """Terminate, kill after `grace` seconds, and return the exit code."""
        await self.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                return await self.wait()
        return await self.kill()

    @classmethod
    async def _spawn(cls, sandbox: Sandbox, launch: JobLaunch) -> Self:
        with ExitStack() as undo:
            job_paths = await asyncio.to_thread(no_sandbox.create_folders, launch) if sandbox.isolation is Isolation.OFF else SANDBOX_PATHS
            undo.callback(no_sandbox.clear, job_paths)
            # Only the job's side stays open, so that the pipes end when the job does.
            with ExitStack() as our_ends, ExitStack() as until_started:
                output, into = os.pipe()
                undo.callback(os.close, output)
                our_ends.callback(os.close, into)
                status, report = os.pipe()
                until_started.callback(os.close, status)
                our_ends.callback(os.close, report)
                with sandbox.prepare(launch, job_paths, status=report) as ready:
                    outer = await asyncio.create_subprocess_exec(
                        *ready.argv,
                        stdin=ready.stdin,
                        stdout=into,
                        stderr=into,
                        pass_fds=ready.pass_fds,
                        env=CLEAN_ENV,
                        cwd=ready.cwd,
                        start_new_session=True,
                    )
                until_started.pop_all()
            process = cls(sandbox, launch, output, outer, job_paths)
            try:
                await process._identify(status)
            except BaseException:
                # Nobody will wait for this process, so end it here.
                process._kill_unidentified()
                process._close_pidfds()
                raise
            undo.pop_all()
        return process

    async def _identify(self, status: int) -> None:
        """Determine how to recognize the job's processes, and start to watch them."""
        self._reports = await open_pipe_reader(status)
        report = json.loads(await self._reports[0].readline() or "{}")
        self._first, namespace = report.get("child-pid"), report.get("pid-namespace")
        self._outer_fd = _open_pidfd_of_child(self._outer.pid)
        if self._first is not None:
            try:
                self._init = os.pidfd_open(self._first)
            except ProcessLookupError:
                self._empty = True
        if (
            self._first is not None
            and self._init is not None
            and process_tree.parent_of(self._first) != self._outer.pid
            and not process_tree.is_in_namespace(self._first, namespace)
        ):
            # Its parent has ended, and it has ended too, or another process has its pid already.
            os.close(self._init)
            self._init, self._empty = None, process_tree.is_dead(self._first)
        if self._has_own_user:
            self._belongs = process_tree.of_uid(self.launch.uid)
        elif self.sandbox.isolation is Isolation.OFF:
            self._belongs = process_tree.of_session(self._outer.pid, f"JUSTENOUGH_JOB_ID={self.launch.job}")
        elif namespace is not None:
            self._belongs = process_tree.of_namespace(namespace)
        self._watched = asyncio.create_task(self._watch(), name=f"limits of {self.launch.job}")
        self._ended = asyncio.create_task(self._end(), name=f"end of {self.launch.job}")

    @property
    def _has_own_user(self) -> bool:
        return self.sandbox.isolation is not Isolation.NAMESPACES and os.geteuid() == 0

    def _kill_now(self) -> None:
        self._killed = True
        if self._init is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._init, signal.SIGKILL)
        self._kill_outer()

    def _kill_unidentified(self) -> None:
        """Kill the processes without pidfds. The pid of the first one cannot be reused before its parent has waited for it."""
        with contextlib.suppress(ProcessLookupError):
            if self._first is not None and process_tree.parent_of(self._first) == self._outer.pid:
                os.kill(self._first, signal.SIGKILL)
        self._kill_outer()

    def _kill_outer(self) -> None:
        """Kill `_outer` by its pidfd. `Process.kill` may reap a process that has just ended, and asyncio then reports 255 as its exit code."""
        with contextlib.suppress(ProcessLookupError):
            if self._outer_fd is not None:
                signal.pidfd_send_signal(self._outer_fd, signal.SIGKILL)
            else:
                self._outer.kill()

    def _close_pidfds(self) -> None:
        for pidfd in (self._init, self._outer_fd):
            if pidfd is not None:
                os.close(pidfd)
        self._init = self._outer_fd = None

    async def _watch(self) -> None:
        """Kill the whole tree once it exceeds its limits."""
        first, limits = self._first or self._outer.pid, self.launch.limits
        why = await resource_monitor.wait_for_excess(
            partial(resource_monitor.measure_use, first, limits, sandboxed=self._first is not None), limits
        )
        # The first process's pid cannot be reused until somebody has waited for that process.
        if self._outer.returncode is None:
            self.limit_exceeded = why
            self._kill_now()

    async def _end(self) -> int:
        code = await self._outer.wait()
        self._watched.cancel()
        try:
            await self._clear()
            if code < 0:
                code = 128 - code
            elif self.sandbox.isolation is not Isolation.OFF and b"exit-code" not in await self._reports[0].read():
                # bubblewrap may see its sandbox die before it is killed itself, and then ends with a code of its own.
                code = KILLED_EXIT_CODE if self._killed else CANNOT_EXECUTE_EXIT_CODE
        finally:
            self._reports[1].close()
            self._close_pidfds()
            # The shared threads may all be waiting for Vault; that must not delay the end of a sandboxed job.
            if self._job_paths is not SANDBOX_PATHS:
                await asyncio.to_thread(no_sandbox.clear, self._job_paths)
        return code

    async def _clear(self) -> None:
        """Kill every process that the job's first process left behind."""
        try:
            async with asyncio.timeout(KILL_TIMEOUT_S):
                if self._init is not None:
                    with contextlib.suppress(ProcessLookupError):
                        signal.pidfd_send_signal(self._init, signal.SIGKILL)
                    # The kernel ends a namespace's first process only after all its other processes.
                    async with readable(self._init) as gone:
                        await gone.wait()
                elif not self._empty:
                    if not process_tree.PROC.is_dir():
                        self._signal_group(signal.SIGKILL)
                    while await asyncio.to_thread(self._kill_all):  # noqa: ASYNC110 - nothing reports their end
                        await asyncio.sleep(POLL_INTERVAL_S)
        except TimeoutError:
            self.survivors = tuple(process_tree.find(self._belongs))
            log.error("processes of a job cannot be killed", job=self.launch.job, pids=self.survivors)  # noqa: TRY400 - the timeout says nothing

    def _kill_all(self) -> bool:
        """Kill every process of the job; return whether some may be left. Blocks."""
        # One by one, too, because the other way may fail.
        is_done = not self._has_own_user or process_tree.kill_user(self.launch.uid)
        return bool(process_tree.signal_all(self._belongs, signal.SIGKILL)) or not is_done

    def _signal_group(self, number: signal.Signals) -> None:
        """Signal the first process's group: without /proc no other processes can be found."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._outer.pid, number)


def _open_pidfd_of_child(pid: int) -> int | None:
    """Return a pidfd of a child of this process, or None if it has ended or the system has no pidfds."""
    if not hasattr(os, "pidfd_open"):
        return None
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        if process_tree.parent_of(pid) == os.getpid():
            return pidfd
        # The child has ended, and another process has its pid already.
        os.close(pidfd)
    return None
