"""What a job uses of its machine is bounded: each process by the kernel, all together by the worker, and folders by their size."""

import asyncio
import errno
import json
import os
import platform
import resource
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest

from activities.process.resource_monitor import POLL_INTERVAL_S, measure_use
from justenough.adapters.configuration.settings import Settings
from justenough.domain.jobs.spec import ResourceLimits
from tests.activities.process.job_process import Runner, is_alive, is_root, until
from tests.support.child_process import run_child

MEBI = 2**20
SMALL = ResourceLimits(cpu=60, memory=64 * MEBI, processes=32, file_size=8 * MEBI, open_files=64)
WIDER = SMALL.model_copy(update={"memory": 96 * MEBI})

LOOK = """
import json, resource
names = ('CORE', 'CPU', 'DATA', 'FSIZE', 'NOFILE', 'NPROC')
print(json.dumps({name: resource.getrlimit(getattr(resource, 'RLIMIT_' + name)) for name in names}))
"""
HOLD = """
import sys, time
held = b'x' * (int(sys.argv[1]) * 2**20)
print('held', flush=True)
time.sleep(float(sys.argv[2]))
"""
HOLD_TOGETHER = """
import os, sys, time
for _ in range(int(sys.argv[1])):
    if os.fork() == 0:
        held = b'x' * (int(sys.argv[2]) * 2**20)
        time.sleep(60)
        os._exit(0)
os.wait()
"""
SHARE = """
import os, sys, time
held = b'x' * (40 * 2**20)
children = []
for _ in range(6):
    if (pid := os.fork()) == 0:
        sum(held[::4096])
        time.sleep(float(sys.argv[1]))
        os._exit(0)
    children.append(pid)
for pid in children:
    os.waitpid(pid, 0)
print('shared')
"""
HIDE = """
import ctypes, threading, time
def hold():
    held = b'x' * (80 * 2**20)
    time.sleep(60)
threading.Thread(target=hold).start()
ctypes.CDLL(None).pthread_exit(None)
"""
SPAWN = """
import subprocess, sys, time
held = b'x' * (45 * 2**20)
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    subprocess.run(['true'])
print('spawned')
"""
FILL = """
import json, sys
def fill(folder):
    written = 0
    try:
        for number in range(1000):
            with open(f'{folder}/{number}', 'wb', buffering=0) as file:
                for _ in range(8):
                    written += file.write(bytes(2**19))
    except OSError as error:
        return [written >> 20, error.errno]
print(json.dumps([fill(folder) for folder in sys.argv[1:]]))
"""
BURN_TOGETHER = """
import os, time
for _ in range(3):
    if os.fork() == 0:
        while True:
            pass
os.wait()
"""
BURN_IN_TURN = """
import os, time
while True:
    if os.fork() == 0:
        began = time.process_time()
        while time.process_time() - began < 0.1:
            pass
        os._exit(0)
    os.wait()
"""
FORK = """
import os, time
made = 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        made += 1
except BlockingIOError:
    print(made)
"""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Use user ids of their own: the kernel counts processes by user, and these tests start many."""
    return settings.model_copy(update={"job_uid_base": 716_000})


def own_uid(run: Runner, number: int) -> int:
    """The id of a user that no other test's job has."""
    return run.settings.job_uid_base + number if is_root() else os.geteuid()


async def test_each_process_is_limited_by_the_kernel_and_cannot_lift_it(run: Runner) -> None:
    told = (await run.python(LOOK, limits=SMALL)).json_output
    files = min(64, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    assert told == {
        "CORE": [0, 0],
        "CPU": [62, 64],
        "DATA": [128 * MEBI] * 2,
        "FSIZE": [8 * MEBI] * 2,
        "NOFILE": [files] * 2,
        "NPROC": [32, 32] if is_root() else told["NPROC"],
    }
    lift = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2**40, 2**40))"
    assert "not allowed to raise maximum limit" in (await run.python(lift, limits=SMALL)).log


async def test_without_a_sandbox_each_process_is_limited_all_the_same(bare: Runner) -> None:
    told = (await bare.python(LOOK, limits=SMALL)).json_output
    assert (told["CPU"], told["DATA"], told["FSIZE"]) == ([62, 64], [128 * MEBI] * 2, [8 * MEBI] * 2)
    assert (await bare.python(HOLD, "80", "60", limits=SMALL)).exceeded_limit is not None


async def test_the_kernel_ends_jobs_first_if_memory_runs_out(run: Runner, bare: Runner) -> None:
    for runner in (run, bare):
        assert (await runner("cat", "/proc/self/oom_score_adj")).log == "1000\n"


async def test_more_memory_than_one_process_may_map_is_refused_at_once(run: Runner) -> None:
    ran = await run.python(HOLD, "200", "60", limits=SMALL)
    assert (ran.code, ran.exceeded_limit) == (1, None)
    assert "MemoryError" in ran.log


