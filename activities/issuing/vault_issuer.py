"""Requests everything in Vault that a grant needs: the job's prefix, a token, a credential, a lease that ends with the grant. Makes no decisions.

Blocking: runs in threads, with the issuer's lock held.
"""

from __future__ import annotations

import structlog

from activities.issuing.grants import AccessGrant
from activities.issuing.results import ACCESS_CLOSED, STOP_RECORDED, AccessClosed, IssueRefused
from justenough.adapters.store import StoredWrappingToken
from justenough.adapters.vault import ConnectionRefused, IssuedSecret, VaultDenied, VaultRefused, control_groups
from justenough.domain.catalog.loader import resolve_issue, scope_alias
from justenough.domain.catalog.models import ActionDef, ResolvedIssue
from justenough.domain.core.errors import GiveUp, JustEnoughError
from justenough.domain.core.ids import request_id
from justenough.domain.jobs.spec import Access
from justenough.services.dependencies import Deps
from justenough.services.verify_order import VerifiedOrder

HARD_END_MARGIN_S = 60
"""Seconds between the end of the longest grant and the hard limit that Vault sets for the job's tokens."""
log = structlog.get_logger()


class VaultIssuer:
    def __init__(self, deps: Deps, job: str, verified: VerifiedOrder, *, owner: str) -> None:
        self._deps = deps
        self._job = job
        self._verified = verified
        self._owner = owner
        self._longest_ttl = 0
        self.settled = True
        """Whether Vault has answered every issue: then no credential can appear after the revocation."""

    def is_closed(self) -> bool:
        """Whether this session's claim is closed: then its access is being revoked."""
        claim = self._deps.store.claims.get(self._job)
        return claim is None or not claim.is_held_by(self._owner)

    def open_prefix(self, ttl: int) -> None:
        """Extend the job's token role to `ttl` if needed, then check that the session may issue. Raises AccessClosed.

        A session that was suspended while its claim was closed stops here, as does a session that somebody started after a stop was recorded.
        """
        if ttl > self._longest_ttl:
            longest = max([ttl, *(access.ttl for access in self._verified.spec.access)])
            try:
                self._deps.vault.open_prefix(self._job, longest + HARD_END_MARGIN_S)
            except BaseException:
                self.settled = False
                raise
            self._longest_ttl = longest
        require_may_issue(self._deps, self._job, owner=self._owner)

    def issue(self, grant: AccessGrant, access: Access, action: ActionDef) -> tuple[str, IssuedSecret]:
        """Issue with the grant's token, or through its control group; return the token's accessor and what Vault issued.

        Raises IssueRefused, AccessClosed, RetryLater.
        """
        scope, request = self._verified.spec.data_scope, request_id(self._job, grant.number)
        what = resolve_issue(action, scope, issue_values={"job": self._job, "ttl": str(access.ttl)})
        alias, failed = scope_alias(action, scope), f"Vault did not create a token with the policy {action.policy}"
        try:
            if not action.locked and grant.token is None:
                grant.token = self._deps.vault.create_token(self._job, policy=action.policy, alias=alias, ttl=access.ttl)
            failed = f"{access.action} on {access.resource}"
            if grant.token is None:
                return redeem_control_group(self._deps, request, what)
            return grant.token.accessor, self._deps.vault.issue(grant.token, what)
        except (VaultDenied, VaultRefused) as error:
            if self.is_closed():
                # The grant's token was revoked meanwhile: nothing is wrong with the request.
                raise AccessClosed(f"{ACCESS_CLOSED} ({error})") from error
            is_policy_old = isinstance(error, VaultDenied) and grant.token is not None
            hint = f"; if the catalog is newer than Vault's policy {action.policy}, run `justenough vault apply`" if is_policy_old else ""
            raise IssueRefused(f"{failed}: {error}{hint}") from error
        except BaseException:
            # Vault may still answer a call that we no longer wait for: only a later check shows it.
            self.settled = False
            raise

    def shorten_lease(self, issued: IssuedSecret, ttl: int) -> int | None:
        """Shorten a lease that its engine made longer than the grant; return its remaining seconds; None if the engine gives no ttl.

        Vault does not do that itself: in the target a credential outlives its token's ttl, and while Vault is down, only the target's own
        clock ends it.
        """
        if issued.lease_id is None or issued.ttl is None or issued.ttl <= ttl:
            return issued.ttl
        try:
            return self._deps.vault.renew_lease(issued.lease_id, ttl)
        except GiveUp as error:
            # The engine's leases may not be renewable. Then its role's ttl decides how long they live.
            log.warning("lease outlives its grant", job=self._job, lease_seconds=issued.ttl, error=str(error))
            return issued.ttl
        except BaseException:
            self.settled = False
            raise


def require_may_issue(deps: Deps, job: str, *, owner: str) -> None:
    """Return if this session may give the job more access now. Raises AccessClosed if its claim is closed or a stop of the job is recorded."""
    claim = deps.store.claims.get(job)
    if claim is None or not claim.may_issue(owner):
        raise AccessClosed(STOP_RECORDED if claim and claim.is_held_by(owner) else ACCESS_CLOSED)


def redeem_control_group(deps: Deps, request: str, what: ResolvedIssue) -> tuple[str, IssuedSecret]:
    """Unwrap an authorized request; return the accessor of its token, and what Vault issued. Raises VaultRefused if it is not authorized or
    was unwrapped before.
    """
    stored = deps.store.wrapped_tokens.get(request)
    state = control_groups.read_state(deps.vault, stored.accessor) if stored else None
    if state is None:
        raise VaultRefused(f"{what.path}: Vault has no wrapping token for this request; it may have expired")
    if not state.is_for(what):
        raise VaultRefused(f"{what.path}: the wrapping token in Vault is for a different request")
    if not state.approved:
        raise VaultRefused(f"{what.path}: Vault's control group needs more authorizations than it has ({len(state.authorized)})")
    # Unwrapping twice would issue twice: taking the token deletes it, so only one caller gets it.
    taken = deps.store.wrapped_tokens.take(request)
    if taken is None:
        raise VaultRefused(f"{what.path}: the wrapping token has already been unwrapped")
    try:
        wrapping = control_groups.decrypt(deps.vault, taken.ciphertext, about=request)
        issued = control_groups.unwrap(deps.vault, wrapping, what)
    except ConnectionRefused:
        # Nothing was issued: Vault or the target may be restarting, and the session tries again.
        deps.store.wrapped_tokens.put_back(taken)
        raise
    except JustEnoughError:
        # Nobody knows whether something was issued, so nobody may unwrap it again.
        _end_wrapping_token(deps, taken)
        raise
    # Revoke it, so that Vault itself refuses to unwrap it a second time.
    _end_wrapping_token(deps, taken)
    return taken.token_accessor, issued


def _end_wrapping_token(deps: Deps, taken: StoredWrappingToken) -> None:
    """Revoke a wrapping token that has been taken from the store. If that fails, it expires; without the job's token, which ends with the job,
    it opens nothing.
    """
    try:
        control_groups.revoke_wrapping_token(deps.vault, taken.ciphertext, about=taken.request)
    except JustEnoughError as error:
        log.warning("used wrapping token not revoked", job=taken.job, request=taken.request, error=str(error))
