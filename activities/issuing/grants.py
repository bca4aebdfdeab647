"""A session's record of its job: runtime requests, grants, tool bounds, and the credentials it holds. Evaluates no policy, issues nothing.

Not thread-safe: call with the issuer's lock held.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from activities.issuing.results import AccessRefused, IssueBasis, seconds_until
from justenough.adapters.vault import JobToken
from justenough.domain.catalog.loader import problems_in_spec
from justenough.domain.core.canonical_json import digest_of
from justenough.domain.core.errors import InvalidInput, OverQuota
from justenough.domain.core.ids import request_id
from justenough.domain.jobs.credentials import CredentialHandle, Decision, HeldAccess
from justenough.domain.jobs.spec import MAX_APPROVAL_REQUESTS_PER_JOB, Access
from justenough.domain.jobs.states import Action, RequestState, Sensitivity
from justenough.domain.jobs.tool_bounds import APPROVAL, ORDER, BoundedTools
from justenough.domain.ledger.events import Event
from justenough.domain.tools.call import ToolCall, call_of, let_tool_through, tool_only_items, with_bounds
from justenough.services.dependencies import Deps
from justenough.services.inherited_limits import ancestor_access_items, why_exceeds_ancestors
from justenough.services.verify_order import VerifiedOrder

MAX_REQUESTS = 1_000
"""Maximum number of runtime requests of one job. Access under an existing grant does not count."""
MAX_WAITING_REQUESTS = 20
"""Requests of one job that wait for people at once. Each tool call may be such a request, and people must read all of them."""
OVER_QUOTA_RETRY_S = 60.0
"""Seconds after which a job may try again if too many requests of its launcher wait for people."""

PARENT_JOB = "the job that launched this one"


class CallCounts:
    """Counts the calls of each tool; for an argument whose calls are counted by value, also the calls with each value."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, ...]] = Counter()

    def add(self, call: ToolCall, arguments: Iterable[str], *, times: int = 1) -> None:
        """Count a call, and its value of each of these arguments. `times=-1` undoes this."""
        by_value = (_value_key(call, name) for name in arguments if name in call.arguments)
        self._counts.update(dict.fromkeys([(call.tool,), *by_value], times))

    def of_tool(self, call: ToolCall) -> int:
        """Return the calls of the same tool."""
        return self._counts[call.tool,]

    def with_same_value(self, call: ToolCall, arguments: Iterable[str]) -> dict[str, int]:
        """Return, by argument, the calls of the same tool with the same value."""
        return {name: self._counts[_value_key(call, name)] for name in arguments if name in call.arguments}


def _value_key(call: ToolCall, argument: str) -> tuple[str, ...]:
    # To Python, 1 is True.
    return call.tool, argument, digest_of(call.arguments[argument])


@dataclass(slots=True)
class AccessGrant:
    """A granted request: its access, basis and end, and the calls that credentials were issued for."""

    number: int
    access: Access
    """The granted access, which may be less than the requested access."""
    basis: IssueBasis
    ends: tuple[datetime, float] | None = None
    """When it ends, by the time of day and in ticks. The grant's time begins with its first issue."""
    call_counts: CallCounts = field(default_factory=CallCounts)
    """The calls that a credential was issued for."""
    token: JobToken | None = None
    """The job's Vault token for this grant: its policy allows only this action, and it lives as long as the grant."""

    def count(self, call: ToolCall) -> None:
        bounds = (self.access.tools or {}).get(call.tool)
        self.call_counts.add(call, bounds.counted_arguments if bounds else ())

    def has_room(self, call: ToolCall) -> bool:
        """Whether a call is within the bounds of the grant's tools."""
        bounds = (self.access.tools or {}).get(call.tool)
        if bounds is None:
            return False
        calls_made, same_value_calls = self.call_counts.of_tool(call), self.call_counts.with_same_value(call, bounds.counted_arguments)
        return not any(bounds.problems(call.arguments, calls_made=calls_made, same_value_calls=same_value_calls))

    @property
    def is_through_tools(self) -> bool:
        """Whether the grant allows any number of calls of some tools, within their bounds."""
        return self.access.tools is not None and call_of(self.access) is None

    def seconds_left(self, *, now: datetime, ticks: float) -> float:
        """Return the seconds that the grant has left: its whole time until its first issue."""
        return seconds_until(*self.ends, now=now, ticks=ticks) if self.ends else float(self.access.ttl)


