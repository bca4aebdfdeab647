"""The console's Temporal client: starts, signals and cancels workflows, runs sweeps and proofs, and keeps schedules and runs their workflows.

Only the status of schedules is read from Temporal; lists come from the store. The arguments of workflows contain no secrets, and the worker
verifies them.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from importlib.metadata import version
from typing import Any

import structlog
from pydantic import ValidationError
from temporalio import activity
from temporalio.api.errordetails.v1 import NotFoundFailure
from temporalio.client import (
    Client,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleUpdate,
    ScheduleUpdateInput,
    WorkflowFailureError,
)
from temporalio.client import Schedule as TemporalSchedule
from temporalio.common import (
    RawValue,
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import ActivityError, ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from console.temporal import fire_workflow, schedules
from justenough.adapters.configuration.settings import Settings
from justenough.adapters.payload_codec import EncryptingCodec
from justenough.adapters.temporal import TemporalDown, connect_temporal, last_polls
from justenough.domain.approvals.statements import SignedStatement
from justenough.domain.contracts import search_attributes
from justenough.domain.contracts.workflow_messages import JobInput, ScheduleOccasion, SignedReport
from justenough.domain.core.base_model import Message
from justenough.domain.core.errors import GiveUp, JustEnoughError, RetryLater
from justenough.domain.integrations.triggers import Schedule
from justenough.domain.jobs.states import JobState

SWEEP = "Sweep"

STATE = SearchAttributeKey.for_keyword(search_attributes.STATE)
ENVIRONMENT = SearchAttributeKey.for_keyword(search_attributes.ENVIRONMENT)
REQUESTER = SearchAttributeKey.for_keyword(search_attributes.REQUESTER)

RPC_TIMEOUT = timedelta(seconds=5)
CALL_TIMEOUT = RPC_TIMEOUT + timedelta(seconds=1)
"""Limit for a call. The client's own timeout does not cover connecting: meanwhile each call waits until all earlier calls have failed."""
SCHEDULE_TIMEOUT = 3 * CALL_TIMEOUT
"""Limit for reading and then changing a schedule, or for reading a list of them."""
MAX_CONCURRENT_FIRES = 4
REPORT_TIMEOUT = timedelta(seconds=60)
"""Limit for a sweep or a proof that a caller waits for."""


class TemporalUnavailable(RetryLater):
    """Temporal or its workers do not answer."""


class WorkflowGone(GiveUp):
    """The job's workflow has closed or Temporal does not know it."""


@dataclass(frozen=True, slots=True)
class ScheduleStatus:
    """The status of a schedule in Temporal."""

    paused: bool
    note: str | None
    """Who paused it and why."""
    next: tuple[datetime, ...]
    missed: int
    """Runs that Temporal skipped because their catch-up window had passed."""


class SignedAnswer(Message):
    """The signed part of a check's result, which is all that the console trusts."""

    signed: SignedReport | None = None


TakeOccasion = Callable[[ScheduleOccasion], Awaitable[str]]
"""Orders the job of a scheduled run; returns its id, or why no job was ordered."""

log = structlog.get_logger()


