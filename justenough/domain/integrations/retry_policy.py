"""When what could not be delivered is tried again, and when no more. Pure: no I/O, no clock, no chance; they are arguments.

docs/reference/events.md tables these numbers and is tested against them.
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
"""Where the receiver answered and said no: the same again is heard alike, unless somebody mends something meanwhile."""
JITTER = 0.2
"""The part of a delay that chance adds, so that receivers that come back are not met by all at once."""
MAX_RETRY_AFTER_S = 3_600
"""Seconds for which a receiver may ask for quiet."""
GONE_REST_S = 3_600
"""Seconds for which a receiver that says 410 is left alone."""

_QUIET = frozenset({429, 503})
_LATER = frozenset({408, 425, 429})


class DeliveryFault(StrEnum):
    """Why something was not delivered, by what is done about it."""

    AWAY = "away"
    """The receiver did not answer, or not well: it is tried for about a day."""
    REFUSED = "refused"
    """It may not be sent there, or the receiver said no: it is tried for some hours."""
    GONE = "gone"
    """The receiver wants nothing any more: it is not tried again."""


@dataclass(frozen=True, slots=True)
class SentNotice:
    """Somebody was told of something that will be settled one day."""

    about: str
    target: str
    """`<path>#<field>` of an Apprise URL in Vault; never the URL."""
    tier: int
    job: str


@dataclass(frozen=True, slots=True)
class DeliveryOutcome:
    """What became of one attempt; no fault where it was delivered, or there was nothing to deliver any more."""

    fault: DeliveryFault | None = None
    why: str = ""
    """One short line: a status, never a body."""
    rest: int = 0
    """Seconds for which the receiver is left alone."""
    told: tuple[SentNotice, ...] = ()
    """Who has learned of it, also where others have not."""
    untold: tuple[SentNotice, ...] = ()
    """Who has learned how it ended."""
    nothing: bool = False
    """Whether there was nobody to tell."""


def fault_of(status: int) -> DeliveryFault | None:
    """Return what an HTTP status says; None for what is well."""
    if 200 <= status < 300:
        return None
    if status == 410:
        return DeliveryFault.GONE
    return DeliveryFault.REFUSED if 300 <= status < 500 and status not in _LATER else DeliveryFault.AWAY


def outcome_of_answer(status: int, phrase: str, *, retry_after: str | None, now: datetime) -> DeliveryOutcome:
    """Return the outcome of an answer; `phrase` is ours, not the receiver's."""
    fault = fault_of(status)
    asked = _retry_after_seconds(retry_after, now=now) if status in _QUIET and retry_after else 0
    return DeliveryOutcome(fault, f"{status} {phrase}".strip(), rest=GONE_REST_S if fault is DeliveryFault.GONE else asked)


def next_attempt(outcome: DeliveryOutcome, *, attempts: int, now: datetime, chance: float) -> datetime | None:
    """Return when to try again after so many attempts; None where no more. `chance`: from 0 to 1."""
    delays = {DeliveryFault.AWAY: RETRY_DELAYS_S, DeliveryFault.REFUSED: REFUSED_RETRY_DELAYS_S}.get(
        outcome.fault or DeliveryFault.GONE, ()
    )
    if attempts > len(delays):
        return None
    return now + timedelta(seconds=max(delays[attempts - 1] * (1 + JITTER * chance), outcome.rest))


def _retry_after_seconds(text: str, *, now: datetime) -> int:
    """Return the seconds that a Retry-After asks for, within bounds; 0 where it is not readable."""
    if re.fullmatch(r"[0-9]{1,9}", text.strip()):
        return min(int(text), MAX_RETRY_AFTER_S)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return 0
    until = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max(0, round((until - now).total_seconds())), MAX_RETRY_AFTER_S)