class JobGrants:
    def __init__(self, deps: Deps, job: str) -> None:
        self._deps = deps
        self._job = job
        self._grants: list[AccessGrant] = []
        self.ever_granted: set[str] = set()
        """Ids of requests that became a grant. After the grant has ended, the request cannot become a grant again."""

    def add(self, grant: AccessGrant) -> None:
        self._grants.append(grant)
        self.ever_granted.add(request_id(self._job, grant.number))

    def grant_through_tools(self, access: Access) -> AccessGrant | None:
        standing = (grant for grant in self._grants if grant.is_through_tools and self._is_usable(grant))
        return next((grant for grant in standing if _is_same_access(grant.access, access)), None)

    def find_covering(self, access: Access) -> Iterator[AccessGrant]:
        self._grants = [grant for grant in self._grants if self._is_usable(grant)]
        call, action = call_of(access), self._deps.config.current().catalog.action(access.resource, access.action)
        for grant in self._grants:
            # People approved one call of a tool with its arguments. It was made, and nothing else was approved.
            used_up = call_of(grant.access) is not None and grant.basis.ladder is not None
            # Under a control group, people authorize a single issue, so the grant cannot be used again.
            if used_up or not _is_same_access(grant.access, access) or (action and action.locked):
                continue
            if grant.is_through_tools and (call is None or not grant.has_room(call)):
                continue
            yield grant

    def _is_usable(self, grant: AccessGrant) -> bool:
        """Whether a grant has time left and its approval was not withdrawn."""
        if grant.seconds_left(now=self._deps.now(), ticks=self._deps.ticks()) < 1:
            return False
        return grant.basis.ladder is None or not is_withdrawn(self._deps, grant.basis.ladder.request)


def _is_same_access(access: Access, other: Access) -> bool:
    return (access.resource, access.action) == (other.resource, other.action)


def is_withdrawn(deps: Deps, request: str) -> bool:
    view = deps.store.requests.get(request)
    return view is not None and view.state is RequestState.WITHDRAWN


@dataclass(frozen=True, slots=True)
class NewRequest:
    """A request that a running job made: its number, what it asks for, policy's decision, and the entries to record."""

    number: int
    access: Access
    decision: Decision
    beyond: str | None
    """The order's `beyond` if it decided the request: the order does not name this access."""
    entries: tuple[Event, ...]


