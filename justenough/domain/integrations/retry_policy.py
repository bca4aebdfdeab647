"""When what could not be delivered is tried again, and when no more. Pure: no I/O, no clock, no chance; they are arguments.

docs/reference/events.md tables these numbers and is tested against them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum

DELAYS = (5, 60, 300, 1_800, 7_200, 21_600, 54_000)
"""Seconds from each failed attempt to the next: eight attempts in about a day."""
REFUSED_DELAYS = DELAYS[:5]
"""Where the receiver answered and said no: the same again is heard alike, unless somebody mends something meanwhile."""
SPREAD = 0.2
"""The part of a delay that chance adds, so that receivers that come back are not met by all at once."""
MOST_PATIENCE = 3_600
"""Seconds for which a receiver may ask for quiet."""
GONE_REST = 3_600
"""Seconds for which a receiver that says 410 is left alone."""

_QUIET = frozenset({429, 503})
_LATER = frozenset({408, 425, 429})


class Fault(StrEnum):
    """Why something was not delivered, by what is done about it."""

    AWAY = "away"
    """The receiver did not answer, or not well: it is tried for about a day."""
    REFUSED = "refused"
    """It may not be sent there, or the receiver said no: it is tried for some hours."""
    GONE = "gone"
    """The receiver wants nothing any more: it is not tried again."""


@dataclass(frozen=True, slots=True)
class Told:
    """Somebody was told of something that will be settled one day."""

    about: str
    target: str
    """`<path>#<field>` of an Apprise URL in Vault; never the URL."""
    tier: int
    job: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one attempt; no fault where it was delivered, or there was nothing to deliver any more."""

    fault: Fault | None = None
    why: str = ""
    """One short line: a status, never a body."""
    rest: int = 0
    """Seconds for which the receiver is left alone."""
    told: tuple[Told, ...] = ()
    """Who has learned of it, also where others have not."""
    untold: tuple[Told, ...] = ()
    """Who has learned how it ended."""
    nothing: bool = False
    """Whether there was nobody to tell."""


def fault_of(status: int) -> Fault | None:
    """Return what an HTTP status says; None for what is well."""
    if 200 <= status < 300:
        return None
    if status == 410:
        return Fault.GONE
    return Fault.REFUSED if 300 <= status < 500 and status not in _LATER else Fault.AWAY


def answered(status: int, phrase: str, *, retry_after: str | None, now: datetime) -> Outcome:
    """Return the outcome of an answer; `phrase` is ours, not the receiver's."""
    fault = fault_of(status)
    asked = _seconds(retry_after, now=now) if status in _QUIET and retry_after else 0
    return Outcome(fault, f"{status} {phrase}".strip(), rest=GONE_REST if fault is Fault.GONE else asked)


def next_attempt(outcome: Outcome, *, attempts: int, now: datetime, chance: float) -> datetime | None:
    """Return when to try again after so many attempts; None where no more. `chance`: from 0 to 1."""
    delays = {Fault.AWAY: DELAYS, Fault.REFUSED: REFUSED_DELAYS}.get(outcome.fault or Fault.GONE, ())
    if attempts > len(delays):
        return None
    return now + timedelta(seconds=max(delays[attempts - 1] * (1 + SPREAD * chance), outcome.rest))


def _seconds(text: str, *, now: datetime) -> int:
    """Return the seconds that a Retry-After asks for, within bounds; 0 where it is not readable."""
    if re.fullmatch(r"[0-9]{1,9}", text.strip()):
        return min(int(text), MOST_PATIENCE)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return 0
    until = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max(0, round((until - now).total_seconds())), MOST_PATIENCE)
