"""Credentials: list, show, revoke, and wait until a revocation is confirmed."""

from __future__ import annotations

from anyio import to_thread

from console.auth.authorization import Caller
from console.concurrency.loops import poll_until
from console.services.console import Console
from console.services.tell_job import tell_job
from console.services.visibility import MAX_PAGES_READ, first_visible_page
from console.temporal.client import WorkflowGone
from justenough.domain.core.errors import NotFound
from justenough.domain.jobs.states import CredentialState, JobState
from justenough.domain.ledger.events import EventType
from justenough.domain.readmodel.views import CredentialFilters, CredentialView, Page
from justenough.services.dependencies import Deps
from justenough.services.ledger_events import event_of_person

CONFIRM_TIMEOUT_S = 20.0
"""For a target that hangs, revoking in Vault and checking the target each take up to 10 s."""
POLL_INTERVAL_S = 0.02


def credential_page(
    console: Console, caller: Caller, filters: CredentialFilters, *, limit: int, cursor: str | None, max_pages: int = MAX_PAGES_READ
) -> Page[CredentialView]:
    """Return a page of the credentials that the caller may read, newest first. Blocking, for a thread."""
    return first_visible_page(
        lambda after: console.deps.store.credentials.list(**filters, limit=limit, cursor=after),
        lambda views: console.job_owners.readable(caller, views, lambda view: view.job_id),
        cursor=cursor,
        max_pages=max_pages,
    )


def endless_credentials(console: Console, caller: Caller, filters: CredentialFilters, *, limit: int) -> Page[CredentialView]:
    """Return the newest matching credentials that stay valid after their jobs until their owners change them.

    Such credentials do not count as live.
    """
    residual: CredentialFilters = {**filters, "live": False, "state": CredentialState.RESIDUAL}
    page = credential_page(console, caller, residual, limit=limit, cursor=None)
    return Page[CredentialView](items=tuple(one for one in page.items if one.is_endless), next=page.next)


def visible_credential(console: Console, caller: Caller, credential: str) -> CredentialView:
    """Return a credential that the caller may read. Raises NotFound for any other. Blocking, for a thread."""
    view = console.deps.store.credentials.get(credential)
    if view is None or not console.job_owners.can_read(caller, view.job_id):
        raise NotFound(f"there is no credential {credential} that you may read")
    return view


async def request_revocation(console: Console, caller: Caller, credential: str) -> CredentialView:
    """Tell the job to revoke a credential, and return the credential as it was before. If it is dead or cannot be revoked, only return it.

    Raises NotFound, Forbidden, TemporalUnavailable if Temporal is needed.
    """
    view = await to_thread.run_sync(visible_credential, console, caller, credential)
    owner = await to_thread.run_sync(console.job_owners.owner_of, view.job_id)
    caller.require_right_to_stop(owner or "")
    if not view.state.is_settled:
        job = await to_thread.run_sync(console.deps.store.jobs.get, view.job_id)
        kind, about, now = EventType.REVOCATION_REQUESTED, f"{credential}/{caller.person.id}", console.deps.now()
        requested = event_of_person(caller.person, kind, view.job_id, at=now, about=about, credential=credential)
        failure = await tell_job(
            console.gateway.revoke_credential(view.job_id, view.id),
            lambda: console.deps.store.ledger.append([requested]),
            needs_workflow=job is None or job.state is not JobState.RUNNING,
        )
        if isinstance(failure, WorkflowGone):
            # The job has ended, so a sweep revokes the credentials that are left.
            await console.gateway.start_sweep()
    return view


async def wait_until_confirmed(deps: Deps, view: CredentialView) -> CredentialView:
    """Wait until a credential is dead, residual or newly overdue, for at most CONFIRM_TIMEOUT_S; return it as it is then."""

    async def read() -> CredentialView:
        return await to_thread.run_sync(deps.store.credentials.get, view.id) or view

    def is_settled(now: CredentialView) -> bool:
        return now.state.is_settled or (now.state is CredentialState.OVERDUE and (now.state, now.why) != (view.state, view.why))

    return await poll_until(view, read, until=is_settled, every_s=POLL_INTERVAL_S, timeout_s=CONFIRM_TIMEOUT_S)
