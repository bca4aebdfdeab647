"""Signed checkpoints of the ledger: a tlog-checkpoint (C2SP) in a signed note (C2SP), with Ed25519. No I/O, no clock.

A checkpoint commits to the first `size` entries by the root of their Merkle tree. Anyone who keeps a checkpoint elsewhere can later show
that entries were removed or changed. docs/reference/ledger.md#checkpoints describes the text.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from justenough.domain.core.errors import InvalidInput, Problem, reject_if

CHECKPOINT = "checkpoint"
ED25519 = b"\x01"
"""The signature type of Ed25519 in signed notes."""
SIGNATURE_LINE = re.compile(r"\u2014 (\S+) ([A-Za-z0-9+/]+={0,2})")
SIGNATURE_MARK = "\u2014 "
MAX_LINES = 16
"""Maximum lines of a checkpoint's text: its three, and lines that other programs may add."""


class Checkpoint(NamedTuple):
    """A checkpoint as stated in its text, unverified; `is_signed_by` verifies its signature."""

    origin: str
    size: int
    """The number of entries that it commits to: those with a position up to this number."""
    root: bytes
    note: str
    """The whole text, with its signatures."""

    def is_signed_by(self, keys: Mapping[int, bytes]) -> bool:
        """Whether one of these raw public keys (by version) made a signature of this origin."""
        text, _, signatures = self.note.partition("\n\n")
        for line in signatures.splitlines():
            match = SIGNATURE_LINE.fullmatch(line)
            # A signature whose base64 somebody cut signs nothing.
            with suppress(binascii.Error):
                raw = base64.b64decode(match[2]) if match and match[1] == self.origin else b""
                if any(raw[:4] == key_id(self.origin, key) and _is_valid(key, raw[4:], f"{text}\n".encode()) for key in keys.values()):
                    return True
        return False


def origin_of(installation: str) -> str:
    """Return the name of an installation's ledger, which is also the name of the key that signs its checkpoints."""
    return f"justenough/{installation}/ledger"


def checkpoint_text(origin: str, size: int, root: bytes) -> bytes:
    """Return the text that is signed."""
    return f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n".encode()


def signed_note(origin: str, text: bytes, *, key: bytes, signature: bytes) -> str:
    """Return a signed note. `key`: the raw public key of the raw `signature`."""
    encoded = base64.b64encode(key_id(origin, key) + signature).decode()
    return f"{text.decode()}\n\u2014 {origin} {encoded}\n"


def key_id(name: str, key: bytes) -> bytes:
    """Return the four bytes that identify the key in a signature."""
    return hashlib.sha256(name.encode() + b"\n" + ED25519 + key).digest()[:4]


def read_checkpoints(text: str) -> Iterator[Checkpoint]:
    """Yield the checkpoints of a text that consists of notes, one after another.

    Raises InvalidInput if it contains no note, or anything else.
    """
    # A note has one empty line, before its signatures. Empty lines between notes may be left out.
    body: list[str] = []
    signatures: list[str] = []
    is_signed = False
    for line in (*text.split("\n"), ""):
        if is_signed and line.startswith(SIGNATURE_MARK):
            signatures.append(line)
            continue
        if signatures:
            yield _checkpoint_of(body, signatures)
            body, signatures, is_signed = [], [], False
        if line:
            if is_signed or len(body) == MAX_LINES:
                raise _unreadable()
            body.append(line)
        elif body:
            is_signed = True
    if body or not text.strip():
        raise _unreadable()


def _checkpoint_of(body: list[str], signatures: list[str]) -> Checkpoint:
    note = "".join(f"{line}\n" for line in (*body, "", *signatures))
    try:
        origin, size, root, *_ = body
        reject_if(int(size) < 0, "a checkpoint cannot commit to a negative number of entries")
        return Checkpoint(origin, int(size), base64.b64decode(root, validate=True), note)
    except (ValueError, binascii.Error) as error:
        raise _unreadable() from error


def _unreadable() -> InvalidInput:
    return InvalidInput(CHECKPOINT, (Problem("", "is not a signed checkpoint as `justenough ledger checkpoint` writes it"),))


def _is_valid(key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
