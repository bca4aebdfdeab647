"""The bounds of the tools that one job calls: those of its order, narrowed by its approvers, and those of its ancestors. Issues nothing."""

from __future__ import annotations

from justenough.domain.jobs.spec import Access
from justenough.domain.jobs.states import Action
from justenough.domain.jobs.tool_bounds import APPROVAL, ORDER, BoundedTools
from justenough.domain.tools.call import ToolCall, tool_only_items, with_bounds
from justenough.services.dependencies import Deps
from justenough.services.inherited_limits import ancestor_access_items
from justenough.services.verify_order import VerifiedOrder

PARENT_JOB = "the job that launched this one"


class ToolBounds:
    """The tool bounds of one job. Once approvers narrow an item of its order, the item stays narrowed, even after its grant ends."""

    def __init__(self, deps: Deps, verified: VerifiedOrder) -> None:
        self._deps = deps
        self._verified = verified
        self._spec = verified.spec

    def narrow(self, access: Access, tools: BoundedTools) -> None:
        """Narrow an item of the order to the tools that were granted of it. Call with the issuer's lock held."""
        same = (access.resource, access.action, access.tools)
        items = (
            item.model_copy(update={"tools": tools}) if (item.resource, item.action, item.tools) == same else item
            for item in self._spec.access
        )
        self._spec = self._spec.model_copy(update={"access": tuple(items)})

    def order_items(self, resource: str, action: Action) -> tuple[Access, ...]:
        """Return the order's items, as narrowed, for an action that is available through tools only; empty if it is available without."""
        return tool_only_items(self._spec, resource, action)

    def lets_through(self, tool: str, resource: str, action: Action) -> bool:
        """Whether the order allows a tool at all."""
        items = self.order_items(resource, action)
        return not items or any(tool in (item.tools or {}) for item in items)

    def bound_call(self, call: ToolCall, resource: str, action: Action, *, made: int) -> ToolCall:
        """Return a call with the bounds that it stays within. Blocking. Raises OutOfBounds if it does not."""
        own = self.order_items(resource, action)
        by = ORDER if own == tool_only_items(self._verified.spec, resource, action) else APPROVAL
        call = with_bounds(call, own, calls_made=made, by=by)
        for items in ancestor_access_items(self._deps, resource, action, self._verified.statement):
            above = with_bounds(call, items, calls_made=made, by=PARENT_JOB).within
            # Both allow this very call, so their intersection is not empty.
            call = call.model_copy(update={"within": above.intersect(call.within) if above and call.within else above})
        return call
