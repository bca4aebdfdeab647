"""How long the logins of many jobs work on after their worker was killed while the machine was busy, and where that time goes.

`python -m tests.chaos.crash_exposure` prints the table of docs/explanation/reliability.md: for each kill the slowest job's seconds, by stage.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psutil
import psycopg

from justenough.adapters.configuration.settings import Settings
from justenough.adapters.runtime.private_files import read_json
from tests.chaos.administrator import Administrator
from tests.chaos.exposure import ALL, ExposedJob, Lab, NetCase
from tests.support.people import log_in
from tests.support.shop import Shop, spec
from tests.support.shop_config import copy_shop
from tests.support.wait import until
from worker.stack.control import running_stack, start_detached
from worker.stack.environment import own_environment
from worker.stack.paths import StackPaths
from worker.stack.pidfile import supervisor_of
from worker.stack.plan import EMBEDDED_WORKER_CIDRS
from worker.stack.stack_file import Stack
from worker.stack.starter_pipes import held_lifeline

PAUSE_S = 0.1
BUSY_JOBS = 3
"""Short jobs that run at once beside those that are watched."""
WARM_UP_S = 3.0
STAGES = ("noticed", "compensation", "revoking", "revoked", "refused")
"""Temporal considers the session dead; its workflow orders the revocation; a worker begins; it has ended the credential; the login fails."""


@dataclass(eq=False)
class Bench:
    """A whole stack, and workers beside its own."""

    lab: Lab
    stack: Stack
    folder: Path
    lifeline: int
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start_worker(self, *, elsewhere: bool = False) -> subprocess.Popen[bytes]:
        """Start a worker without a supervisor and return it once it polls. `elsewhere`: it shares no folder with the others, as on another machine."""
        number = len(self.workers)
        home, log = self.folder / f"home-{number}" if elsewhere else self.stack.home, self.folder / f"worker-{number}.log"
        settings = Settings(
            home=home,
            config=self.stack.config,
            worker_approle=self.stack.home / "worker.approle.json",
            worker_cidrs=EMBEDDED_WORKER_CIDRS,
            temporal_address=str(self.stack.temporal),
            vault_addr=str(self.stack.vault),
            console_url=str(self.stack.console),
            database_url=self.stack.database_url,
            drain=2,
        )
        environment = own_environment(settings, read_json(StackPaths(self.stack.home).ports))
        with log.open("ab") as output:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig=KILL", sys.executable, "-P", "-m", "worker"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.workers.append(process)
        until(lambda: b"worker ready" in log.read_bytes() or process.poll() is not None, "a worker is ready", within=180)
        assert process.poll() is None, log.read_text()
        return process

    def recover(self) -> None:
        """Let only the stack's own worker run, under its supervisor."""
        if supervisor := supervisor_of(StackPaths(self.stack.home)):
            supervisor.send(signal.SIGCONT)
        self.stack = start_detached(Settings(home=self.stack.home, config=self.stack.config, drain=2), lifeline=self.lifeline)
        for worker in self.workers:
            worker.kill()
            worker.wait()

    @contextmanager
    def keep_busy(self) -> Iterator[None]:
        """Launch short jobs during a block."""
        over = threading.Event()

        def launch() -> None:
            while not over.is_set():
                with suppress(httpx.HTTPError, AssertionError):
                    self.lab.lead.until(self.lab.lead.launch(spec("true")), within=60)

        with ThreadPoolExecutor(BUSY_JOBS) as pool:
            for _ in range(BUSY_JOBS):
                pool.submit(launch)
            time.sleep(WARM_UP_S)
            try:
                yield
            finally:
                over.set()

    def pid_of_own_worker(self) -> int:
        """Return the pid of the worker that the stack's supervisor runs."""
        return self.lab.shop.pid_of("worker")


def kill_alone(bench: Bench) -> Callable[[], None]:
    """Return what kills the only worker. Its supervisor starts another."""
    worker = bench.pid_of_own_worker()
    return lambda: os.kill(worker, signal.SIGKILL)


def kill_with_supervisor(bench: Bench) -> Callable[[], None]:
    """Return what kills the only worker and its supervisor. No worker is left."""
    supervisor, worker = bench.stack.supervisor, bench.pid_of_own_worker()

    def kill() -> None:
        os.kill(supervisor, signal.SIGKILL)
        os.kill(worker, signal.SIGKILL)

    return kill


def kill_with_watcher(bench: Bench, *, elsewhere: bool) -> Callable[[], None]:
    """Return what kills the stack's own worker and its watcher, while another worker lives and no supervisor starts one."""
    bench.start_worker(elsewhere=elsewhere)
    supervisor, worker = bench.stack.supervisor, psutil.Process(bench.pid_of_own_worker())
    watchers = [child for child in worker.children() if child.cmdline() == worker.cmdline()]
    assert len(watchers) == 1

    def kill() -> None:
        os.kill(supervisor, signal.SIGSTOP)
        watchers[0].kill()
        worker.kill()

    return kill


