"""What tools a job may use, and each call of one: checked, decided, done with a credential of its own, scrubbed, recorded. Knows no MCP."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from activities.broker.broker import Door, Pending
from activities.broker.errors import AskedTooOften
from activities.broker.tools import http_executor, mcp_executor, sql_executor
from activities.broker.tools.discovery import Offered, told_of, with_ways
from activities.broker.tools.executors import Result, failure
from activities.broker.tools.mcp_executor import Changed
from activities.broker.tools.upstream_drift import Reviews
from activities.delivery.delivery import PUBLIC_FIELDS
from activities.issuing.issuer import Issuer
from activities.issuing.results import Closed, Denied, Issuance, NotIssued, NotPermitted
from justenough.domain.catalog.loader import problems_of
from justenough.domain.catalog.mcp_upstreams import Listing, PassedOn
from justenough.domain.core.canonical_json import canonical
from justenough.domain.core.errors import InvalidInput, JustEnoughError, Problem, RetryLater
from justenough.domain.core.placeholders import did_you_mean
from justenough.domain.core.redaction import Redactor
from justenough.domain.jobs.states import Action, RequestState
from justenough.domain.ledger.events import EventType, event
from justenough.domain.tools.call import Call, CallAccess, OutOfBounds, action_of, checked_call, http_request, sql_values
from justenough.domain.tools.definitions import Tool
from justenough.services.dependencies import Deps
from justenough.services.evaluate_request import answered
from justenough.services.inherited_limits import may_use
from justenough.services.verify_order import VerifiedOrder

LOOK, TELL = 0.5, 5.0
"""Seconds between two looks whether people have answered and whether anybody still waits for it; and between two words of progress."""
AT_ONCE = 64
"""Calls of one job that are being made, or wait for people, whether or not anybody still waits for them."""
UNDONE_RECORDED = 200
"""Calls of one job that came to nothing, each with an entry of its own: the ledger is no place for a flood."""
MOST_REASON = 1_000
MOST_NAMES = 30
"""Of other tools, in an answer."""

Waiting = Callable[[Pending, float], Awaitable[None]]
"""Told every few seconds that a call waits for people, and for how many seconds it has."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the job gets: text without the secret, and whether it is an error."""

    text: str
    failed: bool = False


@dataclass(frozen=True, slots=True)
class _Patience:
    """Who waits for a call: how they are told, for how many seconds, and whether they have gone."""

    tell: Waiting
    seconds: float
    gone: asyncio.Event


@dataclass(slots=True)
class _Told:
    """What the ledger is told of one call, as far as it has come."""

    call: Call
    action: str
    began: float
    outcome: str = "failed"
    request: str | None = None
    credential: str | None = None
    answer: Answer = field(default=Answer("the job's access was closed meanwhile", failed=True))


