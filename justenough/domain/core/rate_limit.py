"""How often somebody may ask: an allowance that fills up with time, and how often a job has people asked. No I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class TokenBucket:
    """So many at once, and so many a second after that. A value; asking returns what is left."""

    capacity: float
    per_second: float
    left: float
    at: float
    """Ticks, in seconds, when `left` was right."""

    @classmethod
    def full(cls, *, capacity: float, per_second: float, now: float) -> TokenBucket:
        """Return an allowance that nobody has used."""
        return cls(capacity, per_second, capacity, now)

    def take(self, *, now: float) -> TokenBucket | None:
        """Return what is left once one more is taken; None where there is not one."""
        left = min(self.capacity, self.left + (now - self.at) * self.per_second)
        return replace(self, left=left - 1, at=now) if left >= 1 else None

    def seconds_until_next(self, *, now: float) -> float:
        """Return the seconds until there is one again."""
        left = min(self.capacity, self.left + (now - self.at) * self.per_second)
        return max(0.0, (1 - left) / self.per_second)
