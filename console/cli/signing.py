"""Signs what a person says with their own key, which is Vault's. What they say is built by `justenough.stating`."""

from __future__ import annotations

from typing import Any

from console.cli.session import Session
from justenough.statements import Statement, canonical, signable


def signed(session: Session, statement: Statement) -> dict[str, Any]:
    """Return a statement and its signature as they travel."""
    raw = signable(statement)
    return {"statement": raw, "signature": session.sign(canonical(raw))}
