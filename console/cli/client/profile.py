"""The login of a profile: its file, the person's Vault token, and the identity tokens for the console.

The Vault token is stored in the login file. It is sent only to the Vault that issued it, never to the console or to a Vault at another address.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from console.cli import private_files, profiles
from console.cli.client.config import ServerAddresses, configured_addresses, running_stack
from console.cli.client.vault import CliLogin, ConsoleIdentityToken, PersonVaultClient, decode_identity_token
from console.cli.errors import Failure, NotLoggedIn, Unreachable, WrongUsage
from console.cli.options import DEFAULT_OPTIONS, GlobalOptions
from justenough.domain.core.secret import Secret, why_no_token

if TYPE_CHECKING:
    from justenough.domain.approvals.statements import Statement

TOKEN_REFRESH_MARGIN_S = 60.0
"""An identity token is replaced this many seconds before it expires."""


@dataclass(frozen=True, slots=True)
class Profile:
    """A login file: the login, how it was made, and the addresses that were given with it."""

    path: Path
    pinned: ServerAddresses
    """Addresses given by flag, environment or settings file at login."""
    seen: ServerAddresses
    """Addresses that the login used, from any source."""
    token: Secret | None
    expires: float
    name: str | None
    """The person's login name."""
    method: profiles.LoginMethod | None

    @property
    def cache(self) -> Path:
        """The file that caches this login's identity token."""
        return self.path.with_suffix(".identity.json")


def load_profile(options: GlobalOptions) -> Profile:
    """Load the login file of the profile in the options; return an empty profile if there is no file."""
    path = profiles.login_file(profiles.profile_name(options.profile))
    found = private_files.read(path) or {}
    try:
        expires = float(found.get("expires", 0))
    except (TypeError, ValueError):
        raise Failure(f"{path}: expires is not a number", hint="Log in again: justenough login") from None
    return Profile(
        path=path,
        pinned=_addresses_from_json(found.get("pinned")),
        seen=_addresses_from_json(found.get("seen")),
        token=Secret(str(found["token"])) if found.get("token") else None,
        expires=expires,
        name=found.get("name"),
        method=profiles.LoginMethod.from_json(found.get("method")),
    )


def addresses_for_login(options: GlobalOptions, profile: Profile) -> tuple[ServerAddresses, ServerAddresses]:
    """Return the addresses to log in at, and those that were given explicitly. A stack that runs here takes precedence over an earlier login."""
    pinned, stack = configured_addresses(options.console_url), running_stack()
    if pinned.vault is None and not stack.get("vault"):
        pinned = replace(profile.pinned, console=pinned.console or profile.pinned.console)
    used = replace(
        pinned,
        console=pinned.console or stack.get("console") or profile.seen.console,
        vault=pinned.vault or stack.get("vault") or profile.seen.vault,
    )
    return used, pinned


def addresses_of_profile(profile: Profile) -> ServerAddresses:
    """Return the addresses of the Vault that issued the login, ignoring the settings."""
    given = configured_addresses()
    return replace(profile.seen, namespace=profile.seen.namespace or given.namespace, cacert=profile.seen.cacert or given.cacert)


