"""Who is calling: verifies identity tokens against Vault's keys and re-reads the person. Logs and keeps no bearer token."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from typing import Any

import anyio.to_thread
import httpx
import structlog
from joserfc import jws, jwt
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jwa import JWSAlgModel
from joserfc.jwk import KeySet

from console.auth.vault_directory import ConsoleVault
from console.concurrency.caches import SingleFlightCache
from justenough.adapters.configuration.settings import Settings
from justenough.domain.approvals.tiers import Person
from justenough.domain.core.errors import RetryLater, Unauthenticated

AUDIENCE = "je-console"


ALGORITHMS = frozenset({"EdDSA", "Ed25519", "RS256"})


MAX_TOKEN_LIFETIME_S = 15 * 60
"""Seconds."""


CLOCK_LEEWAY_S = 10
"""Seconds that clocks may differ."""


MAX_TOKEN_BYTES = 8192


KEYS_TTL_S = 300.0
"""Seconds for which Vault's public keys are believed."""


KEYS_RETRY_INTERVAL_S = 3.0
"""Seconds between two looks for a key that is not known: a foreign token must not make us ask Vault each time."""


KEYS_TIMEOUT_S = 5.0


log = structlog.get_logger()


class KeysUnavailable(RetryLater):
    """Vault's public keys cannot be read now, so no token can be verified."""


class AuthenticatedPerson:
    """A verified caller: the person, and until when their token holds (seconds since the epoch)."""

    __slots__ = ("expires", "person")

    def __init__(self, person: Person, expires: float) -> None:
        self.person = person
        self.expires = expires


class TokenVerifier:
    """Verifies bearer tokens. One per console, on its event loop."""

    def __init__(self, vault: ConsoleVault, settings: Settings, client: httpx.AsyncClient, *, now: Callable[[], float] = time.time) -> None:
        self._vault = vault
        self._mounts = settings.people_mounts
        self._keys = VaultJwks(f"{vault.address}/v1/identity/oidc/.well-known/keys", client)
        # iat is checked too, so that a token cannot claim to be short-lived by hiding when it began.
        self._claims = jwt.JWTClaimsRegistry(
            now=lambda: int(now()),
            leeway=CLOCK_LEEWAY_S,
            iss={"essential": True, "value": settings.issuer},
            aud={"essential": True, "value": AUDIENCE},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
        )

    async def verify(self, authorization: str | None) -> AuthenticatedPerson:
        """Return who an Authorization header stands for; raise Unauthenticated saying why not, RetryLater where Vault does not answer."""
        claims = await self._verify_token(_bearer_token(authorization))
        person = await self.person(claims["sub"])
        if person is None:
            raise Unauthenticated("the token's person is unknown or disabled")
        return AuthenticatedPerson(person, float(claims["exp"]) + CLOCK_LEEWAY_S)

    async def person(self, entity: str) -> Person | None:
        """Return the person as of at most FRESH seconds ago."""
        return self._vault.cached_person(entity) or await anyio.to_thread.run_sync(self._vault.person, entity, self._mounts)

    async def _verify_token(self, token: str) -> dict[str, Any]:
        keys = await self._keys.key_set(_kid(token))
        try:
            claims = jwt.decode(token, keys, registry=_REGISTRY).claims
            self._claims.validate(claims)
        except (JoseError, ValueError) as error:
            raise Unauthenticated(_rejection_text(error)) from None  # The cause may carry parts of the token.
        if claims["exp"] - claims["iat"] > MAX_TOKEN_LIFETIME_S + CLOCK_LEEWAY_S:
            raise Unauthenticated(f"the token lives longer than {MAX_TOKEN_LIFETIME_S // 60} minutes")
        return claims


class VaultJwks:
    """Vault's public keys (JWKS), read again when they are old or when a key id is not among them."""

    def __init__(self, url: str, client: httpx.AsyncClient) -> None:
        self._url = url
        self._client = client
        self._cache = SingleFlightCache(self._read)

    async def key_set(self, kid: str) -> KeySet:
        """Return a set of the one key with this id. Raises Unauthenticated if Vault has no such key, KeysUnavailable if Vault cannot be asked."""
        keys = await self._cache.get(self._url, max_age_s=KEYS_TTL_S, retry_s=KEYS_RETRY_INTERVAL_S)
        if kid not in keys:
            # The known keys stay valid if Vault is away; only a new one cannot be learned now.
            with contextlib.suppress(KeysUnavailable):
                keys = await self._cache.get(self._url, max_age_s=KEYS_RETRY_INTERVAL_S)
        if kid not in keys:
            raise Unauthenticated("the token is not signed by this installation's Vault")
        return KeySet.import_key_set({"keys": [keys[kid]]})

    async def _read(self, url: str) -> dict[str, Any]:
        try:
            answer = await self._client.get(url, timeout=KEYS_TIMEOUT_S)
            answer.raise_for_status()
            return {key["kid"]: key for key in answer.json()["keys"]}
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            log.warning("vault's keys could not be read", url=url, error=type(error).__name__)
            raise KeysUnavailable(f"Vault does not tell its keys at {url}") from error


class _VaultAlgorithms(jws.JWSRegistry):
    """The algorithms that Vault signs with. Its `EdDSA` is the old name of Ed25519, which joserfc would warn of at each token."""

    def get_alg(self, name: str) -> JWSAlgModel:
        if name not in ALGORITHMS:
            raise UnsupportedAlgorithmError(f"{name} is not one of Vault's algorithms")
        return self.algorithms[name]


_REGISTRY = _VaultAlgorithms()


def _bearer_token(authorization: str | None) -> str:
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("an identity token is needed: Authorization: Bearer …")
    if len(token) > MAX_TOKEN_BYTES:
        raise Unauthenticated("the token is too long to be one")
    return token.strip()


def _kid(token: str) -> str:
    try:
        kid = jws.extract_compact(token.encode()).headers().get("kid")
    except (JoseError, ValueError, json.JSONDecodeError):
        kid = None
    if not isinstance(kid, str):
        raise Unauthenticated("the token is not readable")
    return kid


def _rejection_text(error: Exception) -> str:
    known = {"expired_token": "the token has expired", "bad_signature": "the token's signature does not hold"}
    code = getattr(error, "error", "")
    claim = getattr(error, "claim", None)
    return known.get(code) or (f"the token's `{claim}` is not the one expected" if claim else "the token does not hold")
