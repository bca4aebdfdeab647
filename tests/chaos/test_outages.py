"""Servers that are there and do not do their work: Vault sealed, its audit device failing, PostgreSQL closed or hanging while jobs are revoked.

Nothing is said to be dead meanwhile, and everything is confirmed once they are back, without anybody's help.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field

import httpx
import pytest
import structlog

from activities.store import Store
from justenough.access import RevocationState
from tests import people
from tests.chaos.agreement import assert_one_outcome
from tests.chaos.latch import Latch, latch
from tests.chaos.rig import Rig
from tests.cli.conftest import Cli
from tests.people import Human
from tests.shop import Login, Shop, Witness, spec
from tests.waiting import until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]
log = structlog.get_logger()

NOT_CONFIRMED = 9
"""The exit code of `credential prove` where something may be alive."""
NAMES = ("sealed", "killed", "unaudited", "stays", "refused", "hanging")
PROMISED = 60
"""Seconds until an outage is shown, and after its end until everything is confirmed."""


@dataclass
class Running:
    """A job that runs and holds a login, until it is let go."""

    job: str
    login: Login
    _latch: Latch

    def ends(self) -> None:
        """Have its process end."""
        self._latch.open()


@dataclass
class Course:
    """All outages, one after the other, each with jobs of its own that end meanwhile; nothing is waited for in between."""

    rig: Rig
    ops: Human
    shop: Shop
    cli: Cli
    store: Store
    """What pages and API read, past the console: it asks Vault who is calling, and here Vault is away."""
    jobs: dict[str, Running] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    """What took how long."""
    back: float = 0.0
    """When the last outage was over."""

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Measure a block."""
        began = time.monotonic()
        yield
        self.seconds[what] = time.monotonic() - began

    def opens_for(self, *names: str) -> list[bool]:
        """Whether the logins of these jobs work."""
        return [self.shop.opens_for(self.jobs[name].login) for name in names]

    def until_dead(self, *names: str) -> None:
        """Wait until their logins fail."""
        until(lambda: not any(self.opens_for(*names)), f"{names} are dead", within=PROMISED)

    def until_in_doubt(self, name: str) -> None:
        """Wait until a job is on its way out; fail where it is said to be clean."""

        def in_doubt() -> bool:
            seen = self.store.job(self.jobs[name].job)
            assert seen is not None
            assert not seen.state.ended
            assert seen.revocation.state is not RevocationState.CONFIRMED
            return seen.revocation.state in {RevocationState.PENDING, RevocationState.OVERDUE}

        until(in_doubt, "a job that cannot be revoked is in doubt")
        assert self.opens_for(name) == [True], "nobody could end it"

    def until_overdue(self, name: str) -> None:
        """Wait until a job is shown as overdue."""
        until(lambda: self.ops.job(self.jobs[name].job)["revocation"]["state"] == "overdue", f"{name} is overdue", within=PROMISED)

    def assert_not_proven(self, name: str) -> None:
        """Fail unless the command line says that something may be alive."""
        proof = self.cli.json("credential", "prove", self.jobs[name].job, code=NOT_CONFIRMED)
        assert proof["dead"] is False
        assert proof["failures"] or any(item["alive"] for item in proof["findings"])


@pytest.fixture(scope="module")
def course(rig: Rig, ops: Human, shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Course]:
    """Vault is sealed, then cannot write its audit log; the database is closed, then hangs."""
    rig.worker()
    with closing(Store(rig.stack.database_url)) as store, closing(Witness()) as witness, ExitStack() as latches:
        course = Course(rig, ops, shop, logged_in(rig, tmp_path_factory), store)
        for name in NAMES:
            held = latches.enter_context(latch())
            job = ops.launch(spec(f"{witness.hand_over}; {held.wait}"))
            course.jobs[name] = Running(job, witness.login(), held)
        assert all(course.opens_for(*NAMES))
        vault_sealed(course)
        vault_unaudited(course)
        database_away(course)
        course.jobs["stays"].ends()
        yield course


