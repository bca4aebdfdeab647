"""CSRF tokens in pages: masked differently in each page, so that the sizes of compressed pages reveal nothing about them (BREACH). Pure."""

from __future__ import annotations

import hmac
import secrets

SEPARATOR = "."


def mask(token: str) -> str:
    """Return a token as a page shows it: random bytes, and their XOR with the token, both in hex."""
    plain = token.encode()
    pad = secrets.token_bytes(len(plain))
    return f"{pad.hex()}{SEPARATOR}{_xor(plain, pad).hex()}"


def is_masked_token(shown: str, token: str) -> bool:
    pad, separator, masked = shown.partition(SEPARATOR)
    try:
        plain = _xor(bytes.fromhex(masked), bytes.fromhex(pad))
    except ValueError:
        return False
    return bool(separator) and hmac.compare_digest(plain, token.encode())


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))
