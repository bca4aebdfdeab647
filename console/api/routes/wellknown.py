"""OIDC discovery and public keys for verifying job identity tokens. Needs no token and reveals nothing about jobs."""

from __future__ import annotations

from fastapi import APIRouter, Response

from console.http import problems
from console.http.dependencies import TheConsole
from justenough.adapters.configuration.settings import NO_ISSUER
from justenough.domain.core.base_model import Message
from justenough.domain.core.errors import NotFound
from justenough.domain.integrations.job_identity import ALGORITHM, CLAIMS, to_jwk

KEYS_PATH = "/.well-known/jwks.json"
CACHE_CONTROL = "public, max-age=60"
"""A token names its key, so a verifier fetches the keys again for an unknown one; a proxy may delay this by a minute."""

router = APIRouter(tags=["identity"], responses=problems.problem_responses(500, 503))


class PublicKey(Message):
    """An Ed25519 key in the form of RFC 8037."""

    kty: str
    crv: str
    x: str
    kid: str
    use: str
    alg: str


class PublicKeys(Message):
    keys: tuple[PublicKey, ...]


class Discovery(Message):
    """The part of OpenID Connect discovery that a verifier of tokens needs."""

    issuer: str
    jwks_uri: str
    response_types_supported: tuple[str, ...] = ("id_token",)
    subject_types_supported: tuple[str, ...] = ("public",)
    id_token_signing_alg_values_supported: tuple[str, ...] = (ALGORITHM,)
    claims_supported: tuple[str, ...] = CLAIMS


@router.get(KEYS_PATH, operation_id="list_identity_keys")
async def keys(response: Response, console: TheConsole) -> PublicKeys:
    """List every public key that a job identity token may be signed with."""
    keys_by_version = await console.identity_keys.current()
    response.headers["Cache-Control"] = CACHE_CONTROL
    return PublicKeys(keys=tuple(PublicKey(**to_jwk(version, raw)) for version, raw in sorted(keys_by_version.items())))


@router.get("/.well-known/openid-configuration", operation_id="show_openid_configuration", responses=problems.problem_responses(404))
async def discovery(response: Response, console: TheConsole) -> Discovery:
    """Show the issuer of job identity tokens and the address of its keys."""
    issuer = console.deps.settings.workload_issuer
    if issuer is None:
        raise NotFound(NO_ISSUER)
    response.headers["Cache-Control"] = CACHE_CONTROL
    return Discovery(issuer=issuer, jwks_uri=issuer + KEYS_PATH)
