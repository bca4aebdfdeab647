"""How long a login that a job was given works on after the job's ending, with all nets but one switched off.

`python -m tests.chaos.exposure` strikes each case alone, a few times, and prints the table of docs/explanation/reliability.md.
"""

from __future__ import annotations

import argparse
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from tests.chaos.administrator import Administrator
from tests.chaos.faulty_worker import LABEL
from tests.chaos.rig import Rig, run_rig
from tests.chaos.vault_gate import JOB
from tests.support.people import ACCEPTED_STATUSES, Human, log_in
from tests.support.shop import Login, Shop, access, spec
from tests.support.shop_config import copy_shop

NETS = ("session", "compensation", "guard", "sweep")
"""The worker's safety nets. The fifth net are the expiry times in Vault and in the target."""
ALL = "all"
"""Every net is on, as in production."""
STAY_SCRIPT = 'exec 3<>/dev/tcp/127.0.0.1/{port}; echo "$PGUSER $PGPASSWORD" >&3; read -r code <&3; exit "$code"'
"""A job that sends its login to the test and ends as instructed."""
STUBBORN = "cancel, SIGTERM ignored"
"""The ending of a job that is cancelled and whose processes ignore SIGTERM."""
JOB_TIMEOUT_S = 4
"""The timeout, in seconds, of a job that must exceed it."""
REFUSAL_ERRORS = (
    "password authentication failed",
    "is not permitted to log in",
    "permission denied for database",
    "does not exist",
    "terminating connection due to administrator command",
)
"""PostgreSQL's errors for a login that is invalid or just ending. Other errors have nothing to do with the nets."""
RESULT_TIMEOUT_S = 200.0


@dataclass(frozen=True)
class NetCase:
    """One ending of one job, and the only net that is on."""

    net: str
    ending: str
    action: str = "read"
    """read: issued without an approval; write: approved by a person, so the job has a guard."""
    ttl: str = "5m"

    @property
    def off(self) -> str:
        """The nets that are off for this job, as its label says."""
        # A kill revokes before any net does. If that is switched off, too, the net must revoke.
        return "none" if self.net == ALL else ".".join(["person", *(net for net in NETS if net != self.net)])

    def __str__(self) -> str:
        return f"{self.net}-{self.ending.replace(' ', '-')}-{self.action}"


@dataclass(eq=False)
class ExposedJob:
    """A job with a login, and the times at which it ended."""

    case: NetCase
    job: str
    login: Login
    line: socket.socket
    received_at: float
    """When the login was received. All times are of this process's monotonic clock."""
    ended_at: float = 0
    """When the job was ended."""
    refused_at: Future[float] = field(default_factory=Future)

    @property
    def exposure(self) -> float:
        """Return the seconds from the ending until the login was refused; wait for that."""
        return max(0.0, self.refused_at.result(RESULT_TIMEOUT_S) - self.ended_at)