class Tools:
    """One job's. Every method raises Closed once its door is shut."""

    def __init__(self, deps: Deps, verified: VerifiedOrder, issuer: Issuer, door: Door) -> None:
        self._deps = deps
        self._verified = verified
        self._job = verified.statement.job
        self._issuer = issuer
        self._door = door
        self._reviews = Reviews(deps, self._job, verified.spec.environment)
        self._calls = self._under_way = self._undone = 0
        self._made: Counter[str] = Counter()
        """Calls by tool that were made, or are on their way: bounds count them."""

    async def offered(self) -> list[Offered]:
        """Return the tools that this job may ever use: those that policy does not deny at every tier. Raises AskedTooOften too."""
        self._door.admit()
        return await self._door.called(self._offered)

    async def call(self, name: str, arguments: Any, *, waiting: Waiting, patience: float) -> Answer:
        """Call a tool and return what it answered, or why it was not done: a model reads that, so it is an answer too.

        `patience`: seconds to wait for people. Whoever asked may go away: what is being done is done to its end, what waits is not done
        then, and waits for the next call of the same. Raises Closed, AskedTooOften.
        """
        self._door.admit()
        if self._under_way >= AT_ONCE:
            raise AskedTooOften(1.0)
        # Before anything is awaited: others come in the same moment.
        self._under_way += 1
        gone = asyncio.Event()
        try:
            return await self._door.carried(self._counted(name, arguments, waiting=_Patience(waiting, patience, gone)))
        except asyncio.CancelledError:
            gone.set()
            raise

    async def catalog(self) -> dict[str, list[dict[str, Any]]]:
        """Return all that this job may ask for, and how: `access` (Door.catalog), `tools`, and the upstream servers that are `withheld`."""
        access, tools = await self._door.catalog(), await self.offered()
        current = self._deps.config.current().catalog
        return {
            "access": with_ways(access, tools, self._verified.spec, current),
            "tools": [told_of(one) for one in tools],
            "withheld": [{"upstream": name, "why": why} for name, why in self._reviews.withheld().items()],
        }

    async def _counted(self, name: str, arguments: Any, *, waiting: _Patience) -> Answer:
        """Call; it is under way until it is done, also where whoever asked has gone."""
        try:
            return await self._called(name, arguments, waiting=waiting)
        finally:
            self._under_way -= 1

    async def _called(self, name: str, arguments: Any, *, waiting: _Patience) -> Answer:
        try:
            # In a thread: what a stranger's schema makes of a long argument must not keep the loop that serves every job.
            tool, call, action = await self._door.called(partial(self._checked, name, arguments))
        except InvalidInput as error:
            await self._door.refused(f"tool {name[:64]}", str(error))
            await self._door.called(self._reviews.record)
            return Answer(str(error), failed=True)
        self._calls += 1
        number, told = self._calls, _Told(call, f"{tool.uses.resource}:{action}", self._deps.ticks())
        self._made[name] += 1
        try:
            binding = partial(self._issuer.bindings.within, call, tool.uses.resource, action, made=self._made[name] - 1)
            call = await self._door.called(binding)
            told.answer = await self._tried(tool, call, action, told, waiting=waiting)
            return told.answer
        except OutOfBounds as error:
            told.outcome = "denied"
            instead = await self._door.called(partial(self._instead, name))
            told.answer = Answer(f"Denied: {error}. {instead}", failed=True)
            return told.answer
        finally:
            if told.credential is None:
                self._made[name] -= 1
                self._undone += 1
            # Also where the door closes just now: what was done is in the ledger.
            if told.credential is not None or self._undone <= UNDONE_RECORDED:
                await asyncio.shield(asyncio.to_thread(self._record, number, told))

    def _checked(self, name: str, arguments: Any) -> tuple[Tool, Call, Action]:
        """Return the tool, the call and the action that it needs. Raises InvalidInput."""
        # Not each of a server's hundreds.
        tool = self._known().get(name)
        if tool is None or not self._possible(name, tool):
            tools = self._tools()
            withheld = "".join(f"; {why}" for why in self._reviews.withheld().values())
            raise InvalidInput("tool", (Problem("", f"there is no tool {name[:64]!r} for this job{did_you_mean(name, tools)}{withheld}"),))
        action = action_of(tool.uses, name)
        if action is None:
            raise InvalidInput("tool", (Problem("", f"{name}: the catalog says no action for it"),))
        return tool, checked_call(name, tool, arguments), action

    async def _tried(self, tool: Tool, call: Call, action: Action, told: _Told, *, waiting: _Patience) -> Answer:
        """Do it, or say in words for a model why it was not done."""
        try:
            return await self._done(tool, call, action, told, waiting=waiting)
        except Closed:
            raise
        except NotPermitted as error:
            told.outcome = "denied"
            told.request = error.request if isinstance(error, Denied) else None
            by = f" (by {', '.join(error.policies)})" if isinstance(error, Denied) and error.policies else ""
            instead = await self._door.called(partial(self._instead, call.tool))
            return Answer(f"Denied: {error}{by}. Do not try it again with other words. {instead}", failed=True)
        except RetryLater as error:
            return Answer(f"Not done now: {error}. It may be tried again in a while.", failed=True)
        except (NotIssued, InvalidInput) as error:
            return Answer(f"Not done: {error}", failed=True)
        except JustEnoughError as error:
            return Answer(f"Not done: {type(error).__name__}", failed=True)

    async def _done(self, tool: Tool, call: Call, action: Action, told: _Told, *, waiting: _Patience) -> Answer:
        wanted, began = self._wanted(tool, call, action), self._deps.ticks()
        while True:
            async with self._door.lent(wanted, used=f"tool {call.tool}") as lent:
                if isinstance(lent, Issuance):
                    told.request, told.credential = lent.credential.request_id, lent.credential.id
                    return await self._used(tool, call, lent, told)
            told.request, told.outcome = lent.request_id, "pending"
            lent = await self._answered(lent, began, waiting)
            if lent.state is RequestState.PENDING or waiting.gone.is_set():
                return Answer(_waits(lent), failed=True)

    async def _answered(self, pending: Pending, began: float, waiting: _Patience) -> Pending:
        """Return how a request stands once people have answered it, or nobody waits for it any more."""
        told = 0.0
        while pending.state is RequestState.PENDING and not waiting.gone.is_set():
            seconds = self._deps.ticks() - began
            if seconds >= waiting.seconds:
                break
            if seconds >= told:
                await waiting.tell(pending, seconds)
                told = seconds + TELL
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await waiting.gone.wait()
            pending = await self._door.request(pending.request_id)
        return pending

    async def _used(self, tool: Tool, call: Call, lent: Issuance, told: _Told) -> Answer:
        told.outcome = "failed"
        fields = {name: value.reveal() for name, value in lent.fields.items()}
        result = await self._executed(tool, call, lent.access.action, fields)
        if isinstance(result, Changed):
            told.outcome = "refused"
            refused = partial(self._reviews.refused, result.tool, result.shown, _redactor(fields))
            return Answer(await self._door.called(refused), failed=True)
        # In a thread: a long answer takes a while to be looked through, and this loop serves every job of the worker.
        text = await asyncio.to_thread(_scrubbed, result, fields)
        told.outcome = "failed" if result.failed else "done"
        return Answer(text + ("\n… there is more; ask for less" if result.cut else ""), failed=result.failed)

    async def _executed(self, tool: Tool, call: Call, action: Action, fields: Mapping[str, str]) -> Result | Changed:
        scope = {key: value for key, value in self._verified.spec.data_scope.items() if key not in tool.inputs}
        if tool.sql:
            return await sql_executor.run(tool.sql, sql_values(tool.sql, call, scope), fields, writes=action is not Action.READ)
        if tool.http:
            return await http_executor.run(tool.http, http_request(tool.http, call, {**scope, **fields}, inputs=tool.inputs))
        if isinstance(tool, Listing) and tool.mcp:
            return await mcp_executor.listed(tool.mcp, {**scope, **fields})
        if isinstance(tool, PassedOn) and tool.mcp:
            return await mcp_executor.run(tool, tool.mcp, call, {**scope, **fields}, holds=self._reviews.holds)
        return failure("the catalog says no way to do it")

    def _wanted(self, tool: Tool, call: Call, action: Action) -> CallAccess:
        ttl = self._door.usual_ttl(tool.uses.resource, action)
        reason = f"{call.tool} with {canonical(dict(call.arguments)).decode()}"
        short = reason if len(reason) <= MOST_REASON else reason[: MOST_REASON - 1] + "…"
        return CallAccess(resource=tool.uses.resource, action=action, ttl=ttl, reason=short, at="request", call=call)

    def _tools(self) -> dict[str, Tool]:
        """Return the tools whose action the catalog lets this job ask for at all: its environment, its data scope."""
        return {name: tool for name, tool in self._known().items() if self._possible(name, tool)}

    def _known(self) -> dict[str, Tool]:
        current = self._deps.config.current().catalog
        return {**current.callable, **current.listings}

    def _possible(self, name: str, tool: Tool) -> bool:
        action = action_of(tool.uses, name)
        if action is None or not self._named(name, tool, action):
            return False
        spec = self._verified.spec.model_copy(update={"access": (self._wanted(tool, Call(tool=name, arguments={}), action),)})
        return not problems_of(spec, self._deps.config.current().catalog)

    def _named(self, name: str, tool: Tool, action: Action) -> bool:
        """Whether the order lets this tool through at all; one that lists others only where it names it."""
        bindings = self._issuer.bindings
        if isinstance(tool, Listing) and not bindings.own(tool.uses.resource, action):
            return False
        return bindings.names(name, tool.uses.resource, action)

    def _offered(self) -> list[Offered]:
        self._reviews.record()
        standing = {name: tool for name, tool in self._tools().items() if self._reviews.stands(tool)}
        found = [self._offer(name, tool) for name, tool in standing.items() if self._inherited(name, tool)]
        return [one for one in found if one.decision.outcome != "denied"]

    def _inherited(self, name: str, tool: Tool) -> bool:
        action = action_of(tool.uses, name) or Action.ADMIN
        return may_use(self._deps, name, tool.uses.resource, action, self._verified.statement)

    def _offer(self, name: str, tool: Tool) -> Offered:
        action = action_of(tool.uses, name) or Action.ADMIN
        access = self._wanted(tool, Call(tool=name, arguments={}), action)
        decision, _ = answered(self._deps, self._job, self._verified, access, held=self._issuer.held, phase="runtime")
        return Offered(name, tool, action, decision)

    def _instead(self, name: str) -> str:
        """Return, in words, what the job may do instead."""
        offered = [one for one in self._offered() if one.name != name]
        free = [one.name for one in offered if one.decision.outcome == "allowed"]
        asked = [one.name for one in offered if one.decision.outcome != "allowed"]
        told = [f"You may use without asking: {_listed(free)}."] if free else []
        told += [f"With people's approval: {_listed(asked)}."] if asked else []
        return " ".join(told) or "There is no other tool for this job: go on without, or say what could not be done."

    def _record(self, number: int, told: _Told) -> None:
        taken = round((self._deps.ticks() - told.began) * 1000)
        fact = event(
            EventType.TOOL_CALLED,
            self._job,
            at=self._deps.now(),
            about=str(number),
            tool=told.call.tool,
            arguments=told.call.digest,
            action=told.action,
            outcome=told.outcome,
            request=told.request,
            credential=told.credential,
            duration_ms=taken,
            answer_bytes=len(told.answer.text.encode("utf-8", "replace")),
        )
        self._deps.store.record([fact])


def _waits(lent: Pending) -> str:
    until = f" They have until {lent.respond_by.isoformat(timespec='seconds')}." if lent.respond_by else ""
    what = f"This waits for people's approval (request {lent.request_id}, tier {lent.tier}); nothing was done."
    return f"{what}{until} Go on with other work, and call again with exactly the same arguments to have it done once they approved."


def _scrubbed(result: Result, fields: Mapping[str, str]) -> str:
    """Return the answer without the credential in any form in which programs print it; where it was cut, without its beginning at the end too."""
    redactor = _redactor(fields)
    shown = redactor.feed(result.content)
    return (shown if result.cut else shown + redactor.flush()).decode("utf-8", "replace")


def _redactor(fields: Mapping[str, str]) -> Redactor:
    return Redactor([value for name, value in fields.items() if name not in PUBLIC_FIELDS])


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more
