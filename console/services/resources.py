"""One resource: who has or had access to it, who requested it, and how much of it was needed. Blocking, for a thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from console.auth.authorization import Caller
from console.services.background_reads import USAGE_PERIOD
from console.services.catalog_offers import OfferedAction, offered_actions
from console.services.console import Console
from console.services.credentials import credential_page, endless_credentials
from justenough.adapters.store.paging import MAX_PAGE_SIZE
from justenough.domain.catalog.models import Resource
from justenough.domain.core.errors import NotFound
from justenough.domain.jobs.states import Action
from justenough.domain.readmodel.views import CredentialFilters, CredentialView, RequestView
from justenough.domain.rightsizing.usage import AccessKey

MAX_CREDENTIALS = 25
"""Maximum number of credentials that may be active, and of those that are not."""
MAX_REQUESTS_PER_ACTION = 100
"""Number of newest requests, of those that the caller may read, for each action."""
MAX_REQUESTS = 25


@dataclass(frozen=True, slots=True)
class ResourceAccess:
    """A resource and the access to it that a caller may read."""

    name: str
    definition: Resource | None
    """None if the catalog no longer has it."""
    actions: Sequence[OfferedAction]
    active: Sequence[CredentialView]
    """Not yet verified as revoked, or valid until their owner changes them; newest first."""
    past: Sequence[CredentialView]
    """Of the newest credentials."""
    has_older: bool
    """Whether there are credentials older than those."""
    requests: Sequence[RequestView]
    """Newest first."""

    @property
    def never_used(self) -> Sequence[Action]:
        """The actions that nobody requested in the counted period."""
        return [one.action for one in self.actions if one.use is not None and not one.use.asked]


def resource_access(console: Console, caller: Caller, name: str) -> ResourceAccess:
    """Return the access to a resource. Raises NotFound if it is neither in the catalog nor in anything that the caller may read."""
    store, current, now = console.deps.store, console.deps.config.current(), console.deps.now()
    definition = current.catalog.resources.get(name)
    whose = caller.requester_filter
    newest = [
        request
        for action in Action
        for request in store.requests.of_action(name, action.value, requester_id=whose, limit=MAX_REQUESTS_PER_ACTION)
    ]
    readable = console.job_owners.readable(caller, newest, lambda request: request.job_id)
    # What the caller may not read is left out of a page.
    size = MAX_CREDENTIALS if caller.can_read_all else MAX_PAGE_SIZE
    active = credential_page(console, caller, CredentialFilters(live=True, resource=name), limit=size, cursor=None).items
    endless = endless_credentials(console, caller, CredentialFilters(resource=name), limit=MAX_PAGE_SIZE).items
    issued = credential_page(console, caller, CredentialFilters(resource=name), limit=size, cursor=None)
    if definition is None and not readable and not issued.items:
        raise NotFound(f"there is no resource {name}")
    # Usage is of everyone's jobs.
    counted = definition.actions if definition is not None and caller.can_read_all else ()
    uses = {key: store.usage.action_use(key, since=now - USAGE_PERIOD) for key in (AccessKey(name, action.value) for action in counted)}
    return ResourceAccess(
        name=name,
        definition=definition,
        actions=offered_actions(current, name, now=now, uses=uses if counted else None) if definition is not None else (),
        active=sorted([*active[:MAX_CREDENTIALS], *endless[:MAX_CREDENTIALS]], key=lambda one: (one.issued_at, one.id), reverse=True),
        past=[one for one in issued.items[:MAX_CREDENTIALS] if one.state.is_dead],
        has_older=issued.next is not None or len(issued.items) > MAX_CREDENTIALS,
        requests=sorted(readable, key=lambda request: request.created_at, reverse=True)[:MAX_REQUESTS],
    )