@dataclass(frozen=True)
class Lab:
    """A stack with people: it launches jobs, ends them, and tries their logins until they are refused."""

    shop: Shop
    ops: Human
    lead: Human
    administrator: Administrator
    listener: socket.socket
    watchers: ThreadPoolExecutor
    pause: float
    """Seconds between two attempts of one login."""
    lines: ExitStack
    """Open connections (from jobs, to Temporal), to be closed at the end."""

    @classmethod
    @contextmanager
    def open(cls, shop: Shop, ops: Human, lead: Human, *, pause: float) -> Iterator[Lab]:
        """Receive logins of jobs for a block."""
        with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(64, "watch") as watchers, ExitStack() as lines:
            listener.settimeout(180)
            administrator = lines.enter_context(Administrator.connect(shop.stack))
            yield cls(shop, ops, lead, administrator, listener, watchers, pause, lines)

    def hold(self, cases: Iterable[NetCase]) -> list[ExposedJob]:
        """Launch a job for each case; return them once each has a login, and that login works."""
        wanted = list(cases)
        # Beside the launching: some logins are over before the last job has begun.
        hearing = self.watchers.submit(lambda: [self._receive_login() for _ in wanted])
        with ThreadPoolExecutor(4, "launch") as launchers:
            launched = dict(zip(launchers.map(self._launch, wanted), wanted, strict=True))
        return [ExposedJob(launched[job], job, login, line, given) for job, login, line, given in hearing.result(RESULT_TIMEOUT_S)]

    def strike(self, item: ExposedJob) -> None:
        """End a job as its case says, and start to watch its login."""
        item.ended_at = time.monotonic()
        ENDINGS[item.case.ending](self, item)
        self.watch(item)

    def watch(self, item: ExposedJob) -> None:
        """Start to try a login until it is refused."""

        def watched() -> None:
            try:
                while self.can_log_in(item.login):
                    time.sleep(self.pause)
                item.refused_at.set_result(time.monotonic())
            except BaseException as error:  # noqa: BLE001 - handed to whoever waits for the result
                item.refused_at.set_exception(error)

        self.watchers.submit(watched)

    def can_log_in(self, login: Login) -> bool:
        """Whether a login works. Raises if that cannot be determined."""
        try:
            self.shop.connect(login).close()
        except psycopg.OperationalError as error:
            if any(words in str(error) for words in REFUSAL_ERRORS):
                return False
            raise
        return True

    def _launch(self, case: NetCase) -> str:
        script = STAY_SCRIPT.format(port=self.listener.getsockname()[1])
        if case.ending == STUBBORN:
            script = f"trap '' TERM; {script}"
        timeout = f"{JOB_TIMEOUT_S}s" if case.ending == "timeout" else "5m"
        job = self.ops.launch(spec(script, access(action=case.action, ttl=case.ttl), timeout=timeout, labels={LABEL: case.off}))
        if case.action == "write":
            waiting = self.ops.until(job, "awaiting_approval")
            assert self.lead.answer(waiting["requests"][0]).status_code in ACCEPTED_STATUSES
        return job

    def _receive_login(self) -> tuple[str, Login, socket.socket, float]:
        line = self.lines.enter_context(self.listener.accept()[0])
        given = time.monotonic()
        with line.makefile() as lines:
            login = Login(*lines.readline().split())
        named = JOB.search(login.user)
        assert named
        assert self.can_log_in(login)
        return named[0], login, line, given


def _say(code: str) -> Callable[[Lab, ExposedJob], None]:
    def said(_: Lab, item: ExposedJob) -> None:
        item.line.sendall(f"{code}\n".encode())

    return said


def _post(what: str) -> Callable[[Lab, ExposedJob], None]:
    def posted(lab: Lab, item: ExposedJob) -> None:
        assert lab.ops.api.post(f"jobs/{item.job}/{what}").status_code == 202

    return posted


def _time_out(_: Lab, item: ExposedJob) -> None:
    item.ended_at = item.received_at + JOB_TIMEOUT_S


def _expire_grant(lab: Lab, item: ExposedJob) -> None:
    (credential,) = lab.ops.job(item.job)["credentials"]
    left = datetime.fromisoformat(credential["expires_at"]) - datetime.now(UTC)
    item.ended_at = time.monotonic() + left.total_seconds()


def _terminate(lab: Lab, item: ExposedJob) -> None:
    lab.administrator.terminate(item.job)


def _terminate_both(lab: Lab, item: ExposedJob) -> None:
    # The guard first: otherwise the server cancels it, and it is no longer there to be terminated.
    lab.administrator.terminate(f"{item.job}-guard", item.job)


def _delete(lab: Lab, item: ExposedJob) -> None:
    lab.administrator.delete(item.job)


ENDINGS: dict[str, Callable[[Lab, ExposedJob], None]] = {
    "success": _say("0"),
    "failure": _say("3"),
    "cancel": _post("cancel"),
    STUBBORN: _post("cancel"),
    "kill": _post("kill"),
    "timeout": _time_out,
    "grant over": _expire_grant,
    "terminate": _terminate,
    "terminate with guard": _terminate_both,
    "delete": _delete,
}


def strike_together(lab: Lab, held: Iterable[ExposedJob], event: Callable[[], object]) -> None:
    """End several jobs with one action, and start to watch their logins."""
    at = time.monotonic()
    event()
    for item in held:
        item.ended_at = at
        lab.watch(item)


