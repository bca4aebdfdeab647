"""Opening the locks of a job's requests: what is locked is asked of Vault when its approval opens, and waits there for people.

What opens a lock is kept as ciphertext, for the session alone. A second attempt finds what the first one kept; what an attempt that died in
between had asked for lies under the job's prefix, opens nothing without people, and ends with the job.
"""

from __future__ import annotations

from temporalio import activity

from activities.support.caller_check import refused_event, require_job_workflow
from justenough.adapters.store import StoredWrappingToken
from justenough.adapters.vault import VaultDenied, VaultRefused, control_groups
from justenough.domain.approvals.ladder import Ladder
from justenough.domain.catalog.control_groups import ControlGroupRule, control_group_of
from justenough.domain.catalog.loader import resolve_issue, scope_alias
from justenough.domain.contracts.workflow_messages import ControlGroupsInput, ControlGroupsResult
from justenough.domain.core.errors import GiveUp
from justenough.domain.core.ids import request_id
from justenough.domain.core.rejection import Rejection
from justenough.domain.jobs.spec import Access
from justenough.domain.ledger.events import Event, EventType, build_event
from justenough.services.dependencies import Deps
from justenough.services.ledger_events import approval_opened_event
from justenough.services.verify_order import VerifiedOrder, verify_order


class NotOpened(GiveUp):
    """A lock cannot be opened; the message says what stands against it."""


class ControlGroupActivities:
    """What a job's workflow asks before it waits for the approvers of locked requests."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    @activity.defn(name="open_locks")
    def open_locks(self, locks_input: ControlGroupsInput) -> ControlGroupsResult:
        """Have each locked request wait in Vault, and only then open its approval."""
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
        action = current.catalog.resources[access.resource].actions[access.action]
        lock, scope = control_group_of(action, current.tiers), verified.spec.data_scope
        if lock is None or self._is_unknown(job, ladder):
            raise NotOpened(f"{access.action} on {access.resource}: it is not what was decided; launch the job again")
        lives = lock.token_ttl(action)
        deps.vault.open_prefix(job, lives)
        token = deps.vault.create_token(job, policy=action.policy, alias=scope_alias(action, scope), ttl=lives)
        wrapped = control_groups.request_issue(deps.vault, token, resolve_issue(action, scope))
        kept = StoredWrappingToken(
            request=ladder.request,
            job=job,
            accessor=wrapped.accessor,
            token_accessor=token.accessor,
            ciphertext=control_groups.encrypt(deps.vault, wrapped.secret, about=ladder.request),
        )
        if not deps.store.wrapped_tokens.keep(kept, self._opened_events(job, ladder, lock, wrapped)):
            # Another attempt was faster, or the job is over.
            control_groups.revoke_token(deps.vault, token.secret)

    def _opened_events(self, job: str, ladder: Ladder, lock: ControlGroupRule, wrapped: control_groups.WrappingToken) -> tuple[Event, ...]:
        now, tiers = self._deps.now(), self._deps.config.current().tiers
        told = {"accessor": wrapped.accessor, "expires_at": wrapped.expires.isoformat()}
        wanted = {"groups": list(lock.groups), "approvals": lock.approvals}
        locked = build_event(EventType.LOCK_OPENED, job, at=now, about=ladder.request, request=ladder.request, **told, **wanted)
        latest = min(ladder.respond_by, tiers.respond_by(ladder.current, now=now))
        opened = ladder.model_copy(update={"respond_by": latest})
        return locked, approval_opened_event(job, opened, tiers, at=now)

    def _is_unknown(self, job: str, ladder: Ladder) -> bool:
        """Whether a ladder, which came by way of Temporal, is not what the ledger says of a request."""
        found = self._deps.store.requests.get(ladder.request)
        known = found and (found.job_id, found.digest, found.tier, found.current_tier, found.action)
        return known != (job, ladder.digest, ladder.needed, ladder.current, ladder.action)
