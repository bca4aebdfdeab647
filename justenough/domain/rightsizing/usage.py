"""Requests, grants and use of past runs: the input of right-sizing and of the catalog's review. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from justenough.domain.core.base_model import Message
from justenough.domain.core.units import parse_duration
from justenough.domain.jobs.spec import Delivery


class AccessKey(NamedTuple):
    """The resource and action of an access item."""

    resource: str
    action: str


@dataclass(frozen=True, slots=True)
class CredentialUse:
    began: datetime
    ended: datetime | None
    """When it was revoked, was verified as ended, or its job ended, whichever came first; None if unknown."""
    delivered: bool
    """Whether it was delivered to the process; if not, only the broker had it."""
    seen: bool
    """Whether its use was observed."""


@dataclass(frozen=True, slots=True)
class PastRequest:
    """One request of a run and its outcome."""

    key: AccessKey
    ttl: int
    """Seconds."""
    granted: bool
    refused: bool
    """Denied or expired."""
    granted_ttl: int | None
    """Seconds, if a person decided."""
    granted_action: str | None
    """If a person decided: the requested action, or a narrower one."""
    uses: tuple[CredentialUse, ...] = ()
    is_ttl_named: bool = False
    """Whether the program named the ttl: it is shorter than the order's."""

    @property
    def resulting_action(self) -> str:
        """The granted action, or else the requested one."""
        return self.granted_action or self.key.action

    @property
    def seconds(self) -> float | None:
        """Seconds from its first credential's issue to its last one's end; None if unknown."""
        ends = [use.ended for use in self.uses]
        if not ends or None in ends:
            return None
        return max(0.0, (max(end for end in ends if end) - min(use.began for use in self.uses)).total_seconds())


@dataclass(frozen=True, slots=True)
class PastRun:
    job: str
    ran: bool
    """Whether its process was started."""
    offered: frozenset[AccessKey]
    """The access that its spec requested."""
    requests: tuple[PastRequest, ...]
    passed_on: frozenset[AccessKey] = frozenset()
    """The access that jobs which it launched requested, themselves or through other jobs. They may have no more than its spec requests."""


class ActionUse(Message):
    """The requests for one action of a resource in a period, over all jobs."""

    resource: str
    action: str
    asked: int
    """Requests."""
    granted: int
    narrowed: int
    """Granted for less than requested."""
    longest_granted: int | None
    """Seconds."""
    last_issued: datetime | None
    """When it was last issued, at any time, not only in the period."""
    scopes: tuple[dict[str, str], ...]
    """The data scopes of the requesting jobs."""
    whole: bool
    """Whether all requests of the period were counted; else only the newest ones."""


def requested_keys(spec: Mapping[str, Any]) -> frozenset[AccessKey]:
    """Return the access that a raw spec requests."""
    return frozenset(access_key_of(item) for item in spec.get("access") or ())


def requested_ttls(spec: Mapping[str, Any], key: AccessKey) -> frozenset[int]:
    """Return the ttls, in seconds, of the items of a raw spec that request an access."""
    return frozenset(parse_duration(item["ttl"]) for item in spec.get("access") or () if access_key_of(item) == key)


def delivered_keys(spec: Mapping[str, Any]) -> frozenset[AccessKey]:
    """Return the access whose credentials a raw spec delivers to its process."""
    return frozenset(access_key_of(item) for item in spec.get("access") or () if is_delivered(item))


def access_key_of(item: Mapping[str, Any]) -> AccessKey:
    """Return the resource and action of a raw access item."""
    return AccessKey(item["resource"], item["action"])


def is_delivered(item: Mapping[str, Any]) -> bool:
    """Whether a raw access item delivers its credential to the process."""
    deliver = item.get("deliver") or {}
    return any(deliver.get(way) for way in Delivery.model_fields)
