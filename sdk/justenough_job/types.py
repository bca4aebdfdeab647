"""The broker's answers other than credentials: the job's identity, and what it may request. Also parses durations."""

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
    """A signed token (JWT) that identifies this job to one audience. The repr omits `token`."""

    token: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True)
class Offer:
    """One action on one resource that this job may request, and what policy would decide now."""

    resource: str
    action: str
    title: str = ""
    outcome: str = ""
    """`allowed`, `needs_approval` or `denied`."""
    tier: int = 0
    """The tier that would have to approve; 0 if none."""
    max_ttl: int = 0
    """Seconds."""
    sensitivity: str = ""
    external: bool = False
    revocable: str = ""
    """The effect of a revocation: `now`, `on_expiry` or `never`."""
    policies: tuple[str, ...] = ()
    how: tuple[str, ...] = ()
    """The ways to request this access: the broker's path, or the tools that use it. Empty if policy denies the access."""


@dataclass(frozen=True)
class ToolOffer:
    """A tool that this job may call at the broker's /mcp, and what policy would decide about a call now."""

    name: str
    description: str = ""
    resource: str = ""
    action: str = ""
    outcome: str = ""
    """`allowed` or `needs_approval`."""
    tier: int = 0
    """The tier that would have to approve; 0 if none."""
    input: Mapping[str, Any] = field(default_factory=dict)
    """JSON Schema of its arguments."""
    how: str = ""


def tool_of(entry: Mapping[str, Any]) -> ToolOffer:
    """Return a tool from its catalog entry, ignoring fields that only a newer broker has."""
    known = {each.name for each in fields(ToolOffer)}
    return ToolOffer(**{name: value for name, value in entry.items() if name in known})


def offer_of(entry: Mapping[str, Any]) -> Offer:
    """Return an offer from its catalog entry, ignoring fields that only a newer broker has."""
    known = {each.name for each in fields(Offer)}
    lists = {name: tuple(entry.get(name, ())) for name in ("policies", "how")}
    return Offer(**{**{name: value for name, value in entry.items() if name in known}, **lists})


def moment_of(text: str) -> datetime:
    """Return an RFC 3339 time."""
    # Before 3.11 Python does not parse Z.
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def seconds_of(duration: str | float) -> float:
    """Return the seconds of `300`, `5m`, `1.5h`. Raises ValueError."""
    if not isinstance(duration, str):
        return float(duration)
    match = _DURATION.fullmatch(duration.strip())
    if not match:
        raise ValueError(f"{duration!r} is not a duration: write 30s, 5m, 2h")
    return float(match[1]) * _SECONDS[match[2]]
