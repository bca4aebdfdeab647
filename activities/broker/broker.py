"""What a running job may have, one door per session: access, its state, giving it back, identity, the catalog. Knows no HTTP.

Access is decided and issued by the session's issuer, under its lock; what people must answer is told to the workflow. Once the door is closed
nothing passes any more, and `settled` returns when what was on its way has arrived: it is revoked with the rest.

Over 400 lines: access, identity, give-back and closing share one lock and one state.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

import structlog

from activities.broker.errors import TooManyCalls
from activities.delivery.delivery import PUBLIC_FIELDS
from activities.delivery.identity_token import NotVouchedFor, issue_identity_token
from activities.issuing.issuer import Issuer
from activities.issuing.lease_keeper import LeaseKeeper
from activities.issuing.renewal_check import EndReason
from activities.issuing.results import (
    ACCESS_CLOSED,
    AccessClosed,
    AccessDenied,
    IssuedCredential,
    NotPermitted,
    PendingApproval,
    ToolAccess,
)
from justenough.domain.catalog.llm_validation import why_for_gateways_only
from justenough.domain.core.errors import GiveUp, InvalidInput, NotFound, Problem
from justenough.domain.core.ids import REQUEST_ID, job_of
from justenough.domain.core.rate_limit import TokenBucket
from justenough.domain.core.redaction import Redactor
from justenough.domain.core.secret import Secret
from justenough.domain.integrations.job_identity import TOKEN_LIFETIME
from justenough.domain.jobs.credentials import Decision
from justenough.domain.jobs.spec import Access
from justenough.domain.jobs.states import Action, CredentialState, RequestState
from justenough.domain.jobs.tool_bounds import tools_to_json
from justenough.domain.ledger.events import EventType, build_event
from justenough.domain.readmodel.views import RequestView
from justenough.services.dependencies import Deps
from justenough.services.evaluate_request import evaluate_request
from justenough.services.inherited_limits import why_exceeds_ancestors
from justenough.services.verify_order import VerifiedOrder

MAX_CALL_BURST, MAX_CALLS_PER_SECOND = 400, 200
"""What one job may ask of its broker."""
MAX_REFUSALS_RECORDED = 100
"""Of one job: what was no request at all. The ledger is no place for a flood."""
MAX_THREADS = 2
"""That one job's calls may hold at once, of those that all sessions share: one that hangs in a slow server must leave the rest to others."""
MAX_WAITING_CALLS = 8
"""Calls of one job that wait for people at once; more are answered at once."""
FAST_POLL_INTERVAL_S, POLL_INTERVAL_S, FAST_POLLING_S = 0.1, 0.5, 10.0
"""Seconds between two looks whether people have answered: at first, and after so many seconds."""
NOTIFY_INTERVAL_S = 10.0
"""Seconds after which the workflow is told once more of a request that it has not opened."""
GIVE_BACK_TIMEOUT_S = 10.0
"""Seconds that an answer waits for the end of the credential that it was had with."""
DEFAULT_TTL_S = 300
log = structlog.get_logger()

T = TypeVar("T")
NotifyWorkflow = Callable[[str], Awaitable[None]]
"""Tells the job's workflow of a request that people must answer."""


class ForGatewaysOnly(NotPermitted):
    """A job asks for a credential that only the broker's gateways use."""