@contextmanager
def open_lab(*, pause: float) -> Iterator[tuple[Lab, Rig]]:
    """Yield a separate rig for a block, with people."""
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="je-exposure-")))
        folder.chmod(0o711)
        config = copy_shop(folder / "shop")
        rig = opened.enter_context(run_rig(folder / "home", config))
        shop = opened.enter_context(Shop.open(rig.stack))
        ops, lead = (opened.enter_context(log_in(rig.stack, name)) for name in ("ops", "lead"))
        yield opened.enter_context(Lab.open(shop, ops, lead, pause=pause)), rig


ORDINARY = ("success", "failure", "cancel", "kill", "timeout")
ONE_BY_ONE: dict[str, tuple[str, ...]] = {
    ALL: (*ORDINARY, STUBBORN, "terminate", "delete", "terminate with guard"),
    "session": (*ORDINARY, "terminate", "delete"),
    "compensation": ORDINARY,
    "guard": ("terminate", "delete"),
}
"""Endings that take seconds; they run one after another."""
SERVERS_GONE = (
    ("vault", "worker and Temporal gone", ("temporal",)),
    ("target", "worker, Temporal and Vault gone", ("temporal", "vault")),
)
ACTIONS = ("read", "write")
Figures = dict[tuple[str, str, str], list[float]]


def measure_exposures(lab: Lab, rig: Rig, rounds: int) -> Figures:
    """Return all exposures by net, ending and action; takes about ten minutes, most of it waiting for leases to end by themselves."""
    figures: Figures = {}

    def noted(held: Iterable[ExposedJob]) -> None:
        for item in held:
            figures.setdefault((item.case.net, item.case.ending, item.case.action), []).append(item.exposure)

    def lost_together(net: str, ending: str, event: Callable[[], object], held: list[ExposedJob]) -> None:
        strike_together(lab, held, event)
        noted(held)
        print(net, ending, [round(item.exposure, 2) for item in held], flush=True)  # noqa: T201 - a program that prints

    def pair(net: str, ending: str) -> list[ExposedJob]:
        return lab.hold([NetCase(net, ending, action) for action in ACTIONS])

    first = rig.start_alone(labelled=True)
    (slow,) = lab.hold([NetCase("sweep", "delete")])
    lab.strike(slow)
    for _ in range(rounds):
        for case in _single_cases():
            (item,) = lab.hold([case])
            lab.strike(item)
            noted([item])
        together = lab.hold(
            [*(NetCase("sweep", "terminate", action) for action in ACTIONS), NetCase("sweep", "terminate with guard", "write")]
        )
        for item in together:
            lab.strike(item)
        noted(together)
    noted([slow])
    held = pair("compensation", "worker kill -9")
    second = rig.start(labelled=True)
    lost_together("compensation", "worker kill -9", first.kill, held)
    held = pair("compensation", "worker hangs")
    rig.start(labelled=True)
    lost_together("compensation", "worker hangs", second.stop, held)
    for net, ending, servers in SERVERS_GONE:
        only, held = rig.start_alone(labelled=True), pair(net, ending)
        with rig.freeze(*servers):
            lost_together(net, ending, only.kill, held)
    only = rig.start_alone(labelled=True)
    lost_together("session", "worker SIGTERM", only.terminate, pair("session", "worker SIGTERM"))
    return figures


def _single_cases() -> Iterator[NetCase]:
    for net, endings in ONE_BY_ONE.items():
        for ending in endings:
            for action in ("write",) if net == "guard" or ending == "terminate with guard" else ACTIONS:
                yield NetCase(net, ending, action)


def main() -> None:
    """Measure and print the table of docs/explanation/reliability.md."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.exposure", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often each quick ending is struck; the worst is shown")
    with open_lab(pause=0.01) as (lab, rig):
        figures = measure_exposures(lab, rig, parser.parse_args().rounds)
    print("| net alone | ending | read, s | approved write, s |\n| --- | --- | --- | --- |")  # noqa: T201 - a program that prints
    for net, ending in dict.fromkeys((net, ending) for net, ending, _ in figures):
        worst = [figures.get((net, ending, action)) for action in ACTIONS]
        shown = " | ".join(f"{max(seen):.2f}" if seen else "–" for seen in worst)
        print(f"| {net} | {ending} | {shown} |")  # noqa: T201 - a program that prints


if __name__ == "__main__":
    main()
