"""Identity tokens of jobs: their claims, their form (JWS, RFC 7515), and the keys that verify them (RFC 8037). No I/O, no clock.

Vault signs; this module only builds the content to sign. docs/how-to/identity.md explains each claim and which ones to check.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from justenough.domain.approvals.statements import OrderStatement
from justenough.domain.core.secret import Secret
from justenough.domain.core.vault_names import IDENTITY_KEY
from justenough.domain.jobs.spec import JobSpec

ALGORITHM = "EdDSA"
TOKEN_LIFETIME = timedelta(minutes=5)
"""A token cannot be revoked, so it may outlive its job by up to this time."""
REGISTERED_CLAIMS = ("iss", "sub", "aud", "iat", "nbf", "exp", "jti")
OWN_CLAIMS = ("job", "name", "agent", "bundle", "task", "environment", "data_scope")
CLAIMS = (*REGISTERED_CLAIMS, *OWN_CLAIMS)
"""Every claim that a token may have."""


def build_claims(spec: JobSpec, order: OrderStatement, *, issuer: str, audience: str, token_id: str, now: datetime) -> dict[str, Any]:
    """Build the claims for a job whose order was verified, without claims that are None. They name no person."""
    issued_at = int(now.timestamp())
    claims = {
        "iss": issuer,
        "sub": order.job,
        "aud": audience,
        "iat": issued_at,
        "nbf": issued_at,
        "exp": issued_at + int(TOKEN_LIFETIME.total_seconds()),
        "jti": token_id,
        "job": order.job,
        "name": spec.name,
        "agent": spec.agent.model_dump(mode="json") if spec.agent else None,
        "bundle": order.bundle,
        "task": spec.task,
        "environment": spec.environment,
        "data_scope": dict(spec.data_scope),
    }
    return {name: value for name, value in claims.items() if value is not None}


def signing_input(claims: Mapping[str, Any], *, version: int) -> bytes:
    """Return the bytes to sign with this version of the key: encoded header and claims."""
    header = {"alg": ALGORITHM, "kid": key_id(version), "typ": "JWT"}
    parts = (json.dumps(dict(part), separators=(",", ":")).encode() for part in (header, claims))
    return ".".join(map(_to_base64url, parts)).encode()


def build_token(signed: bytes, signature: bytes) -> Secret:
    return Secret(f"{signed.decode()}.{_to_base64url(signature)}")


def to_jwk(version: int, raw: bytes) -> dict[str, str]:
    """Return the JWK of one version of the key, from its 32 raw bytes."""
    return {"kty": "OKP", "crv": "Ed25519", "x": _to_base64url(raw), "kid": key_id(version), "use": "sig", "alg": ALGORITHM}


def key_id(version: int) -> str:
    """Return the `kid` of one version of the key."""
    return f"{IDENTITY_KEY}-v{version}"


def _to_base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