class RuntimeRequests:
    """The requests that one job makes while it runs: their numbers, their count, and which of them wait for people."""

    def __init__(self, deps: Deps, verified: VerifiedOrder) -> None:
        self._deps = deps
        self._verified = verified
        self.waiting: dict[str, Access] = {}
        """By id, the access of each request that waits for people, or whose answer the job has not used yet."""
        self.unsettled: dict[tuple[str, Decision, str], NewRequest] = {}
        """By reason, decision and digest: the requests whose decision could not be recorded or carried out yet, because a server was unreachable."""
        self._asked_people = 0
        self._numbers = len(verified.spec.access)
        self._unasked = {number: access for number, access in enumerate(verified.spec.access, start=1) if access.at == "request"}
        """By number, the access that the order lets the job request at runtime and that the job has not requested yet."""

    def require_possible(self, access: Access) -> None:
        """Raise InvalidInput if the catalog does not offer this access, AccessRefused if the job cannot request it now or can no longer
        request it.
        """
        catalog = self._deps.config.current().catalog
        problems = problems_in_spec(self._verified.spec.model_copy(update={"access": (access,), "model": None}), catalog)
        if problems:
            raise InvalidInput("access", tuple(replace(problem, path=problem.path.removeprefix("access[0].")) for problem in problems))
        if why := why_exceeds_ancestors(self._deps, access, self._verified.statement):
            raise AccessRefused(f"{access.action} on {access.resource}: {why}")
        if catalog.resources[access.resource].actions[access.action].locked:
            raise AccessRefused(
                f"{access.action} on {access.resource} needs a Vault control group's authorization and cannot be requested at runtime: "
                "request it at the start, in the job's spec"
            )

    def require_room(self) -> None:
        """Raise AccessRefused if this job has reached its limit of waiting requests, or of requests in total; OverQuota if its launcher has."""
        # Some may have been answered, or have expired, without the job asking again: those are still in `waiting`.
        views = self._deps.store.requests.by_ids(self.waiting) if len(self.waiting) >= MAX_WAITING_REQUESTS else {}
        if sum(view.state is RequestState.PENDING for view in views.values()) >= MAX_WAITING_REQUESTS:
            raise AccessRefused(f"{MAX_WAITING_REQUESTS} requests of this job already wait for people: wait for their answers first")
        if self._asked_people >= MAX_APPROVAL_REQUESTS_PER_JOB:
            raise AccessRefused(
                f"this job has used its {MAX_APPROVAL_REQUESTS_PER_JOB} approval requests; only access that policy allows automatically is still available"
            )

        statement, quota = self._verified.statement, self._deps.settings.quota_waiting_requests
        waiting = self._deps.store.requests.count_waiting(
            statement.person, origin=statement.origin, environment=self._verified.spec.environment
        )
        if waiting >= quota:
            why = f"{waiting:,} requests of this launcher's jobs in {self._verified.spec.environment} wait for people"
            raise OverQuota(f"{why}; at most {quota:,} may: wait for their answers first", retry_after=OVER_QUOTA_RETRY_S)

    def number(self, access: Access) -> int:
        """Return a new request's number: the number in the order if the order lists this access, else the next free one. Raises AccessRefused."""
        for number, listed in self._unasked.items():
            # The order lists the credential, not a call that people approve by its arguments.
            same = (listed.resource, listed.action, listed.tools) == (access.resource, access.action, access.tools)
            if call_of(access) is None and same and access.ttl <= listed.ttl:
                return number
        if self._numbers >= MAX_REQUESTS:
            raise AccessRefused(f"a job may make at most {MAX_REQUESTS:,} requests")
        return self._numbers + 1

    def signed_reason(self, number: int) -> str | None:
        """Return the order's reason for the request of this number; None if the order does not list it. Call it before `mark_made`."""
        listed = self._unasked.get(number)
        return listed.reason if listed else None

    def mark_made(self, number: int) -> None:
        """Take a request's number, so that no other request gets it."""
        if self._unasked.pop(number, None) is None:
            self._numbers = number

    def add_waiting(self, request: str, access: Access) -> None:
        self.waiting[request] = access
        self._asked_people += 1


