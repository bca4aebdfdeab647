"""Positive controls: whether not finding a credential's user in its target means that the user does not exist.

It does only if the observer of that target has found a live user before. So the user of the first credential of each configuration is looked
for before anybody gets the credential, and what was found is recorded (`credential.found`) under two digests:
- the target's, for looking up a user whose name is known: which server is searched, and as whom;
- the search's, for searching by job id if Vault's answer was lost: also the role and the connection that decide how Vault names users.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from justenough.domain.catalog.loader import resolve_issue
from justenough.domain.catalog.models import ActionDef
from justenough.domain.core.canonical_json import digest_of
from justenough.domain.core.errors import GiveUp, InvalidInput, RetryLater
from justenough.domain.jobs.credentials import CredentialHandle
from justenough.domain.ledger.events import EventType, build_event
from justenough.services.dependencies import Deps


class NotObservable(GiveUp):
    """A credential whose end could not be verified: its target does not show its user while it is alive."""


class KnownControls(NamedTuple):
    """What is known, before an issue, of looking for the user that it creates."""

    path: str
    """The Vault path at which it is issued."""
    target_digest: str | None
    """Of the action's target, if it has shown a live user; otherwise None."""
    search_digest: str | None
    """Of a search by job id, if it has found a live user; otherwise None."""
    untried_search: str | None
    """Of a search by job id that has not found anybody yet; None if it has, or if the worker cannot know what it depends on."""


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


def is_search_trusted(deps: Deps, action: ActionDef, path: str, *, since: datetime) -> bool:
    """Whether a search by job id finds what was issued at or after `since`, as Vault is configured now. Raises RetryLater."""
    digest = search_digest(deps, action, path, fresh=True)
    found = deps.store.positive_controls.found_at(digest) if digest else None
    return found is not None and found <= since


def known_controls(deps: Deps, action: ActionDef, data_scope: Mapping[str, str]) -> KnownControls:
    """Return what is known of looking for a user of this action. Of Vault's configuration it may be some seconds old. Raises RetryLater."""
    path, found_at = issue_path(action, data_scope), deps.store.positive_controls.found_at
    search, target = search_digest(deps, action, path), action.target.digest if action.target else None
    is_found = search is not None and found_at(search) is not None
    return KnownControls(
        path,
        target_digest=target if target and found_at(target) else None,
        search_digest=search if is_found else None,
        untried_search=None if is_found else search,
    )


def with_observed_user(deps: Deps, job: str, credential: CredentialHandle, action: ActionDef, known: KnownControls) -> CredentialHandle:
    """Return a credential that was just issued with the digest of the target that shows its user.

    Unless users of its configuration were found before, look for this one, and record that it was found. Raises NotObservable if the target
    does not show the user, RetryLater if the target, Vault or the store does not answer.
    """
    user, target = credential.user, action.target
    if user is None or target is None:
        raise NotObservable(f"Vault's answer from {known.path} names no user, so no user can be looked for in the action's `target`")
    # A name without the job's id is found by itself only.
    search = known.untried_search if job in user else None
    # If it was recorded without the target's digest, several first issues came at once: each must be found, and recorded, by itself.
    if known.target_digest is not None and search is None:
        return credential
    where = frozenset({(credential.resource, credential.action.value)})
    seen = deps.targets.inspect(job, where, names=() if search else (user,))
    if seen.failures:
        raise RetryLater("; ".join(seen.failures))
    place = ", ".join(seen.inspected)
    if user not in {found.name for found in seen.users}:
        raise NotObservable(
            f"Vault created the user {user}, but the target {place} does not show it, so its end could not be verified: correct the "
            f"action's `target` (is this the server on which {known.path} creates users, and may `observe` read pg_roles?)"
        )
    if search != search_digest(deps, action, known.path, fresh=True):
        # Somebody changed how Vault names users meanwhile.
        search = None
    data = {"credential": credential.id, "user": user, "target": place, "target_digest": target.digest, "search_digest": search}
    deps.store.ledger.append([build_event(EventType.CREDENTIAL_FOUND, job, at=deps.now(), about=credential.id, **data)])
    return credential.model_copy(update={"target_digest": target.digest})


def why_not_observable(deps: Deps, credential: CredentialHandle) -> str | None:
    """Return why the target cannot show whether a credential's user is gone; None if it can, or if the credential has no user there.

    Without a valid configuration, this process cannot look into any target.
    Credentials of older versions have no recorded user. They are searched for by job id, as those versions did.
    """
    if credential.user is None:
        return None
    if credential.target_digest is None:
        return f"its target has never shown a live user, so not finding {credential.user} there proves nothing"
    try:
        action = deps.config.current().catalog.action(credential.resource, credential.action)
    except RetryLater as error:
        return str(error)
    if action is None or action.target is None or action.target.digest != credential.target_digest:
        return f"its user {credential.user} is in a target that the catalog no longer has"
    return None