class TemporalGateway:
    """The console's only access to Temporal."""

    def __init__(self, client: Client, settings: Settings, codec: EncryptingCodec | None = None) -> None:
        self._client = client
        self._settings = settings
        self._codec = codec

    @classmethod
    async def connect(cls, settings: Settings, codec: EncryptingCodec | None) -> TemporalGateway:
        """Return a gateway that connects when it is first used, so that the console starts without Temporal."""
        return cls(await connect_temporal(settings, identity=_identity(settings), codec=codec, lazy=True), settings, codec)

    async def start_job(self, order: JobInput, *, environment: str, requester: str) -> None:
        """Start the job's workflow unless it has ever been started. Raises TemporalUnavailable."""
        attributes = [
            SearchAttributePair(STATE, JobState.PENDING.value),
            SearchAttributePair(ENVIRONMENT, environment),
            SearchAttributePair(REQUESTER, requester),
        ]
        with suppress(WorkflowAlreadyStartedError):
            async with _translate_errors():
                await self._client.start_workflow(
                    "Job",
                    order,
                    id=order.job,
                    task_queue=self._settings.task_queue,
                    id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                    search_attributes=TypedSearchAttributes(attributes),
                    rpc_timeout=RPC_TIMEOUT,
                )

    async def has_workflow(self, job: str) -> bool:
        """Whether Temporal knows a workflow of this id, open or closed."""
        with suppress(WorkflowGone):
            async with _translate_lookup_errors():
                await self._client.get_workflow_handle(job).describe(rpc_timeout=RPC_TIMEOUT)
                return True
        return False

    async def decide(self, job: str, signed: SignedStatement) -> None:
        """Signal a signed decision to the job; Temporal keeps it until a worker runs. Raises WorkflowGone, TemporalUnavailable."""
        await self._signal(job, "decide", signed.model_dump(mode="json"))

    async def kill(self, job: str) -> None:
        """Signal the job to revoke its access and kill its process. Raises WorkflowGone, TemporalUnavailable."""
        await self._signal(job, "kill")

    async def revoke_credential(self, job: str, credential: str) -> None:
        """Signal the job to revoke one credential. Raises WorkflowGone, TemporalUnavailable."""
        await self._signal(job, "revoke_credential", credential)

    async def cancel(self, job: str) -> None:
        """Cancel the job's workflow. Raises WorkflowGone, TemporalUnavailable."""
        async with _translate_lookup_errors():
            await self._client.get_workflow_handle(job).cancel(rpc_timeout=RPC_TIMEOUT)

    async def start_sweep(self) -> None:
        """Start a sweep; do not wait for it. Raises TemporalUnavailable."""
        async with _translate_errors():
            await self._client.start_workflow(SWEEP, **self._one_off_options("sweep"), rpc_timeout=RPC_TIMEOUT)

    async def sweep(self, *, nonce: str) -> SignedReport | None:
        """Run a sweep and return its report as a worker signed it, unverified; None if it is not signed. Raises TemporalUnavailable."""
        return await self._execute(SWEEP, nonce, **self._one_off_options("sweep"))

    async def prove(self, job: str, *, nonce: str) -> SignedReport | None:
        """Check every credential of the job and return the findings as a worker signed them, unverified; None if they are not signed.

        Raises TemporalUnavailable.
        """
        return await self._execute("Prove", job, nonce, **self._one_off_options(f"prove-{job}"))

    async def ping(self) -> None:
        """Raise TemporalUnavailable if Temporal's frontend does not answer."""
        async with _translate_errors():
            await self._client.count_workflows("WorkflowId = '-'", rpc_timeout=RPC_TIMEOUT)

    async def prepare_encryption(self) -> None:
        """Create the key that encrypts what Temporal gets, if there is none. Raises RetryLater and GiveUp, as Vault does."""
        if self._codec is not None:
            await self._codec.prepare()

    async def last_polls(self) -> Mapping[str, datetime | None]:
        """Return when a worker last polled the task queues of jobs and of their endings, by queue. Raises TemporalUnavailable."""
        async with _translate_errors():
            return await last_polls(self._client, self._settings.task_queue)

    async def run_worker(self, take: TakeOccasion) -> None:
        """Run the workflows that schedules start, until cancelled; several consoles may run them. Raises TemporalUnavailable if it cannot connect.

        `take` orders the job of a scheduled run. Only the product's own error messages become part of a workflow's history.
        """

        @activity.defn(name=fire_workflow.TAKE_ACTIVITY)
        async def take_occasion(occasion: ScheduleOccasion) -> str:
            try:
                return await take(occasion)
            except JustEnoughError as error:
                raise ApplicationError(str(error), type=type(error).__name__, non_retryable=isinstance(error, GiveUp)) from None
            except Exception as error:
                log.exception("the job of a schedule could not be ordered", schedule=occasion.schedule)
                raise ApplicationError("unexpected error; the console's log has the details", type=type(error).__name__) from None

        # A worker needs a connected client, not a lazy one.
        try:
            client = await connect_temporal(self._settings, identity=_identity(self._settings), codec=self._codec)
        except TemporalDown as error:
            raise TemporalUnavailable(str(error)) from error
        worker = Worker(
            client,
            task_queue=self._console_task_queue,
            workflows=[fire_workflow.Fire],
            activities=[take_occasion],
            workflow_runner=UnsandboxedWorkflowRunner(),
            max_concurrent_activities=MAX_CONCURRENT_FIRES,
            # Without a build id, the SDK reads and hashes every loaded module.
            build_id=version("justenough"),
        )
        await worker.run()

    async def schedule_names(self) -> frozenset[str]:
        """Return the names of the installation's schedules; Temporal's list may lag behind. Raises TemporalUnavailable."""
        async with _translate_errors(SCHEDULE_TIMEOUT):
            ids = [schedule.id async for schedule in await self._client.list_schedules(rpc_timeout=RPC_TIMEOUT)]
        prefix = self._schedule_prefix
        return frozenset(schedule_id.removeprefix(prefix) for schedule_id in ids if schedule_id.startswith(prefix))

    async def put_schedule(self, name: str, definition: Schedule, *, pause: str | None) -> bool:
        """Create or update a schedule; return whether anything changed. An existing one keeps its paused state; a new one is paused if
        somebody paused it before (`pause`: who and why). Raises TemporalUnavailable.
        """
        schedule = schedules.to_temporal_schedule(
            name, definition, pause=pause, prefix=self._schedule_prefix, queue=self._console_task_queue
        )
        handle = self._client.get_schedule_handle(f"{self._schedule_prefix}{name}")
        try:
            async with _translate_lookup_errors(SCHEDULE_TIMEOUT):
                # Do not update without need: Temporal does not catch up on runs that were due before an update.
                current = (await handle.describe(rpc_timeout=RPC_TIMEOUT)).schedule
                if schedules.is_same(current, schedule) and await self._has_argument(current, name):
                    return False

                def keep_pause(update: ScheduleUpdateInput) -> ScheduleUpdate:
                    state = update.description.schedule.state
                    return ScheduleUpdate(replace(schedule, state=replace(state, limited_actions=False, remaining_actions=0)))

                await handle.update(keep_pause, rpc_timeout=RPC_TIMEOUT)
        except WorkflowGone:
            # Another console may create the same schedule first.
            with suppress(ScheduleAlreadyRunningError):
                async with _translate_errors():
                    await self._client.create_schedule(handle.id, schedule, rpc_timeout=RPC_TIMEOUT)
        return True

    async def _has_argument(self, schedule: TemporalSchedule, name: str) -> bool:
        """Whether a schedule in Temporal starts its workflow with this argument alone. Raises RetryLater."""
        assert isinstance(schedule.action, ScheduleActionStartWorkflow)
        try:
            return await self._client.data_converter.decode(schedule.action.args) == [name]
        except RetryLater:
            raise
        except Exception:  # noqa: BLE001 - anybody may have written anything there
            return False

    async def delete_schedule(self, name: str) -> None:
        """Delete a schedule of the installation, if it exists. Raises TemporalUnavailable."""
        with suppress(WorkflowGone):
            async with _translate_lookup_errors():
                await self._client.get_schedule_handle(f"{self._schedule_prefix}{name}").delete(rpc_timeout=RPC_TIMEOUT)

    async def schedule_status(self, name: str) -> ScheduleStatus | None:
        """Return a schedule's status; None if Temporal does not know it. Raises TemporalUnavailable."""
        with suppress(WorkflowGone):
            async with _translate_lookup_errors():
                description = await self._client.get_schedule_handle(f"{self._schedule_prefix}{name}").describe(rpc_timeout=RPC_TIMEOUT)
                state, info = description.schedule.state, description.info
                return ScheduleStatus(state.paused, state.note, tuple(info.next_action_times), info.num_actions_missed_catchup_window)
        return None

    async def set_schedule_paused(self, name: str, note: str, *, paused: bool) -> None:
        """Pause or unpause a schedule. Raises WorkflowGone if Temporal does not know it, TemporalUnavailable."""
        handle = self._client.get_schedule_handle(f"{self._schedule_prefix}{name}")
        async with _translate_lookup_errors():
            await (handle.pause if paused else handle.unpause)(note=note, rpc_timeout=RPC_TIMEOUT)

    @property
    def _schedule_prefix(self) -> str:
        return f"je-{self._settings.installation}-schedule-"

    @property
    def _console_task_queue(self) -> str:
        """The task queue that consoles poll."""
        return f"{self._settings.task_queue}-console"

    def _one_off_options(self, name: str) -> dict[str, Any]:
        """Return the options of a workflow that nobody can have started before: its id cannot be guessed, and no existing one is joined."""
        return {
            "id": f"je-{self._settings.installation}-{name}-{secrets.token_hex(16)}",
            "task_queue": self._settings.task_queue,
            "id_reuse_policy": WorkflowIDReusePolicy.REJECT_DUPLICATE,
            "execution_timeout": REPORT_TIMEOUT,
        }

    async def _execute(self, workflow: str, *args: str, **options: Any) -> SignedReport | None:
        try:
            async with _translate_errors(REPORT_TIMEOUT + CALL_TIMEOUT):
                # Anybody who can write to Temporal may have answered, with anything.
                answer = await self._client.execute_workflow(workflow, args=args, result_type=RawValue, **options)
                return SignedAnswer.model_validate_json(answer.payload.data).signed
        except ValidationError:
            return None
        except WorkflowFailureError as error:
            # A worker's messages are passed on only if they are the product's own.
            cause = error.cause
            while isinstance(cause, ActivityError) and cause.cause is not None:
                cause = cause.cause
            why = str(cause) if isinstance(cause, ApplicationError) else "no worker answered in time"
            raise TemporalUnavailable(f"{workflow} did not finish: {why}") from error

    async def _signal(self, job: str, name: str, *args: Any) -> None:
        async with _translate_lookup_errors():
            await self._client.get_workflow_handle(job).signal(name, args=args, rpc_timeout=RPC_TIMEOUT)


