"""A job runs only while the block is open. However the block ends, no process of the job is left, and its log is complete."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from activities.broker import BrokerAddress
from activities.delivery.delivery import Delivered
from activities.process.interpreters import InterpreterRefused
from activities.process.process import JobProcess
from activities.process.sandbox import Sandbox
from activities.session.job_runner import JobTask, run_process
from activities.support.async_tools import run_to_completion
from justenough.adapters.configuration.settings import Settings
from justenough.domain.core.redaction import MAX_LEARNT_SECRETS, Redactor
from justenough.domain.core.secret import Secret
from justenough.domain.jobs.spec import JobSpec, RunSpec
from tests.activities.process.job_process import is_alive, until


@dataclass
class Jobs:
    settings: Settings
    sandbox: Sandbox
    broker: Path
    texts: list[str] = field(default_factory=list)
    redactor: Redactor = field(default_factory=lambda: Redactor(["hunter22"]))

    @property
    def log(self) -> str:
        return "".join(self.texts)

    async def sink(self, text: str) -> None:
        self.texts.append(text)

    @asynccontextmanager
    async def run(self, *argv: str, python: str | None = None) -> AsyncIterator[JobProcess]:
        spec = JobSpec(name="test", task="test", environment="prod", run=RunSpec(command=argv, python=python, env={"MODE": "dry"}))
        given = Delivered({"PGPASSWORD": Secret("hunter22")})
        async with run_process(
            self.settings,
            self.sandbox,
            JobTask("j-dev-test", spec, None, given),
            redactor=self.redactor,
            sink=self.sink,
            serve=lambda _: nullcontext(BrokerAddress(self.broker, {"JUSTENOUGH_BROKER_TOKEN": Secret("swordfish")})),
        ) as process:
            yield process


@pytest.fixture
def jobs(settings: Settings, sandbox: Sandbox, tmp_path: Path) -> Iterator[Jobs]:
    with closing(socket.socket(socket.AF_UNIX)) as broker:
        broker.bind(str(tmp_path / "broker.sock"))
        yield Jobs(settings, sandbox, tmp_path / "broker.sock")


async def test_a_job_gets_its_variables_and_its_log_is_there_after_it(jobs: Jobs) -> None:
    async with jobs.run("sh", "-c", "echo $MODE $PGPASSWORD; exit 3") as process:
        assert await process.wait() == 3
    assert jobs.log == "dry [redacted]\n"


async def test_the_brokers_token_is_redacted_however_many_secrets_a_job_gets(jobs: Jobs) -> None:
    script = "trap 'echo $JUSTENOUGH_BROKER_TOKEN; exit 0' TERM; echo ready; while :; do sleep 0.1; done"
    async with jobs.run("sh", "-c", script) as process:
        await until(lambda: jobs.log == "ready\n")
        jobs.redactor.learn((f"secret-{number:06}" for number in range(MAX_LEARNT_SECRETS)), about="identity")
        assert await process.finish(60) == 0
    assert jobs.log.splitlines()[-1] == "[redacted]"


async def test_leaving_the_block_ends_the_job(jobs: Jobs) -> None:
    async with jobs.run("sh", "-c", "trap '' TERM; setsid sleep 27182.25 & sleep 27182.5"):
        await until(lambda: is_alive("sleep\x0027182.25") and is_alive("sleep\x0027182.5"))
    assert not is_alive("sleep\x0027182")


async def test_an_error_in_the_block_ends_the_job(jobs: Jobs) -> None:
    async def session() -> None:
        async with jobs.run("sleep", "27183.25"):
            await until(lambda: is_alive("sleep\x0027183.25"))
            raise LookupError

    with pytest.raises(LookupError):
        await session()
    assert not is_alive("sleep\x0027183.25")


async def test_repeated_cancellation_still_ends_the_job(jobs: Jobs) -> None:
    async def session() -> None:
        async with jobs.run("sleep", "27184.25") as process:
            await process.wait()

    task = asyncio.create_task(session())
    await until(lambda: is_alive("sleep\x0027184.25"))
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)
    assert task.cancelled()
    assert not is_alive("sleep\x0027184.25")


async def test_a_job_whose_python_is_refused_does_not_start(jobs: Jobs) -> None:
    with pytest.raises(InterpreterRefused):
        async with jobs.run("python", "-c", "print(1)", python="/nowhere/python"):
            pytest.fail("it started")


async def test_run_to_completion_raises_the_error_of_what_it_runs() -> None:
    async def fails() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await run_to_completion(fails())