KILLS: dict[str, Callable[[Bench], Callable[[], None]]] = {
    "alone; its supervisor starts another": kill_alone,
    "with its supervisor; only the console lives": kill_with_supervisor,
    "with its watcher; another worker lives on its machine": lambda bench: kill_with_watcher(bench, elsewhere=False),
    "with its watcher; another worker lives elsewhere": lambda bench: kill_with_watcher(bench, elsewhere=True),
}


def stages_of(lab: Lab, item: ExposedJob, killed: datetime) -> dict[str, float]:
    """Return the seconds from the kill to each stage of one job."""
    times = history_times(lab.administrator, item.job)
    for entry in lab.ops.ledger(item.job):
        stage = {"revocation.started": "revoking", "credential.revoked": "revoked"}.get(entry["type"])
        if stage:
            times.setdefault(stage, datetime.fromisoformat(entry["at"]))
    return {**{stage: (at - killed).total_seconds() for stage, at in times.items()}, "refused": item.exposure}


def watch(lab: Lab, item: ExposedJob) -> None:
    """Try a login until it is refused. While its database restarts, it counts as valid."""
    while True:
        with suppress(psycopg.OperationalError):
            if not lab.can_log_in(item.login):
                item.refused_at.set_result(time.monotonic())
                return
        time.sleep(PAUSE_S)


def history_times(administrator: Administrator, job: str) -> dict[str, datetime]:
    """Return when Temporal considered a job's session dead, and when its workflow ordered the revocation."""
    times: dict[str, datetime] = {}
    for event in administrator.events_of(job):
        stage = None
        if event.HasField("activity_task_timed_out_event_attributes"):
            stage = "noticed"
        elif event.activity_task_scheduled_event_attributes.activity_type.name == "revoke_job":
            stage = "compensation"
        if stage:
            times.setdefault(stage, event.event_time.ToDatetime(UTC))
    return times


def measure_kill(bench: Bench, how: str, jobs: int) -> str:
    """Kill a worker with so many jobs, and return one line of the table."""
    lab = bench.lab
    held, own = lab.hold([NetCase(ALL, "worker kill -9")] * jobs), bench.pid_of_own_worker()
    kill = KILLS[how](bench)
    with bench.keep_busy():
        load, killed, at = os.getloadavg()[0], datetime.now(UTC), time.monotonic()
        kill()
        for item in held:
            item.ended_at = at
            lab.watchers.submit(watch, lab, item)
        wait([item.refused_at for item in held])
        with suppress(AssertionError):
            until(lambda: all("noticed" in history_times(lab.administrator, item.job) for item in held), "all are noticed", within=30)
    bench.recover()
    lab.shop.until_restarted("worker", was=own)
    stages = [stages_of(lab, item, killed) for item in held]
    shown = (f"{max(found):.1f}" if (found := [each[stage] for each in stages if stage in each]) else "–" for stage in STAGES)
    return f"| {how} | {load:.0f} | {' | '.join(shown)} |"


@contextmanager
def open_bench() -> Iterator[Bench]:
    """Yield a stack of its own for a block."""
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="je-crash-")))
        folder.chmod(0o711)
        config = copy_shop(folder / "shop")
        stack = opened.enter_context(running_stack(folder / "home", config, drain=2))
        lifeline = opened.enter_context(held_lifeline())
        shop = opened.enter_context(Shop.open(stack))
        ops, lead = (opened.enter_context(log_in(stack, name)) for name in ("ops", "lead"))
        yield Bench(opened.enter_context(Lab.open(shop, ops, lead, pause=PAUSE_S)), stack, folder, lifeline)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.crash_exposure", description=__doc__)
    parser.add_argument("--kills", type=int, default=10, help="how often each way of killing is measured")
    parser.add_argument("--jobs", type=int, default=20, help="jobs with a database login on the worker that is killed")
    parser.add_argument("--only", choices=range(len(KILLS)), type=int, help="the number of the only way to measure")
    arguments = parser.parse_args()
    ways = list(KILLS) if arguments.only is None else [list(KILLS)[arguments.only]]
    print(f"| the worker is killed | load | {' | '.join(STAGES)} |\n| --- {'| --- ' * (len(STAGES) + 1)}|", flush=True)  # noqa: T201 - a program that prints
    with open_bench() as bench:
        for how in ways:
            for _ in range(arguments.kills):
                print(measure_kill(bench, how, arguments.jobs), flush=True)  # noqa: T201 - the same


if __name__ == "__main__":
    main()
