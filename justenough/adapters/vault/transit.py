"""The keys that sign, as Vault keeps them: people's public ones, and the one that vouches for jobs. No private key ever leaves Vault."""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from justenough.adapters.vault.connection import VaultConnection
from justenough.adapters.vault.errors import VaultRefused, VaultUnavailable
from justenough.adapters.vault.ttl_cache import TtlCache
from justenough.domain.integrations.job_identity import JOBS_KEY as IDENTITY_KEY

SIGNATURE_PATTERN = re.compile(r"vault:v([1-9][0-9]*):([A-Za-z0-9+/]+={0,2})")
MAX_ROTATIONS = 3
"""Versions of the identities' key that may come one upon the other while one token is made."""


class TransitKeys(VaultConnection):
    """A connection that knows keys."""

    def __init__(self, address: str, *, namespace: str | None = None, cacert: Path | None = None) -> None:
        super().__init__(address, namespace=namespace, cacert=cacert)
        self._keys = TtlCache[dict[int, bytes]]()
        self._identity_version = 1

    def public_keys(self, entity_id: str) -> dict[int, bytes]:
        """Return the raw ed25519 public keys of a person's signing key, by version; empty where there is none."""
        return self._keys.get(entity_id, lambda: self._public_keys(f"je-sign-{entity_id}")) if is_uuid(entity_id) else {}

    # Our own hand.

    def own_entity(self) -> str:
        """Return the entity id of our own login; empty where it has none."""
        return str(((self.call_own("get", "auth/token/lookup-self") or {}).get("data") or {}).get("entity_id") or "")

    def sign_own(self, entity_id: str, message: bytes) -> str:
        """Return our own signature, in Vault's form, by the key that belongs to our own entity."""
        version, signature = self._sign(f"je-sign-{entity_id}", message)
        return f"vault:v{version}:{base64.b64encode(signature).decode()}"

    # Jobs' identities.

    def sign_identity(self, content: Callable[[int], bytes]) -> tuple[bytes, bytes]:
        """Return what `content` makes for the newest version of the key that vouches for jobs, and that version's signature of it.

        We may sign with that key and not read it, so its version is learned from the signature, and remembered.
        """
        for _ in range(MAX_ROTATIONS):
            message = content(version := self._identity_version)
            used, signature = self._sign(IDENTITY_KEY, message)
            if used == version:
                return message, signature
            self._identity_version = used
        why = f"transit/sign/{IDENTITY_KEY}: the key is being rotated"
        raise VaultUnavailable(why)

    def identity_keys(self) -> dict[int, bytes]:
        """Return the raw public keys of every version of that key which Vault still holds valid; empty where there is none."""
        return self._public_keys(IDENTITY_KEY)

    def _sign(self, key: str, message: bytes) -> tuple[int, bytes]:
        answer = self.call_own("post", f"transit/sign/{key}", {"input": base64.b64encode(message).decode()}) or {}
        found = SIGNATURE_PATTERN.fullmatch(str((answer.get("data") or {}).get("signature")))
        if not found:
            refused = f"transit/sign/{key}: Vault gave no signature; `justenough vault setup` makes the key"
            raise VaultRefused(refused)
        return int(found[1]), base64.b64decode(found[2])

    def _public_keys(self, name: str) -> dict[int, bytes]:
        data = (self.call_own("get", f"transit/keys/{name}") or {}).get("data") or {}
        if data.get("type") != "ed25519":
            return {}
        found = {int(version): _decode_raw_key(key.get("public_key")) for version, key in (data.get("keys") or {}).items()}
        return {version: key for version, key in found.items() if key is not None}


def is_uuid(text: str) -> bool:
    """Whether a text is a UUID in its usual spelling."""
    try:
        return str(uuid.UUID(text)) == text
    except (ValueError, AttributeError, TypeError):
        return False


def _decode_raw_key(encoded: Any) -> bytes | None:
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (TypeError, ValueError, binascii.Error):
        return None
    return raw if len(raw) == 32 else None
