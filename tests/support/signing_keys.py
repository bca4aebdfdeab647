"""People's signing keys, as Vault would store them: one per person, derived from the name."""

from __future__ import annotations

import base64
import hashlib
from functools import cache

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


@cache
def key_of(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


@cache
def public_key(name: str) -> bytes:
    return key_of(name).public_key().public_bytes_raw()


def vault_signature(name: str, message: bytes) -> str:
    """Return a signature in the format of Vault's transit engine."""
    return f"vault:v1:{base64.b64encode(key_of(name).sign(message)).decode()}"
