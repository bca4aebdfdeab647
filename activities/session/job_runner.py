"""A job's process and its log, held together for as long as it runs: started, and gone, on one screen."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from activities.broker import BrokerAddress
from activities.delivery.delivery import Delivered
from activities.process.interpreters import find_interpreter
from activities.process.launcher import JobLaunch
from activities.process.log_capture import LogCapture, Sink
from activities.process.process import JobProcess
from activities.process.sandbox import Sandbox
from activities.process.uid_pool import lend_uid
from activities.support.async_tools import run_to_completion
from justenough.adapters.configuration.settings import Settings
from justenough.domain.core.redaction import Redactor
from justenough.domain.core.secret import Secret
from justenough.domain.jobs.spec import JobSpec

ServeBroker = Callable[[int], AbstractAsyncContextManager[BrokerAddress]]
"""Has the job's broker listen for its user id, for the length of a block."""


@dataclass(frozen=True, slots=True)
class JobTask:
    """What is run for one job."""

    job: str
    spec: JobSpec
    workdir: Path | None
    delivered: Delivered


@asynccontextmanager
async def run_process(
    settings: Settings, sandbox: Sandbox, task: JobTask, *, redactor: Redactor, sink: Sink, serve: ServeBroker
) -> AsyncIterator[JobProcess]:
    """Run a job's command beside its broker. When the block ends, however it does, no process of the job is left and its log is in the sink.

    Raises InterpreterRefused, NoFreeUid, StartFailed before anything runs; afterwards what the sink raised.
    """
    spec, given = task.spec, task.delivered
    python = find_interpreter(settings, spec.run.python)
    with lend_uid(settings) as uid:
        async with serve(uid) as broker:
            env: dict[str, str | Secret] = {**spec.run.env, **given.env, **broker.env}
            redactor.learn(value.reveal() for value in broker.env.values() if isinstance(value, Secret))
            launch = JobLaunch(
                task.job,
                spec.run.command,
                uid,
                python,
                task.workdir,
                spec.run.network,
                env,
                given.files,
                given.paths,
                broker.path,
                spec.run.limits,
            )
            async with _start_process(sandbox, launch, redactor, sink) as process:
                yield process


@asynccontextmanager
async def _start_process(sandbox: Sandbox, launch: JobLaunch, redactor: Redactor, sink: Sink) -> AsyncIterator[JobProcess]:
    process = await JobProcess.start(sandbox, launch)
    try:
        capture = await LogCapture.start(process.output, redactor, sink)
        try:
            yield process
        finally:
            await run_to_completion(_stop_process(process, capture))
    finally:
        # The user id may be lent again only after the last process is gone, so not even a cancel cuts this short.
        await run_to_completion(process.kill())


async def _stop_process(process: JobProcess, capture: LogCapture) -> None:
    await process.kill()
    await capture.finish()
