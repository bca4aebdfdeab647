"""Positive controls: whether not finding a credential's user in its target means that the user does not exist.

It does only if the observer of that target has found this user alive before. So before anybody gets a credential, its user is searched for.
If it is found, that is recorded (`credential.found`) with the target's digest, which identifies the server and the observer.

If a user could not be searched for in time, only other users of the same configuration are evidence. A configuration's digest covers the
target, and the path, role and connection in Vault, which determine on which server users are created and how they are named. Two digests
are recorded when the first such user is found:

- the place's digest, for finding a user whose name is known, if its credential was revoked before its user was searched for;
- the search's digest, for searching by job id if Vault's answer was lost; recorded only if the user's name contains the job's id.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from justenough.adapters.targets.postgres import TargetDown
from justenough.domain.catalog.loader import resolve_issue
from justenough.domain.catalog.models import ActionDef
from justenough.domain.core.canonical_json import digest_of
from justenough.domain.core.errors import GiveUp, InvalidInput, RetryLater
from justenough.domain.core.vault_names import DATABASE_CREDS_PATH
from justenough.domain.jobs.credentials import CredentialHandle
from justenough.domain.ledger.events import EventType, build_event
from justenough.services.dependencies import Deps


class NotObservable(GiveUp):
    """A credential whose end could not be verified: its target does not show its user while it is alive."""


class KnownControls(NamedTuple):
    """The positive controls that are known before an issue, for the user that it creates."""

    path: str
    """The Vault path at which it is issued."""
    digest: str | None
    """The digest of everything that the controls depend on (`configuration_digest`); None if the worker cannot know it."""
    is_search_known: bool
    """Whether a search by job id has found a live user under this digest."""
    is_place_known: bool
    """Whether a user was found alive by name under this digest."""

    @property
    def search_digest(self) -> str | None:
        """The digest under which a search by job id has found such a user; None if no search ever has."""
        return self.digest if self.is_search_known else None


def issue_path(action: ActionDef, data_scope: Mapping[str, str]) -> str:
    """Return the Vault path at which a job with this data scope is issued the action; "" if its data scope lacks a key."""
    try:
        return resolve_issue(action, data_scope).path
    except InvalidInput:
        return ""


def configuration_digest(deps: Deps, action: ActionDef, path: str, *, fresh: bool = False) -> str | None:
    """Return the digest of target, path, role and connection; None if the worker cannot know them. Raises RetryLater."""
    role = deps.vault.database_role(path, fresh=fresh) if action.target else None
    return digest_of({"target": action.target.digest, "path": path, "role": role.digest}) if action.target and role else None


def known_controls(deps: Deps, action: ActionDef, data_scope: Mapping[str, str]) -> KnownControls:
    """Return the known positive controls for a user of this action. Vault's configuration may be some seconds old. Raises RetryLater."""
    path, found_at = issue_path(action, data_scope), deps.store.positive_controls.found_at
    digest = configuration_digest(deps, action, path)
    is_search_known = digest is not None and found_at(digest) is not None
    return KnownControls(
        path, digest, is_search_known=is_search_known, is_place_known=digest is not None and found_at(_place_of(digest)) is not None
    )


def with_observed_user(deps: Deps, job: str, credential: CredentialHandle, action: ActionDef, known: KnownControls) -> CredentialHandle:
    """Search for the user of a credential that was just issued, record that it was found, and return the credential with the target's
    digest.

    Raises NotObservable if the target does not show the user, TargetDown if the target does not answer, RetryLater if Vault or the store
    does not.
    """
    user, target = credential.user, action.target
    if user is None or target is None:
        raise NotObservable(f"Vault's answer from {known.path} names no user, so no user can be searched for in the action's `target`")
    # A user without the job's id in its name is found only by its exact name.
    tries_search = job in user and not known.is_search_known
    where = frozenset({(credential.resource, credential.action.value)})
    seen = deps.targets.inspect(job, where, names=() if tries_search else (user,))
    if seen.failures:
        raise TargetDown("; ".join(seen.failures))
    place = ", ".join(seen.inspected)
    if user not in {found.name for found in seen.users}:
        raise NotObservable(
            f"Vault created the user {user}, but the target {place} does not show it, so its end could not be verified: correct the "
            f"action's `target` (is this the server on which {known.path} creates users, and may `observe` read pg_roles?)"
        )
    digest = known.digest
    if (tries_search or not known.is_place_known) and digest != configuration_digest(deps, action, known.path, fresh=True):
        # Somebody changed meanwhile how or where Vault creates users.
        digest = None
    data = {
        "target_digest": target.digest,
        "search_digest": digest if tries_search else None,
        "place_digest": _place_of(digest) if digest and not known.is_place_known else None,
    }
    about = {"credential": credential.id, "user": user, "target": place}
    deps.store.ledger.append([build_event(EventType.CREDENTIAL_FOUND, job, at=deps.now(), about=credential.id, **about, **data)])
    return credential.model_copy(update={"target_digest": target.digest})


def why_not_observable(deps: Deps, credential: CredentialHandle) -> str | None:
    """Return why the target cannot show whether a credential's user is gone; None if it can, or if the credential has no user there.

    Without a valid configuration, this process cannot inspect any target. Credentials of older versions have no recorded user. Their users
    are searched for by job id, which is evidence only if such a search has found users before.
    """
    try:
        action = deps.config.current().catalog.action(credential.resource, credential.action)
        if credential.user is None:
            return _why_not_searchable(deps, credential, action)
        if action is None or action.target is None or credential.target_digest not in {None, action.target.digest}:
            return f"its user {credential.user} is in a target that the catalog no longer has"
        # It was revoked before its user could be searched for. Another user of the same configuration may have been found before.
        path = (credential.lease_id or "").rpartition("/")[0]
        digest = configuration_digest(deps, action, path, fresh=True) if credential.target_digest is None else None
        if credential.target_digest is None and not (digest and was_found(deps, _place_of(digest), by=credential.issued_at)):
            return f"its target has never shown {credential.user}, so not finding it there proves nothing"
    except RetryLater as error:
        return str(error)
    return None


def _why_not_searchable(deps: Deps, credential: CredentialHandle, action: ActionDef | None) -> str | None:
    path = (credential.lease_id or "").rpartition("/")[0]
    if action is None or action.target is None or not DATABASE_CREDS_PATH.fullmatch(path):
        return None
    digest = configuration_digest(deps, action, path, fresh=True)
    if digest and was_found(deps, digest, by=credential.issued_at):
        return None
    return "an older version issued it and did not record its user, and no search by job id had found such users before"


def was_found(deps: Deps, digest: str, *, by: datetime) -> bool:
    """Whether an observer had found a live user under this digest by then. Reads only the store."""
    found = deps.store.positive_controls.found_at(digest)
    return found is not None and found <= by


def _place_of(digest: str) -> str:
    """Return the digest under which it is recorded that users are found by name. `digest`: the configuration's digest."""
    return digest_of({"place": digest})
