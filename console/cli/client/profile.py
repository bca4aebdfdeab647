"""Who is logged in: the login file per profile, the person's Vault token, and the identity tokens that it draws for the console.

The Vault token stays in its file and goes to the one Vault that gave it, never to the console, nor to a Vault at another address.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from console.cli.client import private_files
from console.cli.client.config import Addresses, running, said
from console.cli.client.vault import Entry, Identity, PersonsVault, read_identity
from console.cli.errors import Exit, Failure, NotLoggedIn
from console.cli.options import Options
from justenough.domain.approvals.statements import Statement, signable
from justenough.domain.core.canonical_json import canonical
from justenough.domain.core.secret import Secret

PROFILE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")


NOWHERE = Addresses(None, None)


EARLY = 60.0
"""Seconds before its end after which an identity token is not used again."""


@dataclass(frozen=True, slots=True)
class Profile:
    """A login file: addresses that were given with the login, and the login."""

    path: Path
    pinned: Addresses = NOWHERE
    """Given by flag, environment or settings file when logging in."""
    seen: Addresses = NOWHERE
    """Used when logging in, wherever they came from."""
    token: Secret | None = None
    entity: str = ""
    name: str = ""
    expires: float = 0.0

    @property
    def cache(self) -> Path:
        """Where the identity token of this login is kept until shortly before its end."""
        return self.path.with_suffix(".identity.json")


def profile_of(options: Options) -> Profile:
    """Return the login file that the options name; an empty one where there is none."""
    if not PROFILE.fullmatch(options.profile):
        raise Failure("--profile: letters, digits and . _ - only", code=Exit.USAGE)
    path = private_files.folder() / f"{options.profile}.json"
    found = private_files.read(path) or {}
    return Profile(
        path=path,
        pinned=_addresses(found.get("pinned")),
        seen=_addresses(found.get("seen")),
        token=Secret(found["token"]) if found.get("token") else None,
        entity=str(found.get("entity", "")),
        name=str(found.get("name", "")),
        expires=float(found.get("expires", 0)),
    )


def addresses_of(options: Options, profile: Profile) -> Addresses:
    """Return where to go: flag, environment, settings file, profile, the running stack."""
    given, stack, pinned, seen = said(options.console_url), running(), profile.pinned, profile.seen
    return Addresses(
        console=given.console or pinned.console or stack.get("console") or seen.console,
        vault=given.vault or pinned.vault or stack.get("vault") or seen.vault,
        namespace=given.namespace or pinned.namespace,
        cacert=given.cacert or pinned.cacert,
    )


def addresses_for_login(options: Options, profile: Profile) -> tuple[Addresses, Addresses]:
    """Return where to log in, and what of it was given on purpose. A stack that runs here counts before an earlier login elsewhere."""
    given, stack = said(options.console_url), running()
    pinned = Addresses(given.console, given.vault, given.namespace, given.cacert)
    if pinned.vault is None and not stack.get("vault"):
        pinned = replace(profile.pinned, console=pinned.console or profile.pinned.console)
    used = replace(
        pinned,
        console=pinned.console or stack.get("console") or profile.seen.console,
        vault=pinned.vault or stack.get("vault") or profile.seen.vault,
    )
    return used, pinned


def addresses_at(profile: Profile) -> Addresses:
    """Return the Vault that a login is of, wherever others point."""
    given = said()
    return replace(profile.seen, namespace=profile.seen.namespace or given.namespace, cacert=profile.seen.cacert or given.cacert)


class Session:
    """The person whose commands these are."""

    def __init__(self, options: Options) -> None:
        self.profile = profile_of(options)
        self.addresses = addresses_of(options, self.profile)
        self._fresh: Identity | None = None
        self._vault: PersonsVault | None = None

    @property
    def vault(self) -> PersonsVault:
        """Their Vault."""
        self._vault = self._vault or PersonsVault(self.addresses)
        return self._vault

    def identity(self, *, anew: bool = False) -> Identity:
        """Return an identity token that holds for a minute or more. Raises NotLoggedIn, Unreachable."""
        token = self._token()
        found = None if anew else self._fresh or self._kept(token)
        if found is None or found.expires - time.time() < EARLY:
            found = self._drawn(token)
            self._keep(token, found)
        self._fresh = found
        return found

    def _drawn(self, token: Secret) -> Identity:
        try:
            return self.vault.identity(token)
        except NotLoggedIn as error:
            if not os.environ.get("VAULT_TOKEN"):
                raise
            hint = "VAULT_TOKEN is set and counts before your login: unset it, or set it to a token of yours"
            raise NotLoggedIn(error.message, hint=hint) from error

    def sign(self, content: bytes) -> str:
        """Return the person's signature, with a key that is made where they have none yet."""
        entity = self.identity().entity
        token = self._token()
        self.vault.make_key(token, entity)
        return self.vault.sign(token, entity, content)

    def authorize(self, accessor: str) -> bool:
        """Authorize in Vault what waits there under an accessor; return whether Vault now has all the authorizations that it wants."""
        return self.vault.authorize(self._token(), accessor)

    def _token(self) -> Secret:
        given = os.environ.get("VAULT_TOKEN")
        if given:
            return Secret(given)
        profile = self.profile
        if profile.token is None:
            raise NotLoggedIn("you are not logged in")
        if self.addresses.vault != profile.seen.vault:
            raise NotLoggedIn(f"you are logged in at {profile.seen.vault}, not at {self.addresses.vault}")
        if profile.expires and profile.expires < time.time():
            raise NotLoggedIn("your login has expired")
        return profile.token

    def _kept(self, token: Secret) -> Identity | None:
        found = private_files.read(self.profile.cache) or {}
        if found.get("of") != _mark(token) or not isinstance(found.get("token"), str):
            return None
        try:
            return read_identity(Secret(found["token"]))
        except Failure:
            return None

    def _keep(self, token: Secret, identity: Identity) -> None:
        # Another's file must not change because a token came by the environment; nor is a command worth failing over a cache.
        if self.profile.token == token:
            with contextlib.suppress(Failure):
                private_files.write(self.profile.cache, {"of": _mark(token), "token": identity.token.reveal()})


