"""Decides when failed deliveries are retried, and when they are given up. No I/O. Time and randomness are arguments.

docs/reference/events.md lists these numbers and is tested against them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum

RETRY_DELAYS_S = (5, 60, 300, 1_800, 7_200, 21_600, 54_000)
"""Seconds from each failed attempt to the next: eight attempts in about a day."""
REFUSED_RETRY_DELAYS_S = RETRY_DELAYS_S[:5]
"""The delays if the receiver rejected the delivery. A retry only helps if somebody fixes the cause."""
JITTER = 0.2
"""Up to this fraction of a delay is added at random, so that a recovering receiver is not flooded."""
MAX_RETRY_AFTER_S = 3_600
"""The maximum of a receiver's Retry-After, in seconds."""
GONE_REST_S = 3_600
"""Seconds without deliveries to a receiver that answered 410."""

_QUIET = frozenset({429, 503})
_LATER = frozenset({408, 425, 429})


class DeliveryFault(StrEnum):
    """Why a delivery failed. This determines how long it is retried."""

    AWAY = "away"
    """The receiver did not answer, or answered with a server error: retried for about a day."""
    REFUSED = "refused"
    """The address is not allowed, or the receiver rejected it: retried for some hours."""
    GONE = "gone"
    """The receiver wants no more deliveries: not retried."""


@dataclass(frozen=True, slots=True)
class SentNotice:
    """A notice that was sent, and that a later event settles."""

    about: str
    target: str
    """`<path>#<field>` of an Apprise URL in Vault; never the URL."""
    tier: int
    job: str


@dataclass(frozen=True, slots=True)
class DeliveryOutcome:
    """The outcome of one attempt; no fault if it was delivered, or if there was nothing left to deliver."""

    fault: DeliveryFault | None = None
    why: str = ""
    """One short line: a status, never a body."""
    rest: int = 0
    """Seconds without further deliveries to the receiver."""
    sent_notices: tuple[SentNotice, ...] = ()
    """The notices that were sent, even if others failed."""
    settled_notices: tuple[SentNotice, ...] = ()
    """The earlier notices whose follow-up was sent."""
    nothing: bool = False
    """Whether there was nobody to notify."""


def fault_of(status: int) -> DeliveryFault | None:
    """Return the fault of an HTTP status; None for a 2xx status."""
    if 200 <= status < 300:
        return None
    if status == 410:
        return DeliveryFault.GONE
    return DeliveryFault.REFUSED if 300 <= status < 500 and status not in _LATER else DeliveryFault.AWAY


def outcome_of_answer(status: int, phrase: str, *, retry_after: str | None, now: datetime) -> DeliveryOutcome:
    """Return the outcome of an HTTP response. `phrase`: the standard phrase of the status, not the receiver's text."""
    fault = fault_of(status)
    rest = _retry_after_seconds(retry_after, now=now) if status in _QUIET and retry_after else 0
    return DeliveryOutcome(fault, f"{status} {phrase}".strip(), rest=GONE_REST_S if fault is DeliveryFault.GONE else rest)


def next_attempt(outcome: DeliveryOutcome, *, attempts: int, now: datetime, chance: float) -> datetime | None:
    """Return when to retry after this many attempts; None to give up. `chance`: a random number from 0 to 1."""
    delays = RETRY_DELAYS_S if outcome.fault is DeliveryFault.AWAY else REFUSED_RETRY_DELAYS_S
    if outcome.fault in {None, DeliveryFault.GONE} or attempts > len(delays):
        return None
    return now + timedelta(seconds=max(delays[attempts - 1] * (1 + JITTER * chance), outcome.rest))


def _retry_after_seconds(text: str, *, now: datetime) -> int:
    """Return the seconds of a Retry-After header, at most MAX_RETRY_AFTER_S; 0 if it is invalid."""
    if re.fullmatch(r"[0-9]{1,9}", text.strip()):
        return min(int(text), MAX_RETRY_AFTER_S)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        # OverflowError: a year or a zone that no integer of the machine holds.
        return 0
    until = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max(0, round((until - now).total_seconds())), MAX_RETRY_AFTER_S)
