"""Authenticates callers: verifies identity tokens with Vault's keys and reads the person. Never logs or stores a bearer token."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

import anyio
import httpx
import structlog
from anyio import to_thread
from joserfc import jws, jwt
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jwa import JWSAlgModel
from joserfc.jwk import KeySet

from console.auth.authorization import Caller
from console.auth.vault_directory import ConsoleVault
from console.concurrency.caches import SingleFlightCache
from console.concurrency.vault_threads import VAULT_THREADS
from justenough.domain.approvals.tiers import Person
from justenough.domain.core.errors import RetryLater, Unauthenticated
from justenough.domain.core.vault_names import IDENTITY_ROLE
from justenough.services.dependencies import Deps

ALGORITHMS = frozenset({"EdDSA", "Ed25519", "RS256"})
MAX_TOKEN_LIFETIME_S = 15 * 60
CLOCK_LEEWAY_S = 10
MAX_TOKEN_BYTES = 8192
KEYS_TTL_S = 300.0
KEYS_RETRY_INTERVAL_S = 3.0
"""Shortest time between two reads for unknown key ids: tokens of other issuers must not make the console call Vault each time."""
KEYS_TIMEOUT_S = 5.0
LAST_KNOWN_AFTER_S = 2.0
"""Seconds that a call waits for Vault if it may use Vault's last answer instead."""
V = TypeVar("V")

log = structlog.get_logger()


class KeysUnavailable(RetryLater):
    """Vault's public keys cannot be read now, so no token can be verified."""


class TokenVerifier:
    """Verifies bearer tokens. One per console, on its event loop."""

    def __init__(self, deps: Deps, vault: ConsoleVault, client: httpx.AsyncClient) -> None:
        settings = deps.settings
        self._vault, self._config = vault, deps.config
        self._mounts = settings.people_mounts
        self._keys = VaultJwks(f"{vault.address}/v1/identity/oidc/.well-known/keys", client, namespace=settings.vault_namespace)
        # iat is also required: without it the lifetime of a token is unknown.
        self._claims = jwt.JWTClaimsRegistry(
            now=lambda: int(deps.now().timestamp()),
            leeway=CLOCK_LEEWAY_S,
            iss={"essential": True, "value": settings.issuer},
            aud={"essential": True, "value": IDENTITY_ROLE},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
        )

    async def verify(self, authorization: str | None, *, allow_last_known: bool = False) -> Caller:
        """Return the caller that an Authorization header identifies.

        `allow_last_known`: if Vault does not answer, use the last known keys and groups. They suffice for reading, and for reducing access.
        Raises Unauthenticated with the reason, RetryLater if Vault is unreachable.
        """
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthenticated("an identity token is required: Authorization: Bearer …")
        if len(token) > MAX_TOKEN_BYTES:
            raise Unauthenticated(f"the token is longer than {MAX_TOKEN_BYTES:,} characters")
        claims = await self._verify_token(token.strip(), allow_last_known=allow_last_known)
        person = await self.person(claims["sub"], allow_last_known=allow_last_known)
        if person is None:
            raise Unauthenticated("the token's person is unknown or disabled")
        # In a thread, because reading the configuration sometimes reads files.
        tiers = (await to_thread.run_sync(self._config.current)).tiers
        return Caller(person=person, tiers=tiers, expires=float(claims["exp"]) + CLOCK_LEEWAY_S)

    async def person(self, entity: str, *, allow_last_known: bool = False) -> Person | None:
        """Return the person, read at most CACHE_TTL_S ago; None if the entity is not a person or is disabled.

        `allow_last_known`: if Vault does not answer soon, return its last answer.
        """
        if cached := self._vault.cached_person(entity):
            return cached
        known = self._vault.cached_person(entity, of_any_age=True) if allow_last_known else None
        return await ask_vault(lambda: self._vault.person(entity, self._mounts), last_known=known)

    async def _verify_token(self, token: str, *, allow_last_known: bool) -> dict[str, Any]:
        try:
            key_id = jws.extract_compact(token.encode()).headers().get("kid")
        except (JoseError, ValueError):
            key_id = None
        if not isinstance(key_id, str):
            raise Unauthenticated("the token cannot be parsed: it must be a JWT whose header has a `kid`")
        keys = await self._keys.key_set(key_id, allow_last_known=allow_last_known)
        try:
            claims = jwt.decode(token, keys, registry=_REGISTRY).claims
            self._claims.validate(claims)
        except (JoseError, ValueError) as error:
            texts = {"expired_token": "the token has expired", "bad_signature": "the token's signature is not valid"}
            claim = getattr(error, "claim", None)
            fallback = f"the token's `{claim}` claim is not valid for this console" if claim else "the token is not valid"
            # Raise without the cause, which may contain parts of the token.
            raise Unauthenticated(texts.get(getattr(error, "error", ""), fallback)) from None
        if claims["exp"] - claims["iat"] > MAX_TOKEN_LIFETIME_S + CLOCK_LEEWAY_S:
            raise Unauthenticated(f"the token is valid for longer than {MAX_TOKEN_LIFETIME_S // 60} minutes")
        return claims


