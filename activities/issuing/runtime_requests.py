"""The requests that a running job makes: their numbers, how many, and which of them wait for people. Decides nothing, issues nothing."""

from __future__ import annotations

from dataclasses import replace

from activities.issuing.results import NotPermitted
from justenough.domain.catalog.loader import problems_in_spec
from justenough.domain.core.errors import InvalidInput
from justenough.domain.jobs.resource_limits import MAX_APPROVAL_REQUESTS_PER_JOB
from justenough.domain.jobs.spec import Access
from justenough.domain.tools.call import call_of
from justenough.services.dependencies import Deps
from justenough.services.inherited_limits import why_exceeds_ancestors
from justenough.services.verify_order import VerifiedOrder

MAX_REQUESTS = 1_000
"""Requests of one job; access under a grant that it has is none."""
MAX_WAITING_REQUESTS = 20
"""Requests of one job that wait for people at once: each call of a tool may be one, and people read them all."""


class RuntimeRequests:
    """One job's, beyond those that it had at its start."""

    def __init__(self, deps: Deps, verified: VerifiedOrder) -> None:
        self._deps = deps
        self._verified = verified
        self.waiting: dict[str, Access] = {}
        """What people are asked for, by request."""
        self._asked_people = 0
        self._numbers = len(verified.spec.access)
        self._unasked = {number: access for number, access in enumerate(verified.spec.access, start=1) if access.at == "request"}
        """What the order says that the job may ask for, and it has not."""

    def require_possible(self, access: Access) -> None:
        """Raise InvalidInput where the catalog does not have it like this, NotPermitted where it cannot be asked for now, or any more."""
        catalog = self._deps.config.current().catalog
        problems = problems_in_spec(self._verified.spec.model_copy(update={"access": (access,), "model": None}), catalog)
        if problems:
            raise InvalidInput("access", tuple(replace(one, path=one.path.removeprefix("access[0].")) for one in problems))
        if why := why_exceeds_ancestors(self._deps, access, self._verified.statement):
            raise NotPermitted(f"{access.action} on {access.resource}: {why}")
        if catalog.resources[access.resource].actions[access.action].locked:
            raise NotPermitted(f"Vault itself wants people to authorize {access.action} on {access.resource}: ask for it at the start")
        if self._numbers >= MAX_REQUESTS:
            raise NotPermitted(f"a job makes at most {MAX_REQUESTS:,} requests")

    def require_room(self) -> None:
        """Raise NotPermitted where people are asked, or were asked, as much by this job as they may be."""
        if len(self.waiting) >= MAX_WAITING_REQUESTS:
            raise NotPermitted(f"{MAX_WAITING_REQUESTS} requests of this job wait for people already: wait for their answers first")
        if self._asked_people >= MAX_APPROVAL_REQUESTS_PER_JOB:
            raise NotPermitted(
                f"people were asked for {MAX_APPROVAL_REQUESTS_PER_JOB} requests of this job, and are for no more: go on with what policy allows by itself"
            )

    def number(self, access: Access) -> int:
        """Return a new request's number: the order's own, where that says that the job may ask for this."""
        for number, said in self._unasked.items():
            # What the order says that the job may ask for is the credential, not a call that people approve by its arguments.
            same = (said.resource, said.action, said.tools) == (access.resource, access.action, access.tools)
            if call_of(access) is None and same and access.ttl <= said.ttl:
                return number
        return self._numbers + 1

    def mark_made(self, number: int) -> None:
        """Count a request as made: its number is no other's from now on."""
        if self._unasked.pop(number, None) is None:
            self._numbers = number

    def add_waiting(self, request: str, access: Access) -> None:
        """Count a request that people must answer."""
        self.waiting[request] = access
        self._asked_people += 1
