"""A running job's only way to get access, one broker per session: request and release access, get identity tokens, read the catalog. No HTTP.

The session's issuer decides and issues, under its lock; the workflow is notified of requests that people must answer. Once the broker is closed,
it rejects every call, and `drain` returns when the calls under way have ended: the session revokes their credentials with the others.

Over 400 lines: access, identity, release and closing share one lock and one state.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from contextvars import copy_context
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import structlog

from activities.broker.errors import TooManyCalls
from activities.delivery.delivery import secret_texts
from activities.delivery.identity_token import AudienceNotAllowed, issue_identity_token
from activities.issuing.issuer import Issuer
from activities.issuing.lease_keeper import LeaseKeeper
from activities.issuing.results import (
    ACCESS_CLOSED,
    AccessClosed,
    AccessDenied,
    AccessRefused,
    EndReason,
    IssuedCredential,
    OrderNotValid,
    PendingRequest,
    ToolAccess,
)
from activities.support.async_tools import ignore_error, wait_up_to
from justenough.domain.catalog.gateway_validation import why_for_gateways_only
from justenough.domain.core.errors import GiveUp, InvalidInput, NotFound, Problem
from justenough.domain.core.ids import REQUEST_ID, job_of
from justenough.domain.core.rate_limit import TokenBucket
from justenough.domain.core.redaction import Redactor
from justenough.domain.core.secret import Secret
from justenough.domain.integrations.job_identity import TOKEN_LIFETIME
from justenough.domain.jobs.credentials import Decision
from justenough.domain.jobs.spec import MAX_SENTENCE_CHARS, Access
from justenough.domain.jobs.states import Action, CredentialState, RequestState
from justenough.domain.jobs.tool_bounds import tools_to_json
from justenough.domain.ledger.events import EventType, build_event
from justenough.domain.readmodel.views import RequestView
from justenough.domain.tools.call import DEFAULT_TTL_S
from justenough.services.dependencies import Deps
from justenough.services.evaluate_request import evaluate_request
from justenough.services.inherited_limits import why_exceeds_ancestors
from justenough.services.verify_order import VerifiedOrder

MAX_CALL_BURST, MAX_CALLS_PER_SECOND = 400, 200
"""Rate limit of one job's requests, whatever they ask for."""
MAX_REFUSALS_RECORDED = 100
"""Invalid requests of one job that are recorded: a job must not flood the ledger."""
MAX_THREADS = 2
"""Maximum number of shared threads for one job's calls, refused calls included: a job that waits for a slow server must not block others."""
MAX_WAITING_CALLS = 8
"""Calls of one job that may wait for people at the same time; further calls return immediately."""
FAST_POLL_INTERVAL_S, POLL_INTERVAL_S, FAST_POLLING_S = 0.1, 0.5, 10.0
"""Seconds between two checks for people's answers: FAST_POLL_INTERVAL_S for the first FAST_POLLING_S seconds of a wait, then POLL_INTERVAL_S."""
NOTIFY_INTERVAL_S, MAX_NOTIFY_INTERVAL_S = 10.0, 300.0
"""Seconds after which the workflow is notified again of a request that it could not open; then twice as many each time, up to
MAX_NOTIFY_INTERVAL_S for each such request of the job. Temporal accepts 10,000 signals in the life of a workflow: without room for another one,
nobody could answer or kill the job.
"""
GIVE_BACK_TIMEOUT_S = 10.0
"""Seconds that a gateway's answer waits for the revocation of the credential it used."""
log = structlog.get_logger()

T = TypeVar("T")
NotifyWorkflow = Callable[[str], Awaitable[None]]
"""Notifies the job's workflow of a request that people must answer."""


