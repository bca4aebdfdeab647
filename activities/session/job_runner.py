"""Runs a job's process together with its broker and its log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from activities.broker import BrokerAddress
from activities.delivery.delivery import Delivered
from activities.process.interpreters import find_interpreter
from activities.process.job_command import JobLaunch
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
"""Makes the job's broker listen for a user id until the block ends."""


@dataclass(frozen=True, slots=True)
class JobTask:
    job: str
    spec: JobSpec
    workdir: Path | None
    delivered: Delivered
    reaches_vault: bool = False
    """Whether the catalog lets the job connect to Vault itself."""


@asynccontextmanager
async def run_process(
    settings: Settings, sandbox: Sandbox, task: JobTask, *, redactor: Redactor, sink: Sink, serve: ServeBroker
) -> AsyncIterator[JobProcess]:
    """Run a job's command together with its broker. When the block ends, no process of the job is left and its log is in the sink.

    Raises InterpreterRefused, NoFreeUid, StartFailed before anything runs; afterwards what the sink raised.
    """
    run, delivered = task.spec.run, task.delivered
    python = find_interpreter(settings, run.python)
    with lend_uid(settings, reaches_vault=task.reaches_vault) as uid:
        async with serve(uid) as broker:
            redactor.learn(value.reveal() for value in broker.env.values() if isinstance(value, Secret))
            launch = JobLaunch(
                task.job,
                run.command,
                uid,
                python,
                task.workdir,
                run.network,
                env={**run.env, **delivered.env, **broker.env},
                files=delivered.files,
                paths=delivered.paths,
                broker=broker.path,
                limits=run.limits,
            )
            process, capture = await JobProcess.start(sandbox, launch), None
            try:
                capture = await LogCapture.start(process.output, redactor, sink)
                yield process
            finally:
                # Not even a cancel interrupts this: the user id may be lent again only after the last process is gone.
                try:
                    await run_to_completion(process.kill())
                finally:
                    if capture is not None:
                        await run_to_completion(capture.finish())
