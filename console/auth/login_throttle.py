"""Limits login attempts per name and per address. Keeps a bounded number of counters in the memory of one console. Messages contain no names."""

from __future__ import annotations

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv6Address, ip_address, ip_network

from justenough.domain.core.errors import GiveUp

WINDOW_S = 15 * 60.0
"""How long a failed attempt counts: as long as OpenBao locks a login name after five wrong passwords."""
MAX_TRIES_PER_NAME = 5
IPV6_NETWORK_BITS = 64
"""IPv6 addresses are counted by network, because one host can use any address in its network."""
MAX_TRIES_PER_ADDRESS = 50
"""Several people may share one address."""
MAX_KEYS = 20_000
"""Names and addresses counted at the same time; beyond that, those with the oldest attempts are dropped."""


class TooManyTries(GiveUp):
    """Too many login attempts; the message names the time of the next try."""


class LoginThrottle:
    """Counts attempts that failed or are still pending, so that concurrent attempts cannot exceed the limit. Use only on one event loop."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tries: OrderedDict[str, deque[float]] = OrderedDict()

    def __len__(self) -> int:
        """Return how many names and addresses are counted."""
        return len(self._tries)

    def record_try(self, name: str, address: str) -> None:
        """Count an attempt. Raises TooManyTries without counting it."""
        keys = _keys(name, address)
        for key, limit in keys.items():
            recent = self._tries.get(key, deque())
            while recent and self._clock() - recent[0] >= WINDOW_S:
                recent.popleft()
            if len(recent) >= limit:
                minutes = math.ceil((recent[0] + WINDOW_S - self._clock()) / 60)
                raise TooManyTries(f"too many login attempts; try again in {minutes} min")
        for key in keys:
            self._tries.setdefault(key, deque()).append(self._clock())
            self._tries.move_to_end(key)
        while len(self._tries) > MAX_KEYS:
            self._tries.popitem(last=False)

    def record_success(self, name: str, address: str) -> None:
        """Drop the attempts of the name, and the successful one of the address."""
        by_name, by_address = _keys(name, address)
        self._tries.pop(by_name, None)
        self._drop_last_try(by_address)

    def undo_try(self, name: str, address: str) -> None:
        """Stop counting an attempt that Vault did not answer."""
        for key in _keys(name, address):
            self._drop_last_try(key)

    def _drop_last_try(self, key: str) -> None:
        if tries := self._tries.get(key):
            tries.pop()


def _keys(name: str, address: str) -> dict[str, int]:
    """Return the keys that an attempt counts under, each with its limit."""
    network = address
    with suppress(ValueError):
        ip = ip_address(address)
        if isinstance(ip, IPv6Address):
            # A dual-stack socket reports IPv4 as a mapped address; its /64 network would be all of IPv4.
            network = str(ip.ipv4_mapped or ip_network((int(ip), IPV6_NETWORK_BITS), strict=False))
    return {f"name {name.casefold()}": MAX_TRIES_PER_NAME, f"address {network}": MAX_TRIES_PER_ADDRESS}
