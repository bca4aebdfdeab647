"""However a job's processes end, or try not to, none is left, and the worker learns the exit code."""

import asyncio
import contextlib
import errno
import itertools
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from activities.delivery.delivery import Delivered
from activities.process import no_sandbox, process_tree
from activities.process.job_command import drop_rights_command
from activities.process.process import JobProcess, StartFailed
from activities.process.sandbox import Isolation, Sandbox, SandboxMissing
from activities.process.uid_pool import lend_uid
from justenough.adapters.configuration.settings import Settings
from justenough.domain.core.secret import Secret
from tests.activities.process.job_process import Runner, is_alive, is_job_uid, is_root, until
from tests.support.child_process import run_child

REPOSITORY = Path(__file__).resolve().parents[3]

DAEMON = """
import os, signal, subprocess, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.closerange(0, 100)
        os.execvp('sleep', ['sleep', sys.argv[1]])
    os._exit(0)
os.wait()
"""


@pytest.fixture
def uid(run: Runner) -> int:
    return run.settings.job_uid_base + 3000 if is_root() else os.geteuid()


async def start_process(run: Runner, *argv: str, uid: int, marker: str) -> JobProcess:
    process = await run.start(*argv, uid=uid)
    os.set_blocking(process.output, False)
    await until(lambda: is_alive(f"sleep\0{marker}"))
    return process


@pytest.mark.parametrize(
    "script, code",
    [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -TERM $$", 143),
        ("kill -KILL $$", 137),
        ("kill -SEGV $$", 139),
    ],
)
async def test_exit_codes_are_those_of_a_shell(run: Runner, script: str, code: int) -> None:
    assert (await run("sh", "-c", script)).code == code


async def test_a_missing_command_exits_with_127_and_a_message(run: Runner) -> None:
    ran = await run("no-such-program", "--flag")
    assert ran.code == 127
    assert "no-such-program: not found" in ran.log


async def test_a_sandbox_that_cannot_be_created_exits_with_126_and_the_reason(run: Runner, home: Path) -> None:
    ran = await run("true", workdir=home / "gone")
    assert ran.code == 126
    assert "Can't find source path" in ran.log


async def test_a_daemon_that_ignores_signals_ends_with_the_jobs_first_process(run: Runner) -> None:
    started_at = time.monotonic()
    assert (await run.python(DAEMON + "print('left')", "31415.25")).log == "left\n"
    assert not is_alive("sleep\x0031415.25")
    assert time.monotonic() - started_at < 120


async def test_a_child_that_keeps_the_output_open_does_not_delay_the_end_of_the_job(run: Runner) -> None:
    ran = await run("sh", "-c", "sleep 31415.5 & echo said; exit 3")
    assert (ran.code, ran.log) == (3, "said\n")
    assert not is_alive("sleep\x0031415.5")


async def test_a_job_that_closes_its_output_runs_on(run: Runner) -> None:
    assert (await run("sh", "-c", "exec >&- 2>&-; sleep 0.1; exit 4")).code == 4


async def test_finish_lets_a_job_that_handles_sigterm_end_itself(run: Runner, uid: int) -> None:
    script = "trap 'kill $!; exit 5' TERM; sleep 31416.25 & wait"
    process = await start_process(run, "sh", "-c", script, uid=uid, marker="31416.25")
    assert await process.finish(30) == 5
    os.close(process.output)


async def test_finish_signals_every_process_of_the_job(run: Runner, uid: int) -> None:
    script = "sh -c 'trap \"exit 0\" TERM; sleep 31416.5 & wait'; exit 6"
    process = await start_process(run, "sh", "-c", f"trap : TERM; {script}", uid=uid, marker="31416.5")
    assert await process.finish(30) == 6
    os.close(process.output)


