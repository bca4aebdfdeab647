"""What binds the tools that one job calls: its order, less what its approvers took, and what the jobs that it came of may do. Issues nothing."""

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
    """One job's. What people left of an item of its order is all that the item says from then on, also when its grant is over."""

    def __init__(self, deps: Deps, verified: VerifiedOrder) -> None:
        self._deps = deps
        self._verified = verified
        self._spec = verified.spec

    def narrow(self, access: Access, tools: BoundedTools) -> None:
        """Bind what the order says of some access through tools to what was granted of it. Under the issuer's lock."""
        items = (item.model_copy(update={"tools": tools}) if _is_same_item(item, access) else item for item in self._spec.access)
        self._spec = self._spec.model_copy(update={"access": tuple(items)})

    def order_items(self, resource: str, action: Action) -> tuple[Access, ...]:
        """Return what the order says, now, of an action that is had through tools alone; nothing where it may be had in any way."""
        return tool_only_items(self._spec, resource, action)

    def lets_through(self, tool: str, resource: str, action: Action) -> bool:
        """Whether the order lets a tool through at all."""
        items = self.order_items(resource, action)
        return not items or any(tool in (item.tools or {}) for item in items)

    def bound_call(self, call: ToolCall, resource: str, action: Action, *, made: int) -> ToolCall:
        """Return a call with the bounds that it stays within. Blocking. Raises OutOfBounds where they do not let it through."""
        own = self.order_items(resource, action)
        by = ORDER if own == tool_only_items(self._verified.spec, resource, action) else APPROVAL
        call = with_bounds(call, own, calls_made=made, by=by)
        for items in ancestor_access_items(self._deps, resource, action, self._verified.statement):
            above = with_bounds(call, items, calls_made=made, by=PARENT_JOB).within
            # Each lets this very call through, so something is left of both.
            call = call.model_copy(update={"within": above.intersect(call.within) if above and call.within else above})
        return call


def _is_same_item(item: Access, access: Access) -> bool:
    return (item.resource, item.action, item.tools) == (access.resource, access.action, access.tools)