async def test_a_process_that_holds_too_much_memory_ends_with_the_job_and_the_reason(run: Runner) -> None:
    ran = await run.python(HOLD, "80", "60", limits=SMALL)
    assert ran.code == 137
    assert ran.exceeded_limit
    assert ran.exceeded_limit.startswith("limits.memory: it used ")
    assert ran.exceeded_limit.endswith(" MiB, more than 64MiB")


async def test_memory_counts_over_all_processes_of_a_job(run: Runner) -> None:
    ran = await run.python(HOLD_TOGETHER, "6", "20", limits=SMALL)
    assert ran.code == 137
    assert str(ran.exceeded_limit).startswith("limits.memory: ")


async def test_memory_that_processes_share_counts_once(run: Runner) -> None:
    # Seven processes that each see 40 MiB, which are the same ones.
    ran = await run.python(SHARE, str(6 * POLL_INTERVAL_S), limits=SMALL.model_copy(update={"memory": 128 * MEBI}))
    assert (ran.code, ran.log, ran.exceeded_limit) == (0, "shared\n", None)


async def test_memory_of_a_process_whose_first_thread_has_ended_counts(run: Runner) -> None:
    ran = await run.python(HIDE, limits=SMALL)
    assert ran.code == 137
    assert str(ran.exceeded_limit).startswith("limits.memory: ")