async def test_finish_signals_no_process_that_the_worker_cannot_look_at(run: Runner, uid: int) -> None:
    hide = "import ctypes; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0); print('hidden', flush=True); input()"
    with run_child([sys.executable, "-c", hide], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        assert other.stdout.readline() == "hidden\n"
        process = await start_process(run, "sh", "-c", "exec sleep 31429.25", uid=uid, marker="31429.25")
        assert await process.finish(30) == 143
        other.communicate("\n")
        assert other.returncode == 0
    os.close(process.output)


def test_a_process_that_has_the_pid_of_one_that_has_just_ended_is_not_signalled() -> None:
    with run_child(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        answers = iter((True, False))
        assert process_tree.signal_all(lambda pid: pid == other.pid and next(answers), signal.SIGKILL) == [other.pid]
        assert other.communicate("alive")[0] == "alive"
    assert next(answers, None) is None, "it was looked at twice"


async def test_finish_kills_after_its_grace(run: Runner, uid: int) -> None:
    process = await start_process(run, "sh", "-c", "trap '' TERM; sleep 31417.25 & wait; sleep 31417.5", uid=uid, marker="31417.25")
    assert await process.finish(0.2) == 137
    assert not is_alive("31417")
    os.close(process.output)


async def test_kill_ends_a_tree_that_forks_stops_and_hides(run: Runner, uid: int) -> None:
    script = f"{DAEMON}\nsubprocess.Popen(['sleep', '31418.5'], start_new_session=True)\nos.kill(os.getpid(), signal.SIGSTOP)"
    process = await run.start("python", "-c", script, "31418.25", uid=uid)
    await until(lambda: is_alive("sleep\x0031418.25") and is_alive("sleep\x0031418.5"))
    assert await process.kill() == 137
    assert not is_alive("sleep\x0031418")
    assert process.survivors == ()
    assert await process.kill() == 137
    os.close(process.output)


async def test_kill_ends_a_fork_bomb(run: Runner, uid: int) -> None:
    bomb = "import os, sys, time\nfor _ in range(200):\n  if os.fork() == 0: os.execvp('sleep', ['sleep', '31419.25'])\ntime.sleep(100)"
    process = await start_process(run, "python", "-c", bomb, uid=uid, marker="31419.25")
    await process.kill()
    assert not is_alive("31419.25")
    os.close(process.output)


async def test_cancelling_the_wait_ends_nothing(run: Runner, uid: int) -> None:
    process = await start_process(run, "sleep", "31420.25", uid=uid, marker="31420.25")
    waiting = asyncio.create_task(process.wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert is_alive("sleep\x0031420.25")
    assert await process.kill() == 137
    os.close(process.output)


async def test_a_kill_that_meets_the_end_of_a_job_keeps_its_exit_code(run: Runner, uid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio waits for the process only after the kill, as on a machine that is too busy to do so at once.

    Before Python 3.12 a thread waits; since then the loop itself does, as soon as the process has ended.
    """
    was_killed, wait = threading.Event(), os.waitpid

    def wait_late(pid: int, options: int) -> tuple[int, int]:
        if threading.current_thread() is not threading.main_thread():
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            was_killed.wait()
        return wait(pid, options)

    monkeypatch.setattr(os, "waitpid", wait_late)
    process = await run.start("sh", "-c", "exit 7", uid=uid)
    await until(lambda: process_tree.is_dead(process._outer.pid) or not Path(f"/proc/{process._outer.pid}").exists())
    killing = asyncio.create_task(process.kill())
    await asyncio.sleep(0)
    was_killed.set()
    assert await killing == 7
    os.close(process.output)


@pytest.mark.parametrize("last", [0, 1])
async def test_a_job_that_cannot_be_watched_for_want_of_file_handles_is_killed(
    last: int, run: Runner, uid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only `last` pidfds can be opened: none, or only bubblewrap's."""
    opened, open_pidfd = itertools.count(), os.pidfd_open

    def open_few(pid: int, flags: int = 0) -> int:
        # Since Python 3.12, asyncio opens some itself.
        if "asyncio" not in sys._getframe(1).f_code.co_filename and next(opened) >= last:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return open_pidfd(pid, flags)

    monkeypatch.setattr(os, "pidfd_open", open_few)
    with pytest.raises(StartFailed, match="Too many open files"):
        await run.start("sleep", f"31420.{last}5", uid=uid)
    await until(lambda: not is_alive(f"sleep\x0031420.{last}5"))


@pytest.mark.parametrize("with_sandbox", [False, True])
async def test_a_job_whose_bubblewrap_dies_while_the_job_is_about_to_be_watched_leaves_nothing(
    with_sandbox: bool, run: Runner, uid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bubblewrap alone, or the first process inside its sandbox, too."""
    open_pidfd, killed = os.pidfd_open, set[int]()

    def open_and_kill(pid: int, flags: int = 0) -> int:
        handle, parent = open_pidfd(pid, flags), process_tree.parent_of(pid)
        # Bubblewrap itself is a child of this process.
        if not killed and parent not in {os.getpid(), None}:
            assert parent is not None
            killed.add(parent)
            os.kill(parent, signal.SIGKILL)
            while process_tree.parent_of(pid) == parent:
                os.sched_yield()
            if with_sandbox:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                # The handle becomes readable once the process has ended.
                select.select([handle], [], [])
        return handle

    monkeypatch.setattr(os, "pidfd_open", open_and_kill)
    process = await run.start("sleep", "31427.25", uid=uid)
    assert killed == {process._outer.pid}
    assert await process.wait() == 137
    assert not is_alive("sleep\x0031427.25")
    assert process.survivors == ()
    os.close(process.output)


OUTLIVED = """
import asyncio, sys
from pathlib import Path
from activities.process.sandbox import Sandbox
from justenough.adapters.configuration.settings import Settings
from tests.activities.process.job_process import Runner
settings = Settings(home=Path(sys.argv[1]), job_uid_base=711_000)
async def main():
    process = await Runner(settings, Sandbox.probe(settings)).start('sh', '-c', 'setsid sleep 31421.25 & sleep 31421.5', uid=int(sys.argv[2]))
    await process.wait()
asyncio.run(main())
"""


async def test_the_jobs_of_a_worker_killed_with_sigkill_end_with_it(run: Runner, uid: int, home: Path) -> None:
    argv = [sys.executable, "-c", OUTLIVED, str(home), str(uid + 1 if is_root() else uid)]
    with run_child(argv, cwd=REPOSITORY) as worker:
        await until(lambda: is_alive("sleep\x0031421.25") and is_alive("sleep\x0031421.5"))
        worker.send_signal(signal.SIGKILL)
    await until(lambda: not is_alive("sleep\x0031421"))


async def test_without_a_sandbox_a_job_runs_as_a_job_user_in_a_folder_that_is_deleted(bare: Runner) -> None:
    assert bare.sandbox.isolation == "off"
    ran = await bare.python(
        "import json, os, resource; print(json.dumps([os.getuid(), resource.getrlimit(resource.RLIMIT_CORE), os.getcwd()]))"
    )
    uid, core, cwd = ran.json_output
    assert core == [0, 0]
    assert is_job_uid(bare.settings, uid)
    assert not Path(cwd).parent.exists()


async def test_without_a_sandbox_a_job_has_no_rights_and_can_gain_none_if_the_worker_is_root(bare: Runner) -> None:
    if is_root():
        names = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]
        ran = await bare("grep", "-E", f"^(NoNewPrivs|Groups|{'|'.join(names)}):", "/proc/self/status")
        assert ran.log.split() == ["Groups:", *(word for name in names for word in (f"{name}:", "0" * 16)), "NoNewPrivs:", "1"]


@pytest.mark.usefixtures("empty_memory")
async def test_without_a_sandbox_another_worker_that_starts_leaves_a_running_job_alone(bare: Runner, uid: int) -> None:
    process = await start_process(bare, "sh", "-c", "exec sleep 31428.25", uid=uid, marker="31428.25")
    # Anybody can create this link. It leads to a folder of the job's user that has no lock of its own.
    planted = no_sandbox.MEMORY_FOLDER / f"{no_sandbox.FOLDER_PREFIX}.j-dev-test.planted"
    planted.symlink_to(process._job_paths.home)
    try:
        assert no_sandbox.clear_leftovers() == ()
        assert is_alive("sleep\x0031428.25")
        assert Path(process._job_paths.home).parent.exists()
    finally:
        planted.unlink()
        await process.kill()
        os.close(process.output)


async def test_without_a_sandbox_delivered_files_are_private_and_deleted_at_the_end(bare: Runner) -> None:
    given = Delivered({}, {"pgpass": Secret("hunter22")}, {"PGPASSFILE": ("pgpass",)})
    look = "import json, os; p = os.environ['PGPASSFILE']; s = os.stat(p); print(json.dumps([p, oct(s.st_mode & 0o777), s.st_uid == os.getuid(), open(p).read()]))"
    path, *seen = (await bare.python(look, given=given)).json_output
    assert seen == ["0o600", True, "hunter22"]
    assert not Path(path).parent.exists()


async def test_without_a_sandbox_a_daemon_that_a_job_leaves_is_ended_too(bare: Runner) -> None:
    assert (await bare.python(DAEMON, "31422.25")).code == 0
    assert not is_alive("sleep\x0031422.25")


async def test_without_a_sandbox_a_child_that_forgot_its_variables_is_ended_too(bare: Runner) -> None:
    script = "env -i sleep 31430.25 & until grep -q sleep /proc/$!/comm; do :; done; exit 3"
    assert (await bare("sh", "-c", script)).code == 3
    assert not is_alive("sleep\x0031430.25")


RABBIT = """
import os, time
end = time.monotonic() + 120
if os.fork() == 0:
    os.setsid()
    os.fork()
    os.fork()
    # None of them lives long enough to be found and then signalled.
    while time.monotonic() < end:
        if os.fork():
            os._exit(0)
"""


async def test_without_a_sandbox_processes_that_fork_and_exit_again_and_again_are_ended_too(bare: Runner, uid: int) -> None:
    if is_root():
        # Dead processes count against their user's limit until init, which may be slow, has waited for all of them.
        process = await bare.start("python", "-c", RABBIT, uid=uid + 1)
        assert await process.wait() == 0
        os.set_blocking(process.output, False)
        # Processes that could not fork, because too many dead ones counted, have said so. Reading would block if somebody had the other end open.
        while os.read(process.output, 65_536):
            pass
        assert process.survivors == ()
        os.close(process.output)


async def test_a_jobs_processes_are_ended_although_the_program_that_kills_all_of_them_cannot_be_started_at_first(
    bare: Runner, uid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_root():
        commands = iter([("/no/such/program",)])
        monkeypatch.setattr(process_tree, "drop_rights_command", lambda of: next(commands, None) or drop_rights_command(of))
        process = await bare.start("python", "-c", DAEMON, "31424.25", uid=uid)
        assert await process.wait() == 0
        assert next(commands, None) is None, "it was tried"
        assert not is_alive("sleep\x0031424.25")
        assert process.survivors == ()
        os.close(process.output)


async def test_without_a_sandbox_kill_ends_the_tree(bare: Runner, uid: int) -> None:
    process = await start_process(bare, "sh", "-c", "trap '' TERM; setsid sleep 31423.25 & wait", uid=uid, marker="31423.25")
    assert await process.finish(0.2) == 137
    assert not is_alive("31423.25")
    os.close(process.output)


def test_each_reason_why_a_machine_has_no_sandbox_has_its_own_remedy(monkeypatch: pytest.MonkeyPatch, run: Runner, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxMissing, match=r"apt-get install bubblewrap.*JUSTENOUGH_SANDBOX=off"):
        Sandbox.probe(run.settings)
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    with pytest.raises(SandboxMissing, match=r"No permissions to create new namespace.*run the worker as root"):
        Sandbox.probe(run.settings)
    fake.write_text("#!/bin/sh\necho 4711\n")
    with pytest.raises(SandboxMissing, match=r"its user is '4711'.*run the worker as root"):
        Sandbox.probe(run.settings)
    monkeypatch.setattr("activities.process.sandbox.PROBE_TIMEOUT_S", 0.2)
    fake.write_text("#!/bin/sh\nexec /bin/sleep 600\n")
    with pytest.raises(SandboxMissing, match=r"bubblewrap does not run .*timed out.*run the worker as root"):
        Sandbox.probe(run.settings)


def test_a_worker_can_start_while_others_on_the_machine_end_their_jobs(settings: Settings) -> None:
    mine, stop = settings.model_copy(update={"job_uid_base": 745_000}), threading.Event()

    def end_again_and_again(uid: int) -> None:
        while not stop.is_set():
            process_tree.kill_user(uid)

    with ExitStack() as stack:
        if is_root():
            ending = threading.Thread(target=end_again_and_again, args=(stack.enter_context(lend_uid(mine)),))
            ending.start()
            stack.callback(ending.join)
        stack.callback(stop.set)
        assert [Sandbox.probe(mine).isolation for _ in range(5)] == [Isolation.BUBBLEWRAP if is_root() else Isolation.NAMESPACES] * 5


async def start_and_cancel(start: Coroutine[Any, Any, JobProcess], *, after: float) -> None:
    """Cancel a start after so many seconds; if it was faster, end the job."""
    starting = asyncio.create_task(start)
    await asyncio.sleep(after)
    starting.cancel()
    try:
        process = await starting
    except asyncio.CancelledError:
        return
    await process.kill()
    os.close(process.output)


async def test_a_start_that_is_cancelled_at_any_moment_leaves_nothing(run: Runner, uid: int) -> None:
    # Killed before it has made its sandbox, bubblewrap leaves an orphan that goes on to run the job.
    for moment in range(25):
        await start_and_cancel(run.start("sleep", "31424.25", uid=uid), after=moment * 0.001)
    # A process that one of them left behind would have run before this later one has ended.
    last = await run.start("true", uid=uid)
    assert await last.wait() == 0
    os.close(last.output)
    assert not is_alive("sleep\x0031424.25")


@contextmanager
def limited(which: int, soft: int) -> Iterator[None]:
    """Lower one of this process's own limits during a block."""
    before = resource.getrlimit(which)
    resource.setrlimit(which, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(which, before)


@pytest.fixture
def empty_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder for the folders of jobs without a sandbox that nobody else uses. It must be empty again in the end."""
    folder = tmp_path / "memory"
    folder.mkdir(mode=0o711)
    monkeypatch.setattr(no_sandbox, "MEMORY_FOLDER", folder)
    yield
    assert not any(folder.iterdir())


@pytest.mark.usefixtures("empty_memory")
async def test_a_start_without_enough_room_for_the_jobs_files_leaves_none_of_them(bare: Runner, uid: int, tmp_path: Path) -> None:
    workdir = tmp_path / "bundle"
    workdir.mkdir()
    for name in ("first", "second"):
        (workdir / name).write_bytes(bytes(2**20))
    with limited(resource.RLIMIT_FSIZE, 2**19), pytest.raises(StartFailed, match=r"could not be started: .*File too large"):
        await bare.start("true", uid=uid, workdir=workdir)


@pytest.mark.usefixtures("empty_memory")
async def test_a_start_without_a_sandbox_that_is_cancelled_at_any_moment_leaves_no_files(bare: Runner, uid: int) -> None:
    for moment in range(10):
        await start_and_cancel(bare.start("sleep", "31426.25", uid=uid, workdir=REPOSITORY / "activities"), after=moment * 0.002)


@pytest.mark.usefixtures("empty_memory")
def test_files_of_a_worker_that_died_while_it_copied_them_are_removed() -> None:
    code = (
        "import os; from pathlib import Path; from activities.process import no_sandbox; no_sandbox.MEMORY_FOLDER = Path(os.environ['AT']);"
        "(no_sandbox.make_locked_folder('j-dev-test') / 'copied').touch(); os.kill(os.getpid(), 9)"
    )
    with run_child([sys.executable, "-c", code], cwd=REPOSITORY, env={**os.environ, "AT": str(no_sandbox.MEMORY_FOLDER)}) as worker:
        assert worker.wait(60) == -signal.SIGKILL
    assert no_sandbox.clear_leftovers() == ("j-dev-test",)


@pytest.mark.usefixtures("empty_memory")
def test_no_process_of_root_is_killed_for_a_folder_that_no_job_got() -> None:
    no_sandbox.make_locked_folder("j-dev-test")
    os.close(no_sandbox._folder_locks.popitem()[1])
    with run_child(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "JUSTENOUGH_JOB_ID": "j-dev-test"}) as other:
        assert no_sandbox.clear_leftovers() == ("j-dev-test",)
        # Of another user, a folder that belongs to it is a job's.
        assert other.communicate(b"alive")[0] == (b"alive" if is_root() else b"")


async def test_a_start_for_which_the_file_handles_do_not_suffice_leaves_none_open(run: Runner, uid: int) -> None:
    # Finding the interpreter needs three.
    for free in range(3, 9):
        before = psutil.Process().num_fds()
        others: list[int] = []
        with limited(resource.RLIMIT_NOFILE, 256):
            with contextlib.suppress(OSError):
                while True:
                    others.append(os.dup(0))
            for _ in range(free):
                os.close(others.pop())
            with pytest.raises(StartFailed, match="Too many open files"):
                await run.start("true", uid=uid)
        for each in others:
            os.close(each)
        assert psutil.Process().num_fds() == before


async def test_a_job_whose_sandbox_dies_before_its_outer_process_is_reported_as_killed(
    run: Runner, uid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = await start_process(run, "sleep", "31425.25", uid=uid, marker="31425.25")
    # As on a busy machine, bubblewrap has noticed the end long before it is killed itself.
    monkeypatch.setattr(type(process._outer), "kill", lambda _: None)
    assert await process.kill() == 137
    os.close(process.output)
