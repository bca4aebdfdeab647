"""A job's process and its log, held together for as long as it runs: started, and gone, on one screen."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from activities.broker import Place
from activities.delivery.delivery import Delivered
from activities.process.interpreters import interpreter
from activities.process.launcher import Launch
from activities.process.log_capture import LogCapture, Sink
from activities.process.process import JobProcess
from activities.process.sandbox import Sandbox
from activities.process.uid_pool import lent_uid
from activities.support.async_tools import surely
from justenough.adapters.configuration.settings import Settings
from justenough.domain.core.redaction import Redactor
from justenough.domain.core.secret import Secret
from justenough.domain.jobs.spec import JobSpec

Serve = Callable[[int], AbstractAsyncContextManager[Place]]
"""Has the job's broker listen for its user id, for the length of a block."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is run for one job."""

    job: str
    spec: JobSpec
    workdir: Path | None
    given: Delivered


@asynccontextmanager
async def running(
    settings: Settings, sandbox: Sandbox, task: Task, *, redactor: Redactor, sink: Sink, serve: Serve
) -> AsyncIterator[JobProcess]:
    """Run a job's command beside its broker. When the block ends, however it does, no process of the job is left and its log is in the sink.

    Raises InterpreterRefused, NoFreeUid, StartFailed before anything runs; afterwards what the sink raised.
    """
    spec, given = task.spec, task.given
    python = interpreter(settings, spec.run.python)
    with lent_uid(settings) as uid:
        async with serve(uid) as broker:
            env: dict[str, str | Secret] = {**spec.run.env, **given.env, **broker.env}
            redactor.learn(value.reveal() for value in broker.env.values() if isinstance(value, Secret))
            launch = Launch(
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
            async with _started(sandbox, launch, redactor, sink) as process:
                yield process


@asynccontextmanager
async def _started(sandbox: Sandbox, launch: Launch, redactor: Redactor, sink: Sink) -> AsyncIterator[JobProcess]:
    process = await JobProcess.start(sandbox, launch)
    try:
        capture = await LogCapture.start(process.output, redactor, sink)
        try:
            yield process
        finally:
            await surely(_over(process, capture))
    finally:
        # The user id may be lent again only after the last process is gone, so not even a cancel cuts this short.
        await surely(process.kill())


async def _over(process: JobProcess, capture: LogCapture) -> None:
    await process.kill()
    await capture.finished()
