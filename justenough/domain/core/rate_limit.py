"""A token bucket for rate limits. No I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class TokenBucket:
    """An immutable token bucket: `capacity` tokens at once, refilled at `per_second`."""

    capacity: float
    per_second: float
    left: float
    at: float
    """Monotonic time in seconds at which `left` was computed."""

    @classmethod
    def full(cls, *, capacity: float, per_second: float, now: float) -> TokenBucket:
        return cls(capacity, per_second, capacity, now)

    def take(self, *, now: float) -> TokenBucket | None:
        """Return the bucket with one token less, or None if it has none."""
        return self.charge(1, now=now) if self._tokens_at(now) >= 1 else None

    def charge(self, tokens: float, *, now: float) -> TokenBucket:
        """Return the bucket with this many tokens less. The number may become negative."""
        return replace(self, left=self._tokens_at(now) - tokens, at=now)

    def seconds_until_next(self, *, now: float) -> float:
        """Return the seconds until it has a token again."""
        return max(0.0, (1 - self._tokens_at(now)) / self.per_second)

    def _tokens_at(self, now: float) -> float:
        return min(self.capacity, self.left + (now - self.at) * self.per_second)