def _identity(settings: Settings) -> str:
    return f"justenough-console-{settings.installation}"


@asynccontextmanager
async def _translate_errors(limit: timedelta = CALL_TIMEOUT) -> AsyncIterator[None]:
    """Translate errors of Temporal's client and of its codec into TemporalUnavailable; after `limit`, cancel the block and raise that, too."""
    try:
        async with asyncio.timeout(limit.total_seconds()):
            yield
    except TimeoutError as error:
        raise TemporalUnavailable(f"Temporal did not answer within {limit.total_seconds():g} s") from error
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:
            # The namespace does not exist. A busy server has also answered this to the start of a workflow.
            raise TemporalUnavailable(f"Temporal answered: {error.message}") from error
        raise TemporalUnavailable(f"Temporal does not answer ({error.status.name.lower()})") from error
    except RetryLater as error:
        raise TemporalUnavailable(f"payloads for Temporal cannot be encrypted or decrypted: {error.for_callers}") from error
    except RuntimeError as error:
        # Temporal's client raises RuntimeError if it cannot connect.
        raise TemporalUnavailable("Temporal does not answer (no connection)") from error


@asynccontextmanager
async def _translate_lookup_errors(limit: timedelta = CALL_TIMEOUT) -> AsyncIterator[None]:
    """Do the same as `_translate_errors` for a call that names a workflow or schedule. Raises WorkflowGone if Temporal does not find it."""
    async with _translate_errors(limit):
        try:
            yield
        except RPCError as error:
            # Without its namespace, Temporal says nothing about the workflow.
            if any(detail.Is(NotFoundFailure.DESCRIPTOR) for detail in error.grpc_status.details):
                raise WorkflowGone("the workflow is no longer running") from error
            raise