def keep(profile: Profile, entry: Entry, *, name: str, used: Addresses, pinned: Addresses) -> Profile:
    """Write the login file and return it as it is now."""
    content = {
        "version": 1,
        "name": name,
        "entity": entry.entity,
        "expires": entry.expires,
        "pinned": _written(pinned),
        "seen": _written(used),
        "token": entry.token.reveal(),
    }
    private_files.remove(profile.cache)
    private_files.write(profile.path, content)
    return replace(profile, token=entry.token, entity=entry.entity, name=name, expires=entry.expires, seen=used, pinned=pinned)


def forget(profile: Profile) -> bool:
    """Remove the login file; whether there was one."""
    private_files.remove(profile.cache)
    return private_files.remove(profile.path)


def _written(addresses: Addresses) -> dict[str, str | None]:
    names = ("console", "vault", "namespace", "cacert")
    return {name: getattr(addresses, name) for name in names}


def _addresses(found: Any) -> Addresses:
    known = found if isinstance(found, dict) else {}
    return Addresses(known.get("console"), known.get("vault"), known.get("namespace"), known.get("cacert"))


def _mark(token: Secret) -> str:
    """Return what tells which login an identity token was drawn with, and nothing of the login's token."""
    return hashlib.sha256(f"justenough identity {token.reveal()}".encode()).hexdigest()


def signed(session: Session, statement: Statement) -> dict[str, Any]:
    """Return a statement and its signature as they travel."""
    raw = signable(statement)
    return {"statement": raw, "signature": session.sign(canonical(raw))}
