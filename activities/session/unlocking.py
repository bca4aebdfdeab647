"""Issuing what is locked: takes what was kept for a request, once, and has Vault issue it now that people have authorized it there."""

from __future__ import annotations

import structlog

from activities.deps import Deps
from activities.vault import Issued, VaultRefused, locks
from justenough.catalog import ResolvedIssue
from justenough.errors import JustEnoughError

log = structlog.get_logger()


def unlocked(deps: Deps, request: str, what: ResolvedIssue) -> tuple[str, Issued]:
    """Return the accessor of the token that asked, and what Vault issues. Raises VaultRefused where its lock is not open, or was used."""
    kept = deps.store.kept_lock(request)
    state = locks.state(deps.vault, kept.accessor) if kept else None
    if state is None:
        raise VaultRefused(f"{what.path}: nothing waits in Vault for this request (any more)")
    if not state.is_for(what):
        raise VaultRefused(f"{what.path}: what waits in Vault for this request is something else")
    if not state.approved:
        raise VaultRefused(f"{what.path}: Vault wants more people's authorization than it has ({len(state.authorized)})")
    # Unwrapping twice issues twice: whoever takes it has deleted it, and of several one gets it.
    taken = deps.store.take_lock(request)
    if taken is None:
        raise VaultRefused(f"{what.path}: what opens it was used already")
    wrapping = locks.decrypted(deps.vault, taken.ciphertext, about=request)
    issued = locks.unwrap(deps.vault, wrapping, what)
    try:
        # So that Vault itself unwraps it no second time.
        locks.end_token(deps.vault, wrapping)
    except JustEnoughError as error:
        # What was issued counts; without the job's token, which the job's end ends, this one opens nothing.
        log.warning("a used lock is not ended", job=taken.job, request=request, error=str(error))
    return taken.token_accessor, issued
