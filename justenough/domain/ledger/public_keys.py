"""The public keys that verify a ledger's checkpoints and the signatures of people in its entries. No I/O."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator

from justenough.domain.core.base_model import Message
from justenough.domain.core.errors import InvalidInput, Problem, reject_if

KEY_BYTES = 32


def _check_key(text: str) -> str:
    # A base64 error is a ValueError.
    reject_if(len(base64.b64decode(text, validate=True)) != KEY_BYTES, f"must be {KEY_BYTES} bytes as base64")
    return text


class KeyVersion(Message):
    """One version of a key. Vault makes a new version when a key is rotated, and older ones keep verifying."""

    version: int
    public_key: Annotated[str, AfterValidator(_check_key)]
    """32 bytes, ed25519, as base64."""
    valid_from: datetime
    """When Vault made it."""

    @property
    def raw(self) -> bytes:
        """The public key's 32 bytes."""
        return base64.b64decode(self.public_key)


class PersonKeys(Message):
    """The signing key of a person, or of the console, which signs the orders of triggers and schedules."""

    id: str
    """Vault entity id."""
    name: str
    """Login name; empty if the person no longer has a login."""
    keys: tuple[KeyVersion, ...]


class LedgerKeys(Message):
    """The answer of `GET /api/v1/ledger/keys`, which `justenough ledger keys` writes to a file."""

    type: Literal["justenough.ledger-keys.v1"] = "justenough.ledger-keys.v1"
    origin: str
    """The name of the ledger and of its key in checkpoints."""
    checkpoint_keys: tuple[KeyVersion, ...]
    people: tuple[PersonKeys, ...]


def read_keys(text: str) -> LedgerKeys:
    """Read a file that `justenough ledger keys` wrote. Raises InvalidInput."""
    try:
        return LedgerKeys.model_validate_json(text)
    except ValueError as error:
        raise InvalidInput("keys", (Problem("", "is not a file that `justenough ledger keys` writes"),)) from error