class CliSession:
    def __init__(self, options: GlobalOptions) -> None:
        self.profile = load_profile(options)
        given, stack, pinned = configured_addresses(options.console_url), running_stack(), self.profile.pinned
        self.addresses = ServerAddresses(
            console=given.console or pinned.console or stack.get("console") or self.profile.seen.console,
            vault=given.vault or pinned.vault or stack.get("vault") or self.profile.seen.vault,
            namespace=given.namespace or pinned.namespace,
            cacert=given.cacert or pinned.cacert,
        )
        self._identity_token: ConsoleIdentityToken | None = None
        self._vault: PersonVaultClient | None = None

    @property
    def vault(self) -> PersonVaultClient:
        self._vault = self._vault or PersonVaultClient(self.addresses)
        return self._vault

    def identity_token(self, *, refresh: bool = False) -> ConsoleIdentityToken:
        """Return an identity token that is valid for at least a minute. Raises NotLoggedIn, Unreachable."""
        token, cache = self._vault_token(), self.profile.cache
        found = None if refresh else self._identity_token
        if found is None and not refresh:
            cached = private_files.read(cache) or {}
            if cached.get("of") == _token_fingerprint(token) and isinstance(cached.get("token"), str):
                with contextlib.suppress(Failure):
                    found = decode_identity_token(Secret(cached["token"]))
        if found is None or found.expires - time.time() < TOKEN_REFRESH_MARGIN_S:
            try:
                found = self.vault.create_identity_token(token)
            except NotLoggedIn as error:
                if not os.environ.get("VAULT_TOKEN"):
                    raise
                hint = "VAULT_TOKEN is set and takes precedence over your login: unset it, or set it to your own token"
                raise NotLoggedIn(error.message, hint=hint) from error
            except Unreachable:
                # The last minute of a token is enough to stop a job while Vault is unreachable.
                if found is None or found.expires < time.time():
                    raise
                return found
            # Cache only the token of this login, not one from VAULT_TOKEN. A cache that cannot be written must not fail the command.
            if self.profile.token == token:
                with contextlib.suppress(Failure):
                    private_files.write(cache, {"of": _token_fingerprint(token), "token": found.token.reveal()})
        self._identity_token = found
        return found

    def sign_statement(self, statement: Statement) -> dict[str, Any]:
        """Sign a statement with the person's key, which is created if they have none; return both as the API takes them."""
        # Only signing needs these modules, and loading them takes longer than most commands.
        from justenough.domain.approvals.statements import to_signable  # noqa: PLC0415
        from justenough.domain.core.canonical_json import to_canonical_json  # noqa: PLC0415

        raw, token, entity = to_signable(statement), self._vault_token(), self.identity_token().entity
        self.vault.ensure_signing_key(token, entity)
        return {"statement": raw, "signature": self.vault.sign(token, entity, to_canonical_json(raw))}

    def authorize(self, accessor: str) -> bool:
        """Authorize a control-group request in Vault by its accessor; return whether the control group is satisfied."""
        return self.vault.authorize(self._vault_token(), accessor)

    def _vault_token(self) -> Secret:
        if token := os.environ.get("VAULT_TOKEN"):
            if why := why_no_token(token):
                raise WrongUsage(f"VAULT_TOKEN {why}")
            return Secret(token)
        profile = self.profile
        if profile.token is None:
            name, known = profile.path.stem, profiles.profile_names()
            is_unknown = known and name not in {*known, profiles.DEFAULT_PROFILE}
            raise NotLoggedIn(
                f"there is no profile {name}" if is_unknown else "you are not logged in", hint=f"Log in: justenough login{profile_hint()}"
            )
        vault = self.addresses.vault
        if vault != profile.seen.vault:
            hint = "Log in: justenough login. To keep the other login: justenough login --profile NAME"
            if there := [name for name, content in profiles.saved_logins() if _addresses_from_json(content.get("seen")).vault == vault]:
                use = f"--profile {there[0]}, or from now on: justenough profile use {there[0]}"
                hint = f"Use the profile with a login there ({', '.join(there)}): {use}"
            raise NotLoggedIn(f"you are logged in at {profile.seen.vault}, not at {vault}", hint=hint)
        if profile.expires and profile.expires < time.time():
            raise NotLoggedIn("your login has expired")
        return profile.token


def has_usable_login(name: str) -> bool:
    """Whether commands can use a profile's login: there is one for the servers in use, and its Vault answers and accepts it."""
    try:
        CliSession(replace(DEFAULT_OPTIONS, profile=name)).identity_token(refresh=True)
    except Failure:
        return False
    return True


def profile_hint() -> str:
    """Return how to use a profile, for the end of a hint; empty if there are none."""
    names = profiles.profile_names()
    return f". Or use a profile ({', '.join(names)}): --profile NAME, justenough profile use NAME" if names else ""


def save_login(
    profile: Profile, login: CliLogin, *, name: str, method: profiles.LoginMethod, addresses: ServerAddresses, pinned: ServerAddresses
) -> None:
    content = {
        "version": 1,
        "name": name,
        "method": asdict(method),
        "entity": login.entity,
        "expires": login.expires,
        "pinned": asdict(pinned),
        "seen": asdict(addresses),
        "token": login.token.reveal(),
    }
    private_files.remove(profile.cache)
    private_files.write(profile.path, content)


def delete_login(profile: Profile) -> None:
    """Delete the login file and its cached identity token."""
    private_files.remove(profile.path)
    private_files.remove(profile.cache)


def _addresses_from_json(value: Any) -> ServerAddresses:
    known = value if isinstance(value, dict) else {}
    return ServerAddresses(**{field.name: known.get(field.name) for field in fields(ServerAddresses)})


def _token_fingerprint(token: Secret) -> str:
    """Return a hash that identifies the login of a cached identity token without revealing its Vault token."""
    return hashlib.sha256(f"justenough identity {token.reveal()}".encode()).hexdigest()
