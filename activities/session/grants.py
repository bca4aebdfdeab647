"""What a job may use more than once: its grants, and which of them are for what is wanted now. Decides nothing anew, issues nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from activities.deps import Deps
from activities.session.renewing import Basis
from activities.vault import Token
from justenough.access import RequestState
from justenough.calls import call_of
from justenough.ids import request_id
from justenough.spec import Access


@dataclass(slots=True)
class Grant:
    """A request of this job that may be used: what it allows, on what, until when, and what was issued under it so far."""

    number: int
    access: Access
    """As granted, which may be less than was asked for."""
    basis: Basis
    ends: float | None = None
    """When it is over, in ticks; it begins with its first issue."""
    issued: int = 0
    made: Counter[str] = field(default_factory=Counter)
    """Calls of each tool that something was issued for."""
    token: Token | None = None
    """The job's token for it: its policy allows this one action, and it lives as long as the grant."""

    @property
    def through_tools(self) -> bool:
        """Whether it is for all calls of some tools, within bounds."""
        return self.access.tools is not None and call_of(self.access) is None

    def left(self, *, ticks: float) -> float:
        """Return the seconds that it still has."""
        return float(self.access.ttl) if self.ends is None else self.ends - ticks


class Grants:
    """One job's. Used under its issuer's lock alone."""

    def __init__(self, deps: Deps, job: str) -> None:
        self._deps = deps
        self._job = job
        self._grants: list[Grant] = []
        self._had: set[str] = set()
        """Requests that became a grant, each once: when that is over, it is over."""

    def add(self, grant: Grant) -> None:
        """Remember one under which something was issued."""
        self._grants.append(grant)
        self._had.add(request_id(self._job, grant.number))

    def had(self, request: str) -> bool:
        """Whether a request became a grant, whatever became of that."""
        return request in self._had

    def through_tools(self, wanted: Access) -> Grant | None:
        """Return the grant that stands for this access through tools; None where there is none."""
        standing = (grant for grant in self._grants if grant.through_tools and self._stands(grant))
        return next((grant for grant in standing if _same(grant.access, wanted)), None)

    def covering(self, wanted: Access) -> Iterator[Grant]:
        """Yield the grants that stand and are for what is wanted."""
        self._grants = [grant for grant in self._grants if self._stands(grant)]
        return (grant for grant in self._grants if self._covers(grant, wanted))

    def _stands(self, grant: Grant) -> bool:
        """Whether a grant has time left, and nobody took back that they approved it."""
        if grant.left(ticks=self._deps.ticks()) < 1:
            return False
        return grant.basis.ladder is None or not is_withdrawn(self._deps, grant.basis.ladder.request)

    def _covers(self, grant: Grant, wanted: Access) -> bool:
        """Whether a grant is for what is wanted, and can be used more than once."""
        if call_of(grant.access) and grant.basis.ladder:
            # People approved one call of a tool, with its arguments: it was made, and nothing else was approved.
            return False
        if grant.through_tools and not _lets(grant, wanted):
            return False
        action = self._deps.config.current().catalog.action(wanted.resource, wanted.action)
        # What Vault locks it issues once: people authorized one.
        return _same(grant.access, wanted) and not (action and action.locked)


def _same(one: Access, other: Access) -> bool:
    return (one.resource, one.action) == (other.resource, other.action)


def _lets(grant: Grant, wanted: Access) -> bool:
    """Whether a grant for tools lets this very call through."""
    call, tools = call_of(wanted), grant.access.tools or {}
    return call is not None and call.tool in tools and not any(tools[call.tool].problems(call.arguments, made=grant.made[call.tool]))


def is_withdrawn(deps: Deps, request: str) -> bool:
    """Whether somebody took back that a request was approved."""
    view = deps.store.request(request)
    return view is not None and view.state is RequestState.WITHDRAWN
