"""Canonical JSON (RFC 8785) and digests of it. Pure."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

import rfc8785
from pydantic import StringConstraints

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]


def to_canonical_json(value: Any) -> bytes:
    """Return a JSON value in RFC 8785 form. Raises ValueError if it cannot be represented."""
    return rfc8785.dumps(value)


def digest_of(value: Any) -> str:
    """Return `sha256:<hex>` over a JSON value's canonical form."""
    return f"sha256:{hashlib.sha256(to_canonical_json(value)).hexdigest()}"
