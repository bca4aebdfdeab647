"""Worker processes that begin as copies of one that has imported everything: importing takes a worker longer than everything else that it does
before it polls, and these tests start dozens.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from justenough.adapters.runtime import gc_tuning

with gc_tuning.pause():
    from tests.chaos import faulty_worker
    from worker.main import main

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.chaos.forked_workers"])


class ForkedWorker:
    """One such process, with the interface of subprocess.Popen."""

    def __init__(self, environment: Mapping[str, str], log: Path, *, changed: bool) -> None:
        """`changed`: whether to run the tests' faulty worker instead of the product's."""
        # As a daemon, the process is ended and not waited for if the tests' own process ends first.
        self._process = CONTEXT.Process(target=_run, args=(dict(environment), log, changed), daemon=True)
        self._process.start()
        assert self._process.pid
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, or the negative signal number; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return the exit code; None while it runs."""
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Wait for the end and return the exit code. Fails after so many seconds."""
        self._process.join(timeout)
        assert self.returncode is not None, f"it still runs after {timeout:.0f} s"
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal unless the process has ended."""
        # The process may end, and be reaped by its parent, between the check and the signal.
        with suppress(ProcessLookupError):
            if self.poll() is None:
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the process, like a crash."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask the process to end."""
        self.send_signal(signal.SIGTERM)


def _run(environment: Mapping[str, str], log: Path, changed: bool) -> None:
    """Run a worker as if started with this environment."""
    _end_with_tests()
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_APPEND)
    for end in (1, 2):
        os.dup2(output, end)
    os.close(output)
    os.environ.clear()
    os.environ.update(environment)
    if changed:
        faulty_worker.run()
    else:
        main()


def _end_with_tests() -> None:
    """Let the kernel kill this process when the tests' process ends, even if that is killed and this one is suspended (SIGSTOP)."""
    parent = multiprocessing.parent_process()
    assert parent
    # The sentinel is a pipe that the tests' process alone holds open; its end is a signal here.
    pipe = int(parent.sentinel)
    fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
