"""What past runs asked for, were granted and used: the facts that right-sizing and the catalog's review go by. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from justenough.domain.core.base_model import Message


class AccessKey(NamedTuple):
    """What an access item asks for, whatever else it says."""

    resource: str
    action: str


@dataclass(frozen=True, slots=True)
class CredentialUse:
    """One credential that was issued."""

    began: datetime
    ended: datetime | None
    """When it was revoked, was seen dead, or its job was over, whatever was first; None where nobody knows."""
    delivered: bool
    """Whether the process was handed it, rather than the broker keeping it."""
    seen: bool
    """Whether anybody saw it being used."""


@dataclass(frozen=True, slots=True)
class PastRequest:
    """One request of a run, and what came of it."""

    key: AccessKey
    ttl: int
    """Seconds."""
    granted: bool
    refused: bool
    """Denied, or nobody answered."""
    granted_ttl: int | None
    """Seconds, where a person decided."""
    granted_action: str | None
    """Where a person decided: what was asked, or something narrower."""
    uses: tuple[CredentialUse, ...] = ()

    @property
    def resulting_action(self) -> str:
        """The action that it came to."""
        return self.granted_action or self.key.action

    @property
    def seconds(self) -> float | None:
        """How long it was used: from its first issue to the last one's end; None where that is not known."""
        ends = [use.ended for use in self.uses]
        if not ends or None in ends:
            return None
        return max(0.0, (max(end for end in ends if end) - min(use.began for use in self.uses)).total_seconds())


@dataclass(frozen=True, slots=True)
class PastRun:
    """One past run."""

    job: str
    ran: bool
    """Whether its process was started."""
    offered: frozenset[AccessKey]
    """What its own spec asked for."""
    asks: tuple[PastRequest, ...]


class ActionUse(Message):
    """What was asked of one action of a resource in a time, over all jobs."""

    resource: str
    action: str
    asked: int
    """Requests."""
    granted: int
    narrowed: int
    """Granted for less than was asked."""
    longest_granted: int | None
    """Seconds."""
    last_issued: datetime | None
    """Whenever that was."""
    scopes: tuple[dict[str, str], ...]
    """The data scopes of the jobs that asked."""
    whole: bool
    """Whether every request of the time was looked at, or only the newest ones."""


def requested_keys(spec: Mapping[str, Any]) -> frozenset[AccessKey]:
    """Return what a raw spec asks for."""
    return frozenset(access_key_of(item) for item in spec.get("access") or ())


def delivered_keys(spec: Mapping[str, Any]) -> frozenset[AccessKey]:
    """Return what of it a raw spec has handed to its process."""
    return frozenset(access_key_of(item) for item in spec.get("access") or () if is_delivered(item))


def access_key_of(item: Mapping[str, Any]) -> AccessKey:
    """Return what a raw access item asks for."""
    return AccessKey(item["resource"], item["action"])


def is_delivered(item: Mapping[str, Any]) -> bool:
    """Whether the process is handed the credential of a raw access item."""
    deliver = item.get("deliver") or {}
    return any(deliver.get(way) for way in ("env", "file", "pgpass", "kubeconfig"))
