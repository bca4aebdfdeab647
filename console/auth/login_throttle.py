"""Limits login attempts per name and address. Keeps a bounded number of counters in the memory of one console. Messages contain no names.

Wrong guesses from one address block a name only for that address. A guesser with many addresses can block the name for
addresses from which it has not logged in yet, but never for those from which it has.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv6Address, ip_address, ip_network

from justenough.domain.core.errors import GiveUp

WINDOW_S = 15 * 60.0
"""How long a failed attempt counts."""
MAX_TRIES = 5
"""Per name and address."""
MAX_TRIES_PER_NAME = 100
"""Counted over all addresses from which the name has not logged in."""
IPV6_NETWORK_BITS = 64
"""IPv6 addresses are counted by network, because one host can use any address in its network."""
MAX_TRIES_PER_ADDRESS = 50
"""Several people may share one address."""
MAX_KEYS = 20_000
"""Maximum number of counters, and of names with an address from which they logged in; beyond that, the oldest are dropped."""


class TooManyAttempts(GiveUp):
    """Too many login attempts; the message names the time of the next try."""


class LoginThrottle:
    """Counts attempts that failed or are still pending, so that concurrent attempts cannot exceed the limit. Use only on one event loop."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tries: OrderedDict[str, deque[float]] = OrderedDict()
        self._familiar: OrderedDict[str, None] = OrderedDict()
        """Pairs of name and address that have logged in."""

    def record_try(self, name: str, address: str) -> None:
        """Count an attempt. Raises TooManyAttempts without counting it."""
        limits = self._limits(name, address)
        for key, limit in limits.items():
            recent = self._tries.get(key, deque())
            while recent and self._clock() - recent[0] >= WINDOW_S:
                recent.popleft()
            if len(recent) >= limit:
                minutes = math.ceil((recent[0] + WINDOW_S - self._clock()) / 60)
                raise TooManyAttempts(f"too many login attempts; try again in {minutes} min")
        for key in limits:
            self._tries.setdefault(key, deque()).append(self._clock())
            self._tries.move_to_end(key)
        while len(self._tries) > MAX_KEYS:
            self._tries.popitem(last=False)

    def record_success(self, name: str, address: str) -> None:
        """Drop the name's attempts from this address and the successful one elsewhere; remember that the name logs in from here."""
        self.undo_try(name, address)
        both = next(iter(self._limits(name, address)))
        self._tries.pop(both, None)
        self._familiar[both] = None
        self._familiar.move_to_end(both)
        while len(self._familiar) > MAX_KEYS:
            self._familiar.popitem(last=False)

    def undo_try(self, name: str, address: str) -> None:
        """Stop counting an attempt that Vault did not answer."""
        for key in self._limits(name, address):
            if tries := self._tries.get(key):
                tries.pop()

    def _limits(self, name: str, address: str) -> dict[str, int]:
        """Return the keys that an attempt counts under, each with its limit. The first key combines name and address."""
        network = address
        with suppress(ValueError):
            ip = ip_address(address)
            if isinstance(ip, IPv6Address):
                # A dual-stack socket reports IPv4 as a mapped address; its /64 network would be all of IPv4.
                network = str(ip.ipv4_mapped or ip_network((int(ip), IPV6_NETWORK_BITS), strict=False))
        by_name, by_address = f"name {name.casefold()}", f"address {network}"
        both = f"{by_address} {by_name}"
        return {
            both: MAX_TRIES,
            by_address: MAX_TRIES_PER_ADDRESS,
            **({} if both in self._familiar else {by_name: MAX_TRIES_PER_NAME}),
        }
