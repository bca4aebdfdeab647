"""What a job may use more than once: its grants, and which of them are for what is wanted now. Decides nothing anew, issues nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from activities.issuing.renewal_check import IssueBasis
from justenough.adapters.vault import JobToken
from justenough.domain.core.ids import request_id
from justenough.domain.jobs.credentials import CredentialHandle, HeldAccess
from justenough.domain.jobs.spec import Access
from justenough.domain.jobs.states import RequestState, Sensitivity
from justenough.domain.tools.call import call_of
from justenough.services.dependencies import Deps


@dataclass(slots=True)
class AccessGrant:
    """A request of this job that may be used: what it allows, on what, until when, and what was issued under it so far."""

    number: int
    access: Access
    """As granted, which may be less than was asked for."""
    basis: IssueBasis
    ends: float | None = None
    """When it is over, in ticks; it begins with its first issue."""
    issued: int = 0
    made: Counter[str] = field(default_factory=Counter)
    """Calls of each tool that something was issued for."""
    token: JobToken | None = None
    """The job's token for it: its policy allows this one action, and it lives as long as the grant."""

    @property
    def through_tools(self) -> bool:
        """Whether it is for all calls of some tools, within bounds."""
        return self.access.tools is not None and call_of(self.access) is None

    def seconds_left(self, *, ticks: float) -> float:
        """Return the seconds that it still has."""
        return float(self.access.ttl) if self.ends is None else self.ends - ticks


class JobGrants:
    """One job's. Used under its issuer's lock alone."""

    def __init__(self, deps: Deps, job: str) -> None:
        self._deps = deps
        self._job = job
        self._grants: list[AccessGrant] = []
        self._ever_granted: set[str] = set()
        """Requests that became a grant, each once: when that is over, it is over."""

    def add(self, grant: AccessGrant) -> None:
        """Remember one under which something was issued."""
        self._grants.append(grant)
        self._ever_granted.add(request_id(self._job, grant.number))

    def was_granted(self, request: str) -> bool:
        """Whether a request became a grant, whatever became of that."""
        return request in self._ever_granted

    def through_tools(self, access: Access) -> AccessGrant | None:
        """Return the grant that stands for this access through tools; None where there is none."""
        standing = (grant for grant in self._grants if grant.through_tools and self._is_usable(grant))
        return next((grant for grant in standing if _is_same_access(grant.access, access)), None)

    def find_covering(self, access: Access) -> Iterator[AccessGrant]:
        """Yield the grants that stand and are for what is wanted."""
        self._grants = [grant for grant in self._grants if self._is_usable(grant)]
        return (grant for grant in self._grants if self._covers(grant, access))

    def _is_usable(self, grant: AccessGrant) -> bool:
        """Whether a grant has time left, and nobody took back that they approved it."""
        if grant.seconds_left(ticks=self._deps.ticks()) < 1:
            return False
        return grant.basis.ladder is None or not is_withdrawn(self._deps, grant.basis.ladder.request)

    def _covers(self, grant: AccessGrant, access: Access) -> bool:
        """Whether a grant is for what is wanted, and can be used more than once."""
        if call_of(grant.access) and grant.basis.ladder:
            # People approved one call of a tool, with its arguments: it was made, and nothing else was approved.
            return False
        if grant.through_tools and not _lets_through(grant, access):
            return False
        action = self._deps.config.current().catalog.action(access.resource, access.action)
        # What Vault locks it issues once: people authorized one.
        return _is_same_access(grant.access, access) and not (action and action.locked)


def _is_same_access(one: Access, other: Access) -> bool:
    return (one.resource, one.action) == (other.resource, other.action)


def _lets_through(grant: AccessGrant, access: Access) -> bool:
    """Whether a grant for tools lets this very call through."""
    call, tools = call_of(access), grant.access.tools or {}
    return call is not None and call.tool in tools and not any(tools[call.tool].problems(call.arguments, made=grant.made[call.tool]))


def is_withdrawn(deps: Deps, request: str) -> bool:
    """Whether somebody took back that a request was approved."""
    view = deps.store.requests.get(request)
    return view is not None and view.state is RequestState.WITHDRAWN


class HeldCredentials:
    """The credentials of one job that are not known to be dead, what each was issued on, and what was touched."""

    def __init__(self) -> None:
        self.held = HeldAccess()
        """What the job holds and has touched."""
        self._alive: dict[str, CredentialHandle] = {}
        self._bases: dict[str, IssueBasis] = {}
        self._spaces: set[tuple[str, str]] = set()

    @property
    def spaces(self) -> frozenset[tuple[str, str]]:
        """Resource and action of all that was to give the job a space, also where nothing came of it: a space outlives what gave it."""
        return frozenset(self._spaces)

    @property
    def alive(self) -> tuple[CredentialHandle, ...]:
        """Every credential that Vault gave and that is not known to be dead."""
        return tuple(self._alive.values())

    def basis(self, credential: CredentialHandle) -> IssueBasis:
        """Return what a credential that is alive was issued on."""
        return self._bases[credential.id]

    def note_space(self, access: Access) -> None:
        """Remember that something is about to give the job a space, whatever comes of it."""
        self._spaces.add((access.resource, access.action.value))

    def add(self, credential: CredentialHandle, basis: IssueBasis) -> None:
        """Remember a credential that Vault gave, whatever comes of it."""
        self._alive[credential.id] = credential
        self._bases[credential.id] = basis

    def touch(self, credential: CredentialHandle, sensitivity: Sensitivity) -> None:
        """Count a credential as issued."""
        self.held = self.held.with_issued(credential.resource, credential.action, sensitivity)

    def forget(self, credential: CredentialHandle) -> None:
        """Forget one that is dead; what it touched stays touched."""
        self._alive.pop(credential.id, None)
        self._bases.pop(credential.id, None)
        if not any((one.resource, one.action) == (credential.resource, credential.action) for one in self._alive.values()):
            self.held = self.held.with_ended(credential.resource, credential.action)