async def ask_vault(read: Callable[[], V | None], *, last_known: V | None) -> V | None:
    """Return the result of `read`, called in a thread; `last_known`, if given, if Vault does not answer soon. Raises RetryLater."""
    if last_known is None:
        return await VAULT_THREADS.run(read)
    try:
        with anyio.fail_after(LAST_KNOWN_AFTER_S):
            # The read continues in its thread, for the next caller.
            return await VAULT_THREADS.run(read)
    except (RetryLater, TimeoutError):
        log.warning("Vault does not answer; its last known answer about a login is used")
        return last_known


class VaultJwks:
    """Vault's public keys (JWKS), read again after KEYS_TTL_S or for an unknown key id."""

    def __init__(self, url: str, client: httpx.AsyncClient, *, namespace: str | None = None) -> None:
        self._url = url
        self._client = client
        self._headers = {"X-Vault-Namespace": namespace} if namespace else {}
        self._cache = SingleFlightCache(self._read)

    async def key_set(self, kid: str, *, allow_last_known: bool = False) -> KeySet:
        """Return a set of the one key with this id. Raises Unauthenticated if Vault has no such key, KeysUnavailable if Vault does not answer.

        `allow_last_known`: if Vault does not answer, use the last known keys, however old.
        """
        try:
            keys = await self._cache.get(self._url, max_age_s=KEYS_TTL_S, retry_s=KEYS_RETRY_INTERVAL_S)
        except KeysUnavailable:
            last = self._cache.last(self._url)
            if last is None or not allow_last_known:
                raise
            keys = last
        if kid not in keys:
            # If Vault is unreachable, the known keys stay valid; only new keys are missing.
            with contextlib.suppress(KeysUnavailable):
                keys = await self._cache.get(self._url, max_age_s=KEYS_RETRY_INTERVAL_S)
        if kid not in keys:
            raise Unauthenticated("the token is not signed by this installation's Vault")
        return KeySet.import_key_set({"keys": [keys[kid]]})

    async def _read(self, url: str) -> dict[str, Any]:
        try:
            response = (await self._client.get(url, headers=self._headers, timeout=KEYS_TIMEOUT_S)).raise_for_status()
            return {key["kid"]: key for key in response.json()["keys"]}
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            log.warning("the public keys of Vault could not be read", url=url, error=type(error).__name__)
            raise KeysUnavailable(f"cannot read Vault's keys at {url}") from error


class _VaultAlgorithms(jws.JWSRegistry):
    """The algorithms that Vault signs with. Vault names Ed25519 `EdDSA`, for which joserfc's own registry warns about every token."""

    def get_alg(self, name: str) -> JWSAlgModel:
        if name not in ALGORITHMS:
            raise UnsupportedAlgorithmError(f"{name} is not one of Vault's algorithms")
        return self.algorithms[name]


_REGISTRY = _VaultAlgorithms()
