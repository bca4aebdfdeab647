"""What binds the tools that one job calls: its order, less what its approvers took, and what the jobs that it came of may do. Issues nothing."""

from __future__ import annotations

from justenough.domain.jobs.spec import Access
from justenough.domain.jobs.states import Action
from justenough.domain.jobs.tool_bounds import APPROVAL, ORDER, Tools
from justenough.domain.tools.call import Call, bounded, within
from justenough.services.dependencies import Deps
from justenough.services.inherited_limits import bounds_above
from justenough.services.verify_order import VerifiedOrder

ABOVE = "the job that launched this one"


class Bindings:
    """One job's. What people left of an item of its order is all that the item says from then on, also when its grant is over."""

    def __init__(self, deps: Deps, verified: VerifiedOrder) -> None:
        self._deps = deps
        self._verified = verified
        self._spec = verified.spec

    def narrow(self, asked: Access, tools: Tools) -> None:
        """Bind what the order says of some access through tools to what was granted of it. Under the issuer's lock."""
        items = (item.model_copy(update={"tools": tools}) if _is(item, asked) else item for item in self._spec.access)
        self._spec = self._spec.model_copy(update={"access": tuple(items)})

    def own(self, resource: str, action: Action) -> tuple[Access, ...]:
        """Return what the order says, now, of an action that is had through tools alone; nothing where it may be had in any way."""
        return bounded(self._spec, resource, action)

    def names(self, tool: str, resource: str, action: Action) -> bool:
        """Whether the order lets a tool through at all."""
        items = self.own(resource, action)
        return not items or any(tool in (item.tools or {}) for item in items)

    def within(self, call: Call, resource: str, action: Action, *, made: int) -> Call:
        """Return a call with the bounds that it stays within. Blocking. Raises OutOfBounds where they do not let it through."""
        own = self.own(resource, action)
        by = ORDER if own == bounded(self._verified.spec, resource, action) else APPROVAL
        call = within(call, own, made=made, by=by)
        for items in bounds_above(self._deps, resource, action, self._verified.statement):
            above = within(call, items, made=made, by=ABOVE).within
            # Each lets this very call through, so something is left of both.
            call = call.model_copy(update={"within": above.both(call.within) if above and call.within else above})
        return call


def _is(item: Access, asked: Access) -> bool:
    return (item.resource, item.action, item.tools) == (asked.resource, asked.action, asked.tools)
