"""Requests a job's locked access in Vault when its approval opens. The request then waits in Vault for a control group's authorization.

The wrapping token is stored encrypted, for the session only. A second attempt finds the token of the first. If an attempt died before it
stored its token, that token is still under the job's prefix: it grants nothing without authorization, and is revoked with the job.

Not interrupted when it is cancelled: see `job_activities`.
"""

from __future__ import annotations

from temporalio import activity

from activities.support.caller_check import refused_event, require_job_workflow
from justenough.adapters.store import StoredWrappingToken
from justenough.adapters.vault import VaultDenied, VaultRefused, control_groups
from justenough.domain.approvals.ladder import Ladder
from justenough.domain.catalog.control_groups import control_group_of
from justenough.domain.catalog.loader import resolve_issue, scope_alias
from justenough.domain.contracts.workflow_messages import ControlGroupsInput, ControlGroupsResult
from justenough.domain.core.errors import GiveUp
from justenough.domain.core.ids import request_id
from justenough.domain.core.rejection import Rejection
from justenough.domain.jobs.spec import Access
from justenough.domain.ledger.events import EventType, build_event
from justenough.services.dependencies import Deps
from justenough.services.ledger_events import approval_opened_event
from justenough.services.verify_order import VerifiedOrder, verify_order


class NotOpened(GiveUp):
    """A locked request cannot be opened; the message gives the reason."""


class ControlGroupActivities:
    """Opens the approvals of a job's locked requests."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    @activity.defn(name="open_locks", no_thread_cancel_exception=True)
    def open_locks(self, locks_input: ControlGroupsInput) -> ControlGroupsResult:
        """Request each locked access in Vault, and only then open its approval."""
        job = locks_input.order.job
        require_job_workflow(self._deps, job)
        verified = verify_order(self._deps, locks_input.order, now=self._deps.now())
        try:
            if isinstance(verified, Rejection):
                raise NotOpened(verified.message)
            for number, access in enumerate(verified.spec.access, start=1):
                ladder = locks_input.ladders.get(request_id(job, number))
                if ladder and not self._deps.store.wrapped_tokens.get(ladder.request):
                    self._open_lock(job, verified, access, ladder)
        except (NotOpened, VaultDenied, VaultRefused) as error:
            self._deps.store.ledger.append([refused_event(job, str(error), at=self._deps.now())])
            return ControlGroupsResult(refused=str(error))
        return ControlGroupsResult()

    def _open_lock(self, job: str, verified: VerifiedOrder, access: Access, ladder: Ladder) -> None:
        deps, current = self._deps, self._deps.config.current()
        action = current.catalog.action(access.resource, access.action)
        if action is None:
            raise NotOpened(f"the catalog no longer offers {access.action} on {access.resource}; launch the job again")
        lock, scope = control_group_of(action, current.tiers), verified.spec.data_scope
        # The ladder came through Temporal: it must match the request in the ledger.
        view = deps.store.requests.get(ladder.request)
        recorded = view and (view.job_id, view.digest, view.tier, view.current_tier, view.action)
        if lock is None or recorded != (job, ladder.digest, ladder.needed, ladder.current, ladder.action):
            raise NotOpened(f"{access.action} on {access.resource}: the request differs from the recorded one; launch the job again")
        if ladder.current not in current.tiers.tiers:
            raise NotOpened(
                f"{access.action} on {access.resource}: approvals.yaml has no tier {ladder.current} any more; launch the job again"
            )
        ttl = lock.token_ttl(action)
        deps.vault.open_prefix(job, ttl)
        token = deps.vault.create_token(job, policy=action.policy, alias=scope_alias(action, scope), ttl=ttl)
        wrapped = control_groups.request_issue(deps.vault, token, resolve_issue(action, scope))
        kept = StoredWrappingToken(
            request=ladder.request,
            job=job,
            accessor=wrapped.accessor,
            token_accessor=token.accessor,
            ciphertext=control_groups.encrypt(deps.vault, wrapped.secret, about=ladder.request),
        )
        now = deps.now()
        locked = build_event(
            EventType.LOCK_OPENED,
            job,
            at=now,
            about=ladder.request,
            request=ladder.request,
            accessor=wrapped.accessor,
            expires_at=wrapped.expires.isoformat(),
            groups=list(lock.groups),
            approvals=lock.approvals,
        )
        latest = min(ladder.respond_by, current.tiers.respond_by(ladder.current, now=now))
        opened = approval_opened_event(job, ladder.model_copy(update={"respond_by": latest}), current.tiers, at=now)
        if not deps.store.wrapped_tokens.keep(kept, (locked, opened)):
            # Another attempt was faster, or the job is over.
            control_groups.revoke_token(deps.vault, token.secret)