@dataclass(frozen=True, slots=True)
class BrokerCredential:
    """One credential as the job gets it. Cannot print its secrets."""

    credential_id: str
    request_id: str
    expires_at: datetime
    data: Mapping[str, Secret]
    action: Action
    """As granted, which may be less than was asked for."""


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A request that people must answer, as it stands."""

    request_id: str
    state: RequestState
    tier: int
    respond_by: datetime | None = None


class Broker:
    """One job's. Built for the length of its session; whatever asks for something raises Closed once it is shut."""

    def __init__(
        self,
        deps: Deps,
        verified: VerifiedOrder,
        issuer: Issuer,
        lease_keeper: LeaseKeeper,
        redactor: Redactor,
        *,
        owner: str,
        notify_workflow: NotifyWorkflow,
    ) -> None:
        self._deps = deps
        self._verified = verified
        self._job = verified.statement.job
        self._issuer = issuer
        self._lease_keeper = lease_keeper
        self._redactor = redactor
        self._owner = owner
        self._notify_workflow = notify_workflow
        self._allowance = TokenBucket.full(capacity=MAX_CALL_BURST, per_second=MAX_CALLS_PER_SECOND, now=deps.ticks())
        self._turn = asyncio.Lock()
        self._threads = asyncio.Semaphore(MAX_THREADS)
        self._waiters = 0
        self._borrowed: set[str] = set()
        """Credentials that gateways use now."""
        self._busy: set[asyncio.Future[Any]] = set()
        self._notifying: dict[str, asyncio.Task[None]] = {}
        self._refusals = 0
        self._closed = asyncio.Event()

    def close(self) -> None:
        """Let nothing pass any more."""
        self._closed.set()
        for task in self._notifying.values():
            task.cancel()

    async def drain(self) -> None:
        """Return once everything that was on its way when the door was closed has arrived."""
        while self._busy:
            await asyncio.wait(self._busy)

    async def access(self, access: Access, *, wait: float = 0.0) -> BrokerCredential | PendingRequest:
        """Return a credential, or the request that people must answer where they have not within `wait` seconds.

        Raises Denied, NotIssued, InvalidInput, NotFound, Closed, AskedTooOften, or RetryLater.
        """
        found = await self._obtain(access, partial(self._issue_for_job, access), wait=wait)
        return self._hand_out(found) if isinstance(found, IssuedCredential) else found

    async def through_tools(self, access: Access, *, wait: float = 0.0) -> ToolAccess | PendingRequest:
        """Return the bounds within which the job may call tools, as far as its order names any for what it wants; or the request that waits.

        Nothing is issued before a call. Raises as `access` does.
        """
        items = self._issuer.tool_bounds.order_items(access.resource, access.action)
        if not items:
            why = f"the order names no tools for {access.action} on {access.resource}"
            await self.record_refusal(f"{access.action} on {access.resource} through tools", why)
            raise InvalidInput("access", (Problem("through", why),))
        named = access.model_copy(update={"tools": items[0].tools})
        return await self._obtain(named, partial(self._issuer.through_tools, named), wait=wait)

    @asynccontextmanager
    async def borrow(self, access: Access, *, used_for: str, wait: float = 0.0) -> AsyncIterator[IssuedCredential | PendingRequest]:
        """Yield a credential that a gateway uses for the job, which never sees it; it is dead when the block ends. Or the request that waits.

        `used` says in the ledger what it was used for. Raises as `access` does.
        """
        found = await self._obtain(access, partial(self._issuer.access, access), wait=wait)
        if not isinstance(found, IssuedCredential):
            yield found
            return
        self._lease_keeper.keep(found)
        self._borrowed.add(found.credential.id)
        try:
            yield found
        finally:
            self._borrowed.discard(found.credential.id)
            # What cannot be ended now goes on being ended; the answer need not wait for that.
            with suppress(TimeoutError):
                async with asyncio.timeout(GIVE_BACK_TIMEOUT_S):
                    await self._give_back(found.credential.id, used_for)

    async def run_while_open(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what comes of something that is done for the job with a credential; it is cut off where the door closes meanwhile.

        Whoever asked for it may go away: it is done to its end all the same. Raises Closed.
        """
        self._require_open()
        return await self._track(asyncio.create_task(self._run_until_closed(work)))

    async def _run_until_closed(self, work: Coroutine[Any, Any, T]) -> T:
        task, shut = asyncio.create_task(work), asyncio.create_task(self._closed.wait())
        try:
            await asyncio.wait({task, shut}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            shut.cancel()
            if not task.done():
                task.cancel()
        await asyncio.wait({task})
        self._require_open()
        return task.result()

    async def record_refusal(self, request: str, why: str) -> None:
        """Record what was no request at all; of one job no more than so many."""
        self._refusals += 1
        if self._refusals <= MAX_REFUSALS_RECORDED:
            about, now = str(self._refusals), self._deps.now()
            refusal = build_event(EventType.ACCESS_REFUSED, self._job, at=now, about=about, asked=request, why=why[:500])
            await asyncio.to_thread(self._deps.store.ledger.append, [refusal])

    @property
    def is_closed(self) -> bool:
        """Whether nothing passes any more."""
        return self._closed.is_set()

    def admit(self) -> None:
        """Let one call in. Raises Closed, AskedTooOften."""
        self._require_open()
        now = self._deps.ticks()
        left = self._allowance.take(now=now)
        if left is None:
            raise TooManyCalls(self._allowance.seconds_until_next(now=now))
        self._allowance = left

    async def run_in_thread(self, call: Callable[[], T]) -> T:
        """Call in a thread, of which one job holds few at once. Raises Closed."""
        async with self._threads:
            self._require_open()
            # Not by to_thread in a task of its own: that is twice round the loop more, in each access.
            return await self._track(asyncio.get_running_loop().run_in_executor(None, copy_context().run, call))

    async def wait_closed(self) -> None:
        """Return once the door is closed."""
        await self._closed.wait()

    async def was_revoked(self, item: IssuedCredential) -> bool:
        """Whether somebody ended a credential that a gateway keeps, past this session. Raises Closed, RetryLater."""
        seen = await self.run_in_thread(partial(self._deps.store.credentials.get, item.credential.id))
        return seen is None or seen.state is not CredentialState.ISSUED

    async def is_still_allowed(self, item: IssuedCredential) -> bool:
        """Whether a credential that a gateway keeps may be used on, decided again; where not, it is ended. Raises Closed, RetryLater."""
        ending: EndReason | None = await self.run_in_thread(partial(self._issuer.reason_to_end, item))
        if ending:
            await self._lease_keeper.give_back(item.credential.id, ending.why, before=ending.events)
        return ending is None

    async def _obtain(self, access: Access, issue: Callable[..., T | PendingApproval], *, wait: float) -> T | PendingRequest:
        """Return what asking comes to; `ask` takes the request that was waited for."""
        end, waited_for = self._deps.ticks() + wait, ""
        while True:
            self.admit()
            async with self._turn:
                found = await self._record_if_invalid(access, self.run_in_thread(partial(issue, waited_for=waited_for)))
            if not isinstance(found, PendingApproval):
                return found
            waited_for = found.request
            self._ensure_opened(found)
            view = await self._wait_for_answer(found.request, until=end)
            if view is None or view.state is RequestState.PENDING:
                return _to_pending(found.request, view, tier=found.tier)

    async def request(self, request_id: str, *, wait: float = 0.0) -> PendingRequest:
        """Return how a request of this job stands, once it is answered or `wait` seconds are over. Raises NotFound, Closed."""
        self.admit()
        view = await self._wait_for_answer(request_id, until=self._deps.ticks() + wait) if _is_request_of(self._job, request_id) else None
        if view is None:
            message = f"this job has no request {request_id[:64]}"
            raise NotFound(message)
        return _to_pending(request_id, view, tier=view.current_tier)

    async def release(self, credential: str) -> str:
        """End one credential now; return what it is then: `confirmed` once it is seen dead, and the truth of what no revocation can end.

        Raises NotFound, Closed.
        """
        self.admit()
        if credential in self._borrowed:
            message = f"the job holds no credential {credential}: a gateway uses it for the job, and gives it back itself"
            raise NotFound(message)
        await self._give_back(credential, "the job gave it back")
        view = await self.run_in_thread(partial(self._deps.store.credentials.get, credential))
        return view.state.value if view else ""

    async def _give_back(self, credential: str, what: str) -> None:
        """End a credential until it is seen dead; once the door is closed the session's own revocation does, which waits for none of these."""
        if not self._closed.is_set():
            used = build_event(
                EventType.CREDENTIAL_USED, self._job, at=self._deps.now(), about=credential, credential=credential, what=what
            )
            await self._lease_keeper.give_back(credential, what, before=(used,))

    async def identity(self, audience: str) -> tuple[Secret, datetime]:
        """Return a short token of this job for one audience, and until when it holds. Raises InvalidInput, NotVouchedFor, NoIssuer, Closed."""
        self.admit()
        now = self._deps.now()
        try:
            token = await self.run_in_thread(partial(issue_identity_token, self._deps, self._verified, audience, owner=self._owner))
        except NotVouchedFor as error:
            await self.record_refusal("its identity for an audience", str(error))
            raise
        self._redactor.learn([token.reveal()])
        return token, now + TOKEN_LIFETIME

    def default_ttl(self, resource: str, action: Action) -> int:
        """Return the seconds that access lasts where nobody says: what the order says, else five minutes; never more than the catalog allows."""
        said = [one.ttl for one in self._verified.spec.access if (one.resource, one.action) == (resource, action)]
        definition = self._deps.config.current().catalog.action(resource, action)
        return min(max(said, default=DEFAULT_TTL_S), definition.max_ttl if definition else DEFAULT_TTL_S)

    async def catalog(self) -> list[dict[str, Any]]:
        """Return what this job may ask for: each action on each resource of its environment, and what policy would say now."""
        self.admit()
        return await self.run_in_thread(self._catalog_items)

    def _catalog_items(self) -> list[dict[str, Any]]:
        current, spec = self._deps.config.current(), self._verified.spec
        return [
            self._catalog_item(name, action)
            for name, resource in current.catalog.resources.items()
            if resource.environment == spec.environment
            for action in resource.actions
        ]

    def _catalog_item(self, name: str, action: Action) -> dict[str, Any]:
        resource = self._deps.config.current().catalog.resources[name]
        definition = resource.actions[action]
        asked = Access(resource=name, action=action, ttl=min(DEFAULT_TTL_S, definition.max_ttl), reason="-", at="request")
        decision, _ = evaluate_request(self._deps, self._job, self._verified, asked, held=self._issuer.held_access, phase="runtime")
        bound = self._issuer.tool_bounds.order_items(name, action)
        # What the jobs that it came of do not have at all is not there to be asked for, however policy would decide it.
        least = asked.model_copy(update={"ttl": 1, "tools": bound[0].tools if bound else None})
        if why_exceeds_ancestors(self._deps, least, self._verified.statement):
            decision = Decision(outcome="denied")
        return {
            "resource": name,
            "title": resource.title,
            "action": action.value,
            "sensitivity": resource.sensitivity.name.lower(),
            "external": resource.external,
            "max_ttl": definition.max_ttl,
            "revocable": definition.revocable.value,
            "outcome": decision.outcome,
            "tier": decision.tier if decision.outcome == "needs_approval" else 0,
            "policies": list(decision.policies),
            "tools": tools_to_json(bound[0].tools) if bound else None,
        }

    def _hand_out(self, item: IssuedCredential) -> BrokerCredential:
        """Keep a credential that was issued, and return what the job gets; nothing where the door was closed meanwhile."""
        self._require_open()
        self._redactor.learn([value.reveal() for name, value in item.fields.items() if name not in PUBLIC_FIELDS])
        self._lease_keeper.keep(item)
        connect = self._deps.config.current().catalog.resources[item.access.resource].connect
        data = {**{name: Secret(str(value)) for name, value in connect.items()}, **item.fields}
        return BrokerCredential(item.credential.id, item.credential.request_id, item.credential.expires_at, data, item.credential.action)

    async def _record_if_invalid(self, access: Access, issuing: Awaitable[T]) -> T:
        """Return what comes of asking; what was no request at all is in the ledger too."""
        try:
            return await issuing
        except (InvalidInput, NotFound, ForGatewaysOnly) as error:
            await self.record_refusal(f"{access.action} on {access.resource}", str(error))
            raise

    def _issue_for_job(self, access: Access, *, waited_for: str) -> IssuedCredential | PendingApproval:
        """Ask for what the job itself is to get, and no gateway."""
        if why := why_for_gateways_only(access, self._deps.config.current().catalog):
            raise ForGatewaysOnly(why)
        return self._issuer.access(access, waited_for=waited_for)

    def _ensure_opened(self, approval: PendingApproval) -> None:
        """Have the workflow ask people, however often it takes."""
        if approval.request not in self._notifying:
            self._notifying[approval.request] = asyncio.create_task(self._notify_until_opened(approval.request))

    async def _notify_until_opened(self, request: str) -> None:
        while True:
            try:
                await self._notify_workflow(request)
                await asyncio.sleep(NOTIFY_INTERVAL_S)
                view = await asyncio.to_thread(self._deps.store.requests.get, request)
                if view is not None and (view.expires_at or view.state is not RequestState.PENDING):
                    return
            except Exception as error:  # noqa: BLE001 - Temporal or the store is away: the job waits, and so does this
                log.warning("the workflow was not told of a request", job=self._job, request=request, error=type(error).__name__)
                await asyncio.sleep(POLL_INTERVAL_S)

    async def _wait_for_answer(self, name: str, *, until: float) -> RequestView | None:
        """Return a request once it does not wait any more, or the time is over."""
        self._waiters += 1
        try:
            return await self._poll_request(name, until=until if self._waiters <= MAX_WAITING_CALLS else 0)
        finally:
            self._waiters -= 1

    async def _poll_request(self, name: str, *, until: float) -> RequestView | None:
        began = self._deps.ticks()
        while True:
            view = await self.run_in_thread(partial(self._deps.store.requests.get, name))
            now = self._deps.ticks()
            if view is None or view.state is not RequestState.PENDING or now >= until:
                return view
            pause = min(FAST_POLL_INTERVAL_S if now - began < FAST_POLLING_S else POLL_INTERVAL_S, until - now)
            try:
                async with asyncio.timeout(pause):
                    await self._closed.wait()
            except TimeoutError:
                continue

    async def _track(self, work: asyncio.Future[T]) -> T:
        """Return what comes of something that is on its way. Whoever asked may go away meanwhile; the door's end waits for it all the same."""
        self._busy.add(work)
        work.add_done_callback(self._busy.discard)
        result = await asyncio.shield(work)
        self._require_open()
        return result

    def _require_open(self) -> None:
        if self._closed.is_set():
            raise AccessClosed(ACCESS_CLOSED)


def denial_details(error: GiveUp) -> dict[str, Any]:
    """Return what a denial tells beside its sentence: outcome, the policies that said no, the request."""
    return (
        {"outcome": error.outcome, "policies": list(error.policies), "request_id": error.request} if isinstance(error, AccessDenied) else {}
    )


def _to_pending(name: str, view: RequestView | None, *, tier: int) -> PendingRequest:
    return PendingRequest(
        name, view.state if view else RequestState.PENDING, view.current_tier if view else tier, view.expires_at if view else None
    )


def _is_request_of(job: str, name: str) -> bool:
    return REQUEST_ID.fullmatch(name) is not None and job_of(name) == job
