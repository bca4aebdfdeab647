"""The tools that a job may use, and each call: resolved, decided, executed with a separate credential, scrubbed, recorded. Knows no MCP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import structlog

from activities.broker.broker import Broker
from activities.broker.errors import TooManyCalls
from activities.broker.tools.discovery import OfferedTool, tool_entry, with_how
from activities.broker.tools.executors import Result, ToolsChanged, failure, list_mcp_tools, run_http, run_mcp, run_sql
from activities.broker.tools.upstream_drift import UpstreamDrift
from activities.delivery.delivery import secret_texts
from activities.issuing.grants import CallCounts
from activities.issuing.issuer import Issuer
from activities.issuing.results import AccessClosed, AccessDenied, IssuedCredential, IssueRefused, NotPermitted, PendingRequest
from activities.support.async_tools import wait_up_to
from justenough.domain.catalog.loader import problems_in_spec
from justenough.domain.catalog.mcp_upstreams import UpstreamListingTool, UpstreamTool
from justenough.domain.core.canonical_json import to_canonical_json
from justenough.domain.core.errors import InvalidInput, JustEnoughError, NotFound, Problem, RetryLater
from justenough.domain.core.placeholders import did_you_mean
from justenough.domain.core.redaction import Redactor
from justenough.domain.jobs.states import Action, RequestState
from justenough.domain.ledger.events import Event, EventType, build_event
from justenough.domain.tools.call import CallAccess, OutOfBounds, ToolCall, action_of, build_http_request, checked_call, sql_parameters
from justenough.domain.tools.definitions import Tool
from justenough.services.dependencies import Deps
from justenough.services.evaluate_request import evaluate_request
from justenough.services.inherited_limits import can_use_tool
from justenough.services.verify_order import VerifiedOrder

POLL_INTERVAL = timedelta(seconds=0.5)
"""Time between two checks of whether people have answered and whether the caller still waits."""
PROGRESS_INTERVAL_S = 5.0
MAX_CONCURRENT_CALLS = 64
"""Calls of one job that are being made or wait for people, even if their caller has disconnected."""
MAX_UNDONE_RECORDED = 200
"""Maximum number of recorded calls of one job that were not made: a job must not flood the ledger."""
MAX_REASON_CHARS = 1_000
MAX_NAMES_LISTED = 30
"""Names of other tools in one answer."""
log = structlog.get_logger()

ReportProgress = Callable[[PendingRequest, float], Awaitable[None]]
"""Called every few seconds while a call waits for people, with the request and the seconds so far."""


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """The job's answer: text without the secret, and whether it is an error."""

    text: str
    failed: bool = False


