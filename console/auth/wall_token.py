"""The token of wall screens: it gives access to the dashboard only. To rotate the token, write another one into its file."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from justenough.domain.core.errors import GiveUp
from justenough.domain.core.secret import Secret

MIN_TOKEN_CHARS = 32


class WallTokenUnusable(GiveUp):
    """The file with the token cannot be read, or its token is too short."""


def read_wall_token(file: Path) -> Secret:
    """Return the token. Raises WallTokenUnusable."""
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        message = f"JUSTENOUGH_WALL_TOKEN_FILE: cannot read {file}: {error}"
        raise WallTokenUnusable(message) from error
    if len(token) < MIN_TOKEN_CHARS:
        message = (
            f"JUSTENOUGH_WALL_TOKEN_FILE: the token in {file} has fewer than {MIN_TOKEN_CHARS} characters. Make one: openssl rand -hex 32"
        )
        raise WallTokenUnusable(message)
    return Secret(token)


def cookie_value(token: Secret) -> Secret:
    """Return the value of a screen's cookie: a digest, so that the cookie does not reveal the token."""
    return Secret(hashlib.sha256(f"wall:{token.reveal()}".encode()).hexdigest())


def is_same(one: Secret, other: Secret) -> bool:
    """Compare two secrets in constant time."""
    return hmac.compare_digest(one.reveal().encode(), other.reveal().encode())