def logged_in(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """Return the command line, with ops logged in."""
    cli = Cli(home=rig.stack.home, config=rig.stack.config, logins=tmp_path_factory.mktemp("logins"))
    done = cli.run("login", "--user", "ops", "--password-stdin", stdin=rig.stack.users["ops"].password + "\n")
    assert done.exit_code == 0, done.stderr
    return cli


def vault_sealed(course: Course) -> None:
    """Seal Vault while a job ends and another is killed; its supervisor starts it again, and it unseals itself."""
    was = course.shop.pid_of("vault")
    with course.shop.admin() as vault, people.logged_in(course.rig.stack, "ops") as ops:
        # The console asks Vault who somebody is, and then not for ten seconds: of a new login it has just done so.
        ops.api.get("jobs").raise_for_status()
        vault.put("sys/seal").raise_for_status()
        with course.timed("sealed until dead"):
            course.jobs["sealed"].ends()
            assert ops.api.post(f"jobs/{course.jobs['killed'].job}/kill").status_code == 202
            for name in ("sealed", "killed"):
                course.until_in_doubt(name)
            course.shop.until_restarted("vault", was=was)
            course.until_dead("sealed", "killed")


def vault_unaudited(course: Course) -> None:
    """Have Vault refuse everything while a job ends, because it cannot write its audit log."""
    with failing_audit(course.rig, course.shop):
        course.jobs["unaudited"].ends()
        course.until_in_doubt("unaudited")
        until(lambda: overdue(course.rig) > 0, "a revocation is shown as overdue", within=PROMISED)
    with course.timed("audited until dead"):
        course.until_dead("unaudited")
    assert course.opens_for("stays") == [True]


def database_away(course: Course) -> None:
    """Close the database while one job ends, let it hang while another does, and open it again."""
    with course.timed("refused until overdue"):
        course.rig.postgres.close()
        course.jobs["refused"].ends()
        course.until_overdue("refused")
    course.assert_not_proven("refused")
    course.rig.postgres.open()
    with course.timed("hanging until overdue"):
        course.rig.postgres.hang()
        course.jobs["hanging"].ends()
        course.until_overdue("hanging")
    course.assert_not_proven("hanging")
    assert course.opens_for("refused", "hanging") == [True, True]
    course.rig.postgres.open()
    course.back = time.monotonic()
    with course.timed("opened until dead"):
        course.until_dead("refused", "hanging")


@contextmanager
def failing_audit(rig: Rig, shop: Shop) -> Iterator[None]:
    """Have Vault's one audit device fail for the length of a block: its file cannot be opened any more."""
    file = rig.stack.home / "vault" / "audit.log"
    kept = file.rename(file.with_suffix(".kept"))
    file.mkdir()
    try:
        os.kill(shop.pid_of("vault"), signal.SIGHUP)
        with shop.admin() as vault:
            until(lambda: vault.get("auth/token/lookup-self").status_code == 500, "no request passes Vault's audit device")
        yield
    finally:
        file.rmdir()
        kept.rename(file)


def overdue(rig: Rig) -> int:
    """Return how many overdue revocations the console tells whoever asks for its health."""
    return int(httpx.get(f"{rig.stack.console}/readyz", timeout=15, trust_env=False).json()["overdue_revocations"])


def test_everything_is_confirmed_soon_after_the_last_outage(course: Course, ops: Human) -> None:
    for name in NAMES:
        ops.until(course.jobs[name].job, within=PROMISED - (time.monotonic() - course.back))
    course.seconds["opened until confirmed"] = time.monotonic() - course.back
    log.warning("outages", **course.seconds)


@pytest.mark.parametrize("name", NAMES)
def test_a_job_that_ended_during_an_outage_has_one_true_ending_and_nothing_of_it_is_alive(
    course: Course, name: str, ops: Human, shop: Shop
) -> None:
    running = course.jobs[name]
    ops.until(running.job)
    seen = assert_one_outcome(ops, shop, running.job, running.login)
    assert seen["state"] == ("killed" if name == "killed" else "succeeded")
    assert course.cli.json("credential", "prove", running.job)["dead"] is True