@dataclass(frozen=True, slots=True)
class _Caller:
    """The caller of a tool: how to report progress to it, how many seconds it waits, and the id that it gave its call."""

    report_progress: ReportProgress
    max_wait: float
    call_id: int | str | None
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set if it no longer waits: it has disconnected, or cancelled the call."""


@dataclass(frozen=True, slots=True)
class _ResolvedCall:
    """A checked call, with its tool and the action that it needs."""

    tool: Tool
    call: ToolCall
    action: Action
    counted: frozenset[str]
    """The arguments whose calls are counted by value."""


@dataclass(slots=True)
class _CallRecord:
    """The ledger entries of one call, filled in as the call proceeds."""

    call: ToolCall
    action: str
    began: float
    outcome: str = "failed"
    request: str | None = None
    credential: str | None = None
    answer: ToolAnswer = field(default=ToolAnswer("the job's access was closed during the call", failed=True))

    def to_events(self, job: str, number: int, *, at: datetime, ticks: float) -> Iterator[Event]:
        if used := self.credential:
            # Usually it was recorded when the credential was given back, but not if it ended before that.
            what = f"tool {self.call.tool}"
            yield build_event(EventType.CREDENTIAL_USED, job, at=at, about=used, credential=used, what=what)
        yield build_event(
            EventType.TOOL_CALLED,
            job,
            at=at,
            about=str(number),
            tool=self.call.tool,
            arguments=self.call.digest,
            action=self.action,
            outcome=self.outcome,
            request=self.request,
            credential=self.credential,
            duration_ms=round((ticks - self.began) * 1000),
            answer_bytes=len(self.answer.text.encode("utf-8", "replace")),
        )


class ToolGateway:
    """The tools of one job. Every method raises AccessClosed once the broker is closed."""

    def __init__(self, deps: Deps, verified: VerifiedOrder, issuer: Issuer, broker: Broker) -> None:
        self._deps = deps
        self._verified = verified
        self._job = verified.statement.job
        self._issuer = issuer
        self._broker = broker
        self._drift = UpstreamDrift(deps, self._job, verified.spec.environment)
        self._calls = self._undone = 0
        self._callers: list[_Caller] = []
        """The callers of calls that are being made or wait for people, disconnected callers included."""
        self._made = CallCounts()
        """The calls that were made or are under way: bounds count them."""
        self._unrecorded: dict[str, Event] = {}

    async def offered_tools(self) -> list[OfferedTool]:
        """Return the tools that policy does not deny this job at every tier."""
        return await self._broker.run_in_thread(self._offered_tools)

    async def call(
        self, name: str, arguments: Any, *, report_progress: ReportProgress, max_wait: float, call_id: int | str | None = None
    ) -> ToolAnswer:
        """Call a tool and return its answer. If it was not called, the answer explains why, for a model to read.

        `max_wait`: seconds to wait for people. `call_id`: for `stop_waiting`. If the caller goes away, a call that is being made is finished; a
        call that waits for people is dropped, and the next identical call waits for the same request. Raises AccessClosed, TooManyCalls.
        """
        if len(self._callers) >= MAX_CONCURRENT_CALLS:
            raise TooManyCalls(1.0)
        # Count the call before the first await: other calls may arrive at the same moment.
        caller = _Caller(report_progress, max_wait, call_id)
        self._callers.append(caller)

        async def call_to_the_end() -> ToolAnswer:
            try:
                return await self._call(name, arguments, caller=caller)
            finally:
                self._callers.remove(caller)

        try:
            return await self._broker.run_while_open(call_to_the_end())
        except asyncio.CancelledError:
            caller.gone.set()
            raise

    def stop_waiting(self, call_id: int | str) -> None:
        """Drop the calls with this id if they wait for people.

        If another client of the job gave its call the same id, that call is dropped, too. Its answer says so, and it can be repeated.
        """
        for caller in self._callers:
            if caller.call_id == call_id:
                caller.gone.set()

    async def catalog(self) -> dict[str, list[dict[str, Any]]]:
        """Return everything that this job may request: `access` (Broker.catalog), `tools`, and the `withheld` upstream servers."""
        access, tools = await self._broker.catalog(), await self.offered_tools()
        current = self._deps.config.current().catalog
        return {
            "access": with_how(access, tools, self._verified.spec, current),
            "tools": [tool_entry(tool) for tool in tools],
            "withheld": [{"upstream": name, "why": why} for name, why in self._drift.withheld_servers().items()],
        }

    async def _call(self, name: str, arguments: Any, *, caller: _Caller) -> ToolAnswer:
        """Make one call: resolve the tool, bind the call, borrow a credential for it, execute it, record it."""
        try:
            # In a thread: matching a long argument against an untrusted schema must not block the loop that serves every job.
            resolved = await self._broker.run_in_thread(partial(self._resolve, name, arguments))
        except InvalidInput as error:
            await self._broker.record_refusal(f"tool {name[:64]}", str(error))
            await self._broker.run_in_thread(self._drift.record_withheld)
            return ToolAnswer(str(error), failed=True)

        self._calls += 1
        tool, call, action = resolved.tool, resolved.call, resolved.action
        calls_made, same_value_calls = self._made.of_tool(call), self._made.with_same_value(call, resolved.counted)
        self._made.add(call, resolved.counted)
        number, record = self._calls, _CallRecord(call, f"{tool.uses.resource}:{action}", self._deps.ticks())

        def bind() -> CallAccess:
            bound = self._issuer.tool_bounds.bound_call(
                call, tool.uses.resource, action, calls_made=calls_made, same_value_calls=same_value_calls
            )
            return self._call_access(tool, bound, action)

        try:
            access = await self._broker.run_in_thread(bind)
            record.answer = await self._borrow_and_execute(tool, access, record, caller=caller)
        except AccessClosed:
            raise
        except (JustEnoughError, OutOfBounds) as error:
            record.answer = await self._explain_failure(error, name, record)
        finally:
            if record.credential is None:
                self._made.add(resolved.call, resolved.counted, times=-1)
                self._undone += 1
            # Even if the broker closes now, a call that was made must be in the ledger.
            if record.credential is not None or self._undone <= MAX_UNDONE_RECORDED:
                build = partial(record.to_events, self._job, number, at=self._deps.now(), ticks=self._deps.ticks())
                await asyncio.shield(self.record(build))
        return record.answer

    async def record(self, build: Callable[[], Iterator[Event]]) -> None:
        """Record a call. If the store is unreachable, the next call or the session's end records it: a caller without an answer would call again."""
        # In a thread: the digest of long arguments takes milliseconds.
        self._unrecorded |= await asyncio.to_thread(lambda: {event.id: event for event in build()})
        events = self.unrecorded_events()
        try:
            await asyncio.to_thread(self._deps.store.ledger.append, events)
        except RetryLater as error:
            log.warning("tool calls not recorded yet", job=self._job, calls=len(events), error=type(error).__name__)
        else:
            for recorded in events:
                self._unrecorded.pop(recorded.id, None)

    def unrecorded_events(self) -> tuple[Event, ...]:
        """Return the calls that are not in the ledger yet. Recording an event twice changes nothing."""
        return tuple(self._unrecorded.values())

    def _resolve(self, name: str, arguments: Any) -> _ResolvedCall:
        """Return the checked call. Raises InvalidInput."""
        known = self._known_tools()
        tool = known.get(name)
        action = self._possible_action(name, tool) if tool else None
        if tool is None or action is None:
            possible = [each for each, other in known.items() if self._possible_action(each, other)]
            withheld = "".join(f"; {why}" for why in self._drift.withheld_servers().values())
            raise InvalidInput(
                "tool", (Problem("", f"there is no tool {name[:64]!r} for this job{did_you_mean(name, possible)}{withheld}"),)
            )
        call = checked_call(name, tool, arguments)
        return _ResolvedCall(tool, call, action, self._issuer.tool_bounds.counted_arguments(name, tool.uses.resource, action))

    async def _borrow_and_execute(self, tool: Tool, access: CallAccess, record: _CallRecord, *, caller: _Caller) -> ToolAnswer:
        """Execute a call with a separate credential if policy and, if needed, people allow it; else return the request that it waits for."""
        call, began = access.call, self._deps.ticks()
        while True:
            # A call may wait for people for minutes. If somebody removes the tool, its pin or its address meanwhile, it must not be called.
            if self._known_tools().get(call.tool) != tool:
                problem = Problem("", f"the catalog has changed: it no longer defines {call.tool} as it did when this call began")
                raise InvalidInput("tool", (problem,))
            async with self._broker.borrow(access, used_for=f"tool {call.tool}", waited_for=record.request or "") as lent:
                if isinstance(lent, IssuedCredential):
                    record.request, record.credential = lent.credential.request_id, lent.credential.id
                    return await self._execute_scrubbed(tool, call, lent, record)
            record.request, record.outcome = lent.request_id, "pending"
            try:
                pending = await self._wait_for_people(lent, began, caller)
            except NotFound:
                # A failover of the store lost the request. If asked again, the issuer makes another one.
                continue
            if pending.state is RequestState.PENDING or caller.gone.is_set():
                until = f" They can decide until {pending.respond_by.isoformat(timespec='seconds')}." if pending.respond_by else ""
                what = f"This waits for people's approval (request {pending.request_id}, tier {pending.tier}); nothing was done."
                then = "Continue with other work. After the approval, call again with exactly the same arguments."
                return ToolAnswer(f"{what}{until} {then}", failed=True)

    async def _wait_for_people(self, pending: PendingRequest, began: float, caller: _Caller) -> PendingRequest:
        """Return the state of a request once people have answered it, the caller's wait has timed out, or the caller has disconnected."""
        next_report = 0.0
        while pending.state is RequestState.PENDING and not caller.gone.is_set():
            seconds = self._deps.ticks() - began
            if seconds >= caller.max_wait:
                break
            if seconds >= next_report:
                await caller.report_progress(pending, seconds)
                next_report = seconds + PROGRESS_INTERVAL_S
            await wait_up_to(POLL_INTERVAL, caller.gone)
            pending = await self._broker.request(pending.request_id)
        return pending

    async def _execute_scrubbed(self, tool: Tool, call: ToolCall, issued: IssuedCredential, record: _CallRecord) -> ToolAnswer:
        """Execute a call and return its answer without the credential, in any encoding in which programs print it."""
        record.outcome = "failed"
        fields = {name: value.reveal() for name, value in issued.fields.items()}
        redactor = Redactor(secret_texts(issued.fields))
        scope = {key: value for key, value in self._verified.spec.data_scope.items() if key not in tool.inputs}
        result: Result | ToolsChanged = failure("the catalog does not define how to call it")
        if tool.sql:
            writes = issued.access.action is not Action.READ
            result = await run_sql(tool.sql, sql_parameters(tool.sql, call, scope), fields, writes=writes)
        elif tool.http:
            build = partial(build_http_request, tool.http, call, {**scope, **fields}, inputs=tool.inputs)
            result = await run_http(tool.http, await self._broker.run_in_thread(build))
        elif isinstance(tool, UpstreamListingTool) and tool.mcp:
            result = await list_mcp_tools(tool.mcp, {**scope, **fields})
        elif isinstance(tool, UpstreamTool) and tool.mcp:
            result = await run_mcp(tool, tool.mcp, call, {**scope, **fields}, is_reviewed=self._drift.note_shown)
        if isinstance(result, ToolsChanged):
            record.outcome = "refused"
            record_changed = partial(self._drift.record_changed, result.tool, result.shown, redactor)
            return ToolAnswer(await self._broker.run_in_thread(record_changed), failed=True)

        def scrub() -> str:
            shown = redactor.feed(result.content)
            # If the answer was truncated, its end may be the beginning of the credential, so drop what the redactor still holds back.
            return (shown if result.cut else shown + redactor.flush()).decode("utf-8", "replace")

        # In a thread: a long answer takes a while to scrub, and this loop serves every job of the worker.
        text = await asyncio.to_thread(scrub)
        record.outcome = "failed" if result.failed else "done"
        return ToolAnswer(text + ("\n… truncated; request less data" if result.cut else ""), failed=result.failed)

    async def _explain_failure(self, error: JustEnoughError | OutOfBounds, name: str, record: _CallRecord) -> ToolAnswer:
        """Explain to a model why a call was not made and what the job may do instead."""
        if isinstance(error, OutOfBounds):
            record.outcome = "denied"
            return ToolAnswer(f"Denied: {error}. {await self._broker.run_in_thread(partial(self._alternatives, name))}", failed=True)
        if isinstance(error, NotPermitted):
            record.outcome = "denied"
            record.request = error.request if isinstance(error, AccessDenied) else None
            by = f" (by {', '.join(error.policies)})" if isinstance(error, AccessDenied) and error.policies else ""
            instead = await self._broker.run_in_thread(partial(self._alternatives, name))
            return ToolAnswer(f"Denied: {error}{by}. Do not retry it with different wording. {instead}", failed=True)
        if isinstance(error, RetryLater):
            return ToolAnswer(f"Not done now: {error}. Try again later.", failed=True)
        return ToolAnswer(f"Not done: {error if isinstance(error, IssueRefused | InvalidInput) else type(error).__name__}", failed=True)

    def _call_access(self, tool: Tool, call: ToolCall, action: Action) -> CallAccess:
        ttl = self._broker.default_ttl(tool.uses.resource, action)
        reason = f"{call.tool} with {to_canonical_json(dict(call.arguments)).decode()}"
        short = reason if len(reason) <= MAX_REASON_CHARS else reason[: MAX_REASON_CHARS - 1] + "…"
        return CallAccess(resource=tool.uses.resource, action=action, ttl=ttl, reason=short, at="request", call=call)

    def _known_tools(self) -> dict[str, Tool]:
        return self._deps.config.current().catalog.named_tools

    def _possible_action(self, name: str, tool: Tool) -> Action | None:
        """Return a tool's action if the catalog lets this job request it at all, in its environment and data scope; else None."""
        action, bounds = action_of(tool.uses, name), self._issuer.tool_bounds
        if action is None or not bounds.lets_through(name, tool.uses.resource, action):
            return None
        # A tool that lists other tools is available only if the order names it.
        if isinstance(tool, UpstreamListingTool) and not bounds.order_items(tool.uses.resource, action):
            return None
        spec = self._verified.spec.model_copy(update={"access": (self._call_access(tool, ToolCall(tool=name, arguments={}), action),)})
        return None if problems_in_spec(spec, self._deps.config.current().catalog) else action

    def _offered_tools(self) -> list[OfferedTool]:
        self._drift.record_withheld()
        offered = []
        for name, tool in self._known_tools().items():
            action = self._possible_action(name, tool)
            if action is None or not self._drift.may_be_offered(tool):
                continue
            if not can_use_tool(self._deps, name, tool.uses.resource, action, self._verified.statement):
                continue
            access = self._call_access(tool, ToolCall(tool=name, arguments={}), action)
            decision, facts = evaluate_request(
                self._deps, self._job, self._verified, access, held=self._issuer.holdings.held, phase="runtime"
            )
            if decision.outcome != "denied":
                offered.append(OfferedTool(name, tool, action, decision, facts.beyond))
        return offered

    def _alternatives(self, name: str) -> str:
        """Return a sentence that names, for a model, the other tools that the job may use."""
        offered = [tool for tool in self._offered_tools() if tool.name != name]
        free = [tool.name for tool in offered if tool.decision.outcome == "allowed"]
        guarded = [tool.name for tool in offered if tool.decision.outcome != "allowed"]
        sentences = [f"You may use without approval: {_join_names(free)}."] if free else []
        sentences += [f"With people's approval: {_join_names(guarded)}."] if guarded else []
        return " ".join(sentences) or "This job has no other tools: continue without them, or report what could not be done."


def _join_names(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMES_LISTED} more" if len(names) > MAX_NAMES_LISTED else ""
    return ", ".join(names[:MAX_NAMES_LISTED]) + more
