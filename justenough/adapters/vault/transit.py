"""Keys in Vault's transit engine: the signing keys, and the key that wraps the data keys of Temporal payloads. None of them leaves Vault."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from contextlib import suppress

from justenough.adapters.vault.connection import VaultConnection
from justenough.adapters.vault.errors import VaultRefused, VaultUnavailable
from justenough.domain.core.secret import Secret
from justenough.domain.core.vault_names import IDENTITY_KEY, LEDGER_KEY, PAYLOAD_KEY, SIGNING_KEY_PREFIX, signing_key
from justenough.domain.ledger.public_keys import KeyVersion

SIGNATURE_PATTERN = re.compile(r"vault:v([1-9][0-9]*):([A-Za-z0-9+/]+={0,2})")
ENTITY_ID_PATTERN = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?:\.[A-Za-z0-9]{1,32})?")
UNDECRYPTABLE = re.compile("invalid ciphertext|message authentication failed|disallowed by policy")
"""The errors of Vault and OpenBao for a ciphertext that this key did not encrypt, or encrypted with a version that may no longer be used."""
MAX_ROTATIONS = 3
"""Maximum number of rotations of the identity key while one token is created."""


class TransitKeys(VaultConnection):
    """A connection that can sign, read public keys, and wrap data keys."""

    _identity_version = 1

    def public_keys(self, entity_id: str) -> dict[int, bytes]:
        """Return the raw ed25519 public keys of a person's signing key, by version; empty if there is none."""
        return self._public_keys(signing_key(entity_id)) if is_entity_id(entity_id) else {}

    def own_entity(self) -> str:
        """Return the entity id of our own login; empty if it has none."""
        return str(self.read_data("get", "auth/token/lookup-self").get("entity_id") or "")

    def sign_own(self, entity_id: str, message: bytes) -> str:
        """Sign with the key of our own entity and return the signature in Vault's format."""
        version, signature = self._sign(signing_key(entity_id), message)
        return f"vault:v{version}:{base64.b64encode(signature).decode()}"

    def sign_identity(self, content: Callable[[int], bytes]) -> tuple[bytes, bytes]:
        """Sign the bytes that `content` returns for the newest version of the identity key. Return content and signature."""
        # Our policy allows signing with that key and not reading it, so its version is learned from the signature, and remembered.
        for _ in range(MAX_ROTATIONS):
            message = content(version := self._identity_version)
            used, signature = self._sign(IDENTITY_KEY, message)
            if used == version:
                return message, signature
            self._identity_version = used
        raise VaultUnavailable(f"transit/sign/{IDENTITY_KEY}: the key is being rotated")

    def sign_report(self, message: bytes) -> str:
        """Sign with the key that only workers may use, jobs' identity key, and return the signature in Vault's format."""
        version, signature = self._sign(IDENTITY_KEY, message)
        return f"vault:v{version}:{base64.b64encode(signature).decode()}"

    def identity_keys(self) -> dict[int, bytes]:
        """Return the raw public keys of each version of the identity key that is still valid in Vault; empty if there is none."""
        return self._public_keys(IDENTITY_KEY)

    def sign_for_ledger(self, message: bytes) -> tuple[bytes, bytes]:
        """Sign with the ledger's key; return the raw public key and the raw signature."""
        version, signature = self._sign(LEDGER_KEY, message)
        for key in self.ledger_key_versions():
            if key.version == version:
                return key.raw, signature
        raise VaultRefused(f"transit/keys/{LEDGER_KEY}: Vault does not show the version {version} that it signed with")

    def ledger_key_versions(self) -> tuple[KeyVersion, ...]:
        """Return every version of the ledger's key that is valid in Vault."""
        return self._key_versions(LEDGER_KEY)

    def signing_key_versions(self) -> dict[str, tuple[KeyVersion, ...]]:
        """Return every version of every person's signing key, by the person's entity id."""
        listed = self.read_data("list", "transit/keys").get("keys") or ()
        people = sorted(str(name).removeprefix(SIGNING_KEY_PREFIX) for name in listed if str(name).startswith(SIGNING_KEY_PREFIX))
        return {person: self._key_versions(f"{SIGNING_KEY_PREFIX}{person}") for person in people}

    def wrap_data_key(self, key: Secret) -> str:
        """Return a data key (base64) as ciphertext that only Vault can decrypt."""
        ciphertext = self.read_data("post", f"transit/encrypt/{PAYLOAD_KEY}", {"plaintext": key.reveal()}).get("ciphertext")
        if not ciphertext:
            raise VaultRefused(f"transit/encrypt/{PAYLOAD_KEY}: Vault returned no ciphertext; `justenough vault apply` creates the key")
        return str(ciphertext)

    def unwrap_data_key(self, wrapped: str) -> Secret | None:
        """Return the data key (base64) of a ciphertext; None if Vault did not encrypt it, or may no longer decrypt it."""
        try:
            data = self.read_data("post", f"transit/decrypt/{PAYLOAD_KEY}", {"ciphertext": wrapped})
        except VaultRefused as error:
            if UNDECRYPTABLE.search(str(error)):
                return None
            raise
        return Secret(str(data.get("plaintext") or ""))

    def _sign(self, key: str, message: bytes) -> tuple[int, bytes]:
        data = self.read_data("post", f"transit/sign/{key}", {"input": base64.b64encode(message).decode()})
        match = SIGNATURE_PATTERN.fullmatch(str(data.get("signature")))
        if not match:
            raise VaultRefused(f"transit/sign/{key}: Vault returned no signature; `justenough vault setup` creates the key")
        return int(match[1]), base64.b64decode(match[2])

    def _public_keys(self, name: str) -> dict[int, bytes]:
        return {key.version: key.raw for key in self._key_versions(name)}

    def _key_versions(self, name: str) -> tuple[KeyVersion, ...]:
        data, found = self.read_data("get", f"transit/keys/{name}"), list[KeyVersion]()
        if data.get("type") == "ed25519":
            for version, key in (data.get("keys") or {}).items():
                with suppress(TypeError, ValueError, AttributeError):
                    found.append(KeyVersion(version=int(version), public_key=key.get("public_key"), valid_from=key.get("creation_time")))
        return tuple(sorted(found, key=lambda made: made.version))


def is_entity_id(text: str) -> bool:
    """Whether a text is a UUID as Vault spells it; outside of the root namespace, a dot and the namespace's id follow."""
    return ENTITY_ID_PATTERN.fullmatch(str(text)) is not None
