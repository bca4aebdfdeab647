"""How often somebody may ask: an allowance that fills up with time, and how often a job has people asked. No I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Allowance:
    """So many at once, and so many a second after that. A value; asking returns what is left."""

    most: float
    per_second: float
    left: float
    at: float
    """Ticks, in seconds, when `left` was right."""

    @classmethod
    def full(cls, *, most: float, per_second: float, now: float) -> Allowance:
        """Return an allowance that nobody has used."""
        return cls(most, per_second, most, now)

    def taken(self, *, now: float) -> Allowance | None:
        """Return what is left once one more is taken; None where there is not one."""
        left = min(self.most, self.left + (now - self.at) * self.per_second)
        return replace(self, left=left - 1, at=now) if left >= 1 else None

    def wait(self, *, now: float) -> float:
        """Return the seconds until there is one again."""
        left = min(self.most, self.left + (now - self.at) * self.per_second)
        return max(0.0, (1 - left) / self.per_second)
