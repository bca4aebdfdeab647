"""Positive controls: whether not finding a credential's user in its target means that the user does not exist.

It does only if the observer of that target has found a live user before. So the user of the first credential of each configuration is looked
for before anybody gets the credential, and what was found is recorded (`credential.found`) under two digests:
- the target's, for looking up a user whose name is known: which server is searched, and as whom;
- the search's, for searching by job id if Vault's answer was lost: also the role and the connection that decide how Vault names users.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from justenough.domain.catalog.loader import resolve_issue
from justenough.domain.catalog.models import ActionDef
from justenough.domain.core.canonical_json import digest_of
from justenough.domain.core.errors import GiveUp, InvalidInput, RetryLater
from justenough.domain.jobs.credentials import CredentialHandle
from justenough.domain.jobs.states import Action
from justenough.domain.ledger.events import EventType, build_event
from justenough.services.dependencies import Deps


class NotObservable(GiveUp):
    """A credential whose end could not be verified: its target does not show its user while it is alive."""


def issue_path(action: ActionDef, data_scope: Mapping[str, str]) -> str:
    """Return the Vault path at which a job with this data scope is issued the action; "" if its data scope lacks a key."""
    try:
        return resolve_issue(action, data_scope).path
    except InvalidInput:
        return ""


def search_digest(deps: Deps, action: ActionDef, path: str, *, fresh: bool = False) -> str | None:
    """Return the digest of everything that a search by job id depends on; None if the worker cannot know it. Raises RetryLater."""
    role = deps.vault.database_role(path, fresh=fresh) if action.target else None
    return digest_of({"target": action.target.digest, "path": path, "role": role.digest}) if action.target and role else None


def trusted_search(deps: Deps, action: ActionDef, path: str, *, since: datetime, fresh: bool = True) -> str | None:
    """Return the digest of a search by job id that finds what was issued at or after `since`; None if none is known. Raises RetryLater."""
    digest = search_digest(deps, action, path, fresh=fresh)
    found = deps.store.positive_controls.found_at(digest) if digest else None
    return digest if found is not None and found <= since else None


def with_observed_user(
    deps: Deps, job: str, credential: CredentialHandle, action: ActionDef, path: str, *, searched: str | None
) -> CredentialHandle:
    """Return a credential that was just issued with the digest of the target that shows its user.

    Unless users of its configuration were found before, look for this one, and record that it was found. `searched`: the search's digest before
    the issue. Raises NotObservable if the target does not show the user, RetryLater if it does not answer.
    """
    user, target, controls = credential.user, action.target, deps.store.positive_controls
    if user is None or target is None:
        raise NotObservable(f"Vault's answer from {path} names no user, so no user can be looked for in the action's `target`")
    # A name without the job's id is found by itself only.
    searched = searched if job in user else None
    # If it was recorded without the digest, several first issues came at once: each must be found, and recorded, by itself.
    if credential.target_digest == target.digest and (searched is None or controls.found_at(searched)):
        return credential
    where = frozenset({(credential.resource, credential.action.value)})
    seen = deps.targets.inspect(job, where, names=() if searched else (user,))
    if seen.failures:
        raise RetryLater("; ".join(seen.failures))
    place = ", ".join(seen.inspected)
    if user not in {found.name for found in seen.users}:
        raise NotObservable(
            f"Vault created the user {user}, but the target {place} does not show it, so its end could not be verified: correct the "
            f"action's `target` (is this the server on which {path} creates users, and may `observe` read pg_roles?)"
        )
    if searched != search_digest(deps, action, path, fresh=True):
        # Somebody changed how Vault names users meanwhile.
        searched = None
    data = {"credential": credential.id, "user": user, "target": place, "target_digest": target.digest, "search_digest": searched}
    deps.store.ledger.append([build_event(EventType.CREDENTIAL_FOUND, job, at=deps.now(), about=credential.id, **data)])
    return credential.model_copy(update={"target_digest": target.digest})


def why_not_observable(deps: Deps, credential: CredentialHandle) -> str | None:
    """Return why the target cannot show whether a credential's user is gone; None if it can, or if the credential has no user there.

    Credentials of older versions have no recorded user. They are searched for by job id, as those versions did.
    """
    if credential.user is None:
        return None
    if credential.target_digest is None:
        return f"its target has never shown a live user, so not finding {credential.user} there proves nothing"
    action = deps.config.current().catalog.action(credential.resource, Action(credential.action))
    if action is None or action.target is None or action.target.digest != credential.target_digest:
        return f"its user {credential.user} is in a target that the catalog no longer has"
    return None