class Broker:
    """The broker of one job, for the length of its session. Once it is closed, every method that requests something raises AccessClosed."""

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
        """Ids of credentials that gateways are using."""
        self._busy: set[asyncio.Future[Any]] = set()
        self._notifying: dict[str, asyncio.Task[None]] = {}
        self._refusals = 0
        self.closed = asyncio.Event()
        """Set only by `close`."""

    def close(self) -> None:
        """Reject every call from now on."""
        self.closed.set()
        for task in self._notifying.values():
            task.cancel()

    async def drain(self) -> None:
        """Return once every call that was under way when the broker was closed has ended."""
        while self._busy:
            await asyncio.wait(self._busy)

    async def access(self, access: Access, *, wait: float = 0.0) -> IssuedCredential | PendingRequest:
        """Return a credential, its fields including the catalog's `connect`, or the pending request if people do not answer within `wait` seconds.

        Raises AccessDenied, IssueRefused, InvalidInput, NotFound, AccessClosed, TooManyCalls, or RetryLater.
        """
        access = await self._without_secrets(access)

        def issue(*, waited_for: str) -> IssuedCredential | PendingRequest:
            if why := why_for_gateways_only(access, self._deps.config.current().catalog):
                raise AccessRefused(why.message)
            return self._issuer.access(access, waited_for=waited_for)

        item = await self._obtain(access, issue, wait=wait)
        if isinstance(item, PendingRequest):
            return item
        self._require_open()
        self._mask(secret_texts(item.fields), about=item.credential.id)
        self._lease_keeper.keep(item)
        return replace(item, fields={**{name: Secret(str(value)) for name, value in item.connect.items()}, **item.fields})

    async def access_through_tools(self, access: Access, *, wait: float = 0.0) -> ToolAccess | PendingRequest:
        """Return the tools and bounds that the job's order names for this access, or the pending request.

        Nothing is issued before a call. Raises as `access` does.
        """
        items = self._issuer.tool_bounds.order_items(access.resource, access.action)
        if not items:
            why = f"the order names no tools for {access.action} on {access.resource}"
            await self.record_refusal(f"{access.action} on {access.resource} through tools", why)
            raise InvalidInput("access", (Problem("through", why),))
        named = (await self._without_secrets(access)).model_copy(update={"tools": items[0].tools})
        return await self._obtain(named, partial(self._issuer.access_through_tools, named), wait=wait)

    @asynccontextmanager
    async def borrow(
        self, access: Access, *, used_for: str, wait: float = 0.0, waited_for: str = ""
    ) -> AsyncIterator[IssuedCredential | PendingRequest]:
        """Yield a credential that a gateway uses for the job, or the pending request. The job never sees it; it is revoked when the block ends.

        The ledger records `used_for` as the purpose. `waited_for`: as in `Issuer.access`. Raises as `access` does.
        """
        issued = await self._obtain(access, partial(self._issuer.access, access), wait=wait, waited_for=waited_for)
        if isinstance(issued, PendingRequest):
            yield issued
            return
        self._lease_keeper.keep(issued)
        self._borrowed.add(issued.credential.id)
        try:
            yield issued
        finally:
            self._borrowed.discard(issued.credential.id)
            # If the credential cannot be revoked now, the lease keeper keeps trying; the answer does not wait for it. NotFound: the lease keeper
            # has revoked it already, because its ttl has ended, for example.
            with suppress(TimeoutError, NotFound):
                async with asyncio.timeout(GIVE_BACK_TIMEOUT_S):
                    await self._record_use_and_revoke(issued.credential.id, used_for)

    async def run_while_open(self, work: Coroutine[Any, Any, T]) -> T:
        """Await work that uses a credential for the job and return its result. Cancel the work if the broker closes before it ends.

        If the caller disconnects, the work still completes. Raises AccessClosed.
        """
        if self.closed.is_set():
            work.close()
        self._require_open()

        async def run_until_closed() -> T:
            task, closing = asyncio.create_task(work), asyncio.create_task(self.closed.wait())
            # Once the broker is closed, nobody asks for the work's result.
            task.add_done_callback(ignore_error)
            try:
                await asyncio.wait({task, closing}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                closing.cancel()
                if not task.done():
                    task.cancel()
            await asyncio.wait({task})
            self._require_open()
            return task.result()

        return await self._track(asyncio.create_task(run_until_closed()))

    async def record_refusal(self, request: str, why: str) -> None:
        """Record an invalid request, up to MAX_REFUSALS_RECORDED for one job."""
        self._refusals += 1
        if self._refusals <= MAX_REFUSALS_RECORDED:
            about, now = str(self._refusals), self._deps.now()
            refusal = build_event(EventType.ACCESS_REFUSED, self._job, at=now, about=about, asked=request, why=why[:500])
            async with self._threads:
                await asyncio.to_thread(self._deps.store.ledger.append, [refusal])

    def admit(self) -> None:
        """Admit one request under the rate limit, before any of it is read. Raises AccessClosed, TooManyCalls."""
        self._require_open()
        now = self._deps.ticks()
        left = self._allowance.take(now=now)
        if left is None:
            raise TooManyCalls(self._allowance.seconds_until_next(now=now))
        self._allowance = left

    def charge(self, calls: float) -> None:
        """Charge an admitted request as `calls` further calls, because it costs as much."""
        self._allowance = self._allowance.charge(calls, now=self._deps.ticks())

    async def run_in_thread(self, call: Callable[[], T]) -> T:
        """Run a call in a thread; one job uses at most MAX_THREADS at once. Raises AccessClosed."""
        async with self._threads:
            self._require_open()
            # Not asyncio.to_thread in a separate task: that costs each access two more iterations of the event loop.
            return await self._track(asyncio.get_running_loop().run_in_executor(None, copy_context().run, call))

    async def has_ended(self, item: IssuedCredential) -> bool:
        """Whether a credential that a gateway keeps was ended, by its lease keeper or anybody else. Raises AccessClosed, RetryLater."""
        view = await self.run_in_thread(partial(self._deps.store.credentials.get, item.credential.id))
        return view is None or view.state is not CredentialState.ISSUED

    async def was_revoked(self, item: IssuedCredential) -> bool:
        """Whether a person requested the revocation of a credential, or a process other than this session revoked it. Raises AccessClosed, RetryLater."""
        types = EventType.REVOCATION_REQUESTED, EventType.CREDENTIAL_REVOKED
        read = partial(self._deps.store.ledger.entries_about, self._job, types, item.credential.id)
        return any(entry.data.get("by") != "session" for entry in await self.run_in_thread(read))

    async def is_still_allowed(self, item: IssuedCredential) -> bool:
        """Decide again whether a gateway may keep using a credential; revoke it if not. Raises AccessClosed, RetryLater."""
        ending: EndReason | None = await self.run_in_thread(partial(self._issuer.reason_to_end, item))
        if ending:
            await self._lease_keeper.revoke_credential(item.credential.id, ending.why, before=ending.events)
        return ending is None

    async def _without_secrets(self, access: Access) -> Access:
        """Redact the reason, which the ledger keeps and people read: a program may put a command line or an error message into it."""
        reason = await self.run_in_thread(partial(self._redactor.redact, access.reason))
        return access.model_copy(update={"reason": reason[:MAX_SENTENCE_CHARS]})

    async def _obtain(
        self, access: Access, issue: Callable[..., T | PendingRequest], *, wait: float, waited_for: str = ""
    ) -> T | PendingRequest:
        """Call `issue` until it issues or people have not answered within `wait` seconds; return its result or the pending request."""
        end = self._deps.ticks() + wait
        while True:
            try:
                async with self._turn:
                    issued = await self.run_in_thread(partial(issue, waited_for=waited_for))
            except (InvalidInput, NotFound, AccessRefused, OrderNotValid) as error:
                await self.record_refusal(f"{access.action} on {access.resource}", str(error))
                raise
            if not isinstance(issued, PendingRequest):
                return issued
            waited_for = issued.request_id
            if waited_for not in self._notifying:
                self._notifying[waited_for] = asyncio.create_task(self._notify_until_opened(waited_for))
            view = await self._wait_for_answer(waited_for, until=end)
            if view is None or view.state is RequestState.PENDING:
                return PendingRequest.of(view) if view else issued

    async def request(self, request_id: str, *, wait: float = 0.0) -> PendingRequest:
        """Return the state of a request of this job, once it is answered or `wait` seconds have passed. Raises NotFound, AccessClosed."""
        is_own = REQUEST_ID.fullmatch(request_id) is not None and job_of(request_id) == self._job
        view = await self._wait_for_answer(request_id, until=self._deps.ticks() + wait) if is_own else None
        if view is None:
            raise NotFound(f"this job has no request {request_id[:64]}")
        return PendingRequest.of(view)

    async def release(self, credential: str) -> str:
        """Revoke one credential now and return its state: `confirmed` once it was found dead, another state if no revocation can end it.

        Raises NotFound, AccessClosed.
        """
        if credential in self._borrowed:
            raise NotFound(f"the job cannot release credential {credential}: a gateway uses it and releases it itself")
        await self._record_use_and_revoke(credential, "the job released it")
        view = await self.run_in_thread(partial(self._deps.store.credentials.get, credential))
        return view.state.value if view else ""

    async def revoke_abandoned(self, credential: str) -> None:
        """Revoke a credential whose caller left before it was issued. Raises NotFound, AccessClosed."""
        self._require_open()
        await self._lease_keeper.revoke_credential(credential, "its caller left before it was issued")

    async def _record_use_and_revoke(self, credential: str, what: str) -> None:
        """Revoke a credential until it is found dead. Once the broker is closed, the session's own revocation does that."""
        if not self.closed.is_set():
            used = build_event(
                EventType.CREDENTIAL_USED, self._job, at=self._deps.now(), about=credential, credential=credential, what=what
            )
            await self._lease_keeper.revoke_credential(credential, what, before=(used,))

    async def identity(self, audience: str) -> tuple[Secret, datetime]:
        """Return a short-lived token of this job for one audience, and when it expires. Raises InvalidInput, AudienceNotAllowed, OrderNotValid, NoIssuer,
        AccessClosed, or RetryLater.
        """
        now = self._deps.now()

        def issue() -> Secret:
            # Sign without the issuer's lock: a Vault that is slow to sign must not delay renewals, nor other access.
            return issue_identity_token(self._deps, self._issuer.verified_order(), audience, owner=self._owner)

        try:
            token = await self.run_in_thread(issue)
        except (AudienceNotAllowed, OrderNotValid) as error:
            await self.record_refusal("an identity token", str(error))
            raise
        self._mask([token.reveal()], about="identity")
        return token, now + TOKEN_LIFETIME

    def _mask(self, secrets: Iterable[str], *, about: str) -> None:
        """Redact these secrets in the job's output. The secrets of live credentials stay masked, however many are issued later."""
        self._redactor.learn(secrets, about=about, kept={credential.id for credential in self._issuer.holdings.alive})

    def default_ttl(self, resource: str, action: Action) -> int:
        """Return the default ttl of an access in seconds: the order's, else five minutes, never more than the catalog allows."""
        ttls = [item.ttl for item in self._verified.spec.access if (item.resource, item.action) == (resource, action)]
        definition = self._deps.config.current().catalog.action(resource, action)
        return min(max(ttls, default=DEFAULT_TTL_S), definition.max_ttl if definition else DEFAULT_TTL_S)

    async def catalog(self) -> list[dict[str, Any]]:
        """Return each action on each resource of the job's environment, and what policy would decide now."""
        catalog, spec = self._deps.config.current().catalog, self._verified.spec
        offered = [
            (name, action)
            for name, resource in catalog.resources.items()
            if resource.environment == spec.environment
            for action in resource.actions
        ]
        return await self.run_in_thread(lambda: [self._catalog_item(name, action) for name, action in offered])

    def _catalog_item(self, name: str, action: Action) -> dict[str, Any]:
        resource = self._deps.config.current().catalog.resources[name]
        definition = resource.actions[action]
        access = Access(resource=name, action=action, ttl=min(DEFAULT_TTL_S, definition.max_ttl), reason="-", at="request")
        bound = self._issuer.tool_bounds.order_items(name, action)
        least = access.model_copy(update={"ttl": 1, "tools": bound[0].tools if bound else None})
        decision, facts = evaluate_request(
            self._deps, self._job, self._verified, access, held=self._issuer.holdings.held, phase="runtime", requested=least
        )
        # The job cannot get access that its ancestors lack, even if policy would allow it.
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
            "tools": tools_to_json(least.tools),
            "beyond": facts.beyond,
        }

    async def _notify_until_opened(self, request: str) -> None:
        pause = NOTIFY_INTERVAL_S
        while True:
            try:
                await self._notify_workflow(request)
                await asyncio.sleep(pause)
                unopened = sum(not task.done() for task in self._notifying.values())
                pause = min(2 * pause, MAX_NOTIFY_INTERVAL_S * max(1, unopened))
                view = await asyncio.to_thread(self._deps.store.requests.get, request)
                # The request was recorded, so if there is no view, a failover of the store lost it.
                if view is None or view.expires_at or view.state is not RequestState.PENDING:
                    return
            except Exception as error:  # noqa: BLE001 - Temporal or the store is unreachable: the job waits, and so does this
                log.warning("the workflow was not notified of a request", job=self._job, request=request, error=type(error).__name__)
                await asyncio.sleep(POLL_INTERVAL_S)

    async def _wait_for_answer(self, name: str, *, until: float) -> RequestView | None:
        """Return a request once people have answered it, `until` has come, or the broker closes; None if it is unknown."""
        self._waiters += 1
        until, began = until if self._waiters <= MAX_WAITING_CALLS else 0, self._deps.ticks()
        try:
            while True:
                view = await self.run_in_thread(partial(self._deps.store.requests.get, name))
                now = self._deps.ticks()
                if view is None or view.state is not RequestState.PENDING or now >= until:
                    return view
                pause = min(FAST_POLL_INTERVAL_S if now - began < FAST_POLLING_S else POLL_INTERVAL_S, until - now)
                await wait_up_to(timedelta(seconds=pause), self.closed)
        finally:
            self._waiters -= 1

    async def _track(self, work: asyncio.Future[T]) -> T:
        """Await a call that is under way and return its result. If the caller goes away, `drain` still waits for the call."""
        self._busy.add(work)
        work.add_done_callback(self._busy.discard)
        work.add_done_callback(ignore_error)
        result = await asyncio.shield(work)
        self._require_open()
        return result

    def _require_open(self) -> None:
        if self.closed.is_set():
            raise AccessClosed(ACCESS_CLOSED)


def denial_details(error: GiveUp) -> dict[str, Any]:
    """Return a denial's details: outcome, deciding policies, request id."""
    if not isinstance(error, AccessDenied):
        return {}
    return {"outcome": error.outcome, "policies": list(error.policies), "request_id": error.request}
