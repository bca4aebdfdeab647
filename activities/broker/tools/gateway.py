"""What tools a job may use, and each call of one: checked, decided, done with a credential of its own, scrubbed, recorded. Knows no MCP."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from activities.broker.broker import Broker, PendingRequest
from activities.broker.errors import TooManyCalls
from activities.broker.tools import http_executor, mcp_executor, sql_executor
from activities.broker.tools.discovery import OfferedTool, tool_entry, with_how
from activities.broker.tools.executors import Result, failure
from activities.broker.tools.mcp_executor import ToolsChanged
from activities.broker.tools.upstream_drift import UpstreamDrift
from activities.delivery.delivery import PUBLIC_FIELDS
from activities.issuing.issuer import Issuer
from activities.issuing.results import AccessClosed, AccessDenied, IssuedCredential, NotIssued, NotPermitted
from justenough.domain.catalog.loader import problems_in_spec
from justenough.domain.catalog.mcp_upstreams import UpstreamListingTool, UpstreamTool
from justenough.domain.core.canonical_json import to_canonical_json
from justenough.domain.core.errors import InvalidInput, JustEnoughError, Problem, RetryLater
from justenough.domain.core.placeholders import did_you_mean
from justenough.domain.core.redaction import Redactor
from justenough.domain.jobs.states import Action, RequestState
from justenough.domain.ledger.events import EventType, build_event
from justenough.domain.tools.call import CallAccess, OutOfBounds, ToolCall, action_of, build_http_request, checked_call, sql_parameters
from justenough.domain.tools.definitions import Tool
from justenough.services.dependencies import Deps
from justenough.services.evaluate_request import evaluate_request
from justenough.services.inherited_limits import can_use_tool
from justenough.services.verify_order import VerifiedOrder

POLL_INTERVAL_S, PROGRESS_INTERVAL_S = 0.5, 5.0
"""Seconds between two looks whether people have answered and whether anybody still waits for it; and between two words of progress."""
MAX_CONCURRENT_CALLS = 64
"""Calls of one job that are being made, or wait for people, whether or not anybody still waits for them."""
MAX_UNDONE_RECORDED = 200
"""Calls of one job that came to nothing, each with an entry of its own: the ledger is no place for a flood."""
MAX_REASON_CHARS = 1_000
MAX_NAMES_LISTED = 30
"""Of other tools, in an answer."""

ReportProgress = Callable[[PendingRequest, float], Awaitable[None]]
"""Told every few seconds that a call waits for people, and for how many seconds it has."""


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """What the job gets: text without the secret, and whether it is an error."""

    text: str
    failed: bool = False


@dataclass(frozen=True, slots=True)
class _Caller:
    """Who waits for a call: how they are told, for how many seconds, and whether they have gone."""

    tell: ReportProgress
    seconds: float
    gone: asyncio.Event


@dataclass(slots=True)
class _CallRecord:
    """What the ledger is told of one call, as far as it has come."""

    call: ToolCall
    action: str
    began: float
    outcome: str = "failed"
    request: str | None = None
    credential: str | None = None
    answer: ToolAnswer = field(default=ToolAnswer("the job's access was closed meanwhile", failed=True))


class ToolGateway:
    """One job's. Every method raises Closed once its door is shut."""

    def __init__(self, deps: Deps, verified: VerifiedOrder, issuer: Issuer, broker: Broker) -> None:
        self._deps = deps
        self._verified = verified
        self._job = verified.statement.job
        self._issuer = issuer
        self._broker = broker
        self._drift = UpstreamDrift(deps, self._job, verified.spec.environment)
        self._calls = self._under_way = self._undone = 0
        self._made: Counter[str] = Counter()
        """Calls by tool that were made, or are on their way: bounds count them."""

    async def offered_tools(self) -> list[OfferedTool]:
        """Return the tools that this job may ever use: those that policy does not deny at every tier. Raises AskedTooOften too."""
        self._broker.admit()
        return await self._broker.run_in_thread(self._offered_tools)

    async def call(self, name: str, arguments: Any, *, report_progress: ReportProgress, max_wait: float) -> ToolAnswer:
        """Call a tool and return what it answered, or why it was not done: a model reads that, so it is an answer too.

        `patience`: seconds to wait for people. Whoever asked may go away: what is being done is done to its end, what waits is not done
        then, and waits for the next call of the same. Raises Closed, AskedTooOften.
        """
        self._broker.admit()
        if self._under_way >= MAX_CONCURRENT_CALLS:
            raise TooManyCalls(1.0)
        # Before anything is awaited: others come in the same moment.
        self._under_way += 1
        gone = asyncio.Event()
        try:
            return await self._broker.run_while_open(self._call_counted(name, arguments, caller=_Caller(report_progress, max_wait, gone)))
        except asyncio.CancelledError:
            gone.set()
            raise

    async def catalog(self) -> dict[str, list[dict[str, Any]]]:
        """Return all that this job may ask for, and how: `access` (Door.catalog), `tools`, and the upstream servers that are `withheld`."""
        access, tools = await self._broker.catalog(), await self.offered_tools()
        current = self._deps.config.current().catalog
        return {
            "access": with_how(access, tools, self._verified.spec, current),
            "tools": [tool_entry(one) for one in tools],
            "withheld": [{"upstream": name, "why": why} for name, why in self._drift.withheld_servers().items()],
        }

    async def _call_counted(self, name: str, arguments: Any, *, caller: _Caller) -> ToolAnswer:
        """Call; it is under way until it is done, also where whoever asked has gone."""
        try:
            return await self._call(name, arguments, caller=caller)
        finally:
            self._under_way -= 1

    async def _call(self, name: str, arguments: Any, *, caller: _Caller) -> ToolAnswer:
        try:
            # In a thread: what a stranger's schema makes of a long argument must not keep the loop that serves every job.
            tool, call, action = await self._broker.run_in_thread(partial(self._check_call, name, arguments))
        except InvalidInput as error:
            await self._broker.record_refusal(f"tool {name[:64]}", str(error))
            await self._broker.run_in_thread(self._drift.record_withheld)
            return ToolAnswer(str(error), failed=True)
        self._calls += 1
        number, told = self._calls, _CallRecord(call, f"{tool.uses.resource}:{action}", self._deps.ticks())
        self._made[name] += 1
        try:
            binding = partial(self._issuer.tool_bounds.bound_call, call, tool.uses.resource, action, made=self._made[name] - 1)
            call = await self._broker.run_in_thread(binding)
            told.answer = await self._attempt(tool, call, action, told, caller=caller)
            return told.answer
        except OutOfBounds as error:
            told.outcome = "denied"
            instead = await self._broker.run_in_thread(partial(self._alternatives, name))
            told.answer = ToolAnswer(f"Denied: {error}. {instead}", failed=True)
            return told.answer
        finally:
            if told.credential is None:
                self._made[name] -= 1
                self._undone += 1
            # Also where the door closes just now: what was done is in the ledger.
            if told.credential is not None or self._undone <= MAX_UNDONE_RECORDED:
                await asyncio.shield(asyncio.to_thread(self._record, number, told))

    def _check_call(self, name: str, arguments: Any) -> tuple[Tool, ToolCall, Action]:
        """Return the tool, the call and the action that it needs. Raises InvalidInput."""
        # Not each of a server's hundreds.
        tool = self._known_tools().get(name)
        if tool is None or not self._is_possible(name, tool):
            tools = self._possible_tools()
            withheld = "".join(f"; {why}" for why in self._drift.withheld_servers().values())
            raise InvalidInput("tool", (Problem("", f"there is no tool {name[:64]!r} for this job{did_you_mean(name, tools)}{withheld}"),))
        action = action_of(tool.uses, name)
        if action is None:
            raise InvalidInput("tool", (Problem("", f"{name}: the catalog says no action for it"),))
        return tool, checked_call(name, tool, arguments), action

    async def _attempt(self, tool: Tool, call: ToolCall, action: Action, record: _CallRecord, *, caller: _Caller) -> ToolAnswer:
        """Do it, or say in words for a model why it was not done."""
        try:
            return await self._borrow_and_execute(tool, call, action, record, caller=caller)
        except AccessClosed:
            raise
        except NotPermitted as error:
            record.outcome = "denied"
            record.request = error.request if isinstance(error, AccessDenied) else None
            by = f" (by {', '.join(error.policies)})" if isinstance(error, AccessDenied) and error.policies else ""
            instead = await self._broker.run_in_thread(partial(self._alternatives, call.tool))
            return ToolAnswer(f"Denied: {error}{by}. Do not try it again with other words. {instead}", failed=True)
        except RetryLater as error:
            return ToolAnswer(f"Not done now: {error}. It may be tried again in a while.", failed=True)
        except (NotIssued, InvalidInput) as error:
            return ToolAnswer(f"Not done: {error}", failed=True)
        except JustEnoughError as error:
            return ToolAnswer(f"Not done: {type(error).__name__}", failed=True)

    async def _borrow_and_execute(self, tool: Tool, call: ToolCall, action: Action, record: _CallRecord, *, caller: _Caller) -> ToolAnswer:
        wanted, began = self._call_access(tool, call, action), self._deps.ticks()
        while True:
            async with self._broker.borrow(wanted, used_for=f"tool {call.tool}") as lent:
                if isinstance(lent, IssuedCredential):
                    record.request, record.credential = lent.credential.request_id, lent.credential.id
                    return await self._execute_scrubbed(tool, call, lent, record)
            record.request, record.outcome = lent.request_id, "pending"
            lent = await self._wait_for_people(lent, began, caller)
            if lent.state is RequestState.PENDING or caller.gone.is_set():
                return ToolAnswer(_waiting_text(lent), failed=True)

    async def _wait_for_people(self, pending: PendingRequest, began: float, caller: _Caller) -> PendingRequest:
        """Return how a request stands once people have answered it, or nobody waits for it any more."""
        told = 0.0
        while pending.state is RequestState.PENDING and not caller.gone.is_set():
            seconds = self._deps.ticks() - began
            if seconds >= caller.seconds:
                break
            if seconds >= told:
                await caller.tell(pending, seconds)
                told = seconds + PROGRESS_INTERVAL_S
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_INTERVAL_S):
                    await caller.gone.wait()
            pending = await self._broker.request(pending.request_id)
        return pending

    async def _execute_scrubbed(self, tool: Tool, call: ToolCall, issued: IssuedCredential, record: _CallRecord) -> ToolAnswer:
        record.outcome = "failed"
        fields = {name: value.reveal() for name, value in issued.fields.items()}
        result = await self._execute(tool, call, issued.access.action, fields)
        if isinstance(result, ToolsChanged):
            record.outcome = "refused"
            refused = partial(self._drift.record_changed, result.tool, result.shown, _redactor(fields))
            return ToolAnswer(await self._broker.run_in_thread(refused), failed=True)
        # In a thread: a long answer takes a while to be looked through, and this loop serves every job of the worker.
        text = await asyncio.to_thread(_scrub, result, fields)
        record.outcome = "failed" if result.failed else "done"
        return ToolAnswer(text + ("\n… there is more; ask for less" if result.cut else ""), failed=result.failed)

    async def _execute(self, tool: Tool, call: ToolCall, action: Action, fields: Mapping[str, str]) -> Result | ToolsChanged:
        scope = {key: value for key, value in self._verified.spec.data_scope.items() if key not in tool.inputs}
        if tool.sql:
            return await sql_executor.run(tool.sql, sql_parameters(tool.sql, call, scope), fields, writes=action is not Action.READ)
        if tool.http:
            return await http_executor.run(tool.http, build_http_request(tool.http, call, {**scope, **fields}, inputs=tool.inputs))
        if isinstance(tool, UpstreamListingTool) and tool.mcp:
            return await mcp_executor.list_tools(tool.mcp, {**scope, **fields})
        if isinstance(tool, UpstreamTool) and tool.mcp:
            return await mcp_executor.run(tool, tool.mcp, call, {**scope, **fields}, is_reviewed=self._drift.note_shown)
        return failure("the catalog says no way to do it")

    def _call_access(self, tool: Tool, call: ToolCall, action: Action) -> CallAccess:
        ttl = self._broker.default_ttl(tool.uses.resource, action)
        reason = f"{call.tool} with {to_canonical_json(dict(call.arguments)).decode()}"
        short = reason if len(reason) <= MAX_REASON_CHARS else reason[: MAX_REASON_CHARS - 1] + "…"
        return CallAccess(resource=tool.uses.resource, action=action, ttl=ttl, reason=short, at="request", call=call)

    def _possible_tools(self) -> dict[str, Tool]:
        """Return the tools whose action the catalog lets this job ask for at all: its environment, its data scope."""
        return {name: tool for name, tool in self._known_tools().items() if self._is_possible(name, tool)}

    def _known_tools(self) -> dict[str, Tool]:
        current = self._deps.config.current().catalog
        return {**current.callable, **current.listings}

    def _is_possible(self, name: str, tool: Tool) -> bool:
        action = action_of(tool.uses, name)
        if action is None or not self._is_in_order(name, tool, action):
            return False
        spec = self._verified.spec.model_copy(update={"access": (self._call_access(tool, ToolCall(tool=name, arguments={}), action),)})
        return not problems_in_spec(spec, self._deps.config.current().catalog)

    def _is_in_order(self, name: str, tool: Tool, action: Action) -> bool:
        """Whether the order lets this tool through at all; one that lists others only where it names it."""
        bindings = self._issuer.tool_bounds
        if isinstance(tool, UpstreamListingTool) and not bindings.order_items(tool.uses.resource, action):
            return False
        return bindings.lets_through(name, tool.uses.resource, action)

    def _offered_tools(self) -> list[OfferedTool]:
        self._drift.record_withheld()
        standing = {name: tool for name, tool in self._possible_tools().items() if self._drift.may_be_offered(tool)}
        found = [self._offer(name, tool) for name, tool in standing.items() if self._may_inherit(name, tool)]
        return [one for one in found if one.decision.outcome != "denied"]

    def _may_inherit(self, name: str, tool: Tool) -> bool:
        action = action_of(tool.uses, name) or Action.ADMIN
        return can_use_tool(self._deps, name, tool.uses.resource, action, self._verified.statement)

    def _offer(self, name: str, tool: Tool) -> OfferedTool:
        action = action_of(tool.uses, name) or Action.ADMIN
        access = self._call_access(tool, ToolCall(tool=name, arguments={}), action)
        decision, _ = evaluate_request(self._deps, self._job, self._verified, access, held=self._issuer.held_access, phase="runtime")
        return OfferedTool(name, tool, action, decision)

    def _alternatives(self, name: str) -> str:
        """Return, in words, what the job may do instead."""
        offered = [one for one in self._offered_tools() if one.name != name]
        free = [one.name for one in offered if one.decision.outcome == "allowed"]
        asked = [one.name for one in offered if one.decision.outcome != "allowed"]
        told = [f"You may use without asking: {_join_names(free)}."] if free else []
        told += [f"With people's approval: {_join_names(asked)}."] if asked else []
        return " ".join(told) or "There is no other tool for this job: go on without, or say what could not be done."

    def _record(self, number: int, record: _CallRecord) -> None:
        taken = round((self._deps.ticks() - record.began) * 1000)
        fact = build_event(
            EventType.TOOL_CALLED,
            self._job,
            at=self._deps.now(),
            about=str(number),
            tool=record.call.tool,
            arguments=record.call.digest,
            action=record.action,
            outcome=record.outcome,
            request=record.request,
            credential=record.credential,
            duration_ms=taken,
            answer_bytes=len(record.answer.text.encode("utf-8", "replace")),
        )
        self._deps.store.ledger.append([fact])


def _waiting_text(pending: PendingRequest) -> str:
    until = f" They have until {pending.respond_by.isoformat(timespec='seconds')}." if pending.respond_by else ""
    what = f"This waits for people's approval (request {pending.request_id}, tier {pending.tier}); nothing was done."
    return f"{what}{until} Go on with other work, and call again with exactly the same arguments to have it done once they approved."


def _scrub(result: Result, fields: Mapping[str, str]) -> str:
    """Return the answer without the credential in any form in which programs print it; where it was cut, without its beginning at the end too."""
    redactor = _redactor(fields)
    shown = redactor.feed(result.content)
    return (shown if result.cut else shown + redactor.flush()).decode("utf-8", "replace")


def _redactor(fields: Mapping[str, str]) -> Redactor:
    return Redactor([value for name, value in fields.items() if name not in PUBLIC_FIELDS])


def _join_names(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMES_LISTED} more" if len(names) > MAX_NAMES_LISTED else ""
    return ", ".join(names[:MAX_NAMES_LISTED]) + more
