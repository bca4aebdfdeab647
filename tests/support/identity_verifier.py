"""How a relying party verifies a job's identity: with a stock JOSE library and only what the console publishes."""

from __future__ import annotations

import warnings
from datetime import datetime
from typing import Any

from joserfc import jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import KeySet


def verify_identity(token: str, published: dict[str, Any], *, issuer: str, audience: str, now: datetime) -> dict[str, Any]:
    """Return the claims of a valid token. Raises joserfc's errors."""
    with warnings.catch_warnings():
        # RFC 9864 renames EdDSA with this curve to Ed25519. Vault's libraries and those of most relying parties do not know that name yet.
        warnings.simplefilter("ignore", SecurityWarning)
        claims = jwt.decode(token, KeySet.import_key_set({"keys": published["keys"]}), algorithms=["EdDSA"]).claims
    rules = jwt.JWTClaimsRegistry(
        now=lambda: int(now.timestamp()),
        leeway=0,
        iss={"essential": True, "value": issuer},
        aud={"essential": True, "value": audience},
        exp={"essential": True},
        nbf={"essential": True},
    )
    rules.validate(claims)
    return dict(claims)


def alter_claims(token: str, old: str, new: str) -> str:
    """Return the token with one text of its claims replaced and its signature unchanged."""
    from joserfc.util import urlsafe_b64decode, urlsafe_b64encode

    header, claims, signature = token.split(".")
    before = urlsafe_b64decode(claims.encode()).decode()
    assert old in before
    return ".".join((header, urlsafe_b64encode(before.replace(old, new).encode()).decode(), signature))
