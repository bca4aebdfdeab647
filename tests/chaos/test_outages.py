"""Servers that are there and do not do their work: Vault sealed, its audit device failing, PostgreSQL closed or hanging while jobs are revoked.

Nothing is said to be dead meanwhile, and everything is confirmed once they are back, without anybody's help.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import structlog

from justenough.adapters.store import Store
from justenough.domain.jobs.states import RevocationState
from justenough.domain.readmodel.dashboard import OverdueJob
from justenough.domain.readmodel.failed_systems import group_by_system
from tests.chaos.consistency import assert_one_outcome
from tests.chaos.job_latch import Latch, hold_jobs
from tests.chaos.rig import Rig
from tests.console.cli.conftest import Cli
from tests.support.new_people import log_in_newcomer
from tests.support.people import Human
from tests.support.shop import Login, Shop, Witness, access, spec
from tests.support.wait import until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(900)]
log = structlog.get_logger()

NOT_CONFIRMED = 9
"""The exit code of `credential prove` if a credential may be active."""
NAMES = ("sealed", "killed", "withdrawn", "unaudited", "stays", "refused", "hanging")
CONFIRM_TIMEOUT_S = 180
"""Seconds on a busy machine until an outage is shown, and after its end until everything is confirmed. The log has what it took."""


@dataclass
class LatchedJob:
    """A job that runs with a login until it is released."""

    job: str
    login: Login
    _latch: Latch

    def end(self) -> None:
        """Let its process end."""
        self._latch.open()


@dataclass
class Course:
    """All outages one after another, each with its own jobs that end during it, without waiting in between."""

    rig: Rig
    ops: Human
    shop: Shop
    cli: Cli
    store: Store
    """What pages and API read, past the console: it asks Vault who is calling, and here Vault is away."""
    jobs: dict[str, LatchedJob] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    """The measured times by name."""
    back: float = 0.0
    """The end of the last outage."""

    @contextmanager
    def measure(self, what: str) -> Iterator[None]:
        """Measure a block."""
        began = time.monotonic()
        yield
        self.seconds[what] = time.monotonic() - began

    def opens_for(self, *names: str) -> list[bool]:
        """Whether the logins of these jobs work."""
        return [self.shop.can_log_in(self.jobs[name].login) for name in names]

    def until_dead(self, *names: str) -> None:
        """Wait until the logins of these jobs fail."""
        until(lambda: not any(self.opens_for(*names)), f"{names} are dead", within=CONFIRM_TIMEOUT_S)

    def until_in_doubt(self, name: str) -> None:
        """Wait until a job is being revoked. Fail if it is shown as clean."""

        def in_doubt() -> bool:
            seen = self.store.jobs.get(self.jobs[name].job)
            assert seen is not None
            assert not seen.state.ended
            assert seen.revocation.state is not RevocationState.CONFIRMED
            return seen.revocation.state in {RevocationState.PENDING, RevocationState.OVERDUE}

        until(in_doubt, "a job that cannot be revoked is in doubt")
        # Not confirmed without Vault, but the worker has its own way into the target.
        self.until_dead(name)

    def until_overdue(self, name: str) -> None:
        """Wait until a job is shown as overdue."""
        until(lambda: self.ops.job(self.jobs[name].job)["revocation"]["state"] == "overdue", f"{name} is overdue", within=CONFIRM_TIMEOUT_S)

    def assert_not_proven(self, name: str) -> None:
        """Fail unless the command line reports that a credential may be active."""
        proof = self.cli.json("credential", "prove", self.jobs[name].job, code=NOT_CONFIRMED)
        assert proof["dead"] is False
        assert proof["failures"] or any(item["alive"] for item in proof["findings"])


@pytest.fixture(scope="module")
def course(rig: Rig, ops: Human, lead: Human, shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Course]:
    """Vault is sealed, then cannot write its audit log; the database refuses connections, then hangs."""
    rig.ensure_worker()
    with closing(Store(rig.stack.database_url)) as store, closing(Witness()) as witness, ExitStack() as latches:
        course = Course(rig, ops, shop, log_in_cli(rig, tmp_path_factory), store)
        for name in NAMES:
            held = latches.enter_context(hold_jobs())
            asked = access("refunds-db", "write") if name == "withdrawn" else access()
            job = ops.launch(spec(f"{witness.hand_over}; {held.wait}", asked))
            if name == "withdrawn":
                lead.decide(ops.until(job, "awaiting_approval")["requests"][0])
            course.jobs[name] = LatchedJob(job, witness.login(), held)
        assert all(course.opens_for(*NAMES))
        seal_vault(course)
        break_audit(course)
        cut_database(course)
        course.jobs["stays"].end()
        yield course


def log_in_cli(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """Return the command line, with ops logged in."""
    cli = Cli(home=rig.stack.home, config=rig.stack.config, logins=tmp_path_factory.mktemp("logins"))
    done = cli.run("login", "--user", "ops", "--password-stdin", stdin=rig.stack.users["ops"].password + "\n")
    assert done.exit_code == 0, done.stderr
    return cli


def seal_vault(course: Course) -> None:
    """Seal Vault while one job ends, another is killed and the approval of a third is withdrawn. The supervisor restarts it, and it unseals itself."""
    with log_in_newcomer(course.rig.stack, course.shop, "sealer", "support-leads") as someone, course.measure("sealed until dead"):
        # From now on both have a token for the console.
        (request,) = someone.job(course.jobs["withdrawn"].job)["requests"]
        course.cli.json("request", "show", request["id"])
        with course.rig.seal_vault():
            course.jobs["sealed"].end()
            until(lambda: someone.api.post("jobs", json={}).status_code == 503, "the console does not know any more who may launch")
            answer = someone.api.post(f"jobs/{course.jobs['killed'].job}/kill")
            assert answer.status_code == 202, answer.text
            withdrawn = course.cli.run("request", "withdraw", request["id"], "--reason", "it was a fake")
            assert (withdrawn.exit_code, "without your signature" in withdrawn.stderr) == (0, True), withdrawn.stderr
            assert someone.job(request["job_id"])["requests"][0]["state"] == "withdrawn"
            for name in ("sealed", "killed"):
                course.until_in_doubt(name)
            assert course.opens_for("withdrawn") == [True]
        course.until_dead("sealed", "killed", "withdrawn")
    assert course.ops.job(course.jobs["withdrawn"].job)["state"] == "running"
    course.jobs["withdrawn"].end()


def break_audit(course: Course) -> None:
    """Let Vault refuse every request while a job ends, because it cannot write its audit log."""
    with course.rig.break_audit():
        course.jobs["unaudited"].end()
        course.until_in_doubt("unaudited")
        until(lambda: overdue_count(course.rig) > 0, "a revocation is shown as overdue", within=CONFIRM_TIMEOUT_S)
    with course.measure("audited until dead"):
        course.until_dead("unaudited")
    assert course.opens_for("stays") == [True]


def cut_database(course: Course) -> None:
    """Close the database while one job ends, let it hang while another does, and open it again."""
    with course.rig.postgres.closed():
        with course.measure("refused until overdue"):
            course.jobs["refused"].end()
            course.until_overdue("refused")
        course.assert_not_proven("refused")
        assert_target_is_blamed(course, "refused")
        # The target is not open in between, so nobody can have been revoked there.
        course.rig.postgres.hang()
        with course.measure("hanging until overdue"):
            course.jobs["hanging"].end()
            course.until_overdue("hanging")
        course.assert_not_proven("hanging")
        assert course.opens_for("refused", "hanging") == [True, True]
    course.back = time.monotonic()
    with course.measure("opened until dead"):
        course.until_dead("refused", "hanging")


def assert_target_is_blamed(course: Course, name: str) -> None:
    """Vault fails too, because it cannot drop the user: the target is the cause."""
    job = course.jobs[name].job
    found = course.ops.job(job)
    failures = tuple(found["revocation"]["failures"])
    overdue = OverdueJob(id=job, name=name, state=found["state"], since=found["revocation"]["since"], failures=failures)
    assert [system.name for system in group_by_system([overdue])] == [f"Target 127.0.0.1:{course.rig.postgres.port}/shop"], failures
    until(lambda: health_report(course.rig)["targets"]["failing"] == 1, "a sweep has found that the target does not answer")


def health_report(rig: Rig) -> dict[str, Any]:
    return dict(httpx.get(f"{rig.stack.console}/readyz", timeout=180, trust_env=False).json())


def overdue_count(rig: Rig) -> int:
    """Return the number of overdue revocations in the console's health report."""
    return int(health_report(rig)["overdue_revocations"])


def test_every_revocation_is_confirmed_soon_after_the_last_outage(course: Course, ops: Human) -> None:
    for name in NAMES:
        ops.until(course.jobs[name].job, within=CONFIRM_TIMEOUT_S - (time.monotonic() - course.back))
    course.seconds["opened until confirmed"] = time.monotonic() - course.back
    log.warning("outages", **course.seconds)


@pytest.mark.parametrize("name", NAMES)
def test_a_job_that_ended_during_an_outage_has_one_true_ending_and_no_access_left(
    course: Course, name: str, ops: Human, shop: Shop
) -> None:
    running = course.jobs[name]
    ops.until(running.job)
    seen = assert_one_outcome(ops, shop, running.job, running.login)
    assert seen["state"] == ("killed" if name == "killed" else "succeeded")
    assert course.cli.json("credential", "prove", running.job)["dead"] is True
