"""What the broker tells beside credentials: who the job is, what it may ask for. And how durations are written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d)?")
_SECONDS = {None: 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Identity:
    """A signed token (JWT) that says which job this is, to one audience. It never prints; `str(identity.token)` is the token."""

    token: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True)
class Offer:
    """One action on one resource that this job may ask for, and what policy would say now."""

    resource: str
    action: str
    title: str = ""
    outcome: str = ""
    """`allowed`, `needs_approval` or `denied`."""
    tier: int = 0
    """The tier of people who would be asked; 0 where nobody is."""
    max_ttl: int = 0
    """Seconds."""
    sensitivity: str = ""
    external: bool = False
    revocable: str = ""
    """What revoking can achieve: `now`, `on_expiry` or `never`."""
    policies: tuple[str, ...] = ()
    how: tuple[str, ...] = ()
    """The ways in which it is had: the broker's path, the tools that use it. None where policy denies it."""


@dataclass(frozen=True)
class ToolOffer:
    """A tool that this job may have used for it at the broker's /mcp, and what policy would say of a call now."""

    name: str
    description: str = ""
    resource: str = ""
    action: str = ""
    outcome: str = ""
    """`allowed` or `needs_approval`."""
    tier: int = 0
    """The tier of people who would be asked; 0 where nobody is."""
    input: Mapping[str, Any] = field(default_factory=dict)
    """JSON Schema of its arguments."""
    how: str = ""


def tool_of(entry: Mapping[str, Any]) -> ToolOffer:
    """Return a tool as it was told; what a newer broker tells beside is left out."""
    known = {one.name for one in fields(ToolOffer)}
    return ToolOffer(**{name: value for name, value in entry.items() if name in known})


def offer_of(entry: Mapping[str, Any]) -> Offer:
    """Return an offer as it was told; what a newer broker tells beside is left out."""
    known = {one.name for one in fields(Offer)}
    lists = {name: tuple(entry.get(name, ())) for name in ("policies", "how")}
    return Offer(**{**{name: value for name, value in entry.items() if name in known}, **lists})


def moment_of(text: str) -> datetime:
    """Return an RFC 3339 time."""
    # Before 3.11 Python reads no Z.
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def seconds_of(duration: str | float) -> float:
    """Return the seconds of `300`, `5m`, `1.5h`. Raises ValueError."""
    if not isinstance(duration, str):
        return float(duration)
    found = _DURATION.fullmatch(duration.strip())
    if not found:
        raise ValueError(f"{duration!r} is no duration: write 30s, 5m, 2h")
    return float(found[1]) * _SECONDS[found[2]]