class HeldCredentials:
    """The credentials of one job that are not known to be dead, the basis of each, and what the job has touched."""

    def __init__(self) -> None:
        self.held = HeldAccess()
        """What the job holds and has touched."""
        self._alive: dict[str, CredentialHandle] = {}
        self._bases: dict[str, IssueBasis] = {}
        self.spaces: frozenset[tuple[str, str]] = frozenset()
        """Resource and action of every issue that should have created a space, even if the issue failed: a space outlives its credential."""
        self.unrecorded_ends: dict[str, tuple[Event, ...]] = {}
        """By id, the events of credentials that were found dead while the ledger could not record it; the session's end records them.

        Replaced by each `forget`, never changed: the session may read it meanwhile.
        """

    @property
    def alive(self) -> tuple[CredentialHandle, ...]:
        """Every credential that Vault issued and that is not known to be dead."""
        return tuple(self._alive.values())

    def basis(self, credential: CredentialHandle) -> IssueBasis:
        return self._bases[credential.id]

    def add(self, credential: CredentialHandle, basis: IssueBasis) -> None:
        """Add a credential that Vault issued, even if the job never gets it."""
        self._alive[credential.id] = credential
        self._bases[credential.id] = basis

    def touch(self, credential: CredentialHandle, sensitivity: Sensitivity) -> None:
        """Count a credential as held and its resource as touched."""
        self.held = self.held.with_issued(credential.resource, credential.action, sensitivity)

    def forget(self, credential: CredentialHandle, unrecorded: tuple[Event, ...]) -> None:
        """Remove a dead credential; its resource still counts as touched. `unrecorded`: events of its end that the ledger could not record."""
        ends = {**self.unrecorded_ends, credential.id: unrecorded}
        self.unrecorded_ends = {name: events for name, events in ends.items() if events}
        self._alive.pop(credential.id, None)
        self._bases.pop(credential.id, None)
        if not any((other.resource, other.action) == (credential.resource, credential.action) for other in self._alive.values()):
            self.held = self.held.with_ended(credential.resource, credential.action)


class ToolBounds:
    """The tool bounds of one job. Once approvers narrow an item of its order, the item stays narrowed, even after its grant ends."""

    def __init__(self, deps: Deps, verified: VerifiedOrder) -> None:
        self._deps = deps
        self._verified = verified
        self._spec = verified.spec

    def narrow(self, access: Access, tools: BoundedTools) -> None:
        """Narrow an item of the order to its granted tools. Call with the issuer's lock held."""
        same = (access.resource, access.action, access.tools)
        items = (
            item.model_copy(update={"tools": tools}) if (item.resource, item.action, item.tools) == same else item
            for item in self._spec.access
        )
        self._spec = self._spec.model_copy(update={"access": tuple(items)})

    def order_items(self, resource: str, action: Action) -> tuple[Access, ...]:
        """Return the order's items (as narrowed) for an action that only tools may use; empty if the order allows it in another way."""
        return tool_only_items(self._spec, resource, action)

    def lets_through(self, tool: str, resource: str, action: Action) -> bool:
        """Whether the order allows a tool at all."""
        return let_tool_through(self.order_items(resource, action), tool)

    def counted_arguments(self, tool: str, resource: str, action: Action) -> frozenset[str]:
        """Return the arguments of a tool whose calls this job's order, or an ancestor's, counts by value. Blocking."""
        orders = (self.order_items(resource, action), *ancestor_access_items(self._deps, resource, action, self._verified.statement))
        bounds = (item.tools[tool] for items in orders for item in items if item.tools and tool in item.tools)
        return frozenset(name for each in bounds for name in each.counted_arguments)

    def bound_call(
        self, call: ToolCall, resource: str, action: Action, *, calls_made: int, same_value_calls: Mapping[str, int]
    ) -> ToolCall:
        """Return a call with the bounds that apply to it. Blocking. Raises OutOfBounds if the call exceeds them.

        `calls_made`, `same_value_calls`: the job's other calls, as in Bounds.problems.
        """
        own = self.order_items(resource, action)
        by = ORDER if own == tool_only_items(self._verified.spec, resource, action) else APPROVAL
        call = with_bounds(call, own, calls_made=calls_made, same_value_calls=same_value_calls, by=by)
        for items in ancestor_access_items(self._deps, resource, action, self._verified.statement):
            above = with_bounds(call, items, calls_made=calls_made, same_value_calls=same_value_calls, by=PARENT_JOB).within
            # Both allow this very call, so their intersection is not empty.
            call = call.model_copy(update={"within": above.intersect(call.within) if above and call.within else above})
        return call