async def test_a_child_that_still_shares_its_parents_memory_counts_once(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("activities.process.resource_monitor.POLL_INTERVAL_S", 0.002)
    ran = await run.python(SPAWN, "1", limits=SMALL)
    assert (ran.code, ran.log, ran.exceeded_limit) == (0, "spawned\n", None)


async def test_each_in_memory_folder_is_bounded_and_its_content_counts_as_memory(run: Runner) -> None:
    told = (await run.python(FILL, "/tmp", limits=WIDER)).json_output
    assert told == [[48, 28]]
    told = (await run.python(FILL, "/dev/shm", "/home/job", limits=WIDER)).json_output
    assert told == [[24, 28], [24, 28]]
    assert (await run.python(FILL, "/run/justenough", limits=WIDER)).json_output == [[6, 28]]
    ran = await run.python(FILL + "\nimport time; held = b'x' * (30 * 2**20); time.sleep(60)", "/tmp", "/dev/shm", limits=SMALL)
    assert ran.code == 137
    assert str(ran.exceeded_limit).startswith("limits.memory: ")


async def test_empty_files_in_memory_count_too(run: Runner) -> None:
    ran = await run.python(
        "for number in range(10**6): open(f'/tmp/{number}', 'w').close()", limits=SMALL.model_copy(update={"memory": 32 * MEBI})
    )
    assert ran.code == 137
    assert str(ran.exceeded_limit).startswith("limits.memory: ")


async def test_a_job_cannot_get_memory_that_no_limit_counts(run: Runner) -> None:
    assert "Operation not permitted" in (await run("unshare", "-Urm", "mount", "-t", "tmpfs", "none", "/tmp")).log
    assert "Function not implemented" in (await run.python("import os; os.memfd_create('hidden')")).log
    assert "Function not implemented" in (await run("ipcmk", "-M", "4096")).log
    # On the host this works.
    os.close(os.memfd_create("control"))
    assert "Read-only file system" in (await run("touch", "/dev/x")).log


ASK_THE_KERNEL = """
import ctypes, errno, json, platform, socket
numbers = {"x86_64": (250, 248, 425, 323, 298, 321), "aarch64": (219, 217, 425, 282, 241, 280)}[platform.machine()]
libc = ctypes.CDLL(None, use_errno=True)
told = {}
for name, number in zip(("keyctl", "add_key", "io_uring_setup", "userfaultfd", "perf_event_open", "bpf"), numbers):
    ctypes.set_errno(0)
    libc.syscall(number, 0, -4, 1, 0, 0)
    told[name] = ctypes.get_errno()
for name, family in (("vsock", 40), ("alg", 38), ("packet", 17), ("unix", 1), ("inet", 2), ("inet6", 10), ("netlink", 16)):
    try:
        socket.socket(family, socket.SOCK_RAW if family == 17 else socket.SOCK_SEQPACKET if family == 38 else socket.SOCK_DGRAM).close()
        told[name] = 0
    except OSError as error:
        told[name] = error.errno
print(json.dumps(told))
"""


async def test_system_calls_and_sockets_that_reach_past_the_sandbox_are_unavailable(run: Runner) -> None:
    told = (await run.python(ASK_THE_KERNEL)).json_output
    refused = dict.fromkeys(("keyctl", "add_key", "io_uring_setup", "userfaultfd", "perf_event_open", "bpf"), errno.ENOSYS)
    unsupported, open_to_all = dict.fromkeys(("vsock", "alg", "packet"), errno.EAFNOSUPPORT), dict.fromkeys(("unix", "inet", "netlink"), 0)
    assert {name: told[name] for name in (*refused, *unsupported, *open_to_all)} == refused | unsupported | open_to_all
    # On the host the kernel knows some of them.
    ask = partial(subprocess.run, [sys.executable, "-c", ASK_THE_KERNEL], capture_output=True, text=True, check=True)
    control = json.loads((await asyncio.to_thread(ask)).stdout)
    assert any(control[name] != errno.ENOSYS for name in refused)


async def test_threads_and_processes_still_work_under_limits(run: Runner) -> None:
    code = "import concurrent.futures as c, subprocess\nwith c.ThreadPoolExecutor(4) as pool: print(sum(pool.map(int, '1234')))\nsubprocess.run(['echo', 'well'])"
    assert (await run.python(code, limits=SMALL)).log.split() == ["10", "well"]


async def test_a_file_grows_to_its_limit_and_no_further(run: Runner) -> None:
    ran = await run("sh", "-c", "dd if=/dev/zero of=/tmp/x bs=1M count=20 2>/dev/null; echo $?; stat -c %s /tmp/x", limits=SMALL)
    assert ran.log.split()[-2:] == ["153", str(8 * MEBI)]


async def test_processor_time_counts_over_all_processes_that_run(run: Runner) -> None:
    ran = await run.python(BURN_TOGETHER, limits=ResourceLimits(cpu=1))
    assert ran.code == 137
    assert str(ran.exceeded_limit).startswith("limits.cpu: it used ")


async def test_processor_time_counts_over_processes_that_have_ended(run: Runner) -> None:
    ran = await run.python(BURN_IN_TURN, limits=ResourceLimits(cpu=1))
    assert (ran.code, str(ran.exceeded_limit).startswith("limits.cpu: it used ")) == (137, True)


async def test_the_kernel_ends_a_process_over_its_processor_time_without_the_monitor(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("activities.process.resource_monitor.POLL_INTERVAL_S", 600)
    ran = await run("sh", "-c", "while :; do :; done", limits=ResourceLimits(cpu=1))
    assert (ran.code, ran.exceeded_limit) == (128 + 24, None)


async def test_a_fork_bomb_is_contained_while_another_job_runs_well(run: Runner) -> None:
    script = "sleep 41413.25 & bomb() { bomb | bomb & }; bomb; wait"
    bomb = await run.start("bash", "-c", script, uid=own_uid(run, 3000), limits=SMALL)
    os.set_blocking(bomb.output, False)
    try:
        await until(lambda: is_alive("sleep\x0041413.25"))
        async with asyncio.timeout(180):
            assert (await run.python("print('well')")).log == "well\n"
    finally:
        os.close(bomb.output)
        await bomb.kill()
    assert bomb.survivors == ()


async def test_no_more_processes_than_allowed_can_be_made(run: Runner) -> None:
    ran = await run.python(FORK, limits=ResourceLimits(processes=32))
    # The kernel counts by user, and since Linux 5.14 by user namespace. Else the worker adds up the job's processes and ends the job.
    counts = is_root() or tuple(map(int, platform.release().split(".")[:2])) >= (5, 14)
    assert run.sandbox.counts_processes == counts
    assert ran.log == "31\n" if counts else str(ran.exceeded_limit).startswith("limits.processes: ")


async def test_the_worker_ends_a_job_with_too_many_processes_if_the_kernel_cannot_count_them(run: Runner) -> None:
    uncounted = Runner(run.settings, replace(run.sandbox, counts_processes=False))
    ran = await uncounted.python(FORK.replace("True", "made < 40") + "time.sleep(60)", limits=ResourceLimits(processes=32))
    assert str(ran.exceeded_limit).startswith("limits.processes: ")


async def test_the_monitor_adds_up_processes_threads_processor_time_and_folders_correctly(run: Runner) -> None:
    script = """
import os, threading, time
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(60)
        os._exit(0)
    os.wait()
for _ in range(4):
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
open('/tmp/x', 'wb').write(bytes(5 * 2**20))
while time.process_time() < 0.5:
    pass
print('ready', flush=True)
time.sleep(60)
"""
    process = await run.start("python", "-c", script, uid=own_uid(run, 3001))
    try:
        with os.fdopen(process.output, "rb") as output:
            assert await asyncio.to_thread(output.readline) == b"ready\n"
        assert process._first
        used = measure_use(process._first, ResourceLimits(), sandboxed=True)
        # The program with four threads more, and three that it left behind.
        assert used.processes == 8
        assert 0.4 <= used.cpu < 5
        assert 5 * MEBI < used.memory < 100 * MEBI
    finally:
        await process.kill()


def test_processes_that_end_while_they_are_measured_use_nothing() -> None:
    with run_child(["true"]) as child:
        child.wait(60)
    used = measure_use(child.pid, SMALL, sandboxed=True)
    assert (used.cpu, used.memory, SMALL.why_exceeded(used)) == (0, 0, None)
